"""What clients of each listener are told: the configuration's words with the ports really bound."""

import base64
import uuid
from collections.abc import Sequence

from corelane.model.config import Config
from corelane.model.config_listeners import Listener
from corelane.model.ids import CoreId, NodeId, core_broker_id, node_broker_id
from corelane.runtime.messages import ListenerPorts
from corelane.shard.config import Advertised, ListenerBrokers


def cluster_id_text(cluster_uuid: str) -> str:
    """Return the cluster's id as clients see it: URL-safe base64 of 16 bytes, as Kafka's is."""
    return base64.urlsafe_b64encode(uuid.UUID(cluster_uuid).bytes).rstrip(b"=").decode()


def listener_brokers(config: Config, bound: Sequence[ListenerPorts]) -> list[ListenerBrokers]:
    """Return the brokers of this node as each listener's clients are told of them."""
    return [
        ListenerBrokers(listener.name, _brokers(config, listener, ports))
        for listener, ports in zip(config.listeners, bound, strict=True)
    ]


def _brokers(config: Config, listener: Listener, ports: ListenerPorts) -> list[Advertised]:
    node, rack, host = NodeId(config.node.id), config.node.rack or None, listener.advertised_host
    if config.network.advertise == "node":
        port = listener.advertised_port or ports.bootstrap
        return [Advertised(node_broker_id(node), host, port, rack)]
    base = listener.advertised_core_port_base
    return [
        Advertised(core_broker_id(node, CoreId(core)), host, base + core if base else port, rack)
        for core, port in enumerate(ports.cores)
    ]
