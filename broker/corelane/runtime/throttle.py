"""Keeps the log readable when a client misbehaves ten thousand times."""

from typing import Final

LINE_EVERY_S: Final = 10.0
REASONS_MAX: Final = 64


class Throttle:
    """Lets one line per reason through in ten seconds and counts the rest."""

    __slots__ = ("_reasons",)

    def __init__(self) -> None:
        self._reasons: dict[str, tuple[float, int]] = {}

    def ask(self, reason: str, now_s: float) -> int | None:
        """Return how many lines were held back if this one may be written, None if not."""
        last_s, suppressed = self._reasons.get(reason, (-LINE_EVERY_S, 0))
        if now_s - last_s < LINE_EVERY_S:
            self._reasons[reason] = (last_s, suppressed + 1)
            return None
        if len(self._reasons) >= REASONS_MAX:
            self._reasons.clear()
        self._reasons[reason] = (now_s, 0)
        return suppressed
