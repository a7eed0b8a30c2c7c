"""What a follower takes of what a leader sent, and what it refuses.

Method: two machines on simulated disks, each beside its model; what one has in memory goes to the
other as it would over a wire.
"""

import random
import struct

import pytest

from corelane.model.ids import Index, RecordKind, Term
from corelane.storage.entries import ENTRIES_MAX, ENTRY_HEAD, MemoryEntries
from corelane.storage.receiving import MalformedEntriesError
from tests.unit.storage import model
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import LARGE, ROOMY, SMALL, Profile
from tests.unit.storage.model import Entry


class Twins:
    """A leader and a follower of one group."""

    def __init__(self, profile: Profile = SMALL) -> None:
        self.leader, self.follower = Core(profile), Core(profile)
        self.source, self.target = self.leader.log(), self.follower.log()

    def sent(self, first_index: int, bytes_max: int = 1 << 30) -> tuple[bytes, list[Entry]]:
        """Return what the leader has from *first_index* on, in memory."""
        last = self.source.last_index
        found = self.source.entries(Index(first_index), last, bytes_max)
        assert isinstance(found, MemoryEntries)
        arena = self.leader.machine.arena
        payload = b"".join(
            part if isinstance(part, bytes) else bytes(arena.view(*part)) for part in found.parts
        )
        assert len(payload) == found.size_bytes
        group = self.leader.machine.groups[self.source.group]
        return payload, group.entries[first_index - 1 : found.last_index]

    def replicate(self, bytes_max: int = 1 << 30) -> None:
        """Bring the follower up to the leader."""
        while self.target.last_index < self.source.last_index:
            first = self.target.last_index + 1
            if not self.follower.machine.receive(self.target, *self.sent(first, bytes_max), first):
                self.follower.machine.settle()
            self.follower.machine.turn(everything=True)
            self.follower.machine.commit_all()
        self.follower.machine.settle()

    def vote(self, term: int) -> None:
        """Begin a term at both."""
        self.leader.machine.vote(self.source, term, 1)
        self.follower.machine.vote(self.target, term, 1)

    def check(self) -> None:
        """Both have the same, now and after a crash."""
        want = self.leader.machine.groups[self.source.group]
        assert self.follower.machine.groups[self.target.group].entries == want.entries
        self.follower.machine.check_log(self.target)
        self.follower.machine.settle()
        self.follower.restart()
        self.target = self.follower.machine.store.groups[self.target.group]
        self.follower.machine.read_everything()


@pytest.mark.parametrize("profile", [SMALL, LARGE], ids=lambda profile: profile.name)
@pytest.mark.parametrize("seed", range(3))
def test_a_follower_has_what_its_leader_has(profile: Profile, seed: int) -> None:
    twins, rng = Twins(profile), random.Random(seed)
    machine = twins.leader.machine
    for _ in range(12):
        for _ in range(rng.randrange(1, 6)):
            size = rng.choice(profile.batch_bytes)
            machine.append(twins.source, size, log_append_time=rng.random() < 0.3)
            if rng.random() < 0.4:
                machine.control(twins.source, RecordKind.COMMAND, rng.randbytes(rng.randrange(50)))
        if rng.random() < 0.3:
            twins.vote(twins.source.term + 1)
            machine.control(twins.source, RecordKind.NEW_LEADER, b"")
        twins.replicate(rng.choice((1, 5000, 1 << 30)))
        machine.settle()
    twins.check()


def test_what_is_here_already_is_passed_over() -> None:
    twins = Twins()
    for size in (10, 20, 30):
        twins.leader.machine.append(twins.source, size)
    payload, entries = twins.sent(1)
    first = len(payload) - len(twins.sent(2)[0])
    twins.follower.machine.receive(twins.target, payload[:first], entries[:1], 1)
    twins.follower.machine.receive(twins.target, payload, entries, 2)
    assert twins.target.last_index == 3
    twins.check()


def test_many_records_of_one_message_take_one_write() -> None:
    twins = Twins()
    for _ in range(60):
        twins.leader.machine.append(twins.source, 20)
    twins.follower.machine.settle()
    twins.follower.machine.receive(twins.target, *twins.sent(1), 1)
    writes = twins.follower.machine.store.wal.writes
    twins.follower.machine.settle()
    assert twins.follower.machine.store.wal.writes == writes + 1
    twins.check()


def refused(twins: Twins, payload: bytes, runs: list[tuple[int, int]]) -> str:
    """Return why a payload is refused; nothing has changed by that."""
    log = twins.target
    before = (log.last_index, log.next_offset, twins.follower.machine.store.wal.next_lsn)
    with pytest.raises(MalformedEntriesError) as caught:
        log.append_received(
            [(Index(index), Term(term)) for index, term in runs],
            Index(log.last_index + 1),
            payload,
        )
    after = (log.last_index, log.next_offset, twins.follower.machine.store.wal.next_lsn)
    assert before == after, "E1"
    return str(caught.value)


def test_every_flipped_bit_of_a_batch_is_found() -> None:
    twins = Twins()
    twins.leader.machine.append(twins.source, 10)
    twins.leader.machine.append(twins.source, 50)
    payload, entries = twins.sent(1)
    second = 8 + len(entries[0].payload)
    for at in [*range(8, second), *range(second + 8, len(payload))]:
        for bit in range(8):
            damaged = bytearray(payload)
            damaged[at] ^= 1 << bit
            refused(twins, bytes(damaged), [(1, 1)])
    assert twins.follower.machine.receive(twins.target, payload, entries, 1)


def test_a_cut_payload_is_refused() -> None:
    twins = Twins()
    twins.leader.machine.append(twins.source, 10)
    twins.leader.machine.control(twins.source, RecordKind.COMMAND, b"command")
    payload, entries = twins.sent(1)
    for size in range(len(payload)):
        if size != 8 + len(entries[0].payload):
            refused(twins, payload[:size], [(1, 1)])


def one_batch(base_offset: int, term: int) -> bytes:
    data = model.stamped(model.batch(2, 10, 5), base_offset, term, -1)
    return ENTRY_HEAD.pack(1, len(data)) + data


@pytest.mark.parametrize(
    ("payload", "runs", "why"),
    [
        (one_batch(1, 1), [(1, 1)], "does not begin at the offset"),
        (one_batch(0, 2), [(1, 1)], "stamped with another term"),
        (one_batch(0, 9), [(1, 9)], "Term 9 follows 0 in term 1"),
        (one_batch(0, 1) + one_batch(3, 1), [(1, 1)], "Entry 2: A batch does not begin"),
        (one_batch(0, 1), [(1, 1), (2, 1)], "fewer entries"),
        (ENTRY_HEAD.pack(0, 0), [(1, 1)], "of no kind"),
        (ENTRY_HEAD.pack(32, 0), [(1, 1)], "of no kind"),
        (struct.pack("<II", 0x0101, 0), [(1, 1)], "of no kind"),
        (ENTRY_HEAD.pack(9, 0), [(1, 1)], "kind 9"),
        (ENTRY_HEAD.pack(RecordKind.TRIM, 7) + bytes(7), [(1, 1)], "has 7 bytes"),
        (ENTRY_HEAD.pack(RecordKind.CONFIG, 0), [(1, 1)], "has 0 bytes"),
        (ENTRY_HEAD.pack(RecordKind.NEW_LEADER, 0) * (ENTRIES_MAX + 1), [(1, 1)], "more entries"),
    ],
)
def test_what_cannot_follow_is_refused(
    payload: bytes, runs: list[tuple[int, int]], why: str
) -> None:
    assert why in refused(Twins(), payload, runs)


def test_where_room_ends_a_prefix_is_there() -> None:
    twins = Twins()
    follower, log = twins.follower.machine, twins.target
    entries = []
    for at in range(90):
        data = model.stamped(model.batch(1, 3000, 5, at), at, 1, -1)
        entries.append(Entry(at + 1, 1, RecordKind.BATCH, data, at, at + 1, 5))
    payload = b"".join(ENTRY_HEAD.pack(1, len(entry.payload)) + entry.payload for entry in entries)
    assert follower.receive(log, payload, entries, 1)
    assert 0 < log.last_index < 90, "there is no file for all of them"
    assert not follower.receive(log, payload, entries, log.last_index + 1)
    while log.last_index < 90:
        follower.store.checkpointing.wanted = True
        follower.turn(everything=True)
        follower.commit_all()
        follower.receive(log, payload, entries, log.last_index + 1)
    follower.settle()
    twins.follower.restart()


def test_a_full_arena_takes_a_prefix_or_nothing() -> None:
    twins = Twins(ROOMY)
    follower, log = twins.follower.machine, twins.target
    held = []
    while follower.arena.bytes_in_use < follower.profile.recovery.arena_bytes - 64 * 1024:
        held.append(follower.arena.chunk_new(1))
    entries = []
    for at in range(30):
        data = model.stamped(model.batch(1, 6000, 5, at), at, 1, -1)
        entries.append(Entry(at + 1, 1, RecordKind.BATCH, data, at, at + 1, 5))
    payload = b"".join(ENTRY_HEAD.pack(1, len(entry.payload)) + entry.payload for entry in entries)
    assert follower.receive(log, payload, entries, 1)
    assert 0 < log.last_index < 30
    assert not follower.receive(log, payload, entries, log.last_index + 1)
    for chunk in held:
        follower.arena.release(chunk)
    assert follower.receive(log, payload, entries, log.last_index + 1)
    assert log.last_index == 30


def test_a_truncation_and_another_term_over_it() -> None:
    twins = Twins()
    machine = twins.follower.machine
    for size in (10, 20, 30, 40):
        twins.leader.machine.append(twins.source, size)
    twins.follower.machine.receive(twins.target, *twins.sent(1), 1)
    twins.vote(2)
    twins.leader.machine.truncate(twins.source, 3)
    machine.truncate(twins.target, 3)
    for size in (50, 60, 70):
        twins.leader.machine.append(twins.source, size)
    machine.receive(twins.target, *twins.sent(3), 3)
    assert [twins.target.term_at(Index(index)) for index in range(1, 6)] == [1, 1, 2, 2, 2]
    machine.settle()
    twins.check()
