"""Every planted bug is caught by a story, a table or a storm, and none of these fails without it.

Method: the tests beside this file are called as functions, cheapest first, until one fails.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from corelane.shard.peers.frames import FrameError
from tests.unit.shard.peers import test_data_link, test_greeting, test_leads, test_session
from tests.unit.shard.peers import test_stories as stories
from tests.unit.shard.peers.checks import Checked, calm, storm
from tests.unit.shard.peers.mutants import MUTANTS, Mutant

STORM_SEEDS = range(6)


def plain_tests() -> Iterator[Callable[[], object]]:
    """Give the tests that need nothing but to be called, and the stories of both sides."""
    for module in (test_session, test_data_link, test_greeting, test_leads, stories):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("test_") or hasattr(function, "hypothesis"):
                continue
            names = [*inspect.signature(function).parameters]
            if not names:
                yield function
            elif names == ["watcher", "watched"]:
                for pair in stories.PAIRS:
                    yield partial(function, *pair)
            elif names == ["health"]:
                for health in test_session.UNFIT:
                    yield partial(function, health)
            elif names == ["directions"]:
                yield partial(function, ((1, 2),))


def storms() -> Iterator[Callable[[], object]]:
    """Give worlds in which anything happens."""
    for seed in STORM_SEEDS:
        yield partial(run_storm, seed)


def run_storm(seed: int) -> None:
    """Run one world; odd seeds damage and repeat frames."""
    net = Checked(seed, nodes=3)
    net.damage_rate = net.repeat_rate = 0.002 * (seed % 2)
    storm(net, 15_000)
    calm(net)


def catches(test: Callable[[], object]) -> bool:
    """Say whether a test fails."""
    try:
        test()
    except (AssertionError, FrameError, ValueError, pytest.fail.Exception):
        return True
    return False


def caught_by(mutant: Mutant, tests: Iterator[Callable[[], Any]]) -> bool:
    """Say whether any test fails with the bug in place."""
    patch = pytest.MonkeyPatch()
    with patch.context() as planted:
        planted.setattr(mutant.owner, mutant.attribute, mutant.replacement)
        return any(catches(test) for test in tests)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[each.name for each in MUTANTS])
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    assert caught_by(mutant, plain_tests()) or caught_by(mutant, storms()), mutant.name


def test_without_a_bug_nothing_fails() -> None:
    assert [test for test in plain_tests() if catches(test)] == []
