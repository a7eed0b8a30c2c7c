"""What `corelane group seek` and `corelane group delete` do."""

import time
from collections.abc import Sequence
from typing import Any

import click

from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.offsets import Bound, Extent, GrammarError, Range, parse, resolve, times_ms
from corelane_cli.output import counted, show_json, table
from corelane_cli.session import CONNECTION, run
from corelane_client.admin import Admin
from corelane_client.errors import KafkaError
from corelane_client.offsets import AtTime, Edge

_EMPTY_STATES = {"Empty", "Dead"}


@record
class Wish:
    """What `group seek` is asked for."""

    name: str
    offset: str
    topics: Sequence[str]
    is_trial: bool


def seek(bootstrap: str, wish: Wish, output_format: str) -> None:
    """Set how far a group has read, and print what was and what is."""
    bound = _bound(wish.offset)

    async def conversation() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            return await _seek(admin, wish, bound)

    rows = run(conversation)
    if output_format == "json":
        show_json({"group": wish.name, "dry_run": wish.is_trial, "partitions": rows})
    elif rows:
        keys = ("topic", "partition", "before", "after")
        lines = [["-" if row[key] is None else row[key] for key in keys] for row in rows]
        click.echo(table([key.upper() for key in keys], lines))
        if wish.is_trial:
            click.echo("nothing was changed: --dry-run", err=True)


def _bound(text: str) -> Bound:
    try:
        wanted = parse(text, int(time.time() * 1000))
    except GrammarError as error:
        raise click.UsageError(f"--to: {error}") from error
    if wanted.stop is not None:
        raise click.UsageError(f"--to: {text} is a range; name one offset")
    return wanted.first


async def _seek(admin: Admin, wish: Wish, bound: Bound) -> list[dict[str, Any]]:
    await _check_empty(admin, wish.name)
    committed = await admin.group_offsets(wish.name)
    topics = wish.topics or sorted({topic for topic, _number in committed})
    if not topics:
        raise CommandError(
            exits.REFUSED,
            f"group {wish.name!r} has committed nothing",
            "Name the topics with --topic.",
        )
    rows: list[dict[str, Any]] = []
    wanted: dict[tuple[str, int], int] = {}
    for topic in topics:
        first = await admin.list_offsets(topic, Edge.BEGINNING)
        end = await admin.list_offsets(topic, Edge.END)
        by_time = {
            time_ms: await admin.list_offsets(topic, AtTime(time_ms))
            for time_ms in times_ms(Range(bound, None))
        }
        for number, beginning in sorted(first.items()):
            times = {time_ms: found[number].offset for time_ms, found in by_time.items()}
            extent = Extent(beginning.offset, end[number].offset, times)
            after = min(resolve(bound, extent), end[number].offset)
            before = committed.get((topic, number))
            wanted[topic, number] = after
            rows.append(
                {
                    "topic": topic,
                    "partition": number,
                    "before": None if before is None else before.offset,
                    "after": after,
                }
            )
    if not wish.is_trial:
        await admin.commit_group_offsets(wish.name, wanted)
    return rows


async def _check_empty(admin: Admin, name: str) -> None:
    """Refuse while somebody reads: members would commit over it at once."""
    try:
        group = await admin.describe_group(name)
    except KafkaError as error:
        if error.name == "GROUP_ID_NOT_FOUND":
            return  # it begins to exist by this
        raise
    if group.state not in _EMPTY_STATES:
        raise CommandError(
            exits.REFUSED,
            f"group {name!r} has {counted(len(group.members), 'member')}",
            "Stop its consumers first: they would commit their own offsets over these.",
        )


def delete(bootstrap: str, names: Sequence[str], output_format: str) -> None:
    """Delete groups; those that can be are, and the first error is raised."""

    async def conversation() -> dict[str, KafkaError | None]:
        async with Admin(bootstrap, CONNECTION) as admin:
            return await admin.delete_groups(names)

    found = run(conversation)
    deleted = [name for name, error in found.items() if error is None]
    if output_format == "json":
        if deleted:
            show_json({"groups": [{"name": name, "status": "deleted"} for name in deleted]})
    else:
        for name in deleted:
            click.echo(f"deleted group {name}")
    first = next((error for error in found.values() if error is not None), None)
    if first is not None:

        async def fail() -> None:
            raise first

        run(fail)
