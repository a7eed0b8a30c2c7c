"""The bytes of what a transaction coordinator keeps: Kafka's TransactionLogKey and -Value.

Kafka's tools read them (`kafka-dump-log --transaction-log-decoder`). Values are written in version
1, whose tagged fields they pass over where they do not know them. One is ours: Kafka forgets with
each change of coordinators which InitProducerId may be repeated, and fences a producer whose
answer was lost then.

    key    version int16 = 0, transactional id string
    value  version int16 = 0 or 1, producer id int64, epoch int16, timeout int32, state int8,
           partitions []{topic string, []int32} or null, updated int64, started int64
           1: all lengths compact; tags 0 previous producer id int64, 1 next producer id int64,
           2 client's transaction version int16, 1000 last epoch int16 (ours)
"""

import struct
from itertools import groupby
from typing import Final

from corelane.producers.transactions.records import (
    NO_EPOCH,
    NO_PRODUCER_ID,
    Partition,
    Transaction,
    TransactionRecord,
    TransactionState,
)
from corelane.wire import primitives
from corelane.wire.errors import DecodeError

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")
_TIMES: Final = struct.Struct(">qq")
_HEAD: Final = struct.Struct(">hqhib")

_KEY_VERSION: Final = 0
_PLAIN: Final = 0
_FLEXIBLE: Final = 1
_TAG_PREVIOUS: Final = 0
_TAG_NEXT: Final = 1
_TAG_CLIENT: Final = 2
_TAG_LAST_EPOCH: Final = 1_000

_TAGS: Final = {
    _TAG_PREVIOUS: (_INT64, NO_PRODUCER_ID),
    _TAG_NEXT: (_INT64, NO_PRODUCER_ID),
    _TAG_CLIENT: (_INT16, 0),
    _TAG_LAST_EPOCH: (_INT16, NO_EPOCH),
}
"""Each tag with its number and what its absence means."""


def encode(record: TransactionRecord) -> tuple[bytes, bytes | None]:
    """Return the key and the value of a record; the value is None where an id is forgotten."""
    key = bytearray(_INT16.pack(_KEY_VERSION))
    primitives.write_string(key, record.transactional_id)
    if record.transaction is None:
        return bytes(key), None
    return bytes(key), _value(record.transaction)


def decode(key: bytes, value: bytes | None) -> TransactionRecord:
    """Return the record that these are; raises DecodeError."""
    try:
        (version,) = _INT16.unpack_from(key, 0)
        if version != _KEY_VERSION:
            raise DecodeError(f"the key of a transaction has version {version}, not 0")
        name, at = primitives.read_string(key, _INT16.size)
        if name is None or at != len(key):
            raise DecodeError("the key of a transaction is not one string")
        return TransactionRecord(name, None if value is None else _transaction(value))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DecodeError(f"a record of a transaction ends in the middle: {error}") from None


def _value(transaction: Transaction) -> bytes:
    out = bytearray(
        _HEAD.pack(
            _FLEXIBLE,
            transaction.producer_id,
            transaction.epoch,
            transaction.timeout_ms,
            transaction.state,
        )
    )
    if transaction.state is TransactionState.EMPTY:
        primitives.write_compact_count(out, -1)
    else:
        topics = [
            (topic, [number for _, number in partitions])
            for topic, partitions in groupby(transaction.partitions, key=_topic)
        ]
        primitives.write_compact_count(out, len(topics))
        for topic, numbers in topics:
            primitives.write_compact_string(out, topic)
            primitives.write_compact_count(out, len(numbers))
            for number in numbers:
                out += _INT32.pack(number)
            primitives.write_tags(out, [])
    out += _TIMES.pack(transaction.updated_ms, transaction.started_ms)
    values = {
        _TAG_PREVIOUS: transaction.previous_producer_id,
        _TAG_NEXT: transaction.next_producer_id,
        _TAG_CLIENT: transaction.client_version,
        _TAG_LAST_EPOCH: transaction.last_epoch,
    }
    assert values.keys() == _TAGS.keys()
    tags = [
        (tag, form.pack(values[tag]))
        for tag, (form, absent) in _TAGS.items()
        if values[tag] != absent
    ]
    primitives.write_tags(out, tags)
    return bytes(out)


def _transaction(data: bytes) -> Transaction:
    version, producer_id, epoch, timeout_ms, state = _HEAD.unpack_from(data, 0)
    if version not in {_PLAIN, _FLEXIBLE}:
        raise DecodeError(f"the value of a transaction has version {version}, not 0 or 1")
    if not 0 <= state < TransactionState.DEAD:
        raise DecodeError(f"a transaction has the state {state}")
    partitions, at = _partitions(data, _HEAD.size, is_flexible=version == _FLEXIBLE)
    updated_ms, started_ms = _TIMES.unpack_from(data, at)
    at += _TIMES.size
    tags = {tag: absent for tag, (_, absent) in _TAGS.items()}
    if version == _FLEXIBLE:
        found, at = primitives.read_tags(data, at)
        for tag, position, size in found:
            if tag not in _TAGS:
                continue
            form = _TAGS[tag][0]
            if size != form.size:
                raise DecodeError(f"tagged field {tag} of a transaction has {size} bytes")
            (tags[tag],) = form.unpack_from(data, position)
    if at != len(data):
        raise DecodeError("the value of a transaction is followed by other bytes")
    return Transaction(
        producer_id=producer_id,
        previous_producer_id=tags[_TAG_PREVIOUS],
        next_producer_id=tags[_TAG_NEXT],
        epoch=epoch,
        last_epoch=tags[_TAG_LAST_EPOCH],
        timeout_ms=timeout_ms,
        state=TransactionState(state),
        partitions=tuple(sorted(partitions)),
        updated_ms=updated_ms,
        started_ms=started_ms,
        client_version=tags[_TAG_CLIENT],
    )


def _partitions(data: bytes, at: int, *, is_flexible: bool) -> tuple[set[Partition], int]:
    read_count = primitives.read_compact_count if is_flexible else primitives.read_count
    read_string = primitives.read_compact_string if is_flexible else primitives.read_string
    partitions: set[Partition] = set()
    topics, at = read_count(data, at)
    for _ in range(topics):
        topic, at = read_string(data, at)
        if topic is None:
            raise DecodeError("a topic of a transaction has no name")
        count, at = read_count(data, at)
        for _ in range(count):
            (number,) = _INT32.unpack_from(data, at)
            at += _INT32.size
            partitions.add((topic, number))
        if is_flexible:
            _, at = primitives.read_tags(data, at)
    return partitions, at


def _topic(partition: Partition) -> str:
    return partition[0]
