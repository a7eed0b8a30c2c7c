"""Method: plant one bug of replication at a time; the crash harness, or a story, must fail."""

from collections.abc import Callable
from typing import Any

import pytest

from corelane.model.ids import Index, Lsn, RecordKind
from corelane.storage import receiving
from corelane.storage.checkpointing import Checkpointing
from corelane.storage.configurations import Configurations
from corelane.storage.entries import ENTRY_HEAD
from corelane.storage.flush import Flush
from corelane.storage.group_log import GroupLog
from corelane.storage.installing import Installing
from corelane.storage.recovery import GroupBuilder, Replay
from corelane.storage.wal import Wal
from corelane_native import RECEIVED_REASONS, Received
from tests.unit.storage import test_installing, test_receiving, test_replicas
from tests.unit.storage.replica_script import crash_everywhere
from tests.unit.storage.test_mutants import Mutant, nothing

SEEDS_MAX = 6
ACTIONS = 150
STRIDE = 5


def one_more_kept(self: GroupBuilder, from_index: int) -> None:
    if from_index <= self.last_index + 1:
        self.gap = ""
    del self.entries[max(0, from_index - self.image.state.flushed_index) :]


_truncate = GroupLog.truncate


def cut_without_record(self: GroupLog, from_index: Index) -> Lsn:
    """Cut the entries here, and keep them in the WAL: the record cuts nothing."""
    wal: Any = self.store.wal
    put, wal.put = wal.put, _put_beyond(wal)
    try:
        return _truncate(self, from_index)
    finally:
        wal.put = put


def _put_beyond(wal: Wal) -> Callable[..., Any]:
    put = wal.put
    return lambda kind, term, group, index, offset, payload: put(
        kind, term, group, Index(index + 1), offset, payload
    )


_check = Received.check


def any_offset(self: Received, *words: int) -> Any:
    found = _check(self, *words)
    reason = 0 if "does not begin" in RECEIVED_REASONS.get(found.reason, "") else None
    return found if reason is None else found._replace(reason=0, row_count=1, position=words[1])


_install = Replay._install


def tail_stays(self: Replay, found: Any, payload: bytes) -> None:
    before = self.builders[found.group]
    _install(self, found, payload)
    flushed = before.image.state.flushed_index
    self.builders[found.group].entries = before.entries[max(0, found.index - flushed) :]


_delete = Installing.delete_files


_begin = Installing.begin_anew


def begun_without_files(self: Installing, *words: Any) -> Any:
    lsn = _begin(self, *words)
    _delete_now(self)
    return lsn


def _delete_now(self: Installing) -> None:
    self._put = [(Lsn(0), log, paths) for _lsn, log, paths in self._put]
    _delete(self)


_flush_init = Flush.__init__


def of_any_life(self: Flush, log: GroupLog, segment: Any) -> None:
    _flush_init(self, log, segment)
    self.log_life = _AnyLife()  # type: ignore[assignment]


class _AnyLife:
    """Equal to every life of a log."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def only_the_old_again(self: Checkpointing, log: GroupLog) -> bool:
    """Put again what is old, and not all that is behind it."""
    first = log.flushed_index + 1
    for index in range(first, log.last_index + 1):
        if log.entry(Index(index)).lsn < self._keep_lsn and not log.is_flushing:
            log.put_again(Index(index))
    return True


_add = GroupBuilder.add


def never_twice(self: GroupBuilder, index: Index, entry: Any) -> None:
    if self.image.state.flushed_index < index <= self.last_index:
        self.gap = f"entry {index} is there twice"
        return
    _add(self, index, entry)


CRASHED = [
    Mutant("a truncation keeps an entry", GroupBuilder, "truncate", one_more_kept),
    Mutant("a truncation's record cuts too little", GroupLog, "truncate", cut_without_record),
    Mutant("the term is lost by recovery", GroupBuilder, "vote", nothing),
    Mutant("a new beginning is not replayed", Replay, "_install", nothing),
    Mutant("a truncation keeps the configuration", Configurations, "truncated", nothing),
    Mutant("a part is put again", Checkpointing, "_log_unflushed", only_the_old_again),
    Mutant("what is there twice is damage", GroupBuilder, "add", never_twice),
]

TOLD: list[tuple[Mutant, Callable[[], None]]] = [
    (
        Mutant("an entry with a wrong offset is accepted", Received, "check", any_offset),
        lambda: test_receiving.test_what_cannot_follow_is_refused(
            test_receiving.one_batch(1, 1), [(1, 1)], "does not begin at the offset"
        ),
    ),
    (
        Mutant("any control entry is accepted", receiving, "_check_control", nothing),
        lambda: test_receiving.test_what_cannot_follow_is_refused(
            ENTRY_HEAD.pack(RecordKind.TRIM, 7) + bytes(7), [(1, 1)], "has 7 bytes"
        ),
    ),
    (
        Mutant("a flush of the old log counts for the new", Flush, "__init__", of_any_life),
        test_installing.test_a_flush_of_the_log_before_changes_nothing_of_the_new_one,
    ),
    (
        Mutant("a snapshot is mixed with the old tail", Replay, "_install", tail_stays),
        lambda: test_installing.test_a_tail_longer_than_the_snapshot_is_gone(has_row=False),
    ),
    (
        Mutant("what came before a new beginning counts", GroupBuilder, "begin_anew", nothing),
        lambda: test_installing.test_a_tail_longer_than_the_snapshot_is_gone(has_row=True),
    ),
    (
        Mutant("files go before the record", Installing, "begin_anew", begun_without_files),
        test_installing.test_a_crash_at_any_step_leaves_the_old_log_or_the_new_start,
    ),
    (
        Mutant("files of the old log stay", Installing, "delete_files", nothing),
        lambda: test_installing.test_a_replica_begins_anew_and_stays_so(is_whole=False),
    ),
    (
        Mutant("uncommitted entries pin", Checkpointing, "_log_unflushed", lambda *_words: True),
        test_replicas.test_a_group_without_a_quorum_does_not_stop_the_others,
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
        crash_everywhere(seed, actions=ACTIONS, stride=STRIDE)
    except Exception:  # noqa: BLE001 whatever a planted bug leads to is a catch
        return True
    return False
