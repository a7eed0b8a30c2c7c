"""Requests through a door of the whole node: split over the cores that lead, answers put together.

A request that one core can answer whole goes there as it came. One that names partitions of
several cores is taken apart, each core gets its share as a request of its own, and the answers
are merged in the order of the request. A core that cannot be reached stands for its partitions
with NOT_LEADER_OR_FOLLOWER: of a write it is not known whether it happened, and clients retry.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from corelane.api.leaders import group_of
from corelane.model.ids import CoreId
from corelane.model.record import record
from corelane.shard.answer import Answer
from corelane.shard.call import Call
from corelane.shard.forwarding import Part
from corelane.shard.partition import Topic
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, request_codec
from corelane.wire.frame import decode_response, request_body_at

NO_TOPIC_ID: Final = bytes(16)

Merge = Callable[["Gathered"], None]
"""Answers the client from what came."""


@record
class Shape:
    """Where the topics and partitions of a request message are."""

    topics: str
    """The field with the topics."""
    topic_name: str
    partitions: str
    partition_number: str
    topic_id: str = ""
    """The field with the topic's id, where versions name topics so."""


Read = Callable[[Answer], Any]
"""Makes of a share's answer what is merged, and takes over what it holds."""


class Gathered:
    """One split request: its shares, and what came of each."""

    __slots__ = (
        "answers",
        "call",
        "dropped",
        "is_over",
        "merge",
        "open_count",
        "parts",
        "read",
        "shard",
        "told",
    )

    def __init__(self, shard: Shard, call: Call, merge: Merge, read: Read | None = None) -> None:
        self.shard = shard
        self.call = call
        self.merge = merge
        self.read = read or self._message
        self.dropped: Callable[[Gathered], None] | None = (
            None  # instead of `merge`: nobody wants it
        )
        self.answers: dict[CoreId, Any] = {}
        """By core, as read; None: nobody knows what became of its share."""
        self.parts: dict[CoreId, Part] = {}
        self.open_count = 1  # the splitting itself, until all shares are sent
        self.is_over = False
        self.told: Callable[[Gathered], None] | None = None

    def send(self, core: CoreId, frame: bytes) -> None:
        """Have a core handle its share."""

        def done(answer: Answer | None) -> None:
            self._answered(core, answer)

        self.open_count += 1
        part = self.shard.forwarding.part(self.call, frame, core, done)
        if part is None:
            self._answered(core, None)
        else:
            self.parts[core] = part

    def sent(self) -> None:
        """All shares are sent."""
        self.call.slot.abandoned = self.hurry
        self._close_one()

    def hurry(self) -> None:
        """Have what is still open answered with what there is."""
        for core, part in self.parts.items():
            if core not in self.answers:
                part.cancel()

    def _message(self, answer: Answer) -> Message:
        request = self.call.request
        data = answer.take_bytes(self.shard.arena)
        return decode_response(request.api_key, request.api_version, data)[1]

    def _answered(self, core: CoreId, answer: Answer | None) -> None:
        has_answer = answer is not None and answer.parts
        self.answers[core] = self.read(answer) if answer is not None and has_answer else None
        if self.told is not None and not self.is_over:
            self.told(self)
        self._close_one()

    def _close_one(self) -> None:
        self.open_count -= 1
        if self.open_count == 0 and not self.is_over:
            self.is_over = True
            if not self.call.slot.connection.is_closed:
                self.merge(self)
            elif self.dropped is not None:
                self.dropped(self)


def owner_of(shard: Shard, topic: Topic | None, number: int) -> CoreId | None:
    """Return the core that leads a partition; None: unknown, so any core can say so."""
    if topic is None or not 0 <= number < len(topic.partitions):
        return None
    group = group_of(shard, topic, number)
    lead = shard.groups.lead_of(group)
    if lead is None or lead.node != shard.config.node:
        return shard.groups.siblings.home_of(group)
    return lead.core


def topic_of(shard: Shard, shape: Shape, row: Message) -> Topic | None:
    """Return the topic that a row of a request names, by name or by id."""
    groups = shard.groups
    if shape.topic_id:
        topic_id = getattr(row, shape.topic_id)
        if topic_id != NO_TOPIC_ID:
            return groups.topics_by_id.get(topic_id)
    name = getattr(row, shape.topic_name)
    return groups.topics.get(name.encode()) if name else None


def split(
    shard: Shard, shape: Shape, request: Message
) -> dict[CoreId, list[tuple[Message, list[Any]]]]:
    """Return each core's share of *request*: its topic rows, each with the partitions wanted."""
    own = shard.config.core
    shares: dict[CoreId, list[tuple[Message, list[Any]]]] = {}
    for topic_row in getattr(request, shape.topics) or ():
        topic = topic_of(shard, shape, topic_row)
        by_core: dict[CoreId, list[Any]] = {}
        for row in getattr(topic_row, shape.partitions):
            number = row if isinstance(row, int) else getattr(row, shape.partition_number)
            owner = owner_of(shard, topic, number)
            by_core.setdefault(own if owner is None else owner, []).append(row)
        for core, rows in by_core.items():
            shares.setdefault(core, []).append((topic_row, rows))
    return shares


def frame_of(call: Call, message: Message) -> bytes:
    """Return a request like *call*'s, with another body."""
    codec = request_codec(call.request.api_key, call.request.api_version)
    whole = call.frame()
    return whole[: request_body_at(whole, is_flexible=codec.is_flexible)] + codec.encode(message)


def share_of(shape: Shape, request: Message, rows: Iterable[tuple[Message, list[Any]]]) -> Message:
    """Return *request* with only these topics and partitions."""
    topics = [_with(topic_row, **{shape.partitions: wanted}) for topic_row, wanted in rows]
    return _with(request, **{shape.topics: topics})


def count_misrouted(shard: Shard, call: Call, cores: Iterable[CoreId]) -> None:
    """Count a request of which a part lives elsewhere."""
    if any(core != shard.config.core for core in cores):
        shard.counts.misrouted[call.request.api_key] += 1


def _with(message: Message, **changed: object) -> Message:
    """Return a copy of *message* with some fields changed."""
    fields = {name: getattr(message, name) for name in message.__slots__} | changed
    return type(message)(**fields)
