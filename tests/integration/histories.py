"""What clients were told, compared with what is there: the checks of Jepsen's Kafka tests.

A `History` is what producers and readers saw of some partitions while things went wrong, in the
order in which each saw it, and what was there at the end. `faults` names every promise that was
broken. The checks, by their names there (jepsen.io/analyses/redpanda-21.10.1, section 2):

* lost write: acknowledged, and not there at the end, at the offset that was named;
* duplicate: one record of an idempotent producer at two offsets;
* reordered: records of one producer that are not in the order in which it produced them;
* inconsistent offsets: two reads, or a read and an acknowledgement, differ about one offset;
* read ahead of commit: a reader was given what is not there at the end;
* non-monotonic or skipping poll: what one reader was given is not one offset after the other.
"""

import itertools
from collections import defaultdict
from dataclasses import field

from corelane.model.record import record

Place = tuple[int, int]
"""Partition and offset."""


@record
class Sent:
    """One producer's records of one partition, in the order of production."""

    producer: str
    partition: int
    values: list[str]


@record
class Acknowledged:
    """An acknowledgement: the record is at that place, said at that time."""

    value: str
    place: Place
    at_s: float


@record
class History:
    """All that was seen. Values are unique among everything that is ever sent."""

    sent: list[Sent] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    reads: dict[str, list[tuple[Place, str]]] = field(default_factory=dict)
    """By reader, in the order in which it was given them."""
    final: dict[int, list[str]] = field(default_factory=dict)
    """What each partition held at the end, from offset 0 on."""


def faults(history: History) -> list[str]:
    """Return every broken promise, in words; none: all were kept."""
    found = _lost(history) + _duplicated(history) + _reordered(history)
    return found + _diverging(history) + _ahead(history) + _unordered_polls(history)


def longest_gap_s(history: History, began_s: float, ended_s: float) -> dict[int, float]:
    """Return the longest time without an acknowledgement, for each partition."""
    times: dict[int, list[float]] = {partition: [began_s] for partition in history.final}
    for each in sorted(history.acknowledged, key=lambda one: one.at_s):
        if each.at_s >= began_s:
            times[each.place[0]].append(each.at_s)
    return {
        partition: max(later - former for former, later in itertools.pairwise([*row, ended_s]))
        for partition, row in times.items()
    }


def _at(history: History, place: Place) -> str | None:
    partition, offset = place
    log = history.final.get(partition, [])
    return log[offset] if 0 <= offset < len(log) else None


def _lost(history: History) -> list[str]:
    there = {value for log in history.final.values() for value in log}
    return [
        f"{each.value} was acknowledged at {each.place} and is lost"
        for each in history.acknowledged
        if each.value not in there
    ]


def _duplicated(history: History) -> list[str]:
    places: dict[str, list[Place]] = defaultdict(list)
    for partition, log in history.final.items():
        for offset, value in enumerate(log):
            places[value].append((partition, offset))
    return [f"{value} is there more than once: {at}" for value, at in places.items() if at[1:]]


def _reordered(history: History) -> list[str]:
    found = []
    for sent in history.sent:
        order = {value: number for number, value in enumerate(sent.values)}
        log = [value for value in history.final.get(sent.partition, []) if value in order]
        first = [*dict.fromkeys(log)]
        found += [
            f"{later} of {sent.producer} comes before {former}"
            for later, former in itertools.pairwise(first)
            if order[later] > order[former]
        ]
    return found


def _diverging(history: History) -> list[str]:
    """Two that speak of one offset and differ, whatever is there at the end."""
    said: dict[Place, dict[str, str]] = defaultdict(dict)
    for each in history.acknowledged:
        said[each.place].setdefault(each.value, "its acknowledgement")
    for reader, rows in history.reads.items():
        for place, value in rows:
            said[place].setdefault(value, reader)
    for partition, log in history.final.items():
        for offset, value in enumerate(log):
            if (partition, offset) in said:
                said[partition, offset].setdefault(value, "the end")
    return [f"at {place} there are {values}" for place, values in said.items() if len(values) > 1]


def _ahead(history: History) -> list[str]:
    return [
        f"{reader} was given {value} at {place}, which was never committed"
        for reader, rows in history.reads.items()
        for place, value in rows
        if _at(history, place) is None
    ]


def _unordered_polls(history: History) -> list[str]:
    found = []
    for reader, rows in history.reads.items():
        last: dict[int, int] = {}
        for (partition, offset), _ in rows:
            if partition in last and offset != last[partition] + 1:
                found.append(f"{reader} was given {offset} after {last[partition]} of {partition}")
            last[partition] = offset
    return found
