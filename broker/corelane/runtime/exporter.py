"""Metrics of the whole node as Prometheus text, pulled from the cores once per scrape."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from corelane.runtime.acceptor import Acceptor
from corelane.runtime.admin import Page
from corelane.runtime.cores import Core, CoreState
from corelane.runtime.families import families
from corelane.runtime.stats import GAUGES

PULL_S_MAX: Final = 1.0


class Exporter:
    """Remembers what dead cores had counted, so that no counter ever goes back."""

    def __init__(self, cores: Sequence[Core], acceptor: Acceptor) -> None:
        self._cores = cores
        self._acceptor = acceptor
        self._pulled = [_Pulled() for _ in cores]

    async def page(self) -> Page:
        """Pull every core at the same time and return the page."""
        async with trio.open_nursery() as pulls:
            for core, pulled in zip(self._cores, self._pulled, strict=True):
                pulls.start_soon(_pull, core, pulled)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot([*self._node_families(), *self._core_families()]))
        return Page(200, CONTENT_TYPE_LATEST, generate_latest(registry))

    def _node_families(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("corelane_core_up", "1 while the core serves.", labels=["core"])
        restarts = CounterMetricFamily(
            "corelane_core_restarts", "Times the core was started again.", labels=["core"]
        )
        for core in self._cores:
            label = [str(core.plan.core)]
            up.add_metric(label, float(core.state is CoreState.UP))
            restarts.add_metric(label, core.restarts)
        yield up
        yield restarts
        accepted = self._acceptor.accepted
        refused = self._acceptor.refused
        yield CounterMetricFamily(
            "corelane_bootstrap_connections_accepted",
            "Connections taken on the bootstrap port.",
            value=accepted,
        )
        yield CounterMetricFamily(
            "corelane_bootstrap_connections_refused",
            "Connections closed because no core could take them.",
            value=refused,
        )

    def _core_families(self) -> Iterator[Metric]:
        totals = {
            core.plan.core: pulled.total()
            for core, pulled in zip(self._cores, self._pulled, strict=True)
        }
        return families(totals)


class _Pulled:
    """Counters of one core: those of its finished lives and the last ones of the current."""

    def __init__(self) -> None:
        self.boot = 0
        self.finished: dict[str, float] = {}
        self.current: dict[str, float] = {}

    def update(self, boot: int, values: dict[str, float]) -> None:
        """Take what a life says it counted so far."""
        if boot != self.boot:
            self.finished = {
                name: value for name, value in self.total().items() if name not in GAUGES
            }
            self.boot = boot
        self.current = values

    def total(self) -> dict[str, float]:
        """Return the sums over all lives."""
        total = dict(self.finished)
        for name, value in self.current.items():
            total[name] = total.get(name, 0.0) + value
        return total


class _Snapshot:
    """What prometheus_client calls a custom collector, of families made before."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


async def _pull(core: Core, pulled: _Pulled) -> None:
    life = core.life
    values = await core.stats(PULL_S_MAX)
    if values is not None and life is not None:
        pulled.update(life.boot, values)
