"""The broker under test, and the clients that judge it."""

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.conformance import brokers
from tests.conformance.clients.aio import Aiokafka
from tests.conformance.clients.base import Client, MakeClient
from tests.conformance.clients.kafka_python import KafkaPython
from tests.conformance.clients.librdkafka import Librdkafka
from tests.conformance.probe import Address

CLIENTS: tuple[MakeClient, ...] = (Librdkafka, KafkaPython, Aiokafka)
NAMES = ("confluent-kafka", "kafka-python", "aiokafka")

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def bootstrap() -> Iterator[Address]:
    """A broker of our own, or the one that `CORELANE_BOOTSTRAP` names."""
    named = brokers.environment_bootstrap()
    if named is not None:
        yield named
        return
    with brokers.corelane() as running:
        yield running.bootstrap


@pytest.fixture(params=CLIENTS, ids=NAMES)
def client(request: pytest.FixtureRequest, bootstrap: Address) -> Client:
    """Each of the clients in turn."""
    make: MakeClient = request.param
    return make(bootstrap)


@pytest.fixture
def topic() -> str:
    """A name that no test before has used on this broker."""
    return f"conformance-{os.getpid()}-{next(_numbers)}"
