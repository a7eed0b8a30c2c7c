"""The bytes of consumer groups' records: as Kafka's schemas have them, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.groups.consumer_records import (
    NOTHING,
    ClassicMember,
    ConsumerGroupCurrentMember,
    ConsumerGroupMember,
    ConsumerGroupMetadata,
    ConsumerGroupRecord,
    ConsumerGroupRegularExpression,
    ConsumerGroupTargetMember,
    ConsumerGroupTargetMetadata,
    CurrentAssignment,
    GroupEpoch,
    MemberState,
    MemberSubscription,
    ResolvedRegex,
)
from corelane.model.ids import TopicId
from corelane.shard.consumer_group_records import decode, encode
from corelane.wire.errors import DecodeError

ID = TopicId(bytes(range(16)))
ID_HEX = bytes(range(16)).hex()
SAID = MemberSubscription("i", None, "c", "/h", ("t",), None, 60_000, "range")
CLASSIC = MemberSubscription(
    None, None, "c", "/h", ("t",), None, 60_000, None,
    ClassicMember(6_000, (("range", b"\x00\x01\x02"),)),
)  # fmt: skip
CLASSIC_HEX = "0000 00 00 02 63 03 2f68 02 02 74 00 0000ea60 00"
CURRENT = CurrentAssignment(
    3, 2, MemberState.UNREVOKED_PARTITIONS, frozenset({(ID, 1), (ID, 0)}), frozenset({(ID, 7)})
)

PINNED: list[tuple[ConsumerGroupRecord, str, str]] = [
    (ConsumerGroupMetadata("g", GroupEpoch(5, 0)), "0003 0001 67", "0000 00000005 00"),
    (
        ConsumerGroupMetadata("g", GroupEpoch(5, -2)),
        "0003 0001 67",
        "0000 00000005 01 00 08 fffffffffffffffe",
    ),
    (
        ConsumerGroupMember("g", "m", SAID),
        "0005 0001 67 0001 6d",
        "0000 02 69 00 02 63 03 2f68 02 02 74 00 0000ea60 06 72616e6765 00",
    ),
    (
        ConsumerGroupMember("g", "m", CLASSIC),
        "0005 0001 67 0001 6d",
        f"{CLASSIC_HEX} 01 00 12 01 00001770 02 06 72616e6765 04 000102 00 00",
    ),
    (ConsumerGroupTargetMetadata("g", 9), "0006 0001 67", "0000 00000009 00"),
    (
        ConsumerGroupTargetMember("g", "m", frozenset({(ID, 2)})),
        "0007 0001 67 0001 6d",
        f"0000 02 {ID_HEX} 02 00000002 00 00",
    ),
    (
        ConsumerGroupCurrentMember("g", "m", CURRENT),
        "0008 0001 67 0001 6d",
        f"0000 00000003 00000002 01 02{ID_HEX}03 00000000 00000001 00 02{ID_HEX}02 00000007 00 00",
    ),
    (
        ConsumerGroupRegularExpression("g", "t.*", ResolvedRegex(frozenset({"tb", "ta"}), 4, 5)),
        "0010 0001 67 0003 742e2a",
        "0000 03 03 7461 03 7462 0000000000000004 0000000000000005 00",
    ),
]


@pytest.mark.parametrize(("said", "key", "value"), PINNED)
def test_the_bytes_are_those_of_kafkas_schemas(
    said: ConsumerGroupRecord, key: str, value: str
) -> None:
    assert encode(said) == (bytes.fromhex(key), bytes.fromhex(value))
    assert decode(bytes.fromhex(key), bytes.fromhex(value)) == said


@pytest.mark.parametrize(("said", "key", "value"), PINNED)
def test_a_tombstone_has_the_key_and_no_value(
    said: ConsumerGroupRecord, key: str, value: str
) -> None:
    gone = decode(bytes.fromhex(key), None)
    assert gone is not None
    assert type(gone) is type(said)
    assert gone.value is None
    assert encode(gone) == (bytes.fromhex(key), None)


@pytest.mark.parametrize(("said", "key", "value"), PINNED)
def test_cut_bytes_are_a_decode_error_and_nothing_else(
    said: ConsumerGroupRecord, key: str, value: str
) -> None:
    raw_key, raw = bytes.fromhex(key), bytes.fromhex(value)
    for end in range(len(raw)):
        with pytest.raises(DecodeError):
            decode(raw_key, raw[:end])
    for end in range(len(raw_key)):
        with pytest.raises(DecodeError):
            decode(raw_key[:end], raw)


def test_other_kinds_and_later_versions_are_passed_over() -> None:
    assert decode(bytes.fromhex("0004 0001 67"), b"\0\0") is None
    assert decode(bytes.fromhex("0002 0001 67"), b"\0\0") is None
    assert decode(bytes.fromhex("0003 0001 67"), bytes.fromhex("0001 00000005 00")) is None


def test_tagged_fields_of_other_versions_are_read_over() -> None:
    """The time a group was made (KIP-1282), when a target was made (KIP-1263)."""
    key = bytes.fromhex("0003 0001 67")
    value = bytes.fromhex("0000 00000005 02 00 08 0000000000000007 01 08 0000000000000009")
    assert decode(key, value) == ConsumerGroupMetadata("g", GroupEpoch(5, 7))
    key = bytes.fromhex("0006 0001 67")
    value = bytes.fromhex("0000 00000009 01 00 08 0000000000000009")
    assert decode(key, value) == ConsumerGroupTargetMetadata("g", 9)


def test_a_state_of_a_later_version_is_unknown() -> None:
    key, value = encode(ConsumerGroupCurrentMember("g", "m", CURRENT))
    assert value is not None
    changed = bytearray(value)
    changed[10] = 9
    read = decode(key, bytes(changed))
    assert isinstance(read, ConsumerGroupCurrentMember)
    assert read.value is not None
    assert read.value.state is MemberState.UNKNOWN


texts = st.text(max_size=12)
maybe = st.none() | texts
partitions = st.frozensets(
    st.tuples(
        st.binary(min_size=16, max_size=16).map(TopicId) | st.just(ID), st.integers(0, 99_999)
    ),
    max_size=12,
)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
names = st.frozensets(texts, max_size=5)
records: st.SearchStrategy[ConsumerGroupRecord] = st.one_of(
    st.builds(ConsumerGroupMetadata, texts, st.builds(GroupEpoch, int32, int64)),
    st.builds(
        ConsumerGroupMember,
        texts,
        texts,
        st.builds(
            MemberSubscription,
            maybe,
            maybe,
            texts,
            texts,
            names.map(sorted).map(tuple),
            st.none() | st.text(min_size=1, max_size=9),
            int32,
            maybe,
        ),
    ),
    st.builds(ConsumerGroupTargetMetadata, texts, int32),
    st.builds(ConsumerGroupTargetMember, texts, texts, partitions),
    st.builds(
        ConsumerGroupCurrentMember,
        texts,
        texts,
        st.builds(
            CurrentAssignment, int32, int32, st.sampled_from(MemberState), partitions, partitions
        ),
    ),
    st.builds(
        ConsumerGroupRegularExpression,
        texts,
        texts,
        st.builds(ResolvedRegex, names, int64, int64),
    ),
)


@given(records)
def test_what_is_written_is_read(said: ConsumerGroupRecord) -> None:
    key, value = encode(said)
    assert decode(key, value) == said


@given(st.sampled_from([3, 5, 6, 7, 8, 16]), st.binary(max_size=40), st.binary(max_size=80))
def test_garbage_is_a_decode_error_or_a_record(kind: int, key: bytes, value: bytes) -> None:
    try:
        decode(kind.to_bytes(2) + key, b"\0\0" + value)
    except DecodeError:
        return


def test_nothing_is_a_value_too() -> None:
    said = ConsumerGroupTargetMember("g", "m", NOTHING)
    assert encode(said)[1] == bytes.fromhex("0000 01 00")
    assert decode(*encode(said)) == said
