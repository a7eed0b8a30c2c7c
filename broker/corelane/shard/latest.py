"""The latest value of each key of a compacted log: what a coordinator's partition comes to.

Coordinators are folds over their partition's log; this is that fold in its plainest form, kept by
every replica, so that a new leader has it at once, a checkpoint can hold it and a start does not
grow with age. What the keys mean is not known here.

Invariants:
L1. It is a fold of the committed entries of the log, in order, and of nothing else: same log, same
    map (multiraft.md D 12).
L2. Keys are in the order of their last change. Of a transaction all keys change at its marker.
L3. A key whose latest value is null is not there.
L4. A null outside of transactions takes a key back from those that are open, too: their markers do
    not bring it again (Kafka's OffsetMetadataManager, for offsets of a group that was deleted).
"""

import struct
from collections.abc import Iterator
from typing import Final

from corelane.model.ids import Index
from corelane.model.record import record
from corelane.wire.records import Batch, CorruptBatchError, batch_records, split_batches

_FORMAT: Final = 1
_HEADER: Final = struct.Struct("<BQII")  # format, applied index, keys, open transactions
_OPEN: Final = struct.Struct("<qhI")  # producer id and epoch, records
_SIZES: Final = struct.Struct("<iI")  # of the value (-1: null) and of the key
_MARKER_KEY: Final = struct.Struct(">hh")  # version, type
_COMMIT: Final = 1

Change = tuple[bytes, bytes | None]
"""A key and its new value."""


class LatestError(ValueError):
    """Bytes that are no such map."""


@record
class OpenTransaction:
    """What a transaction wrote that has no marker yet."""

    producer_epoch: int
    changes: list[Change]


class LatestByKey:
    """The map, and what open transactions will change in it."""

    __slots__ = ("applied_index", "items", "open", "size_bytes")

    def __init__(self) -> None:
        self.applied_index = Index(0)
        """Up to here entries are part of it."""
        self.items: dict[bytes, bytes] = {}
        self.open: dict[int, OpenTransaction] = {}
        """By the producer's id."""
        self.size_bytes = 0
        """Of keys and values in the map."""

    def apply(self, index: Index, batches: bytes) -> None:
        """Take in the committed entry *index*, which is record batches; CorruptBatchError."""
        for batch in split_batches(batches):
            if batch.is_control:
                self._end(batch)
            elif batch.is_transactional:
                known = self.open.get(batch.producer.producer_id)
                if known is None or known.producer_epoch != batch.producer.epoch:
                    known = OpenTransaction(batch.producer.epoch, [])
                    self.open[batch.producer.producer_id] = known
                known.changes.extend(_changes(batch))
            else:
                changes = [*_changes(batch)]
                for key, value in changes:
                    self._put(key, value)
                if self.open:
                    self._take_back({key for key, value in changes if value is None})
        self.skip(index)

    def skip(self, index: Index) -> None:
        """Take note of an entry without records."""
        assert index > self.applied_index, "L1"
        self.applied_index = index

    def _take_back(self, keys: set[bytes]) -> None:
        """Let open transactions change these keys no more (L4)."""
        for opened in self.open.values() if keys else ():
            if any(key in keys for key, _ in opened.changes):
                opened.changes[:] = [each for each in opened.changes if each[0] not in keys]

    def _end(self, batch: Batch) -> None:
        """Take in a transaction's marker; one that is not known has ended before."""
        (marker,) = batch_records(batch, "", 0)
        _version, kind = _MARKER_KEY.unpack(marker.key or b"")
        ended = self.open.pop(batch.producer.producer_id, None)
        if ended is not None and kind == _COMMIT:
            for key, value in ended.changes:
                self._put(key, value)

    def _put(self, key: bytes, value: bytes | None) -> None:
        former = self.items.pop(key, None)
        if former is not None:
            self.size_bytes -= len(key) + len(former)
        if value is not None:
            self.items[key] = value  # L2: at the end
            self.size_bytes += len(key) + len(value)

    def encode(self) -> bytes:
        """Return the map as bytes (little-endian; storage adds the checksum)."""
        parts = [_HEADER.pack(_FORMAT, self.applied_index, len(self.items), len(self.open))]
        for key, value in self.items.items():
            parts += (_SIZES.pack(len(value), len(key)), key, value)
        for producer_id, opened in self.open.items():
            parts.append(_OPEN.pack(producer_id, opened.producer_epoch, len(opened.changes)))
            for key, change in opened.changes:
                size = -1 if change is None else len(change)
                parts += (_SIZES.pack(size, len(key)), key, change or b"")
        return b"".join(parts)

    @staticmethod
    def decode(data: bytes) -> "LatestByKey":
        """Return the map that `encode` wrote; raises LatestError."""
        latest = LatestByKey()
        reader = _Reader(data)
        form, index, count, open_count = reader.unpack(_HEADER)
        if form != _FORMAT:
            raise LatestError(f"a coordinator's state has format {form}, not {_FORMAT}")
        latest.applied_index = Index(index)
        for key, value in reader.changes(count):
            latest._put(key, value)
        if len(latest.items) != count:
            raise LatestError("a coordinator's state names a key twice")
        for _ in range(open_count):
            producer_id, epoch, changes = reader.unpack(_OPEN)
            latest.open[producer_id] = OpenTransaction(epoch, [*reader.changes(changes)])
        if reader.at != len(data):
            raise LatestError("a coordinator's state is longer than it says")
        return latest


class _Reader:
    """Bytes taken apart from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        if self.at + form.size > len(self._data):
            raise LatestError("a coordinator's state ends in the middle")
        fields = form.unpack_from(self._data, self.at)
        self.at += form.size
        return fields

    def changes(self, count: int) -> Iterator[Change]:
        for _ in range(count):
            value_bytes, key_bytes = self.unpack(_SIZES)
            key = self._take(key_bytes)
            yield key, None if value_bytes < 0 else self._take(value_bytes)

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._data):
            raise LatestError("a coordinator's state ends in the middle")
        taken = self._data[self.at : end]
        self.at = end
        return taken


def _changes(batch: Batch) -> Iterator[Change]:
    for each in batch_records(batch, "", 0):
        if each.key is None:
            raise CorruptBatchError("a coordinator's record has no key")
        yield each.key, each.value
