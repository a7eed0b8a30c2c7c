"""What a core's log should be: a list of operations, and what they add up to."""

import struct
from dataclasses import replace

from corelane.model.ids import GroupId, Lsn, MemberId, RecordKind, TopicId
from corelane.model.record import record
from corelane.storage.layout import Descriptor
from corelane_native import crc32c

LOG_APPEND_TIME = 8


def batch(record_count: int, body_bytes: int, timestamp: int, seed: int = 0) -> bytes:
    """Return a Kafka batch v2 whose records are just bytes: storage never looks at them."""
    unit = struct.pack("<Q", seed * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
    body = (unit * (body_bytes // 8 + 1))[:body_bytes]
    rest = struct.pack(
        ">hiqqqhii", 0, record_count - 1, timestamp, timestamp, -1, -1, -1, record_count
    )
    head = struct.pack(">qiib", 0, 49 + body_bytes, -1, 2)
    return head + struct.pack(">I", crc32c(rest + body)) + rest + body


def stamped(data: bytes, base_offset: int, term: int, append_time_ms: int) -> bytes:
    """Return *data* as the log must hold it."""
    out = bytearray(data)
    struct.pack_into(">q", out, 0, base_offset)
    struct.pack_into(">i", out, 12, term)
    if append_time_ms >= 0:
        (attributes,) = struct.unpack_from(">h", out, 21)
        struct.pack_into(">h", out, 21, attributes | LOG_APPEND_TIME)
        struct.pack_into(">q", out, 35, append_time_ms)
        struct.pack_into(">I", out, 17, crc32c(bytes(out[21:])))
    return bytes(out)


@record
class Own:
    """A group was made."""

    descriptor: Descriptor


@record
class Entry:
    """An entry was appended; *payload* is what the log must hold."""

    index: int
    term: int
    kind: int
    payload: bytes
    base_offset: int
    next_offset: int
    max_timestamp: int


@record
class Vote:
    """A term and vote were put."""

    term: int
    voted_for: int


@record
class Cut:
    """Entries were truncated."""

    from_index: int


@record
class Drop:
    """A group was dropped, or released to another core."""


@record
class Taken:
    """A group came from another core, as it was there."""

    group: "GroupModel"


@record
class Anew:
    """The log began anew behind *base_index*; *entries* are what it passed over."""

    entries: list[Entry]
    base_index: int
    applied_index: int
    fold: bytes


Op = Own | Entry | Vote | Cut | Drop | Taken | Anew


@record
class Logged:
    """One operation in the order of the WAL."""

    lsn: Lsn
    group: GroupId
    op: Op


class GroupModel:
    """What one group's log must be."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.entries: list[Entry] = []
        self.term = 0
        self.voted_for = -1
        self.base_index = 0  # nothing at or before it was ever here as an entry
        self.base_fold = (0, b"")

    def copy(self, revision: int) -> "GroupModel":
        """Return the same group as another core has it."""
        twin = GroupModel(replace(self.descriptor, revision=revision))
        twin.entries = [*self.entries]
        twin.term, twin.voted_for = self.term, self.voted_for
        twin.base_index, twin.base_fold = self.base_index, self.base_fold
        return twin

    @property
    def last_index(self) -> int:
        return len(self.entries)

    @property
    def next_offset(self) -> int:
        return self.entries[-1].next_offset if self.entries else 0

    def entry(self, index: int) -> Entry:
        return self.entries[index - 1]

    def apply(self, op: Entry | Vote | Cut | Anew) -> None:
        match op:
            case Anew():
                self.entries = [*op.entries]
                self.base_index = op.base_index
                self.base_fold = (op.applied_index, op.fold)
            case Entry():
                assert op.index == self.last_index + 1
                self.entries.append(op)
            case Vote():
                self.term, self.voted_for = op.term, op.voted_for
            case Cut():
                del self.entries[op.from_index - 1 :]

    def start_offset(self, committed_index: int) -> int:
        """Return the log start when everything up to *committed_index* is committed."""
        starts = [
            int.from_bytes(entry.payload, "little")
            for entry in self.entries[:committed_index]
            if entry.kind == RecordKind.TRIM
        ]
        base = self.entries[self.base_index - 1].next_offset if self.base_index else 0
        return max([base, *starts])

    def fold(self, index: int) -> bytes:
        """Return a state that every entry up to *index* has a part in."""
        if index == self.base_fold[0] and index:
            return self.base_fold[1]
        crc = 0
        for entry in self.entries[:index]:
            words = struct.pack("<QQQQ", entry.index, entry.term, entry.kind, entry.next_offset)
            crc = crc32c(words, crc)
        return struct.pack("<QI", index, crc)

    def stream(self, offset: int, index_max: int) -> tuple[bytes, int]:
        """Return the batches from the one that holds *offset*, and the size of the first."""
        found = [
            entry.payload
            for entry in self.entries[:index_max]
            if entry.kind == RecordKind.BATCH and entry.next_offset > offset
        ]
        return b"".join(found), len(found[0]) if found else 0

    def batch_of_timestamp(self, timestamp: int, offset: int, last: int) -> Entry | None:
        """Return the first batch that ends above *offset* and has such a record."""
        for entry in self.entries[:last]:
            if entry.next_offset <= offset or entry.kind != RecordKind.BATCH:
                continue
            if entry.max_timestamp >= timestamp:
                return entry
        return None


def replay(history: list[Logged]) -> dict[GroupId, GroupModel]:
    """Return the groups that *history* adds up to."""
    groups: dict[GroupId, GroupModel] = {}
    for logged in history:
        match logged.op:
            case Own():
                groups[logged.group] = GroupModel(logged.op.descriptor)
            case Taken():
                taken = logged.op.group
                groups[logged.group] = taken.copy(taken.descriptor.revision)
            case Drop():
                del groups[logged.group]
            case _:
                groups[logged.group].apply(logged.op)
    return groups


def descriptor(number: int, partition: int = 0) -> Descriptor:
    """Return the description of a test group; number 0 is the controller's."""
    topic_id = TopicId(number.to_bytes(4, "big") * 4)
    return Descriptor(
        GroupId(number), f"topic{number}" if number else "", topic_id, partition, (MemberId(1),)
    )
