"""What `corelane topic trim` does."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.offsets import Bound, Extent, GrammarError, Range, parse, resolve, times_ms
from corelane_cli.output import show_json, table
from corelane_cli.session import CONNECTION, run
from corelane_client.admin import Admin
from corelane_client.errors import ClientError
from corelane_client.offsets import AtTime, Edge


@record
class Wish:
    """What the command line asks for."""

    topic: str
    offset: str
    partitions: Sequence[int]
    is_sure: bool


@record
class Cut:
    """What is to be deleted of a partition: from `first`, included, to `before`, excluded."""

    partition: int
    first: int
    before: int

    @property
    def count(self) -> int:
        """The number of offsets that go."""
        return max(self.before - self.first, 0)


def trim(bootstrap: str, wish: Wish, output_format: str) -> None:
    """Delete the beginning of partitions, once it is sure that this is wanted."""
    bound = _bound(wish.offset)
    is_asked = not wish.is_sure
    if is_asked and not can_ask(output_format):
        raise click.UsageError("--yes is needed where nobody can be asked: the records are lost")
    cuts = run(lambda: _plan(bootstrap, wish, bound))
    if is_asked:
        rows = [(cut.partition, cut.first, cut.before, cut.count) for cut in cuts]
        click.echo(table(("PARTITION", "FIRST", "NEW FIRST", "DELETED"), rows), err=True)
        # Not inside the conversation: it would keep the connection open while someone thinks.
        if not click.confirm(f"Delete these offsets of {wish.topic} for ever?", err=True):
            raise CommandError(exits.FAILED, "nothing was deleted", "")
    done: list[dict[str, Any]] = []
    try:
        run(lambda: _trim(bootstrap, wish.topic, cuts, done))
    finally:
        _print(wish.topic, done, output_format)


def can_ask(output_format: str) -> bool:
    """Return whether a person is there to answer."""
    return output_format == "text" and sys.stdin.isatty() and sys.stderr.isatty()


def _bound(text: str) -> Bound:
    """Return the one bound that *text* names."""
    try:
        wanted = parse(text, int(time.time() * 1000))
    except GrammarError as error:
        raise click.UsageError(f"--offset: {error}") from error
    if wanted.stop is not None:
        raise click.UsageError(f"--offset: {text} is a range; name the first offset to keep")
    return wanted.first


async def _plan(bootstrap: str, wish: Wish, bound: Bound) -> list[Cut]:
    """Find out what would go."""
    partitions = wish.partitions or None
    async with Admin(bootstrap, CONNECTION) as admin:
        first = await admin.list_offsets(wish.topic, Edge.BEGINNING, partitions)
        end = await admin.list_offsets(wish.topic, Edge.END, partitions)
        by_time = {
            time_ms: await admin.list_offsets(wish.topic, AtTime(time_ms), partitions)
            for time_ms in times_ms(Range(bound, None))
        }
    cuts: list[Cut] = []
    for partition, beginning in first.items():
        times = {time_ms: found[partition].offset for time_ms, found in by_time.items()}
        extent = Extent(beginning.offset, end[partition].offset, times)
        # An offset as it was typed may be too large; the broker says so.
        cuts.append(Cut(partition, beginning.offset, resolve(bound, extent)))
    return cuts


async def _trim(
    bootstrap: str, topic: str, cuts: Sequence[Cut], done: list[dict[str, Any]]
) -> None:
    """Delete, note in *done* what was deleted, and raise the first error."""
    first = {cut.partition: cut.first for cut in cuts}
    async with Admin(bootstrap, CONNECTION) as admin:
        found = await admin.delete_records(topic, {cut.partition: cut.before for cut in cuts})
    for partition, outcome in found.items():
        if not isinstance(outcome, ClientError):
            deleted = max(outcome - first[partition], 0)
            done.append({"partition": partition, "first_offset": outcome, "deleted": deleted})
    for outcome in found.values():
        if isinstance(outcome, ClientError):
            raise outcome


def _print(topic: str, done: list[dict[str, Any]], output_format: str) -> None:
    """Print what was deleted, also when the rest could not be."""
    if output_format == "json":
        if done:
            show_json({"topic": topic, "partitions": done})
        return
    for row in done:
        click.echo(
            f"trimmed {topic}, partition {row['partition']}: {row['deleted']} offsets deleted,"
            f" the first is now {row['first_offset']}"
        )
