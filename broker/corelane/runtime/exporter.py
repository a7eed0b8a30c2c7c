"""Metrics of the whole node as Prometheus text, pulled from the cores once per scrape."""

import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from corelane.model.metrics import METRICS
from corelane.runtime.cores import CoreState
from corelane.runtime.families import families
from corelane.runtime.scrape import CoreLike, Scraper

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Not OpenMetrics, where a gauge and a counter may not differ by `_total` alone."""
DISK_S_MAX: Final = 0.5
_SERIES_PER_TOPIC: Final = sum(row.labels == ("topic",) for row in METRICS)


class Exporter:
    """Names what cores count, and adds what the supervisor knows itself."""

    content_type = CONTENT_TYPE

    def __init__(self, scraper: Scraper, directory: Path, version: str, began_s: float) -> None:
        """*began_s* is when the node was started, of the monotonic clock."""
        self._scraper = scraper
        self._directory = directory
        self._version = version
        self._began_s = began_s
        self._disk = trio.CapacityLimiter(1)

    async def text(self) -> bytes:
        """Return a scrape as Prometheus text."""
        found = await self._families(await self._scraper.pull())
        return await trio.to_thread.run_sync(_render, found)

    async def _families(self, by_core: dict[int, dict[str, float]]) -> list[Metric]:
        refused = {
            f"connections_accepted/{name}/refused": float(count)
            for name, count in self._scraper.node.refused().items()
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
        hidden = self._scraper.topics.hidden * _SERIES_PER_TOPIC
        yield _gauge(
            "corelane_metrics_dropped_series",
            "Series of topics that are only shown added up, as there are so many.",
            [({}, hidden)],
        )

    def _core_families(self) -> Iterator[Metric]:
        cores = self._scraper.node.all_cores()
        up = [(_shard(core), float(core.state is CoreState.UP)) for core in cores]
        yield _gauge("corelane_shard_up", "1 while the core serves.", up)
        stale = [(_shard(core), float(not self._scraper.of(core).is_fresh)) for core in cores]
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
            self._scraper.of(core).gauges().get("partitions_led", 0)
            for core in self._scraper.node.all_cores()
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
