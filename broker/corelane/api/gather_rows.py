"""Gathering for APIs whose answer mirrors the request: one row per partition, in the same order."""

from collections.abc import Callable
from functools import partial

from corelane.api.gather import Gathered, Shape, count_misrouted, frame_of, share_of, split
from corelane.model.errors import ErrorCode
from corelane.model.ids import CoreId
from corelane.model.record import record
from corelane.shard.call import Call, Handler
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

Asked = list[tuple[str, list[int]]]
"""What a request names, in order: topics with partition numbers."""


@record
class Rows:
    """An API with one answer row per partition asked for."""

    api: str
    request: Shape
    response: Shape
    topic_type: str
    row_type: str
    handle: Handler
    """Serves it on one core."""


def gather_of(rows: Rows) -> Handler:
    """Return the `gather` of such an API."""
    return partial(gather_rows, rows)


def gather_rows(rows: Rows, shard: Shard, call: Call) -> None:
    """Answer from one core, or from the shares of several."""
    request = call.decode()
    shares = split(shard, rows.request, request)
    asked = [
        (
            getattr(topic, rows.request.topic_name),
            [
                row if isinstance(row, int) else getattr(row, rows.request.partition_number)
                for row in getattr(topic, rows.request.partitions)
            ],
        )
        for topic in getattr(request, rows.request.topics)
    ]
    count_misrouted(shard, call, shares)
    merge = partial(_merge, rows, asked)
    gathered = Gathered(shard, call, merge)
    for core, share in shares.items():
        gathered.send(core, frame_of(call, share_of(rows.request, request, share)))
    gathered.sent()


def from_one(rows: Rows, shard: Shard, call: Call, core: CoreId, asked: Asked) -> None:
    """Have one core answer it all, and answer ourselves if that is away."""
    if core == shard.config.core:
        rows.handle(shard, call)
        return
    shard.forwarding.whole(call, core, lambda: _answer(rows, asked, [], call))


def _merge(rows: Rows, asked: Asked, gathered: Gathered) -> None:
    answers = [answer for answer in gathered.answers.values() if answer is not None]
    _answer(rows, asked, answers, gathered.call)


def _answer(rows: Rows, asked: Asked, answers: list[Message], call: Call) -> None:
    """Answer with a row for each that was asked for, from whichever answer has it."""
    shape = rows.response
    found: dict[tuple[str, int], Message] = {}
    endpoints: dict[int, Message] = {}
    for answer in answers:
        for topic in getattr(answer, shape.topics):
            name = getattr(topic, shape.topic_name)
            for row in getattr(topic, shape.partitions):
                found[name, getattr(row, shape.partition_number)] = row
        for endpoint in getattr(answer, "node_endpoints", ()):
            endpoints[endpoint.node_id] = endpoint
    topic_type: Callable[..., Message] = message_type(f"{rows.api}Response.{rows.topic_type}")
    topics = [
        topic_type(
            **{
                shape.topic_name: name,
                shape.partitions: [
                    found.get((name, number)) or _lost(rows, number) for number in numbers
                ],
            }
        )
        for name, numbers in asked
    ]
    fields: dict[str, object] = {shape.topics: topics}
    if endpoints:
        fields["node_endpoints"] = list(endpoints.values())
    call.answer(message_type(f"{rows.api}Response")(**fields))


def _lost(rows: Rows, number: int) -> Message:
    """Return the row of a partition whose core is away: retry, wherever it is led then."""
    row_type = message_type(f"{rows.api}Response.{rows.row_type}")
    fields: dict[str, object] = {rows.response.partition_number: number}
    return row_type(error_code=ErrorCode.NOT_LEADER_OR_FOLLOWER, **fields)
