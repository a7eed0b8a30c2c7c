"""A group's log against a list: whatever is appended, committed, cut and trimmed, reads agree.

Method: hypothesis drives one log on a simulated disk that answers at once, beside the model of
`tests/unit/storage`; after each step the views of raft and of readers are compared.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corelane.model.ids import Index, Offset, RecordKind, Term
from corelane.storage.layout import (
    Descriptor,
    Tail,
    decode_descriptor,
    decode_tail,
    encode_descriptor,
    encode_tail,
)
from tests.unit.storage.lives import TURNS_MAX, Core
from tests.unit.storage.machine import Machine
from tests.unit.storage.model import Entry, GroupModel

SIZES = st.one_of(st.integers(1, 200), st.integers(1, 9000), st.just(30_000))


class LogAgainstList(RuleBasedStateMachine):
    """One log, and the list it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core()
        self.log = self.core.log()
        self.core.machine.settle()

    @property
    def machine(self) -> Machine:
        return self.core.machine

    @property
    def model(self) -> GroupModel:
        return self.machine.groups[self.log.group]

    def await_room(self) -> None:
        """Notes always find room: the shard's limits see to it."""
        for _ in range(TURNS_MAX):
            if self.machine.has_room():
                return
            self.machine.turn(everything=True)

    # --- what happens ---

    @rule(size=SIZES, late=st.booleans())
    def append(self, size: int, *, late: bool) -> None:
        self.machine.append(self.log, size, log_append_time=late)

    @rule(size=st.integers(0, 300), count=st.sampled_from([1, 1, 1, 130]))
    def control(self, size: int, count: int) -> None:
        for _ in range(count):
            self.await_room()
            self.machine.control(self.log, RecordKind.COMMAND, bytes(size))

    @rule()
    def turn(self) -> None:
        for _ in range(3):
            self.machine.turn(everything=True)

    @rule(part=st.floats(0, 1))
    def commit(self, part: float) -> None:
        span = self.log.last_index - self.log.committed_index
        self.machine.commit(self.log, self.log.committed_index + round(span * part))

    @precondition(lambda self: self.log.last_index > self.log.committed_index)
    @rule(part=st.floats(0, 1))
    def truncate(self, part: float) -> None:
        self.await_room()
        span = self.log.last_index - self.log.committed_index - 1
        self.machine.truncate(self.log, self.log.committed_index + 1 + round(span * part))
        self.machine.vote(self.log, self.log.term + 1, 1)

    @rule(part=st.floats(0, 1))
    def trim(self, part: float) -> None:
        span = self.log.committed_offset - self.log.start_offset
        start = self.log.start_offset + round(span * part)
        self.machine.control(self.log, RecordKind.TRIM, start.to_bytes(8, "little"))

    @rule()
    def flush_and_evict(self) -> None:
        self.log.want_flush()
        self.machine.settle()
        self.machine.store.chunks.evict(0)

    @rule(power=st.booleans())
    def crash(self, *, power: bool) -> None:
        group = self.log.group
        self.core.restart(power=power, commit_all=False)
        self.log = self.machine.store.groups[group]

    # --- what is asked ---

    @precondition(lambda self: self.log.start_offset < self.log.committed_offset)
    @rule(part=st.floats(0, 1, exclude_max=True), bytes_max=st.integers(0, 60_000))
    def read(self, part: float, bytes_max: int) -> None:
        span = self.log.committed_offset - self.log.start_offset
        self.machine.read(self.log, self.log.start_offset + int(span * part), bytes_max)
        self.machine.settle(lambda: not self.machine.reads_open)

    @rule(back=st.integers(-5, 200))
    def find_timestamp(self, back: int) -> None:
        self.machine.find(self.log, self.machine.stamp - back)
        self.machine.settle(lambda: not self.machine.reads_open)

    @rule(first=st.floats(0, 1), bytes_max=st.integers(0, 100_000))
    def span(self, first: float, bytes_max: int) -> None:
        log = self.log
        if log.last_index < log.tail_first:
            return
        index = log.tail_first + round((log.last_index - log.tail_first) * first)
        last, size = log.span(Index(index), bytes_max)
        sizes = [len(entry.payload) for entry in self.model.entries[index - 1 :]]
        assert last >= index
        assert size == sum(sizes[: last - index + 1])
        assert size <= max(bytes_max, sizes[0]) or sum(sizes[: last - index]) == 0
        if last < log.last_index:
            assert size + sizes[last - index + 1] > bytes_max

    @rule(term=st.integers(0, 12))
    def epoch_end(self, term: int) -> None:
        log = self.log
        if log.last_term == log.term_at(log.committed_index):  # as whoever is asked has it
            cache = epoch_cache(self.model.entries, log.start_offset)
            wanted = end_offset_for(cache, term, log.committed_offset)
            assert log.epoch_end_offset(Term(term)) == wanted

    @invariant()
    def views_agree(self) -> None:
        self.machine.check_log(self.log)
        model, log = self.model, self.log
        assert log.next_offset == model.next_offset
        sizes = [len(entry.payload) for entry in model.entries]
        assert log.uncommitted_bytes == sum(sizes[log.committed_index :])
        assert log.unflushed_bytes == sum(sizes[log.flushed_index : log.committed_index])
        for entry in model.entries[-3:]:
            if entry.next_offset > entry.base_offset >= log.tail_offset:
                assert log.tail_index_at(Offset(entry.base_offset)) <= entry.index


def epoch_cache(entries: list[Entry], start_offset: int) -> list[tuple[int, int]]:
    """Return (epoch, start offset) as Kafka's LeaderEpochFileCache would hold them."""
    cache: list[tuple[int, int]] = []
    for entry in entries:
        if not cache or entry.term > cache[-1][0]:  # assign, maybeTruncateNonMonotonicEntries
            while cache and cache[-1][1] >= entry.base_offset:
                cache.pop()
            cache.append((entry.term, entry.base_offset))
    below = [row for row in cache if row[1] <= start_offset]  # truncateFromStart
    return [(row[0], start_offset) for row in below[-1:]] + cache[len(below) :]


def end_offset_for(cache: list[tuple[int, int]], epoch: int, end: int) -> tuple[int, int]:
    """Answer as LeaderEpochFileCache.endOffsetFor."""
    if cache and cache[-1][0] == epoch:
        return epoch, end
    higher = [start for row_epoch, start in cache if row_epoch > epoch]
    if not higher:
        return -1, -1
    floor = [row_epoch for row_epoch, _start in cache if row_epoch <= epoch]
    return (floor[-1] if floor else epoch), higher[0]


TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = settings(
    settings.get_profile("default"), max_examples=150, stateful_step_count=30
)


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50))
def test_a_tail_is_read_back_as_written(log: bytes, rows: bytes, control: bytes) -> None:
    assert decode_tail(encode_tail(Tail(log, rows, control))) == Tail(log, rows, control)


DESCRIPTORS = st.builds(
    Descriptor,
    st.integers(0, 2**64 - 1),
    st.text(max_size=200),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**31 - 1),
    st.lists(st.integers(-1, 2**31 - 1), max_size=5).map(tuple),
)


@given(DESCRIPTORS)
def test_a_descriptor_is_read_back_as_written(descriptor: Descriptor) -> None:
    assert decode_descriptor(encode_descriptor(descriptor)) == descriptor
