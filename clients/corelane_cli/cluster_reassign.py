"""What `corelane cluster reassign` and `corelane cluster reassignments` do."""

import time
from collections.abc import Sequence
from typing import Any, Final

import click

from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.output import show_json, table
from corelane_cli.progress import Progress
from corelane_cli.session import CONNECTION, run
from corelane_client.admin import Admin
from corelane_client.errors import ClientError, KafkaError, ProtocolError
from corelane_client.pool import Topic
from corelane_client.reassignments import Reassignment

LOOK_S: Final = 0.3


@record
class Wish:
    """What the command line asks for."""

    topic: str
    partition: int
    brokers: Sequence[int] | None
    """None: a reassignment is called off."""
    bootstrap: str
    output_format: str
    wait: bool
    timeout_s: float


def reassign(wish: Wish) -> None:
    """Have a partition's replicas elsewhere, or call that off; wait and say so."""
    _ask(wish)
    if wish.wait:
        _wait(wish)
    status = "called off" if wish.brokers is None else "moved" if wish.wait else "moving"
    if wish.output_format == "json":
        brokers = None if wish.brokers is None else [*wish.brokers]
        row = {"topic": wish.topic, "partition": wish.partition, "brokers": brokers}
        show_json({**row, "status": status})
    else:
        place = "" if wish.brokers is None else f" to {', '.join(map(str, wish.brokers))}"
        click.echo(f"{status} {wish.topic}, partition {wish.partition}{place}")


def _ask(wish: Wish) -> None:
    async def conversation() -> None:
        async with Admin(wish.bootstrap, CONNECTION) as admin:
            wanted = {wish.partition: wish.brokers}
            for error in (await admin.reassign_partitions(wish.topic, wanted)).values():
                if error is not None:
                    raise error

    run(conversation)


def _wait(wish: Wish) -> None:
    deadline_s = time.monotonic() + wish.timeout_s
    progress = Progress(0, is_wanted=wish.output_format == "text")
    try:
        while True:
            rows = [
                row
                for row in look(wish.bootstrap)
                if (row["topic"], row["partition"]) == (wish.topic, wish.partition)
            ]
            if not rows:
                return
            progress.resize(rows[0]["total_bytes"])
            progress.show(rows[0]["done_bytes"])
            if time.monotonic() >= deadline_s:
                raise CommandError(
                    exits.TIMED_OUT,
                    f"{wish.topic}, partition {wish.partition} is still being moved after"
                    f" {wish.timeout_s:.0f} s: {rows[0]['state']}",
                    "It goes on by itself: `corelane cluster reassignments`; --cancel calls it"
                    " off.",
                )
            time.sleep(LOOK_S)
    finally:
        progress.finish()


def show(bootstrap: str, output_format: str, *, watch: bool) -> None:
    """Print what is being moved, how far it is, and what it waits for; again and again."""
    before: list[dict[str, Any]] | None = None
    while True:
        rows = look(bootstrap)
        if rows != before:
            _print(rows, output_format)
        before = rows
        if not watch or not rows:
            return
        time.sleep(LOOK_S)


def look(bootstrap: str) -> list[dict[str, Any]]:
    """Return the partitions that are being moved, as JSON has them. Raises CommandError."""

    async def conversation() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            moving = await admin.list_reassignments()
            if not moving:
                return []
            topics = {topic.name: topic for topic in await admin.list_topics()}
            brokers = {each.broker_id for each in (await admin.describe_cluster()).brokers}
            sizes = await _sizes(admin, {each.topic for each in moving})
            return [
                _row(each, topics[each.topic], brokers, sizes)
                for each in moving
                if each.topic in topics
            ]

    return run(conversation)


async def _sizes(admin: Admin, topics: set[str]) -> dict[tuple[str, int, int], int]:
    """Return the bytes of partitions on brokers, as far as these tell."""
    try:
        directories = await admin.describe_log_dirs(topics)
    except (KafkaError, ProtocolError, ClientError):  # one is away, or does not know the API
        return {}
    return {
        (topic, number, each.broker_id): size
        for each in directories
        for (topic, number), size in each.partitions.items()
    }


def _row(
    each: Reassignment,
    topic: Topic,
    brokers: set[int],
    sizes: dict[tuple[str, int, int], int],
) -> dict[str, Any]:
    partition = topic.partitions[each.partition]
    whole = sizes.get((each.topic, each.partition, partition.leader), 0)
    have = [
        whole if broker in partition.in_sync else sizes.get((each.topic, each.partition, broker), 0)
        for broker in each.adding
    ]
    away = [broker for broker in each.adding if broker not in brokers]
    if partition.leader not in brokers:
        state = "waits: the partition has no leader"
    elif away:
        state = f"waits: broker {', '.join(map(str, away))} cannot be reached"
    elif all(broker in partition.in_sync for broker in each.adding):
        state = "the new replicas have everything; the others leave"
    else:
        state = "the new replicas are getting what there is"
    return {
        "topic": each.topic,
        "partition": each.partition,
        "replicas": each.replicas,
        "adding": each.adding,
        "removing": each.removing,
        "done_bytes": sum(min(size, whole) for size in have),
        "total_bytes": whole * len(each.adding),
        "state": state,
    }


def _print(rows: list[dict[str, Any]], output_format: str) -> None:
    if output_format == "json":
        show_json({"reassignments": rows})
        return
    if not rows:
        click.echo("nothing is being reassigned")
        return
    head = ("TOPIC", "PARTITION", "REPLICAS", "ADDING", "REMOVING", "DONE", "STATE")
    cells = [
        (
            row["topic"],
            row["partition"],
            *(",".join(map(str, row[key])) or "-" for key in ("replicas", "adding", "removing")),
            _share(row),
            row["state"],
        )
        for row in rows
    ]
    click.echo(table(head, cells))


def _share(row: dict[str, Any]) -> str:
    total = row["total_bytes"]
    return "?" if not total else f"{row['done_bytes'] / total:.0%}"
