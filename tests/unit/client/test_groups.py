"""What a classic consumer's assignment says, whoever wrote it."""

import struct

import pytest

from corelane_client.groups import assigned


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
