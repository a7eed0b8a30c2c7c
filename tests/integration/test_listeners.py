"""A real node with several listeners: clients stay on the one they came through."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tests.integration import broker as brokers
from tests.integration.broker import Broker
from tests.integration.ports import free_ports

CORES = 2


def settings(ports: list[int], **more: object) -> dict[str, object]:
    """Return two listeners on free *ports*, the second one advertised under another name."""
    inside, outside, inside_base, outside_base, admin, peer = ports
    return {
        "corelane.cores": CORES,
        "corelane.pin.cores": False,
        "corelane.port": 9092,  # the default: `listeners` says it
        "corelane.admin.port": admin,
        "corelane.peer.port": peer,
        "listeners": f"INSIDE://127.0.0.1:{inside},OUTSIDE://127.0.0.2:{outside}",
        "advertised.listeners": f"OUTSIDE://localhost:{outside}",
        "corelane.core.port.bases": f"INSIDE:{inside_base},OUTSIDE:{outside_base}",
        **{name.replace("_", "."): value for name, value in more.items()},
    }


def ports() -> list[int]:
    """Return ports far enough apart for the cores of both listeners."""
    found = free_ports(6 * CORES)
    return found[::CORES]


def brokers_seen(address: str) -> set[tuple[int, str, int]]:
    """Return what a stock client is told by the bootstrap port at *address*."""
    admin = AdminClient({"bootstrap.servers": address})
    found = admin.list_topics(timeout=10).brokers.values()
    return {(each.id, str(each.host), each.port) for each in found}


def cluster_page(broker: Broker) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(broker.page("/v1/cluster"))
    return found


@pytest.mark.parametrize("advertise", ["core", "node"])
def test_clients_are_told_the_addresses_of_the_listener_they_came_through(
    tmp_path: Path, advertise: str
) -> None:
    chosen = ports()
    inside, outside, inside_base, outside_base, _, _ = chosen
    with brokers.started(
        tmp_path / "data", settings(chosen, corelane_advertise=advertise)
    ) as broker:
        if advertise == "core":
            seen_inside = {(1000 + i, "127.0.0.1", inside_base + i) for i in range(CORES)}
            seen_outside = {(1000 + i, "localhost", outside_base + i) for i in range(CORES)}
        else:
            seen_inside = {(1999, "127.0.0.1", inside)}
            seen_outside = {(1999, "localhost", outside)}
        assert brokers_seen(f"127.0.0.1:{inside}") == seen_inside
        assert brokers_seen(f"127.0.0.2:{outside}") == seen_outside
        listeners = cluster_page(broker)["listeners"]
        assert [each["name"] for each in listeners] == ["INSIDE", "OUTSIDE"]
        assert listeners[1]["advertised"] == [f"{h}:{p}" for _, h, p in sorted(seen_outside)]


def test_a_producer_inside_is_served_and_an_address_that_fails_outside_is_warned_of(
    tmp_path: Path,
) -> None:
    chosen = ports()
    inside, outside = chosen[:2]
    with brokers.started(tmp_path / "data", settings(chosen)) as broker:
        producer = Producer({"bootstrap.servers": f"127.0.0.1:{inside}", "acks": "all"})
        for number in range(20):
            producer.produce("t", str(number).encode())
        assert producer.flush(20) == 0
        # Bound to 127.0.0.2, advertised as localhost: nobody listens at 127.0.0.1.
        broker.wait_for_line(
            "clients of listener OUTSIDE are told that broker 1000 is at localhost"
        )
        assert f"127.0.0.1:{inside}" not in broker.log_text().split("listener OUTSIDE")[1]
        assert "clients of listener INSIDE" not in broker.log_text()
        pages = broker.page("/metrics").decode()
        for line in (
            'corelane_kafka_received_bytes_total{topic="t"} ',
            'corelane_kafka_records_produced_total{topic="t"} 20.0',
            'corelane_kafka_connections_total{listener="INSIDE",result="accepted"} ',
            'corelane_kafka_requests_total{api="Produce",error="NONE"} ',
            'corelane_kafka_request_duration_seconds_count{api="Produce"} ',
            'corelane_shard_up{shard="1"} 1.0',
            "corelane_topics 1.0",
            "corelane_leaderless_partitions 0.0",
        ):
            assert line in pages, line
        assert broker.page("/readyz") == b"ready\n"
        assert outside != inside
