"""Keys go where Java's producer sends them; records without one fill batch after batch."""

import random

import pytest

from corelane_client.partitioner import StickyChoice, murmur2, partition_of_key

# From Apache Kafka's UtilsTest.testMurmur2.
JAVA_HASHES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "expected"), JAVA_HASHES.items())
def test_a_key_hashes_as_in_java(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_a_negative_hash_loses_its_sign_as_in_java() -> None:
    assert partition_of_key(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7


def test_a_keyless_record_stays_until_its_batch_is_full() -> None:
    choice = StickyChoice(random.Random(1))
    first = choice.current("t", 4)
    assert {choice.current("t", 4) for _ in range(10)} == {first}
    assert choice.next("t", 4) != first


def test_a_topic_of_one_partition_offers_no_other() -> None:
    choice = StickyChoice(random.Random(1))
    assert [choice.next("t", 1) for _ in range(3)] == [0, 0, 0]


def test_every_partition_gets_its_turn() -> None:
    choice = StickyChoice(random.Random(1))
    assert {choice.next("t", 5) for _ in range(200)} == set(range(5))
