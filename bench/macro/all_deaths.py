"""Runs `deaths.py` in all its shapes and writes `results/GAPS.json` and the page beside it.

`python -m bench.macro.all_deaths` takes about twenty minutes for everything. In pieces:
`--shape NAME ...` runs these only, and what is not run again is kept from the file; `--times N`
loses a node so often instead; `--add` keeps what an earlier piece measured of the same shape, too.
Where a loss fails, the losses before it are kept, and the page says what failed. `--quick` loses a
node once in each shape: it shows that all of it works.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from bench.macro import measure
from bench.macro.run import DISK, RESULTS

SHAPES: dict[str, tuple[str, list[str]]] = {
    "raw": ("kill -9, a client that does nothing else", ["--client", "raw", "--kills", "10"]),
    "librdkafka": (
        "kill -9, librdkafka at its default settings",
        ["--client", "librdkafka", "--kills", "10"],
    ),
    "java": ("kill -9, Java at its default settings", ["--client", "java", "--kills", "10"]),
    "stop": ("SIGSTOP", ["--client", "raw", "--stops", "4"]),
    "cut": ("cut off: all it sends and is sent is lost", ["--client", "raw", "--cuts", "4"]),
    "wide": (
        "kill -9, 1,000 partitions: 1,000 groups on each core",
        ["--client", "raw", "--kills", "3", "--partitions", "1000"],
    ),
    "kafka": (
        "Kafka, kill -9, a client that does nothing else",
        ["--broker", "kafka", "--client", "raw", "--kills", "3"],
    ),
}
COLUMNS = (
    "what happened", "times", "worst gap of what it led", "of the others", "s until all are led",
    "terms p99", "terms max", "elections", "vote messages",
)  # fmt: skip
DEATHS = [sys.executable, "-m", "bench.macro.deaths"]
COUNTS = ("--kills", "--stops", "--cuts")

Rows = list[dict[str, Any]]


def main() -> int:
    """Run what is wanted, and write figures and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", "--only", nargs="+", choices=SHAPES, default=[*SHAPES])
    parser.add_argument("--times", "--kills", type=int, help="how often a node is lost in each")
    parser.add_argument("--add", action="store_true", help="to what the file has of the shape")
    parser.add_argument("--quick", action="store_true", help="the same as --times 1")
    parser.add_argument("--output", type=Path, default=RESULTS / "GAPS.json")
    options = parser.parse_args()
    times = 1 if options.quick else options.times
    result: dict[str, Any] = {"shapes": {}}
    if options.output.exists():
        result = json.loads(options.output.read_text())
    failed: list[str] = []
    for name in options.shape:
        rows, failure = run(SHAPES[name][1], times)
        result["machine"] = measure.machine(DISK)
        keep(result, name, rows, failure, is_added=options.add)
        failed += [name] if failure else []
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        page = options.output.with_suffix(".md")
        page.write_text(render(result, options.output.name))
    print(f"written: {options.output} and the page beside it")
    if failed:
        print(f"a loss failed in: {', '.join(failed)}; the page says why")
    return 1 if failed else 0


def keep(
    result: dict[str, Any], name: str, rows: Rows, failure: str | None, *, is_added: bool
) -> None:
    """Take in what a shape came to; what it came to before goes on to count if so wished."""
    failures = result.setdefault("failures", {})
    former, told = result["shapes"].get(name, []), failures.pop(name, [])
    if not is_added and rows:
        former, told = [], []
    result["shapes"][name] = former + rows
    if failure is not None:
        told = [*told, failure]
    if told:
        failures[name] = told


def run(arguments: list[str], times: int | None = None) -> tuple[Rows, str | None]:
    """Run one shape in a process of its own; return its losses, and why there are no more."""
    arguments = [*arguments]
    for name in COUNTS:
        if name in arguments and times is not None:
            arguments[arguments.index(name) + 1] = str(times)
    with tempfile.TemporaryDirectory(prefix="all-deaths-") as directory:
        kept = Path(directory) / "rows.json"
        command = [*DEATHS, *arguments, "--json", str(kept)]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        sys.stderr.write(ran.stderr)
        rows: Rows = json.loads(kept.read_text()) if kept.exists() else []
    if ran.returncode == 0:
        return rows, None
    said = [line for line in ran.stderr.splitlines() if line.strip()]
    return rows, said[-1].strip() if said else f"it ended with code {ran.returncode}"


def render(result: dict[str, Any], source: str) -> str:
    """Return the page."""
    made = (
        f"Made by `python -m bench.macro.all_deaths` from `{source}`; never edited. Three nodes of"
        " one core each and the client share the CPUs of one machine. A topic of 300 partitions"
        " with three replicas is produced to all the time, to each partition again and again,"
        " acks=all; the node that leads the most, a third, is lost. A gap is the time between two"
        " acknowledgements of a partition (one that has not ended counts as long as it is), the"
        " worst of all partitions and all losses; shorter ones than 0.25 s are not told. Terms are"
        " those that a partition of the lost node went through, elections and vote messages"
        " (requests, for pre-votes too, and answers) what all nodes that live came to together."
        " Where nodes are cut off, they are in network namespaces, with disks of memory."
    )
    lines = ["# How long partitions are away when a node dies", "", *textwrap.wrap(made, 100), ""]
    lines += [f"- {name}: {value}" for name, value in result["machine"].items()]
    lines += [
        "",
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    for name, (what, _) in SHAPES.items():
        rows = result["shapes"].get(name)
        if rows:
            lines.append(_line(what, rows))
    failures = result.get("failures", {})
    if failures:
        lines += ["", "What failed, and is not in the figures:", ""]
    for name, sentences in failures.items():
        lines += [f"- {SHAPES[name][0]}: {each}" for each in sentences]
    return "\n".join(lines) + "\n"


def _line(what: str, rows: Rows) -> str:
    def worst(figure: str) -> float:
        return max(float(row[figure]) for row in rows)

    def gap(figure: str) -> str:
        return f"{worst(figure):.2f} s" if worst(figure) else "below 0.25 s"

    is_kafka = rows[0]["broker"] == "kafka"
    counted = ["-", "-"]
    if not is_kafka:
        counted = [f"{worst(figure):,.0f}" for figure in ("elections", "votes")]
    cells = [
        what, str(len(rows)), gap("gap_led_s"), gap("gap_others_s"), f"{worst('led_again_s'):.2f}",
        f"{worst('terms_p99'):.0f}", f"{worst('terms_max'):.0f}", *counted,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
