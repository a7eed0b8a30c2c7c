"""Plain Produce requests of one turn, handled together, whosever they are.

One call into the C core decodes all of them and judges their batches, one more copies those into
the log; between the two each batch costs a few look-ups. Plain is a batch that needs nothing but
to be appended: what does not (an error, a duplicate, a topic whose records must be looked at, acks
0, a transaction) takes the ordinary way, `produce.handle` or `RowAppend`, in its turn.
`make bench-micro` has the difference: 151,000 instructions for each request of 64, before.
"""

# performance-critical: see STYLE.md

from array import array
from collections.abc import Sequence
from typing import Final

import corelane_native as native
from corelane.api.produce import ProduceWait, refuse_absent
from corelane.api.produce_alike import AlikeWait
from corelane.api.produce_append import RowAppend, refuse_not_leader
from corelane.api.produce_response import ProducedPartition, ProducedTopic, good_of_one
from corelane.model.ids import ConnId, Index
from corelane.producers.sequences import ACCEPT
from corelane.shard.call import Call
from corelane.shard.connection import Connection
from corelane.shard.events import Event, Request
from corelane.shard.partition import Partition, Topic
from corelane.shard.shard import Shard
from corelane.storage.wal import WalFullError
from corelane_native import PLAIN_MAX, PlainRow, PlainRun

_VERSION_MIN, _VERSION_MAX = 3, 12

Stretch = tuple[int, Connection]
"""Requests that follow one another on one connection: the number behind the last."""

_PLAIN: Final = native.PlainRequests()
"""What is decoded is used up before the step is over, so that one of these is enough."""


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
    """The batches of a turn, one after another; knows what it looked up for the one before."""

    __slots__ = (
        "append_time_ms",
        "batch_count",
        "is_plain_topic",
        "known",
        "message_bytes_max",
        "name",
        "newest_ms",
        "oldest_ms",
        "requests",
        "shard",
        "stretch",
        "stretches",
        "topic",
        "version",
        "waits",
    )

    def __init__(self, shard: Shard, requests: list[Request], stretches: list[Stretch]) -> None:
        self.shard = shard
        self.requests = requests
        self.stretches = stretches
        self.stretch = 0  # the one that the last request looked at is in
        self.version = requests[0].api_version
        self.waits: list[ProduceWait] = []
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

    def run(self, run: PlainRun) -> None:
        """Append the batches of requests that follow one another, together where they are alike."""
        first, count, first_row, row_count, is_alike = run[:5]
        taken = 1
        while is_alike and count and taken:
            taken = self._alike(run, first, first_row, count)
            first, first_row, count = first + taken, first_row + taken, count - taken
            row_count -= taken
        if count:
            self._one_by_one(first, first_row, count, row_count)

    def _alike(self, run: PlainRun, first: int, first_row: int, count: int) -> int:
        """Append what is alike, as much as goes at once; 0: it must be looked at one by one."""
        head, row = _PLAIN.head(first), _PLAIN.row(first_row)
        name = native.bytes_at(head[0] + row[0], row[1])
        if name != self.name:
            self.look_up(name)
        topic = self.topic
        partition = None if topic is None else topic.partition(row[2])
        if topic is None or partition is None or not self.is_plain_topic:
            return 0
        if not (
            (partition in self.known or self._is_plain(partition))
            and run[5] <= self.message_bytes_max
            and self.oldest_ms <= run[8]
            and run[9] <= self.newest_ms
        ):
            return 0
        if (
            row[9] >= 0
            and partition.producers.check(row[9], row[10], row[11], row[7]) is not ACCEPT
        ):
            return 0
        log = partition.log
        index, base_offset, bytes_before = log.last_index, log.next_offset, log.uncommitted_bytes
        place = (first, first_row, count)
        try:
            taken = partition.append_plain(_PLAIN, place, row, self.append_time_ms)
        except (MemoryError, WalFullError):
            return 0
        topic.counts.records_in += log.next_offset - base_offset
        topic.counts.bytes_in += log.uncommitted_bytes - bytes_before
        self.batch_count += taken
        wait = AlikeWait(self.shard, partition, Index(index + 1), head[1], self.version)
        self._await(wait, first, first_row, taken, base_offset)
        self.shard.deadlines.add(self.shard.now_ms + max(0, head[2]), wait)
        waits = partition.sync_waits if head[1] == 1 else partition.commit_waits
        waits.append((log.last_index, wait))
        return taken

    def _await(
        self, wait: AlikeWait, first: int, first_row: int, count: int, base_offset: int
    ) -> None:
        """Open slots for alike requests, one for those of each connection, with their answers."""
        answer, offset_at = good_of_one(
            self.version, wait.name, wait.partition.number, self.append_time_ms,
            wait.log_start_offset,
        )  # fmt: skip
        shard, offset = self.shard, base_offset
        row_less = first_row - first
        end = first + count
        while first < end:
            stretch_end, connection = self._stretch(first)
            upto = min(stretch_end, end)
            correlation_id = self.requests[first].correlation_id
            slot = connection.open_slot(0, self.version, correlation_id, upto - first)
            slot.began_us = shard.counts.now_us
            block, offset = _PLAIN.answers(
                answer, offset_at, first, first + row_less, upto - first, offset
            )
            wait.answers.append((slot, block))
            connection.pause_if_full(shard.effects)
            first = upto
        assert offset == wait.partition.log.next_offset

    def _stretch(self, number: int) -> Stretch:
        """Return the stretch that a request is in; requests are asked for in order."""
        stretches = self.stretches
        while stretches[self.stretch][0] <= number:
            self.stretch += 1
        return stretches[self.stretch]

    def _one_by_one(self, first: int, first_row: int, count: int, row_count: int) -> None:
        """Append the batches of requests that are not alike, or where something is in the way."""
        shard, rows = self.shard, _PLAIN.rows(first_row, row_count)
        at = 0
        for number, head in enumerate(_PLAIN.heads(first, count), first):
            address, acks, timeout_ms, rows_of_it, _correlation_id = head
            request, (_end, connection) = self.requests[number], self._stretch(number)
            slot = connection.open_slot(0, self.version, request.correlation_id)
            slot.began_us = shard.counts.now_us
            wait = ProduceWait(shard, Call(request, slot), acks)
            self._request(wait, address, rows[at : at + rows_of_it])
            at += rows_of_it
            if wait.rows_open > 1:
                shard.deadlines.add(shard.now_ms + max(0, timeout_ms), wait)
            self.waits.append(wait)
            connection.pause_if_full(shard.effects)

    def _request(self, wait: ProduceWait, address: int, rows: Sequence[PlainRow]) -> None:
        """Append the batches of one request, whose frame is at *address*."""
        topic_at = -1
        produced: list[ProducedPartition] = []
        for row in rows:
            if row[0] != topic_at:
                topic_at = row[0]
                name = self.name if row[15] else native.bytes_at(address + row[0], row[1])
                if name != self.name:
                    self.look_up(name)
                produced = []
                wait.topics.append(ProducedTopic(name, produced))
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
    requests, stretches = _collected(shard, events, at)
    size_bytes = sum([request.size_bytes for request in requests])
    if not requests or shard.store.is_full or shard.must_defer(size_bytes):
        return 0
    places = array("Q")
    for request in requests:
        places.append(request.address)
        places.append(request.size_bytes)
    runs = _PLAIN.decode(places.tobytes(), len(requests), requests[0].api_version)
    taken = runs[-1][0] + runs[-1][1] if runs else 0
    shard.run_max = min(2 * shard.run_max, PLAIN_MAX) if taken == len(requests) else 1
    if runs:
        appends = _Appends(shard, requests, stretches)
        for run in runs:
            appends.run(run)
        shard.store.wal.end_gather()
        shard.counts.batches_appended += appends.batch_count
        for wait in appends.waits:
            wait.settle()
    return taken


def _collected(
    shard: Shard, events: Sequence[Event], at: int
) -> tuple[list[Request], list[Stretch]]:
    """Return the Produce requests from events[at] on that are for this core, of one version."""
    requests: list[Request] = []
    stretches: list[Stretch] = []
    conn: ConnId | None = None
    connection: Connection | None = None
    version: int | None = None  # not a number: a hostile client may send any
    for event in events[at : at + shard.run_max]:
        if not isinstance(event, Request) or event.api_key != 0:
            break
        if event.conn != conn:
            if connection is not None:
                stretches.append((len(requests), connection))
            conn = event.conn
            connection = shard.connections.get(conn)
            if connection is None or connection.is_closed:
                connection = None
                break
            if not shard.forwarding.is_direct(connection):
                connection = None
                break
        if event.api_version != version:
            if version is not None or not _VERSION_MIN <= event.api_version <= _VERSION_MAX:
                break
            version = event.api_version
        requests.append(event)
    if connection is not None:
        stretches.append((len(requests), connection))
    return requests, stretches
