"""Measures what a hop between two cores costs: links over pipes, and over unix sockets.

Two processes on two CPUs send frames to each other as cores do, and the CPU time of both counts.
All carriers take turns in one run. `python -m bench.micro.hop` writes `results/HOP.json` and the
page beside it; about four minutes.
"""

import argparse
import fcntl
import json
import os
import platform
import socket
import statistics
import struct
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.macro.run import RESULTS
from corelane.model.record import record
from corelane_native import CLOSED, FRAME, Arena, Net
from corelane_native.net import Part

KIB: Final = 1 << 10
MIB: Final = 1 << 20
POLL_US: Final = 2000
CONNECTIONS_MAX: Final = 1
FRAME_BYTES_MAX: Final = 8 * MIB
RECEIVE_BYTES_MAX: Final = 64 * MIB
HEAD: Final = struct.Struct(">ihhi")
HEAD_BYTES: Final = HEAD.size - 4  # without the length
CPU: Final = struct.Struct("d")
SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h; the socket module does not name it

Ends = tuple[int, int]
"""The descriptors that one process reads from and writes to."""


@record
class Load:
    """What is sent there; a frame without a body comes back for each."""

    name: str
    body_bytes: int
    frames: int
    window_frames: int
    is_joined: bool = False
    """All frames of a turn leave in one write, instead of a write each."""


LOADS: Final = (
    Load("100 bytes, one at a time", 100, 8_000, 1),
    Load("100 bytes, 64 under way", 100, 100_000, 64),
    Load("100 bytes, 64 under way, a write a turn", 100, 200_000, 64, is_joined=True),
    Load("4 KiB, 64 under way", 4 * KIB, 60_000, 64),
    Load("16 KiB, 64 under way", 16 * KIB, 30_000, 64),
    Load("64 KiB, 16 under way", 64 * KIB, 10_000, 16),
    Load("1 MiB, 4 under way", MIB, 1_000, 4),
)
QUICK_RATIO: Final = 50


def _pipes(capacity: int) -> tuple[Ends, Ends]:
    to_two, from_one = os.pipe()
    to_one, from_two = os.pipe()
    for fd in (from_one, from_two):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, capacity)
    return (to_one, from_one), (to_two, from_two)


def _sockets(capacity: int) -> tuple[Ends, Ends]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for each in pair:
        if capacity:
            # Twice this is what the kernel sets; without privilege it stops at wmem_max.
            try:
                each.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, capacity // 2)
            except PermissionError:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, capacity // 2)
    one, two = (each.detach() for each in pair)
    return (one, os.dup(one)), (two, os.dup(two))


CARRIERS: Final[dict[str, Callable[[], tuple[Ends, Ends]]]] = {
    "pipes, 64 KiB": lambda: _pipes(64 * KIB),
    "pipes, 1 MiB": lambda: _pipes(MIB),
    "sockets, as they come": lambda: _sockets(0),
    "sockets, 2 MiB": lambda: _sockets(2 * MIB),
}


class Side:
    """One process's net with the connection to the other one."""

    def __init__(self, ends: Ends, load: Load) -> None:
        arena = Arena(16 * MIB)
        self.net = Net(CONNECTIONS_MAX, FRAME_BYTES_MAX, RECEIVE_BYTES_MAX, arena)
        self.conn = self.net.add_link(*ends)
        self.is_over = False
        self._is_joined = load.is_joined
        head = HEAD.pack(HEAD_BYTES + load.body_bytes, 16, 0, 1)
        self.answer: list[Part] = [HEAD.pack(HEAD_BYTES, 17, 0, 1)]
        if load.body_bytes >= 4 * KIB:  # lies in the arena, as a batch does
            chunk = arena.chunk_new(load.body_bytes)
            arena.write(chunk, 0, bytes(load.body_bytes))
            self.request: list[Part] = [head, (chunk, 0, load.body_bytes)]
        else:
            self.request = [head + bytes(load.body_bytes)]

    def take(self) -> int:
        """Wait for frames and return how many came."""
        rows = self.net.poll(POLL_US)
        self.is_over = bool(rows) and rows[-1][0] == CLOSED
        return sum(row[0] == FRAME for row in rows)

    def give(self, parts: list[Part], count: int) -> None:
        """Send so many of the same frame."""
        if self._is_joined:
            if count > 0:
                self.net.send(self.conn, parts * count)
            return
        for _ in range(count):
            self.net.send(self.conn, parts)


def _answer(ends: Ends, load: Load, report: int) -> None:
    """Answer every frame until the other side closes, and report the CPU time it took."""
    side = Side(ends, load)
    came = side.take()
    start_s = time.process_time()
    frames = 0
    while not side.is_over:
        frames += came
        side.give(side.answer, came)
        came = side.take()
    assert frames == load.frames, f"{frames} of {load.frames} frames came"
    os.write(report, CPU.pack(time.process_time() - start_s))


def _ask(ends: Ends, load: Load) -> tuple[float, float]:
    """Send every frame, take every answer, and return the seconds and the CPU seconds."""
    side = Side(ends, load)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    sent = answered = 0
    while answered < load.frames:
        due = min(load.frames, answered + load.window_frames) - sent
        side.give(side.request, due)
        sent += due
        answered += side.take()
        assert not side.is_over
    took = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    side.net.close(side.conn)
    return took


def measured(carrier: str, load: Load) -> dict[str, float]:
    """Run *load* once between this process and one of its own for it."""
    ours, theirs = CARRIERS[carrier]()
    report, reporter = os.pipe()
    cpus = sorted(os.sched_getaffinity(0))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for fd in {*ours, report}:
                os.close(fd)
            os.sched_setaffinity(0, cpus[-1:])
            _answer(theirs, load, reporter)
            status = 0
        finally:
            os._exit(status)
    for fd in {*theirs, reporter}:
        os.close(fd)
    os.sched_setaffinity(0, cpus[:1])
    took_s, cpu_s = _ask(ours, load)
    os.sched_setaffinity(0, cpus)
    content = os.read(report, CPU.size)
    os.close(report)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the other process ended with {status}"
    cpu_s += CPU.unpack(content)[0]
    gigabytes = load.frames * load.body_bytes / 1e9
    return {
        "CPU µs/frame": cpu_s / (2 * load.frames) * 1e6,
        "CPU s/GB": cpu_s / gigabytes,
        "GB/s": gigabytes / took_s,
        "round trip µs": took_s / load.frames * load.window_frames * 1e6,
    }


def _figures(load: Load) -> tuple[str, ...]:
    if load.body_bytes < KIB:
        return ("CPU µs/frame", "round trip µs")
    return ("CPU s/GB", "GB/s")


PAGE: Final = """# What a hop between two cores costs

{made}

| load | figure | {carriers} |
| --- | --- |{rule}
{rows}
"""


def _page(result: dict[str, Any], source: str) -> str:
    machine = result["machine"]
    made = (
        f"Made by `python -m bench.micro.hop` from `{source}` on {machine['cpus']} CPUs, Linux"
        f" {machine['kernel']}; median of {result['rounds']} turns, least and most in brackets."
        " CPU time is that of both processes. Each frame is answered by one of eight bytes, and"
        " a small frame's figure is per frame, there or back. CPU time carries over to another"
        " machine; rates and times suffer from whatever else runs."
    )
    rows = "\n".join(
        _row(result["samples"], load.name, figure) for load in LOADS for figure in _figures(load)
    )
    return PAGE.format(
        made=textwrap.fill(made, 100),
        carriers=" | ".join(CARRIERS),
        rule=" --- |" * len(CARRIERS),
        rows=rows,
    )


def _row(samples: list[dict[str, Any]], load: str, figure: str) -> str:
    cells = [_cell(samples, load, carrier, figure) for carrier in CARRIERS]
    return " | ".join([f"| {load}", figure, *cells]) + " |"


def _cell(samples: list[dict[str, Any]], load: str, carrier: str, figure: str) -> str:
    found = [
        each["metrics"][figure]
        for each in samples
        if (each["load"], each["carrier"]) == (load, carrier)
    ]
    return f"{statistics.median(found):,.2f} ({min(found):,.2f}–{max(found):,.2f})"


def main() -> None:
    """Run every load over every carrier in turns, and write the figures and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small round")
    parser.add_argument("--output", type=Path, default=RESULTS / "HOP.json")
    options = parser.parse_args()
    ratio = QUICK_RATIO if options.quick else 1
    rounds = 1 if options.quick else options.rounds
    samples: list[dict[str, Any]] = []
    names = [*CARRIERS]
    for number in range(rounds):
        turn = number % len(names)
        for load in LOADS:
            part = Load(
                load.name, load.body_bytes, load.frames // ratio, load.window_frames, load.is_joined
            )
            for carrier in names[turn:] + names[:turn]:
                metrics = measured(carrier, part)
                shown = ", ".join(f"{key} {metrics[key]:,.2f}" for key in _figures(load))
                print(f"{load.name:40} {carrier:22} {shown}", flush=True)
                samples.append({"load": load.name, "carrier": carrier, "metrics": metrics})
    machine = {
        "cpus": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    result = {"machine": machine, "rounds": rounds, "samples": samples}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    page = options.output.with_suffix(".md")
    page.write_text(_page(result, options.output.name))
    print(f"written: {options.output} and {page}")


if __name__ == "__main__":
    main()
