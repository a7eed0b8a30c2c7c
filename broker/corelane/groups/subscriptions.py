"""From names and patterns that members are subscribed to, to topics that exist."""

import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from corelane.groups.consumer_records import ResolvedRegex
from corelane.groups.subscriptions_pattern import TopicPattern, compile_pattern
from corelane.model.ids import TopicId

_HASH_BYTES: Final = 8


class TopicsView(Protocol):
    """The topics of the cluster as the caller knows them at this moment; a value."""

    @property
    def revision(self) -> int:
        """Another number whenever a topic was made, deleted, or has got partitions."""
        ...

    def topic_id(self, name: str) -> TopicId | None: ...

    def topic_name(self, topic_id: TopicId) -> str | None: ...

    def partition_count(self, topic_id: TopicId) -> int:
        """Return how many partitions a topic has that exists; not asked for others."""
        ...

    def names(self) -> AbstractSet[str]:
        """Return the names that patterns are matched with: the caller leaves internal topics out.

        Never changed afterwards, and the same object while the revision is the same.
        """
        ...


def metadata_hash(names: Iterable[str], topics: TopicsView) -> int:
    """Return a number that differs when any of these topics does; 0 if there is none (KIP-1101).

    Not Kafka's function: nobody compares it with Kafka's.
    """
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    found = False
    for name in sorted(names):
        topic_id = topics.topic_id(name)
        if topic_id is not None:
            found = True
            digest.update(topic_id)
            digest.update(f"{name}/{topics.partition_count(topic_id)}\n".encode())
    if not found:
        return 0
    return int.from_bytes(digest.digest(), signed=True)


class Patterns:
    """The compiled patterns of a group and what they were last matched with. Volatile."""

    __slots__ = ("_compiled", "_looked_at")

    def __init__(self) -> None:
        self._compiled: dict[str, TopicPattern | str] = {}
        self._looked_at: dict[str, AbstractSet[str]] = {}

    def fault(self, regex: str) -> str | None:
        """Return why a pattern is refused."""
        pattern = self._pattern(regex)
        return pattern if isinstance(pattern, str) else None

    def _pattern(self, regex: str) -> TopicPattern | str:
        pattern = self._compiled.get(regex)
        if pattern is None:
            pattern = self._compiled[regex] = compile_pattern(regex)
        return pattern

    def match(
        self, regex: str, before: ResolvedRegex | None, names: AbstractSet[str]
    ) -> frozenset[str]:
        """Return those of *names* that match; looks only at names that are new since last time."""
        pattern = self._pattern(regex)
        if isinstance(pattern, str):
            # Accepted by another version of this rule; it matches nothing, nobody is thrown out.
            return frozenset()
        seen = self._looked_at.get(regex)
        self._looked_at[regex] = names
        if seen is None or before is None:
            return frozenset(filter(pattern.matches, names))
        return frozenset(before.topic_names & names).union(filter(pattern.matches, names - seen))

    def keep(self, regexes: Iterable[str]) -> None:
        """Forget every pattern but these."""
        kept = set(regexes)
        for table in (self._compiled, self._looked_at):
            for regex in [regex for regex in table if regex not in kept]:
                del table[regex]
