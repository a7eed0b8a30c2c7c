"""Stock transactional producers, and what readers of committed records see of them."""

import uuid

import pytest

from tests.conformance.clients.base import Producing, Sent
from tests.conformance.clients.librdkafka import Librdkafka
from tests.conformance.clients.transactional import (
    AiokafkaTeller,
    FencedError,
    KafkaPythonTeller,
    LibrdkafkaTeller,
    Teller,
)
from tests.conformance.probe import Address

TELLERS = (LibrdkafkaTeller, KafkaPythonTeller, AiokafkaTeller)


@pytest.fixture(params=TELLERS, ids=[each.name for each in TELLERS])
def teller(request: pytest.FixtureRequest, bootstrap: Address) -> Teller:
    made: Teller = request.param(bootstrap)
    return made


@pytest.fixture
def name() -> str:
    return f"txn-{uuid.uuid4()}"


@pytest.fixture
def money(bootstrap: Address, topic: str) -> str:
    Librdkafka(bootstrap).create_topic(topic, 2, {})
    return topic


def test_committed_records_are_read_and_aborted_ones_are_not(
    teller: Teller, money: str, name: str
) -> None:
    with teller.producer(name) as producer:
        for number, commits in enumerate((True, False, True)):
            producer.begin()
            for partition in (0, 1):
                producer.send(money, partition, b"%d" % number)
            producer.flush()
            if commits:
                producer.commit()
            else:
                producer.abort()
    for partition in (0, 1):
        assert teller.committed(money, partition, 2) == [b"0", b"2"]
    assert teller.committed(money, 0, 0) == [b"0", b"2"]


def test_what_is_open_is_not_read(teller: Teller, money: str, name: str) -> None:
    with teller.producer(name) as producer:
        producer.begin()
        producer.send(money, 0, b"open")
        producer.flush()
        assert teller.committed(money, 0, 0) == []
        producer.commit()
        assert teller.committed(money, 0, 1) == [b"open"]


def test_a_second_producer_of_the_same_id_fences_the_first(
    teller: Teller, money: str, name: str
) -> None:
    with teller.producer(name) as first:
        first.begin()
        first.send(money, 0, b"first")
        first.flush()
        with teller.producer(name) as second:
            with pytest.raises(FencedError):
                first.commit()
            second.begin()
            second.send(money, 0, b"second")
            second.commit()
            assert teller.committed(money, 0, 1) == [b"second"]


def test_consume_transform_produce_is_exactly_once(
    bootstrap: Address, teller: Teller, money: str, name: str
) -> None:
    client = Librdkafka(bootstrap)
    source = f"{money}-source"
    client.create_topic(source, 1, {})
    client.produce(source, 0, [Sent(b"%d" % at) for at in range(20)], Producing())
    with teller.producer(name) as producer:
        producer.begin()
        producer.transform(source, name, 10, (money, 0))
        producer.abort()  # neither records nor offsets count
        for _ in range(2):
            producer.begin()
            producer.transform(source, name, 10, (money, 0))
            producer.commit()
    assert teller.committed(money, 0, 20) == [b"%d" % at for at in range(20)]
