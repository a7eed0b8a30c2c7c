"""A bad sector is found at the next start, or by dump-log; what was promised is never made up.

Method: `rot.py`. Here a share of steps and seeds; `python -m tests.unit.storage.hunt --rot` for the
rest.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from corelane.storage import recovery
from tests.unit.storage.rot import rot, rot_everywhere


def test_bad_sectors_are_found_and_hurt_nobody_else() -> None:
    found: Counter[str] = Counter()
    for seed in (4, 5, 8):
        found += Counter(run.outcome for run in rot_everywhere(seed, actions=150, stride=11))
    assert found["refused"] > 3
    assert found["damaged"] > 1
    assert found["found by dump-log"] > 1
    assert found["of no account"] > 5


@pytest.mark.parametrize(
    ("owner", "name", "planted", "seed", "step"),
    [
        (recovery, "durable_claims", lambda *_: 0, 0, 14),
        (recovery.Replay, "_damaged", lambda *_: None, 31, 76),
    ],
    ids=["corruption is a torn tail", "damage is forgotten"],
)
def test_planted_bugs_are_found(
    owner: object,
    name: str,
    planted: Callable[..., object],
    seed: int,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Starts that were found to show them; each of them passes without the bug."""
    rot(seed, step, 150)
    monkeypatch.setattr(owner, name, planted)
    with pytest.raises(AssertionError):
        rot(seed, step, 150)


def test_dump_log_finds_a_control_entry_that_leads_beyond_the_end() -> None:
    """Its length rotted: what follows was taken for the part that is not in the file yet."""
    assert rot(11, 77, 150).outcome == rot(29, 78, 150).outcome == "found by dump-log"
