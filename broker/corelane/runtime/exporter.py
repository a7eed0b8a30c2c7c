"""Metrics of the whole node as Prometheus text, pulled from the cores once per scrape."""

import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from corelane.model.metrics import METRICS
from corelane.model.record import record
from corelane.runtime.cores import CoreState
from corelane.runtime.families import families
from corelane.runtime.pulled import Pulled, TopicLimit

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Not OpenMetrics, where a gauge and a counter may not differ by `_total` alone."""
PULL_S_MAX: Final = 1.0
"""A core that takes longer is shown as it was, and as stale: a scrape waits for nobody."""
DISK_S_MAX: Final = 0.5
_SERIES_PER_TOPIC: Final = sum(row.labels == ("topic",) for row in METRICS)


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


@record
class Scrape:
    """What was found at one moment."""

    by_core: dict[int, dict[str, float]]
    families: list[Metric]


class Exporter:
    """Asks all cores at the same time, each for a bounded time, and remembers what they said."""

    content_type = CONTENT_TYPE

    def __init__(self, node: NodeLike, directory: Path, version: str) -> None:
        self._node = node
        self._directory = directory
        self._version = version
        self._pulled: dict[int, Pulled] = {}
        self._topics = TopicLimit()
        self._one = trio.Lock()
        self._begun = 0
        self._last: Scrape | None = None
        self._began_s = time.monotonic()
        self._disk = trio.CapacityLimiter(1)

    async def text(self) -> bytes:
        """Return a scrape as Prometheus text."""
        found = await self.scrape()
        return await trio.to_thread.run_sync(_render, found.families)

    async def scrape(self) -> Scrape:
        """Pull every core; who asks while others wait gets what the next pull finds."""
        begun = self._begun
        async with self._one:
            if self._begun == begun or self._last is None:
                self._begun += 1
                await self._pull_all()
                by_core = {core: pulled.shown() for core, pulled in self._pulled.items()}
                self._topics.apply(by_core)
                self._last = Scrape(by_core, await self._families(by_core))
            return self._last

    async def _pull_all(self) -> None:
        async with trio.open_nursery() as pulls:
            for core in self._node.all_cores():
                pulled = self._pulled.setdefault(core.plan.core, Pulled())
                pulls.start_soon(_pull, core, pulled)

    async def _families(self, by_core: dict[int, dict[str, float]]) -> list[Metric]:
        refused = {
            f"connections_accepted/{name}/refused": float(count)
            for name, count in self._node.refused().items()
        }
        disk = await self._disk_families(by_core)
        return [
            *self._process_families(),
            *self._core_families(),
            *self._partition_families(by_core),
            *disk,
            *families({**by_core, -1: refused}),
        ]

    def _process_families(self) -> Iterator[Metric]:
        python = platform.python_version()
        labels = {"version": self._version, "revision": "", "python": python}
        yield _gauge("corelane_build_info", "What runs here.", [(labels, 1)])
        uptime_s = time.monotonic() - self._began_s
        yield _gauge("corelane_uptime_seconds", "Since the node was started.", [({}, uptime_s)])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "corelane_supervisor_cpu_seconds",
            "CPU time of the supervisor's process.",
            value=usage.ru_utime + usage.ru_stime,
        )
        hidden = self._topics.hidden * _SERIES_PER_TOPIC
        yield _gauge(
            "corelane_metrics_dropped_series",
            "Series of topics that are only shown added up, as there are so many.",
            [({}, hidden)],
        )

    def _core_families(self) -> Iterator[Metric]:
        cores = self._node.all_cores()
        up = [(_shard(core), float(core.state is CoreState.UP)) for core in cores]
        yield _gauge("corelane_shard_up", "1 while the core serves.", up)
        stale = [(_shard(core), float(not self._pulled_of(core).is_fresh)) for core in cores]
        yield _gauge(
            "corelane_shard_stale",
            "1 where the core did not answer this scrape in time: its counters are older.",
            stale,
        )
        restarts = CounterMetricFamily(
            "corelane_shard_restarts", "Times the core was started again.", labels=["shard"]
        )
        for core in cores:
            restarts.add_metric([str(core.plan.core)], core.restarts)
        yield restarts
        offline = sum(core.state is not CoreState.UP for core in cores)
        yield _gauge("corelane_offline_brokers", "Cores that do not serve.", [({}, offline)])

    def _partition_families(self, by_core: dict[int, dict[str, float]]) -> Iterator[Metric]:
        """Count partitions without a leader: a core that is only slow still leads its own."""
        partitions = max((flat.get("partitions", 0) for flat in by_core.values()), default=0)
        led = sum(
            self._pulled_of(core).gauges().get("partitions_led", 0)
            for core in self._node.all_cores()
            if core.state is CoreState.UP
        )
        yield _gauge(
            "corelane_leaderless_partitions",
            "Partitions that nobody leads: they can be neither written nor read.",
            [({}, max(0.0, partitions - led))],
        )

    async def _disk_families(self, by_core: dict[int, dict[str, float]]) -> list[Metric]:
        found = await self._statvfs()
        is_full = any(flat.get("is_disk_full", 0) for flat in by_core.values())
        state = "silent" if found is None else "full" if is_full else "ok"
        states = [({"state": each}, float(each == state)) for each in ("ok", "full", "silent")]
        rows: list[Metric] = [
            _gauge(
                "corelane_disk_state",
                "1 for what the data directory's disk is: full takes no writes, silent does not"
                " answer.",
                states,
            )
        ]
        if found is not None:
            free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
            rows.append(_gauge("corelane_disk_free_bytes", "Space left to use.", [({}, free)]))
            rows.append(_gauge("corelane_disk_total_bytes", "Size of the disk.", [({}, total)]))
        return rows

    async def _statvfs(self) -> os.statvfs_result | None:
        """Ask the file system, which may hang; one thread at most waits for it."""
        with trio.move_on_after(DISK_S_MAX):
            return await trio.to_thread.run_sync(
                os.statvfs, self._directory, limiter=self._disk, abandon_on_cancel=True
            )
        return None

    def _pulled_of(self, core: CoreLike) -> Pulled:
        return self._pulled.get(core.plan.core) or Pulled()


class _Snapshot:
    """What prometheus_client calls a custom collector, of families made before."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


def _render(families: list[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(families))
    return generate_latest(registry)


def _gauge(
    name: str, text: str, samples: Sequence[tuple[Mapping[str, str], float]]
) -> GaugeMetricFamily:
    names = list(samples[0][0]) if samples else []
    family = GaugeMetricFamily(name, text, labels=names)
    for labels, value in samples:
        family.add_metric(list(labels.values()), value)
    return family


def _shard(core: CoreLike) -> Mapping[str, str]:
    return {"shard": str(core.plan.core)}


async def _pull(core: CoreLike, pulled: Pulled) -> None:
    life = core.life
    values = await core.stats(PULL_S_MAX)
    if values is not None and life is not None:
        pulled.heard(life.boot, values)
    else:
        pulled.not_heard()
