"""Stock clients read in groups: together, after each other, and after one of them is gone."""

import uuid

import pytest

from tests.conformance.clients.base import Client, Producing, Sent
from tests.conformance.clients.doomed import doomed
from tests.conformance.clients.librdkafka import Librdkafka
from tests.conformance.probe import Address

RECORDS = 60


@pytest.fixture
def group() -> str:
    return f"g-{uuid.uuid4()}"


def filled(client: Client, topic: str, partitions: int) -> None:
    client.create_topic(topic, partitions, {})
    for partition in range(partitions):
        sent = [Sent(b"%d/%d" % (partition, at)) for at in range(RECORDS // partitions)]
        client.produce(topic, partition, sent, Producing())


def test_a_group_reads_every_record_once(client: Client, topic: str, group: str) -> None:
    filled(client, topic, 3)
    first = client.read_in_group(topic, group, members=1, count=20)
    assert len(first) == 20
    rest = client.read_in_group(topic, group, members=1, count=RECORDS - 20)
    values = [each.value or b"" for each in first + rest]
    assert sorted(values) == sorted(
        b"%d/%d" % (partition, at) for partition in range(3) for at in range(20)
    )


def test_members_share_the_partitions(client: Client, topic: str, group: str) -> None:
    filled(client, topic, 4)
    found = client.read_in_group(topic, group, members=2, count=RECORDS)
    assert len({each.value for each in found}) == RECORDS


def test_what_a_killed_member_had_is_read_by_the_next(
    client: Client, bootstrap: Address, topic: str, group: str
) -> None:
    """Killed without a word: its session ends, and its partitions go on where it had committed."""
    filled(client, topic, 2)
    with doomed(client.name, str(bootstrap), topic, group):
        pass
    found = client.read_in_group(topic, group, members=2, count=RECORDS)
    assert len({each.value for each in found}) == RECORDS


def test_committed_offsets_are_the_groups_own(client: Client, topic: str, group: str) -> None:
    filled(client, topic, 1)
    assert len(client.read_in_group(topic, group, members=1, count=RECORDS)) == RECORDS
    again = client.read_in_group(topic, f"{group}-other", members=1, count=RECORDS)
    assert [each.offset for each in again] == [*range(RECORDS)]


def test_the_new_protocol_works_too(bootstrap: Address, topic: str, group: str) -> None:
    """KIP-848: the broker assigns; librdkafka speaks it when it is asked to."""
    client = Librdkafka(bootstrap)
    filled(client, topic, 4)
    found = client.read_in_group(topic, group, members=2, count=RECORDS, protocol="consumer")
    assert len({each.value for each in found}) == RECORDS
    assert client.read_in_group(topic, group, members=1, count=0, protocol="classic") == []
