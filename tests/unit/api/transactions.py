"""A coordinator of the tests' own, and a producer that writes transactions to a `World`.

The partition asks through the same seam as it asks real coordinators; what they say, and when, is
up to the test.
"""

from collections.abc import Callable
from typing import Any

from corelane.model.errors import ErrorCode
from corelane.model.ids import Term
from corelane.producers.transactions.requests import PushVerdict
from corelane.shard import markers
from corelane.shard.partition import Partition
from corelane.shard.transaction_entries import TRANSACTIONAL
from corelane.shard.verifying import (
    MarkerToWrite,
    Place,
    Pushed,
    PushTransaction,
    Verified,
    VerifyTransaction,
)
from corelane.wire.compiler import Message
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, Producer, encode_batch
from tests.unit.api.world import World, produce_request

NONE = ErrorCode.NONE


class Coordinators:
    """Answers at once as it is told to, or keeps the questions."""

    def __init__(self) -> None:
        self.said = Verified(NONE, 50)
        self.pushed = Pushed(PushVerdict.WAIT)
        self.holds = False
        self.asked: list[VerifyTransaction] = []
        self.pushes: list[PushTransaction] = []
        self._kept: list[Callable[[Verified], None]] = []
        self._pushes_kept: list[Callable[[Pushed], None]] = []

    def verify(self, question: VerifyTransaction, told: Callable[[Verified], None], /) -> None:
        self.asked.append(question)
        if self.holds:
            self._kept.append(told)
        else:
            told(self.said)

    def push(self, question: PushTransaction, told: Callable[[Pushed], None], /) -> None:
        self.pushes.append(question)
        if self.holds:
            self._pushes_kept.append(told)
        else:
            told(self.pushed)

    def answer(self, said: Verified | None = None) -> None:
        """Answer the questions that were kept."""
        kept, self._kept = self._kept, []
        for told in kept:
            told(said or self.said)

    def answer_pushes(self, said: Pushed) -> None:
        kept, self._pushes_kept = self._pushes_kept, []
        for told in kept:
            told(said)


class TransactionWorld(World):
    """One shard whose transactions have that coordinator."""

    coordinators: Coordinators

    def come_up(self) -> None:
        if not hasattr(self, "coordinators"):
            self.coordinators = Coordinators()
        self.shard.groups.inquiries = self.coordinators
        super().come_up()

    def partition(self, topic: str = "t", number: int = 0) -> Partition:
        found = self.shard.groups.topics[topic.encode()].partition(number)
        assert found is not None
        return found

    def marker(
        self,
        producer_id: int,
        epoch: int = 0,
        *,
        commits: bool = True,
        number: int = 0,
        **fields: Any,
    ) -> list[ErrorCode]:
        """Have a marker written into topic t; return what is told of it."""
        told: list[ErrorCode] = []
        place = Place("t", self.partition("t", number).topic.topic_id, number)
        term = fields.pop("term", 1)
        marker = MarkerToWrite(place, producer_id, epoch, commits, Term(term), **fields)
        markers.write(self.shard, marker, told.append)
        self.run([])
        return told

    @property
    def ends(self) -> tuple[int, int]:
        """The last stable offset and the high watermark of t-0."""
        partition = self.partition()
        return partition.last_stable_offset, partition.log.committed_offset


class Writer:
    """A transactional producer of raw batches."""

    def __init__(self, world: TransactionWorld, producer_id: int, name: str | None = None) -> None:
        self.world = world
        self.producer_id = producer_id
        self.name: str | None = name or f"id-{producer_id}"
        self.epoch = 0
        self.sequence = 0
        self.version = 9
        self.conn = producer_id

    def batch(self, count: int = 1, *, plain: bool = False, value: bytes = b"v") -> bytes:
        builder = BatchBuilder()
        for _ in range(count):
            builder.append(self.world.wall_ms, b"k", value, ())
        producer = Producer(self.producer_id, self.epoch, self.sequence)
        payload = builder.payload(Compression.NONE)
        return encode_batch(payload, producer, 0 if plain else TRANSACTIONAL)

    def request(self, data: bytes, number: int = 0) -> Message:
        request = produce_request("t", data, partition=number)
        request.transactional_id = self.name
        return request

    def send(self, count: int = 1, **fields: Any) -> int:
        """Send a batch of the open transaction; its answer is for `answer`."""
        number = fields.pop("number", 0)
        data = self.batch(count, **fields)
        self.sequence += count
        return self.world.send(self.request(data, number), self.version, self.conn)

    def answer(self) -> Message | None:
        """Return the row of the next answer."""
        found = self.world.receive(0, self.version, self.conn)
        if found is None:
            return None
        row: Message = found[1].responses[0].partition_responses[0]
        return row

    def write(self, count: int = 1, **fields: Any) -> ErrorCode:
        """Send a batch that is answered at once, and return what is said."""
        self.send(count, **fields)
        row = self.answer()
        assert row is not None, "no answer came"
        return ErrorCode(row.error_code)
