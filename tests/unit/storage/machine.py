"""A core's storage on a simulated disk beside a model of it: what the shard does, without raft.

`Machine.turn` performs a turn; every answer of the disk is checked against the model, and what
`News` reported is from then on promised. `Machine.boot` recovers and compares everything.
"""

import random
from collections.abc import Callable
from typing import Final

from corelane.model.ids import CoreId, GroupId, Index, Lsn, MemberId, Offset, RecordKind, Term
from corelane.model.record import record
from corelane.storage.disk import Disk
from corelane.storage.effects import DiskDone, DiskEffect
from corelane.storage.group_log import GroupLog
from corelane.storage.installing import PrefixSnapshot
from corelane.storage.layout import CONTROL_HEADER, ROW, ROW_BYTES
from corelane.storage.log_reads import ColdRead, MemoryRead
from corelane.storage.news import News
from corelane.storage.parcel import Parcel
from corelane.storage.reading import ColdResult
from corelane.storage.recovery import Recovered, RecoverySettings, recover
from corelane.storage.segments import Segment, Stream, rows_header
from corelane.storage.store import CoreStore, StoreSettings
from corelane.storage.wal import WalFullError
from corelane_native import Arena, address_of, bytes_at, crc32c
from tests.simulation.sim_disk import SimDisk
from tests.unit.storage import model
from tests.unit.storage.model import Cut, Drop, Entry, GroupModel, Logged, Own, Taken, Vote

KIB: Final = 1024
MIB: Final = 1024 * KIB
ROOM_FOR_NOTES: Final = 64 * KIB
PUMPS_MAX: Final = 20_000


@record
class Profile:
    """Sizes of one kind of core."""

    name: str
    recovery: RecoverySettings
    chunk_bytes: int
    segment_bytes: int
    batch_bytes: tuple[int, ...]


SMALL: Final = Profile(
    "small",
    RecoverySettings(StoreSettings(64 * KIB, 6, MIB, 96 * KIB), 4 * MIB, 16 * KIB),
    32 * KIB,
    24 * KIB,
    (1, 20, 300, 2000, 3000, 4000, 9000, 40_000),
)
"""Everything happens often: files are recycled and segments rolled every few turns."""

LARGE: Final = Profile(
    "large",
    RecoverySettings(StoreSettings(2 * MIB, 5, 8 * MIB, MIB), 16 * MIB, 128 * KIB),
    256 * KIB,
    600 * KIB,
    (10, 4000, 60_000, 150_000, 700_000, 1_300_000),
)
"""Batches above 1 MiB, and above the first WAL file."""

ROOMY: Final = Profile(
    "roomy",
    RecoverySettings(StoreSettings(512 * KIB, 4, 8 * MIB, MIB), 8 * MIB, 512 * KIB),
    64 * KIB,
    24 * KIB,
    (1000,),
)
"""Nothing happens by itself: one WAL file is enough."""


class Held:
    """What survives a crash outside the core: the model, and what was promised of it."""

    def __init__(self) -> None:
        self.history: list[Logged] = []
        self.acked_lsn = Lsn(0)
        self.committed: dict[GroupId, int] = {}
        self.group_last = -1


class Driver:
    """How effects get done: by the simulated disk here, by real threads in another test."""

    disk: Disk

    def submit(self, effect: DiskEffect, arena: Arena) -> None:
        """Hand over an effect."""
        raise NotImplementedError

    def completions(self, *, everything: bool) -> list[DiskDone]:
        """Return some answers; with *everything*, do not return before there is one."""
        raise NotImplementedError


class SimDriver(Driver):
    """Completes a random number of effects of random queues."""

    def __init__(self, disk: SimDisk, seed: int) -> None:
        self.disk = disk
        self.sim = disk
        self.rng = random.Random(seed)

    def submit(self, effect: DiskEffect, arena: Arena) -> None:
        self.sim.submit(effect, arena)

    def completions(self, *, everything: bool) -> list[DiskDone]:
        done = []
        for _ in range(1 if everything else self.rng.choice((0, 1, 1, 2, 5))):
            busy = self.sim.busy()
            if busy:
                done.append(self.sim.complete(self.rng.choice(busy)))
        return done


class Machine:
    """One life of a core, from its recovery to its end."""

    def __init__(self, driver: Driver, profile: Profile, held: Held, seed: int) -> None:
        self.driver = driver
        self.profile = profile
        self.held = held
        self.rng = random.Random(seed)
        self.rng_find = random.Random(seed)
        self.arena = Arena(profile.recovery.arena_bytes, profile.chunk_bytes)
        self.lsns: dict[tuple[GroupId, int, int], Lsn] = {}
        self.durable: dict[GroupId, int] = {}
        self.reads_open = 0
        self.reads_cold = 0
        self.stamp = 1000 + len(held.history)
        self.recovered: Recovered = recover(driver.disk, self.arena, profile.recovery)
        self.store: CoreStore = self.recovered.store
        self.store.state_of = self._state_of
        self.groups: dict[GroupId, GroupModel] = {}
        self.taking: dict[GroupId, GroupModel] = {}  # asked for, and not in the log yet

    # --- recovery compared with the model ---

    def boot(self, *, commit_all: bool = True) -> None:
        """Compare what was recovered with the model, and go on from there."""
        store, held = self.store, self.held
        last = store.wal.next_lsn - 1
        assert not self.recovered.damaged, self.recovered.damaged
        assert last >= held.acked_lsn, f"recovered to {last}, promised was {held.acked_lsn}"
        self.cut_history(Lsn(last))
        assert set(store.groups) == set(self.groups), (set(store.groups), set(self.groups))
        for group, log in store.groups.items():
            self._compare(log, self.groups[group], commit_all=commit_all)
        assert self.store.wal.is_idle

    def cut_history(self, last: Lsn) -> None:
        """Take note that nothing above *last* ever happened."""
        held = self.held
        held.history = [logged for logged in held.history if logged.lsn <= last]
        self.groups = model.replay(held.history)
        held.acked_lsn = last

    def _compare(self, log: GroupLog, want: GroupModel, *, commit_all: bool) -> None:
        held = self.held
        committed = max(held.committed.get(log.group, 0), want.base_index)
        assert log.last_index == want.last_index, f"{log.last_index} != {want.last_index}"
        assert log.next_offset == want.next_offset
        assert log.term == want.term
        assert log.voted_for == want.voted_for
        assert log.descriptor == want.descriptor
        assert log.committed_index <= committed, (
            f"{log.committed_index} is in segments, only {committed} committed"
        )
        assert committed <= log.last_index
        assert log.start_offset <= want.start_offset(committed)
        applied, blob = self.recovered.folds[log.group]
        assert log.flushed_index <= applied or not blob
        assert applied <= max(committed, want.base_fold[0])
        assert not blob or blob == want.fold(applied)
        assert log.tail_first <= applied + 1, "entries that the fold lacks must be in memory"
        upto = log.last_index if commit_all else committed
        log.commit(Index(max(upto, log.committed_index)))
        held.committed[log.group] = log.committed_index
        self.durable[log.group] = log.last_index
        log.segment_bytes = self.profile.segment_bytes
        self.check_log(log)

    def check_log(self, log: GroupLog) -> None:
        """Compare everything of a log but its cold bytes with the model."""
        want = self.groups[log.group]
        assert log.last_index == want.last_index
        assert log.start_offset == want.start_offset(log.committed_index)
        assert log.committed_offset == (
            want.entry(log.committed_index).next_offset if log.committed_index else 0
        )
        for index in range(log.first_index, log.last_index + 1):
            assert log.term_at(Index(index)) == want.entry(index).term
        if log.first_index > 1:
            assert log.term_at(Index(log.first_index - 1)) == want.entry(log.first_index - 1).term
        for index in range(log.tail_first, log.last_index + 1):
            entry, wanted = log.entry(Index(index)), want.entry(index)
            assert (entry.term, entry.kind) == (wanted.term, wanted.kind)
            assert entry.next_offset == wanted.next_offset
            address = self.arena.address(entry.chunk.id) + entry.position
            assert bytes_at(address, entry.size_bytes) == wanted.payload if entry.size_bytes else 1
        self.check_segments(log)
        self.check_configurations(log)

    def check_configurations(self, log: GroupLog) -> None:
        """The log knows the one in force, and all of its own entries."""
        every = [
            (entry.index, entry.payload)
            for entry in self.groups[log.group].entries
            if entry.kind == RecordKind.CONFIG
        ]
        assert log.configuration == (every[-1] if every else (0, b""))
        own = [(index, payload) for index, payload in every if index >= log.first_index]
        assert log.configured.between(log.first_index, log.last_index) == own

    def check_segments(self, log: GroupLog) -> None:
        """Segments hold just the committed entries from first_index on (S1-S3)."""
        want = self.groups[log.group]
        index = log.first_index
        for segment in log.segments.items:
            count = segment.row_count
            entries = want.entries[index - 1 : index - 1 + count]
            assert segment.base_index == index
            assert len(entries) == count
            self._check_segment(segment, entries)
            index = Index(index + count)
        assert index == log.flushed_index + 1, (index, log.flushed_index)

    def _check_segment(self, segment: Segment, entries: list[Entry]) -> None:
        rows = [rows_header(segment.base_index, segment.base_offset)]
        data, control, newest = b"", b"", -1
        for entry in entries:
            if entry.kind == RecordKind.BATCH:
                data += entry.payload
                newest = max(newest, entry.max_timestamp)
            else:
                head = CONTROL_HEADER.pack(entry.index, entry.kind, len(entry.payload))
                head += entry.payload
                control += head + crc32c(head).to_bytes(4, "little")
            row = (entry.next_offset, len(data), newest, entry.term, entry.kind)
            rows.append(ROW.pack(*row))
        assert segment.base_offset == (entries[0].base_offset if entries else segment.base_offset)
        for stream, wanted in zip(segment.streams, (data, b"".join(rows), control), strict=True):
            assert self._stream(segment, stream) == wanted, segment.path(stream)
        assert not segment.is_sealed or not any(s.remainder for s in segment.streams)
        on_disk = segment.rows_on_disk
        if on_disk and not segment.is_sealed:
            last = rows[on_disk]
            assert len(last) == ROW_BYTES
            assert segment.disk_row == ROW.unpack(last)[:3]

    def _stream(self, segment: Segment, stream: Stream) -> bytes:
        path = segment.path(stream)
        on_disk = self.driver.disk.read(path, 0, stream.frontier)
        assert len(on_disk) == stream.frontier, f"{path} is shorter than {stream.frontier}"
        if segment.is_sealed and stream.frontier:
            assert self.driver.disk.size_bytes(path) == stream.frontier, "S3"
        return on_disk + stream.remainder

    def _state_of(self, group: GroupId) -> tuple[Index, bytes]:
        log, want = self.store.groups[group], self.groups[group]
        if want.base_fold[0] > log.committed_index:
            return Index(want.base_fold[0]), want.base_fold[1]
        return log.committed_index, want.fold(log.committed_index)

    # --- turns ---

    def turn(self, *, everything: bool = False) -> None:
        """Perform a turn: hand out effects, take some answers, commit what became durable."""
        effects = self.store.turn_effects()
        for taking in self.store.moving.imports.values():
            group = taking.parcel.group
            if taking.lsn and group in self.taking:
                self._logged(taking.lsn, group, Taken(self.taking.pop(group)))
                self.held.committed[group] = self.groups[group].last_index
        for effect in effects:
            self.driver.submit(effect, self.arena)
        for done in self.driver.completions(everything=everything):
            self._take(self.store.on_done(done))

    def _take(self, news: News) -> None:
        held = self.held
        for log, index, truncations in news.entries:
            lsn = self.lsns[log.group, index, truncations]
            held.acked_lsn = max(held.acked_lsn, lsn)
            if truncations == log.truncations and not log.is_dropped:
                self.durable[log.group] = max(self.durable[log.group], index)
        for log, term, voted_for in news.votes:
            logged = [
                logged.lsn
                for logged in held.history
                if logged.group == log.group
                and isinstance(logged.op, Vote)
                and (logged.op.term, logged.op.voted_for) == (term, voted_for)
            ]
            held.acked_lsn = max(held.acked_lsn, *logged)

    def commit(self, log: GroupLog, index: int) -> None:
        """Commit what is durable, at most up to *index*."""
        index = min(index, self.durable[log.group])
        if index > log.committed_index:
            log.commit(Index(index))
            self.held.committed[log.group] = index

    def commit_all(self) -> None:
        """Commit what is durable everywhere."""
        for log in self.store.groups.values():
            self.commit(log, self.durable[log.group])

    def settle(self, until: Callable[[], bool] | None = None) -> None:
        """Turn until nothing happens any more, or *until*."""
        for _ in range(PUMPS_MAX):
            self.turn(everything=True)
            self.commit_all()
            if until is not None:
                if until():
                    return
                continue
            store = self.store
            if store.is_idle and not (store.wants_turn or store.is_waiting or store.wal.can_write):
                return
        raise AssertionError("storage never comes to rest")

    def stop(self) -> None:
        """Stop cleanly."""
        self.store.stop()
        self.settle(lambda: self.store.is_stopped)

    # --- operations ---

    def _logged(self, lsn: Lsn, group: GroupId, op: model.Op) -> None:
        self.held.history.append(Logged(lsn, group, op))
        match op:
            case Own():
                self.groups[group] = GroupModel(op.descriptor)
            case Taken():
                self.groups[group] = op.group.copy(op.group.descriptor.revision)
            case Drop():
                del self.groups[group]
            case _:
                self.groups[group].apply(op)

    def has_room(self) -> bool:
        """Whether notes (votes, truncations) fit, which the shard's limits keep so."""
        wal, arena_bytes = self.store.wal, self.profile.recovery.arena_bytes
        free = wal.file.size_bytes - wal._file_position + sum(s.size_bytes for s in wal.spares)
        return free > ROOM_FOR_NOTES // 2 and self.arena.bytes_in_use < arena_bytes * 3 // 4

    def create(self, number: int | None = None) -> GroupLog:
        """Make the next group."""
        self.held.group_last = self.held.group_last + 1 if number is None else number
        descriptor = model.descriptor(self.held.group_last)
        log = self.store.create_group(descriptor)
        log.segment_bytes = self.profile.segment_bytes
        self.durable[log.group] = 0
        self.held.committed[log.group] = 0
        self._logged(log.last_lsn, log.group, Own(descriptor))
        return log

    def drop(self, log: GroupLog) -> None:
        """Drop a group."""
        lsn = self.store.wal.next_lsn
        self.store.drop_group(log)
        self._logged(lsn, log.group, Drop())
        del self.durable[log.group]

    def export(self, log: GroupLog, done: Callable[[Parcel | None], None]) -> None:
        """Pack a group; the parcel has gone over a wire when *done* hears of it."""
        assert self.durable[log.group] == log.last_index

        def exported(parcel: Parcel | None) -> None:
            done(None if parcel is None else Parcel.decode(parcel.encode()))

        self.store.export_group(log, exported)

    def take(
        self, parcel: Parcel, source: CoreId, group: GroupModel, done: Callable[[str], None]
    ) -> None:
        """Import a group that is *group* at its source."""

        def imported(log: GroupLog | None, why: str) -> None:
            if log is None:
                self.taking.pop(parcel.group, None)
                done(why)
                return
            assert log.group not in self.taking
            log.segment_bytes = self.profile.segment_bytes
            self.durable[log.group] = log.last_index
            self.held.acked_lsn = max(self.held.acked_lsn, log.last_lsn)
            self.check_log(log)
            done("")

        revision = parcel.descriptor.revision + 1
        self.taking[parcel.group] = group.copy(revision)
        fold = (Index(group.last_index), group.fold(group.last_index))
        self.store.import_group(parcel, revision, fold, source, imported)

    def release(self, log: GroupLog) -> None:
        """Give up a group that another core has."""
        lsn = self.store.wal.next_lsn
        self.store.release_group(log)
        assert not self.store.dropping.is_waiting
        self._logged(lsn, log.group, Drop())
        del self.durable[log.group]

    def append(self, log: GroupLog, body_bytes: int, *, log_append_time: bool = False) -> bool:
        """Append a batch; False when the store has no room for it now."""
        self.stamp += 1
        count = self.rng.randrange(1, 4)
        timestamp = self.stamp - self.rng.randrange(5)
        data = model.batch(count, body_bytes, timestamp, self.stamp)
        append_time = self.stamp if log_append_time else -1
        before = (log.last_index, log.next_offset, self.store.wal.next_lsn)
        try:
            index, base_offset, lsn = log.append_batch(
                log.term, address_of(data), len(data), count, timestamp, append_time
            )
        except (WalFullError, MemoryError):
            assert before == (log.last_index, log.next_offset, self.store.wal.next_lsn)
            return False
        payload = model.stamped(data, base_offset, log.term, append_time)
        newest = self.stamp if log_append_time else timestamp
        entry = Entry(
            index, log.term, RecordKind.BATCH, payload, base_offset, base_offset + count, newest
        )
        self._appended(log, lsn, entry)
        return True

    def control(self, log: GroupLog, kind: RecordKind, payload: bytes) -> bool:
        """Append a control entry; False when the store has no room for it now."""
        before = (log.last_index, log.next_offset, self.store.wal.next_lsn)
        try:
            index, lsn = log.append_control(log.term, kind, payload)
        except (WalFullError, MemoryError):
            assert before == (log.last_index, log.next_offset, self.store.wal.next_lsn)
            return False
        offset = log.next_offset
        self._appended(log, lsn, Entry(index, log.term, kind, payload, offset, offset, -1))
        return True

    def _appended(self, log: GroupLog, lsn: Lsn, entry: Entry) -> None:
        self.lsns[log.group, entry.index, log.truncations] = lsn
        self._logged(lsn, log.group, entry)
        assert log.next_offset == entry.next_offset

    def receive(
        self, log: GroupLog, payload: bytes, entries: list[Entry], first_index: int
    ) -> bool:
        """Append what another replica sent, *entries*; False when there is no room for any now."""
        runs: list[tuple[Index, Term]] = []
        for entry in entries:
            if not runs or runs[-1][1] != entry.term:
                runs.append((Index(entry.index), Term(entry.term)))
        before = (log.last_index, log.next_offset, self.store.wal.next_lsn)
        try:
            last, lsn = log.append_received(runs, Index(first_index), payload)
        except (WalFullError, MemoryError):
            assert before == (log.last_index, log.next_offset, self.store.wal.next_lsn)
            return False
        taken = [entry for entry in entries if first_index <= entry.index <= last]
        assert last == log.last_index == taken[-1].index
        assert lsn == log.entry(last).lsn == self.store.wal.next_lsn - 1
        for entry in taken:
            lsn = log.entry(Index(entry.index)).lsn
            self.lsns[log.group, entry.index, log.truncations] = lsn
            self._logged(lsn, log.group, entry)
        assert log.next_offset == taken[-1].next_offset
        return True

    def install(self, log: GroupLog, snapshot: PrefixSnapshot, source: GroupModel) -> bool:
        """Begin a log anew as *source* is; False when there is no room now."""
        before = (log.last_index, log.next_offset, self.store.wal.next_lsn)
        try:
            lsn = self.store.install(log, PrefixSnapshot.decode(snapshot.encode()))
        except (WalFullError, MemoryError):
            assert before == (log.last_index, log.next_offset, self.store.wal.next_lsn)
            return False
        last = snapshot.last_index
        self.lsns[log.group, last, log.truncations] = lsn
        passed = source.entries[:last]
        op = model.Anew(passed, last, snapshot.applied_index, snapshot.fold)
        self._logged(lsn, log.group, op)
        self.durable[log.group] = last
        assert (log.first_index, log.last_index) == (last + 1, last)
        return True

    def vote(self, log: GroupLog, term: int, voted_for: int) -> None:
        """Put a vote."""
        lsn = log.vote(Term(term), MemberId(voted_for))
        self._logged(lsn, log.group, Vote(term, voted_for))

    def truncate(self, log: GroupLog, from_index: int) -> None:
        """Cut uncommitted entries."""
        lsn = log.truncate(Index(from_index))
        self._logged(lsn, log.group, Cut(from_index))
        self.durable[log.group] = min(self.durable[log.group], from_index - 1)
        # what of the rest is durable was reported for these very entries
        for index in range(1, from_index):
            old = self.lsns.get((log.group, index, log.truncations - 1))
            if old is not None:
                self.lsns[log.group, index, log.truncations] = old

    # --- reading ---

    def read(self, log: GroupLog, offset: int, bytes_max: int) -> None:
        """Read from *offset*, now or when the disk answers, and compare."""
        want = self.groups[log.group]
        committed = log.committed_index
        stream, first_bytes = want.stream(offset, committed)
        found = log.read(Offset(offset), bytes_max, log.committed_offset, at_least_one=True)
        if found is None:
            assert not stream, f"nothing at {offset}"
            return
        assert stream
        if isinstance(found, MemoryRead):
            data = b"".join(bytes(self.arena.view(*part)) for part in found.parts)
            assert found.size_bytes == len(data)
            assert len(data) <= max(bytes_max, first_bytes)
            self._check_read(data, stream, first_bytes)
        else:
            self._read_cold(log, found, want, lambda data: want.stream(offset, committed))

    def find(self, log: GroupLog, timestamp: int) -> None:
        """Find a timestamp from somewhere on and compare."""
        want = self.groups[log.group]
        last = log.committed_index
        least = Offset(self.rng_find.randint(log.start_offset, log.committed_offset))
        found = log.find_timestamp(timestamp, least, log.committed_offset)
        newest = [e.max_timestamp for e in want.entries[:last] if e.next_offset > least]
        assert log.newest_timestamp(least) >= max(newest, default=-1)
        if not isinstance(found, ColdRead):
            entry = want.batch_of_timestamp(timestamp, least, last)
            assert (entry is None) == (found is None), f"timestamp {timestamp}"
            if entry is not None and found is not None:
                assert bytes(self.arena.view(*found.parts[0])) == entry.payload
            return
        # Of a segment on disk a batch before the wanted offset may be found.
        first = log.segments.items[log.segments.holding(least)]
        entry = want.batch_of_timestamp(timestamp, first.base_offset, last)
        assert entry is not None, f"no batch has {timestamp}"
        base, size = entry.base_offset, len(entry.payload)
        self._read_cold(log, found, want, lambda data: (want.stream(base, last)[0], size))

    def _read_cold(
        self,
        log: GroupLog,
        cold: ColdRead,
        want: GroupModel,
        wanted: Callable[[bytes], tuple[bytes, int]],
    ) -> None:
        expected, first_bytes = wanted(b"")

        def answered(result: ColdResult) -> None:
            self.reads_open -= 1
            if result.error and (log.is_dropped or cold.segment not in log.segments.items):
                self.arena.release(result.chunk)
                return  # its files went while the read waited
            assert not result.error, f"reading {log.descriptor.directory}: errno {result.error}"
            data = bytes(self.arena.view(result.chunk, result.position, result.size_bytes))
            self.arena.release(result.chunk)
            self._check_read(data + result.suffix, expected, first_bytes)

        self.reads_open += 1
        self.reads_cold += 1
        try:
            self.store.reading.read_cold(log, cold, answered)
        except MemoryError:
            self.reads_open -= 1

    def _check_read(self, data: bytes, stream: bytes, first_bytes: int) -> None:
        assert len(data) >= first_bytes, "at least one whole batch"
        assert stream.startswith(data[: len(stream)]), "other bytes than were appended"

    def read_everything(self) -> None:
        """Read every batch of every log, and find every timestamp."""
        for log in list(self.store.groups.values()):
            offset = log.start_offset
            want = self.groups[log.group]
            for entry in want.entries[log.first_index - 1 : log.committed_index]:
                if entry.kind == RecordKind.BATCH and entry.next_offset > offset:
                    self.read(log, max(offset, entry.base_offset), 1)
            self.find(log, 0)
            self.find(log, self.stamp - 30)
            self.settle(lambda: not self.reads_open)
            self.check_log(log)

    def check_arena(self) -> None:
        """Nothing but the log's own chunks is held when all is quiet."""
        self.settle()
        held = sum(chunk.capacity for chunk in self.store.chunks.fifo)
        assert self.arena.bytes_in_use == held, f"{self.arena.bytes_in_use - held} bytes leaked"
