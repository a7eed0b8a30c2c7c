"""Garbage collection on our terms: between turns, never inside one.

Reference counting frees nearly everything here; the collector is for the few cycles. Left to
itself it would run in the middle of a step, over everything that recovery made.
"""

import gc
import time
from typing import Final

from corelane.model.metrics import ShardCounts

YOUNG_OBJECTS_MAX: Final = 20_000
"""New container objects that outlived their making, before the young ones are looked through."""
MIDDLE_ROUNDS_MAX: Final = 10
FULL_EVERY_S: Final = 60.0


def freeze() -> None:
    """Take what exists now out of every later collection, and collect only when asked to."""
    gc.collect()
    gc.freeze()
    gc.disable()


class Garbage:
    """Decides when to collect. Told by the loop that a turn is over."""

    __slots__ = ("_counts", "_full_s")

    def __init__(self, now_s: float, counts: ShardCounts) -> None:
        self._full_s = now_s
        self._counts = counts

    def between_turns(self) -> None:
        """Collect the young objects when there are many of them: well under a millisecond."""
        young, middle, _ = gc.get_count()
        if young > YOUNG_OBJECTS_MAX:
            self._collect(1 if middle >= MIDDLE_ROUNDS_MAX else 0)

    def at_rest(self, now_s: float) -> None:
        """Collect everything once in a while, when nobody waits for a turn."""
        if now_s - self._full_s > FULL_EVERY_S:
            self._full_s = now_s
            self._collect(2)

    def _collect(self, generation: int) -> None:
        began_ns = time.perf_counter_ns()
        gc.collect(generation)
        self._counts.gc_us += (time.perf_counter_ns() - began_ns) // 1000
