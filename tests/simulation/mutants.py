"""Plants each bug of the table, one at a time, and sees that its suite finds it.

    python -m tests.simulation.mutants                 all of them (make mutants)
    python -m tests.simulation.mutants --only 8        those of one number
    python -m tests.simulation.mutants --write         all of them, and write MUTANTS.md

Each bug is planted in a process of its own. A failure that only shows that the planted code does
not fit the product any more (`ROTTEN`) is no catch. Afterwards every suite is run as far as it was
needed without any bug, and must find nothing. Exit code 1: a bug survived.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from corelane.model.record import record
from tests.simulation.mutant_table import BUGS, ROWS, Row, place, replacement
from tests.simulation.suites import ROOT, SUITES, Found

TABLE: Final = Path(__file__).with_name("MUTANTS.md")
CHILD_SECONDS_MAX: Final = 240
NICE: Final = 10
ROTTEN: Final = ("TypeError", "AttributeError", "NameError", "UnboundLocalError")
"""What planted code raises that was written for another product."""
HEAD: Final = """# Planted bugs

Written by `make mutants ARGS=--write`. Each bug is planted by replacing a function, a constant or
one line in a process of its own; the suite named beside it must fail, and must not fail without.
*After*: how many seeds or tests were run, the failing one included.
"""


@record
class Result:
    """What became of one row."""

    row: Row
    found: Found
    seconds: float

    @property
    def is_caught(self) -> bool:
        """Whether the suite failed, and for the bug's sake."""
        return bool(self.found.steps and self.found.exception) and (
            self.found.exception not in ROTTEN
        )


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", type=int, choices=sorted(BUGS), metavar="N")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    parser.add_argument("--planted", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--clean", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.planted is not None:
        return _child(_with_bug(options.planted))
    if options.clean is not None:
        name, steps = options.clean
        suite = next(each for each in SUITES if each.name == name)
        return _child(suite.run(int(steps)))
    assert not (options.write and options.only), "the table has all of them"
    return _run(options.only, is_written=options.write)


def _with_bug(at: int) -> Found:
    """Run a row's suite with its bug in place."""
    row = ROWS[at]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REWRITE", raising=False)
        patch.setattr(row.plant.owner, row.plant.attribute, replacement(row.plant))
        return row.suite.run(row.suite.steps_max)


def _child(found: Found) -> int:
    print(json.dumps([found.steps, found.failure, found.exception]), flush=True)
    return 0


def _ask(*arguments: str) -> tuple[Found, float]:
    """Have a process of its own run a suite."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.simulation.mutants", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS_MAX,
            check=False,
            preexec_fn=lambda: os.nice(NICE),
        )
    except subprocess.TimeoutExpired:
        return Found(0, "", f"time is up after {CHILD_SECONDS_MAX} s"), CHILD_SECONDS_MAX
    seconds = time.monotonic() - began
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        return Found(0, "", lines[-1]), seconds
    return Found(*json.loads(done.stdout.splitlines()[-1])), seconds


def _run(only: int | None, *, is_written: bool) -> int:
    rows = [(at, row) for at, row in enumerate(ROWS) if only in {None, row.number}]
    results = []
    for done, (at, row) in enumerate(rows, 1):
        _progress(f"[{done}/{len(rows)}] ({row.number}) {row.plant.name}: {row.suite.name}")
        result = Result(row, *_ask("--planted", str(at)))
        results.append(result)
        _progress("")
        print(_line(result), flush=True)
    needed: dict[str, int] = {}
    for each in results:
        needed[each.row.suite.name] = max(needed.get(each.row.suite.name, 0), each.found.steps)
    suites = [(suite, needed[suite.name]) for suite in SUITES if needed.get(suite.name)]
    faults = []
    for suite, steps in suites:
        _progress(f"without a bug: {suite.name}, {steps} {suite.unit}")
        found, seconds = _ask("--clean", suite.name, str(steps))
        _progress("")
        is_clean = not found.exception and found.steps == steps
        came = "finds nothing" if is_clean else f"fails: {said(found)}"
        print(f"without a bug {suite.name} {came} ({steps} {suite.unit}, {seconds:.0f} s)")
        faults += [] if is_clean else [suite.name]
    faults += [result.row.plant.name for result in results if not result.is_caught]
    if is_written:
        notes = [f"{suite.name} {steps} {suite.unit}" for suite, steps in suites]
        TABLE.write_text(_table(results, notes))
    print(f"{sum(result.is_caught for result in results)} of {len(results)} planted bugs caught")
    return 1 if faults else 0


def _progress(text: str) -> None:
    """Say on a terminal, and nowhere else, what is under way."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def said(found: Found) -> str:
    """Return what a failure said, or at least what it was."""
    return found.failure or found.exception


def _line(result: Result) -> str:
    row, found = result.row, result.found
    head = f"({row.number}) {row.plant.name} [{place(row.plant)}]"
    if result.is_caught:
        after = f"{found.steps} {row.suite.unit}, {result.seconds:.1f} s"
        return f"{head}: {row.suite.name} after {after}: {said(found)}"
    if found.exception:
        return f"{head}: NOT PLANTED: {found.exception} {found.failure}"
    return f"{head}: SURVIVED {found.steps} {row.suite.unit} of {row.suite.name}"


def _table(results: list[Result], notes: list[str]) -> str:
    """Return the table as Markdown."""
    lines = [
        HEAD,
        "| | bug | planted as | where | caught by | after | s | what it said |",
        "| --: | --- | --- | --- | --- | --: | --: | --- |",
    ]
    for number, bug in BUGS.items():
        lines += [_cells(each, bug) for each in results if each.row.number == number]
    caught = sum(result.is_caught for result in results)
    lines += ["", f"{caught} of {len(results)} caught. Without a bug nothing fails in: "]
    lines[-1] += ", ".join(notes) + "."
    return "\n".join(lines) + "\n"


def _cells(result: Result, bug: str) -> str:
    row, found = result.row, result.found
    name = row.plant.name.removesuffix(f" ({row.number})")
    caught = row.suite.name if result.is_caught else f"**not by {row.suite.name}**"
    cells = [
        str(row.number),
        bug,
        name,
        f"`{place(row.plant)}`",
        caught,
        f"{found.steps} {row.suite.unit}",
        f"{result.seconds:.1f}",
        said(found).replace("|", "/").replace("`", "'"),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
