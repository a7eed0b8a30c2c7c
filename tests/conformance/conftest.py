"""The broker under test, and the clients that judge it."""

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.conformance import brokers
from tests.conformance.clients.aio import Aiokafka
from tests.conformance.clients.base import Administrator, Client, MakeAdministrator, MakeClient
from tests.conformance.clients.kafka_python import KafkaPython
from tests.conformance.clients.librdkafka import Librdkafka
from tests.conformance.probe import Address

CLIENTS: tuple[MakeClient, ...] = (Librdkafka, KafkaPython, Aiokafka)
NAMES = ("confluent-kafka", "kafka-python", "aiokafka")

ADMINISTRATORS: tuple[MakeAdministrator, ...] = (Librdkafka, KafkaPython)

_numbers = itertools.count(1)


SHAPES: dict[str, dict[str, object]] = {
    "three-cores": {"corelane.cores": 3, "corelane.pin.cores": False},
    "three-behind-one": {
        "corelane.cores": 3,
        "corelane.pin.cores": False,
        "corelane.advertise": "node",
    },
    "one-core": {"corelane.cores": 1},
    "one-behind-one": {"corelane.cores": 1, "corelane.advertise": "node"},
}
"""How many brokers clients see, and how many cores are behind them."""
QUICK: dict[str, object] = {
    "group.initial.rebalance.delay.ms": 100,
    "group.min.session.timeout.ms": 1_000,
    "group.consumer.heartbeat.interval.ms": 200,
}
"""Kafka's three seconds for each group, and six until a killed member is missed, would be most of
the time of the tests.
"""
SHAPES_ALWAYS = 2
"""With one core less happens than with three: `CORELANE_SHAPES=all` has those, too."""


def _shapes() -> list[str]:
    if brokers.environment_bootstrap() is not None:
        return ["named"]
    every = os.environ.get("CORELANE_SHAPES") == "all"
    return [*SHAPES][: len(SHAPES) if every else SHAPES_ALWAYS]


@pytest.fixture(scope="session", params=_shapes())
def bootstrap(request: pytest.FixtureRequest) -> Iterator[Address]:
    """A broker of our own in each shape, or the one that `CORELANE_BOOTSTRAP` names."""
    named = brokers.environment_bootstrap()
    if named is not None:
        yield named
        return
    with brokers.corelane(SHAPES[request.param] | QUICK) as running:
        yield running.bootstrap


@pytest.fixture(params=CLIENTS, ids=NAMES)
def client(request: pytest.FixtureRequest, bootstrap: Address) -> Client:
    """Each of the clients in turn."""
    make: MakeClient = request.param
    return make(bootstrap)


@pytest.fixture(params=ADMINISTRATORS, ids=NAMES[:2])
def administrator(request: pytest.FixtureRequest, bootstrap: Address) -> Administrator:
    """Each client that speaks IncrementalAlterConfigs and ElectLeaders; aiokafka does not."""
    make: MakeAdministrator = request.param
    return make(bootstrap)


@pytest.fixture(params=(KafkaPython,), ids=NAMES[1:2])
def measurer(request: pytest.FixtureRequest, bootstrap: Address) -> KafkaPython:
    """The one client that speaks DescribeLogDirs."""
    made: KafkaPython = request.param(bootstrap)
    return made


@pytest.fixture
def topic() -> str:
    """A name that no test before has used on this broker."""
    return f"conformance-{os.getpid()}-{next(_numbers)}"
