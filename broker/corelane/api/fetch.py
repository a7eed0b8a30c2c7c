"""Fetch (key 1), versions 4 to 17: batches from the one that holds the wanted offset on.

v4  isolation level (KIP-98).  v5  log_start_offset.  v7  sessions (KIP-227), refused here.
v9  leader epochs (KIP-320).  v11 rack (KIP-392).  v12 flexible, diverging epochs.  v13 topic ids
(KIP-516).  v15 replica state.  v16 leader hints (KIP-951).  v17 as v16.

The first non-empty partition returns at least one whole batch whatever the limits (KIP-74), the
others obey them, in request order. Batches leave as they lie, never re-encoded. A request without
enough data waits for `max_wait_ms`; whatever commits in a partition it names wakes it. Reads of
what memory no longer holds go to the read thread and come back in a later turn.
"""

# performance-critical: see STYLE.md

from functools import partial

import corelane_native as native
from corelane.api.fetch_response import FetchedPartition, FetchedTopic, encode, error_of
from corelane.api.leaders import endpoints_for, fault_of_absent, hint_for
from corelane.api.produce import body_at
from corelane.model.errors import ErrorCode
from corelane.model.ids import ChunkId, Offset
from corelane.model.limits import READ_BYTES_MAX
from corelane.shard.call import Call
from corelane.shard.effects import Part
from corelane.shard.partition import Partition, Topic
from corelane.shard.shard import Shard
from corelane.storage.group_log import ColdRead, MemoryRead
from corelane.storage.store import ColdResult
from corelane.wire.batch import whole_batches
from corelane.wire.errors import DecodeError
from corelane_native import FetchRow

_FLEXIBLE_FROM = 12
_TOPIC_IDS_FROM = 13
_NO_EPOCH = -1
ROWS_PER_TURN_MAX = 128
"""Partitions of one fetch that are looked at in one turn: about a millisecond."""
WAIT_MS_MAX = 5 * 60 * 1000
"""A client that wants to wait longer is answered, empty, and asks again."""


class FetchWait:
    """One Fetch request: looks for data, waits for more, collects what disks return."""

    __slots__ = (
        "bytes_left",
        "bytes_min",
        "call",
        "chunks_held",
        "deadline_ms",
        "is_done",
        "is_woken",
        "reads_open",
        "registered",
        "rows",
        "shard",
        "topics",
    )

    def __init__(self, shard: Shard, call: Call, bytes_min: int, bytes_max: int) -> None:
        self.shard = shard
        self.call = call
        self.bytes_min = min(bytes_min, bytes_max)  # more will never be answered, so do not wait
        self.bytes_left = bytes_max
        self.is_done = False
        self.is_woken = False
        self.deadline_ms = 0
        self.reads_open = 0
        self.registered: list[Partition] = []
        self.chunks_held: list[ChunkId] = []
        self.topics: list[FetchedTopic] = []
        self.rows: list[tuple[FetchRow, Topic | None, FetchedPartition]] = []

    # --- waiting ---

    def begin(self, max_wait_ms: int) -> None:
        """Answer now if there is enough, else wait for it."""
        if self.call.slot.connection.is_closed:
            return  # it closed while this fetch waited for the one before it
        self.deadline_ms = self.shard.now_ms + max(0, min(max_wait_ms, WAIT_MS_MAX))
        if max_wait_ms > 0 and not self._has_enough():
            self.shard.counts.fetches_waited += 1
            for row, topic, _out in self.rows:
                partition = None if topic is None else topic.partition(row[2])
                if partition is not None:
                    partition.fetch_waits[self] = None
                    self.registered.append(partition)
            self.shard.deadlines.add(self.deadline_ms, self)
            self.call.slot.abandoned = self._abandoned
            self.call.slot.hurried = self._hurried
            return
        self._collect()

    def wake(self) -> None:
        """Look again at the end of the turn (several commits of a turn wake once)."""
        if not self.is_woken and not self.is_done:
            self.is_woken = True
            self.shard.woken.append(self._look_again)

    def _look_again(self) -> None:
        self.is_woken = False
        if self.is_done:
            return
        if self._has_enough():
            self._leave()
            self.shard.deadlines.note_done()
            self._collect()

    def _abandoned(self) -> None:
        """Wait no longer for a client that left."""
        if not self.is_done:
            self._leave()
            self.shard.deadlines.note_done()

    def _hurried(self) -> None:
        """Answer now: the client has enough from other cores, or left."""
        if not self.is_done:
            self.shard.deadlines.note_done()
            self.expire(self.shard.now_ms)

    def expire(self, now_ms: int) -> None:
        """Answer with what there is."""
        del now_ms
        self._leave()
        self._collect()

    def _leave(self) -> None:
        self.is_done = True
        for partition in self.registered:
            partition.fetch_waits.pop(self, None)  # one may be named twice
        self.registered.clear()

    def _has_enough(self) -> bool:
        """Whether an error, or `bytes_min` bytes, can be answered at once."""
        found = 0
        for row, topic, out in self.rows:
            partition = self._check(row, topic, out)
            if partition is None:
                return True
            log = partition.log
            offset = row[4]
            if offset >= log.committed_offset:
                continue
            if self.bytes_min <= 1 or offset < log.tail_offset:
                return True
            read = log.read(
                Offset(offset), min(row[7], self.bytes_min), log.committed_offset, at_least_one=True
            )
            found += read.size_bytes if isinstance(read, MemoryRead) else 0
            if found >= self.bytes_min:
                return True
        return found >= self.bytes_min

    # --- answering ---

    def _check(self, row: FetchRow, topic: Topic | None, out: FetchedPartition) -> Partition | None:
        """Return the partition, if it can be read from *row*'s offset; else fill in the error."""
        error, partition = self._find(row, topic)
        out.error = error
        if partition is not None:
            log = partition.log
            out.high_watermark = log.committed_offset
            out.last_stable_offset = log.committed_offset
            out.log_start_offset = log.start_offset
            if error == ErrorCode.NOT_LEADER_OR_FOLLOWER:
                out.leader = hint_for(self.shard, partition)
        elif error == ErrorCode.NOT_LEADER_OR_FOLLOWER:
            out.leader = fault_of_absent(self.shard, topic, row[2])[1]
        if error:
            return None
        return partition

    @property
    def _unknown(self) -> ErrorCode:
        by_id = self.call.version >= _TOPIC_IDS_FROM
        return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _find(self, row: FetchRow, topic: Topic | None) -> tuple[int, Partition | None]:
        if topic is None or topic.is_deleted:
            return self._unknown, None
        partition = topic.partition(row[2])
        if partition is None:
            return fault_of_absent(self.shard, topic, row[2])[0], None
        if partition.is_damaged:
            return ErrorCode.KAFKA_STORAGE_ERROR, None
        if not partition.serves:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER, partition
        epoch = row[3]
        if epoch not in {_NO_EPOCH, partition.raft.term}:
            if epoch > partition.raft.term:
                return ErrorCode.UNKNOWN_LEADER_EPOCH, partition
            return ErrorCode.FENCED_LEADER_EPOCH, partition
        log = partition.log
        if not log.start_offset <= row[4] <= log.committed_offset:
            return ErrorCode.OFFSET_OUT_OF_RANGE, partition
        return 0, partition

    def _collect(self) -> None:
        """Gather batches for every partition, in request order, within the limits."""
        self.is_done = True
        self.reads_open = 1
        self._collect_from(0, is_first=True)

    def _collect_from(self, start: int, *, is_first: bool) -> None:
        """Go on with row number *start*; many rows take several turns, or others would wait."""
        end = start + ROWS_PER_TURN_MAX
        for row, topic, out in self.rows[start:end]:
            partition = self._check(row, topic, out)
            if partition is None or (self.bytes_left <= 0 and not is_first):
                continue
            log = partition.log
            limit = min(row[7], self.bytes_left)
            read = log.read(Offset(row[4]), limit, log.committed_offset, at_least_one=is_first)
            if isinstance(read, MemoryRead):
                for chunk in log.chunk_ids(read.parts):
                    self.shard.arena.retain(chunk)
                    self.chunks_held.append(chunk)
                out.parts = list(read.parts)
                out.size_bytes = read.size_bytes
                out.record_count = read.next_offset - row[4]
                self.bytes_left -= read.size_bytes
                is_first = False
            elif isinstance(read, ColdRead):
                self._read_cold(partition, read, row, out, is_first=is_first)
                is_first = False
        if end < len(self.rows) and not self.call.slot.connection.is_closed:
            self.shard.todo.append(partial(self._collect_from, end, is_first=is_first))
        else:
            self._read_done()

    def _read_cold(
        self,
        partition: Partition,
        read: ColdRead,
        row: FetchRow,
        out: FetchedPartition,
        *,
        is_first: bool,
    ) -> None:
        limit = max(0, min(row[7], self.bytes_left, READ_BYTES_MAX))
        if not is_first and limit < read.segment.batch_bytes_max:
            return  # a batch may not fit: this partition is first in the client's next request
        self.bytes_left -= limit

        def answered(result: ColdResult) -> None:
            self._take_cold(partition, result, Offset(row[4]), limit, out)
            self._read_done()

        self.reads_open += 1
        self.shard.counts.reads_cold += 1
        try:
            self.shard.store.read_cold(partition.log, read, answered)
        except MemoryError:
            self.reads_open -= 1  # answered empty: the client asks again

    def _take_cold(
        self,
        partition: Partition,
        result: ColdResult,
        offset: Offset,
        bytes_max: int,
        out: FetchedPartition,
    ) -> None:
        """Cut what the disk returned to whole batches, from the one that holds *offset*."""
        arena = self.shard.arena
        self.shard.counts.reads_cold_bytes += result.size_bytes
        self.chunks_held.append(result.chunk)
        if offset < partition.log.start_offset:  # trimmed meanwhile, and its file may be gone
            out.error = ErrorCode.OFFSET_OUT_OF_RANGE
            out.log_start_offset = partition.log.start_offset
            return
        if result.error and partition.is_dropped:
            gone = partition.topic.is_deleted  # else another core has it now
            out.error = self._unknown if gone else ErrorCode.NOT_LEADER_OR_FOLLOWER
            return
        if result.error:
            self.shard.damage(partition, f"reading its segment failed with errno {result.error}")
            out.error = ErrorCode.KAFKA_STORAGE_ERROR
            return
        view = arena.view(result.chunk, result.position, result.size_bytes)
        data: bytes | memoryview = view
        if result.suffix:
            data = bytes(view) + result.suffix
        start = end = -1
        for at, head in whole_batches(data, bytes_max):
            if head.base_offset + head.last_offset_delta < offset:
                continue
            if start < 0:
                start = at
            end = at + head.size_bytes
            out.record_count = head.base_offset + head.last_offset_delta + 1 - offset
        if start < 0:
            return
        part: Part = bytes(data[start:end])
        if not result.suffix:
            part = (result.chunk, result.position + start, end - start)  # type: ignore[assignment]
        out.parts = [part]
        out.size_bytes = end - start

    def _read_done(self) -> None:
        self.reads_open -= 1
        if self.reads_open == 0:
            self._answer()

    def _next_of_connection(self) -> None:
        """Let the connection's next fetch begin.

        Kafka answers one request of a connection after the other. A fetch that looked while the
        one before it still waited would show an older high watermark behind a newer one.
        """
        fetches = self.call.slot.connection.fetches
        fetches.popleft()
        if fetches:
            self.shard.todo.append(fetches[0])

    def _answer(self) -> None:
        self._next_of_connection()
        call, shard = self.call, self.shard
        if call.slot.connection.is_closed:
            for chunk in self.chunks_held:
                shard.arena.release(chunk)
            return
        hints = [out.leader for _row, _topic, out in self.rows if out.leader is not None]
        endpoints = endpoints_for(shard, call.slot.connection, hints) if hints else []
        for _row, topic, out in self.rows:
            if topic is not None and out.size_bytes:
                topic.counts.bytes_out += out.size_bytes
                topic.counts.records_out += out.record_count
        parts = encode(call.version, call.request.correlation_id, 0, self.topics, endpoints)
        call.answer_parts(parts, self.chunks_held, error_of(self.topics))


def handle(shard: Shard, call: Call) -> None:
    """Answer with batches, now or when there are enough, after the connection's fetches before."""
    request = call.request
    version = request.api_version
    at = body_at(request.address, request.size_bytes, is_flexible=version >= _FLEXIBLE_FROM)
    decoded = native.decode_fetch(request.address, request.size_bytes, at, version)
    if decoded is None:
        raise DecodeError("the request is cut or malformed")
    max_wait_ms, bytes_min, bytes_max, _isolation, session_id, session_epoch, _rack, rows = decoded
    if session_id != 0 and session_epoch > 0:
        # Sessions are refused with session id 0, so this client talks to a broker long gone.
        error = ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        call.answer_parts(encode(version, request.correlation_id, error, [], []), [], error)
        return
    wait = FetchWait(shard, call, bytes_min, min(bytes_max, shard.config.config.fetch.bytes_max))
    topics = shard.groups.topics_by_id if version >= _TOPIC_IDS_FROM else shard.groups.topics
    topic_at = -1
    topic = None
    fetched: list[FetchedPartition] = []
    for row in rows:
        if row[0] != topic_at:
            topic_at = row[0]
            name = native.bytes_at(request.address + topic_at, row[1])
            topic = topics.get(name)
            fetched = []
            wait.topics.append(FetchedTopic(name, fetched))
        out = FetchedPartition(row[2])
        fetched.append(out)
        wait.rows.append((row, topic, out))
    fetches = call.slot.connection.fetches
    fetches.append(partial(wait.begin, max_wait_ms))
    if len(fetches) == 1:
        wait.begin(max_wait_ms)
