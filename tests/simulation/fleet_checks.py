"""What must hold in a fleet at every moment (multiraft.md E), whatever happens to it.

After every step the members that did something are looked at; all members every 1,000 events. Each
replica is held against what any replica has ever committed, and against itself.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from corelane.model.ids import Index
from corelane.model.record import record
from corelane.shard.member import Member
from corelane_native import bytes_at
from tests.simulation.fleet import Watcher
from tests.simulation.fleet_core import TOUCHED, FleetCore

ALL_EVENTS = 1_000


@record
class Entry:
    """A committed entry, as the first replica that committed it had it."""

    term: int
    next_offset: int
    checksum: int


class Ledger:
    """What is committed of one group, anywhere."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.index = 0
        self.offset = 0
        self.led: dict[int, tuple[int, int]] = {}
        """Who led each term: machine and core."""
        self.term = 0


class Checks(Watcher):
    """All invariants of one fleet."""

    def __init__(self) -> None:
        self.ledgers: dict[int, Ledger] = {}
        self.looks = 0
        self.sweeps = 0
        self._cores: dict[FleetCore, None] = {}
        self._sweep_at = ALL_EVENTS

    def core_ended(self, core: FleetCore) -> None:
        self._cores.pop(core, None)
        core.seen.clear()

    def after_step(self, core: FleetCore, touched: list[Member]) -> None:
        self._cores[core] = None
        if touched:
            for member in {id(each): each for each in touched}.values():
                if core.shard.groups.members.get(member.group) is member:
                    self._look(core, member)
        if core.fleet.event_count >= self._sweep_at:
            self._sweep_at = core.fleet.event_count + ALL_EVENTS
            self.sweep()

    def sweep(self) -> None:
        """Look at all members of all cores."""
        self.sweeps += 1
        serving: set[tuple[int, int]] = set()
        for core in self._cores:
            for member in core.shard.groups.members.values():
                self._look(core, member)
                if member.serves:
                    place = (core.machine.number, member.group)
                    assert place not in serving, f"two cores of node {place[0]} serve {place[1]}"
                    serving.add(place)

    def _look(self, core: FleetCore, member: Member) -> None:
        self.looks += 1
        raft, log = member.raft, member.log
        ledger = self.ledgers.get(member.group)
        if ledger is None:
            ledger = self.ledgers[member.group] = Ledger()
        index = log.committed_index
        former_index, former_term, former_start = core.seen.get(member, (-1, 0, 0))
        where = f"group {member.group} on core {core.number} of node {core.machine.number}"
        assert raft.term >= former_term, f"{where}: the term went back"
        assert index >= former_index, f"{where}: a commit went back"
        assert index <= max(raft.durable_index, log.first_index - 1), f"{where}: not durable here"
        assert log.start_offset >= former_start, f"{where}: its start went back"
        if index > former_index:
            self._committed(ledger, member, former_index, where)
        # Who has just started knows where its log begins before it knows what is committed.
        known_offset = log.committed_offset if member.serves else ledger.offset
        assert log.start_offset <= known_offset, f"{where}: trimmed above the commit"
        if raft.is_leader:
            self._leads(core, ledger, member, where)
        uncommitted = [at for at, _ in raft.membership._entries if at > ledger.index]
        assert len(uncommitted) <= 1, f"{where}: two changes of members under way"
        core.seen[member] = (index, raft.term, log.start_offset)

    def _leads(self, core: FleetCore, ledger: Ledger, member: Member, where: str) -> None:
        term = member.raft.term
        place = (core.machine.number, core.number)
        leader = ledger.led.setdefault(term, place)
        assert leader == place, f"two leaders in term {term}: {where} and {leader}"
        ledger.term = max(ledger.term, term)
        if member.serves and term == ledger.term:
            known = ledger.index
            assert member.log.committed_index >= known, f"{where} serves without {known}"

    def _committed(self, ledger: Ledger, member: Member, former: int, where: str) -> None:
        log = member.log
        index, entries = log.committed_index, ledger.entries
        # What was committed before it was first seen is compared by its end alone.
        first = former + 1 if former >= 0 else index
        for at in range(max(first, log.tail_first, log.first_index), index + 1):
            held = log.entry(Index(at))
            address = log.store.arena.address(held.chunk.id) + held.position
            checksum = zlib.crc32(bytes_at(address, held.size_bytes))
            found = Entry(log.term_at(Index(at)), held.next_offset, checksum)
            known = entries.setdefault(at, found)
            assert known == found, f"{where} commits {found} at {at}, another {known}"
        if index >= log.first_index and index in entries:
            assert entries[index].term == log.term_at(index), f"{where}: another term at {index}"
        ledger.index = max(ledger.index, index)
        ledger.offset = max(ledger.offset, log.committed_offset)


@contextmanager
def watching() -> Iterator[None]:
    """Note which members do something while this lasts."""
    perform = Member.perform

    def noting(self: Member, effects: Any) -> None:
        TOUCHED.append(self)
        perform(self, effects)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Member, "perform", noting)
        yield
