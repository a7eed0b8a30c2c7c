"""Profiles a broker's processes while a load runs: py-spy for its Python, perf for the rest.

What is not there is said in a sentence, and how to get it. Written is one page of text for each
experiment: where the time goes, by the function itself and by what it is called from.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.macro import measure
from corelane.model.record import record

RATE_HZ: Final = 250
ROWS: Final = 30
END_S_MAX: Final = 60.0
PERF_REPORT = ("--stdio", "--no-children", "--percent-limit", "0.5", "--call-graph", "none")
MISSING: Final = {
    "py-spy": "py-spy is not installed: `.venv/bin/pip install py-spy` shows Python's functions.",
    "perf": "perf is not installed: Debian's package linux-perf shows the kernel's and C's part.",
}


@record
class _Sampler:
    """A program that samples one process, and where it writes."""

    tool: str
    pid: int
    process: subprocess.Popen[bytes]
    output: Path


@contextmanager
def profiled(pids: tuple[int, ...], page: Path, title: str) -> Iterator[None]:
    """Sample the brokers started as *pids* during the block, and write what was found to *page*."""
    spy, perf = _tool("py-spy"), _tool("perf")
    with tempfile.TemporaryDirectory(prefix="profile-") as directory:
        samplers: list[_Sampler] = []
        everything = [each for pid in pids for each in measure.processes_of(pid)]
        if spy:
            samplers += [_spy(spy, pid, Path(directory)) for pid in everything]
        if perf:
            samplers.append(_perf(perf, everything, Path(directory)))
        try:
            yield
        finally:
            for each in samplers:
                each.process.send_signal(signal.SIGINT)
            for each in samplers:
                each.process.wait(END_S_MAX)
        lines = [f"# {title}", ""]
        for name, path in (("py-spy", spy), ("perf", perf)):
            lines += [] if path else [MISSING[name], ""]
        for each in samplers:
            lines += _spy_page(each) if each.tool == "py-spy" else _perf_page(perf, each)
        page.write_text("\n".join(lines) + "\n")


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name) or ""


def _spy(program: str, pid: int, directory: Path) -> _Sampler:
    output = directory / f"spy-{pid}.txt"
    command = [program, "record", "--pid", str(pid), "--rate", str(RATE_HZ), "--format", "raw"]
    # Without stopping the process for each sample: what is measured would be another program.
    command += ["--nonblocking", "--output", str(output), "--duration", "3600"]
    return _Sampler("py-spy", pid, _started(command), output)


def _perf(program: str, pids: list[int], directory: Path) -> _Sampler:
    output = directory / "perf.data"
    command = [program, "record", "-F", str(RATE_HZ * 2), "-g", "-o", str(output)]
    # Where brokers come and go during the block there is nobody to name: then the whole machine.
    command += ["-p", ",".join(map(str, pids))] if pids else ["-a"]
    return _Sampler("perf", 0, _started(command), output)


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _spy_page(sampler: _Sampler) -> list[str]:
    """Return the functions of a process by the samples in them, and by those below them."""
    stacks = sampler.output.read_text() if sampler.output.exists() else ""
    own, below = tally(stacks)
    total = own.total()
    if not total:
        return [f"## Process {sampler.pid}: no sample (it slept all the time)", ""]
    lines = [f"## Process {sampler.pid}: {total} samples by py-spy at {RATE_HZ} Hz", ""]
    for title, counted in (("the function itself", own), ("with all that it calls", below)):
        lines += [f"{title}:", ""]
        lines += [f"    {n / total:6.1%}  {name}" for name, n in counted.most_common(ROWS)]
        lines.append("")
    return lines


def tally(stacks: str) -> tuple[Counter[str], Counter[str]]:
    """Count samples of collapsed stacks (`a;b;c 12`): by their last function, and by every one."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_without_line(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in {*frames}:
            below[frame] += int(count)
    return own, below


def _without_line(frame: str) -> str:
    """Return `name (file.py)` of `name (file.py:12)`."""
    return frame.rpartition(":")[0] + ")" if ":" in frame else frame


def _perf_page(program: str, sampler: _Sampler) -> list[str]:
    lines = ["## All processes, by perf", ""]
    for order in ("dso", "symbol"):
        command = [program, "report", "-i", str(sampler.output), *PERF_REPORT, "--sort", order]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = [row for row in told.stdout.splitlines() if row and not row.startswith("#")]
        if not rows:
            return [*lines, f"perf found nothing: {told.stderr.strip()[-300:]}", ""]
        lines += [f"by {order}:", "", *rows[:ROWS], ""]
    return lines
