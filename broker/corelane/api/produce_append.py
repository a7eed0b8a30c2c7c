"""One batch of a Produce request: its checks in Kafka's order, its append, and its answer."""

# performance-critical: see STYLE.md

from functools import partial
from typing import TYPE_CHECKING, assert_never

import corelane_native as native
from corelane.api.leaders import hint_for
from corelane.api.produce_errors import TRANSACTION_VERSION_2_FROM, unverified
from corelane.api.produce_response import ProducedPartition
from corelane.model.errors import ErrorCode
from corelane.model.limits import REQUEST_BYTES_MAX
from corelane.producers import open_transactions
from corelane.producers.sequences import ACCEPT, Duplicate, Pending, Refuse
from corelane.shard import parking
from corelane.shard.append import (
    codec_wanted,
    fault_of_batch,
    fault_of_time,
    needs_decompression,
)
from corelane.shard.events import WorkDone
from corelane.shard.parking import Writing
from corelane.shard.partition import Batch, Partition
from corelane.shard.shard import Shard
from corelane.shard.transaction_entries import TRANSACTIONAL
from corelane.storage.wal import WalFullError
from corelane.wire.batch import RecordsFault, check_compressed
from corelane.wire.compression import Compression
from corelane.wire.recompress import Recompressed, recompress
from corelane_native import BATCH_REASONS, ProduceRow

if TYPE_CHECKING:
    from corelane.api.produce import ProduceWait

DECOMPRESSED_BYTES_MAX = REQUEST_BYTES_MAX
_LOST = "this broker stopped leading before the batch was committed: retry with the same sequence"


class RowAppend:
    """A batch from its first check to its answer.

    A batch that must be decompressed waits for that off the loop; batches of the same partition
    that come after it wait behind it, so that a producer's order is kept. One that would open a
    transaction waits until its coordinator has said that it may (parking.py).
    """

    __slots__ = ("checked", "data", "out", "partition", "row", "transactional_id", "wait")

    def __init__(
        self,
        wait: "ProduceWait",
        partition: Partition,
        out: ProducedPartition,
        row: ProduceRow,
        transactional_id: str | None,
    ) -> None:
        self.wait = wait
        self.partition = partition
        self.out = out
        self.row = row
        self.transactional_id = transactional_id
        self.data: bytes | None = None  # a copy of the batch, while it has to wait
        self.checked = (0, 0, 0, 0)  # what `_append` was called with

    def begin(self, frame_address: int) -> None:
        """Check and append now, or queue where the records must be looked at first."""
        row = self.row
        queue = self.partition.append_queue
        settings = self.partition.topic.settings
        is_worked = row[3] == 0 and (
            needs_decompression(settings, row[8]) or codec_wanted(settings, row[8]) is not None
        )
        if not queue and not is_worked:
            self._append(frame_address + row[5], row[6], row[13], row[14])
            return
        self.data = native.bytes_at(frame_address + row[5], row[6])
        self.wait.shard.worked_bytes += row[6]
        queue.append(self)
        if len(queue) == 1:
            self.proceed()

    def proceed(self) -> None:
        """Do what the head of the queue needs next."""
        assert self.data is not None
        row, settings = self.row, self.partition.topic.settings
        codec = None if row[3] else codec_wanted(settings, row[8])
        keys_needed = settings.is_compacted
        if codec is not None:
            self.wait.shard.work(
                partial(recompress, keys_needed=keys_needed),
                (
                    self.data,
                    Compression(codec),
                    settings.compression_level,
                    DECOMPRESSED_BYTES_MAX,
                ),
                self._worked,
            )
        elif row[3] == 0 and needs_decompression(settings, row[8]):
            self.wait.shard.work(
                partial(check_compressed, keys_needed=keys_needed),
                (self.data, DECOMPRESSED_BYTES_MAX),
                self._worked,
            )
        else:
            self._append(native.address_of(self.data), row[6], row[13], row[14])
            self._next()

    def _worked(self, done: WorkDone) -> None:
        """Append what was looked at, perhaps in another codec, or refuse it."""
        assert self.data is not None
        found = done.value
        if isinstance(found, Recompressed):
            self.data = found.batch
            address = native.address_of(self.data)
            self._append(address, len(self.data), found.max_timestamp, keyless=0)
        elif isinstance(found, int):
            self._append(native.address_of(self.data), self.row[6], found, keyless=0)
        elif isinstance(found, RecordsFault):
            self._refuse(ErrorCode.INVALID_RECORD, found.sentence)
        else:
            # No word about the batch, so the client may send it again.
            said = f"the batch could not be decompressed now ({done.failure}): retry in a moment"
            self._refuse(ErrorCode.NOT_ENOUGH_REPLICAS, said)
        self._next()

    def _next(self) -> None:
        queue, shard = self.partition.append_queue, self.wait.shard
        shard.worked_bytes -= self.row[6]
        queue.popleft()
        if queue:
            head = queue[0]
            assert isinstance(head, RowAppend)
            shard.todo.append(head.proceed)

    def _append(self, address: int, size_bytes: int, max_timestamp_ms: int, keyless: int) -> None:
        """Append the checked batch, or refuse it (the order of the checks is Kafka's)."""
        partition, out, row = self.partition, self.out, self.row
        shard = self.wait.shard
        settings = partition.topic.settings
        out.log_start_offset = partition.log.start_offset
        if not partition.serves:
            self._refuse_not_leader()
            return
        if row[3]:
            self._refuse(row[3], BATCH_REASONS[row[4]])
            return
        if partition.latest is not None:
            said = f"only the broker writes {partition.topic.name}"
            self._refuse(ErrorCode.INVALID_TOPIC_EXCEPTION, said)
            return
        fault = fault_of_batch(settings, max(row[6], size_bytes), row[8], keyless)
        if fault is None and settings.bounds_timestamps:
            fault = fault_of_time(settings, max_timestamp_ms, shard.wall_ms)
        if fault is not None:
            self._refuse(*fault)
            return
        if not self._may_commit():
            return
        producer_id = row[9]
        if producer_id >= 0:
            self.checked = (address, size_bytes, max_timestamp_ms, keyless)
            if not self._is_admitted():
                return
        append_time_ms = shard.wall_ms if settings.is_log_append_time else -1
        batch = Batch(
            address,
            size_bytes,
            row[7],
            max_timestamp_ms,
            append_time_ms,
            producer_id,
            row[10],
            row[11],
            is_transactional=bool(row[8] & TRANSACTIONAL),
        )
        try:
            index, out.base_offset = partition.append(batch)
        except (MemoryError, WalFullError):
            self._refuse(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                "the log of this core has no room right now: retry in a moment",
            )
            return
        out.log_append_time_ms = append_time_ms
        shard.counts.batches_appended += 1
        partition.topic.counts.records_in += row[7]
        partition.topic.counts.bytes_in += size_bytes
        if settings.is_write_caching and len(partition.log.descriptor.voters) == 1:
            # Only this answer comes early, from the memory of the quorum, which is this core:
            # the high watermark and what consumers see wait for the disk as ever (DESIGN §6).
            self._settled()
            return
        waits = partition.sync_waits if self.wait.acks == 1 else partition.commit_waits
        waits.append((index, self))

    def _is_admitted(self) -> bool:
        """Say whether the producer may write this now; else it waits, or is answered otherwise."""
        partition, row = self.partition, self.row
        transactions, producer_id, epoch = partition.transactions, row[9], row[10]
        is_transactional = bool(row[8] & TRANSACTIONAL)
        before = parking.behind(partition, producer_id)
        if before is not None:
            self._keep()
            before.add(self)
            return False
        is_judged = is_transactional or not transactions.is_idle
        if is_judged:
            stale = transactions.check_epoch(producer_id, epoch)
            if stale is not None:
                self._not_new(Refuse(stale.error, stale.sentence))
                return False
        verdict = partition.producers.check(producer_id, epoch, row[11], row[7])
        if verdict is not ACCEPT:
            self._not_new(verdict)
            return False
        if not is_judged:
            return True
        judged = transactions.check_batch(producer_id, epoch, is_transactional=is_transactional)
        match judged:
            case open_transactions.Append():
                return True
            case open_transactions.Verify():
                self._keep()
                transactional_id = self.transactional_id
                assert transactional_id is not None, "looked at with the request"
                is_added = self._version >= TRANSACTION_VERSION_2_FROM
                writing = Writing(transactional_id, producer_id, epoch, is_added)
                parking.park(self.wait.shard, partition, writing, self)
            case open_transactions.Refuse():
                self._not_new(Refuse(judged.error, judged.sentence))
            case _:
                assert_never(judged)
        return False

    @property
    def _version(self) -> int:
        return self.wait.call.request.api_version

    def _keep(self) -> None:
        """Have a copy of the batch, which lies in the frame of its request until then."""
        if self.data is None:
            self.data = native.bytes_at(self.checked[0], self.checked[1])

    # --- while a transaction's coordinator is asked (parking.Writer) ---

    @property
    def size_bytes(self) -> int:
        """Return what the copy holds."""
        return self.checked[1]

    def go_on(self) -> None:
        """Be judged again, with what is known by now."""
        assert self.data is not None, "a copy waits"
        _address, _size_bytes, max_timestamp_ms, keyless = self.checked
        self._append(native.address_of(self.data), len(self.data), max_timestamp_ms, keyless)

    def refused(self, error: ErrorCode) -> None:
        """Answer as clients of that version know it."""
        self.wait.shard.counts.batches_refused += 1
        self._refuse(*unverified(error, self._version))

    # --- before and after the append ---

    def _may_commit(self) -> bool:
        """Refuse what could not be made durable as asked."""
        partition, shard = self.partition, self.wait.shard
        if shard.store.is_full:
            self._refuse(
                ErrorCode.KAFKA_STORAGE_ERROR,
                "the disk of this broker is full: free space, then retry; reads go on",
            )
            return False
        wanted = partition.topic.settings.min_insync_replicas
        in_sync = len(partition.raft.configuration.voters)
        if wanted > in_sync // 2 + 1:  # up to the quorum every commit has so many
            voters = partition.raft.configuration.voters
            in_sync = len({*voters} & {*partition.raft.in_sync(shard.now_ms)})
        if self.wait.acks == -1 and wanted > in_sync:
            self._refuse(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"min.insync.replicas is {wanted}, but the partition has {in_sync} in sync",
            )
            return False
        return True

    def _not_new(self, verdict: Duplicate | Pending | Refuse | object) -> None:
        """Answer a batch that was seen before, or that does not follow the last one."""
        out = self.out
        settings = self.partition.topic.settings
        if isinstance(verdict, Duplicate):
            transactions = self.partition.transactions
            undone = transactions.check_duplicate(self.row[9], verdict.base_offset)
            if undone is not None:
                verdict = Refuse(undone.error, undone.sentence)
        if isinstance(verdict, Refuse):
            self.wait.shard.counts.batches_refused += 1
            self._refuse(verdict.error, verdict.sentence)
            return
        assert isinstance(verdict, Duplicate | Pending)
        self.wait.shard.counts.batches_duplicate += 1
        out.base_offset = verdict.base_offset
        if settings.is_log_append_time:
            out.log_append_time_ms = verdict.max_timestamp_ms
        if isinstance(verdict, Pending):
            self.partition.wait_for_twin(verdict.index, self)
        else:
            self._settled()

    def settled(self, *, is_lost: bool) -> None:
        """Take the entry's fate (called by the partition)."""
        if is_lost:
            if self.out.is_open:
                self._refuse_not_leader()
            return
        self._settled()

    def _settled(self) -> None:
        self.out.is_open = False
        self.wait.settle()

    def _refuse_not_leader(self) -> None:
        refuse_not_leader(self.wait.shard, self.partition, self.out)
        self.wait.settle()

    def _refuse(self, error: int, sentence: str) -> None:
        self.out.refuse(error, sentence)
        self.wait.settle()


def refuse_not_leader(shard: Shard, partition: Partition, out: ProducedPartition) -> None:
    """Refuse a batch of a partition that this core does not lead, or no more."""
    if partition.is_dropped:
        out.refuse(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "the topic was deleted")
    elif partition.is_damaged:
        out.refuse(ErrorCode.KAFKA_STORAGE_ERROR, "the partition's log is damaged: offline")
    else:
        out.leader = hint_for(shard, partition)
        out.refuse(ErrorCode.NOT_LEADER_OR_FOLLOWER, _LOST)
