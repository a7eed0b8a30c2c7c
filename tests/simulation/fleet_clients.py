"""Clients of a simulated fleet: producers, readers, readers of the end, groups that commit.

Each holds what it is told against what anybody was told before. They ask whoever believes to lead,
at times one that does so wrongly, or somebody else.
"""

from collections import deque
from collections.abc import Callable

from corelane.model.errors import ERRORS, ErrorCode
from corelane.model.record import record
from corelane.shard.key_hash import partition_number
from corelane.wire.compiler import Message, message_type
from corelane.wire.compression import Compression
from corelane.wire.records import (
    BatchBuilder,
    Producer,
    batch_records,
    encode_batch,
    split_batches,
)
from tests.simulation.fleet import Fleet
from tests.simulation.fleet_checks import Checks
from tests.simulation.fleet_core import WALL_START_MS, FleetCore, Session
from tests.unit.api.world import produce_request

PATIENCE_US = 3_000_000
AGAIN_US = 80_000
STRAY = 0.05
"""How often somebody is asked who does not even believe to lead."""
IN_FLIGHT_MAX = 3
GROUPS = ("one", "two", "three")
OFFSETS_PARTITIONS = 2
_FETCH_TOPIC = message_type("FetchRequest.FetchTopic")
_FETCH_PARTITION = message_type("FetchRequest.FetchPartition")
_TOLERATED = {
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ErrorCode.DUPLICATE_SEQUENCE_NUMBER,
    ErrorCode.INVALID_TIMESTAMP,  # the clock of who leads is hours off
}


class World:
    """What clients know of the topic, and what they were told."""

    def __init__(self, fleet: Fleet, checks: Checks, partitions: int) -> None:
        self.fleet = fleet
        self.checks = checks
        self.partitions = partitions
        self.groups: list[int] = []
        self.coordinators: list[int] = []
        self.topic_id = bytes(16)
        self.values: list[dict[int, bytes]] = [{} for _ in range(partitions)]
        self.ends = [0] * partitions
        """Up to where records were acknowledged."""
        self.is_ending = False
        self.reads = self.stale_refused = 0

    def believer(self, group: int) -> FleetCore | None:
        """Return a core that believes to lead, mostly the latest; or any."""
        chance, servers = self.fleet.chance, self.fleet.servers(group)
        if not servers or chance.random() < STRAY:
            cores = self.fleet.cores()
            return chance.choice(cores) if cores else None
        return servers[0] if chance.random() < 0.8 else chance.choice(servers)


class Client:
    """Somebody who asks one thing at a time, and again where nobody knows what became of it."""

    def __init__(self, world: World, group: int) -> None:
        self.world = world
        self.fleet = world.fleet
        self.group = group
        self.session: Session | None = None
        self.asked = 0

    def ask(self, message: Message, version: int, done: Callable[[Message | None], None]) -> bool:
        """Ask who leads; *done* hears None where no answer came in time. False: nobody is there."""
        if self.session is None or not self.session.is_open:
            core = self.world.believer(self.group)
            if core is None:
                return False
            self.session = core.connect()
        session = self.session
        self.asked += 1
        number, is_over = self.asked, False

        def once(answer: Message | None) -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                done(answer)

        def late() -> None:
            if not is_over:
                session.close()
                once(None)

        del number
        session.ask(message, version, once)
        self.fleet.after(PATIENCE_US, late)
        return True

    def leave(self) -> None:
        """Look for another core next time."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def later(self, act: Callable[[], None], us: int = AGAIN_US) -> None:
        """Do something after a while."""
        self.fleet.after(self.fleet.chance.randrange(us // 2, us * 2), act)


@record
class Batch:
    """Records that are sent together, and again in the same words."""

    values: list[bytes]
    request: Message


class ProducerClient(Client):
    """An idempotent producer of one partition: several batches under way, sent again in order."""

    def __init__(self, world: World, partition: int, number: int, pause_us: int) -> None:
        super().__init__(world, world.groups[partition])
        self.partition = partition
        self.number = number
        self.pause_us = pause_us
        self.sequence = 0
        self.acknowledged: list[bytes] = []
        self.unacknowledged: deque[Batch] = deque()
        self.attempt = 0
        self.in_flight = 0
        self.later(self.produce, pause_us)

    @property
    def is_done(self) -> bool:
        return not self.unacknowledged

    def produce(self) -> None:
        """Make another batch now and then."""
        if self.world.is_ending:
            return
        chance = self.fleet.chance
        if len(self.unacknowledged) < IN_FLIGHT_MAX:
            size = chance.choice((8, 300, 2_000))
            count = chance.randrange(1, 4)
            values = [
                b"%d-%d:" % (self.number, self.sequence + at) + bytes(size) for at in range(count)
            ]
            self.unacknowledged.append(self.batch(values))
            self.sequence += count
            if self.in_flight or len(self.unacknowledged) == 1:
                self.send(self.unacknowledged[-1], self.attempt)
        self.later(self.produce, self.pause_us)

    def batch(self, values: list[bytes]) -> Batch:
        builder = BatchBuilder()
        for value in values:
            builder.append(WALL_START_MS, None, value, ())
        producer = Producer(1_000_000 + self.number, 0, self.sequence)
        data = encode_batch(builder.payload(Compression.NONE), producer)
        return Batch(values, produce_request("t", data, partition=self.partition))

    def send(self, batch: Batch, attempt: int) -> None:
        self.in_flight += 1
        if not self.ask(batch.request, 9, lambda answer: self.answered(batch, attempt, answer)):
            self.in_flight -= 1
            self.again(attempt)

    def again(self, attempt: int) -> None:
        """Send all that is not acknowledged once more, after a while."""
        if attempt != self.attempt:
            return
        self.attempt += 1
        self.in_flight = 0
        self.leave()
        self.later(lambda: self.resend(self.attempt))

    def resend(self, attempt: int) -> None:
        for batch in [*self.unacknowledged]:
            if attempt == self.attempt:
                self.send(batch, attempt)

    def answered(self, batch: Batch, attempt: int, answer: Message | None) -> None:
        if attempt != self.attempt:
            return
        self.in_flight -= 1
        row = None if answer is None else answer.responses[0].partition_responses[0]
        if row is None or row.error_code:
            if row is not None and row.error_code not in _TOLERATED:
                assert ERRORS[row.error_code].is_retriable, f"producer told {row.error_code}"
            if row is None or row.error_code != ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
                self.again(attempt)
                return
        assert row is not None
        assert self.unacknowledged, "acknowledged twice"
        assert self.unacknowledged[0] is batch, "acknowledged out of order"
        self.unacknowledged.popleft()
        values = batch.values
        self.acknowledged += values
        if not row.error_code:
            for at, value in enumerate(values, row.base_offset):
                note(self.world, self.partition, at, value)
            end = row.base_offset + len(values)
            self.world.ends[self.partition] = max(self.world.ends[self.partition], end)


def note(world: World, partition: int, offset: int, value: bytes) -> None:
    """Hold a record against what anybody knows of its offset."""
    known = world.values[partition].setdefault(offset, value)
    assert known == value, (
        f"partition {partition} has {value[:20]!r} at {offset}, had {known[:20]!r}"
    )


class ConsumerClient(Client):
    """Reads a partition from its beginning, and never anything that is not committed."""

    def __init__(self, world: World, partition: int, pause_us: int) -> None:
        super().__init__(world, world.groups[partition])
        self.partition = partition
        self.pause_us = pause_us
        self.position = 0
        self.found: dict[int, bytes] = {}
        self.later(self.read, pause_us)

    def read(self) -> None:
        """Fetch once."""
        partition = _FETCH_PARTITION(
            partition=self.partition, fetch_offset=self.position, partition_max_bytes=1 << 20
        )
        row = _FETCH_TOPIC(topic="t", topic_id=self.world.topic_id, partitions=[partition])
        request = message_type("FetchRequest")(
            topics=[row], max_wait_ms=200, min_bytes=1, max_bytes=1 << 20
        )
        if not self.ask(request, 12, self.fetched):
            self.later(self.read)

    def fetched(self, answer: Message | None) -> None:
        if answer is None:
            self.later(self.read)
            return
        row = answer.responses[0].partitions[0]
        if row.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            ledger = self.world.checks.ledgers[self.group]
            assert row.log_start_offset > self.position or self.position > row.high_watermark
            if row.log_start_offset > self.position:
                self.position = min(row.log_start_offset, ledger.offset)
            self.leave()
        elif row.error_code:
            assert ERRORS[row.error_code].is_retriable, f"consumer told {row.error_code}"
            self.leave()
        elif row.records:
            self.take(bytes(row.records))
        self.later(self.read, self.pause_us)

    def take(self, records: bytes) -> None:
        position = self.position
        for batch in split_batches(records):
            for each in batch_records(batch, "t", self.partition):
                if each.offset >= position:
                    assert each.offset == position, f"offset {each.offset} after {position - 1}"
                    note(self.world, self.partition, each.offset, each.value or b"")
                    self.found[each.offset] = each.value or b""
                    position = each.offset + 1
        committed = self.world.checks.ledgers[self.group].offset
        assert position <= committed, f"{position - 1} is read, {committed} committed"
        self.position = position


@record
class _Floor:
    """What must be known, when it was asked for."""

    partition: int
    end: int


class EndReader(Client):
    """Asks where a partition ends: never before what was acknowledged when it asked."""

    def __init__(self, world: World, partition: int, pause_us: int) -> None:
        super().__init__(world, world.groups[partition])
        self.partition = partition
        self.pause_us = pause_us
        self.later(self.read, pause_us)

    def read(self) -> None:
        self.leave()
        floor = _Floor(self.partition, self.world.ends[self.partition])
        row = message_type("ListOffsetsRequest.ListOffsetsPartition")(
            partition_index=self.partition, timestamp=-1
        )
        topic = message_type("ListOffsetsRequest.ListOffsetsTopic")(name="t", partitions=[row])
        request = message_type("ListOffsetsRequest")(replica_id=-1, topics=[topic])
        if not self.ask(request, 7, lambda answer: self.told(floor, answer)):
            self.later(self.read)

    def told(self, floor: _Floor, answer: Message | None) -> None:
        if answer is not None:
            row = answer.topics[0].partitions[0]
            if row.error_code:
                self.world.stale_refused += 1
            else:
                self.world.reads += 1
                assert row.offset >= floor.end, f"the end is {row.offset}, {floor} was known"
        self.later(self.read, self.pause_us)


class GroupClient(Client):
    """A group that commits rising offsets, and asks for them: none is ever taken back."""

    def __init__(self, world: World, name: str, pause_us: int) -> None:
        number = partition_number(name, OFFSETS_PARTITIONS)
        super().__init__(world, world.coordinators[number])
        self.name = name
        self.pause_us = pause_us
        self.attempted = self.acknowledged = -1
        self.later(self.commit, pause_us)

    def commit(self) -> None:
        if self.world.is_ending:
            return
        if self.fleet.chance.random() < 0.4:
            self.look()
            return
        offset = self.attempted = self.attempted + 1
        row = message_type("OffsetCommitRequest.OffsetCommitRequestPartition")(
            partition_index=0, committed_offset=offset, committed_metadata=""
        )
        topic = message_type("OffsetCommitRequest.OffsetCommitRequestTopic")(
            name="t", partitions=[row]
        )
        request = message_type("OffsetCommitRequest")(group_id=self.name, topics=[topic])
        if not self.ask(request, 8, lambda answer: self.committed(offset, answer)):
            self.later(self.commit)

    def committed(self, offset: int, answer: Message | None) -> None:
        if answer is None or answer.topics[0].partitions[0].error_code:
            self.leave()
        else:
            self.acknowledged = max(self.acknowledged, offset)
        self.later(self.commit, self.pause_us)

    def look(self) -> None:
        floor = self.acknowledged
        topic = message_type("OffsetFetchRequest.OffsetFetchRequestTopics")(
            name="t", partition_indexes=[0]
        )
        group = message_type("OffsetFetchRequest.OffsetFetchRequestGroup")(
            group_id=self.name, topics=[topic]
        )
        request = message_type("OffsetFetchRequest")(groups=[group])
        self.leave()
        if not self.ask(request, 8, lambda answer: self.told(floor, answer)):
            self.later(self.commit)

    def told(self, floor: int, answer: Message | None) -> None:
        if answer is not None and not answer.groups[0].error_code:
            self.world.reads += 1
            found = answer.groups[0].topics[0].partitions[0].committed_offset
            assert floor <= found <= self.attempted, f"{self.name}: {found}, {floor} was known"
        self.later(self.commit, self.pause_us)
