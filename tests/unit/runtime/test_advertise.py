"""What clients of each listener are told: configured addresses, and ports as really bound."""

from corelane.model.config import parse
from corelane.runtime.advertise import listener_brokers
from corelane.runtime.messages import ListenerPorts

BOUND = [ListenerPorts(9092, [19092, 19093]), ListenerPorts(9093, [20093, 20094])]
TWO = 'listeners = "INSIDE://127.0.0.1:9092,OUTSIDE://0.0.0.0:9093"\n'


def told(settings: str, bound: list[ListenerPorts]) -> dict[str, list[tuple[int, str, int]]]:
    return {
        each.name: [(broker.broker_id, broker.host, broker.port) for broker in each.brokers]
        for each in listener_brokers(parse(settings), bound)
    }


def test_each_core_is_told_at_its_port_on_that_listener() -> None:
    assert told(TWO + 'advertised.listeners = "OUTSIDE://h:9093"', BOUND) == {
        "INSIDE": [(1000, "127.0.0.1", 19092), (1001, "127.0.0.1", 19093)],
        "OUTSIDE": [(1000, "h", 20093), (1001, "h", 20094)],
    }


def test_ports_that_a_router_changes_are_told_as_they_are_outside() -> None:
    settings = (
        TWO
        + 'advertised.listeners = "OUTSIDE://h:30000"\n'
        + 'corelane.advertised.core.port.bases = "OUTSIDE:30001"'
    )
    assert told(settings, BOUND)["OUTSIDE"] == [(1000, "h", 30001), (1001, "h", 30002)]


def test_a_whole_node_is_told_at_one_port() -> None:
    settings = (
        TWO + 'advertised.listeners = "OUTSIDE://h:30000"\ncorelane.advertise = "node"\nnode.id = 7'
    )
    assert told(settings, BOUND) == {
        "INSIDE": [(7999, "127.0.0.1", 9092)],
        "OUTSIDE": [(7999, "h", 30000)],
    }


def test_ports_chosen_freely_are_told_as_they_became() -> None:
    bound = [ListenerPorts(40000, [40001])]
    assert told("corelane.port = 0", bound)["PLAINTEXT"] == [(1000, "127.0.0.1", 40001)]
    node = 'corelane.port = 0\ncorelane.advertise = "node"'
    assert told(node, bound)["PLAINTEXT"] == [(1999, "127.0.0.1", 40000)]
