"""FindCoordinator (key 10), versions 0 to 4: where a group or transaction is coordinated.

v3  flexible.  v4  several keys at once (KIP-699). Until consumer groups and transactions land
there is no coordinator: every key is answered COORDINATOR_NOT_AVAILABLE, which clients retry.
"""

from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import message_type

_BATCHED_FROM = 4
_SENTENCE = "this broker does not serve consumer groups and transactions yet: assign partitions"

Response = message_type("FindCoordinatorResponse")
Row = message_type("FindCoordinatorResponse.Coordinator")


def handle(shard: Shard, call: Call) -> None:
    """Say that there is no coordinator."""
    del shard
    request = call.decode()
    error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    if call.version >= _BATCHED_FROM:
        found = [
            Row(key=key, node_id=-1, port=-1, error_code=error, error_message=_SENTENCE)
            for key in request.coordinator_keys
        ]
        call.answer(Response(coordinators=found))
    else:
        call.answer(Response(error_code=error, error_message=_SENTENCE, node_id=-1, port=-1))
