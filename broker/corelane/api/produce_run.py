"""Plain Produce requests of one turn, handled together, whosever they are.

One call into the C core decodes all of them and judges their batches, one more copies those into
the log; between the two each batch costs a few look-ups. Plain is a batch that needs nothing but
to be appended: what does not (an error, a duplicate, a topic whose records must be looked at, acks
0, a transaction) takes the ordinary way, `produce.handle` or `RowAppend`, in its turn.
`make bench-micro` has the difference: 151,000 instructions for each request of 64, before.
"""

# performance-critical: see STYLE.md

from collections.abc import Sequence

import corelane_native as native
from corelane.api.produce import ProduceWait, refuse_absent
from corelane.api.produce_append import RowAppend, refuse_not_leader
from corelane.api.produce_response import ProducedPartition, ProducedTopic
from corelane.producers.sequences import ACCEPT
from corelane.shard.call import Call
from corelane.shard.connection import Connection
from corelane.shard.events import Event, Request
from corelane.shard.partition import Partition, Topic
from corelane.shard.shard import Shard
from corelane.storage.wal import WalFullError
from corelane_native import FRAME_PLACE, PLAIN_MAX, PlainHead, PlainRow

_VERSION_MIN, _VERSION_MAX = 3, 12

Run = list[tuple[Request, Connection]]


class AppendedRow(ProducedPartition):
    """A batch that is in the log and not yet durable; its row of the answer."""

    __slots__ = ("appended_to", "wait")

    def __init__(self, wait: ProduceWait, partition: Partition) -> None:
        self.partition = partition.number  # and all the rest, without a call: it is each batch's
        self.error = 0
        self.base_offset = -1
        self.log_append_time_ms = -1
        self.log_start_offset = partition.log.start_offset
        self.sentence = ""
        self.leader = None
        self.is_open = True
        self.wait = wait
        self.appended_to = partition

    def settled(self, *, is_lost: bool) -> None:
        """Take the entry's fate (called by the partition)."""
        if is_lost:
            if not self.is_open:
                return  # its time ran out before
            refuse_not_leader(self.wait.shard, self.appended_to, self)
        self.is_open = False
        self.wait.settle()


class _Appends:
    """The batches of a run, one after another; knows what it looked up for the one before."""

    __slots__ = (
        "append_time_ms",
        "batch_count",
        "is_plain_topic",
        "known",
        "message_bytes_max",
        "name",
        "newest_ms",
        "oldest_ms",
        "shard",
        "topic",
    )

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.name = b""
        self.topic: Topic | None = None
        self.is_plain_topic = False
        self.oldest_ms = self.newest_ms = 0  # of the timestamps that the topic takes
        self.message_bytes_max = 0
        self.append_time_ms = -1
        self.batch_count = 0
        self.known: set[Partition] = set()  # those to which batches may simply be appended

    def look_up(self, name: bytes) -> None:
        """Go on with batches of the topic of that name."""
        self.name = name
        self.topic = topic = self.shard.groups.topics.get(name)
        self.is_plain_topic = topic is not None and topic.settings.is_plain
        if topic is not None:
            settings, wall_ms = topic.settings, self.shard.wall_ms
            self.oldest_ms, self.newest_ms = settings.timestamps_ms(wall_ms)
            self.message_bytes_max = settings.message_bytes_max
            self.append_time_ms = wall_ms if settings.is_log_append_time else -1

    def request(self, wait: ProduceWait, address: int, rows: Sequence[PlainRow]) -> None:
        """Append the batches of one request, whose frame is at *address*."""
        topic_at = -1
        produced: list[ProducedPartition] = []
        for row in rows:
            if not row[15]:
                self.look_up(native.bytes_at(address + row[0], row[1]))
            if row[0] != topic_at:
                topic_at = row[0]
                produced = []
                wait.topics.append(ProducedTopic(self.name, produced))
            produced.append(self._append(wait, address, row))

    def _append(self, wait: ProduceWait, address: int, row: PlainRow) -> ProducedPartition:
        topic = self.topic
        partition = None if topic is None else topic.partition(row[2])
        if topic is None or partition is None:
            absent = ProducedPartition(row[2])
            refuse_absent(self.shard, topic, absent)
            return absent
        if not (self.is_plain_topic and (partition in self.known or self._is_plain(partition))):
            return self._ordinary(wait, partition, address, row)
        producer_id = row[9]
        if (
            row[6] > self.message_bytes_max
            or not self.oldest_ms <= row[13] <= self.newest_ms
            or (
                producer_id >= 0
                and partition.producers.check(producer_id, row[10], row[11], row[7]) is not ACCEPT
            )
        ):
            return self._ordinary(wait, partition, address, row)
        append_time_ms = self.append_time_ms
        out = AppendedRow(wait, partition)
        try:
            index, out.base_offset = partition.gather(row, address + row[5], append_time_ms)
        except (MemoryError, WalFullError):
            return self._ordinary(wait, partition, address, row)  # which says so
        out.log_append_time_ms = append_time_ms
        counts = topic.counts
        counts.records_in += row[7]
        counts.bytes_in += row[6]
        self.batch_count += 1
        wait.rows_open += 1
        waits = partition.sync_waits if wait.acks == 1 else partition.commit_waits
        waits.append((index, out))
        return out

    def _is_plain(self, partition: Partition) -> bool:
        """Whether nothing but the batch itself can stand in its way."""
        wanted = partition.topic.settings.min_insync_replicas
        is_plain = (
            partition.serves
            and not partition.append_queue
            and partition.latest is None
            and partition.transactions.is_idle
            and not partition.parked
            and wanted <= len(partition.raft.configuration.voters) // 2 + 1
        )
        if is_plain:
            self.known.add(partition)
        return is_plain

    def _ordinary(
        self, wait: ProduceWait, partition: Partition, address: int, row: PlainRow
    ) -> ProducedPartition:
        """Let a batch go through all checks; later ones may have to wait for it."""
        self.shard.store.wal.end_gather()
        self.known.clear()
        out = ProducedPartition(row[2])
        wait.rows_open += 1
        RowAppend(wait, partition, out, row[:15], None).begin(address)
        return out


def handle_run(shard: Shard, events: Sequence[Event], at: int) -> int:
    """Handle Produce requests from events[at] on; return how many, 0 if the first is not plain.

    After a request that is not, the next run has one request only, and may have twice as many each
    time that all of them were: so the work is in proportion to the requests, whatever they are.
    """
    run, places = _collected(shard, events, at)
    if not run or shard.store.is_full or shard.must_defer(sum([r.size_bytes for r, _ in run])):
        return 0
    heads, rows = native.decode_plain(places, len(run), run[0][0].api_version)
    shard.run_max = min(2 * shard.run_max, PLAIN_MAX) if len(heads) == len(run) else 1
    if heads:
        _append_all(shard, run, heads, rows)
    return len(heads)


def _collected(shard: Shard, events: Sequence[Event], at: int) -> tuple[Run, bytes]:
    """Return the Produce requests from events[at] on that are for this core, and their places."""
    run: Run = []
    places: list[bytes] = []
    connections, forwarding = shard.connections, shard.forwarding
    version: int | None = None  # not a number: a hostile client may send any
    for number in range(at, min(at + shard.run_max, len(events))):
        event = events[number]
        if not isinstance(event, Request) or event.api_key != 0:
            break
        connection = connections.get(event.conn)
        if connection is None or connection.is_closed or not forwarding.is_direct(connection):
            break
        if event.api_version != version:
            if version is not None or not _VERSION_MIN <= event.api_version <= _VERSION_MAX:
                break
            version = event.api_version
        run.append((event, connection))
        places.append(FRAME_PLACE.pack(event.address, event.size_bytes))
    return run, b"".join(places)


def _append_all(shard: Shard, run: Run, heads: list[PlainHead], rows: list[PlainRow]) -> None:
    appends = _Appends(shard)
    waits: list[ProduceWait] = []
    now_us, now_ms = shard.counts.now_us, shard.now_ms
    first = 0
    for (request, connection), (acks, timeout_ms, row_count) in zip(run, heads, strict=False):
        slot = connection.open_slot(0, request.api_version, request.correlation_id)
        slot.began_us = now_us
        wait = ProduceWait(shard, Call(request, slot), acks)
        appends.request(wait, request.address, rows[first : first + row_count])
        first += row_count
        if wait.rows_open > 1:
            shard.deadlines.add(now_ms + max(0, timeout_ms), wait)
        waits.append(wait)
        connection.pause_if_full(shard.effects)
    shard.store.wal.end_gather()
    shard.counts.batches_appended += appends.batch_count
    for wait in waits:
        wait.settle()
