"""Hands out what was fetched, record by record, in order within each partition."""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from corelane.model.errors import ErrorCode
from corelane.wire.records import CorruptBatchError, Record, batch_records
from corelane_client.connection import Connect, connect_tcp
from corelane_client.errors import KafkaError
from corelane_client.fetching import ISOLATION, Assigned, Chunk, Fetcher, Watermarks, damaged
from corelane_client.offsets import NO_OFFSET, Edge, Place, list_offsets
from corelane_client.pool import Pool
from corelane_client.settings import ConsumerSettings

Start = int | Place
"""An offset, an end of the partition, or a time."""


class Reader:
    """What all consumers have in common; used in an `async with` block, by one task at a time."""

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
        self._in_hand = NO_OFFSET
        """The first record that was returned and perhaps not dealt with: no other was asked for."""
        self._is_called = False
        """`_attend` has something to do before another record is returned."""
        self._is_waiting = False
        """Another record was asked for and has not been returned."""

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
        self._in_hand = NO_OFFSET
        while True:
            if self._next < len(self._records) and not self._is_called:
                assert self._source is not None
                assigned, generation = self._source
                if assigned.generation == generation:
                    found = self._records[self._next]
                    self._next += 1
                    self._in_hand = found.offset
                    assigned.position = found.offset + 1
                    return found
            self._is_waiting = True
            try:
                if not await self._advance():
                    raise StopAsyncIteration
            finally:
                self._is_waiting = False

    async def read(self, count_max: int | None = None) -> list[Record]:
        """Return the next records, at least one, of one partition; empty once all are read.

        Cheaper than iterating: a batch at a time, or *count_max* records of it.
        """
        try:
            first = await anext(self)
        except StopAsyncIteration:
            return []
        end = len(self._records)
        if count_max is not None:
            end = min(end, self._next - 1 + count_max)
        found = [first, *self._records[self._next : end]]
        self._next = end
        assert self._source is not None
        self._source[0].position = found[-1].offset + 1
        return found

    async def _advance(self) -> bool:
        """Have records to return, waiting for some; return False when none will come."""
        while True:
            # What comes while something is waited for here is found in the next round.
            failure = self._fetcher.take_failure()
            if failure is not None:
                raise failure
            if self._is_called:
                await self._attend()
            elif self._fetcher.lost:
                await self._find_lost(self._fetcher.lost.popleft())
            elif self._has_records():
                return True
            elif self._chunk is not None:
                self._unpack(self._chunk)
            elif self._fetcher.chunks:
                self._chunk = self._fetcher.chunks.popleft()
            elif self._is_finished():
                return False
            else:
                await self._fetcher.arrival()

    async def _attend(self) -> None:
        """Do what is to be done between two records; the next one is asked for again after it."""
        raise NotImplementedError

    def _has_records(self) -> bool:
        """Records of the last batch are left, and still wanted."""
        if self._next == len(self._records):
            return False
        assert self._source is not None
        assigned, generation = self._source
        return assigned.generation == generation

    def _unpack(self, chunk: Chunk) -> None:
        """Take the next batch of *chunk* apart, which may hold nothing for the user."""
        self._records = []
        self._next = 0
        assigned = chunk.assigned
        batch, is_visible = next(chunk.batches, (None, False))
        if batch is None or assigned.generation != chunk.generation or assigned.is_finished:
            self._chunk = None
            self._fetcher.taken(chunk)
            return
        assigned.leader_epoch = batch.leader_epoch
        records: list[Record] = []
        if is_visible:
            try:
                records = batch_records(batch, assigned.topic, assigned.partition)
            except CorruptBatchError as error:
                assigned.generation += 1
                assigned.is_parked = True
                self._fetcher.fail(damaged(assigned, error))
                return
        stop = batch.last_offset + 1 if assigned.stop is None else assigned.stop
        self._records = [each for each in records if assigned.position <= each.offset < stop]
        self._source = (assigned, assigned.generation)
        if not self._records:
            assigned.position = max(assigned.position, batch.last_offset + 1)

    def _is_finished(self) -> bool:
        """Everything has a stop and has reached it."""
        return all(
            each.is_finished or (each.is_fetched and not each.waiting_bytes)
            for each in self._fetcher.assigned.values()
        )

    async def _find_lost(self, assigned: Assigned) -> None:
        """Move a partition whose next offset is not there to where the settings say."""
        if self._settings.lost_offset == "error":
            what = f"topic {assigned.topic!r}, partition {assigned.partition}"
            said = f"offset {assigned.fetch_offset} is not in the log"
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, what, said)
        generation = assigned.generation
        start = Edge(self._settings.lost_offset)
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
