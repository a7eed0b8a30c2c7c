"""DescribeCluster (key 60), versions 0 to 2: the brokers, the controller, the cluster's id.

v1  endpoint type (KIP-919): this broker answers for brokers, not for controllers.  v2  fenced
brokers.
"""

from corelane.api.cluster_id import cluster_id_text
from corelane.api.leaders import brokers_of, controller_of
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import message_type

ENDPOINT_BROKERS = 1
NOT_REQUESTED = -(2**31)

Response = message_type("DescribeClusterResponse")
Broker = message_type("DescribeClusterResponse.DescribeClusterBroker")


def handle(shard: Shard, call: Call) -> None:
    """Answer with every broker clients may be sent to."""
    request = call.decode()
    if request.endpoint_type != ENDPOINT_BROKERS:
        call.answer(
            Response(
                error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
                error_message="only brokers can be described here: use --bootstrap-server",
            )
        )
        return
    brokers = [
        Broker(broker_id=b.broker_id, host=b.host, port=b.port, rack=b.rack)
        for b in brokers_of(shard, call.slot.connection)
    ]
    call.answer(
        Response(
            cluster_id=cluster_id_text(shard),
            controller_id=controller_of(shard),
            brokers=brokers,
            cluster_authorized_operations=NOT_REQUESTED,
            endpoint_type=ENDPOINT_BROKERS,
        )
    )
