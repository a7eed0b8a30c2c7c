"""Three nodes of each kind on this machine, for topics with three replicas.

On one machine a record that a quorum acknowledged from page caches outlives processes, not this
machine's power. Ours syncs on a quorum first; so does Kafka with `flush.messages=1`.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.macro import experiments
from bench.macro.experiments import Experiment, Target
from tests.conformance import brokers
from tests.conformance.brokers import Running
from tests.conformance.probe import parse_address
from tests.integration.cluster import Cluster, cluster

NODES: Final = 3
SETTINGS: Final[dict[str, object]] = {"corelane.cores": 1, "corelane.pin.cores": False}
"""A core per node: three nodes and the clients share this machine's CPUs."""

EXPERIMENTS = (
    Experiment(
        "3 nodes produce java",
        "three replicas; Java, default batching",
        experiments.produce_java(),
        is_synced=True,
    ),
    Experiment(
        "3 nodes latency",
        "three replicas; bare client, one at a time",
        experiments.latency,
        1,
        is_synced=True,
    ),
)


def start_corelane(stack: ExitStack) -> Target:
    """Start three of our nodes."""
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="corelane-"))
    nodes: Cluster = stack.enter_context(cluster(Path(directory), NODES, SETTINGS))
    first, *others = (node.process.pid for _number, node in sorted(nodes.nodes.items()))
    address = parse_address(nodes.nodes[1].bootstrap)
    running = Running("corelane", address, nodes.ports, first, Path(directory), 0.0)
    return Target("corelane", running, {}, NODES, tuple(others))


def start_kafka(stack: ExitStack, settings: dict[str, object]) -> Target:
    """Start three nodes of Kafka, each broker and controller."""
    first, *others = stack.enter_context(brokers.kafka_nodes(NODES, settings))
    return Target("kafka", first, {}, NODES, tuple(each.pid for each in others))
