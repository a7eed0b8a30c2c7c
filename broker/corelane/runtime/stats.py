"""A core's counts as flat numbers for the control socket, and those numbers as Prometheus families.

A key is the attribute's name, then its labels: `wal_writes`, `requests/Produce`,
`requests_failed/Fetch/OFFSET_OUT_OF_RANGE`; of a histogram `turn_us/le/3` counts the values in its
range number 3, `turn_us/sum` adds them up.
"""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from corelane.model.errors import ErrorCode
from corelane.model.metrics import METRICS, Histogram, MetricKind, ShardCounts, ShardGauges
from corelane.model.metrics import Metric as Row

SEPARATOR: Final = "/"

GAUGES: Final = frozenset(row.attribute for row in METRICS if row.kind is MetricKind.GAUGE)


def flatten(
    counts: ShardCounts, gauges: ShardGauges, api_names: Mapping[int, str]
) -> dict[str, float]:
    """Return everything that METRICS names, and is not zero by nature, as flat numbers."""
    flat: dict[str, float] = {}
    for row in METRICS:
        source = gauges if row.kind is MetricKind.GAUGE else counts
        value = getattr(source, row.attribute)
        if isinstance(value, Histogram):
            flat[f"{row.attribute}/sum"] = value.total
            for number, count in enumerate(value.counts):
                flat[f"{row.attribute}/le/{number}"] = count
        elif isinstance(value, list):
            for key, count in enumerate(value):
                if count:
                    flat[f"{row.attribute}/{api_names.get(key, str(key))}"] = count
        elif isinstance(value, dict):
            for (key, error), count in value.items():
                name = api_names.get(key, str(key))
                flat[f"{row.attribute}/{name}/{_error_name(error)}"] = count
        else:
            flat[row.attribute] = value
    return flat


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


def _error_name(error: int) -> str:
    try:
        return ErrorCode(error).name
    except ValueError:
        return str(error)


_COUNTS: Final = ShardCounts()
"""Of a fresh shard, for the bounds of its histograms."""
