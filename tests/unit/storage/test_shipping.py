"""What a leader reads for followers that lag behind its memory.

Method: a machine on a simulated disk beside its model; everything is pushed out of memory, and
what is read for a follower is compared byte for byte (`ship.py`).
"""

import errno
import random

import pytest

from corelane.model.ids import Index, RecordKind
from corelane.storage.effects import Read
from corelane.storage.entries import ColdEntries
from corelane.storage.group_log import GroupLog
from corelane.storage.shipping import EntriesRead
from tests.simulation.sim_disk import Queue
from tests.unit.storage.lives import Core
from tests.unit.storage.machine import KIB, LARGE, SMALL, Profile
from tests.unit.storage.model import Entry
from tests.unit.storage.ship import ship


def mixed(core: Core, entries: int, seed: int, control_bytes: int = 60) -> GroupLog:
    """Return a log of batches and control entries none of which is in memory."""
    log, rng, machine = core.log(), random.Random(seed), core.machine
    while log.last_index < entries:
        size = rng.choice(core.profile.batch_bytes)
        if rng.random() < 0.5:
            machine.append(log, rng.randrange(size) + 1)
        for _ in range(rng.choice((0, 0, 1, 3))):
            machine.control(log, RecordKind.COMMAND, rng.randbytes(rng.randrange(control_bytes)))
        if rng.random() < 0.1:
            machine.vote(log, log.term + 1, 1)
        machine.settle()
    forget(core, log)
    return log


def forget(core: Core, log: GroupLog) -> None:
    """Push everything that is flushed out of memory."""
    core.checkpoint()
    other = core.log()
    core.fill(other, 40 * KIB)
    core.machine.store.chunks.evict(0)
    assert log.tail_first > 1


def nothing(_payload: bytes, entries: list[Entry]) -> None:
    """Take what is shipped: `ship` has compared it."""
    assert entries


def everything(core: Core, log: GroupLog, bytes_max: int, first: int = 1) -> list[Entry]:
    """Ship a log from *first* on as raft would: spans, and what they turn out to be."""
    got: list[Entry] = []
    while first + len(got) <= log.last_index:
        index = Index(first + len(got))
        last, _bytes = log.span(index, bytes_max)
        assert index <= last <= log.last_index
        assert ship(core.machine, log, index, last, bytes_max, lambda _data, more: got.extend(more))
        core.machine.settle(lambda: not core.machine.reads_open)
    return got


@pytest.mark.parametrize("profile", [SMALL, LARGE], ids=lambda profile: profile.name)
@pytest.mark.parametrize("bytes_max", [1, 3000, 100_000, 1 << 30])
def test_a_log_that_is_in_segments_is_shipped_whole(profile: Profile, bytes_max: int) -> None:
    core = Core(profile, seed=bytes_max % 7)
    log = mixed(core, 120 if profile is SMALL else 30, bytes_max % 5)
    assert log.tail_first > log.last_index // 2
    assert everything(core, log, bytes_max) == core.machine.groups[log.group].entries
    core.machine.check_arena()
    assert core.machine.store.shipping.held_bytes == 0


def test_any_range_of_entries_can_be_asked_for() -> None:
    core = Core()
    log = mixed(core, 150, 3, control_bytes=3000)
    rng = random.Random(1)
    for _ in range(150):
        first = rng.randint(1, log.last_index)
        last = rng.randint(first, log.last_index)
        ship(core.machine, log, first, last, rng.choice((1, 9000, 1 << 20)), nothing)
        core.machine.settle(lambda: not core.machine.reads_open)


def test_control_entries_far_into_a_segment_are_found_without_its_beginning() -> None:
    core = Core(LARGE)
    log, machine = core.log(), core.machine
    for _ in range(900):
        while not machine.control(log, RecordKind.COMMAND, bytes(900)):
            machine.settle()
    machine.settle()
    forget(core, log)
    everything(core, log, 100_000)
    (segment,) = log.segments.items
    assert len(segment.control_marks) > 5
    before = core.disk.performed["Read"]
    first = log.tail_first - 5
    ship(machine, log, first, first, 1, nothing)
    machine.settle(lambda: not machine.reads_open)
    assert core.disk.performed["Read"] <= before + 3


def test_what_was_trimmed_says_so_before_and_while_it_is_read() -> None:
    core = Core()
    log, machine = core.log(), core.machine
    core.fill(log, 100 * KIB)
    forget(core, log)
    second = log.segments.items[1]
    answers: list[int] = []
    ship(machine, log, 1, 1, 1, lambda _data, entries: answers.append(len(entries)))
    machine.control(log, RecordKind.TRIM, second.base_offset.to_bytes(8, "little"))
    while log.start_offset < second.base_offset:
        turn_without_reads(core)
    assert log.first_index == second.base_index
    assert log.entries(Index(1), log.last_index, 1) is None
    machine.settle()
    assert answers == [0], "it is gone"


def turn_without_reads(core: Core) -> None:
    """A turn in which no read is answered."""
    machine = core.machine
    for effect in machine.store.turn_effects():
        core.disk.submit(effect, machine.arena)
    for queue in (Queue.WAL, Queue.STORE):
        if core.disk.queues[queue]:
            machine._take(machine.store.on_done(core.disk.complete(queue)))
    machine.commit_all()


def read(core: Core, log: GroupLog, first: int) -> EntriesRead:
    """Read cold entries and return the answer as it is."""
    cold = log.entries(Index(first), log.last_index, 1 << 20)
    assert isinstance(cold, ColdEntries)
    answers: list[EntriesRead] = []
    core.machine.store.shipping.read(log, cold, answers.append)
    core.machine.settle(lambda: bool(answers))
    core.machine.arena.release(answers[0].chunk)
    return answers[0]


def test_a_damaged_segment_is_said_to_be_and_nothing_of_it_is_shipped() -> None:
    core = Core()
    log = mixed(core, 60, 2)
    segment = log.segments.items[0]
    for stream, position in ((segment.rows, 32 + 12), (segment.control, 16), (segment.rows, 60)):
        assert stream.frontier
        core.disk.flip(segment.path(stream), position, 3)
        answer = read(core, log, 1)
        assert answer.error == errno.EIO
        assert not answer.parts
        core.disk.flip(segment.path(stream), position, 3)
    core.disk.remove([segment.path(segment.log)])
    assert read(core, log, 1).error == errno.ENOENT or read(core, log, 1).error == errno.EIO
    core.disk.fail(Read, errno.EIO)
    assert read(core, log, 1).error == errno.EIO


def test_followers_have_memory_that_slow_clients_cannot_take() -> None:
    core = Core(LARGE)
    log, machine = core.log(), core.machine
    core.fill(log, 2000 * KIB)
    forget(core, log)
    store = machine.store
    held = []
    while store.reading.lent_bytes < store.reading.bytes_max - 256 * KIB:
        chunk = store.reading.keep(machine.arena.address(store.chunks.fifo[-1].id), 4096)
        assert chunk is not None
        held.append(chunk)
    answers: list[EntriesRead] = []
    cold = log.entries(Index(1), Index(1), 1 << 20)
    assert isinstance(cold, ColdEntries)
    for _ in range(10):
        store.shipping.read(log, cold, answers.append)
    for _ in range(60):
        machine.turn(everything=bool(core.disk.busy()))
    assert 1 < len(answers) < 10, "as many as its own memory is for"
    assert store.shipping.held_bytes <= store.shipping.bytes_max
    assert store.shipping.is_waiting
    for chunk in held:
        machine.arena.release(chunk)
    for _ in range(20):
        while answers:
            machine.arena.release(answers.pop().chunk)
        machine.turn(everything=bool(core.disk.busy()))
    assert not store.shipping.is_waiting
    assert store.shipping.held_bytes == 0
