"""The bytes of groups and offsets in `__consumer_offsets`: Kafka's, pinned."""

import pytest

from corelane.groups.records import (
    ClassicRecord,
    CommittedOffset,
    Generation,
    GenerationRecord,
    OffsetRecord,
    StoredMember,
)
from corelane.shard import group_records
from corelane.wire.errors import DecodeError

MEMBER = StoredMember("m", None, "c", "/h", 2, 3, b"s", b"a")
HEAD = "0003 0008 636f6e73756d6572 00000004 0005 72616e6765 0001 6d 0000000000000006"
MEMBERS = "00000001 0001 6d ffff 0001 63 0002 2f68 00000002 00000003 00000001 73 00000001 61"
PINNED: list[tuple[ClassicRecord, str, str | None]] = [
    (
        OffsetRecord("g", "t", 3, CommittedOffset(5, 7, "x", 9)),
        "0001 0001 67 0001 74 00000003",
        "0003 0000000000000005 00000007 0001 78 0000000000000009",
    ),
    (OffsetRecord("g", "t", 3, None), "0001 0001 67 0001 74 00000003", None),
    (
        GenerationRecord("g", Generation("consumer", 4, "range", "m", 6, (MEMBER,))),
        "0002 0001 67",
        HEAD + MEMBERS,
    ),
    (
        GenerationRecord("g", Generation("", 1, None, None, 6, ())),
        "0002 0001 67",
        "0003 0000 00000001 ffff ffff 0000000000000006 00000000",
    ),
    (GenerationRecord("g", None), "0002 0001 67", None),
]


@pytest.mark.parametrize(("made", "key", "value"), PINNED)
def test_the_bytes_are_kafkas(made: ClassicRecord, key: str, value: str | None) -> None:
    data = (bytes.fromhex(key), None if value is None else bytes.fromhex(value))
    assert group_records.encode(made) == data
    assert group_records.decode(*data) == made


def test_older_versions_are_read() -> None:
    key = bytes.fromhex("0000 0001 67 0001 74 00000003")
    old = bytes.fromhex("0000 0000000000000005 0001 78 0000000000000009")
    expected = OffsetRecord("g", "t", 3, CommittedOffset(5, -1, "x", 9))
    assert group_records.decode(key, old) == expected
    group = bytes.fromhex("0002 0001 67")
    first = bytes.fromhex("0000 0000 00000001 ffff ffff 00000001 0001 6d 0000 0000 00000003")
    found = group_records.decode(group, first + bytes(8))
    assert isinstance(found, GenerationRecord)
    assert found.value is not None
    assert found.value.members[0].rebalance_timeout_ms == 3


def test_other_kinds_are_not_ours() -> None:
    assert group_records.decode(bytes.fromhex("0003 0001 67"), b"") is None


@pytest.mark.parametrize(("made", "key", "value"), [each for each in PINNED if each[2]])
def test_bytes_that_are_cut_are_refused(made: ClassicRecord, key: str, value: str | None) -> None:
    del made
    data = bytes.fromhex(value or "")
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            group_records.decode(bytes.fromhex(key), data[:end])


def test_a_newer_version_is_told() -> None:
    with pytest.raises(DecodeError, match="newer"):
        group_records.decode(bytes.fromhex("0002 0001 67"), bytes.fromhex("0004 00"))
