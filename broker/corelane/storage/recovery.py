"""From what is on disk to a running store: the newest checkpoint, then the WAL after it.

Invariants (FORMAT.md, R): R1-R3 of wal_scan.py, and
R4. Recovery changes nothing that a repeated recovery needs: it may crash at any step.
R5. What recovery builds on is synced first: a killed process leaves bytes that can be read and
    yet be lost, with the power, later.
R6. The first write after recovery goes to a fresh, zero-filled file of a higher generation, so
    that no record that was cut can come back.
R7. A core's first lsn is drawn by lot: a client that puts bytes like records into its batches
    cannot know the next one, and no such record is more than LSNS_AHEAD_MAX ahead (R3).
"""

from dataclasses import replace
from typing import Final

from corelane.model.ids import CONTROLLER_GROUP, GroupId, Index, Lsn, MemberId, RecordKind, Term
from corelane.model.record import record
from corelane.storage import checkpoint
from corelane.storage.checkpoint import Checkpoint, GroupImage
from corelane.storage.chunks import Chunk, Chunks
from corelane.storage.disk import Disk
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import (
    NO_TIMESTAMP,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    ROW_BYTES,
    LayoutError,
    Tail,
    WalRecord,
    blocks_up,
    decode_descriptor,
    decode_revision,
    decode_tail,
    is_entry,
)
from corelane.storage.parcel import Parcel
from corelane.storage.store import CoreStore, StoreSettings, empty_state
from corelane.storage.tail import Entry
from corelane.storage.wal import Wal, WalFile
from corelane.storage.wal_scan import (
    CorruptWalError,
    FileHead,
    damaged_record,
    durable_claims,
    file_heads,
    read_file,
    record_at,
)
from corelane_native import Arena

WAL_DIRECTORY: Final = "wal"
PARTITIONS_DIRECTORY: Final = "partitions"
WHAT_NEXT: Final = (
    "This core can no longer prove what it acknowledged, nor whom it voted for. Restore the file; "
    "or cut the log there with `corelane dump-log --repair` (--dry-run shows what would be lost, a "
    "copy is kept): replicas that have peers then lead and vote for nothing until they have all "
    "again from them, what has no other replica is lost. Or have the node of a cluster begin anew: "
    "`corelane cluster replace-disk`."
)
_MAX_TIMESTAMP_AT: Final = 35
_MAKERS: Final = frozenset((RecordKind.OWN, RecordKind.IMPORT))
_ENDERS: Final = frozenset((RecordKind.DROP, RecordKind.MOVED))


@record
class RecoverySettings:
    """Sizes recovery and the store after it work with."""

    store: StoreSettings
    arena_bytes: int
    wal_file_first_bytes: int


@record
class Recovered:
    """A store ready to run, and what a person should know of its recovery."""

    store: CoreStore
    folds: dict[GroupId, tuple[Index, bytes]]
    """Per group, its folded state in the checkpoint and the index it is of."""
    damaged: dict[GroupId, str]
    records_replayed: int
    cut: str
    """What was cut from the end of the log; empty after a clean stop."""


class GroupBuilder:
    """One group while the WAL is replayed."""

    def __init__(self, image: GroupImage) -> None:
        self.image = image
        self.term = image.state.term
        self.voted_for = image.state.voted_for
        self.tail = Tail(b"", b"", b"")
        self.entries: list[Entry] = []
        self.damage = image.damage
        self.gap = ""

    @property
    def last_index(self) -> int:
        """The index of the last entry known."""
        return self.image.state.flushed_index + len(self.entries)

    def add(self, index: Index, entry: Entry) -> None:
        """Take an entry; those that the segments hold already are passed over.

        One that was put again (G4) is the same: the first record counts, for a crash may have come
        when only a part was put again, and a log's records stand in the order of its entries. Where
        the first time was before the checkpoint, it ends the gap that those behind it have left.
        """
        flushed = self.image.state.flushed_index
        if index <= flushed or self.damage:
            return
        if index <= self.last_index and self.entries[index - flushed - 1].term == entry.term:
            return
        if index == self.last_index + 1:
            self.gap = ""
        if self.gap:
            return
        if index != self.last_index + 1:
            self.gap = f"entry {self.last_index + 1} is missing, {index} follows"
            return
        self.entries.append(entry)

    def truncate(self, from_index: Index) -> None:
        """Cut entries as the TRUNCATE record says.

        What is flushed is committed, so a record that begins below is older than the checkpoint.
        Entries whose predecessors were cut before the checkpoint come back without them: they are
        cut here too, and that gap is none.
        """
        if from_index <= self.last_index + 1:
            self.gap = ""
        del self.entries[max(0, from_index - self.image.state.flushed_index - 1) :]

    def begin_anew(self) -> None:
        """Forget what the log held before it began anew: the row is newer than that."""
        self.entries.clear()
        self.gap = ""
        self.damage = self.image.damage

    def vote(self, term: Term, voted_for: MemberId) -> None:
        """Take a vote; terms never go back (the row may be newer than the record)."""
        if term > self.term or (term == self.term and self.voted_for < 0):
            self.term, self.voted_for = term, voted_for


class Replay:
    """The state of one recovery."""

    def __init__(self, disk: Disk, chunks: Chunks, start: Checkpoint) -> None:
        self.disk = disk
        self.chunks = chunks
        self.builders = {image.descriptor.group: GroupBuilder(image) for image in start.groups}
        self.next_lsn = start.replay_lsn
        self.durable_lsn = start.durable_lsn
        self.count = 0
        self.cut = ""
        self.end = 0  # where the last live file's records end
        self.live: list[FileHead] = []
        self._data = b""  # of the file that is, or was last, replayed
        self._chunk: Chunk | None = None
        self._position = 0

    def run(self, heads: list[FileHead]) -> None:
        """Replay the chain of files that begins with the one that holds the replay lsn."""
        started = [h for h in heads if h.first_lsn and h.first_lsn <= self.next_lsn]
        if not started:
            later = [h for h in heads if h.first_lsn > self.next_lsn]
            if later:
                raise CorruptWalError(_missing(self.next_lsn, min(h.first_lsn for h in later)))
            self._check_end(heads, None, 0)
            return
        head = max(started, key=lambda h: (h.first_lsn, h.generation))
        while True:
            self.live.append(head)
            position = self.end = self._file(head)
            following = [
                h for h in heads if h.first_lsn == self.next_lsn and h.generation > head.generation
            ]
            if following:
                head = min(following, key=lambda h: h.generation)
                continue
            self._check_end(heads, head, position)
            return

    def _file(self, head: FileHead) -> int:
        """Replay one file as far as it counts; return where it stopped."""
        self._data = b""  # one file's bytes at a time
        data = self._data = read_file(self.disk, head)
        lsn, at = Lsn(head.first_lsn), 0
        while True:
            found = record_at(data, at, head.generation, lsn)
            if found is None:
                claims = durable_claims(data, at, head.generation, lsn)
                damaged = damaged_record(data, at, head.generation, lsn)
                if claims < lsn or damaged is None or not self._is_plausible(damaged):
                    # A stale file ends below what the checkpoint covers: lsns never go back.
                    self.next_lsn = max(self.next_lsn, lsn)
                    return at
                self._damaged(damaged, head.path)
                at = damaged.end
            else:
                if lsn >= self.next_lsn:
                    self._apply(found, data)
                at = found.end
            lsn = Lsn(lsn + 1)

    def _is_plausible(self, found: WalRecord) -> bool:
        """Whether a damaged record's header fits its group, so that only the group is damaged."""
        if found.lsn < self.next_lsn:
            return True  # the checkpoint has what it said
        builder = self.builders.get(found.group)
        if builder is None or found.kind in _MAKERS:
            return False
        if found.lsn < builder.image.renewed_lsn:
            return True  # of what the row's log is not any more (D1)
        is_next = found.index <= builder.last_index + 1
        return not is_entry(found.kind) or is_next or bool(builder.damage)

    def _damaged(self, found: WalRecord, path: str) -> None:
        if found.lsn < self.next_lsn:
            return
        builder = self.builders[found.group]
        is_needed = not is_entry(found.kind) or found.index > builder.last_index
        if found.kind == RecordKind.TAIL:
            is_needed = found.lsn == builder.image.tail_lsn
        elif found.kind == RecordKind.INSTALL:
            is_needed = found.index > builder.image.state.flushed_index
        elif found.kind == RecordKind.RENEW:
            is_needed = found.lsn > builder.image.renewed_lsn or found.lsn == builder.image.tail_lsn
        elif found.kind in _ENDERS or found.lsn < builder.image.renewed_lsn:
            is_needed = False  # who ended the group does so again when it is found here
        if is_needed and not builder.damage:
            builder.damage = f"record {found.lsn} at {path}:{found.payload_at} is damaged"

    def _check_end(self, heads: list[FileHead], head: FileHead | None, position: int) -> None:
        """Tell a torn tail from corruption (R3).

        Of files whose first record is valid only those of this generation and later can hold more.
        """
        generation = head.generation if head is not None else 0
        claim: int = self.durable_lsn
        for other in heads:
            if other.generation >= generation or not other.first_lsn:
                data = self._data if other is head else read_file(self.disk, other)
                begin = position if other is head else 0
                claim = max(claim, durable_claims(data, begin, generation, self.next_lsn))
        if claim >= self.next_lsn:
            where = f"{head.path} is damaged at byte {position}" if head else "no file begins well"
            raise CorruptWalError(
                f"The write-ahead log is damaged ({where}): record {self.next_lsn} is unreadable "
                f"or its file is missing, but records up to {claim} were on disk. Nothing was cut. "
                f"{WHAT_NEXT}"
            )
        if head is None:
            return
        for start in (position, blocks_up(position)):
            words = self.disk.read(head.path, start, RECORD_HEADER_BYTES)
            if len(words) == RECORD_HEADER_BYTES:
                _crc, _length, generation, _term, lsn, *_ = RECORD_HEADER.unpack(words)
                if (generation, lsn) == (head.generation, self.next_lsn):
                    self.cut = f"an unfinished write at {head.path}:{start}"

    def _apply(self, found: WalRecord, data: bytes) -> None:
        self.count += 1
        payload = memoryview(data)[found.payload_at : found.payload_at + found.payload_bytes]
        kind = found.kind
        if kind in _MAKERS:
            self._own(found, bytes(payload))
            return
        builder = self.builders.get(found.group)
        if builder is None:
            return  # of a group that was dropped later, before the checkpoint
        if is_entry(kind):
            builder.add(found.index, self._entry(found, payload, builder))
        elif kind == RecordKind.VOTE:
            voted_for = MemberId(int.from_bytes(payload, "little", signed=True))
            builder.vote(found.term, voted_for)
        elif kind == RecordKind.TRUNCATE:
            builder.truncate(found.index)
        elif kind == RecordKind.TAIL:
            if found.lsn == builder.image.tail_lsn:
                builder.tail = decode_tail(bytes(payload))
        elif kind == RecordKind.INSTALL:
            self._install(found, bytes(payload))
        elif kind == RecordKind.RENEW:
            self._renew(found, bytes(payload))
        elif kind in _ENDERS:
            if builder.image.descriptor.revision <= decode_revision(bytes(payload)):  # M4
                del self.builders[found.group]
        else:
            raise CorruptWalError(
                f"record {found.lsn} has the unknown kind {kind}: a newer version's?"
            )

    def _own(self, found: WalRecord, payload: bytes) -> None:
        """Make a group, unless its row is of this time here, or a later one, and newer."""
        tail = Tail(b"", b"", b"")
        if found.kind == RecordKind.IMPORT:
            parcel = Parcel.decode(payload)
            image, tail = replace(parcel.image, tail_lsn=found.lsn), parcel.tail
        else:
            descriptor = decode_descriptor(payload)
            image = GroupImage(descriptor, empty_state(), found.lsn, Index(0), b"", [], "")
        builder = self.builders.get(found.group)
        if builder is None or builder.image.descriptor.revision < image.descriptor.revision:
            builder = self.builders[found.group] = GroupBuilder(image)
        if builder.image.tail_lsn == found.lsn:
            builder.tail = tail

    def _install(self, found: WalRecord, payload: bytes) -> None:
        """Begin a group anew, or, where its row is newer, void what came before (N1)."""
        image = Parcel.decode(payload).image
        builder = self.builders[found.group]
        is_older = found.lsn <= builder.image.renewed_lsn
        if image.state.flushed_index > builder.image.state.flushed_index and not is_older:
            self.builders[found.group] = GroupBuilder(replace(image, tail_lsn=found.lsn))
        else:
            builder.begin_anew()

    def _renew(self, found: WalRecord, payload: bytes) -> None:
        """Have a group go back, unless its row was made after that (D3)."""
        parcel = Parcel.decode(payload)
        builder = self.builders[found.group]
        if found.lsn > builder.image.renewed_lsn:
            image = replace(parcel.image, tail_lsn=found.lsn, renewed_lsn=found.lsn)
            builder = self.builders[found.group] = GroupBuilder(image)
        else:
            builder.begin_anew()
        if builder.image.tail_lsn == found.lsn:
            builder.tail = parcel.tail

    def _entry(self, found: WalRecord, payload: memoryview, builder: GroupBuilder) -> Entry:
        """Copy a payload into the arena, unless the segments have the entry already."""
        max_timestamp = NO_TIMESTAMP
        if found.kind == RecordKind.BATCH:
            raw = payload[_MAX_TIMESTAMP_AT : _MAX_TIMESTAMP_AT + 8]
            max_timestamp = int.from_bytes(raw, "big", signed=True)
        chunk, position = self._chunk, 0
        if found.index > builder.last_index:
            chunk, position = self._load(payload)
        if chunk is None:
            chunk, position = self._load(memoryview(b""))
        return Entry(
            found.term, found.kind, found.next_offset, chunk, position, found.payload_bytes,
            max_timestamp, found.lsn,
        )  # fmt: skip

    def _load(self, payload: memoryview) -> tuple[Chunk, int]:
        chunk = self._chunk
        if chunk is None or self._position + len(payload) > chunk.capacity:
            # Open until their logs hold the entries: the next new chunk must not evict this one.
            chunk = self._chunk = self.chunks.new(max(1, len(payload)))
            self._position = 0
        position = self._position
        assert position + len(payload) <= chunk.capacity
        if payload:
            self.chunks.arena.write(chunk.id, position, payload)
        self._position += len(payload)
        return chunk, position


def _missing(wanted: int, found: int) -> str:
    return (
        f"the write-ahead log begins at record {found}, but the checkpoint needs record {wanted}: "
        "a file of it is missing, or a newer checkpoint is damaged. Nothing was changed. "
        f"{WHAT_NEXT}"
    )


def recover(disk: Disk, arena: Arena, settings: RecoverySettings) -> Recovered:
    """Return the store as it was durable; makes an empty one in an empty directory.

    Raises CorruptWalError or LayoutError (damage below what was durable: nothing is changed),
    MemoryError when the arena cannot hold what must be replayed, and OSError.
    """
    start = newest_checkpoint(disk)
    for directory in (WAL_DIRECTORY, PARTITIONS_DIRECTORY):
        disk.make_directory(directory)
    heads = file_heads(disk, WAL_DIRECTORY)
    if not heads:
        start = _without_log(disk, start)
    chunks = Chunks(arena)
    replay = Replay(disk, chunks, start)
    replay.run(heads)
    disk.sync([*_slots(disk), *(head.path for head in replay.live)])
    wal = _fresh_wal(disk, chunks, settings, heads, replay, start.generation)
    store = CoreStore(arena, settings.arena_bytes, settings.store, chunks, wal)
    store.checkpointing.sequence = start.sequence
    store.checkpointing.replay_lsn = start.replay_lsn
    store.file_number = max((_number(h.path) for h in heads), default=0) + 1
    folds = {}
    damaged = {}
    for group, builder in replay.builders.items():
        builder.damage = builder.damage or builder.gap
        store.groups[group] = _build(store, builder)
        folds[group] = (builder.image.applied_index, builder.image.blob)
        if builder.damage:
            damaged[group] = builder.damage
    for chunk in chunks.fifo:
        chunk.is_closed = True
    _remove_orphans(disk, store)
    return Recovered(store, folds, damaged, replay.count, replay.cut)


def _slots(disk: Disk) -> list[str]:
    """Return the checkpoint slots that exist."""
    found = []
    for slot in checkpoint.SLOTS:
        try:
            disk.size_bytes(slot)
        except FileNotFoundError:
            continue
        found.append(slot)
    return found


def newest_checkpoint(disk: Disk) -> Checkpoint:
    """Return the checkpoint that counts, an empty one where there is none (C4)."""
    best = Checkpoint(0, Lsn(1), Lsn(0), 0, [])
    broken = []
    for slot in _slots(disk):
        try:
            found = checkpoint.decode(disk.read(slot, 0, disk.size_bytes(slot)))
        except LayoutError as fault:
            broken.append(f"{slot}: {fault}")
            continue
        if found.sequence > best.sequence:
            best = found
    if len(broken) == len(checkpoint.SLOTS):
        raise LayoutError("both checkpoints are unreadable (" + "; ".join(broken) + ")")
    return best


def _without_log(disk: Disk, start: Checkpoint) -> Checkpoint:
    """Give a new core its first lsn (R7); refuse to take one for new that has lost its log."""
    if disk.names(PARTITIONS_DIRECTORY):
        raise CorruptWalError(
            "there are segments, but no write-ahead log: it is missing (is corelane.wal.dir "
            "mounted?). Nothing was changed"
        )
    if start.sequence:
        return start
    lsn = Lsn(disk.first_lsn())
    data = checkpoint.encode(1, lsn, Lsn(lsn - 1), 0, [])
    slot = checkpoint.SLOTS[1]
    disk.make_zeroed(slot, len(data))
    disk.overwrite(slot, 0, data)
    return Checkpoint(1, lsn, Lsn(lsn - 1), 0, [])


def _number(path: str) -> int:
    return int(path.rsplit("/", 1)[1].removesuffix(".wal"))


def _fresh_wal(
    disk: Disk,
    chunks: Chunks,
    settings: RecoverySettings,
    heads: list[FileHead],
    replay: Replay,
    generation: int,
) -> Wal:
    """Make the file that the next write goes to (R6) and sort out the others."""
    number = max((_number(head.path) for head in heads), default=0) + 1
    path = f"{WAL_DIRECTORY}/{number:08d}.wal"
    disk.make_zeroed(path, settings.wal_file_first_bytes)
    generation = max([generation, *(head.generation for head in heads)]) + 1
    live = {head.path for head in replay.live}
    spares: list[WalFile] = []
    unwanted: list[str] = []
    for head in heads:
        if head.path in live:
            continue
        if head.size_bytes == settings.store.wal_file_bytes and not spares:
            spares.append(WalFile(head.path, head.size_bytes, 0))
        else:
            unwanted.append(head.path)
    disk.remove(unwanted)
    first = WalFile(path, settings.wal_file_first_bytes, generation)
    wal = Wal(chunks, first, spares, replay.next_lsn, generation=generation)
    for number, head in enumerate(replay.live):
        used = WalFile(head.path, head.size_bytes, head.generation)
        used.first_lsn = Lsn(head.first_lsn)
        after = replay.live[number + 1 :]
        used.last_lsn = Lsn((after[0].first_lsn if after else replay.next_lsn) - 1)
        wal.used.append(used)
    return wal


def _build(store: CoreStore, builder: GroupBuilder) -> GroupLog:
    image = builder.image
    log = GroupLog(store, image.descriptor, image.state)
    log.tail_lsn = image.tail_lsn
    log.fold_index = image.applied_index
    log.segments = checkpoint.segments_of(image, builder.tail)
    builder.damage = builder.damage or remainder_damage(builder)
    flushed = image.state.flushed_index
    entries = builder.entries
    if remainder_damage(builder):
        entries = []  # there is nothing they could be written behind
    for number, entry in enumerate(entries):
        index = Index(flushed + 1 + number)
        log.load(index, entry)
        if entry.kind == RecordKind.CONFIG:
            log.configured.appended(index, log.control_payload(index))
    assert log.last_index == flushed + len(entries), "G1: none is missing"
    log.term = max(builder.term, log.last_term)
    log.voted_for = builder.voted_for if log.term == builder.term else MemberId(-1)
    log.is_dirty = bool(entries)
    log.damage = builder.damage
    log.loss, log.renewed_lsn = image.loss, image.renewed_lsn
    is_controller = (
        log.group == CONTROLLER_GROUP
    )  # a core whose controller is damaged serves nobody
    if log.damage and len(image.descriptor.voters) == 1 and not is_controller:
        # Nobody leads a damaged group, so what is whole of it must go to the segments from here:
        # it would keep memory and WAL from every other group. With one voter it is committed.
        log.commit(log.last_index)
    return log


def remainder_damage(builder: GroupBuilder) -> str:
    """Say what is wrong if the open segment's rows end before the flushed index."""
    image = builder.image
    if not image.segments or image.segments[-1].is_sealed:
        return ""
    row = image.segments[-1]
    count = (row.rows_frontier + len(builder.tail.rows)) // ROW_BYTES - 1
    if row.base_index + count - 1 == image.state.flushed_index:
        return ""
    return (
        f"the remainder of segment {row.base_offset} is missing: it has {max(0, count)} "
        f"entries from {row.base_index}, the checkpoint says {image.state.flushed_index}"
    )


def _remove_orphans(disk: Disk, store: CoreStore) -> None:
    """Remove what no group owns: dropped groups, segments rolled after the last checkpoint.

    The latter's entries are in the WAL and are written again (S4).
    """
    wanted = {log.descriptor.directory: log for log in store.groups.values()}
    for name in disk.names(PARTITIONS_DIRECTORY):
        directory = f"{PARTITIONS_DIRECTORY}/{name}"
        log = wanted.get(directory)
        if log is None:
            disk.remove([directory])
            continue
        owned = {p for segment in log.segments.items for p in segment.paths}
        found = [f"{directory}/{file}" for file in disk.names(directory)]
        disk.remove([path for path in found if path not in owned])
