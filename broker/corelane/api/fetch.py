"""Fetch (key 1), versions 4 to 17: batches from the one that holds the wanted offset on.

v4  isolation level (KIP-98): who reads committed transactions sees nothing at or above the last
stable offset, and is told of the aborted ones below.
v5  log_start_offset.  v7  sessions (KIP-227), fetch_session.py.
v9  leader epochs (KIP-320).  v11 rack (KIP-392).  v12 flexible, diverging epochs.  v13 topic ids
(KIP-516).  v15 replica state.  v16 leader hints (KIP-951).  v17 as v16.

The first non-empty partition returns at least one whole batch whatever the limits (KIP-74), the
others obey them, in request order. Batches leave as they lie, never re-encoded. A request without
enough data waits for `max_wait_ms`; whatever commits in a partition it names wakes it. Reads of
what memory no longer holds go to the read thread and come back in a later turn (fetch_cold.py).
"""

# performance-critical: see STYLE.md

from collections.abc import Iterator, Sequence
from functools import partial

import corelane_native as native
from corelane.api.fetch_cold import Wanted, read_cold
from corelane.api.fetch_response import Encoder, FetchedPartition, FetchedTopic, encode
from corelane.api.fetch_session import SessionFetch, enter, named
from corelane.api.leaders import endpoints_for, fault_of_absent, hint_for
from corelane.api.produce import body_at
from corelane.model.errors import ErrorCode
from corelane.model.ids import ChunkId, Offset
from corelane.model.limits import FETCH_ANSWER_PARTS_MAX, FETCH_PARTS_MAX
from corelane.shard.call import Call
from corelane.shard.fetch_sessions import FINAL_EPOCH, NO_SESSION, NamedRow
from corelane.shard.partition import Partition, Topic
from corelane.shard.shard import Shard
from corelane.storage.log_reads import ColdRead, MemoryRead
from corelane.wire.errors import DecodeError
from corelane_native import FetchRow

_FLEXIBLE_FROM = 12
_TOPIC_IDS_FROM = 13
_NO_EPOCH = -1
READ_COMMITTED = 1
"""The isolation level of who wants nothing of aborted or open transactions."""
SLICE_ROWS = 32
"""Partitions of one fetch that are looked at before others have their turn: about 50 us."""
_PARTS_LIKE_ROW = 8
"""So many batches in memory take about as long as a partition."""
WAIT_MS_MAX = 5 * 60 * 1000
"""A client that wants to wait longer is answered, empty, and asks again."""


class FetchWait:
    """One Fetch request: looks for data, waits for more, collects what disks return.

    Every walk over its partitions is a generator that pauses after `SLICE_ROWS` of them, so that
    a request for a thousand holds up nobody; one for a few never does.
    """

    __slots__ = (
        "available",
        "bytes_left",
        "bytes_min",
        "call",
        "chunks_held",
        "deadline_ms",
        "found_bytes",
        "is_committed",
        "is_done",
        "is_waiting",
        "names",
        "parts_left",
        "reads_open",
        "registered",
        "row_count",
        "rows",
        "session",
        "shard",
        "topics",
        "woken_rows",
    )

    def __init__(
        self, shard: Shard, call: Call, row_count: int, bytes_min: int, bytes_max: int
    ) -> None:
        self.shard = shard
        self.call = call
        self.row_count = row_count
        self.bytes_min = min(bytes_min, bytes_max)  # more will never be answered, so do not wait
        self.bytes_left = bytes_max
        self.parts_left = FETCH_ANSWER_PARTS_MAX
        self.is_committed = False
        """Whether records of transactions are wanted only when these have committed."""
        self.session: SessionFetch | None = None
        self.names: Sequence[bytes] | None = None
        """Of the topics, by what stands for their place in rows; None: they lie in the frame."""
        self.is_done = False
        self.is_waiting = False
        self.deadline_ms = 0
        self.reads_open = 0
        self.found_bytes = 0  # the sum of `available`: what each row could return, as last seen
        self.available: dict[int, int] = {}
        self.woken_rows: dict[int, None] = {}
        self.registered: list[Partition] = []
        self.chunks_held: list[ChunkId] = []
        self.topics: list[FetchedTopic] = []
        self.rows: list[tuple[FetchRow, Topic | None, FetchedPartition]] = []

    @property
    def is_left(self) -> bool:
        """Whether the client is gone."""
        return self.call.slot.connection.is_closed

    @property
    def is_full(self) -> bool:
        """Whether the answer may hold no more."""
        return self.bytes_left <= 0 or self.parts_left <= 0

    # --- looking and waiting ---

    def begin(self, max_wait_ms: int, rows: Iterator[FetchRow]) -> None:
        """Answer now if there is enough, else wait for it."""
        if self.is_left:
            return  # it closed while this fetch waited for the one before it
        self.deadline_ms = self.shard.now_ms + max(0, min(max_wait_ms, WAIT_MS_MAX))
        work = self._look(rows, may_wait=max_wait_ms > 0)
        self.shard.go_on(work, is_wide=self.row_count > SLICE_ROWS)

    def _look(self, rows: Iterator[FetchRow], *, may_wait: bool) -> Iterator[None]:
        """Find the partitions; register with each until there is enough."""
        request = self.call.request
        groups = self.shard.groups
        topics = groups.topics_by_id if self.call.version >= _TOPIC_IDS_FROM else groups.topics
        topic_at = -1
        topic = None
        fetched: list[FetchedPartition] = []
        must_wait = may_wait
        for number, row in enumerate(rows):
            if number % SLICE_ROWS == 0 and number:
                yield
                if self.is_left:
                    break
            if row[0] != topic_at:
                topic_at = row[0]
                if self.names is None:
                    name = native.bytes_at(request.address + topic_at, row[1])
                else:
                    name = self.names[topic_at]
                topic = topics.get(name)
                fetched = []
                self.topics.append(FetchedTopic(name, fetched))
            out = FetchedPartition(row[2])
            fetched.append(out)
            self.rows.append((row, topic, out))
            if must_wait:
                must_wait = not self._has_enough(number) and self._register(number)
        if self.is_left:
            self._leave()
        elif must_wait:
            self._wait()
        else:
            self._leave()
            yield from self._collect()

    def _register(self, number: int) -> bool:
        """Be woken by a row's partition; False if it is named twice: then nobody waits."""
        row, topic, _out = self.rows[number]
        assert topic is not None, "an unknown topic is answered at once"
        partition = topic.partition(row[2])
        assert partition is not None
        if self in partition.fetch_waits:
            return False
        partition.fetch_waits[self] = number
        self.registered.append(partition)
        return True

    def _wait(self) -> None:
        self.is_waiting = True
        self.shard.counts.fetches_waited += 1
        self.shard.deadlines.add(self.deadline_ms, self)
        self.call.slot.abandoned = self._abandoned
        self.call.slot.hurried = self._hurried
        if self.woken_rows:  # while it looked at others
            self.shard.woken.append(self._look_again)

    def wake(self, number: int) -> None:
        """Look at a row again at the end of the turn (several commits of a turn wake once)."""
        if self.is_done:
            return
        if self.is_waiting and not self.woken_rows:
            self.shard.woken.append(self._look_again)
        self.woken_rows[number] = None

    def _look_again(self) -> None:
        woken, self.woken_rows = self.woken_rows, {}
        if not self.is_done and any(self._has_enough(number) for number in woken):
            self.shard.deadlines.note_done()
            self._leave()
            self.shard.go_on(self._collect())

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
        self.shard.go_on(self._collect())

    def _leave(self) -> None:
        self.is_done = True
        for partition in self.registered:
            del partition.fetch_waits[self]
        self.registered.clear()

    def _has_enough(self, number: int) -> bool:
        """Whether an error, or with this row `bytes_min` bytes, can be answered at once."""
        row, topic, out = self.rows[number]
        partition = self._check(row, topic, out)
        if partition is None:
            return True
        log = partition.log
        offset = row[4]
        found = 0
        offset_max = self._offset_max(out)
        if offset < offset_max:
            if self.bytes_min <= 1 or offset < log.tail_offset:
                return True
            limit = min(row[7], self.bytes_min)
            read = log.read(Offset(offset), limit, offset_max, at_least_one=True)
            if isinstance(read, MemoryRead):
                if len(read.parts) >= FETCH_PARTS_MAX:
                    return True  # it will never return more
                found = read.size_bytes
        self.found_bytes += found - self.available.get(number, 0)
        self.available[number] = found
        return self.found_bytes >= self.bytes_min

    def _offset_max(self, out: FetchedPartition) -> Offset:
        """Return below which offset the request sees records, of a partition just looked at."""
        return Offset(out.last_stable_offset if self.is_committed else out.high_watermark)

    # --- answering ---

    def _check(self, row: FetchRow, topic: Topic | None, out: FetchedPartition) -> Partition | None:
        """Return the partition, if it can be read from *row*'s offset; else fill in the error."""
        error, partition = self._find(row, topic)
        out.error = error
        if partition is not None:
            log = partition.log
            out.high_watermark = log.committed_offset
            out.last_stable_offset = partition.last_stable_offset
            out.log_start_offset = log.start_offset
            if error == ErrorCode.NOT_LEADER_OR_FOLLOWER:
                out.leader = hint_for(self.shard, partition)
        elif error == ErrorCode.NOT_LEADER_OR_FOLLOWER:
            out.leader = fault_of_absent(self.shard, topic, row[2])[1]
        if error:
            return None
        return partition

    @property
    def unknown(self) -> ErrorCode:
        """The error of a topic that is not there, in the terms of this version."""
        by_id = self.call.version >= _TOPIC_IDS_FROM
        return ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    def _find(self, row: FetchRow, topic: Topic | None) -> tuple[int, Partition | None]:
        if topic is None or topic.is_deleted:
            return self.unknown, None
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

    def _collect(self) -> Iterator[None]:
        """Gather batches for every partition, in request order, within the limits."""
        assert self.is_done
        assert not self.registered
        self.reads_open = 1
        is_first = True
        done = 0
        for row, topic, out in self.rows:
            if done >= SLICE_ROWS:
                done = 0
                yield
                if self.is_left:
                    break
            done += 1
            partition = self._check(row, topic, out)
            if partition is None or (self.is_full and not is_first):
                continue
            log = partition.log
            limit = min(row[7], self.bytes_left)
            wanted = Wanted(partition, Offset(row[4]), self._offset_max(out), row[7], out)
            read = log.read(wanted.offset, limit, wanted.offset_max, at_least_one=is_first)
            if isinstance(read, MemoryRead):
                for chunk in log.chunk_ids(read.parts):
                    self.shard.arena.retain(chunk)
                    self.chunks_held.append(chunk)
                out.found(list(read.parts), read.size_bytes)
                self.bytes_left -= read.size_bytes
                self.parts_left -= len(read.parts)
                done += len(read.parts) // _PARTS_LIKE_ROW
                self.found(wanted, read.next_offset)
                is_first = False
            elif isinstance(read, ColdRead):
                read_cold(self, read, wanted, is_first=is_first)
                is_first = False
        self.read_done()

    def found(self, wanted: Wanted, next_offset: int) -> None:
        """Count what a partition's share of the answer holds, and tell what of it was aborted.

        The index goes with the very log that was read (multiraft.md D 13), and everything below
        the last stable offset is decided, whatever has come since.
        """
        partition, out = wanted.partition, wanted.out
        counts = partition.topic.counts
        counts.bytes_out += out.size_bytes
        counts.records_out += next_offset - wanted.offset
        if self.is_committed:
            upto = min(Offset(next_offset), wanted.offset_max)
            aborted = partition.transactions.aborted_between(wanted.offset, upto)
            out.aborted = [(each.producer_id, each.first_offset) for each in aborted]

    def read_done(self) -> None:
        """Note that one of the reads is over; after the last one the answer leaves."""
        self.reads_open -= 1
        assert self.reads_open >= 0
        if self.reads_open == 0:
            self.shard.go_on(self._answer())

    def _next_of_connection(self) -> None:
        """Let the connection's next fetch begin.

        Kafka answers one request of a connection after the other. A fetch that looked while the
        one before it still waited would show an older high watermark behind a newer one.
        """
        fetches = self.call.slot.connection.fetches
        fetches.popleft()
        if fetches:
            self.shard.todo.append(fetches[0])

    def _answer(self) -> Iterator[None]:
        call, shard = self.call, self.shard
        error, session_id, topics = 0, 0, self.topics
        if self.session is not None and not self.is_left:
            error, session_id, topics = self.session.end(self.topics)
        encoder = Encoder(call.version, call.request.correlation_id, error, len(topics), session_id)
        hints = []
        number = 0
        for topic in topics:
            encoder.topic(topic)
            for out in topic.partitions:
                if number % SLICE_ROWS == 0 and number:
                    yield
                number += 1
                encoder.partition(out)
                error = error or out.error
                if out.leader is not None:
                    hints.append(out.leader)
            encoder.topic_end()
        self._next_of_connection()
        if self.is_left:
            for chunk in self.chunks_held:
                shard.arena.release(chunk)
            return
        endpoints = endpoints_for(shard, call.slot.connection, hints) if hints else []
        call.answer_parts(encoder.end(endpoints), self.chunks_held, error)


def handle(shard: Shard, call: Call) -> None:
    """Answer with batches, now or when there are enough, after the connection's fetches before."""
    request = call.request
    version = request.api_version
    at = body_at(request.address, request.size_bytes, is_flexible=version >= _FLEXIBLE_FROM)
    decoded = native.decode_fetch(request.address, request.size_bytes, at, version)
    if decoded is None:
        raise DecodeError("the request is cut or malformed")
    count, rows = decoded[7:9]
    session: SessionFetch | ErrorCode | None = None
    ids = (decoded[4], decoded[5])
    if ids[1] != FINAL_EPOCH:
        forgotten = call.decode() if decoded[9] else None
        session = enter(shard, call, ids, named(call, rows), forgotten)
        rows = iter(())
    if isinstance(session, ErrorCode):
        refuse_session(call, session)
        return
    if ids[1] == FINAL_EPOCH and ids[0] != NO_SESSION:
        shard.fetch_sessions.remove(ids[0])
    if session is not None:
        count = len(session.rows)
    begin_fetch(shard, call, decoded[:4], (count, rows), session)


def refuse_session(call: Call, error: ErrorCode) -> None:
    """Tell a client that its session is not as it thinks: it will name everything again."""
    request = call.request
    frame = encode(request.api_version, request.correlation_id, error, [], [])
    call.answer_parts(frame, [], error)


def begin_fetch(
    shard: Shard,
    call: Call,
    bounds: Sequence[int],
    asked: tuple[int, Iterator[FetchRow]],
    session: SessionFetch | None,
) -> None:
    """Fetch what is asked for, or what *session* has, when it is this request's turn.

    *bounds* are the longest wait, the least and the most bytes, and the isolation level.
    """
    max_wait_ms, bytes_min, bytes_max, isolation = bounds
    count, rows = asked
    if count == 0:
        max_wait_ms = 0  # nothing can come of it
    fetches = call.slot.connection.fetches
    if fetches or count > SLICE_ROWS:
        call = call.keep()  # the names in it are read in a later step
    bytes_max = min(bytes_max, shard.config.config.fetch.bytes_max)
    bytes_max = min(bytes_max, shard.store.reading.answer_bytes_max)
    wait = FetchWait(shard, call, count, bytes_min, bytes_max)
    wait.is_committed = isolation == READ_COMMITTED
    if session is not None:
        wait.session = session
        wait.names, rows = _placed(session.rows)
    begin = partial(wait.begin, max_wait_ms, rows)
    fetches.append(begin)
    if len(fetches) == 1:
        begin()


def _placed(named_rows: list[NamedRow]) -> tuple[list[bytes], Iterator[FetchRow]]:
    """Return the names of topics, and rows that have a name's number for its place."""
    names: list[bytes] = []
    rows: list[FetchRow] = []
    for name, row in named_rows:
        if not names or names[-1] != name:
            names.append(name)
        rows.append((len(names) - 1, *row[1:]))
    return names, iter(rows)
