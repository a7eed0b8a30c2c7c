"""When a core that died is started again, and when the broker gives up."""

from typing import Final

from corelane.model.record import record

EXITS_BEFORE_READY_MAX: Final = 5
DELAYS_BEFORE_READY_MS: Final = (0, 100, 250, 500)
"""Waits after the 1st, 2nd, … exit of a core that never got to serve; then the broker gives up."""
DELAY_AFTER_READY_MAX_MS: Final = 500
STEADY_MS: Final = 1_000
"""A core that served this long is started again at once, however often that happens."""

assert len(DELAYS_BEFORE_READY_MS) == EXITS_BEFORE_READY_MAX - 1


@record
class Again:
    """Start the core again after *delay_ms*."""

    delay_ms: int


@record
class GiveUp:
    """End the broker: the core cannot start."""


class RestartPolicy:
    """One core's history of exits. Told what happened, says what to do; nothing here can act.

    A core that dies before it serves has a reason that is likely still there: a few tries, then
    the operator is told. One that served comes back at once, or within half a second when it
    dies right after each start: the broker does not give up, since other cores may serve.
    """

    __slots__ = ("_delay_ms", "exits_before_ready")

    def __init__(self) -> None:
        self.exits_before_ready = 0
        self._delay_ms = 0

    def exited(self, served_ms: int | None, *, is_permanent: bool) -> Again | GiveUp:
        """Return what to do after an exit; *served_ms* is None when it never got ready."""
        if served_ms is None:
            self.exits_before_ready += 1
            if is_permanent or self.exits_before_ready >= EXITS_BEFORE_READY_MAX:
                return GiveUp()
            return Again(DELAYS_BEFORE_READY_MS[self.exits_before_ready - 1])
        self.exits_before_ready = 0
        if served_ms >= STEADY_MS:
            self._delay_ms = 0
            return Again(0)
        self._delay_ms = min(max(50, self._delay_ms * 2), DELAY_AFTER_READY_MAX_MS)
        return Again(self._delay_ms)
