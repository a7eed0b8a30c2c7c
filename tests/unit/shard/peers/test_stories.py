"""What a core says of its peers, told as stories: one fault each, and the verdict it must lead to.

Method: the network of `net.py` without chance but its delays; times are those of DESIGN section 7.
"""

import pytest

from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, NodeId, Term
from corelane.shard.effects import Close
from corelane.shard.peers.events import (
    Connecting,
    Gone,
    Judged,
    LifeEnded,
    News,
    PeerClosed,
    Silent,
    Up,
)
from corelane.shard.peers.frames import Kind
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.roll import NEVER_MS
from corelane.shard.peers.watch import Duty
from tests.unit.shard.peers.checks import Checked
from tests.unit.shard.peers.net import ELECTION_TIMEOUT_MS, Core

ONE, TWO, THREE = [(NodeId(node), CoreId(0)) for node in (1, 2, 3)]
GROUP = GroupId(7)
PAIRS = [(ONE, TWO), (TWO, ONE)]
"""(watcher, watched): once the dialing side watches, once the dialed one."""


def settled(core_count: int = 1) -> Checked:
    """Return three nodes that speak with each other."""
    net = Checked(5, 3, core_count)
    net.add_group(GROUP)
    net.run(1_500)
    net.check_all_up()
    return net


def said_since(core: Core, since_ms: int, sort: type[News]) -> list[News]:
    """Return what a core said after a time."""
    return [news for at_ms, news in core.news if at_ms > since_ms and isinstance(news, sort)]


def verdicts_since(core: Core, since_ms: int, peer: PeerId) -> list[object]:
    """Return the verdicts on a peer after a time."""
    said = said_since(core, since_ms, Judged)
    return [news.verdict for news in said if isinstance(news, Judged) and news.peer == peer]


@pytest.mark.parametrize(("watcher", "watched"), PAIRS)
def test_a_dead_process_is_gone_within_one_reconnect(watcher: PeerId, watched: PeerId) -> None:
    net = settled()
    net.elect(GROUP, watched)
    net.run(300)
    since_ms = net.now_ms
    net.kill(watched)
    net.run(60)
    ended = said_since(net.core(watcher), since_ms, LifeEnded)
    assert [(each.peer, each.boot) for each in ended if isinstance(each, LifeEnded)] == [
        (watched, 1)
    ]
    [news] = ended
    assert isinstance(news, LifeEnded)
    assert news.led == [(GROUP, Term(1), 0)], "what it led must be told who is gone"
    assert isinstance(net.core(watcher).peers.verdict(watched), Gone)
    assert net.core(watcher).peers.leader_heard_ms(GROUP, Term(1), watched[0], 0) == NEVER_MS


@pytest.mark.parametrize(("watcher", "watched"), PAIRS)
def test_a_new_life_ends_the_one_before(watcher: PeerId, watched: PeerId) -> None:
    """Nobody hears the death of a machine; its core is back before anybody could be refused."""
    net = settled()
    net.elect(GROUP, watched)
    net.run(300)
    since_ms = net.now_ms
    net.kill(watched, tells=False)
    net.start(watched)
    net.run(3_000)
    core = net.core(watcher)
    ended = said_since(core, since_ms, LifeEnded)
    assert [each.boot for each in ended if isinstance(each, LifeEnded)] == [1]
    assert isinstance(core.peers.verdict(watched), Up)
    net.run(6_000)
    net.check_all_up()


@pytest.mark.parametrize(("watcher", "watched"), PAIRS)
def test_a_broken_connection_is_no_death(watcher: PeerId, watched: PeerId) -> None:
    net = settled()
    since_ms = net.now_ms
    for (receiver, conn), stream in [*net.streams.items()]:
        if {receiver, stream.source} == {watcher, watched}:
            net.end(stream)
            del net.streams[receiver, conn]
            net.core(receiver).inbox.append(PeerClosed(conn))
    net.run(300)
    assert not said_since(net.core(watcher), since_ms, LifeEnded)
    assert verdicts_since(net.core(watcher), since_ms, watched) in ([], [Connecting(), Up()])
    net.check_all_up()


@pytest.mark.parametrize("directions", [((1, 2),), ((2, 1),), ((1, 2), (2, 1))])
def test_silence_is_silence_to_both_ends_and_never_death(
    directions: tuple[tuple[int, int], ...],
) -> None:
    net = settled()
    since_ms = net.now_ms
    net.blocked = {(NodeId(source), NodeId(target)) for source, target in directions}
    net.run(ELECTION_TIMEOUT_MS - 200)
    for watcher, watched in PAIRS:
        assert isinstance(net.core(watcher).peers.verdict(watched), Silent)
        assert isinstance(net.core(watcher).peers.verdict(THREE), Up)
    net.run(20_000)
    for watcher, watched in PAIRS:
        assert not said_since(net.core(watcher), since_ms, LifeEnded)
        session = net.core(watcher).peers.session(watched)
        assert session is not None
        assert not session.is_open, "a connection that carries nothing is given up"
    net.blocked.clear()
    net.run(limits.PEER_BACKOFF_MS_MAX + 1_000)
    net.check_all_up()


def test_a_machine_without_power_is_silent_until_it_is_back() -> None:
    net = settled()
    since_ms = net.now_ms
    net.off.add(TWO[0])
    net.kill(TWO, tells=False)
    net.run(10_000)
    for watcher in (ONE, THREE):
        assert isinstance(net.core(watcher).peers.verdict(TWO), Silent)
        assert not said_since(net.core(watcher), since_ms, LifeEnded)
    net.off.clear()
    net.start(TWO)
    net.run(limits.PEER_BACKOFF_MS_MAX + 1_000)
    for watcher in (ONE, THREE):
        assert len(said_since(net.core(watcher), since_ms, LifeEnded)) == 1
    net.check_all_up()


def test_a_siblings_word_ends_a_life_that_only_fell_silent() -> None:
    net = settled(core_count=2)
    since_ms = net.now_ms
    dead, sibling, watcher = (NodeId(2), CoreId(1)), TWO, ONE
    net.kill(dead, tells=False)
    net.run(50)
    assert not said_since(net.core(watcher), since_ms, LifeEnded)
    net.core(sibling).peers.sibling_ended(net.core(sibling).now_ms, CoreId(1), 1)
    net.run(50)
    [news] = said_since(net.core(watcher), since_ms, LifeEnded)
    assert isinstance(news, LifeEnded)
    assert (news.peer, news.boot) == (dead, 1)


def test_the_word_about_a_former_life_ends_no_later_one() -> None:
    net = settled(core_count=2)
    other = (NodeId(2), CoreId(1))
    net.kill(other)
    net.start(other)
    net.run(3_000)
    since_ms = net.now_ms
    net.core(TWO).peers.sibling_ended(net.core(TWO).now_ms, CoreId(1), 1)
    net.run(200)
    assert not said_since(net.core(ONE), since_ms, LifeEnded)
    net.check_all_up()


def test_a_live_process_with_a_dead_group_does_not_keep_it() -> None:
    net = settled()
    net.elect(GROUP, ONE)
    net.run(500)
    follower, leader = net.core(TWO), net.core(ONE)
    heard_ms = follower.peers.leader_heard_ms(GROUP, Term(1), ONE[0], 0)
    assert follower.now_ms - heard_ms <= 2 * limits.PEER_BEAT_MS
    leader.drop(GROUP)
    net.run(1_000)
    age_ms = follower.now_ms - follower.peers.leader_heard_ms(GROUP, Term(1), ONE[0], 0)
    assert age_ms >= 1_000 - 2 * limits.PEER_BEAT_MS
    assert isinstance(follower.peers.verdict(ONE), Up), "its process lives"


def test_a_leader_whose_wal_write_hangs_is_not_heard() -> None:
    net = settled()
    net.elect(GROUP, ONE)
    net.run(500)
    leader, follower = net.core(ONE), net.core(TWO)
    leader.wal_age_ms = limits.PEER_WAL_AGE_MS_MAX + 1
    assert leader.peers.duty(leader.wal_age_ms) is Duty.GIVE_UP
    net.run(1_000)
    follower_ms = follower.peers.leader_heard_ms(GROUP, Term(1), ONE[0], 0)
    assert follower.now_ms - follower_ms >= 800
    leader_ms = leader.peers.follower_heard_ms(GROUP, Term(1), TWO[0], 0)
    assert leader.now_ms - leader_ms >= 800, "nor is it told that it is followed"
    assert not follower.peers.may_take_over(ONE)
    assert follower.peers.may_take_over(THREE)
    leader.wal_age_ms = None
    net.run(300)
    follower_ms = follower.peers.leader_heard_ms(GROUP, Term(1), ONE[0], 0)
    assert follower.now_ms - follower_ms <= 200


def test_a_leader_whose_data_does_not_arrive_is_not_heard() -> None:
    """Its heartbeats do, on their own socket."""
    net = settled()
    net.word_rate = 1.0
    net.elect(GROUP, ONE)
    net.run(500)
    follower = net.core(TWO)
    net.withheld = {(ONE, TWO, Kind.MESSAGES)}
    net.run(limits.PEER_DATA_AGE_MS_MAX)
    heard_ms = follower.peers.leader_heard_ms(GROUP, Term(1), ONE[0], 0)
    assert follower.now_ms - heard_ms <= 200, "so long it may be slow"
    net.run(5_000)
    said = " ".join([*net.core(ONE).logs, *follower.logs])
    assert "does not arrive" in said, "the link is made anew, and withheld again"
    heard_ms = follower.peers.leader_heard_ms(GROUP, Term(1), ONE[0], 0)
    assert follower.now_ms - heard_ms >= 4_500, "that it opens is no progress"
    assert isinstance(follower.peers.verdict(ONE), Up)
    net.withheld = set()
    net.run(1_000)
    net.check_all_up()


def test_data_that_waits_for_its_acknowledgement_while_this_process_rests_is_not_lost() -> None:
    """The turn in which a process was stopped ends when it goes on, and has read nothing yet.

    Seen after a SIGSTOP, and on a machine so busy that a core got no turn for two seconds.
    """
    net = settled()
    net.word_rate = 1.0
    core = net.core(ONE)
    link = core.peers.data(TWO)
    assert link is not None
    while link.age_ms(core.now_ms) is None:
        net.run(1)
    core.peers.turn(core.now_ms + limits.PEER_DATA_AGE_MS_MAX + 500, None)
    closed = [each for each in core.peers.effects if isinstance(each, Close)]
    assert not any("does not arrive" in each.reason for each in closed)


def test_a_pause_is_held_against_nobody_and_no_lease_outlives_it() -> None:
    net = settled()
    net.elect(GROUP, ONE)
    net.run(500)
    core = net.core(ONE)
    since_ms = net.now_ms
    assert core.peers.lease_from_ms(GROUP, Term(1), TWO[0], 0) != NEVER_MS
    net.pause(ONE, 3_000)
    net.run(3_000)
    assert core.peers.watch.resumed_ms == core.now_ms
    assert core.peers.lease_from_ms(GROUP, Term(1), TWO[0], 0) == NEVER_MS
    heard_ms = core.peers.follower_heard_ms(GROUP, Term(1), TWO[0], 0)
    assert 0 <= core.now_ms - heard_ms <= 2 * limits.PEER_BEAT_MS, "the pause is nobody's silence"
    assert core.peers.duty(None) is Duty.LEAD
    net.run(2_500)
    assert not said_since(core, since_ms, LifeEnded)
    assert Silent not in [type(each) for each in verdicts_since(core, since_ms, TWO)]
    assert core.peers.lease_from_ms(GROUP, Term(1), TWO[0], 0) != NEVER_MS
    assert core.peers.duty(None) is Duty.LEAD
    net.check_all_up()


def test_peers_say_of_a_paused_core_that_it_is_silent_and_later_that_it_is_up() -> None:
    net = settled()
    since_ms = net.now_ms
    net.pause(TWO, 4_000)
    net.run(4_000 + limits.PEER_BACKOFF_MS_MAX)
    for watcher in (ONE, THREE):
        sorts = [type(each) for each in verdicts_since(net.core(watcher), since_ms, TWO)]
        assert sorts[0] is Silent
        assert sorts[-1] is Up
        assert Gone not in sorts
    net.check_all_up()


def test_a_leader_in_an_older_term_is_told_so() -> None:
    net = settled()
    net.core(ONE).lead(GROUP, Term(1))
    net.run(300)
    net.core(TWO).lead(GROUP, Term(2))
    net.run(300)
    assert GROUP not in net.core(ONE).leading
    assert net.core(ONE).peers.leader_heard_ms(GROUP, Term(2), TWO[0], 0) != NEVER_MS
    assert net.core(THREE).peers.leader_heard_ms(GROUP, Term(1), ONE[0], 0) != NEVER_MS


def test_who_is_no_peer_any_more_is_forgotten() -> None:
    net = settled()
    core = net.core(ONE)
    core.peers.know(core.now_ms, {TWO: ("2/0", 9192)})
    core.perform()
    net.run(200)
    assert core.peers.verdict(THREE) is None
    assert isinstance(core.peers.verdict(TWO), Up)
    assert set(core.peers._by_node) == {TWO[0]}


def test_a_repeated_frame_is_taken_once_and_ends_its_connection() -> None:
    net = settled()
    net.word_rate = 1.0
    since_ms = net.now_ms
    for _ in range(20):
        net.repeat_rate = 1.0
        net.run(20)
        net.repeat_rate = 0.0
        net.run(200)
    closes = [line for core in net.alive() for line in core.logs if "was due" in line]
    assert closes, "each repetition is told, with its number"
    assert not [each for core in net.alive() for each in said_since(core, since_ms, LifeEnded)]
    net.run(limits.PEER_BACKOFF_MS_MAX + 1_000)  # the lines broke often: they are made anew late
    net.check_all_up()


def test_one_that_says_nothing_acknowledges_with_its_heartbeat() -> None:
    net = settled()
    net.word_rate = 1
    net.run(50)
    net.word_rate = 0
    link = net.core(ONE).peers.data(TWO)
    assert link is not None
    assert link.flight_bytes > 0
    net.run(limits.PEER_BEAT_MS + 3 * limits.PEER_BEAT_PULL_MS)
    for core in net.alive():
        for other in (ONE, TWO, THREE):
            data = core.peers.data(other)
            assert data is None or (data.flight_bytes == 0 and data.age_ms(core.now_ms) is None)
