"""Method: plant one bug at a time; the crash harness, or a story of corruption, must fail.

Each mutant replaces one function by monkeypatching. The runs are bounded: a bug that is not found
within them counts as not found at all.
"""

from collections.abc import Callable
from typing import Any

import pytest

from corelane.model.ids import Lsn
from corelane.model.record import record
from corelane.storage import checkpoint, checkpointing, reading, recovery, wal_scan
from corelane.storage import flush as flushing
from corelane.storage.checkpointing import Checkpointing
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import Tail, WalRecord, decode_tail
from corelane.storage.reading import ColdResult
from corelane.storage.recovery import GroupBuilder
from corelane.storage.store import CoreStore
from corelane.storage.wal import Wal
from tests.simulation.sim_disk import SimDisk
from tests.unit.storage import test_corruption, test_recovery
from tests.unit.storage.machine import SMALL
from tests.unit.storage.script import crash_everywhere

SEEDS_MAX = 10
ACTIONS = 150
STRIDE = 2


@record
class Mutant:
    """One planted bug."""

    name: str
    owner: Any
    attribute: str
    replacement: Any


def nothing(*_arguments: object) -> None:
    """Do nothing."""


def tail_not_logged(self: Checkpointing, log: GroupLog) -> None:
    log.is_dirty = False


_write = Checkpointing._write_if_durable


def recycled_early(self: Checkpointing) -> None:
    self.store.recycle(self.store.wal.release_before(self._need_lsn))
    _write(self)


def checkpoint_ahead(self: Checkpointing) -> None:
    self._await_lsn = Lsn(0)
    _write(self)


_plan = flushing.plan


def uncommitted_flushed(log: GroupLog, arena: Any) -> Any:
    committed, log.committed_index = log.committed_index, log.last_index
    try:
        return _plan(log, arena)
    finally:
        log.committed_index = committed


def any_generation(data: bytes, at: int, generation: int, lsn: Lsn) -> WalRecord | None:
    found = wal_scan.parse(data, at) or wal_scan.parse(data, at // 4096 * 4096 + 4096)
    return found if found is not None and found.lsn == lsn else None


def rows_lost(data: bytes) -> Tail:
    tail = decode_tail(data)
    return Tail(tail.log, b"", tail.control)


def log_lost(data: bytes) -> Tail:
    tail = decode_tail(data)
    return Tail(b"", tail.rows, tail.control)


_trimmed = CoreStore.trimmed


def trimmed_at_once(self: CoreStore, log: GroupLog) -> None:
    _trimmed(self, log)
    if self.unlinks:
        self.unlink(self.unlinks)
        self.unlinks = []


_written = Wal.written


def released_early(self: Wal) -> Any:
    """Report what was put after the write, too."""
    write = _written(self)
    if self._open is not None:
        write.entries.update(self._open.entries)
    return write


_sync = SimDisk._sync


def only_names_synced(self: SimDisk, path: str) -> None:
    file = self.files.get(path)
    pending = list(file.pending) if file is not None else []
    durable = bytes(file.durable) if file is not None else b""
    _sync(self, path)
    if file is not None and pending:
        file.pending = pending
        file.durable[:] = durable


def never_forgets(self: GroupBuilder, from_index: int) -> None:
    self.gap = ""


_stitched = reading._stitched


def unsliced(chunk: Any, done: Any, frontier: int, suffix: bytes) -> Any:
    result = _stitched(chunk, done, frontier, suffix)
    if not result.suffix:
        return result
    return ColdResult(result.chunk, result.position, result.size_bytes, suffix, result.error)


CRASHED = [
    Mutant("a WAL write is reported before it is durable", SimDisk, "wal_is_synced", False),
    Mutant("entries of the next write are reported with this one", Wal, "written", released_early),
    Mutant("remainders are not logged again", Checkpointing, "_log_tail", tail_not_logged),
    Mutant("files go before the checkpoint", Checkpointing, "_write_if_durable", recycled_early),
    Mutant("a checkpoint before its WAL", Checkpointing, "_write_if_durable", checkpoint_ahead),
    Mutant("segments are not synced", SimDisk, "_sync", only_names_synced),
    Mutant("truncations are not replayed", GroupBuilder, "truncate", never_forgets),
    Mutant("votes are not replayed", GroupBuilder, "vote", nothing),
    Mutant("the rows' remainder is lost", recovery, "decode_tail", rows_lost),
    Mutant("the log's remainder is lost", recovery, "decode_tail", log_lost),
    Mutant("uncommitted entries are flushed", flushing, "plan", uncommitted_flushed),
    Mutant("recovery syncs nothing", SimDisk, "sync", nothing),
    Mutant("one checkpoint slot", checkpoint, "SLOTS", ("checkpoint.0", "checkpoint.0")),
    Mutant("nothing is needed", checkpointing, "_needed_from", lambda _log: Lsn(2**63 - 1)),
    Mutant("the remainder is read from its start", reading, "_stitched", unsliced),
]

TOLD = [
    (
        Mutant("the scan ignores generations", recovery, "record_at", any_generation),
        test_recovery.test_a_record_of_an_older_generation_is_not_the_next_one,
    ),
    (
        Mutant("trimmed files go at once", CoreStore, "trimmed", trimmed_at_once),
        test_recovery.test_files_trimmed_while_a_checkpoint_is_taken_stay_until_the_next_one,
    ),
    (
        Mutant("claims are ignored", recovery, "durable_claims", lambda *_words: 0),
        test_corruption.test_a_damaged_first_record_of_a_file_does_not_hide_the_file,
    ),
    (
        Mutant("headers are believed", wal_scan, "_is_header_flipped", lambda _record: False),
        lambda: test_corruption.test_a_flipped_bit_in_a_header_is_never_a_torn_tail(32),
    ),
    (
        Mutant("old entries stay", GroupBuilder, "truncate", never_forgets),
        test_recovery.test_a_truncation_below_and_above_the_flushed_index_is_replayed,
    ),
]


@pytest.mark.parametrize("mutant", CRASHED, ids=lambda mutant: mutant.name)
def test_crashes_catch(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant.owner, mutant.attribute, mutant.replacement)
    assert any(_is_caught(seed) for seed in range(SEEDS_MAX))


@pytest.mark.parametrize(("mutant", "story"), TOLD, ids=lambda value: getattr(value, "name", ""))
def test_stories_catch(
    mutant: Mutant, story: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    story()
    monkeypatch.setattr(mutant.owner, mutant.attribute, mutant.replacement)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        story()


def _is_caught(seed: int) -> bool:
    """Say whether a comparison, storage's own assertions, or recovery found something."""
    try:
        crash_everywhere(SMALL, seed, actions=ACTIONS, stride=STRIDE)
    except Exception:  # noqa: BLE001 whatever a planted bug leads to is a catch
        return True
    return False
