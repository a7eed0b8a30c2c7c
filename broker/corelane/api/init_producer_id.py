"""InitProducerId (key 22), versions 0 to 5: an identity for a producer, plain or transactional.

v2  flexible.  v3  the producer's old id and epoch (KIP-360).  v4  PRODUCER_FENCED.  v5
TRANSACTION_ABORTABLE (KIP-890). A producer without a transactional id always gets a new id with
epoch 0, as in Kafka; that of a transactional one is its coordinator's to give.
"""

from corelane.api.group_calls import routed
from corelane.api.transaction_calls import ask
from corelane.model.errors import ErrorCode
from corelane.model.internal_topics import TRANSACTIONS_TOPIC
from corelane.producers.transactions.records import NO_EPOCH, NO_PRODUCER_ID
from corelane.producers.transactions.requests import (
    Answer,
    InitProducerId,
    ProducerAnswer,
    error_at_version,
)
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

WAIT_MS_MAX = 10_000

Response = message_type("InitProducerIdResponse")


class ProducerIdWait:
    """A producer that waits for the controller to grant the next block of ids."""

    __slots__ = ("call", "is_done", "shard")

    def __init__(self, shard: Shard, call: Call) -> None:
        self.shard = shard
        self.call = call
        self.is_done = False

    def granted(self, producer_id: int) -> None:
        """Answer with the id."""
        self.is_done = True
        self.call.answer(Response(producer_id=producer_id, producer_epoch=0))

    def expire(self, now_ms: int) -> None:
        """Have the client try again."""
        del now_ms
        self.is_done = True
        self.call.answer(_refusal(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS))


def handle(shard: Shard, call: Call) -> None:
    """Answer with an id, at once or when a block of them is granted."""
    request = call.decode()
    if request.transactional_id is not None:
        _transactional(shard, call, request)
        return
    wait = ProducerIdWait(shard, call)
    shard.groups.id_blocks.take(wait)
    if not wait.is_done:
        shard.deadlines.add(shard.now_ms + WAIT_MS_MAX, wait)


def _transactional(shard: Shard, call: Call, request: Message) -> None:
    """Have the coordinator of the transactional id give the identity."""
    is_id_known = request.producer_id != NO_PRODUCER_ID
    if is_id_known != (request.producer_epoch != NO_EPOCH):
        call.answer(_refusal(ErrorCode.INVALID_REQUEST))
        return
    wish = InitProducerId(
        request.transactional_id,
        request.transaction_timeout_ms,
        NO_PRODUCER_ID,
        request.producer_id,
        request.producer_epoch,
    )

    def told(answer: Answer | ErrorCode) -> Message:
        if isinstance(answer, ErrorCode):
            return _refusal(answer)
        assert isinstance(answer, ProducerAnswer)
        if answer.error:
            return _refusal(error_at_version(answer.error, "InitProducerId", call.version))
        return Response(producer_id=answer.producer_id, producer_epoch=answer.epoch)

    ask(shard, call, request.transactional_id, wish, told)


_routed = routed(handle, lambda request: str(request.transactional_id), TRANSACTIONS_TOPIC)


def gather(shard: Shard, call: Call) -> None:
    """Answer through a door of the whole node."""
    is_plain = call.decode().transactional_id is None
    (handle if is_plain else _routed)(shard, call)


def _refusal(error: ErrorCode) -> Message:
    return Response(error_code=error, producer_id=-1, producer_epoch=-1)
