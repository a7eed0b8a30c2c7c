"""How fit a core is to lead: this one by its own clock, a peer by what it says. Calculations.

The rules (DESIGN section 7; multiraft.md A9 and F3, F4):
W1. A loop later than a third of the election time-out hands its leaderships over; later than the
    whole of it, it gives them up: its followers could stand against it at any moment.
W2. A peer that is later than the election time-out, whose WAL write hangs, or whose data does not
    arrive here, is not believed to lead, however regular its heartbeats are.
W3. A core that lags is itself the reason why it hears little: it doubles its patience.
W4. After a pause of this process nothing is held against anybody before a fresh round was
    possible, and no lease from before counts.
"""

from enum import Enum
from typing import Final

from corelane.model import limits
from corelane.shard.peers.beats import Health

_WINDOW_MS: Final = 1_000


class Duty(Enum):
    """What a core should do with its leaderships."""

    LEAD = 1
    HAND_OVER = 2
    """Transfer them, and take none."""
    GIVE_UP = 3
    """Step down: a successor may be elected already."""


class Watch:
    """This core's own punctuality."""

    __slots__ = (
        "_due_ms",
        "_former_lag_ms",
        "_lag_ms",
        "_window_ms",
        "base_ms",
        "now_ms",
        "resumed_ms",
    )

    def __init__(self, now_ms: int, election_timeout_ms: int) -> None:
        self.base_ms = election_timeout_ms
        self.now_ms = now_ms
        self.resumed_ms = now_ms
        """Since when this process has run without a pause (W4)."""
        self._window_ms = now_ms
        self._due_ms = now_ms + limits.TICK_MS
        self._lag_ms = 0
        self._former_lag_ms = 0

    def turn(self, now_ms: int) -> None:
        """Take in that the loop turns; it is to do so every `TICK_MS`, or as `rests_until` says."""
        assert now_ms >= self.now_ms, "the clock is monotonic"
        gap_ms = now_ms - self.now_ms
        self.now_ms = now_ms
        if gap_ms > limits.PEER_PAUSE_MS:
            self.resumed_ms = now_ms
        if now_ms - self._window_ms >= _WINDOW_MS:
            is_next = now_ms - self._window_ms < 2 * _WINDOW_MS
            self._former_lag_ms = self._lag_ms if is_next else 0
            self._lag_ms = 0
            self._window_ms = now_ms
        self._lag_ms = max(self._lag_ms, now_ms - self._due_ms)
        self._due_ms = now_ms + limits.TICK_MS

    def rests_until(self, due_ms: int) -> None:
        """The next turn is due then, if nothing happens before: to rest is not to be late."""
        assert due_ms - self.now_ms < limits.PEER_PAUSE_MS
        self._due_ms = max(due_ms, self.now_ms + limits.TICK_MS)

    @property
    def lag_ms(self) -> int:
        """Return the latest this loop was within the last one to two seconds."""
        return max(self._lag_ms, self._former_lag_ms)

    def election_timeout_ms(self) -> int:
        """Return the time-out that the groups of this core should use now (W3)."""
        return patience_ms(self.base_ms, self.lag_ms)

    def duty(self, wal_age_ms: int | None) -> Duty:
        """Return what this core should do with its leaderships (W1)."""
        if wal_age_ms is not None and wal_age_ms > limits.PEER_WAL_AGE_MS_MAX:
            return Duty.GIVE_UP
        return duty(self.base_ms, self.lag_ms)


def patience_ms(election_timeout_ms: int, lag_ms: int) -> int:
    """Return the time-out doubled until *lag_ms* is below a third of it, or to the maximum."""
    patience = election_timeout_ms
    while 3 * lag_ms > patience and patience < limits.ELECTION_TIMEOUT_MS_MAX:
        patience *= 2
    return min(patience, max(election_timeout_ms, limits.ELECTION_TIMEOUT_MS_MAX))


def duty(election_timeout_ms: int, lag_ms: int) -> Duty:
    """Return what a core so late should do with its leaderships (W1)."""
    if lag_ms > election_timeout_ms:
        return Duty.GIVE_UP
    return Duty.HAND_OVER if 3 * lag_ms > election_timeout_ms else Duty.LEAD


def may_be_led_by(health: Health, election_timeout_ms: int) -> bool:
    """Say whether the heartbeats of a peer so healthy count (W2)."""
    if health.lag_ms > election_timeout_ms:
        return False
    if health.wal_age_ms is not None and health.wal_age_ms > limits.PEER_WAL_AGE_MS_MAX:
        return False
    return health.data_age_ms is None or health.data_age_ms <= limits.PEER_DATA_AGE_MS_MAX


def may_take_over(health: Health, election_timeout_ms: int) -> bool:
    """Say whether leaderships may be handed over to a peer so healthy."""
    is_prompt = duty(election_timeout_ms, health.lag_ms) is Duty.LEAD
    return is_prompt and not health.is_unfit and may_be_led_by(health, election_timeout_ms)
