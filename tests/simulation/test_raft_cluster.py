"""Method: many short seeds; a failure prints the command that replays its seed."""

import pytest

from tests.simulation.raft_cluster import main, run_seed

SEEDS = 120


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_a_group_keeps_its_promises_in_bad_weather(seed: int) -> None:
    run_seed(seed)


def test_a_seed_decides_everything() -> None:
    first: list[str] = []
    second: list[str] = []
    run_seed(5, first.append)
    run_seed(5, second.append)
    assert first == second
    assert len(first) > 100


def test_a_seed_can_be_replayed_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "5", "--trace"]) == 0
    assert "1 seeds" in capsys.readouterr().out
