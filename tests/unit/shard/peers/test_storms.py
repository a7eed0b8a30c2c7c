"""Two to five nodes whose processes, machines and network do what they do, checked all the time.

Method: `net.py` and `checks.py`. One seed is one world; the number in a test's name replays it.
"""

import pytest

from tests.unit.shard.peers.checks import Checked, calm, storm


@pytest.mark.parametrize("seed", range(8))
def test_sessions_tell_the_truth_through_a_storm(seed: int) -> None:
    net = Checked(seed, nodes=2 + seed % 4)
    storm(net, 20_000)
    calm(net)


@pytest.mark.parametrize("seed", range(3))
def test_sessions_survive_damaged_and_repeated_frames(seed: int) -> None:
    net = Checked(1000 + seed, nodes=3)
    net.damage_rate = net.repeat_rate = 0.002
    storm(net, 20_000)
    calm(net)


@pytest.mark.parametrize("seed", range(3))
def test_nodes_of_several_cores_speak_pair_by_pair(seed: int) -> None:
    net = Checked(2000 + seed, nodes=3, core_count=2)
    storm(net, 10_000)
    calm(net)
