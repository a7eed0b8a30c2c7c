"""A Fetch request and its session (KIP-227): what is to be fetched, and what of it is answered.

Epoch -1 asks for no session, 0 names everything and asks for one; both end the session whose id
they carry. Any other epoch must be the one that the session expects, and names what has changed.
"""

# performance-critical: see STYLE.md

from collections.abc import Iterator, Sequence

import corelane_native as native
from corelane.api.fetch_response import FetchedPartition, FetchedTopic
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.fetch_sessions import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    NO_SESSION,
    FetchSession,
    NamedRow,
)
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message
from corelane_native import FetchRow

TOPIC_IDS_FROM = 13
SESSIONS_FROM = 7


class SessionFetch:
    """One request of a client that has a session, or asks for one."""

    __slots__ = ("epoch", "has_ids", "opened_by", "session", "shard")

    def __init__(
        self,
        shard: Shard,
        session: FetchSession | None,
        opened_by: list[NamedRow] | None,
        *,
        has_ids: bool,
    ) -> None:
        self.shard = shard
        self.session = session
        self.opened_by = opened_by
        """What a full request names; None: the session does."""
        self.has_ids = has_ids
        self.epoch = 0 if session is None else session.epoch

    @property
    def rows(self) -> list[NamedRow]:
        """Return what is to be fetched."""
        if self.opened_by is not None:
            return self.opened_by
        assert self.session is not None
        return [(each.name, each.row) for each in self.session.partitions.values()]

    def end(self, topics: Sequence[FetchedTopic]) -> tuple[int, int, list[FetchedTopic]]:
        """Return error, session id and topics of the answer, of all that was fetched."""
        if self.opened_by is not None:
            return self._opened(topics)
        session = self.session
        assert session is not None
        if session.epoch != self.epoch:  # another request of the session was quicker
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH, NO_SESSION, []
        left: list[FetchedTopic] = []
        for topic in topics:
            news = [row for row in topic.partitions if self._is_news(session, topic, row)]
            if news:
                left.append(FetchedTopic(topic.name_or_id, news))
        return 0, session.number, left

    def _opened(self, topics: Sequence[FetchedTopic]) -> tuple[int, int, list[FetchedTopic]]:
        """Answer with everything, and with a session if there is room for one."""
        rows = self.opened_by
        assert rows is not None
        is_clear = len({(name, row[2]) for name, row in rows}) == len(rows)
        sessions, now_ms = self.shard.fetch_sessions, self.shard.now_ms
        session = sessions.open(rows, now_ms, has_ids=self.has_ids) if is_clear else None
        if session is None:
            return 0, NO_SESSION, list(topics)
        for topic in topics:
            for row in topic.partitions:
                known = session.partitions[topic.name_or_id, row.partition]
                known.has_news(row.error, 0, row.high_watermark, row.log_start_offset)
        return 0, session.number, list(topics)

    @staticmethod
    def _is_news(session: FetchSession, topic: FetchedTopic, row: FetchedPartition) -> bool:
        key = (topic.name_or_id, row.partition)
        known = session.partitions.get(key)
        if known is None:
            return False  # forgotten meanwhile
        has_news = known.has_news(
            row.error, row.size_bytes, row.high_watermark, row.log_start_offset
        )
        if row.size_bytes:
            session.to_the_end(key)
        return has_news


def enter(
    shard: Shard, call: Call, ids: tuple[int, int], rows: list[NamedRow], forgotten: Message | None
) -> SessionFetch | ErrorCode | None:
    """Take a request with these *ids*, session and epoch; None: it is one without a session.

    *rows* are what it names. *forgotten* is the request's message, where it forgets anything.
    """
    number, epoch = ids
    sessions, has_ids = shard.fetch_sessions, call.version >= TOPIC_IDS_FROM
    if epoch in {FINAL_EPOCH, INITIAL_EPOCH}:
        if number != NO_SESSION:
            sessions.remove(number)
        if epoch == FINAL_EPOCH or call.version < SESSIONS_FROM:
            return None
        return SessionFetch(shard, None, rows, has_ids=has_ids)
    session = sessions.find(number)
    if session is None:
        return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    if session.epoch != epoch:
        return ErrorCode.INVALID_FETCH_SESSION_EPOCH
    if session.has_ids != has_ids:
        return ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    gone = [] if forgotten is None else _forgotten(forgotten, has_ids=has_ids)
    sessions.use(session, rows, gone, shard.now_ms)
    if not session.partitions:
        return None  # it has ended; its client gets session id 0 and an empty answer
    return SessionFetch(shard, session, None, has_ids=has_ids)


def named(call: Call, rows: Iterator[FetchRow]) -> list[NamedRow]:
    """Return decoded rows with the names that they have in the request's frame."""
    address = call.request.address
    found: list[NamedRow] = []
    at, name = -1, b""
    for row in rows:
        if row[0] != at:
            at, name = row[0], native.bytes_at(address + row[0], row[1])
        found.append((name, row))
    return found


def _forgotten(request: Message, *, has_ids: bool) -> list[tuple[bytes, int]]:
    return [
        (topic.topic_id if has_ids else topic.topic.encode(), number)
        for topic in request.forgotten_topics_data
        for number in topic.partitions
    ]
