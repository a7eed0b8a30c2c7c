"""Every address in an answer is one of the listener that the client came through."""

import pytest

from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import batch_of, produce_request
from tests.unit.shard.node import OUTSIDE_HOST, Node

HOSTS = {"inside": "127.0.0.1", "outside": OUTSIDE_HOST}
TOKENS = {("inside", False): 0, ("inside", True): 1, ("outside", False): 2, ("outside", True): 3}


@pytest.fixture
def node() -> Node:
    node = Node(3)
    node[0].create_topic("t", 3)
    return node


def addresses(rows: list[Message]) -> list[tuple[int, str, int]]:
    return [(row.node_id, row.host, row.port) for row in rows]


@pytest.mark.parametrize(("listener", "is_bootstrap"), TOKENS)
@pytest.mark.parametrize("core", [0, 1])
def test_metadata_names_the_brokers_of_the_clients_listener(
    node: Node, core: int, listener: str, is_bootstrap: bool
) -> None:
    node[core].listener = TOKENS[listener, is_bootstrap]
    request = message_type("MetadataRequest")(topics=[], allow_auto_topic_creation=True)
    expected = [(1000 + i, HOSTS[listener], 19092 + i) for i in range(3)]
    assert addresses(node[core].call(request, 9, conn=77).brokers) == expected


@pytest.mark.parametrize(("listener", "is_bootstrap"), TOKENS)
@pytest.mark.parametrize("core", [0, 1])
def test_metadata_of_a_topic_that_is_made_elsewhere_names_them_too(
    node: Node, core: int, listener: str, is_bootstrap: bool
) -> None:
    node[core].listener = TOKENS[listener, is_bootstrap]
    wanted = message_type("MetadataRequest.MetadataRequestTopic")(name="new")
    request = message_type("MetadataRequest")(topics=[wanted], allow_auto_topic_creation=True)
    answer = node[core].call(request, 9, conn=77)
    assert answer.topics[0].error_code == 0
    assert {host for _, host, _ in addresses(answer.brokers)} == {HOSTS[listener]}


@pytest.mark.parametrize("listener", HOSTS)
def test_describe_cluster_names_the_brokers_of_the_clients_listener(
    node: Node, listener: str
) -> None:
    node[1].listener = TOKENS[listener, True]
    answer = node[1].call(message_type("DescribeClusterRequest")(endpoint_type=1), 1, conn=77)
    expected = [(1000 + i, HOSTS[listener], 19092 + i) for i in range(3)]
    assert [(row.broker_id, row.host, row.port) for row in answer.brokers] == expected


@pytest.mark.parametrize("listener", HOSTS)
def test_a_hint_to_the_leader_is_an_address_of_the_clients_listener(
    node: Node, listener: str
) -> None:
    home = node[0].shard.groups.siblings.home_of(
        node[0].shard.groups.cluster.topics["t"].partitions[0].group
    )
    assert home is not None
    other = node[(home + 1) % 3]
    other.listener = TOKENS[listener, False]
    expected = [(1000 + home, HOSTS[listener], 19092 + home)]
    produced = other.call(produce_request("t", batch_of()), 11, conn=77)
    assert addresses(produced.node_endpoints) == expected
    fetched = other.call(other.fetch_request("t", 0), 16, conn=77)
    assert addresses(fetched.node_endpoints) == expected


def test_the_controller_registers_the_addresses_of_every_listener(node: Node) -> None:
    (registered,) = node[2].shard.groups.cluster.nodes.values()
    found = {(each.listener, each.core, each.host, each.port) for each in registered.endpoints}
    assert found == {
        (name, core, host, 19092 + core)
        for name, host in (("INSIDE", "127.0.0.1"), ("OUTSIDE", OUTSIDE_HOST))
        for core in range(3)
    }
