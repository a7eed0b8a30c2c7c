"""How fit a core is to lead: this one by its own clock, a peer by what it says. Calculations.

The rules (DESIGN section 7; multiraft.md A9 and F3, F4):
W1. A loop that is late on and on, by more than `PEER_LATE_MS_MAX`, hands its
    leaderships over to cores that are clearly better, and to nobody else: where all are late there
    is nobody to hand over to. One pause, however long, costs nothing more than itself: whether
    another one leads meanwhile is what the others' answers say. A hung disk is given up at once.
W2. A peer whose WAL write hangs while ours does not, or whose data does not arrive here, is not
    believed to lead, however regular its heartbeats are.
W3. A core that lags is itself the reason why it hears little: it doubles its patience before it
    stands for election. A leader has patience with followers as late as they say they are.
W4. A pause of this process is no silence of others: what they said is read after it, and only the
    time since then and before counts. Of several pauses the last one; more is a matter of W3. No
    lease from before a pause counts.
"""

from enum import Enum
from typing import Final

from corelane.model import limits
from corelane.shard.peers.beats import Health

_WINDOW_MS: Final = 1_000
LATE_MS_MIN: Final = 3_000
"""So long a core is late on and on before it hands over what it leads."""


class Duty(Enum):
    """What a core should do with its leaderships."""

    LEAD = 1
    HAND_OVER = 2
    """Transfer them to who is better."""
    GIVE_UP = 3
    """Step down, where another one could lead."""


class Watch:
    """This core's own punctuality."""

    __slots__ = (
        "_due_ms",
        "_former_lag_ms",
        "_lag_ms",
        "_late_since_ms",
        "_pause_ms",
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
        self._pause_ms = 0  # how long the last one was
        self._late_since_ms: int | None = None
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
            self._pause_ms = gap_ms
        if now_ms - self._window_ms >= _WINDOW_MS:
            is_next = now_ms - self._window_ms < 2 * _WINDOW_MS
            self._former_lag_ms = self._lag_ms if is_next else 0
            self._lag_ms = 0
            self._window_ms = now_ms
        self._lag_ms = max(self._lag_ms, now_ms - self._due_ms)
        self._due_ms = now_ms + limits.TICK_MS
        if self.lag_ms <= limits.PEER_LATE_MS_MAX:
            self._late_since_ms = None
        elif self._late_since_ms is None:
            self._late_since_ms = now_ms

    def rests_until(self, due_ms: int) -> None:
        """The next turn is due then, if nothing happens before: to rest is not to be late."""
        assert due_ms - self.now_ms < limits.PEER_PAUSE_MS
        self._due_ms = max(due_ms, self.now_ms + limits.TICK_MS)

    @property
    def lag_ms(self) -> int:
        """Return the latest this loop was within the last one to two seconds."""
        return max(self._lag_ms, self._former_lag_ms)

    @property
    def late_ms(self) -> int:
        """Return how long this loop has been late on and on."""
        return 0 if self._late_since_ms is None else self.now_ms - self._late_since_ms

    def heard_ms(self, seen_ms: int) -> int:
        """Return *seen_ms*, moved on by a pause since then: the last one (W4)."""
        return seen_ms if self.resumed_ms <= seen_ms else min(seen_ms + self._pause_ms, self.now_ms)

    def election_timeout_ms(self) -> int:
        """Return the time-out that the groups of this core should use now (W3)."""
        return patience_ms(self.base_ms, self.lag_ms)

    def duty(self, wal_age_ms: int | None) -> Duty:
        """Return what this core should do with its leaderships (W1)."""
        if wal_age_ms is not None and wal_age_ms > limits.PEER_WAL_AGE_MS_MAX:
            return Duty.GIVE_UP
        return Duty.HAND_OVER if self.late_ms >= LATE_MS_MIN else Duty.LEAD


def patience_ms(election_timeout_ms: int, lag_ms: int) -> int:
    """Return the time-out doubled until *lag_ms* is below a third of it, or to the maximum."""
    patience = election_timeout_ms
    while 3 * lag_ms > patience and patience < limits.ELECTION_TIMEOUT_MS_MAX:
        patience *= 2
    return min(patience, max(election_timeout_ms, limits.ELECTION_TIMEOUT_MS_MAX))


def may_be_led_by(health: Health, own_wal_age_ms: int | None) -> bool:
    """Say whether the heartbeats of a peer so healthy count (W2).

    Its lag is no matter: its heartbeats are as late as it is.
    """
    wal_age_ms = 2 * (own_wal_age_ms or 0)
    if (health.wal_age_ms or 0) > max(limits.PEER_WAL_AGE_MS_MAX, wal_age_ms):
        return False
    return health.data_age_ms is None or health.data_age_ms <= limits.PEER_DATA_AGE_MS_MAX


def may_take_over(health: Health, lag_ms_max: int = limits.PEER_LATE_MS_MAX) -> bool:
    """Say whether leaderships may be handed over to a peer so healthy."""
    return is_well(health, lag_ms_max) and not health.is_unfit


def is_well(health: Health, lag_ms_max: int = limits.PEER_LATE_MS_MAX) -> bool:
    """Say whether a peer is punctual, and its disk and data link work.

    What else it says of itself, as that its disk is full, it takes back when it is over for good.
    """
    return health.lag_ms <= lag_ms_max and may_be_led_by(health, None)
