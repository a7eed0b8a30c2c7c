"""Rounds of heartbeats: cores of different nodes come to beat together, and none beats wildly."""

import itertools
import random

import pytest

from corelane.model import limits
from corelane.shard.peers.rounds import GRACE_MS, Rounds

NODES = 5
DELAY_MS_MAX = 2


class Beats:
    """When each of some nodes began its rounds, each hearing all others a little later."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.rounds = [Rounds(chance.randrange(limits.PEER_BEAT_MS)) for _ in range(NODES)]
        self.began_ms: list[list[int]] = [[] for _ in range(NODES)]
        self._chance = chance
        self._posts: list[tuple[int, int]] = []

    def go(self, ms: int) -> None:
        """Let time pass; every node turns each millisecond."""
        for now_ms in range(ms):
            due = [post for post in self._posts if post[0] <= now_ms]
            self._posts = [post for post in self._posts if post[0] > now_ms]
            for node, rounds in enumerate(self.rounds):
                before = rounds.number
                for _ in [sender for _, sender in due if sender < node]:
                    rounds.heard_lower(now_ms)
                rounds.turn(now_ms)
                if rounds.number != before:
                    self.began_ms[node].append(now_ms)
                    delay_ms = 1 + self._chance.randrange(DELAY_MS_MAX)
                    self._posts.append((now_ms + delay_ms, node))


@pytest.mark.parametrize("seed", range(20))
def test_all_nodes_come_to_beat_at_the_same_time(seed: int) -> None:
    """Within two seconds, to within what their messages need."""
    beats = Beats(seed)
    beats.go(4_000)
    first = [each for each in beats.began_ms[0] if each > 2_000]
    assert len(first) >= 18
    for others in beats.began_ms[1:]:
        for at_ms in first[:-1]:
            assert any(abs(each - at_ms) <= GRACE_MS for each in others)


@pytest.mark.parametrize("seed", range(20))
def test_no_round_is_much_too_early_or_too_late(seed: int) -> None:
    """Whoever is heard: what counts rounds, or waits for one, may rely on it (B1)."""
    beats = Beats(seed)
    beats.go(4_000)
    for began_ms in beats.began_ms:
        gaps = [later - former for former, later in itertools.pairwise(began_ms)]
        assert min(gaps) >= limits.PEER_BEAT_MS - 2 * limits.PEER_BEAT_PULL_MS
        assert max(gaps) <= limits.PEER_BEAT_MS + limits.PEER_BEAT_PULL_MS + GRACE_MS


def test_the_lowest_node_is_moved_by_nobody() -> None:
    beats = Beats(1)
    beats.go(2_000)
    began_ms = beats.began_ms[0]
    gaps = {later - former for former, later in itertools.pairwise(began_ms)}
    assert gaps == {limits.PEER_BEAT_MS}


def test_a_late_round_does_not_make_those_that_follow_late() -> None:
    rounds = Rounds(0)
    rounds.turn(0)
    rounds.turn(130)
    assert (rounds.number, rounds.at_ms) == (2, 200)
    rounds.turn(900)
    assert (rounds.number, rounds.at_ms) == (3, 1_000)
