"""Reads what `shim/order.c` recorded and decides whether an answer left before its write.

The promise (DESIGN section 6): no answer with acks != 0 leaves before the WAL write that holds
its batch has returned, and is synced: by O_DSYNC, RWF_DSYNC, or an fdatasync after it.
"""

import bisect
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).parent / "shim" / "order.c"

_EVENT = struct.Struct("=QIiQQ")
_WRITE, _SYNC, _SEND = 1, 2, 3
_DSYNC, _FAILED = 1, 2


def build(directory: Path) -> Path:
    """Compile the shim and return the library to preload."""
    library = directory / "order.so"
    command = ["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library


def environment(library: Path, log: Path, write_delay_us: int) -> dict[str, str]:
    """Return what makes a broker run under the shim."""
    return {
        "LD_PRELOAD": str(library),
        "SHIM_LOG": str(log),
        "SHIM_WRITE_DELAY_US": str(write_delay_us),
    }


@dataclass
class Event:
    """One system call, in the order of its number."""

    number: int
    kind: int
    descriptor: int
    flags: int
    data: bytes


@dataclass
class Verdict:
    """What was found. `faults` empty: the promise was kept by everything seen."""

    faults: list[str] = field(default_factory=list)
    answers: int = 0
    writes: int = 0
    syncs: int = 0


def read_events(log: Path) -> list[Event]:
    """Return the events of the one process that wrote a WAL, in their order."""
    files = list(log.parent.glob(log.name + ".*"))
    found = [list(_events(file.read_bytes())) for file in files]
    with_wal = [events for events in found if any(event.kind == _WRITE for event in events)]
    assert len(with_wal) <= 1, "only one core writes"
    return sorted(with_wal[0], key=lambda event: event.number) if with_wal else []


def _events(data: bytes) -> Iterator[Event]:
    at = 0
    while at < len(data):
        number, kind, descriptor, size, flags = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield Event(number, kind, descriptor, flags, data[at : at + size])
        at += size


def check(events: list[Event], markers: dict[int, bytes]) -> Verdict:
    """Check every answer. *markers*: correlation id -> bytes that only its batch contains."""
    verdict = Verdict()
    durable: dict[int, int] = {}
    unsynced: dict[int, set[int]] = {}
    answered = _answers([event for event in events if event.kind == _SEND])
    for event in events:
        if event.kind == _WRITE and not event.flags & _FAILED:
            verdict.writes += 1
            held = {key for key, marker in markers.items() if marker in event.data}
            if event.flags & _DSYNC:
                for key in held:
                    durable.setdefault(key, event.number)
            else:
                unsynced.setdefault(event.descriptor, set()).update(held)
        elif event.kind == _SYNC and not event.flags & _FAILED:
            verdict.syncs += 1
            for key in unsynced.pop(event.descriptor, set()):
                durable.setdefault(key, event.number)
    for key in markers:
        if key not in answered:
            verdict.faults.append(f"request {key} was never answered")
            continue
        verdict.answers += 1
        if key not in durable:
            verdict.faults.append(f"request {key} was answered and never synced")
        elif answered[key] < durable[key]:
            verdict.faults.append(
                f"request {key} was answered at {answered[key]}, durable only at {durable[key]}"
            )
    return verdict


def _answers(sends: list[Event]) -> dict[int, int]:
    """Return correlation id -> number of the send that began its answer.

    Each connection's bytes are put together again: an answer may be sent in pieces.
    """
    streams: dict[int, list[Event]] = {}
    for event in sends:
        streams.setdefault(event.descriptor, []).append(event)
    answered: dict[int, int] = {}
    for pieces in streams.values():
        data = b"".join(piece.data for piece in pieces)
        starts: list[int] = []
        position = 0
        for piece in pieces:
            starts.append(position)
            position += len(piece.data)
        at = 0
        while at + 8 <= len(data):
            size, correlation = struct.unpack_from(">ii", data, at)
            piece = pieces[bisect.bisect_right(starts, at) - 1]
            answered.setdefault(correlation, piece.number)
            at += 4 + size
    return answered
