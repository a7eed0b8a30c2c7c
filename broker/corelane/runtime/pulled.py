"""What cores said they counted, added up over their lives: no counter ever goes back.

Invariants:
P1. A counter shown is the sum of all finished lives (as far as they were heard) and of what the
    current life said last; a lost answer or a death takes nothing away.
P2. A gauge is of the current life alone, and only while that answers.
P3. A topic's numbers end with the topic; those of topics without a label of their own do not.
"""

from collections.abc import Mapping
from typing import Final

from corelane.model.metrics import METRICS, OTHER_TOPICS, TOPICS_SHOWN_MAX
from corelane.runtime.stats import GAUGES, SEPARATOR, attribute_of

_BY_TOPIC: Final = tuple(row.attribute for row in METRICS if row.labels == ("topic",))
_TOPICS_KNOWN_BY: Final = "log_bytes"
"""Every topic there is has this number, at every core."""


class Pulled:
    """The numbers of one core."""

    def __init__(self) -> None:
        self.boot = 0
        self.is_fresh = False
        """Whether the current numbers are an answer to the last question."""
        self._finished: dict[str, float] = {}
        self._current: dict[str, float] = {}

    def heard(self, boot: int, values: dict[str, float]) -> None:
        """Take what a life says it counted so far; one life's answers come in their order."""
        if boot != self.boot:
            self._finished = self.counters()
            self.boot = boot
        self._current = values
        self.is_fresh = True
        for key in [key for key in self._finished if self._is_of_gone_topic(key)]:
            del self._finished[key]

    def not_heard(self) -> None:
        """Note that the core did not answer in time, or is away."""
        self.is_fresh = False

    def counters(self) -> dict[str, float]:
        """Return the counters, over all lives (P1)."""
        total = dict(self._finished)
        for key, value in self._current.items():
            if attribute_of(key) not in GAUGES:
                total[key] = total.get(key, 0.0) + value
        return total

    def gauges(self) -> dict[str, float]:
        """Return the gauges as they were told last, however long ago."""
        return {key: value for key, value in self._current.items() if attribute_of(key) in GAUGES}

    def shown(self) -> dict[str, float]:
        """Return what may be shown (P2)."""
        return self.counters() | (self.gauges() if self.is_fresh else {})

    def _is_of_gone_topic(self, key: str) -> bool:
        attribute, _, topic = key.partition(SEPARATOR)
        return (
            attribute in _BY_TOPIC
            and topic != OTHER_TOPICS
            and f"{_TOPICS_KNOWN_BY}{SEPARATOR}{topic}" not in self._current
        )


class TopicLimit:
    """Bounds the topics shown over all cores, whose choices may differ after a restart."""

    def __init__(self) -> None:
        self.hidden = 0
        """How many topics have no numbers of their own."""
        self._others: dict[tuple[int, str], float] = {}

    def apply(self, by_core: Mapping[int, dict[str, float]]) -> None:
        """Move what is beyond the limit to the other topics, in place."""
        prefix = _TOPICS_KNOWN_BY + SEPARATOR
        names = dict.fromkeys(
            key.removeprefix(prefix)
            for flat in by_core.values()
            for key in flat
            if key.startswith(prefix)
        )
        names.pop(OTHER_TOPICS, None)
        shown = frozenset(list(names)[:TOPICS_SHOWN_MAX])
        for core, flat in by_core.items():
            if len(names) > len(shown):
                _merge(flat, shown)
            for attribute in _BY_TOPIC:
                self._never_back(core, attribute, flat)
        known = max((flat.get("topics", 0) for flat in by_core.values()), default=0)
        self.hidden = max(0, round(known) - len(shown))

    def _never_back(self, core: int, attribute: str, flat: dict[str, float]) -> None:
        key = f"{attribute}{SEPARATOR}{OTHER_TOPICS}"
        if attribute not in GAUGES and (key in flat or (core, key) in self._others):
            flat[key] = max(flat.get(key, 0.0), self._others.get((core, key), 0.0))
            self._others[core, key] = flat[key]


def _merge(flat: dict[str, float], shown: frozenset[str]) -> None:
    for key in list(flat):
        attribute, _, topic = key.partition(SEPARATOR)
        if attribute in _BY_TOPIC and topic not in shown and topic != OTHER_TOPICS:
            other = f"{attribute}{SEPARATOR}{OTHER_TOPICS}"
            flat[other] = flat.get(other, 0.0) + flat.pop(key)
