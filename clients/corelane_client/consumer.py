"""Reads records from assigned partitions, in order within each, fetching ahead."""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from corelane.model.errors import ErrorCode
from corelane.wire.records import CorruptBatchError, Record, batch_records
from corelane_client.connection import Connect, connect_tcp
from corelane_client.errors import KafkaError, no_partition
from corelane_client.fetching import ISOLATION, Assigned, Chunk, Fetcher, Watermarks, damaged
from corelane_client.offsets import Edge, Place, list_offsets
from corelane_client.pool import Pool
from corelane_client.settings import ConsumerSettings

Start = int | Place
"""An offset, an end of the partition, or a time."""


class Consumer:
    """A consumer of partitions it is told, to be used in an `async with` block.

        async with Consumer("127.0.0.1:9092") as consumer:
            await consumer.assign("greetings", stop=Edge.END)
            async for record in consumer:
                print(record.offset, record.value)

    Entering connects and raises ConnectError when no broker answers. Iterating waits for records
    for ever, or ends once every assigned partition has reached its `stop`. Records of one
    partition come in the order of their offsets. Only committed records come: what was seen does
    not disappear. One task may iterate at a time.

    While brokers fail in ways that may pass, iterating waits; after `retry_timeout_ms` without
    any success it raises. After an error iterating may go on, where the error allows it.
    """

    def __init__(
        self,
        bootstrap: str,
        settings: ConsumerSettings | None = None,
        connect: Connect = connect_tcp,
    ) -> None:
        self._settings = settings or ConsumerSettings()
        self._pool = Pool(bootstrap, self._settings.connection, connect)
        self._fetcher = Fetcher(self._pool, self._settings)
        self._chunk: Chunk | None = None
        self._records: list[Record] = []
        self._next = 0
        self._source: tuple[Assigned, int] | None = None

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        self._pool.nursery.start_soon(self._fetcher.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.__aexit__(kind, error, traceback)

    async def assign(
        self,
        topic: str,
        partitions: Sequence[int] | None = None,
        *,
        start: Start = Edge.BEGINNING,
        stop: Start | None = None,
    ) -> None:
        """Read *partitions* of *topic* too (None: all), from *start* up to before *stop*.

        Places that are not offsets are looked up now. Raises ClientError.
        """
        known = (await self._pool.retry(lambda: self._pool.topic(topic))).partitions
        chosen = [*known] if partitions is None else [*partitions]
        for partition in chosen:
            if partition not in known:
                raise no_partition(topic, len(known), partition)
        starts = await self._resolve(topic, chosen, start)
        stops = {} if stop is None else await self._resolve(topic, chosen, stop)
        for partition in chosen:
            assigned = Assigned(topic, partition, starts[partition], stops.get(partition))
            self.unassign(topic, partition)
            self._fetcher.assigned[topic, partition] = assigned
        self._fetcher.wake()

    def unassign(self, topic: str, partition: int) -> None:
        """Read this partition no more."""
        assigned = self._fetcher.assigned.pop((topic, partition), None)
        if assigned is not None:
            assigned.generation += 1

    async def seek(self, topic: str, partition: int, start: Start) -> None:
        """Go on at *start* in a partition that is assigned. Raises ClientError."""
        assigned = self._fetcher.assigned[topic, partition]
        assigned.move((await self._resolve(topic, [partition], start))[partition])
        self._fetcher.wake()

    def position(self, topic: str, partition: int) -> int:
        """Return the offset behind the last record that was returned; gaps may follow."""
        return self._fetcher.assigned[topic, partition].position

    def watermarks(self, topic: str, partition: int) -> Watermarks:
        """Return the ends of an assigned partition, as its last answer told them."""
        return self._fetcher.assigned[topic, partition].watermarks

    def __aiter__(self) -> AsyncIterator[Record]:
        return self

    async def __anext__(self) -> Record:
        """Return the next record; StopAsyncIteration once all that was asked for is read."""
        while True:
            if self._next < len(self._records):
                assert self._source is not None
                assigned, generation = self._source
                if assigned.generation == generation:
                    found = self._records[self._next]
                    self._next += 1
                    assigned.position = found.offset + 1
                    return found
            if not await self._advance():
                raise StopAsyncIteration

    async def read(self) -> list[Record]:
        """Return the next records, at least one, of one partition; empty once all are read.

        Cheaper than iterating: a batch at a time.
        """
        try:
            first = await anext(self)
        except StopAsyncIteration:
            return []
        found = [first, *self._records[self._next :]]
        self._next = len(self._records)
        assert self._source is not None
        self._source[0].position = found[-1].offset + 1
        return found

    async def _advance(self) -> bool:
        """Take the next batch apart, waiting for one; return False when none will come."""
        self._records = []
        self._next = 0
        while True:
            failure = self._fetcher.take_failure()
            if failure is not None:
                raise failure
            await self._find_lost()
            if self._chunk is not None:
                if self._unpack(self._chunk):
                    return True
            elif self._fetcher.chunks:
                self._chunk = self._fetcher.chunks.popleft()
            elif self._is_finished():
                return False
            else:
                await self._fetcher.arrival()

    def _unpack(self, chunk: Chunk) -> bool:
        """Take the next batch of *chunk* apart; return whether it held records for the user."""
        assigned = chunk.assigned
        batch, is_visible = next(chunk.batches, (None, False))
        if batch is None or assigned.generation != chunk.generation or assigned.is_finished:
            self._chunk = None
            self._fetcher.taken(chunk)
            return False
        records: list[Record] = []
        if is_visible:
            try:
                records = batch_records(batch, assigned.topic, assigned.partition)
            except CorruptBatchError as error:
                assigned.generation += 1
                assigned.is_parked = True
                self._fetcher.fail(damaged(assigned, error))
                return False
        stop = batch.last_offset + 1 if assigned.stop is None else assigned.stop
        self._records = [each for each in records if assigned.position <= each.offset < stop]
        self._source = (assigned, assigned.generation)
        if not self._records:
            assigned.position = max(assigned.position, batch.last_offset + 1)
        return bool(self._records)

    def _is_finished(self) -> bool:
        """Everything has a stop and has reached it."""
        return all(
            each.is_finished or (each.is_fetched and not each.waiting_bytes)
            for each in self._fetcher.assigned.values()
        )

    async def _find_lost(self) -> None:
        """Move partitions whose next offset is not there to where the settings say."""
        while self._fetcher.lost:
            assigned = self._fetcher.lost.popleft()
            if self._settings.lost_offset == "error":
                what = f"topic {assigned.topic!r}, partition {assigned.partition}"
                said = f"offset {assigned.fetch_offset} is not in the log"
                raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, what, said)
            start = Edge(self._settings.lost_offset)
            generation = assigned.generation
            found = await self._resolve(assigned.topic, [assigned.partition], start)
            if assigned.generation == generation:
                assigned.move(found[assigned.partition])
                self._fetcher.wake()

    async def _resolve(self, topic: str, partitions: Sequence[int], start: Start) -> dict[int, int]:
        """Return the offset *start* means in each partition; too young a time means the end."""
        if isinstance(start, int):
            return dict.fromkeys(partitions, start)
        isolation = ISOLATION[self._settings.isolation]
        found = await list_offsets(self._pool, topic, start, partitions, isolation)
        missing = [partition for partition, row in found.items() if row.offset < 0]
        offsets = {partition: row.offset for partition, row in found.items()}
        if missing:
            ends = await list_offsets(self._pool, topic, Edge.END, missing, isolation)
            offsets.update({partition: row.offset for partition, row in ends.items()})
        return offsets
