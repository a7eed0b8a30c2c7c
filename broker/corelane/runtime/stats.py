"""A core's counts as flat numbers, for the control socket.

A key is the attribute's name, then its labels: `wal_writes`, `requests/Produce`,
`requests_failed/Fetch/OFFSET_OUT_OF_RANGE`; of a histogram `turn_us/le/3` counts the values in its
range number 3, `turn_us/sum` adds them up.
"""

from collections.abc import Mapping
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.model.metrics import METRICS, Histogram, MetricKind, ShardCounts, ShardGauges

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


def _error_name(error: int) -> str:
    try:
        return ErrorCode(error).name
    except ValueError:
        return str(error)
