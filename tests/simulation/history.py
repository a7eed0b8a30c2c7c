"""What simulated clients saw, and the rules it must obey.

Rules (after Jepsen's Kafka workload):
H1. What was acknowledged is there at the end, at the offset that was answered.
H2. An offset holds one record for ever: every read of it gives the same.
H3. A batch of an idempotent producer is there once; its records are in the order of sending.
H4. A batch of a plain producer is there at most once for each time it was sent.
H5. Offsets are dense: a reader finds no gap.
H6. Nothing is read that nobody sent.
H7. The high watermark a client sees never goes back.
H8. What lies below a log start that a client was told is never read by who asks afterwards, and
    nobody is told of an earlier start.
H9. Nothing is trimmed but what somebody asked to delete, or what is older than the topic keeps;
    and where a topic keeps a size, at least that much is left.
H10. A setting that was changed and acknowledged has that value until it is changed again; one
    whose change was not answered has the old or the new value.
H11. A topic has all partitions that were acknowledged, and none that nobody asked for.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from corelane.model.record import record

Partition = tuple[str, int]


class HistoryError(AssertionError):
    """A rule was broken."""


@record
class Keeps:
    """What a topic keeps whatever happens; -1: all but what is deleted by request."""

    age_ms: int = -1
    size_bytes: int = -1


class History:
    """Everything all clients sent, were answered, and read."""

    def __init__(self) -> None:
        self.sent: dict[bytes, int] = defaultdict(int)
        self.idempotent: dict[bytes, tuple[str, int]] = {}
        self.acknowledged: dict[tuple[Partition, int], bytes] = {}
        self.read: dict[tuple[Partition, int], bytes] = {}
        self.watermarks: dict[Partition, int] = defaultdict(int)
        self.starts: dict[Partition, int] = defaultdict(int)
        self.asked_to_delete: dict[Partition, int] = defaultdict(int)
        self.keeps: dict[str, Keeps] = {}
        self.times_ms: dict[bytes, int] = {}
        self.batch_bytes: dict[tuple[Partition, int], int] = {}
        self.settings: dict[tuple[object, str], set[str | None]] = defaultdict(lambda: {None})
        """The values a setting of a resource may have now; None: its default."""

    def note_sent(self, value: bytes, producer: str | None, number: int) -> None:
        """Count one sending; *producer* is named for idempotent ones."""
        self.sent[value] += 1
        if producer is not None:
            self.idempotent[value] = (producer, number)

    def note_acknowledged(self, partition: Partition, offset: int, value: bytes) -> None:
        """Take an answer."""
        before = self.acknowledged.setdefault((partition, offset), value)
        if before != value:
            raise HistoryError(
                f"{partition} offset {offset} acknowledged twice: {before!r} {value!r}"
            )

    def note_read(self, partition: Partition, offset: int, value: bytes, start: int) -> None:
        """Take a record that was read (H2, H6) by who was told before of that *start* (H8)."""
        if offset < start:
            raise HistoryError(f"{partition} offset {offset} was read, below the start {start}")
        if value not in self.sent:
            raise HistoryError(f"{partition} offset {offset} holds {value!r}, which nobody sent")
        before = self.read.setdefault((partition, offset), value)
        if before != value:
            raise HistoryError(f"{partition} offset {offset} changed: {before!r} then {value!r}")

    def note_watermark(self, partition: Partition, offset: int) -> None:
        """Take a high watermark (H7)."""
        if offset < self.watermarks[partition]:
            raise HistoryError(f"{partition}: {self.watermarks[partition]} went back to {offset}")
        self.watermarks[partition] = offset

    def note_start(self, partition: Partition, offset: int, told: int, now_ms: int) -> None:
        """Take a log start, from an answer to who was *told* of another when it asked (H8, H9)."""
        if offset < told:
            raise HistoryError(f"{partition}: the start {told} went back to {offset}")
        known = self.starts[partition]
        if offset <= known:
            return
        keeps = self.keeps.get(partition[0], Keeps())
        if keeps.age_ms >= 0:
            for gone in range(known, offset):
                value = self.acknowledged.get((partition, gone))
                if value is not None and self.times_ms[value] + keeps.age_ms >= now_ms:
                    raise HistoryError(f"{partition} offset {gone} is gone and still young")
        elif keeps.size_bytes < 0 and offset > self.asked_to_delete[partition]:
            raise HistoryError(f"{partition} begins at {offset}, which nobody asked for")
        self.starts[partition] = offset

    def note_deleting(self, partition: Partition, offset: int) -> None:
        """Somebody asks to delete everything below *offset*."""
        self.asked_to_delete[partition] = max(self.asked_to_delete[partition], offset)

    def note_batch(self, partition: Partition, offset: int, size_bytes: int) -> None:
        """Take a batch that was read."""
        self.batch_bytes[partition, offset] = size_bytes

    def note_altering(self, resource: object, changes: Mapping[str, str | None]) -> None:
        """Somebody asks for these values."""
        for name, value in changes.items():
            self.settings[resource, name].add(value)

    def note_altered(self, resource: object, changes: Mapping[str, str | None]) -> None:
        """Take the answer that it is done."""
        for name, value in changes.items():
            self.settings[resource, name] = {value}

    def note_described(
        self, resource: object, there: Mapping[str, str], names: Iterable[str]
    ) -> None:
        """Take the values of a resource's settings (H10)."""
        for name in names:
            possible = self.settings[resource, name]
            if there.get(name) not in possible:
                raise HistoryError(f"{resource} has {name} {there.get(name)!r}, not of {possible}")

    def check_count(self, topic: str, count: int, acknowledged: int, asked: int) -> None:
        """Check how many partitions a topic has (H11)."""
        if not acknowledged <= count <= asked:
            raise HistoryError(f"{topic} has {count} partitions, not {acknowledged} to {asked}")

    def check_size(self, partition: Partition, end: int) -> None:
        """Check that a trimmed log has as much as its topic keeps (H9)."""
        start = self.starts[partition]
        size_bytes = self.keeps.get(partition[0], Keeps()).size_bytes
        if start == 0 or size_bytes < 0:
            return
        left = [self.batch_bytes.get((partition, offset), 0) for offset in range(start, end)]
        if sum(left) < size_bytes:
            raise HistoryError(f"{partition}: {sum(left)} bytes are left of {size_bytes}")

    def check_end(self, ends: dict[Partition, int]) -> None:
        """Check everything, after each partition was read from its start to its end."""
        for (partition, offset), value in self.acknowledged.items():
            found = self.read.get((partition, offset))
            if found != value and offset >= self.starts[partition]:
                raise HistoryError(
                    f"{partition} offset {offset}: {value!r} was acknowledged, {found!r} is there"
                )
        seen: dict[bytes, int] = defaultdict(int)
        order: dict[tuple[Partition, str], int] = {}
        for partition, end in ends.items():
            self.check_size(partition, end)
            for offset in range(self.starts[partition], end):
                there = self.read.get((partition, offset))
                if there is None:
                    raise HistoryError(f"{partition} has no record at {offset} below {end}")
                value = there
                seen[value] += 1
                if value in self.idempotent:
                    producer, number = self.idempotent[value]
                    last = order.get((partition, producer), -1)
                    if number <= last:
                        raise HistoryError(f"{partition}: {producer} sent {number} after {last}")
                    order[partition, producer] = number
        for value, count in seen.items():
            most = 1 if value in self.idempotent else self.sent[value]
            if count > most:
                raise HistoryError(f"{value!r} is there {count} times, at most {most} allowed")
