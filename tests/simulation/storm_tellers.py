"""Producers that move money in a storm: each transaction writes a debit and a credit.

A teller is one life of a producer: it initialises, joins a group, writes to two partitions, commits
an offset now and then, and ends the transaction, again and again. Where it is told that it must not
go on it ends, and another life follows; some are thought dead and go on beside their successor.
Half of them speak transaction.version 1, half 2 (KIP-890), on the same partitions.
"""

from collections.abc import Callable
from enum import Enum

from corelane.model.errors import ErrorCode
from corelane.model.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from corelane.shard.key_hash import partition_number
from corelane.wire.compiler import Message
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, Producer, encode_batch
from tests.simulation.cluster import Cluster, SimNode
from tests.simulation.storm_members import GROUP_ERRORS, Asked, Membership, Owners, Steps
from tests.unit.api.txn import (
    Add,
    AddOffsets,
    AddTopic,
    Commit,
    CommitPartition,
    CommitTopic,
    End,
    Init,
)
from tests.unit.api.world import WALL_MS, key_of, produce_request

TOPIC = "money"
PARTITIONS = 3
COORDINATORS = 2
NAMES = ("ann", "bob", "cid", "dot")
TIMEOUTS_MS = (1_000, 4_000)
NO_ANSWER_MS = 6_000
"""Longer than any pause: what version 1 has sent must not come later than its repetition."""
GIVE_UP_MS = 1_500
"""Of version 2: what is late is fenced by its epoch."""
AGAIN_MS = 20
REST_MS = (0, 0, 0, 20, 100, 1_000, 3_000)
_TRANSACTIONAL = 0x10

RETRIED = frozenset(
    {
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
)
"""What clients ask again for."""

FATAL = frozenset(
    {
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.TRANSACTION_ABORTABLE,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    }
)
"""After which a teller begins anew; no other error may come."""


class Fate(Enum):
    """What is known of a transaction."""

    OPEN = "its commit was never asked for"
    ASKED = "its commit was asked for"
    COMMITTED = "its commit was acknowledged"


class Ledger:
    """What all tellers did."""

    def __init__(self) -> None:
        self.fates: dict[int, Fate] = {}
        self.offsets: dict[str, list[int]] = {}
        """Of each teller: the numbers of the transactions that committed theirs, as offsets."""
        self.owners = Owners()
        self.errors: dict[str, int] = {}

    def begin(self) -> int:
        """Return the number of a new transaction."""
        number = len(self.fates) + 1
        self.fates[number] = Fate.OPEN
        return number


class Teller:
    """One life of the producer of a transactional id."""

    def __init__(
        self,
        cluster: Cluster,
        ledger: Ledger,
        name: str,
        groups: "Groups",
        moment: Callable[["Teller", str], None],
    ) -> None:
        self.cluster = cluster
        self.chance = cluster.chance
        self.ledger = ledger
        self.name = name
        self.groups = groups
        self.is_strict = self.chance.random() < 0.5
        self.is_over = False
        self.producer = Producer(-1, -1, -1)
        self.member = Membership(group_of(name), ledger.owners)
        self._moment = moment
        self._sequences: dict[int, int] = {}
        self._steps = self._life()
        self._asked: Asked | None = next(self._steps)
        self._sent: tuple[SimNode, int, int, int] | None = None
        """Node, its boot, connection and time."""
        self._next_ms = 0

    # --- what it wants ---

    def _life(self) -> Steps:
        _error, answer = yield self._init()
        self._goes_on_as(answer)
        is_member = self.chance.random() < 0.5
        while True:
            if is_member:
                yield from self.member.settle(self.groups.offsets(self.member.name))
            number = self.ledger.begin()
            places = self.chance.sample(range(PARTITIONS), 2)
            if not self.is_strict:
                yield self._add(places)
            for place, kind in zip(places, ("debit", "credit"), strict=True):
                yield self._produce(place, f"<{number}:{kind}>".encode())
            error = ErrorCode.NONE
            if self.chance.random() < 0.4:
                if not self.is_strict:
                    yield self._add_offsets()
                error, _answer = yield self._commit_offset(number)
            if error is not ErrorCode.NONE:
                self.member.left(error)
            is_commit = error is ErrorCode.NONE and self.chance.random() < 0.7
            if is_commit:
                self.ledger.fates[number] = Fate.ASKED
            _error, answer = yield self._end(is_commit)
            if is_commit:
                self.ledger.fates[number] = Fate.COMMITTED
            if self.is_strict:
                self._goes_on_as(answer)
            self._next_ms = self.cluster.now_ms + self.chance.choice(REST_MS)

    def _goes_on_as(self, answer: Message) -> None:
        producer = Producer(answer.producer_id, answer.producer_epoch, -1)
        if producer != self.producer:
            self._sequences.clear()
        self.producer = producer

    def _init(self) -> Asked:
        timeout_ms = self.chance.choice(TIMEOUTS_MS)
        message = Init(transactional_id=self.name, transaction_timeout_ms=timeout_ms)
        return Asked("init", self.groups.coordinator(self.name), message, 4)

    def _add(self, places: list[int]) -> Asked:
        message = Add(
            v3_and_below_transactional_id=self.name,
            v3_and_below_producer_id=self.producer.producer_id,
            v3_and_below_producer_epoch=self.producer.epoch,
            v3_and_below_topics=[AddTopic(name=TOPIC, partitions=places)],
        )
        return Asked("add", self.groups.coordinator(self.name), message, 3)

    def _produce(self, place: int, value: bytes) -> Asked:
        sequence = self._sequences.get(place, 0)
        self._sequences[place] = sequence + 1
        builder = BatchBuilder()
        builder.append(WALL_MS, b"k", value, ())
        producer = Producer(self.producer.producer_id, self.producer.epoch, sequence)
        batch = encode_batch(builder.payload(Compression.NONE), producer, _TRANSACTIONAL)
        message = produce_request(TOPIC, batch, partition=place)
        message.transactional_id = self.name
        version = 12 if self.is_strict else 9
        return Asked("produce", self.groups.partition(place), message, version)

    def _add_offsets(self) -> Asked:
        message = AddOffsets(
            transactional_id=self.name,
            producer_id=self.producer.producer_id,
            producer_epoch=self.producer.epoch,
            group_id=self.member.name,
        )
        return Asked("add offsets", self.groups.coordinator(self.name), message, 3)

    def _commit_offset(self, number: int) -> Asked:
        row = CommitPartition(partition_index=index_of(self.name), committed_offset=number)
        message = Commit(
            transactional_id=self.name,
            group_id=self.member.name,
            producer_id=self.producer.producer_id,
            producer_epoch=self.producer.epoch,
            generation_id=self.member.generation,
            member_id=self.member.member_id if self.member.generation >= 0 else "",
            topics=[CommitTopic(name=TOPIC, partitions=[row])],
        )
        self.ledger.offsets.setdefault(self.name, []).append(number)
        version = 5 if self.is_strict else 3
        group = self.groups.offsets(self.member.name)
        return Asked("commit offset", group, message, version, GROUP_ERRORS)

    def _end(self, is_commit: bool) -> Asked:
        message = End(
            transactional_id=self.name,
            producer_id=self.producer.producer_id,
            producer_epoch=self.producer.epoch,
            committed=is_commit,
        )
        version = 5 if self.is_strict else 3
        return Asked("end", self.groups.coordinator(self.name), message, version)

    # --- how it gets it ---

    def turn(self) -> None:
        """Take an answer if one came; ask, or ask again, if it is time."""
        if self.is_over:
            return
        if self._sent is not None:
            self._collect()
        if self._sent is None and not self.is_over and self.cluster.now_ms >= self._next_ms:
            self._ask()

    def _ask(self) -> None:
        assert self._asked is not None
        for node in self.cluster.leaders(self._asked.group)[:1]:
            conn = self.groups.conn()
            node.ask(self._asked.message, self._asked.version, conn)
            self._sent = (node, node.boot, conn, self.cluster.now_ms)
            self._moment(self, f"{self._asked.step} asked")

    def _collect(self) -> None:
        assert self._sent is not None
        assert self._asked is not None
        node, boot, conn, sent_ms = self._sent
        if not node.is_up or node.boot != boot:
            self._again()
            return
        key = key_of(self._asked.message)
        answer = node.receive(key, self._asked.version, conn)
        patience_ms = GIVE_UP_MS if self.is_strict else NO_ANSWER_MS
        if answer is not None:
            self._sent = None
            self._take(answer[1])
        elif self.cluster.now_ms - sent_ms <= patience_ms:
            pass
        elif self.is_strict or self._asked.step != "end":
            self._again()
        else:
            self.is_over = True  # whether it ended nobody knows: version 1 cannot ask again

    def _again(self) -> None:
        self._sent = None
        self._next_ms = self.cluster.now_ms + AGAIN_MS

    def _take(self, answer: Message) -> None:
        assert self._asked is not None
        step, heard = self._asked.step, self._asked.heard
        error = ErrorCode(_error_of(step, answer))
        if error is not ErrorCode.NONE:
            key = f"{step}: {error.name}"
            self.ledger.errors[key] = self.ledger.errors.get(key, 0) + 1
        if error is ErrorCode.NONE or error in heard:
            self._moment(self, f"{step} heard")
            self._asked = self._steps.send((error, answer))
        elif error in RETRIED:
            self._again()
        else:
            assert error in FATAL, f"{self.name}: {step} was answered with {error.name}"
            self.is_over = True


def _error_of(step: str, answer: Message) -> int:
    match step:
        case "produce":
            error: int = answer.responses[0].partition_responses[0].error_code
        case "add":
            errors = [
                row.partition_error_code
                for row in answer.results_by_topic_v3_and_below[0].results_by_partition
            ]
            error = max(errors)
        case "commit offset":
            error = answer.topics[0].partitions[0].error_code
        case _:
            error = answer.error_code
    return error


class Groups:
    """Which raft group is which."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._conns = 700_000
        self._known: dict[tuple[str, int], int] = {}

    def conn(self) -> int:
        """Return the number of a new connection."""
        self._conns += 1
        return self._conns

    def partition(self, number: int) -> int:
        """Return that of a partition with money."""
        return self.of(TOPIC, number)

    def coordinator(self, name: str) -> int:
        """Return that of a transactional id's coordinator."""
        return self.of(TRANSACTIONS_TOPIC, self.number(name))

    def offsets(self, group: str) -> int:
        """Return that of a consumer group's coordinator."""
        return self.of(OFFSETS_TOPIC, self.number(group))

    def number(self, key: str) -> int:
        """Return the partition of a key, of two."""
        return partition_number(key, COORDINATORS)

    def of(self, topic: str, number: int) -> int:
        """Return that of any partition; -1: nobody is there to say."""
        for node in self._cluster.up():
            found = node.shard.groups.cluster.topics.get(topic)
            if found is not None and (topic, number) not in self._known:
                self._known[topic, number] = int(found.partitions[number].group)
        return self._known.get((topic, number), -1)


def group_of(name: str) -> str:
    """Return the group of a teller: two have one together."""
    return ("east", "west")[NAMES.index(name) // 2]


def index_of(name: str) -> int:
    """Return the partition that a teller commits offsets of; nobody else of its group does."""
    return NAMES.index(name) % 2
