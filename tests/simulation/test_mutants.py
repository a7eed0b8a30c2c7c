"""The table of planted bugs fits the product, and nothing passes for a catch that is none."""

import pytest

from tests.simulation import mutants, simulate
from tests.simulation.hunts import HUNTS, Hunt, Tally, command
from tests.simulation.mutant_table import BUGS, ROWS, Rewrite, Row, place, replacement
from tests.simulation.mutants import Result
from tests.simulation.suites import RAFT, SUITES, Found, from_files, seeded


def name_of(row: Row) -> str:
    return f"{row.number} {row.plant.name} by {row.suite.name}"


def test_every_bug_of_the_list_is_planted() -> None:
    """Issue 5's twenty-four, and ours behind them."""
    assert [*BUGS] == [*range(1, 34)]
    assert {row.number for row in ROWS} == BUGS.keys()


def test_every_suite_can_be_named_to_a_process() -> None:
    assert len({suite.name for suite in SUITES}) == len(SUITES)
    assert {row.suite.name for row in ROWS} <= {suite.name for suite in SUITES}


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_bug_has_its_place_in_the_product(row: Row) -> None:
    made = replacement(row.plant)
    assert made != getattr(row.plant.owner, row.plant.attribute)
    assert place(row.plant).endswith(row.plant.attribute)


def test_a_line_that_has_changed_is_missed() -> None:
    gone = Rewrite("gone", mutants, "main", "a line that is no more", "pass")
    with pytest.raises(AssertionError, match="stands 0 times"):
        replacement(gone)


def test_a_rewritten_function_differs_in_its_line() -> None:
    plant = Rewrite("not", mutants, "said", "found.failure or", "found.failure and")
    assert mutants.said(Found(1, "told", "Error")) == "told"
    assert replacement(plant)(Found(1, "told", "Error")) == "Error"


@pytest.mark.parametrize(
    ("found", "is_caught"),
    [
        (Found(3, "a rule is broken", "AssertionError"), True),
        (Found(3, "", "AssertionError"), True),
        (Found(200, "", ""), False),
        (Found(3, "takes 2 arguments", "TypeError"), False),
        (Found(0, "", "time is up"), False),
    ],
)
def test_only_a_failure_for_the_bugs_sake_is_a_catch(found: Found, *, is_caught: bool) -> None:
    assert Result(ROWS[0], found, 1.0).is_caught is is_caught


def test_a_hunt_stops_at_the_seed_that_fails() -> None:
    ran = []

    def run_seed(seed: int) -> None:
        ran.append(seed)
        assert seed != 12, "twelve"

    suite = seeded("", run_seed, range(10, 20))
    found = suite.run(100)
    assert (found.steps, found.exception, ran) == (3, "AssertionError", [10, 11, 12])
    assert suite.run(2) == Found(2, "", "")


def test_the_tests_of_a_file_stop_at_the_one_that_fails() -> None:
    here = from_files("", "tests/unit/producers", "test_sequences.py")
    assert here.run(3) == Found(3, "", "")
    at = next(at for at, row in enumerate(ROWS) if (row.number, row.suite.unit) == (20, "tests"))
    assert mutants._with_bug(at).exception == "AssertionError"


def test_a_hunt_counts_what_it_did() -> None:
    outcome = simulate.run("raft_cluster", 3)
    assert not outcome.failure
    assert outcome.tally.events > 100
    assert outcome.tally.faults > 0
    assert RAFT.unit == "seeds"


def test_a_seed_that_fails_is_told_with_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(seed: int) -> Tally:
        raise AssertionError(f"seed {seed} is bad\nand more")

    bad = Hunt("bad", fail, "tests.simulation.bad --seed {seed}")
    monkeypatch.setitem(simulate.BY_NAME, "bad", bad)
    outcome = simulate.run("bad", 7)
    assert outcome.failure == "AssertionError: seed 7 is bad"
    assert command(bad, 7) == "python -m tests.simulation.bad --seed 7"
    assert "1       1" in simulate.totals([bad], [outcome])


def test_every_hunt_names_a_module_that_is_there() -> None:
    for hunt in HUNTS:
        module = command(hunt, 1).split()[2]
        __import__(module)
