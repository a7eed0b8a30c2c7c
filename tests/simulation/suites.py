"""What is run against a planted bug: hunts over seeds and files of tests, until something fails."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from corelane.model.record import record
from tests.simulation import (
    cluster_power,
    cluster_storm,
    fleet_storm,
    node_storm,
    raft_changes,
    raft_cluster,
    raft_losses,
    transaction_storm,
    world,
)
from tests.unit.producers import test_transactions_world
from tests.unit.producers.transaction_world import World as Transactions
from tests.unit.storage import script
from tests.unit.storage.machine import SMALL

ROOT: Final = Path(__file__).parents[2]
CRASH_ACTIONS: Final = 150
CRASH_STRIDE: Final = 2
FAILURE_CHARACTERS_MAX: Final = 90


@record
class Found:
    """How far a suite came."""

    steps: int
    """Seeds or tests that were run, the one that failed included."""
    failure: str
    """Its first line, if it said anything."""
    exception: str
    """The exception's type; empty: nothing failed."""


@record
class Suite:
    """A suite that stops at its first failure."""

    name: str
    unit: str
    steps_max: int
    run: Callable[[int], Found]
    """Run so many steps at most, the same ones every time."""


def first_line(error: BaseException) -> str:
    """Return what an exception says, as short as a table's cell."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return text if len(text) <= FAILURE_CHARACTERS_MAX else text[:FAILURE_CHARACTERS_MAX] + "…"


def seeded(name: str, run_seed: Callable[[int], object], seeds: range) -> Suite:
    """Return a hunt over *seeds*."""

    def run(steps_max: int) -> Found:
        for step, seed in enumerate(seeds[:steps_max], 1):
            try:
                run_seed(seed)
            except Exception as error:  # noqa: BLE001 whatever a planted bug leads to is looked at
                return Found(step, first_line(error), type(error).__name__)
        return Found(len(seeds[:steps_max]), "", "")

    return Suite(name, "seeds", len(seeds), run)


class _Watch:
    """What pytest tells while it runs: how many tests there were, and which failed first."""

    def __init__(self, steps_max: int) -> None:
        self.steps_max = steps_max
        self.steps = 0
        self.found: Found | None = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        del items[self.steps_max :]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.steps += 1

    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        if self.found is None and call.excinfo is not None:
            error = call.excinfo.value
            self.found = Found(self.steps, first_line(error), call.excinfo.typename)


def from_files(name: str, folder: str, *files: str) -> Suite:
    """Return the tests of *files*, in their order."""

    def run(steps_max: int) -> Found:
        watch = _Watch(steps_max)
        paths = [str(ROOT / folder / file) for file in files]
        options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=1"]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = pytest.main([*options, *paths], plugins=[watch])
        if watch.found is not None:
            return watch.found
        assert status == pytest.ExitCode.OK, said.getvalue()
        return Found(watch.steps, "", "")

    return Suite(name, "tests", 10_000, run)


def _crashes(seed: int) -> None:
    script.crash_everywhere(SMALL, seed, actions=CRASH_ACTIONS, stride=CRASH_STRIDE)


def _cluster(seed: int) -> None:
    cluster_storm.Storm(seed).run()


def _cores(seed: int) -> None:
    node_storm.Storm(seed, 3, has_power_cuts=True).run()


def _transactions(seed: int) -> None:
    transactions = Transactions(seed)
    transactions.run()
    test_transactions_world.check(transactions)


def _storm(seed: int) -> None:
    transaction_storm.TransactionStorm(seed).run()


RAFT: Final = seeded("raft_cluster", raft_cluster.run_seed, range(1, 201))
MEMBERS: Final = seeded("raft_changes", raft_changes.run_seed, range(1, 201))
LOSSES: Final = seeded("raft_losses", raft_losses.run_seed, range(1, 301))
CLUSTER: Final = seeded("cluster_storm", _cluster, range(1, 13))
POWER: Final = seeded("cluster_power", cluster_power.run_seed, range(1, 13))
FLEET: Final = seeded("fleet_storm", fleet_storm.run_seed, range(11, 31))
CORES: Final = seeded("node_storm", _cores, range(1, 31))
WORLD: Final = seeded("world", world.run_seed, range(1, 31))
CRASHES: Final = seeded("storage crashes", _crashes, range(10))
TRANSACTION_STORM: Final = seeded("transaction_storm", _storm, range(1, 61))
TRANSACTIONS: Final = seeded("transactions", _transactions, range(24))
RAFT_TESTS: Final = from_files(
    "raft tests",
    "tests/unit/raft",
    "test_scripts.py",
    "test_core.py",
    "test_paper.py",
    "test_paper_log.py",
    "test_members.py",
    "test_reads.py",
)
STORAGE_TESTS: Final = from_files(
    "storage tests", "tests/unit/storage", "test_recovery.py", "test_corruption.py"
)
SESSION_TESTS: Final = from_files(
    "session tests",
    "tests/unit/shard/peers",
    "test_session.py",
    "test_data_link.py",
    "test_greeting.py",
    "test_leads.py",
    "test_stories.py",
    "test_storms.py",
)
PRODUCER_TESTS: Final = from_files("producer tests", "tests/unit/producers", "test_sequences.py")
TRANSACTION_TESTS: Final = from_files(
    "transaction tests",
    "tests/unit/producers",
    "test_open_transactions.py",
    "test_transactions.py",
    "test_transactions_end.py",
)
CLUSTER_TESTS: Final = from_files(
    "cluster tests", "tests/simulation", "test_cluster_storm.py", "test_reused_id.py"
)
READ_TESTS: Final = from_files("read tests", "tests/simulation", "test_reads.py")
COUNCIL_TESTS: Final = from_files("council tests", "tests/unit/shard", "test_council.py")
REASSIGNMENT_TESTS: Final = from_files(
    "reassignment tests", "tests/simulation", "test_reassigning.py"
)

SUITES: Final = (
    RAFT,
    MEMBERS,
    LOSSES,
    CLUSTER,
    POWER,
    FLEET,
    CORES,
    WORLD,
    CRASHES,
    TRANSACTIONS,
    TRANSACTION_STORM,
    RAFT_TESTS,
    STORAGE_TESTS,
    SESSION_TESTS,
    PRODUCER_TESTS,
    TRANSACTION_TESTS,
    CLUSTER_TESTS,
    READ_TESTS,
    REASSIGNMENT_TESTS,
    COUNCIL_TESTS,
)
