"""Which old entries are read for followers that lag, and when: as fast as their cores ask for.

A node that comes back after minutes would otherwise take, for a while, what its peers' producers
need. So the core that catches up says how many bytes a second it wants from each other core
(heartbeats, `beats.Health`), and here reads wait for that: a few groups at a time, first come first
served, the controller's group always. What memory still has goes without waiting: that is new.

Invariants:
T1. Reads for one peer core begin only while it has asked for more than it got.
T2. Of one peer core at most so many groups are read for at once; each gets its turn.
T3. For all peer cores together reads begin only while this core may give more than it gave.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from corelane.model.config import ReplicationConfig
from corelane.model.ids import CONTROLLER_GROUP, GroupId, MemberId
from corelane.model.limits import KIB
from corelane.raft.state import NEVER_MS
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.peers import Peers

Key = tuple[GroupId, MemberId]
BURST_MS: Final = 200
"""What was not used of a rate is kept for so long: two heartbeats."""
_SECOND_MS: Final = 1_000
LOOK_MS: Final = 10
"""A read brings a megabyte or so: one each 50 ms held a follower to 20 MB/s."""
LATE_MS: Final = 100
LATE_PART: Final = 4
RATE_KIB_MAX: Final = (1 << 32) - 1


class _Lane:
    """The reads for one peer core."""

    __slots__ = ("active", "at_ms", "bytes_left", "is_advancing", "waiting")

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms
        self.bytes_left = 0
        self.is_advancing = False
        self.active: set[Key] = set()
        self.waiting: deque[tuple[Key, Callable[[], None]]] = deque()


class Lanes:
    """The reads for followers of one core, by the core that they are for."""

    def __init__(
        self, rate_of: Callable[[PeerId], int], settings: Callable[[], ReplicationConfig]
    ) -> None:
        self._rate_of = rate_of
        self._settings = settings
        self._lanes: dict[PeerId, _Lane] = {}
        self._lane_of: dict[Key, PeerId] = {}
        self._now_ms = 0
        self._given_ms = 0
        self._given_left = 0
        """What may yet be read for all, of what this core gives (T3)."""

    def next_ms(self, now_ms: int) -> int:
        """Return when to look again at reads that wait for their time."""
        is_waiting = any(lane.waiting for lane in self._lanes.values())
        return now_ms + LOOK_MS if is_waiting else NEVER_MS

    def ask(self, peer: PeerId, key: Key, begin: Callable[[], None]) -> None:
        """Have *begin* called when a read for *key* may begin: now, or in a later turn."""
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._lanes[peer] = _Lane(self._now_ms)
        self._lane_of[key] = peer
        if key[0] == CONTROLLER_GROUP:
            begin()
            return
        lane.waiting.append((key, begin))
        if not lane.is_advancing:  # else a read that needs no disk is over, and asks for the next
            self._advance(peer, lane)

    def used(self, key: Key, size_bytes: int) -> None:
        """Take note that so much was read for *key*."""
        peer = self._lane_of.get(key)
        lane = None if peer is None else self._lanes.get(peer)
        if lane is not None:
            lane.bytes_left -= size_bytes
            self._given_left -= size_bytes

    def ended(self, key: Key) -> None:
        """Take note that nothing more is to be read for *key* now."""
        peer = self._lane_of.pop(key, None)
        lane = None if peer is None else self._lanes.get(peer)
        if lane is not None:
            lane.active.discard(key)

    def turn(self, now_ms: int) -> None:
        """Let begin what may, and forget what is idle."""
        self._now_ms = now_ms
        given = max(KIB, self._settings().feeding_bytes_per_second)
        self._given_left = _filled(self._given_left, given, now_ms - self._given_ms)
        self._given_ms = now_ms
        for peer, lane in [*self._lanes.items()]:
            rate = self._rate_of(peer)
            lane.bytes_left = _filled(lane.bytes_left, rate, now_ms - lane.at_ms)
            lane.at_ms = now_ms
            if self._advance(peer, lane):
                self._lanes[peer] = self._lanes.pop(peer)  # others come first the next time
            if not lane.active and not lane.waiting and lane.bytes_left >= _burst(rate):
                del self._lanes[peer]

    def _advance(self, peer: PeerId, lane: _Lane) -> bool:
        """Let begin what may; say whether anything did."""
        has_begun, passed = False, 0
        groups_max = self._settings().catchup_groups_max
        lane.is_advancing = True
        while passed < len(lane.waiting):
            if lane.bytes_left <= 0 or self._given_left <= 0:
                break  # T1, T3
            key, begin = lane.waiting.popleft()
            if self._lane_of.get(key) != peer:
                continue  # it ended meanwhile
            if key not in lane.active and len(lane.active) >= groups_max:
                lane.waiting.append((key, begin))  # T2
                passed += 1
                continue
            lane.active.add(key)
            has_begun = True
            begin()
        lane.is_advancing = False
        return has_begun


def _burst(rate: int) -> int:
    return rate * BURST_MS // _SECOND_MS


def _filled(bytes_left: int, rate: int, elapsed_ms: int) -> int:
    """Return what may be read after a while at a rate, no more than a burst of it."""
    grown = rate * min(elapsed_ms, BURST_MS) // _SECOND_MS
    return min(_burst(rate), bytes_left + grown)


def offer(peers: Peers, config: ReplicationConfig, wal_age_ms: int | None) -> None:
    """Say in the next heartbeats what this core wants of each peer core.

    Less while it is late itself, or its disk: it then has enough to do, and so do its clients.
    """
    is_late = peers.watch.lag_ms >= LATE_MS or (wal_age_ms or 0) >= LATE_MS
    cores = max(1, len(peers.reachable()))
    share = config.catchup_bytes_per_second // cores // (LATE_PART if is_late else 1)
    peers.catchup_kib = max(1, min(share // KIB, RATE_KIB_MAX))


def rates(peers: Peers) -> Callable[[PeerId], int]:
    """Return what tells how many bytes a second a peer core wants; none before it has said so."""

    def rate_of(peer: PeerId) -> int:
        session = peers.session(peer)
        return 0 if session is None else session.health.catchup_kib * KIB

    return rate_of
