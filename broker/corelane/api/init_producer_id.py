"""InitProducerId (key 22), versions 0 to 4: an identity for an idempotent producer.

v2  flexible.  v3  the producer's old id and epoch (KIP-360).  v4  PRODUCER_FENCED. A producer
without a transactional id always gets a new id with epoch 0, as in Kafka. Transactional ones need
a coordinator, which lands with transactions: COORDINATOR_NOT_AVAILABLE until then.
"""

from corelane.model.errors import ErrorCode
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
        empty = request.transactional_id == ""
        error = ErrorCode.INVALID_REQUEST if empty else ErrorCode.COORDINATOR_NOT_AVAILABLE
        call.answer(_refusal(error))
        return
    wait = ProducerIdWait(shard, call)
    shard.groups.id_blocks.take(wait)
    if not wait.is_done:
        shard.deadlines.add(shard.now_ms + WAIT_MS_MAX, wait)


def _refusal(error: ErrorCode) -> Message:
    return Response(error_code=error, producer_id=-1, producer_epoch=-1)
