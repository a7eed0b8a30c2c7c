"""What simulated clients saw, and the rules it must obey.

Rules (after Jepsen's Kafka workload):
H1. What was acknowledged is there at the end, at the offset that was answered.
H2. An offset holds one record for ever: every read of it gives the same.
H3. A batch of an idempotent producer is there once; its records are in the order of sending.
H4. A batch of a plain producer is there at most once for each time it was sent.
H5. Offsets are dense: a reader finds no gap.
H6. Nothing is read that nobody sent.
H7. The high watermark a client sees never goes back.
"""

from collections import defaultdict

Partition = tuple[str, int]


class HistoryError(AssertionError):
    """A rule was broken."""


class History:
    """Everything all clients sent, were answered, and read."""

    def __init__(self) -> None:
        self.sent: dict[bytes, int] = defaultdict(int)
        self.idempotent: dict[bytes, tuple[str, int]] = {}
        self.acknowledged: dict[tuple[Partition, int], bytes] = {}
        self.read: dict[tuple[Partition, int], bytes] = {}
        self.watermarks: dict[Partition, int] = defaultdict(int)

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

    def note_read(self, partition: Partition, offset: int, value: bytes) -> None:
        """Take a record that was read (H2, H6)."""
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

    def check_end(self, ends: dict[Partition, int]) -> None:
        """Check everything, after each partition was read from 0 to its end."""
        for (partition, offset), value in self.acknowledged.items():
            found = self.read.get((partition, offset))
            if found != value:
                raise HistoryError(
                    f"{partition} offset {offset}: {value!r} was acknowledged, {found!r} is there"
                )
        seen: dict[bytes, int] = defaultdict(int)
        order: dict[tuple[Partition, str], int] = {}
        for partition, end in ends.items():
            for offset in range(end):
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
