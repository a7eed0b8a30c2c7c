"""Reads what processes have used from /proc, and what machine this is."""

import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from corelane.model.record import record

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CPU_COUNT = os.cpu_count() or 1
PROBE_WRITES = 100
PROBE_BYTES = 16 << 10
SETTLE_S_MAX = 8.0
SETTLED_S = 0.6
SETTLED_BYTES = 256 << 10
"""Kafka's controller writes a little twice a second for ever: that is no work put off."""


@record
class Usage:
    """What a broker's processes have used since they started, and the machine since it did."""

    at_s: float
    cpu_s: float
    written_bytes: int
    machine_cpu_s: float


def processes_of(pid: int) -> list[int]:
    """Return *pid* and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def usage(*started: int) -> Usage:
    """Return what the brokers started as these processes have used."""
    pids = [each for pid in started for each in processes_of(pid)]
    cpu_s = sum(_cpu_s(each) for each in pids)
    written_bytes = sum(_io(each) for each in pids)
    return Usage(time.monotonic(), cpu_s, written_bytes, _machine_cpu_s())


def settled_usage(*started: int) -> Usage:
    """Return the usage once nothing more is written, so that work put off is counted too."""
    deadline_s = time.monotonic() + SETTLE_S_MAX
    last = usage(*started)
    while True:
        time.sleep(SETTLED_S)
        now = usage(*started)
        more_bytes = now.written_bytes - last.written_bytes
        if more_bytes <= SETTLED_BYTES or now.at_s > deadline_s:
            return now
        last = now


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of the broker: shared pages are counted once."""
    return sum(_rollup_bytes(each, "Pss:") for each in processes_of(pid))


def resident_bytes(pid: int) -> int:
    """Return the resident set size of the broker's processes: shared pages count in each."""
    return sum(_rollup_bytes(each, "Rss:") for each in processes_of(pid))


def sync_probe_us(directory: Path) -> dict[str, float]:
    """Return how long a 16 KiB write and fdatasync take here, now: durable figures hang on it."""
    times_us: list[float] = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        for _ in range(PROBE_WRITES):
            start_s = time.perf_counter()
            os.pwrite(file.fileno(), bytes(PROBE_BYTES), 0)
            os.fdatasync(file.fileno())
            times_us.append((time.perf_counter() - start_s) * 1e6)
    times_us.sort()
    return {"p50_us": times_us[len(times_us) // 2], "p99_us": times_us[len(times_us) * 99 // 100]}


def machine(directory: Path) -> dict[str, str]:
    """Return the facts without which a figure means nothing."""
    return {
        "cpu": _cpu_name(),
        "cpus": str(CPU_COUNT),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB",
        "kernel": platform.release(),
        "file system": _file_system(directory),
        "python": platform.python_version(),
        "java": _output(["java", "-version"]).splitlines()[0],
        "commit": _output(["git", "describe", "--always", "--dirty", "--abbrev=10"]),
    }


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = stat(pid)
    # utime and stime, and the same of children that ended: a core that was restarted counts.
    return sum(int(each) for each in fields[11:15]) / TICKS_PER_S if fields else 0.0


def _io(pid: int) -> int:
    try:
        rows = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(row.split()[1]) for row in rows if row.startswith("write_bytes"))


def _rollup_bytes(pid: int, what: str) -> int:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(row.split()[1]) * 1024 for row in rows if row.startswith(what))


def _machine_cpu_s() -> float:
    fields = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, soft_irq, _steal = fields
    return (user + nice + system + irq + soft_irq) / TICKS_PER_S


def _cpu_name() -> str:
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith("model name"):
            return row.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    mounts: dict[Path, str] = {}
    for row in Path("/proc/self/mounts").read_text().splitlines():
        _device, where, kind, _rest = row.split(maxsplit=3)
        mounts[Path(where)] = kind
    path = directory.resolve()
    return next(mounts[each] for each in (path, *path.parents) if each in mounts)


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).strip()
