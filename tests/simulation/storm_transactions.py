"""Transactional producers and readers of committed records in a storm (multiraft.md E).

Each producer moves from transaction to transaction: one record in each of two partitions and an
offset of a group, then commit or abort; some on transaction.version 1, some on 2. What it hears of
errors it takes as Java does: it sends again what may be sent again, and begins anew, with an epoch
of its own, where it cannot know. Now and then another instance takes over in the middle. What must
hold:

* a reader never sees a record whose commit nobody asked for, none twice, and none out of order;
* of one transaction all records are seen in the end, or none; all where a commit was told of, none
  where an abort was;
* the offset of a producer's group is that of its last transaction that is there;
* in the end nothing is open, and all replicas have the same transactions;
* the last stable offset of a replica never goes back and never passes the high watermark.
"""

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final

from corelane.model.internal_topics import TRANSACTIONS_TOPIC
from corelane.model.record import record
from corelane.shard.key_hash import partition_number
from corelane.shard.partition import Partition
from corelane.shard.transaction_entries import TRANSACTIONAL
from corelane.wire.compiler import Message, message_type
from corelane.wire.compression import Compression
from corelane.wire.records import (
    BatchBuilder,
    Producer,
    batch_records,
    encode_batch,
    split_batches,
)
from tests.simulation import storm_commits
from tests.simulation.cluster import Cluster, SimNode
from tests.unit.api.world import WALL_MS, key_of, produce_request

NAMES: Final = ("anna", "bert", "carl")
COORDINATORS: Final = 2
TIMEOUT_MS: Final = 4_000
GIVE_UP_MS: Final = 1_500
"""A client on version 2 sends again after that: what is late is fenced by its epoch."""
AGAIN_MS: Final = 40
TAKE_OVER: Final = 0.02
COMMITS: Final = 0.7
FETCH: Final = 12
READ_COMMITTED: Final = 1

NONE, OUT_OF_RANGE = 0, 1
_TRY_AGAIN: Final = frozenset({5, 6, 7, 14, 15, 16, 19, 51, 56})
"""Leaders and coordinators that are elsewhere, load, or are still busy with the one before."""

Init = message_type("InitProducerIdRequest")
Add = message_type("AddPartitionsToTxnRequest")
AddOffsets = message_type("AddOffsetsToTxnRequest")
Commit = message_type("TxnOffsetCommitRequest")
CommitTopic = message_type("TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic")
CommitPartition = message_type("TxnOffsetCommitRequest.TxnOffsetCommitRequestPartition")
FetchOffsets = message_type("OffsetFetchRequest")
FetchGroup = message_type("OffsetFetchRequest.OffsetFetchRequestGroup")
FetchTopic = message_type("OffsetFetchRequest.OffsetFetchRequestTopics")
AddTopic = message_type("AddPartitionsToTxnRequest.AddPartitionsToTxnTopic")
End = message_type("EndTxnRequest")

_VALUE = re.compile(rb"\[(\w+) (\d+) (\d+)\]")
Key = tuple[str, int]
"""A producer's name, and the number of its transaction."""


@record
class Ask:
    """A request for whoever leads a raft group."""

    group: int
    message: Message
    version: int
    gives_up: bool


Life = Generator[Ask | int, Message | None, None]
"""Yields what to ask, or for how long to wait; gets the answer, or None: nobody knows."""


@dataclass
class Fate:
    """What is known of one transaction."""

    is_commit_asked: bool = False
    told: bool | None = None
    written: dict[int, int] = field(default_factory=dict)
    """By partition: the offset of its record, as it was acknowledged."""


class Client:
    """What drives a life: one request at a time."""

    def __init__(
        self, cluster: Cluster, life: Callable[[], Life], conns: Callable[[], int]
    ) -> None:
        self._cluster = cluster
        self._make = life
        self._conns = conns
        self.restart()

    def restart(self) -> None:
        """Begin a new life; what the old one has asked may still happen."""
        self._life = self._make()
        self._wanted = next(self._life)
        self._sent: tuple[SimNode, int, int, int] | None = None
        self._waits_until_ms = 0

    def step(self) -> None:
        """Do what can be done now."""
        now_ms = self._cluster.now_ms
        if isinstance(self._wanted, int):
            if self._waits_until_ms == 0:
                self._waits_until_ms = now_ms + self._wanted
            if now_ms >= self._waits_until_ms:
                self._waits_until_ms = 0
                self._go_on(None)
        elif self._sent is None:
            self._send(self._wanted)
        else:
            self._receive(self._wanted, *self._sent)

    def _send(self, wanted: Ask) -> None:
        for node in self._cluster.leaders(wanted.group)[:1]:
            conn = self._conns()
            node.ask(wanted.message, wanted.version, conn)
            self._sent = (node, node.boot, conn, self._cluster.now_ms)

    def _receive(self, wanted: Ask, node: SimNode, boot: int, conn: int, since_ms: int) -> None:
        if node.boot != boot or not node.is_up:
            self._go_on(None)
            return
        answer = node.receive(key_of(wanted.message), wanted.version, conn)
        if answer is not None:
            self._go_on(answer[1])
        elif wanted.gives_up and self._cluster.now_ms - since_ms > GIVE_UP_MS:
            self._go_on(None)

    def _go_on(self, answer: Message | None) -> None:
        self._sent = None
        self._wanted = self._life.send(answer)


class Writer:
    """A transactional producer: all instances of one transactional id."""

    def __init__(self, storm: "Transactions", name: str, version: int) -> None:
        self.storm = storm
        self.name = name
        self.version = version
        self.producer_id = self.epoch = -1
        self.sequences: dict[int, int] = {}

    def life(self) -> Life:
        """Write transactions for ever."""
        while True:
            yield from self._begin()
            while (yield from self._transaction()):
                pass

    def _ask(
        self, group: int, message: Message, version: int, error_of: Callable[[Message], int]
    ) -> Generator[Ask | int, Message | None, tuple[int, Message]]:
        """Send until there is an answer that is not to be tried again."""
        while True:
            answer = yield Ask(group, message, version, gives_up=self.version == 2)
            if answer is not None:
                error = error_of(answer)
                if error not in _TRY_AGAIN:
                    return error, answer
            yield AGAIN_MS

    def _begin(self) -> Generator[Ask | int, Message | None, None]:
        """Become the only instance."""
        while True:
            request = Init(transactional_id=self.name, transaction_timeout_ms=TIMEOUT_MS)
            group = self.storm.coordinator(self.name)
            error, answer = yield from self._ask(group, request, 4, _error_code)
            if error == NONE:
                self._goes_on_as(answer)
                return
            yield AGAIN_MS

    def _goes_on_as(self, answer: Message) -> None:
        self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
        self.sequences = {}

    def _transaction(self) -> Generator[Ask | int, Message | None, bool]:
        """Write one transaction; false: begin anew."""
        storm = self.storm
        number = storm.next_number()
        fate = storm.fates[self.name, number] = Fate()
        places = storm.chance.sample(range(storm.partitions), 2)
        if self.version == 1:
            error, _ = yield from self._ask(
                storm.coordinator(self.name), self._added(places), 3, _added_error
            )
            if error != NONE:
                return False
        for place in places:
            sequence = self.sequences.get(place, 0)
            request = self._produced(place, number, sequence)
            version = 12 if self.version == 2 else 9
            error, answer = yield from self._ask(place + 1, request, version, _produced_error)
            if error != NONE:
                return False
            self.sequences[place] = sequence + 1
            fate.written[place] = answer.responses[0].partition_responses[0].base_offset
        if not (yield from self._commit_offset(number)):
            return False
        return (yield from self._end(fate, commits=storm.chance.random() < COMMITS))

    def _commit_offset(self, number: int) -> Generator[Ask | int, Message | None, bool]:
        """Have the number of the transaction stand and fall with it, as an offset of a group."""
        storm, who = self.storm, {
            "transactional_id": self.name,
            "producer_id": self.producer_id,
            "producer_epoch": self.epoch,
            "group_id": self.name,
        }  # fmt: skip
        if self.version == 1:
            coordinator = storm.coordinator(self.name)
            error, _ = yield from self._ask(coordinator, AddOffsets(**who), 3, _error_code)
            if error != NONE:
                return False
        row = CommitPartition(partition_index=0, committed_offset=number)
        request = Commit(topics=[CommitTopic(name="t", partitions=[row])], **who)
        version = 5 if self.version == 2 else 3
        error, _ = yield from self._ask(storm.group_of(self.name), request, version, _offset_error)
        return error == NONE

    def _end(self, fate: Fate, *, commits: bool) -> Generator[Ask | int, Message | None, bool]:
        fate.is_commit_asked = commits
        request = End(
            transactional_id=self.name,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=commits,
        )
        version = 5 if self.version == 2 else 3
        group = self.storm.coordinator(self.name)
        error, answer = yield from self._ask(group, request, version, _error_code)
        if error != NONE:
            return False
        fate.told = commits
        if self.version == 2:
            self._goes_on_as(answer)
        return True

    def _added(self, places: list[int]) -> Message:
        return Add(
            v3_and_below_transactional_id=self.name,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[AddTopic(name="t", partitions=places)],
        )

    def _produced(self, place: int, number: int, sequence: int) -> Message:
        builder = BatchBuilder()
        builder.append(WALL_MS, b"k", b"[%s %d %d]" % (self.name.encode(), number, place), ())
        producer = Producer(self.producer_id, self.epoch, sequence)
        data = encode_batch(builder.payload(Compression.NONE), producer, TRANSACTIONAL)
        request = produce_request("t", data, partition=place, timeout_ms=3_000)
        request.transactional_id = self.name
        return request


class Reader:
    """A reader of committed records of one partition, as Java's."""

    def __init__(self, storm: "Transactions", partition: int) -> None:
        self.storm = storm
        self.partition = partition
        self.position = 0
        self.seen: list[tuple[int, Key]] = []

    def life(self) -> Life:
        """Read for ever."""
        while True:
            request = self._request()
            answer = yield Ask(self.partition + 1, request, FETCH, gives_up=False)
            if answer is not None:
                self.take(answer.responses[0].partitions[0])
            yield AGAIN_MS

    def _request(self) -> Message:
        node = next(iter(self.storm.cluster.nodes.values()))
        request: Message = node.fetch_request(
            "t",
            self.position,
            partition=self.partition,
            isolation_level=READ_COMMITTED,
            partition_max_bytes=self.storm.chance.choice((1, 3_000, 1 << 20)),
        )
        return request

    def take(self, row: Message) -> None:
        """Take in what was fetched."""
        if row.error_code == OUT_OF_RANGE:
            self.position = max(self.position, row.log_start_offset)
        if row.error_code != NONE:
            return
        assert row.last_stable_offset <= row.high_watermark
        for offset, key in committed_records(row):
            if offset < self.position:
                continue
            assert not self.seen or offset > self.seen[-1][0], "out of order"
            fate = self.storm.fates[key]
            assert fate.is_commit_asked, f"transaction {key} is seen and nobody committed it"
            assert fate.told is not False, f"transaction {key} is seen and was aborted"
            self.seen.append((offset, key))
        for batch in split_batches(row.records or b""):
            assert batch.base_offset < row.last_stable_offset, "what is open is not for readers"
            self.position = max(self.position, batch.last_offset + 1)


def committed_records(row: Message) -> list[tuple[int, Key]]:
    """Return what a client shows of an answer: without markers, and without what was aborted."""
    aborted = [(each.first_offset, each.producer_id) for each in row.aborted_transactions or ()]
    assert aborted == sorted(aborted), "clients want them by first offset"
    active: set[int] = set()
    found: list[tuple[int, Key]] = []
    for batch in split_batches(row.records or b""):
        while aborted and aborted[0][0] <= batch.last_offset:
            active.add(aborted.pop(0)[1])
        producer_id = batch.producer.producer_id
        if batch.is_control:
            (marker,) = batch_records(batch, "t", 0)
            assert marker.key is not None
            if marker.key == b"\0\0\0\0":
                active.discard(producer_id)
        elif batch.is_transactional and producer_id not in active:
            for each in batch_records(batch, "t", 0):
                match = _VALUE.fullmatch(each.value or b"")
                assert match is not None
                found.append((each.offset, (match[1].decode(), int(match[2]))))
    return found


class Transactions:
    """All of them, and what is known of them."""

    def __init__(self, cluster: Cluster, partitions: int, first_raft_group: int) -> None:
        self.cluster = cluster
        self.chance = cluster.chance
        self.partitions = partitions
        self._first = first_raft_group
        self.fates: dict[Key, Fate] = {}
        self._numbers = 0
        self._conns = 700_000
        self._stable: dict[tuple[int, int, int, int, int], int] = {}
        self.readers = [Reader(self, number) for number in range(partitions)]
        writers = [Writer(self, name, 1 + at % 2) for at, name in enumerate(NAMES)]
        self._writing = [Client(cluster, each.life, self._conn) for each in writers]
        self._reading = [Client(cluster, each.life, self._conn) for each in self.readers]
        self.is_over = False

    def create(self, node: SimNode) -> None:
        """Make the topic of the coordinators, smaller than clusters have it."""
        self.cluster.create_topic(node, TRANSACTIONS_TOPIC, COORDINATORS)

    def coordinator(self, name: str) -> int:
        """Return the raft group that coordinates a transactional id."""
        return self._first + partition_number(name, COORDINATORS)

    def group_of(self, name: str) -> int:
        """Return the raft group that coordinates the group of a producer."""
        return (
            self._first
            - storm_commits.PARTITIONS
            + partition_number(name, storm_commits.PARTITIONS)
        )

    def next_number(self) -> int:
        """Return the number of the next transaction."""
        self._numbers += 1
        return self._numbers

    def _conn(self) -> int:
        self._conns += 1
        return self._conns

    def step(self) -> None:
        """Let everybody go on."""
        for client in self._writing:
            if self.chance.random() < TAKE_OVER:
                client.restart()
            client.step()
        for client in self._reading:
            client.step()

    def check(self, node: SimNode, group: int, partition: Partition) -> None:
        """Look at one replica."""
        stable, end = partition.last_stable_offset, partition.log.committed_offset
        assert stable <= end, "stable is what is committed"
        log = partition.log
        life = (node.number, node.boot, log.descriptor.incarnation)
        key = (*life, group, log.renewed_lsn)  # repairs go back
        assert stable >= self._stable.get(key, 0), "the last stable offset went back"
        self._stable[key] = stable

    @property
    def told_count(self) -> int:
        """Return how many commits were told of."""
        return sum(fate.told is True for fate in self.fates.values())

    def compare(self) -> None:
        """Look at everything in the end, when the storm is over and time-outs have passed."""
        found: dict[int, dict[Key, int]] = {}
        starts: dict[int, int] = {}
        for number, reader in enumerate(self.readers):
            found[number], starts[number] = self._read(number)
            rest = [row for row in reader.seen if row[0] >= starts[number]]
            again = {key: offset for offset, key in rest}
            assert len(again) == len(rest), "a record was seen twice"
            assert again.items() <= found[number].items(), "what was seen is not there any more"
        for name in NAMES:
            self._compare_offset(name, found, starts)
        for key, fate in self.fates.items():
            there = {
                number: key in found[number]
                for number, offset in fate.written.items()
                if offset >= starts[number]
            }
            assert len({*there.values()}) <= 1, f"transaction {key} is torn: {there}"
            if fate.told is True:
                assert all(there.values()), f"transaction {key} was committed and is not there"
            if fate.told is False or not fate.is_commit_asked:
                assert not any(there.values()), f"transaction {key} is there and was aborted"

    def _compare_offset(
        self, name: str, found: dict[int, dict[Key, int]], starts: dict[int, int]
    ) -> None:
        """The offset of a producer's group is of its last transaction that was committed."""
        (node,) = self.cluster.leaders(self.group_of(name))
        wish = FetchGroup(group_id=name, topics=[FetchTopic(name="t", partition_indexes=[0])])
        request = FetchOffsets(groups=[wish], require_stable=True)
        (group,) = self.cluster.call(node, request, 8, conn=self._conn()).groups
        row = group.topics[0].partitions[0]
        assert (group.error_code, row.error_code) == (NONE, NONE), "something is open in it"
        for (of, number), fate in self.fates.items():
            if of != name:
                continue
            there = [
                (of, number) in found[at] for at, offset in fate.written.items()
                if offset >= starts[at]
            ]  # fmt: skip
            if number == row.committed_offset:
                assert fate.is_commit_asked, f"offset of {name}: nobody committed {number}"
                assert all(there), f"transaction {number} of {name} is torn from its offset"
            elif number > row.committed_offset:
                assert not any(there), f"the offset of {name} is {row.committed_offset}: {number}"
                assert fate.told is not True, f"the offset of {name} is not that of {number}"

    def _read(self, number: int) -> tuple[dict[Key, int], int]:
        """Return where each transaction is in a partition, and where that begins."""
        group = number + 1
        (leader,) = self.cluster.leaders(group)
        nodes = self.cluster.nodes.values()
        replicas = [node.members[group] for node in nodes if group in node.members]
        folds = set()
        for each in replicas:
            assert isinstance(each, Partition)
            folds.add(each.transactions.to_bytes())
            assert each.last_stable_offset == each.log.committed_offset, "something is open"
        assert len(folds) == 1, f"replicas of partition {number} know different transactions"
        start = replicas[0].log.start_offset
        reader = Reader(self, number)
        reader.position = start
        end = replicas[0].log.committed_offset
        while reader.position < end:
            before = reader.position
            answer = self.cluster.call(leader, reader._request(), FETCH, conn=self._conn())
            reader.take(answer.responses[0].partitions[0])
            assert reader.position > before, f"nothing at {before} of partition {number}"
        return {key: offset for offset, key in reader.seen}, start


def _error_code(answer: Message) -> int:
    error: int = answer.error_code
    return error


def _added_error(answer: Message) -> int:
    errors = [
        row.partition_error_code
        for topic in answer.results_by_topic_v3_and_below
        for row in topic.results_by_partition
    ]
    return next((error for error in errors if error), NONE)


def _offset_error(answer: Message) -> int:
    error: int = answer.topics[0].partitions[0].error_code
    return error


def _produced_error(answer: Message) -> int:
    error: int = answer.responses[0].partition_responses[0].error_code
    return error
