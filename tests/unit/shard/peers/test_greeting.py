"""Cores that should not speak with each other say why, once, and try again less and less often.

Method: one `Peers` at a time; this file plays whoever is at the other end.
"""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelane.model import limits
from corelane.model.ids import ConnId, CoreId, NodeId
from corelane.shard.effects import Close, Dial, LogLine, Send
from corelane.shard.peers import hello
from corelane.shard.peers.events import (
    Dialed,
    DialFailed,
    LifeEnded,
    PeerAccepted,
    PeerClosed,
    PeerEffect,
    PeerFrame,
)
from corelane.shard.peers.frames import LENGTH_BYTES, Channel, Kind, decode, encode
from corelane.shard.peers.hello import Greeting, Identity, PeerId, Refusal, Refused
from corelane.shard.peers.leads import Leads
from corelane.shard.peers.line import backoff_ms
from corelane.shard.peers.peers import Peers, PeersConfig
from corelane_native import Arena
from tests.unit.shard.peers.samples import CLUSTER, identity

ONE, TWO = (NodeId(1), CoreId(0)), (NodeId(2), CoreId(0))
CONN = ConnId(50)
ADDRESS = ("two", 9192)


class Rig:
    """One core and the sentences it says."""

    def __init__(self, own: Identity, peer: PeerId) -> None:
        config = PeersConfig(own, 1000)
        leads = Leads(lambda group: False)
        self.peers = Peers(0, config, random.Random(1), Arena(1 << 20), leads)
        self.peers.know(0, {peer: ADDRESS})
        self.now_ms = 0

    def turn(self, by_ms: int = 10) -> list[PeerEffect]:
        """Turn until *by_ms* have passed; return what was asked for."""
        done: list[PeerEffect] = []
        for _ in range(by_ms // 10):
            self.now_ms += 10
            self.peers.turn(self.now_ms, None)
            done += self.effects()
        return done

    def take(self, event: object) -> list[PeerEffect]:
        self.peers.take(self.now_ms, event)  # type: ignore[arg-type]
        return self.effects()

    def effects(self) -> list[PeerEffect]:
        done, self.peers.effects = self.peers.effects, []
        return done

    def greet(self, greeting: Greeting, conn: ConnId = CONN) -> list[PeerEffect]:
        """Connect and say hello."""
        assert self.take(PeerAccepted(conn)) == []
        return self.take(frame(Kind.HELLO, hello.encode_greeting(greeting), conn))


def frame(kind: Kind, body: bytes, conn: ConnId = CONN, number: int = 0) -> PeerFrame:
    return PeerFrame(conn, encode(kind, number, body)[LENGTH_BYTES:])


def said(effects: list[PeerEffect]) -> list[tuple[Kind, memoryview]]:
    """Return the frames among effects."""
    sent = [each.parts for each in effects if isinstance(each, Send)]
    data = [b"".join([part for part in parts if isinstance(part, bytes)]) for parts in sent]
    frames = [decode(each[LENGTH_BYTES:], 1 << 20) for each in data]
    return [(each.kind, each.body) for each in frames]


def refusal_of(effects: list[PeerEffect]) -> Refusal:
    [(kind, body)] = said(effects)
    assert kind is Kind.REFUSE
    assert any(isinstance(each, Close) for each in effects)
    return hello.decode_refusal(body)


def hello_from(own: Identity, to: PeerId = TWO, channel: Channel = Channel.SESSION) -> Greeting:
    return own.greet(to, channel)


WRONG = [
    (replace(identity(1), cluster=bytes(16)), TWO, Refused.WRONG_CLUSTER),
    (identity(2, 1), TWO, Refused.OWN_NODE),
    (replace(identity(1), version_min=7, version_max=9), TWO, Refused.NO_COMMON_VERSION),
    (identity(1), (NodeId(2), CoreId(3)), Refused.NO_SUCH_CORE),
    (identity(1), (NodeId(3), CoreId(0)), Refused.WRONG_NODE),
    (identity(9), TWO, Refused.WRONG_SIDE),
]


@pytest.mark.parametrize(("own", "to", "code"), WRONG)
def test_who_is_not_to_be_spoken_with_is_refused_and_that_is_logged_once(
    own: Identity, to: PeerId, code: Refused
) -> None:
    rig = Rig(identity(2), ONE)
    first = rig.greet(hello_from(own, to))
    refusal = refusal_of(first)
    assert refusal.code is code
    assert refusal.sentence.endswith(".")
    assert len([each for each in first if isinstance(each, LogLine)]) == 1
    again = rig.greet(hello_from(own, to), ConnId(51))
    assert refusal_of(again) == refusal
    assert not [each for each in again if isinstance(each, LogLine)]


def test_the_dialed_core_is_judged_by_the_dialing_one_too() -> None:
    for own, code in [
        (replace(identity(2), cluster=bytes(16)), "cluster"),
        (identity(3), "answers for"),
        (replace(identity(2), version_min=7, version_max=9), "versions"),
    ]:
        rig = Rig(identity(1), TWO)
        dials = [each for each in rig.turn() if isinstance(each, Dial)]
        assert [each.host for each in dials] == ["two", "two"]
        [(kind, _)] = said(rig.take(Dialed(dials[1].dial, CONN)))
        assert kind is Kind.HELLO
        welcome = hello.encode_greeting(own.greet(ONE, Channel.SESSION))
        effects = rig.take(frame(Kind.WELCOME, welcome))
        [line] = [each for each in effects if isinstance(each, LogLine)]
        assert code in line.text
        assert [each.conn for each in effects if isinstance(each, Close)] == [CONN]


def test_a_refused_core_dials_again_less_and_less_often_and_logs_once() -> None:
    rig = Rig(identity(1), TWO)
    refusal = hello.encode_refusal(Refusal(Refused.WRONG_CLUSTER, "Another cluster."))
    dials: list[int] = []
    logs = 0
    conn = 100
    for _ in range(3_000):
        for each in rig.turn():
            if isinstance(each, Dial):
                dials.append(rig.now_ms)
                conn += 1
                rig.take(Dialed(each.dial, ConnId(conn)))
                effects = rig.take(frame(Kind.REFUSE, refusal, ConnId(conn)))
                logs += len([one for one in effects if isinstance(one, LogLine)])
    assert logs == 1
    assert 20 < len(dials) < 50, "two lines, half a minute, up to 5 s apart"
    assert len([at_ms for at_ms in dials if at_ms > 20_000]) <= 12


def test_a_supervisors_word_that_a_core_is_away_ends_its_life() -> None:
    rig = Rig(identity(1), TWO)
    connect(rig)
    rig.take(PeerClosed(CONN))
    [dial] = [each for each in rig.turn(100) if isinstance(each, Dial)][:1]
    rig.take(Dialed(dial.dial, ConnId(70)))
    away = hello.encode_refusal(Refusal(Refused.CORE_AWAY, "It is starting.", 100))
    rig.take(frame(Kind.REFUSE, away, ConnId(70)))
    assert [each.boot for each in rig.peers.news if isinstance(each, LifeEnded)] == [100]


def connect(rig: Rig) -> None:
    """Let the rig's session be welcomed."""
    dial = [each for each in rig.turn() if isinstance(each, Dial)][1]
    rig.take(Dialed(dial.dial, CONN))
    welcome = hello.encode_greeting(identity(2).greet(ONE, Channel.SESSION))
    rig.take(frame(Kind.WELCOME, welcome))


def test_a_refusal_while_the_session_answers_is_no_death() -> None:
    rig = Rig(identity(1), TWO)
    dials = [each for each in rig.turn() if isinstance(each, Dial)]
    rig.take(Dialed(dials[1].dial, CONN))
    rig.take(frame(Kind.WELCOME, hello.encode_greeting(identity(2).greet(ONE, Channel.SESSION))))
    rig.take(DialFailed(dials[0].dial, True, "refused"))
    assert not [each for each in rig.peers.news if isinstance(each, LifeEnded)]


def test_a_former_life_is_refused() -> None:
    rig = Rig(identity(2), ONE)
    [(kind, _)] = said(rig.greet(hello_from(identity(1, boot=9))))
    assert kind is Kind.WELCOME
    refusal = refusal_of(rig.greet(hello_from(identity(1, boot=8)), ConnId(51)))
    assert refusal.code is Refused.FORMER_LIFE
    assert refusal.boot == 9


def test_a_second_connection_of_the_same_life_replaces_the_first() -> None:
    rig = Rig(identity(2), ONE)
    rig.greet(hello_from(identity(1)))
    effects = rig.greet(hello_from(identity(1)), ConnId(51))
    assert [each.conn for each in effects if isinstance(each, Close)] == [CONN]
    assert not [each for each in rig.peers.news if isinstance(each, LifeEnded)]
    assert rig.take(PeerClosed(CONN)) == []
    session = rig.peers.session(ONE)
    assert session is not None
    assert session.is_open


def test_a_stranger_that_says_nothing_is_closed_and_there_are_few() -> None:
    rig = Rig(identity(2), ONE)
    for number in range(limits.PEER_UNGREETED_MAX):
        assert rig.take(PeerAccepted(ConnId(1000 + number))) == []
    [close] = rig.take(PeerAccepted(ConnId(9999)))
    assert isinstance(close, Close)
    closes = [each for each in rig.turn(limits.PEER_GREETING_MS_MAX + 10) if type(each) is Close]
    assert len(closes) == limits.PEER_UNGREETED_MAX


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        encode(Kind.BEAT, 0, b"")[LENGTH_BYTES:],
        encode(Kind.HELLO, 1, hello.encode_greeting(identity(1).greet(TWO, Channel.DATA)))[4:],
        encode(Kind.HELLO, 0, b"junk")[LENGTH_BYTES:],
    ],
)
def test_who_does_not_greet_is_closed_with_a_sentence(data: bytes) -> None:
    rig = Rig(identity(2), ONE)
    rig.take(PeerAccepted(CONN))
    [close] = rig.take(PeerFrame(CONN, data))
    assert isinstance(close, Close)
    assert close.reason.endswith(".")
    assert rig.peers.session(ONE) is not None


def test_a_frame_of_the_other_channel_closes_the_line_and_says_nothing_else() -> None:
    rig = Rig(identity(2), ONE)
    rig.greet(hello_from(identity(1)))
    [close] = rig.take(frame(Kind.MESSAGES, b"", number=1))
    assert isinstance(close, Close)
    assert "MESSAGES" in close.reason
    assert rig.peers.news == []


def test_lives_rise_and_versions_agree_on_the_highest_common_one() -> None:
    own = replace(identity(1), version_min=2, version_max=5)
    other = replace(identity(2), version_min=1, version_max=3)
    assert hello.version_between(own, other.greet(ONE, Channel.DATA)) == 3
    assert own.cluster == CLUSTER


@given(attempt=st.integers(0, 10_000), seed=st.integers())
def test_the_wait_doubles_to_a_limit_and_half_of_it_is_chance(attempt: int, seed: int) -> None:
    waits = [backoff_ms(attempt, random.Random(seed + n)) for n in range(5)]
    longest = min(limits.PEER_BACKOFF_MS_MIN * 2 ** max(0, attempt - 1), limits.PEER_BACKOFF_MS_MAX)
    if attempt == 0:
        assert waits == [0] * 5
    else:
        assert all(longest // 2 <= wait <= longest for wait in waits)
