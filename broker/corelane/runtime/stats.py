"""A core's counts as flat numbers, for the control socket.

A key is the attribute's name, then its labels: `wal_writes`, `misrouted/Produce`,
`requests/Fetch/OFFSET_OUT_OF_RANGE`; of a histogram `turn_us/le/3` counts the values in its
range number 3, `turn_us/sum` adds them up.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.model.metrics import METRICS, Histogram, MetricKind, ShardCounts, ShardGauges
from corelane.model.record import record

SEPARATOR: Final = "/"
SUM: Final = "sum"
BUCKET: Final = "le"

GAUGES: Final = frozenset(row.attribute for row in METRICS if row.kind is MetricKind.GAUGE)


@record
class Names:
    """What numbers in the counts are called as labels."""

    apis: Mapping[int, str]
    listeners: list[str]


def flatten(counts: ShardCounts, gauges: ShardGauges, names: Names) -> dict[str, float]:
    """Return everything that METRICS names, and is not zero by nature, as flat numbers."""
    flat: dict[str, float] = {}
    for row in METRICS:
        source = gauges if row.kind is MetricKind.GAUGE else counts
        flat.update(_flat(row.attribute, getattr(source, row.attribute), names))
    return flat


def attribute_of(key: str) -> str:
    """Return the attribute that a flat number is of."""
    return key.split(SEPARATOR, 1)[0]


def _flat(attribute: str, value: object, names: Names) -> Iterator[tuple[str, float]]:
    match value:
        case Histogram():
            yield f"{attribute}/{SUM}", value.total
            for number, count in enumerate(value.counts):
                yield f"{attribute}/{BUCKET}/{number}", count
        case list():  # by API
            for key, count in enumerate(value):
                if count:
                    yield f"{attribute}/{names.apis.get(key, str(key))}", count
        case dict():
            for key, each in value.items():
                yield from _flat(f"{attribute}/{_label(attribute, key, names)}", each, names)
        case int():
            yield attribute, value
        case _:
            raise AssertionError(f"{attribute} is of no known kind")


def _label(attribute: str, key: object, names: Names) -> str:
    match key:
        case (int(api), int(error)):
            return f"{names.apis.get(api, str(api))}/{_error_name(error)}"
        case int(number) if attribute.startswith("connections"):
            name = names.listeners[number]
            return f"{name}/accepted" if attribute == "connections_accepted" else name
        case int(api) if attribute == "request_us":
            return names.apis.get(api, str(api))
        case _:
            return str(key)  # a topic, or a sibling's number


def _error_name(error: int) -> str:
    try:
        return ErrorCode(error).name
    except ValueError:
        return str(error)
