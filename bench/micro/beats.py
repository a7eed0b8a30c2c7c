"""Measures what heartbeats between two cores cost, in microseconds of one core per 1,000 rows.

A round is all of it: pack the rows, checksum, decode, sort them, answer, count the answer. *Idle*
repeats itself, as groups without traffic do; *busy* has another committed index in every row;
*elections* another term. `python -m bench.micro.beats` prints the table; ten seconds.
"""

import time
from collections.abc import Callable
from typing import Final

from corelane.model.ids import CoreId, GroupId, Index, NodeId, Term
from corelane.shard.peers.beats import Health, encode_answer
from corelane.shard.peers.frames import LENGTH_BYTES, Kind, decode, encode
from corelane.shard.peers.roll import Terms
from corelane.shard.peers.session import Session

ROUNDS: Final = 50
REPEATS: Final = 5
BYTES_MAX: Final = 8 << 20
FIT: Final = Health(0, None, None)
Change = Callable[["Pair", int], None]


class Pair:
    """Two sessions that are handed each other's frames."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.leader = Session((NodeId(2), CoreId(0)), 11)
        self.follower = Session((NodeId(1), CoreId(0)), 12)
        self.terms = Terms()
        self.now_ms = 1_000
        for session, boot in ((self.leader, 12), (self.follower, 11)):
            session.begin_life(boot)
            session.opened(self.now_ms)
        for group in range(rows):
            self.put(group, 1, 1)

    def put(self, group: int, term: int, committed: int) -> None:
        """Lead a group and follow it."""
        self.leader.led.put(GroupId(group), Term(term), Index(committed))
        if self.terms.by_group.get(GroupId(group)) != term:
            self.terms.put(GroupId(group), Term(term))
            self.terms.follows(GroupId(group))

    def round(self) -> int:
        """Send a heartbeat and its answer; return how many rows raft must be stepped with."""
        self.now_ms += 100
        body = self.leader.beat(self.now_ms, FIT)
        assert body is not None
        beat = decode(encode(Kind.BEAT, 0, body)[LENGTH_BYTES:], BYTES_MAX)
        answer, heard = self.follower.take_beat(self.now_ms, beat.body, self.terms, None)
        said = encode(Kind.BEAT_ANSWER, 0, encode_answer(answer))
        back = decode(said[LENGTH_BYTES:], BYTES_MAX)
        self.leader.take_answer(self.now_ms, back.body)
        return 0 if heard is None else len(heard.rows)


def idle(pair: Pair, turn: int) -> None:
    """Change nothing."""


def busy(pair: Pair, turn: int) -> None:
    """Commit something in every group."""
    for group in range(pair.rows):
        pair.put(group, 1, turn + 2)


def elections(pair: Pair, turn: int) -> None:
    """Lead every group in another term."""
    for group in range(pair.rows):
        pair.put(group, turn + 2, 1)


def measured_us(rows: int, change: Change) -> float:
    """Return the best of several averages of a round, without what changed the rows."""
    best = float("inf")
    for _ in range(REPEATS):
        pair = Pair(rows)
        pair.round()
        spent = 0
        for turn in range(ROUNDS):
            change(pair, turn)
            start = time.process_time_ns()
            pair.round()
            spent += time.process_time_ns() - start
        best = min(best, spent / ROUNDS / 1_000)
    return best


def main() -> None:
    """Print the table."""
    print(f"{'rows':>6} {'':10} {'µs a round':>11} {'µs per 1,000 rows':>18} {'% of a core':>12}")
    for change in (idle, busy, elections):
        for rows in (100, 1_000, 5_000):
            took_us = measured_us(rows, change)
            per_thousand_us = took_us * 1_000 / rows
            share = took_us * 10 / 1e6 * 100
            name = change.__name__
            print(f"{rows:>6} {name:10} {took_us:>11.0f} {per_thousand_us:>18.0f} {share:>12.2f}")


if __name__ == "__main__":
    main()
