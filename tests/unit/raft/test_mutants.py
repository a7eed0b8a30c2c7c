"""Method: plant one bug at a time; the simulation or the scripts must fail. The honest measure."""

from pathlib import Path

import pytest

from tests import datadriven
from tests.simulation.raft_cluster import run_seed
from tests.simulation.raft_mutants import SCRIPTED, SIMULATED, Mutant
from tests.unit.raft.script import Script
from tests.unit.raft.test_scripts import SCRIPTS

SEEDS_MAX = 150
FIRST_SEEDS = {
    "snapshot over what is there (14)": 70,
    "write from before a truncation counted": 38,
    "answers of any round counted (10)": 134,
}
"""Where to begin: shortly before the first seed that finds it, as those before take a while."""


@pytest.mark.parametrize("mutant", SIMULATED, ids=lambda mutant: mutant.name)
def test_the_simulation_catches(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant.owner, mutant.attribute, mutant.replacement)
    first = FIRST_SEEDS.get(mutant.name, 1)
    assert any(is_caught_by_seed(seed) for seed in range(first, SEEDS_MAX + 1))


@pytest.mark.parametrize("mutant", SCRIPTED, ids=lambda mutant: mutant.name)
def test_the_scripts_catch(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWRITE", raising=False)
    monkeypatch.setattr(mutant.owner, mutant.attribute, mutant.replacement)
    assert any(is_caught_by_script(path) for path in SCRIPTS)


def is_caught_by_seed(seed: int) -> bool:
    """Say whether a checker, or the group's own assertions, found something."""
    try:
        run_seed(seed)
    except AssertionError:
        return True
    return False


def is_caught_by_script(path: Path) -> bool:
    """Say whether a script tells another story now."""
    try:
        datadriven.run(path, Script().handle)
    except AssertionError:
        return True
    return False
