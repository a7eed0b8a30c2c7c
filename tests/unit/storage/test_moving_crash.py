"""Groups that move between two cores survive a crash at any step of either's disk, and of both.

Method: `pair_script.py` runs random operations and moves on two cores of one simulated disk. Each
step of each is one run that crashes there: one core or both, with the power or without; then both
recover, agree by revision, and go on. `pair.py` compares with the models: every group has one
owner, and all that was committed is there. Then bugs are planted, one at a time, and must be found.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from corelane.model.ids import NO_MEMBER, Index, JobId
from corelane.storage import dropping, moving, recovery
from corelane.storage.dropping import Dropping
from corelane.storage.effects import Sync
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import Tail
from corelane.storage.moving import Moving
from corelane.storage.parcel import Parcel
from tests.simulation.sim_tree import Tree
from tests.unit.storage import test_moving
from tests.unit.storage.pair_script import BOTH, PairRun, crash_everywhere
from tests.unit.storage.test_mutants import Mutant, nothing

ACTIONS = 90
SEEDS_MAX = 12


@pytest.mark.parametrize("seed", range(6))
def test_both_cores_crashed_at_every_third_step(seed: int) -> None:
    crash_everywhere(seed, actions=ACTIONS, stride=3)


@pytest.mark.parametrize("seed", range(100, 102))
def test_long_lives_crashed_here_and_there(seed: int) -> None:
    crash_everywhere(seed, actions=300, stride=17)


def test_the_script_does_what_it_is_for() -> None:
    """Otherwise the crashes prove little."""
    moves = linked = refused = 0
    for seed in range(6):
        run = PairRun(seed, 0)
        run.first_life(ACTIONS)
        moves += run.moves
        refused += run.refused
        linked += sum(run.pair.disks[core].performed["LinkFiles"] for core in BOTH)
    assert moves > 30
    assert refused > 3
    assert 15 < linked < moves, "some groups have no closed segment, most have"


# --- planted bugs ---


def unsynced(job: JobId, paths: list[str]) -> Sync:
    return Sync(job, paths[-1:])


_put = Moving._put


def owned_at_once(self: Moving, taking: Any) -> None:
    _put(self, taking)
    if taking.log is not None:
        del self.imports[taking.parcel.group]
        self._store.groups[taking.parcel.group] = taking.log
        taking.done(taking.log, "")


_fold_of = Moving.fold_of


def fold_lost(self: Moving, log: GroupLog) -> tuple[Index, bytes]:
    applied, blob = _fold_of(self, log)
    return (applied, b"\0" * len(blob)) if log.group in self.imports else (applied, blob)


_decode = Parcel.decode


def decoded_without_tail(data: bytes) -> Parcel:
    return replace(_decode(data), tail=Tail(b"", b"", b""))


def decoded_without_vote(data: bytes) -> Parcel:
    parcel = _decode(data)
    state = replace(parcel.image.state, voted_for=NO_MEMBER)
    return replace(parcel, image=replace(parcel.image, state=state))


def decoded_as_before(data: bytes) -> Parcel:
    """Forget that the revision rose."""
    parcel = _decode(data)
    descriptor = replace(parcel.image.descriptor, revision=1)
    return replace(parcel, image=replace(parcel.image, descriptor=descriptor))


MUTANTS = [
    Mutant("links are not synced", Tree, "sync_names", nothing),
    Mutant("segments are not synced before the parcel", moving, "Sync", unsynced),
    Mutant("an import is reported before it is durable", Moving, "_put", owned_at_once),
    Mutant("the fold of an import is lost", Moving, "fold_of", fold_lost),
    Mutant("remainders are lost", Parcel, "decode", staticmethod(decoded_without_tail)),
    Mutant("the vote is lost", Parcel, "decode", staticmethod(decoded_without_vote)),
    Mutant("revisions do not rise", Parcel, "decode", staticmethod(decoded_as_before)),
    Mutant("a record ends nothing", recovery, "decode_revision", lambda _data: 0),
    Mutant("a former time is not waited for", Dropping, "holds", lambda _self, _group: False),
    Mutant("no revision is written", dropping, "encode_revision", lambda _revision: b""),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_crashes_catch(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant.owner, mutant.attribute, mutant.replacement)
    assert any(_is_caught(seed) for seed in range(SEEDS_MAX))


TOLD = [
    (
        Mutant("an old record ends a new time", recovery, "decode_revision", lambda _data: 1 << 31),
        test_moving.test_an_old_record_does_not_end_the_group_that_came_back,
    ),
    (
        Mutant("an import is not in the next checkpoint", Moving, "logs", lambda _self: []),
        test_moving.test_a_checkpoint_begun_while_an_import_is_written_has_it,
    ),
]


@pytest.mark.parametrize(("mutant", "story"), TOLD, ids=lambda value: getattr(value, "name", ""))
def test_stories_catch(
    mutant: Mutant, story: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutant.owner, mutant.attribute, mutant.replacement)
    with pytest.raises(AssertionError):
        story()


def _is_caught(seed: int) -> bool:
    """Say whether a comparison, storage's own assertions, or recovery found something."""
    try:
        crash_everywhere(seed, actions=ACTIONS, stride=2)
    except Exception:  # noqa: BLE001 whatever a planted bug leads to is a catch
        return True
    return False
