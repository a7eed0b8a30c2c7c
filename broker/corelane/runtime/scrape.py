"""Asks every core for its numbers, all at the same time and each for a bounded time."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import trio

from corelane.runtime.cores import CoreState
from corelane.runtime.pulled import Pulled, TopicLimit

PULL_S_MAX: Final = 1.0
"""A core that takes longer is shown as it was, and as stale: a scrape waits for nobody."""


class LifeLike(Protocol):
    """What a scrape wants to know of a core's process."""

    @property
    def boot(self) -> int:
        """Return the number of this life."""


class PlanLike(Protocol):
    """What it wants to know of its place."""

    @property
    def core(self) -> int:
        """Return its number."""


class CoreLike(Protocol):
    """What a scrape needs of a core."""

    @property
    def state(self) -> CoreState:
        """Return where in its life it is."""

    @property
    def restarts(self) -> int:
        """Return how often it was started again."""

    @property
    def plan(self) -> PlanLike:
        """Return its place."""

    @property
    def life(self) -> LifeLike | None:
        """Return its process, if it ever had one."""

    async def stats(self, wait_s_max: float) -> dict[str, float] | None:
        """Return the numbers of the current life; None: not in time."""


class NodeLike(Protocol):
    """What a scrape needs of the node."""

    def all_cores(self) -> Sequence[CoreLike]:
        """Return every core there is now."""

    def refused(self) -> Mapping[str, int]:
        """Return how many connections no core could take, by the name of the listener."""


class Scraper:
    """Remembers what cores said. Who asks while others wait gets what the next pull finds."""

    def __init__(self, node: NodeLike) -> None:
        self.node = node
        self.topics = TopicLimit()
        self._pulled: dict[int, Pulled] = {}
        self._one = trio.Lock()
        self._begun = 0
        self._last: dict[int, dict[str, float]] = {}

    async def pull(self) -> dict[int, dict[str, float]]:
        """Return what may be shown of each core (`Pulled.shown`), by its number."""
        begun = self._begun
        async with self._one:
            if self._begun == begun:
                self._begun += 1
                async with trio.open_nursery() as pulls:
                    for core in self.node.all_cores():
                        pulled = self._pulled.setdefault(core.plan.core, Pulled())
                        pulls.start_soon(_pull, core, pulled)
                self._last = {core: pulled.shown() for core, pulled in self._pulled.items()}
                self.topics.apply(self._last)
            return self._last

    def of(self, core: CoreLike) -> Pulled:
        """Return what a core said last."""
        return self._pulled.get(core.plan.core) or Pulled()


async def _pull(core: CoreLike, pulled: Pulled) -> None:
    life = core.life
    values = await core.stats(PULL_S_MAX)
    if values is not None and life is not None:
        pulled.heard(life.boot, values)
    else:
        pulled.not_heard()
