"""Members of stock librdkafka that move little: cooperative and static ones; who is fenced."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.conformance.clients.base import TIMEOUT_S
from tests.conformance.clients.librdkafka import Librdkafka
from tests.conformance.probe import Address

PARTITIONS = 4
SESSION_MS = 6_000


Place = tuple[Address, str, str]
"""A broker, a topic and a group."""


class Member:
    """A consumer, and what it was told."""

    def __init__(self, place: Place, settings: dict[str, str]) -> None:
        bootstrap, topic, group = place
        common: dict[str, str | int] = {
            "bootstrap.servers": str(bootstrap),
            "group.id": group,
            "auto.offset.reset": "earliest",
        }
        if settings.get("group.protocol") != "consumer":
            common |= {"heartbeat.interval.ms": 100, "session.timeout.ms": SESSION_MS}
        self.told: list[tuple[str, set[int]]] = []
        self.has: set[int] = set()
        self.fault: KafkaError | None = None
        self.consumer = Consumer(common | settings)
        self.consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)

    def _assigned(self, consumer: Consumer, given: list[TopicPartition]) -> None:
        del consumer
        numbers = {each.partition for each in given}
        self.told.append(("assigned", numbers))
        self.has |= numbers

    def _revoked(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        del consumer
        numbers = {each.partition for each in taken}
        self.told.append(("revoked", numbers))
        self.has -= numbers

    def poll(self) -> None:
        message = self.consumer.poll(0.02)
        error = None if message is None else message.error()
        self.fault = error or self.fault


@contextmanager
def joined(place: Place, settings: dict[str, str]) -> Iterator[Member]:
    member = Member(place, settings)
    try:
        yield member
    finally:
        member.consumer.close()


def until(is_so: Callable[[], bool], *members: Member) -> None:
    """Have all members live until something is so."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline_s, [member.told for member in members]
        for member in members:
            member.poll()


@pytest.fixture
def place(bootstrap: Address, topic: str) -> Place:
    Librdkafka(bootstrap).create_topic(topic, PARTITIONS, {})
    return bootstrap, topic, f"g-{uuid.uuid4()}"


def shared(*members: Member) -> bool:
    """Whether everything is with somebody, and everybody has something."""
    counts = [len(each.has) for each in members]
    return all(counts) and sum(counts) == PARTITIONS


def test_a_cooperative_member_keeps_what_does_not_move(place: Place) -> None:
    sticky = {"partition.assignment.strategy": "cooperative-sticky"}
    with ExitStack() as stack:
        first = stack.enter_context(joined(place, sticky))
        until(lambda: shared(first), first)
        second = stack.enter_context(joined(place, sticky))
        until(lambda: shared(first, second), first, second)
        revoked = [numbers for what, numbers in first.told if what == "revoked" and numbers]
        assert revoked == [second.has]
        assert len(second.has) == 2


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_static_member_that_comes_back_moves_nothing(place: Place, protocol: str) -> None:
    kind = {"group.protocol": protocol}
    with joined(place, kind | {"group.instance.id": "stays"}) as stays:
        with joined(place, kind | {"group.instance.id": "goes"}) as goes:
            until(lambda: shared(stays, goes), stays, goes)
            before = set(goes.has)
        told = len(stays.told)
        with joined(place, kind | {"group.instance.id": "goes"}) as back:
            until(lambda: bool(back.has), stays, back)
            assert back.has == before
            until(lambda: shared(stays, back), stays, back)
        assert stays.told[told:] == []


def test_who_takes_a_static_members_name_fences_it(place: Place) -> None:
    name = {"group.instance.id": "one"}
    with joined(place, name) as former:
        until(lambda: shared(former), former)
        with joined(place, name) as newer:
            until(lambda: former.fault is not None and bool(newer.has), former, newer)
            assert former.fault is not None
            codes = {KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL}
            assert former.fault.code() in codes
