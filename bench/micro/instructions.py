"""Counts instructions of the micro cases, and compares them with the committed figures.

`make bench-micro` takes about two minutes and fails when a case needs 5 % more than was committed
in `bench/results/INSTRUCTIONS.json`. Instructions are the same on a busy machine as on a quiet one;
what a system call costs is not among them. Figures hold for one interpreter: with another one
`make bench-micro ARGS=--accept` writes those of this machine, which is also how a change for the
better, or one that is worth its price, is committed.

callgrind knows no AVX-512: the checksum takes the way it has without.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parents[1] / "results" / "INSTRUCTIONS.json"
MARK: Final = "cl_crc32c_select"
"""A function of the C core that nothing measured calls; callgrind writes a part before each."""
WORSE_MAX: Final = 0.05
RUN_S_MAX: Final = 900
_TOTALS: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)
_PART: Final = re.compile(r"^part: (\d+)", re.MULTILINE)

Figures = dict[str, dict[str, float | str]]


def main() -> int:
    """Count, compare, and say what has changed."""
    parser = argparse.ArgumentParser(prog="make bench-micro ARGS=…", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="write the figures of this state")
    parser.add_argument("--only", nargs="+", default=[], help="some of the cases")
    given = parser.parse_args()
    found = counted(given.only)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    mine: Figures = known.get(interpreter(), {})
    for name, figure in found.items():
        print(_line(name, figure, mine.get(name)))
    if given.accept:
        known[interpreter()] = mine | found
        RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        print(f"\nwritten: {RESULTS}")
        return 0
    if not mine:
        print(f"\nno figures of {interpreter()} are committed: see --accept")
        return 1
    slower = worse(mine, found)
    if slower:
        print(f"\nmore than {WORSE_MAX:.0%} worse than committed: {', '.join(slower)}")
    return 1 if slower else 0


def worse(known: Figures, found: Figures) -> list[str]:
    """Return the cases that need more than is allowed, or that nobody has committed."""
    return [
        name
        for name, figure in found.items()
        if name not in known
        or float(figure["instructions"]) > float(known[name]["instructions"]) * (1 + WORSE_MAX)
    ]


def interpreter() -> str:
    """Return what the figures depend on beside the code."""
    version = sys.version_info
    return f"{sys.implementation.name} {version.major}.{version.minor}.{version.micro}"


def counted(only: list[str]) -> Figures:
    """Run the cases under callgrind; return instructions for one piece of work of each."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("valgrind is missing, which counts instructions: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="corelane-callgrind-") as directory:
        out = Path(directory) / "part"
        command = [valgrind, "--tool=callgrind", f"--dump-before={MARK}"]
        command += [f"--callgrind-out-file={out}", sys.executable, "-m", "bench.micro.cases", *only]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_S_MAX, env=environment, check=False
        )
        if done.returncode != 0:
            sys.exit(f"the cases failed under callgrind:\n{done.stdout}{done.stderr[-3000:]}")
        return figures(done.stdout, parts(Path(directory)))


def parts(directory: Path) -> list[int]:
    """Return the instructions of each part that was dumped, in order."""
    found: dict[int, int] = {}
    for path in directory.iterdir():
        text = path.read_text()
        number, totals = _PART.search(text), _TOTALS.search(text)
        assert number is not None, f"{path} is no part of callgrind's"
        assert totals is not None, f"{path} has no totals"
        found[int(number[1])] = int(totals[1])
    return [found[number] for number in sorted(found)]


def figures(printed: str, totals: list[int]) -> Figures:
    """Return the figure of each case: it lies between two marks, and so is every second part."""
    rows = [line.split("\t") for line in printed.splitlines()]
    assert len(totals) == 2 * len(rows) + 1, f"{len(totals)} parts of {len(rows)} cases"
    return {
        name: {"instructions": round(totals[2 * at + 1] / int(count)), "what": sentence}
        for at, (name, count, sentence) in enumerate(rows)
    }


def _line(name: str, figure: dict[str, float | str], known: dict[str, float | str] | None) -> str:
    count = float(figure["instructions"])
    change = ""
    if known is not None:
        change = f"{count / float(known['instructions']) - 1:+.1%}"
    return f"{name:14} {count:>12,.0f} {change:>8}  {figure['what']}"


if __name__ == "__main__":
    sys.exit(main())
