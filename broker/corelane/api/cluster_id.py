"""The cluster's id as clients see it: URL-safe base64 of 16 bytes, as Kafka writes its own."""

import base64

from corelane.shard.shard import Shard


def cluster_id_text(shard: Shard) -> str:
    """Return the id that the controller's log has, or before it is readable the node's."""
    raw = shard.groups.cluster.cluster_id or shard.config.cluster_id
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
