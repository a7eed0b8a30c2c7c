"""The bytes of the records of classic groups and of offsets in `__consumer_offsets`, as Kafka's.

    key    i16 1, group, topic, i32 partition      OffsetCommitKey (0: an older spelling of it)
           i16 2, group                            GroupMetadataKey
    value  i16 3, i64 offset, i32 leader epoch, metadata, i64 commit time
           i16 3, protocol type, i32 generation, protocol, leader, i64 since when, members:
                  id, instance, client id and host, i32 rebalance and session timeouts,
                  subscription, assignment

Strings have an i16 before them, bytes an i32, -1 is null. Kafka 4.x writes these versions; older
ones have fewer fields, and newer ones are flexible: they are told as not known.
(`group-coordinator/src/main/resources/common/message/*.json`)
"""

import struct
from typing import Final, assert_never

from corelane.groups.records import (
    NO_EPOCH,
    ClassicRecord,
    CommittedOffset,
    Generation,
    GenerationRecord,
    OffsetRecord,
    StoredMember,
)
from corelane.wire.errors import DecodeError

OFFSET: Final = 1
OLD_OFFSET: Final = 0
GROUP: Final = 2
VERSION: Final = 3
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")
_OFFSET: Final = struct.Struct(">hqi")
_TIMEOUTS: Final = struct.Struct(">ii")
_MEMBERS_MAX: Final = 1_000_000


def encode(made: ClassicRecord) -> tuple[bytes, bytes | None]:
    """Return key and value; None is a tombstone."""
    match made:
        case OffsetRecord():
            key = _INT16.pack(OFFSET) + _text(made.group) + _text(made.topic)
            key += _INT32.pack(made.partition)
            return key, None if made.value is None else _offset(made.value)
        case GenerationRecord():
            key = _INT16.pack(GROUP) + _text(made.group)
            return key, None if made.value is None else _generation(made.value)
        case _:
            assert_never(made)


def _offset(value: CommittedOffset) -> bytes:
    head = _OFFSET.pack(VERSION, value.offset, value.leader_epoch)
    return head + _text(value.metadata) + _INT64.pack(value.commit_ms)


def _generation(value: Generation) -> bytes:
    parts = [
        _INT16.pack(VERSION), _text(value.protocol_type), _INT32.pack(value.generation_id),
        _text(value.protocol), _text(value.leader), _INT64.pack(value.since_ms),
        _INT32.pack(len(value.members)),
    ]  # fmt: skip
    for member in value.members:
        parts += (
            _text(member.member_id), _text(member.instance_id), _text(member.client_id),
            _text(member.client_host),
            _TIMEOUTS.pack(member.rebalance_timeout_ms, member.session_timeout_ms),
            _sized(member.subscription), _sized(member.assignment),
        )  # fmt: skip
    return b"".join(parts)


def decode(key: bytes, value: bytes | None) -> ClassicRecord | None:
    """Return the record; None for keys of other kinds. DecodeError for bytes that are none."""
    try:
        return _decode(key, value)
    except (struct.error, UnicodeDecodeError) as fault:
        raise DecodeError(f"a record of a group is malformed: {fault}") from fault


def _decode(key: bytes, value: bytes | None) -> ClassicRecord | None:
    (kind,) = _INT16.unpack_from(key)
    reader = _Reader(key, _INT16.size)
    if kind in {OLD_OFFSET, OFFSET}:
        group, topic = reader.text(), reader.text()
        (partition,) = reader.unpack(_INT32)
        offset = None if value is None else _decode_offset(value)
        return OffsetRecord(group, topic, partition, offset)
    if kind == GROUP:
        group = reader.text()
        return GenerationRecord(group, None if value is None else _decode_generation(value))
    return None


def _decode_offset(data: bytes) -> CommittedOffset:
    (version,) = _INT16.unpack_from(data)
    _check_version(version, "an offset")
    reader = _Reader(data, _INT16.size)
    (offset,) = reader.unpack(_INT64)
    leader_epoch = reader.unpack(_INT32)[0] if version >= 3 else NO_EPOCH
    metadata = reader.text()
    (commit_ms,) = reader.unpack(_INT64)
    return CommittedOffset(offset, leader_epoch, metadata, commit_ms)


def _decode_generation(data: bytes) -> Generation:
    (version,) = _INT16.unpack_from(data)
    _check_version(version, "a group")
    reader = _Reader(data, _INT16.size)
    protocol_type = reader.text()
    (generation_id,) = reader.unpack(_INT32)
    protocol, leader = reader.optional(), reader.optional()
    since_ms = reader.unpack(_INT64)[0] if version >= 2 else -1
    (count,) = reader.unpack(_INT32)
    if not 0 <= count <= _MEMBERS_MAX:
        raise DecodeError(f"a group of {count} members")
    members = tuple(_decode_member(reader, version) for _ in range(count))
    return Generation(protocol_type, generation_id, protocol, leader, since_ms, members)


def _decode_member(reader: "_Reader", version: int) -> StoredMember:
    member_id = reader.text()
    instance_id = reader.optional() if version >= 3 else None
    client_id, client_host = reader.text(), reader.text()
    rebalance_ms = reader.unpack(_INT32)[0] if version >= 1 else -1
    (session_ms,) = reader.unpack(_INT32)
    return StoredMember(
        member_id, instance_id, client_id, client_host,
        session_ms if rebalance_ms < 0 else rebalance_ms, session_ms,
        reader.sized(), reader.sized(),
    )  # fmt: skip


def _check_version(version: int, what: str) -> None:
    if not 0 <= version <= VERSION:
        raise DecodeError(f"{what} of version {version}, which is newer than {VERSION}")


class _Reader:
    """Bytes taken apart from the front."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        fields = form.unpack_from(self._data, self._at)
        self._at += form.size
        return fields

    def text(self) -> str:
        return self.optional() or ""

    def optional(self) -> str | None:
        (size,) = self.unpack(_INT16)
        return None if size < 0 else self._take(size).decode()

    def sized(self) -> bytes:
        (size,) = self.unpack(_INT32)
        return b"" if size < 0 else self._take(size)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise DecodeError("a record of a group ends in the middle")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def _text(value: str | None) -> bytes:
    if value is None:
        return _INT16.pack(-1)
    data = value.encode()
    return _INT16.pack(len(data)) + data


def _sized(data: bytes) -> bytes:
    return _INT32.pack(len(data)) + data
