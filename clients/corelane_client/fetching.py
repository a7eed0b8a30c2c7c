"""Fetches ahead from the brokers that lead the assigned partitions, one request to each at a time.

Built as delivery.py is: turns that never wait. What arrives is checked and queued as chunks; the
consumer takes them apart when they are read.
"""

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import trio

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane.wire.records import Batch, CorruptBatchError, split_batches
from corelane_client import protocol
from corelane_client.committed import Aborted, visible
from corelane_client.connection import Connection
from corelane_client.errors import ClientError, CorruptRecordsError, KafkaError, ProtocolError
from corelane_client.pool import NO_BROKER, NO_TOPIC_ID, RETRY_BACKOFF_S, Pool
from corelane_client.protocol import Api
from corelane_client.settings import ConsumerSettings
from corelane_client.upkeep import Upkeep

ISOLATION: Final = {"read_uncommitted": 0, "read_committed": 1}
_FETCH_MIN_BYTES: Final = 1
_NAMES_VERSION_MAX: Final = 12
"""From version 13 on Fetch names topics by id, which old brokers do not tell."""


@record
class Watermarks:
    """The ends of a partition, as the last answer told them; -1 before the first."""

    log_start: int
    last_stable: int
    """The end for who reads only what is committed: below every open transaction."""
    high_watermark: int


class Assigned:
    """A partition that is being read."""

    __slots__ = (
        "fetch_offset",
        "generation",
        "is_fetching",
        "is_parked",
        "leader_epoch",
        "partition",
        "position",
        "retry_at_s",
        "stop",
        "topic",
        "waiting_bytes",
        "watermarks",
    )

    def __init__(self, topic: str, partition: int, start: int, stop: int | None) -> None:
        self.topic = topic
        self.partition = partition
        self.stop = stop
        self.generation = 0
        self.waiting_bytes = 0
        self.watermarks = Watermarks(-1, -1, -1)
        self.is_fetching = False
        self.leader_epoch = -1
        """Of the batch that is being read."""
        self.move(start)

    @property
    def place(self) -> tuple[str, int]:
        """What it is found by."""
        return self.topic, self.partition

    @property
    def is_finished(self) -> bool:
        """All that was asked for has been read."""
        return self.stop is not None and self.position >= self.stop

    @property
    def is_fetched(self) -> bool:
        """All that was asked for is here, though perhaps not read yet."""
        return self.stop is not None and self.fetch_offset >= self.stop

    def move(self, offset: int) -> None:
        """Go on at *offset*; what is on its way from elsewhere no longer counts."""
        self.generation += 1
        self.position = offset
        self.fetch_offset = offset
        self.is_parked = False
        self.retry_at_s = -math.inf


@record
class Chunk:
    """What one answer held of one partition."""

    assigned: Assigned
    generation: int
    size_bytes: int
    batches: Iterator[tuple[Batch, bool]]
    """Each with whether its records are for users."""


class Fetcher:
    """Keeps chunks coming for the partitions in `assigned`."""

    def __init__(self, pool: Pool, settings: ConsumerSettings) -> None:
        self.assigned: dict[tuple[str, int], Assigned] = {}
        self.chunks: deque[Chunk] = deque()
        self.lost: deque[Assigned] = deque()
        """Partitions whose next offset the broker does not have; for the consumer to move."""
        self._pool = pool
        self._settings = settings
        self._waiting_bytes = 0
        self._fetching: set[int] = set()
        self._failures: deque[ClientError] = deque()
        self._troubled_since_s = math.inf
        self._upkeep = Upkeep(pool, self._topics, self._troubled)
        self._arrived = trio.Event()

    async def run(self) -> None:
        """Fetch until cancelled."""
        await self._upkeep.run(self._turn)

    def wake(self) -> None:
        """Look again at what is assigned."""
        self._upkeep.wake()

    def drop(self, topic: str, partition: int) -> Assigned | None:
        """Fetch a partition no more and forget what is here of it; return it if it was assigned."""
        assigned = self.assigned.pop((topic, partition), None)
        if assigned is not None:
            assigned.generation += 1
        return assigned

    def call(self) -> None:
        """Have the reader look, though nothing has come."""
        self._arrived.set()

    async def arrival(self) -> None:
        """Wait until there is a chunk, a lost partition, a failure or another reason to look."""
        self._arrived = trio.Event()
        await self._arrived.wait()

    def take_failure(self) -> ClientError | None:
        """Return a failure the reader must hear, once."""
        return self._failures.popleft() if self._failures else None

    def taken(self, chunk: Chunk) -> None:
        """*chunk* has been read, so there is room for more."""
        self._waiting_bytes -= chunk.size_bytes
        chunk.assigned.waiting_bytes -= chunk.size_bytes
        self.wake()

    def fail(self, error: ClientError) -> None:
        """Let the reader hear *error*."""
        self._failures.append(error)
        self._arrived.set()

    def _turn(self, now_s: float) -> float:
        """Ask every broker that has not been asked; return when there may be more to ask."""
        next_s = math.inf
        if self._waiting_bytes >= self._settings.prefetch_bytes:
            return next_s
        wanted: dict[int, list[Assigned]] = {}
        for assigned in self.assigned.values():
            if assigned.is_parked or assigned.is_fetched or assigned.is_fetching:
                continue
            if assigned.waiting_bytes >= self._settings.partition_bytes_max:
                continue
            if assigned.retry_at_s > now_s:
                next_s = min(next_s, assigned.retry_at_s)
                continue
            leader = self._pool.leader_of(*assigned.place)
            if leader == NO_BROKER:
                self._upkeep.refresh()
            elif leader not in self._fetching:
                wanted.setdefault(leader, []).append(assigned)
        for broker_id, rows in wanted.items():
            paused_until_s = self._upkeep.paused_until_s(broker_id)
            if paused_until_s > now_s:
                next_s = min(next_s, paused_until_s)
                continue
            connection = self._upkeep.connection(broker_id)
            if connection is not None:
                self._fetch(connection, broker_id, rows)
        return next_s

    def _fetch(self, connection: Connection, broker_id: int, rows: list[Assigned]) -> None:
        """Ask one broker for all of *rows*."""
        ids = {each.topic: self._pool.topics[each.topic].topic_id for each in rows}
        has_ids = NO_TOPIC_ID not in ids.values()
        try:
            version = connection.version_of(Api.FETCH, None if has_ids else _NAMES_VERSION_MAX)
        except ProtocolError as error:
            for each in rows:
                each.is_parked = True
            self.fail(error)
            return
        topics: dict[str, list[Any]] = {}
        for each in rows:
            each.is_fetching = True
            row = protocol.message(
                "FetchRequest.FetchPartition",
                partition=each.partition,
                current_leader_epoch=self._pool.topics[each.topic]
                .partitions[each.partition]
                .leader_epoch,
                fetch_offset=each.fetch_offset,
                partition_max_bytes=self._settings.partition_bytes_max,
            )
            topics.setdefault(each.topic, []).append(row)
        body = protocol.message(
            "FetchRequest",
            max_wait_ms=self._settings.wait_ms_max,
            min_bytes=_FETCH_MIN_BYTES,
            max_bytes=self._settings.fetch_bytes_max,
            isolation_level=ISOLATION[self._settings.isolation],
            topics=[
                protocol.message(
                    "FetchRequest.FetchTopic", topic=name, topic_id=ids[name], partitions=parts
                )
                for name, parts in topics.items()
            ],
        )
        asked = [(each, each.generation) for each in rows]
        names = {topic_id: name for name, topic_id in ids.items()} if version > 12 else {}
        self._fetching.add(broker_id)
        connection.submit(
            Api.FETCH,
            version,
            body,
            lambda answer: self._answered(broker_id, asked, names, answer),
            self._settings.wait_ms_max,
        )

    def _answered(
        self,
        broker_id: int,
        asked: list[tuple[Assigned, int]],
        names: dict[bytes, str],
        answer: Any,
    ) -> None:
        """Take what the broker said, or the error instead of it."""
        self._fetching.discard(broker_id)
        self._upkeep.wake()
        for assigned, _generation in asked:
            assigned.is_fetching = False
        error = answer if isinstance(answer, ClientError) else None
        if error is None and answer.error_code:
            error = KafkaError(answer.error_code, "fetch")
        if error is not None:
            self._troubled(broker_id, error)
            self._upkeep.pause(broker_id, RETRY_BACKOFF_S)
            self._upkeep.refresh()
            return
        self._troubled_since_s = math.inf
        if answer.throttle_time_ms > 0:
            self._upkeep.pause(broker_id, answer.throttle_time_ms / 1000)
        rows = {
            (names.get(topic.topic_id, topic.topic), row.partition_index): row
            for topic in answer.responses
            for row in topic.partitions
        }
        for assigned, generation in asked:
            row = rows.get(assigned.place)
            if row is not None and assigned.generation == generation:
                self._take(assigned, row)

    def _take(self, assigned: Assigned, row: Any) -> None:
        """Take what the answer says of one partition."""
        if row.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            assigned.is_parked = True
            self.lost.append(assigned)
            self._arrived.set()
        elif row.error_code:
            what = f"topic {assigned.topic!r}, partition {assigned.partition}"
            error = KafkaError(row.error_code, what)
            self._upkeep.refresh()
            if error.retriable:
                assigned.retry_at_s = trio.current_time() + RETRY_BACKOFF_S
                self._troubled(None, error)
            else:
                assigned.is_parked = True
                self.fail(error)
        else:
            assigned.watermarks = Watermarks(
                row.log_start_offset, row.last_stable_offset, row.high_watermark
            )
            if row.records:
                self._keep(assigned, row)

    def _keep(self, assigned: Assigned, row: Any) -> None:
        """Queue the records of one partition and go on behind them."""
        try:
            batches = [
                batch
                for batch in split_batches(row.records)
                if batch.last_offset >= assigned.fetch_offset
            ]
        except CorruptBatchError as error:
            assigned.is_parked = True
            self.fail(damaged(assigned, error))
            return
        if not batches:
            return
        aborted = [
            Aborted(each.producer_id, each.first_offset) for each in row.aborted_transactions or ()
        ]
        size_bytes = len(row.records)
        chunk = Chunk(assigned, assigned.generation, size_bytes, visible(batches, aborted))
        self.chunks.append(chunk)
        self._waiting_bytes += size_bytes
        assigned.waiting_bytes += size_bytes
        assigned.fetch_offset = batches[-1].last_offset + 1
        # To the back, so that the broker's byte limit meets another partition next time.
        if self.assigned.pop(assigned.place, None) is assigned:
            self.assigned[assigned.place] = assigned
        self._arrived.set()

    def _topics(self) -> set[str]:
        return {topic for topic, _partition in self.assigned}

    def _troubled(self, broker_id: int | None, error: ClientError) -> None:
        """Nothing comes. The reader hears of it when that lasts too long, or cannot end."""
        now_s = trio.current_time()
        self._troubled_since_s = min(self._troubled_since_s, now_s)
        timeout_s = self._pool.settings.retry_timeout_ms / 1000
        if not error.retriable or now_s - self._troubled_since_s > timeout_s:
            self._troubled_since_s = math.inf
            self.fail(error)


def damaged(assigned: Assigned, error: CorruptBatchError) -> CorruptRecordsError:
    """Return *error* as the reader of a partition must hear it."""
    return CorruptRecordsError(
        f"topic {assigned.topic!r}, partition {assigned.partition}: {error}",
        "Seek beyond it to go on, and look at the log with `corelane dump-log` on the broker.",
    )
