"""Flat numbers of cores as Prometheus families, named and explained by `model/metrics.py`."""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from corelane.model.metrics import METRICS, Histogram, MetricKind, ShardCounts
from corelane.model.metrics import Metric as Row
from corelane.runtime.stats import SEPARATOR


def families(by_core: Mapping[int, Mapping[str, float]]) -> Iterator[Metric]:
    """Yield each metric of METRICS with the samples of all cores."""
    for row in METRICS:
        family = _family(row)
        for core, flat in by_core.items():
            _add_samples(family, row, str(core), flat)
        if family.samples:
            yield family


def _family(row: Row) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    name = row.name.removesuffix("_total")
    match row.kind:
        case MetricKind.COUNTER:
            return CounterMetricFamily(name, row.help, labels=row.labels)
        case MetricKind.GAUGE:
            return GaugeMetricFamily(name, row.help, labels=row.labels)
        case MetricKind.HISTOGRAM:
            return HistogramMetricFamily(name, row.help, labels=row.labels)
        case _:
            assert_never(row.kind)


def _add_samples(
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily,
    row: Row,
    core: str,
    flat: Mapping[str, float],
) -> None:
    if isinstance(family, HistogramMetricFamily):
        buckets = _buckets(row, flat)
        if buckets:
            total = flat.get(f"{row.attribute}/sum", 0.0) * row.scale
            family.add_metric([core], buckets, total)
    elif len(row.labels) == 1:
        if row.attribute in flat:
            family.add_metric([core], flat[row.attribute] * row.scale)
    else:
        prefix = row.attribute + SEPARATOR
        for key, value in flat.items():
            labels = key.removeprefix(prefix).split(SEPARATOR)
            if key.startswith(prefix) and len(labels) == len(row.labels) - 1:
                family.add_metric([core, *labels], value * row.scale)


def _buckets(row: Row, flat: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return Prometheus' cumulative buckets of a histogram; empty where the core sent none."""
    histogram = getattr(_COUNTS, row.attribute)
    assert isinstance(histogram, Histogram)
    if f"{row.attribute}/sum" not in flat:
        return []
    buckets: list[tuple[str, float]] = []
    seen = 0.0
    for number in range(len(histogram.counts)):
        seen += flat.get(f"{row.attribute}/le/{number}", 0.0)
        is_last = number == len(histogram.bounds)
        bound = "+Inf" if is_last else str(round(histogram.bounds[number] * row.scale, 9))
        buckets.append((bound, seen))
    return buckets


_COUNTS: Final = ShardCounts()
"""Of a fresh shard, for the bounds of its histograms."""
