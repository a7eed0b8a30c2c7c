"""WriteTxnMarkers (key 27), versions 1 and 2: a transaction is ended in the partitions named.

v2  the transaction.version of the producer (KIP-1228). Kafka's coordinators send it to brokers,
ours do not need it; operators send it by `kafka-transactions abort` to the leader of a partition.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from corelane.api.gather import Gathered, count_misrouted, frame_of, owner_of
from corelane.model.errors import ErrorCode
from corelane.model.ids import CoreId, Term
from corelane.shard import markers
from corelane.shard.call import Call
from corelane.shard.groups import NO_TOPIC_ID
from corelane.shard.shard import Shard
from corelane.shard.verifying import MarkerToWrite, Place
from corelane.wire.compiler import Message, message_type

Request = message_type("WriteTxnMarkersRequest")
RequestMarker = message_type("WriteTxnMarkersRequest.WritableTxnMarker")
RequestTopic = message_type("WriteTxnMarkersRequest.WritableTxnMarkerTopic")
Response = message_type("WriteTxnMarkersResponse")
MarkerRow = message_type("WriteTxnMarkersResponse.WritableTxnMarkerResult")
TopicRow = message_type("WriteTxnMarkersResponse.WritableTxnMarkerTopicResult")
PartitionRow = message_type("WriteTxnMarkersResponse.WritableTxnMarkerPartitionResult")

WAIT_MS: Final = 30_000
"""Kafka's request.timeout.ms; the request names none. What is not committed then is in doubt."""

ErrorOf = Callable[[int, str, int], int]
"""The error for a marker, by its place in the request, in a partition of a topic."""


class MarkersWait:
    """One request whose markers are on their way to the disk."""

    __slots__ = ("call", "is_done", "open_count", "response", "shard")

    def __init__(self, shard: Shard, call: Call, response: Message) -> None:
        self.shard = shard
        self.call = call
        self.response = response
        self.open_count = 1  # the request itself, until all its markers were looked at
        self.is_done = False

    def told(self, row: Message, error: ErrorCode) -> None:
        """Take the fate of one marker."""
        if not self.is_done:
            row.error_code = error
            self.settle()

    def settle(self) -> None:
        """Count one as decided, and answer after the last."""
        self.open_count -= 1
        if self.open_count == 0:
            self._answer()
            self.shard.deadlines.note_done()

    def expire(self, now_ms: int) -> None:
        """Answer; what is not committed has REQUEST_TIMED_OUT."""
        del now_ms
        self._answer()

    def _answer(self) -> None:
        self.is_done = True
        if not self.call.slot.connection.is_closed:
            self.call.answer(self.response)


def handle(shard: Shard, call: Call) -> None:
    """Write the markers, and answer when all of them are committed."""
    request = call.decode()
    response = _answer_of(request, lambda *_place: ErrorCode.REQUEST_TIMED_OUT)
    wait = MarkersWait(shard, call, response)
    for wish, rows in zip(request.markers, response.markers, strict=True):
        for topic in rows.topics:
            for row in topic.partitions:
                wait.open_count += 1
                told = partial(wait.told, row)
                if min(wish.producer_id, wish.producer_epoch, wish.coordinator_epoch) < 0:
                    told(ErrorCode.INVALID_REQUEST)
                else:
                    place = Place(topic.name, NO_TOPIC_ID, row.partition_index)
                    markers.write(shard, _marker(wish, place), told)
    if wait.open_count > 1:
        shard.deadlines.add(shard.now_ms + WAIT_MS, wait)
    wait.settle()


def _marker(wish: Message, place: Place) -> MarkerToWrite:
    return MarkerToWrite(
        place,
        wish.producer_id,
        wish.producer_epoch,
        is_commit=wish.transaction_result,
        coordinator_term=Term(wish.coordinator_epoch),
        client_version=max(1, wish.transaction_version),
    )


def _answer_of(request: Message, error_of: ErrorOf) -> Message:
    """Return an answer with a row for every marker in every partition, in the request's order."""
    return Response(
        markers=[
            MarkerRow(
                producer_id=marker.producer_id,
                topics=[
                    TopicRow(
                        name=topic.name,
                        partitions=[
                            PartitionRow(
                                partition_index=number, error_code=error_of(at, topic.name, number)
                            )
                            for number in topic.partition_indexes
                        ],
                    )
                    for topic in marker.topics
                ],
            )
            for at, marker in enumerate(request.markers)
        ]
    )


# --- through a door of the whole node ---

Share = dict[int, list[tuple[str, int]]]
"""What a core is to do: by the marker's place in the request, topics with partition numbers."""


def gather(shard: Shard, call: Call) -> None:
    """Have the cores that lead write the markers, and answer for all of them."""
    request = call.decode()
    shares: dict[CoreId, Share] = {}
    for at, marker in enumerate(request.markers):
        for topic in marker.topics:
            known = shard.groups.topics.get(topic.name.encode())
            for number in topic.partition_indexes:
                owner = owner_of(shard, known, number)
                core = shard.config.core if owner is None else owner
                shares.setdefault(core, {}).setdefault(at, []).append((topic.name, number))
    count_misrouted(shard, call, shares)
    gathered = Gathered(shard, call, partial(_merge, request, shares))
    for core, share in shares.items():
        gathered.send(core, frame_of(call, _request_of(request, share)))
    gathered.sent()


def _request_of(request: Message, share: Share) -> Message:
    wanted = []
    for at, places in share.items():
        marker = request.markers[at]
        wanted.append(
            RequestMarker(
                producer_id=marker.producer_id,
                producer_epoch=marker.producer_epoch,
                transaction_result=marker.transaction_result,
                topics=[RequestTopic(name=name, partition_indexes=[n]) for name, n in places],
                coordinator_epoch=marker.coordinator_epoch,
                transaction_version=marker.transaction_version,
            )
        )
    return Request(markers=wanted)


def _merge(request: Message, shares: dict[CoreId, Share], gathered: Gathered) -> None:
    """Answer from what came; a core that is away stands for its partitions with NOT_LEADER."""
    found: dict[tuple[int, str, int], int] = {}
    for core, answer in gathered.answers.items():
        if answer is not None:
            found |= _errors(shares[core], answer.markers)
    away = ErrorCode.NOT_LEADER_OR_FOLLOWER
    gathered.call.answer(_answer_of(request, lambda *place: found.get(place, away)))


def _errors(places: Iterable[int], rows: list[Message]) -> dict[tuple[int, str, int], int]:
    """Return the error of each place in what one core answered, in the order it was asked."""
    return {
        (at, topic.name, row.partition_index): row.error_code
        for at, marker in zip(places, rows, strict=True)
        for topic in marker.topics
        for row in topic.partitions
    }
