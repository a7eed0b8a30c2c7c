"""The bytes of the records of consumer groups in `__consumer_offsets`, as Kafka 4.x writes them.

A key begins with its type (int16); a value with its version (int16), always 0 here, and is flexible
(KIP-482). From `group-coordinator/src/main/resources/common/message/*.json` of Kafka:

    3  ConsumerGroupMetadata               epoch, tag 0: hash of the topics (KIP-1101)
    5  ConsumerGroupMemberMetadata         what it said; tag 0: a classic one's protocols
    6  ConsumerGroupTargetAssignmentMetadata
    7  ConsumerGroupTargetAssignmentMember
    8  ConsumerGroupCurrentMemberAssignment
    16 ConsumerGroupRegularExpression

Tagged fields that are not named here (the time a group was made, the epochs of single partitions)
are read over.
"""

import struct
from collections.abc import Callable
from typing import Final, assert_never

from corelane.groups.consumer_records import (
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
    Partitions,
    ResolvedRegex,
)
from corelane.model.ids import TopicId
from corelane.wire import primitives as wire
from corelane.wire.errors import DecodeError

METADATA: Final = 3
MEMBER: Final = 5
TARGET_METADATA: Final = 6
TARGET_MEMBER: Final = 7
CURRENT_MEMBER: Final = 8
REGULAR_EXPRESSION: Final = 16

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")
_CURRENT: Final = struct.Struct(">iib")
_RESOLVED: Final = struct.Struct(">qq")
_VERSION: Final = _INT16.pack(0)
_NO_TAGS: Final = 0
_HASH_TAG: Final = 0
_CLASSIC_TAG: Final = 0
_PRESENT: Final = 1
"""Before a struct that may be null."""
_STATES: Final = {int(state): state for state in MemberState}


def encode(record: ConsumerGroupRecord) -> tuple[bytes, bytes | None]:
    """Return key and value; a value of None is a tombstone."""
    match record:
        case ConsumerGroupCurrentMember():
            key = _key(CURRENT_MEMBER, record.group_id, record.member_id)
            return key, None if record.value is None else _encode_current(record.value)
        case ConsumerGroupTargetMember():
            key = _key(TARGET_MEMBER, record.group_id, record.member_id)
            return key, None if record.value is None else _encode_target(record.value)
        case ConsumerGroupMember():
            key = _key(MEMBER, record.group_id, record.member_id)
            return key, None if record.value is None else _encode_member(record.value)
        case ConsumerGroupMetadata():
            key = _key(METADATA, record.group_id)
            return key, None if record.value is None else _encode_metadata(record.value)
        case ConsumerGroupTargetMetadata():
            key = _key(TARGET_METADATA, record.group_id)
            if record.value is None:
                return key, None
            return key, _VERSION + _INT32.pack(record.value) + bytes([_NO_TAGS])
        case ConsumerGroupRegularExpression():
            key = _key(REGULAR_EXPRESSION, record.group_id, record.regex)
            return key, None if record.value is None else _encode_resolved(record.value)
        case _:
            assert_never(record)


def decode(key: bytes, value: bytes | None) -> ConsumerGroupRecord | None:
    """Return a record of our log; None for a key or a version of another kind, as in Kafka.

    Bytes that are cut or malformed are a DecodeError: our log does not say what we wrote.
    """
    try:
        return _decode(key, value)
    except (struct.error, IndexError, UnicodeDecodeError) as fault:
        raise DecodeError(f"a consumer group's record is cut or malformed: {fault}") from fault


def _decode(key: bytes, value: bytes | None) -> ConsumerGroupRecord | None:
    (kind,) = _INT16.unpack_from(key)
    if kind not in _DECODERS:
        return None
    if value is not None and _INT16.unpack_from(value) != (0,):
        return None
    group_id, at = _text(wire.read_string(key, _INT16.size))
    name = ""
    if kind not in {METADATA, TARGET_METADATA}:
        name, at = _text(wire.read_string(key, at))
    return _DECODERS[kind](group_id, name, value)


def _key(kind: int, *texts: str) -> bytes:
    out = bytearray(_INT16.pack(kind))
    for text in texts:
        wire.write_string(out, text)
    return bytes(out)


def _text(read: tuple[str | None, int]) -> tuple[str, int]:
    text, at = read
    if text is None:
        raise DecodeError("a text is null that must not be")
    return text, at


def _count(value: bytes, at: int) -> tuple[int, int]:
    count, at = wire.read_compact_count(value, at)
    if count < 0:
        raise DecodeError("an array is null that must not be")
    return count, at


def _encode_metadata(value: GroupEpoch) -> bytes:
    out = bytearray(_VERSION)
    out += _INT32.pack(value.epoch)
    tags = [(_HASH_TAG, _INT64.pack(value.metadata_hash))] if value.metadata_hash else []
    wire.write_tags(out, tags)
    return bytes(out)


def _decode_metadata(group_id: str, _: str, value: bytes | None) -> ConsumerGroupMetadata:
    if value is None:
        return ConsumerGroupMetadata(group_id, None)
    (epoch,) = _INT32.unpack_from(value, 2)
    metadata_hash = 0
    for tag, at, size in wire.read_tags(value, 6)[0]:
        if tag == _HASH_TAG and size == _INT64.size:
            (metadata_hash,) = _INT64.unpack_from(value, at)
    return ConsumerGroupMetadata(group_id, GroupEpoch(epoch, metadata_hash))


def _encode_member(value: MemberSubscription) -> bytes:
    out = bytearray(_VERSION)
    for text in (value.instance_id, value.rack_id, value.client_id, value.client_host):
        wire.write_compact_string(out, text)
    _write_texts(out, value.topic_names)
    wire.write_compact_string(out, value.topic_regex)
    out += _INT32.pack(value.rebalance_timeout_ms)
    wire.write_compact_string(out, value.server_assignor)
    classic = value.classic
    wire.write_tags(out, [] if classic is None else [(_CLASSIC_TAG, _encode_classic(classic))])
    return bytes(out)


def _encode_classic(value: ClassicMember) -> bytes:
    out = bytearray([_PRESENT])
    out += _INT32.pack(value.session_timeout_ms)
    wire.write_compact_count(out, len(value.protocols))
    for name, metadata in value.protocols:
        wire.write_compact_string(out, name)
        wire.write_compact_bytes(out, metadata)
        out.append(_NO_TAGS)
    out.append(_NO_TAGS)
    return bytes(out)


def _decode_classic(value: bytes, at: int) -> ClassicMember | None:
    if value[at] != _PRESENT:
        return None
    (session_ms,) = _INT32.unpack_from(value, at + 1)
    count, at = _count(value, at + 1 + _INT32.size)
    protocols = []
    for _ in range(count):
        name, at = _text(wire.read_compact_string(value, at))
        metadata, at = wire.read_compact_bytes(value, at)
        at = wire.read_tags(value, at)[1]
        protocols.append((name, metadata or b""))
    wire.read_tags(value, at)
    return ClassicMember(session_ms, tuple(protocols))


def _decode_member(group_id: str, member_id: str, value: bytes | None) -> ConsumerGroupMember:
    if value is None:
        return ConsumerGroupMember(group_id, member_id, None)
    instance_id, at = wire.read_compact_string(value, 2)
    rack_id, at = wire.read_compact_string(value, at)
    client_id, at = _text(wire.read_compact_string(value, at))
    client_host, at = _text(wire.read_compact_string(value, at))
    names, at = _read_texts(value, at)
    regex, at = wire.read_compact_string(value, at)
    (timeout_ms,) = _INT32.unpack_from(value, at)
    assignor, at = wire.read_compact_string(value, at + _INT32.size)
    classic = None
    for tag, start, _size in wire.read_tags(value, at)[0]:
        if tag == _CLASSIC_TAG:
            classic = _decode_classic(value, start)
    said = MemberSubscription(
        instance_id,
        rack_id,
        client_id,
        client_host,
        tuple(names),
        regex or None,  # some versions of Kafka write an empty one for none
        timeout_ms,
        assignor,
        classic,
    )
    return ConsumerGroupMember(group_id, member_id, said)


def _decode_target_metadata(
    group_id: str, _: str, value: bytes | None
) -> ConsumerGroupTargetMetadata:
    if value is None:
        return ConsumerGroupTargetMetadata(group_id, None)
    (epoch,) = _INT32.unpack_from(value, 2)
    wire.read_tags(value, 6)
    return ConsumerGroupTargetMetadata(group_id, epoch)


def _encode_target(value: Partitions) -> bytes:
    out = bytearray(_VERSION)
    _write_partitions(out, value)
    out.append(_NO_TAGS)
    return bytes(out)


def _decode_target(group_id: str, member_id: str, value: bytes | None) -> ConsumerGroupTargetMember:
    if value is None:
        return ConsumerGroupTargetMember(group_id, member_id, None)
    partitions, at = _read_partitions(value, 2)
    wire.read_tags(value, at)
    return ConsumerGroupTargetMember(group_id, member_id, partitions)


def _encode_current(value: CurrentAssignment) -> bytes:
    out = bytearray(_VERSION)
    out += _CURRENT.pack(value.member_epoch, value.previous_epoch, value.state)
    _write_partitions(out, value.assigned)
    _write_partitions(out, value.revoking)
    out.append(_NO_TAGS)
    return bytes(out)


def _decode_current(
    group_id: str, member_id: str, value: bytes | None
) -> ConsumerGroupCurrentMember:
    if value is None:
        return ConsumerGroupCurrentMember(group_id, member_id, None)
    member_epoch, previous_epoch, number = _CURRENT.unpack_from(value, 2)
    assigned, at = _read_partitions(value, 2 + _CURRENT.size)
    revoking, at = _read_partitions(value, at)
    wire.read_tags(value, at)
    state = _STATES.get(number, MemberState.UNKNOWN)
    current = CurrentAssignment(member_epoch, previous_epoch, state, assigned, revoking)
    return ConsumerGroupCurrentMember(group_id, member_id, current)


def _encode_resolved(value: ResolvedRegex) -> bytes:
    out = bytearray(_VERSION)
    _write_texts(out, sorted(value.topic_names))
    out += _RESOLVED.pack(value.version, value.resolved_ms)
    out.append(_NO_TAGS)
    return bytes(out)


def _decode_resolved(
    group_id: str, regex: str, value: bytes | None
) -> ConsumerGroupRegularExpression:
    if value is None:
        return ConsumerGroupRegularExpression(group_id, regex, None)
    names, at = _read_texts(value, 2)
    version, resolved_ms = _RESOLVED.unpack_from(value, at)
    wire.read_tags(value, at + _RESOLVED.size)
    resolved = ResolvedRegex(frozenset(names), version, resolved_ms)
    return ConsumerGroupRegularExpression(group_id, regex, resolved)


def _write_texts(out: bytearray, texts: "list[str] | tuple[str, ...]") -> None:
    wire.write_compact_count(out, len(texts))
    for text in texts:
        wire.write_compact_string(out, text)


def _read_texts(value: bytes, at: int) -> tuple[list[str], int]:
    count, at = _count(value, at)
    texts = []
    for _ in range(count):
        text, at = _text(wire.read_compact_string(value, at))
        texts.append(text)
    return texts, at


def _write_partitions(out: bytearray, partitions: Partitions) -> None:
    """Write topics in order of their ids, and their partitions in order."""
    grouped: dict[TopicId, list[int]] = {}
    for topic_id, number in sorted(partitions):
        grouped.setdefault(topic_id, []).append(number)
    wire.write_compact_count(out, len(grouped))
    for topic_id, numbers in grouped.items():
        out += topic_id
        wire.write_compact_count(out, len(numbers))
        out += struct.pack(f">{len(numbers)}i", *numbers)
        out.append(_NO_TAGS)


def _read_partitions(value: bytes, at: int) -> tuple[Partitions, int]:
    topic_count, at = _count(value, at)
    found = []
    for _ in range(topic_count):
        raw, at = wire.take(value, at, wire.UUID_BYTES)
        count, at = _count(value, at)
        numbers = struct.unpack_from(f">{count}i", value, at)
        at = wire.read_tags(value, at + _INT32.size * count)[1]
        found += [(TopicId(raw), number) for number in numbers]
    return frozenset(found), at


_DECODERS: Final[dict[int, Callable[[str, str, bytes | None], ConsumerGroupRecord]]] = {
    METADATA: _decode_metadata,
    MEMBER: _decode_member,
    TARGET_METADATA: _decode_target_metadata,
    TARGET_MEMBER: _decode_target,
    CURRENT_MEMBER: _decode_current,
    REGULAR_EXPRESSION: _decode_resolved,
}
