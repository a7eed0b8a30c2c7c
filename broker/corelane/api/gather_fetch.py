"""Fetch through a door of the whole node: every core that leads waits, the first to have enough
wakes the others.
"""

# performance-critical: see STYLE.md

from collections.abc import Callable
from functools import partial

from corelane.api import fetch
from corelane.api.fetch_answer import FetchedAnswer, read
from corelane.api.fetch_response import (
    Encoder,
    Endpoint,
    FetchedPartition,
    FetchedTopic,
    encode,
    encode_all,
    error_of,
)
from corelane.api.fetch_session import SESSIONS_FROM, SessionFetch, enter
from corelane.api.gather import (
    Gathered,
    Shape,
    count_misrouted,
    frame_of,
    share_of,
    split,
)
from corelane.model.errors import ErrorCode
from corelane.model.ids import ChunkId
from corelane.shard.answer import Answer
from corelane.shard.call import Call
from corelane.shard.fetch_sessions import FINAL_EPOCH, INITIAL_EPOCH, NO_SESSION, NamedRow
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

_TOPIC_IDS_FROM = 13

_BY_NAME = Shape("topics", "topic", "partitions", "partition")
_BY_ID = Shape("topics", "topic", "partitions", "partition", "topic_id")

Asked = list[tuple[bytes, list[int]]]
"""What the request names, in order: topics (by name or id) with partition numbers."""


class GatheredFetch:
    """One fetch over several cores."""

    __slots__ = (
        "asked",
        "bytes_min",
        "call",
        "is_named_by_id",
        "request",
        "session",
        "shard",
        "shares",
    )

    def __init__(
        self, shard: Shard, call: Call, request: Message, session: SessionFetch | None
    ) -> None:
        self.shard = shard
        self.call = call
        self.request = request
        self.session = session
        self.is_named_by_id = call.version >= _TOPIC_IDS_FROM
        self.bytes_min = min(request.min_bytes, request.max_bytes)
        shape = _BY_ID if self.is_named_by_id else _BY_NAME
        self.shares = split(shard, shape, request)
        self.asked: Asked = [
            (self._name(row), [part.partition for part in row.partitions]) for row in request.topics
        ]

    def _name(self, row: Message) -> bytes:
        name: bytes = row.topic_id if self.is_named_by_id else row.topic.encode()
        return name

    def begin(self) -> None:
        """Send every core its share, when it is this fetch's turn on its connection."""
        call, request = self.call, self.request
        if call.slot.connection.is_closed:
            return
        shape = _BY_ID if self.is_named_by_id else _BY_NAME
        # Each share may answer up to its part of the limit, and at least one whole batch.
        bytes_max = max(1, request.max_bytes // len(self.shares))
        gathered = Gathered(self.shard, call, self._merge, self._read)
        gathered.told = self._told
        gathered.dropped = self._dropped
        for core, rows in self.shares.items():
            share = share_of(shape, request, rows)
            share.max_bytes = bytes_max
            share.session_id, share.session_epoch = NO_SESSION, FINAL_EPOCH  # it is kept here
            share.forgotten_topics_data = []
            gathered.send(core, frame_of(call, share))
        gathered.sent()

    def _told(self, gathered: Gathered) -> None:
        """Let nobody wait any more once there is enough for the client, or an error."""
        size_bytes = 0
        for answer in gathered.answers.values():
            if answer is None or error_of(answer.topics):
                gathered.hurry()
                return
            size_bytes += sum(row.size_bytes for topic in answer.topics for row in topic.partitions)
        if size_bytes >= self.bytes_min and size_bytes > 0:
            gathered.hurry()

    def _read(self, answer: Answer) -> FetchedAnswer:
        return read(self.call.version, answer, self.shard.arena)

    def _dropped(self, gathered: Gathered) -> None:
        for answer in gathered.answers.values():
            for chunk in answer.chunks if answer is not None else ():
                self.shard.arena.release(chunk)

    def _merge(self, gathered: Gathered) -> None:
        found: dict[tuple[bytes, int], FetchedPartition] = {}
        endpoints: dict[int, Endpoint] = {}
        chunks: list[ChunkId] = []
        for answer in gathered.answers.values():
            if answer is None:
                continue
            chunks += answer.chunks
            for topic in answer.topics:
                for row in topic.partitions:
                    found[topic.name_or_id, row.partition] = row
            endpoints |= {each.broker_id: each for each in answer.endpoints}
        topics = [
            FetchedTopic(
                name, [found.get((name, number)) or _lost_row(number) for number in numbers]
            )
            for name, numbers in self.asked
        ]
        call = self.call
        ends = list(endpoints.values())
        error, session_id = 0, NO_SESSION
        if self.session is not None:
            error, session_id, topics = self.session.end(topics)
        encoder = Encoder(call.version, call.request.correlation_id, error, len(topics), session_id)
        parts = encode_all(encoder, topics, ends)
        next_of_connection(self.shard, call)
        call.answer_parts(parts, chunks, error or error_of(topics))


def _lost_row(number: int) -> FetchedPartition:
    """Return the row of a partition whose core did not answer."""
    row = FetchedPartition(number)
    row.error = ErrorCode.NOT_LEADER_OR_FOLLOWER
    return row


def gather(shard: Shard, call: Call) -> None:
    """Answer with batches from every core that leads, after the connection's fetches before."""
    request = call.decode()
    session = _session_of(shard, call, request)
    if isinstance(session, ErrorCode):
        fetch.refuse_session(call, session)
        return
    if session is not None:
        request.topics = _topics(session)
    whole = GatheredFetch(shard, call, request, session)
    if whole.shares.keys() <= {shard.config.core}:
        _from_here(shard, call, request, session)
        return
    count_misrouted(shard, call, whole.shares)
    kept = call.keep()
    whole.call = kept
    begin: Callable[[], None] = whole.begin
    if len(whole.shares) == 1 and session is None:
        begin = partial(_from_one, shard, kept, whole)
    fetches = call.slot.connection.fetches
    fetches.append(begin)
    if len(fetches) == 1:
        begin()


def _session_of(shard: Shard, call: Call, request: Message) -> SessionFetch | ErrorCode | None:
    """Take the request's session, which the core of the client's connection keeps."""
    if call.version < SESSIONS_FROM:
        return None
    by_id = call.version >= _TOPIC_IDS_FROM
    rows: list[NamedRow] = [
        (
            topic.topic_id if by_id else topic.topic.encode(),
            (
                0,
                0,
                row.partition,
                row.current_leader_epoch,
                row.fetch_offset,
                row.last_fetched_epoch,
                row.log_start_offset,
                row.partition_max_bytes,
            ),
        )
        for topic in request.topics
        for row in topic.partitions
    ]
    ids = (request.session_id, request.session_epoch)
    session = enter(shard, call, ids, rows, request)
    if session is None and ids[1] not in {INITIAL_EPOCH, FINAL_EPOCH}:
        request.topics = []  # the session has ended: it forgot its last partition
    return session


def _topics(session: SessionFetch) -> list[Message]:
    """Return the rows of a session as those of a request that names them all."""
    topic_type = message_type("FetchRequest.FetchTopic")
    row_type = message_type("FetchRequest.FetchPartition")
    found: list[Message] = []
    last: bytes | None = None
    for name, row in session.rows:
        if name != last:
            last = name
            fields: dict[str, object] = (
                {"topic_id": name} if session.has_ids else {"topic": name.decode()}
            )
            found.append(topic_type(**fields, partitions=[]))
        made = row_type(
            partition=row[2],
            current_leader_epoch=row[3],
            fetch_offset=row[4],
            last_fetched_epoch=row[5],
            log_start_offset=row[6],
            partition_max_bytes=row[7],
        )
        found[-1].partitions.append(made)
    return found


def _from_here(shard: Shard, call: Call, request: Message, session: SessionFetch | None) -> None:
    """Answer a request that names partitions of this core alone."""
    if session is None and request.topics:
        fetch.handle(shard, call)
        return
    bounds = (request.max_wait_ms, request.min_bytes, request.max_bytes, request.isolation_level)
    count = 0 if session is None else len(session.rows)
    fetch.begin_fetch(shard, call, bounds, (count, iter(())), session)


def _from_one(shard: Shard, call: Call, whole: GatheredFetch) -> None:
    """Have one sibling answer it all."""
    if call.slot.connection.is_closed:
        return
    (core,) = whole.shares
    after = partial(next_of_connection, shard, call)
    shard.forwarding.whole(call, core, partial(_lost, call, whole), after)


def _lost(call: Call, whole: GatheredFetch) -> None:
    """The one core that leads is away: clients ask again in a moment."""
    topics = [
        FetchedTopic(name, [_lost_row(number) for number in numbers])
        for name, numbers in whole.asked
    ]
    call.answer_parts(encode(call.version, call.request.correlation_id, 0, topics, []), [])


def next_of_connection(shard: Shard, call: Call) -> None:
    """Let the connection's next fetch begin."""
    fetches = call.slot.connection.fetches
    fetches.popleft()
    if fetches:
        shard.todo.append(fetches[0])
