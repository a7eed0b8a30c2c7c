"""Entries of a machine's log as they go over a wire to a follower, compared with its model."""

from collections.abc import Callable

from corelane.model.ids import Index
from corelane.storage.entries import ENTRY_HEAD, ColdEntries, EntryPart, MemoryEntries
from corelane.storage.group_log import GroupLog
from corelane.storage.shipping import EntriesRead
from tests.unit.storage.machine import Machine
from tests.unit.storage.model import Entry

Shipped = Callable[[bytes, list[Entry]], None]
"""Hears the payload and what is in it; nothing at all of what is gone."""


def payload_of(machine: Machine, parts: list[EntryPart]) -> bytes:
    """Return parts as one run of bytes."""
    view = machine.arena.view
    return b"".join(part if isinstance(part, bytes) else bytes(view(*part)) for part in parts)


def ship(
    machine: Machine, log: GroupLog, first: int, last: int, bytes_max: int, done: Shipped
) -> bool:
    """Read entries, now or when the disk answers, and compare; False: they were trimmed."""
    want = machine.groups[log.group].entries
    found = log.entries(Index(first), Index(last), bytes_max)
    if found is None:
        assert first < log.first_index
        return False
    if isinstance(found, MemoryEntries):
        payload = payload_of(machine, found.parts)
        assert len(payload) == found.size_bytes
        _deliver(payload, want[first - 1 : found.last_index], bytes_max, done)
        return True
    assert isinstance(found, ColdEntries)
    assert found.last_index <= last

    def answered(result: EntriesRead) -> None:
        machine.reads_open -= 1
        payload = payload_of(machine, result.parts)
        machine.arena.release(result.chunk)
        if result.is_gone:
            assert not payload
            assert log.is_dropped or log.first_index > first
            done(b"", [])
            return
        assert not result.error, f"shipping {log.descriptor.directory}: errno {result.error}"
        assert len(payload) == result.size_bytes
        assert first <= result.last_index <= last
        _deliver(payload, want[first - 1 : result.last_index], bytes_max, done)

    machine.reads_open += 1
    machine.reads_cold += 1
    try:
        machine.store.shipping.read(log, found, answered)
    except MemoryError:
        machine.reads_open -= 1
    return True


def _deliver(payload: bytes, entries: list[Entry], bytes_max: int, done: Shipped) -> None:
    whole = b"".join(ENTRY_HEAD.pack(e.kind, len(e.payload)) + e.payload for e in entries)
    assert payload == whole, "other bytes than were appended"
    assert len(entries) == 1 or len(payload) <= bytes_max
    assert entries
    done(payload, entries)
