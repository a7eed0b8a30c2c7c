"""Which peer cores are fit to lead, next to this one: by what all of them say of themselves."""

from typing import Final

from corelane.model import limits
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.peers import Peers

STEADY_MS: Final = 5_000
"""So long one is punctual before it is better than one that is not."""


class Fitness:
    """The lateness of this core and of those it speaks with."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    @property
    def lag_ms(self) -> int:
        """Return the lag of the latest core, of this one and those it speaks with."""
        sessions = [self._peers.session(each) for each in self._peers.reachable()]
        lags_ms = [each.health.lag_ms for each in sessions if each is not None]
        return max([self._peers.watch.lag_ms, *lags_ms])

    def may_take_over(self, peer: PeerId) -> bool:
        """Say whether a peer core could lead well, or no worse than this one."""
        lag_ms = self._peers.watch.lag_ms
        return self._peers.may_take_over(peer, max(limits.PEER_LATE_MS_MAX, lag_ms))

    def is_better(self, peer: PeerId) -> bool:
        """Say whether a peer core would lead clearly better than this one, which is late (W1).

        Where all are late each is punctual for a second now and then: that makes none better.
        """
        lag_ms = self._peers.watch.lag_ms
        is_less_late = self._peers.may_take_over(peer, min(limits.PEER_LATE_MS_MAX, lag_ms // 2))
        return is_less_late and self.is_steady(peer, STEADY_MS)

    def is_steady(self, peer: PeerId, ms: int) -> bool:
        """Say whether a peer core has been fit to lead for so long."""
        session = self._peers.session(peer)
        is_long = session is not None and self._peers.watch.now_ms - session.unfit_ms >= ms
        return is_long and self._peers.may_take_over(peer)
