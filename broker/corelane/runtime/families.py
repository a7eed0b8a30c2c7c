"""Flat numbers of cores as Prometheus families, named and explained by `model/metrics.py`."""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from corelane.model.metrics import LATENCY_BOUNDS_US, METRICS, Merge, MetricKind
from corelane.model.metrics import Metric as Row
from corelane.runtime.stats import BUCKET, SEPARATOR, SUM

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Flat = Mapping[str, float]
Samples = dict[tuple[str, ...], dict[str, float]]
"""Numbers by their labels: of a histogram its parts, of others one under the empty key."""


def families(by_core: Mapping[int, Flat]) -> Iterator[Metric]:
    """Yield each metric of METRICS with the samples of all cores."""
    grouped = {core: _group(flat) for core, flat in by_core.items()}
    for row in METRICS:
        samples: Samples = {}
        for core, by_attribute in grouped.items():
            for rest, value in by_attribute.get(row.attribute, ()):
                _put(samples, row, core, (rest, value))
        if samples:
            yield _family(row, samples)


def _group(flat: Flat) -> dict[str, list[tuple[list[str], float]]]:
    """Return the numbers by attribute, with what follows it in their keys."""
    grouped: dict[str, list[tuple[list[str], float]]] = {}
    for key, value in flat.items():
        attribute, *rest = key.split(SEPARATOR)
        grouped.setdefault(attribute, []).append((rest, value))
    return grouped


def _put(samples: Samples, row: Row, core: int, number: tuple[list[str], float]) -> None:
    rest, value = number
    own = [str(core)] if row.is_by_core else []
    count = len(row.labels) - len(own)
    labels = (*own, *rest[:count])
    if len(labels) != len(row.labels):
        return  # a core of another version
    parts = samples.setdefault(labels, {})
    part = SEPARATOR.join(rest[count:])
    before = parts.get(part)
    if before is None:
        parts[part] = value
    else:
        parts[part] = max(before, value) if row.merge is Merge.MAX else before + value


def _family(row: Row, samples: Samples) -> Metric:
    name = row.name.removesuffix("_total")
    match row.kind:
        case MetricKind.COUNTER:
            counter = CounterMetricFamily(name, row.help, labels=row.labels)
            for labels, parts in samples.items():
                counter.add_metric(labels, parts[""] * row.scale)
            return counter
        case MetricKind.GAUGE:
            gauge = GaugeMetricFamily(name, row.help, labels=row.labels)
            for labels, parts in samples.items():
                gauge.add_metric(labels, parts[""] * row.scale)
            return gauge
        case MetricKind.HISTOGRAM:
            histogram = HistogramMetricFamily(name, row.help, labels=row.labels)
            for labels, parts in samples.items():
                histogram.add_metric(labels, _buckets(row, parts), parts.get(SUM, 0.0) * row.scale)
            return histogram
        case _:
            assert_never(row.kind)


def _buckets(row: Row, parts: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return Prometheus' cumulative buckets of a histogram."""
    buckets: list[tuple[str, float]] = []
    seen = 0.0
    for number, bound_us in enumerate((*LATENCY_BOUNDS_US, None)):
        seen += parts.get(f"{BUCKET}{SEPARATOR}{number}", 0.0)
        bound = "+Inf" if bound_us is None else str(round(bound_us * row.scale, 9))
        buckets.append((bound, seen))
    return buckets


assert all(row.scale != 1.0 for row in METRICS if row.kind is MetricKind.HISTOGRAM)

NAMES: Final = frozenset(row.name for row in METRICS)
