"""Asks each leader about its partitions; a node may have as many leaders as it has cores."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

from corelane.model.errors import ErrorCode
from corelane_client.connection import Connection
from corelane_client.errors import ClientError, KafkaError, ProtocolError, no_partition
from corelane_client.pool import NO_BROKER, Pool

T = TypeVar("T")

Answers = Mapping[int, T | ClientError]
"""What was learnt of each partition, or why not."""
Ask = Callable[[Connection, list[int]], Awaitable[Answers[T]]]
"""Asks one broker about partitions it leads."""


async def ask_leaders(
    pool: Pool, topic: str, partitions: Collection[int] | None, ask: Ask[T]
) -> dict[int, T | ClientError]:
    """Return what *ask* learns of each of *partitions* (None: all), by number.

    Errors that may pass, such as a leader that has changed, are tried again for the partitions
    they are about; what is left of them afterwards is returned. Raises ClientError for a topic
    or a partition that does not exist.
    """
    settled: dict[int, T | ClientError] = {}
    passing: dict[int, ClientError] = {}

    async def attempt() -> None:
        passing.clear()
        known = (await pool.topic(topic)).partitions
        wanted = [*known] if partitions is None else [*partitions]
        by_leader: dict[int, list[int]] = {}
        for partition in wanted:
            if partition not in known:
                raise no_partition(topic, len(known), partition)
            if partition not in settled:
                by_leader.setdefault(pool.leader_of(topic, partition), []).append(partition)
        for leader, led in by_leader.items():
            for partition, outcome in (await _ask(pool, topic, leader, led, ask)).items():
                if isinstance(outcome, ClientError) and outcome.retriable:
                    passing[partition] = outcome
                else:
                    settled[partition] = outcome
        if passing:
            await pool.refresh((topic,))
            raise next(iter(passing.values()))

    try:
        await pool.retry(attempt)
    except ClientError:
        if not passing:
            raise
    found = {**settled, **passing}
    return {partition: found[partition] for partition in sorted(found)}


def only_good(answers: Answers[T]) -> dict[int, T]:
    """Return the answers. Raises the first error among them."""
    good: dict[int, T] = {}
    for partition, outcome in answers.items():
        if isinstance(outcome, ClientError):
            raise outcome
        good[partition] = outcome
    return good


async def _ask(
    pool: Pool, topic: str, leader: int, led: list[int], ask: Ask[T]
) -> dict[int, T | ClientError]:
    """Ask one leader; what goes wrong is the outcome of each of its partitions."""
    try:
        if leader == NO_BROKER:
            raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {topic!r}")
        answers = await ask(await pool.connection(leader), led)
    except ClientError as error:
        return dict.fromkeys(led, error)
    silent = ProtocolError(f"broker {leader} left out what it was asked of topic {topic!r}")
    return {partition: answers.get(partition, silent) for partition in led}


def outcome(code: int, topic: str, partition: int, value: T) -> T | ClientError:
    """Return *value* unless *code* says that there is none."""
    return KafkaError(code, f"topic {topic!r}, partition {partition}") if code else value
