"""What members of a classic group tell each other, whoever wrote it."""

import struct

import pytest

from corelane_client.subscriptions import (
    Subscription,
    assigned,
    decode_subscription,
    encode_subscription,
)


def assignment(topics: dict[str, list[int]], user_data: bytes = b"") -> bytes:
    parts = [struct.pack(">hi", 1, len(topics))]
    for name, numbers in topics.items():
        parts.append(struct.pack(">h", len(name)) + name.encode())
        parts.append(struct.pack(f">i{len(numbers)}i", len(numbers), *numbers))
    return b"".join(parts) + struct.pack(">i", len(user_data)) + user_data


def test_it_names_partitions_by_topic() -> None:
    said = {"orders": [0, 2], "users": []}
    assert assigned(assignment(said, b"sticky")) == said


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x01",
        b"\x00\x01\x7f\xff\xff\xff",
        b"\x00\x01\x00\x00\x00\x01\x00\x01t\x7f\xff\xff\xff",
        b"\x00\x01\x00\x00\x00\x01\xff\xfft",
        b"\x00\x01\x00\x00\x00\x01\x00\x02\xff\xfe\x00\x00\x00\x00",
        assignment({"t": [1, 2]})[:-6],
    ],
)
def test_what_cannot_be_read_is_no_partition(data: bytes) -> None:
    assert assigned(data) == {}


def test_a_subscription_says_what_is_wanted_and_what_was_owned() -> None:
    said = Subscription(frozenset({"orders", "users"}), frozenset({("orders", 3)}), 7)
    assert decode_subscription(encode_subscription(said)) == said


def test_subscriptions_of_older_clients_are_read_as_far_as_they_go() -> None:
    said = encode_subscription(Subscription(frozenset({"t"}), frozenset({("t", 1)}), 7))
    version_0 = b"\x00\x00" + said[2:13]
    assert decode_subscription(version_0) == Subscription(frozenset({"t"}))
    version_1 = b"\x00\x01" + said[2:-6]
    assert decode_subscription(version_1) == Subscription(frozenset({"t"}), frozenset({("t", 1)}))


@pytest.mark.parametrize("size", range(12))
def test_a_subscription_cut_short_wants_nothing(size: int) -> None:
    said = encode_subscription(Subscription(frozenset({"topic"}), frozenset(), 7))
    assert decode_subscription(said[:size]) == Subscription(frozenset())
