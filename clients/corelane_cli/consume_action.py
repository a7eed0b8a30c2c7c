"""What `corelane consume` does."""

import base64
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import click

from corelane.model.record import record
from corelane.wire.records import Record
from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.interruption import blocking
from corelane_cli.layout import FormatError
from corelane_cli.offsets import Extent, GrammarError, Range, parse, resolve, times_ms
from corelane_cli.progress import Progress
from corelane_cli.session import CONNECTION, run
from corelane_cli.template import Surroundings, compile_template
from corelane_client.admin import Admin
from corelane_client.assignors import Strategy
from corelane_client.consumer import Consumer
from corelane_client.fetching import Watermarks
from corelane_client.group_consumer import GroupConsumer
from corelane_client.group_settings import GroupSettings
from corelane_client.offsets import AtTime, Edge, Place, Resolved
from corelane_client.reading import Reader
from corelane_client.settings import ConsumerSettings

Find = Callable[[str, Place, Sequence[int] | None], Awaitable[dict[int, Resolved]]]
"""Finds the offsets of a place in the partitions of a topic."""


@record
class Wish:
    """What the command line asks for."""

    topics: Sequence[str]
    pattern: re.Pattern[str] | None
    """Instead of topics: what their whole names match."""
    bootstrap: str
    output_format: str
    offset: str
    partitions: Sequence[int]
    group: str | None
    balancer: Sequence[Strategy]
    protocol: Literal["classic", "consumer"]
    assignor: str | None
    instance_id: str | None
    count: int | None
    template: str | None
    meta_only: bool
    read_committed: bool


class _Marks:
    """Knows the ends of the partitions once there is a consumer."""

    consumer: Reader

    def of(self, topic: str, partition: int) -> Watermarks:
        return self.consumer.watermarks(topic, partition)


def run_consume(wish: Wish) -> None:
    """Print what *wish* says, until its end or for ever."""
    marks = _Marks()
    try:
        wanted = parse(wish.offset, int(time.time() * 1000))
    except GrammarError as error:
        raise click.UsageError(f"--offset: {error}") from error
    try:
        printed = _printer(wish, marks)
    except FormatError as error:
        raise click.UsageError(f"--template: {error}") from error
    if wish.group is None:
        run(lambda: _consume(wish, wanted, printed, marks))
    else:
        run(lambda: _consume_in_group(wish, printed, marks))


def _settings(wish: Wish) -> ConsumerSettings:
    return ConsumerSettings(
        isolation="read_committed" if wish.read_committed else "read_uncommitted",
        connection=CONNECTION,
    )


async def _consume_in_group(wish: Wish, printed: Callable[[Record], bytes], marks: _Marks) -> None:
    """Print what falls to this member; what was printed is committed."""
    assert wish.group is not None
    settings = GroupSettings(
        start="end" if wish.offset == "end" else "beginning",
        protocol=wish.protocol,
        server_assignor=wish.assignor,
        instance_id=wish.instance_id,
        consumer=_settings(wish),
    )
    if wish.balancer:
        settings = replace(settings, assignors=tuple(wish.balancer))
    topics = wish.pattern or wish.topics
    async with GroupConsumer(wish.bootstrap, wish.group, topics, settings) as consumer:
        marks.consumer = consumer
        is_wanted = wish.count is not None and not are_records_seen()
        progress = Progress(wish.count or 0, is_wanted=is_wanted, unit="records")
        try:
            await _print(consumer, printed, wish.count, progress)
        finally:
            progress.finish()


async def _consume(
    wish: Wish, wanted: Range, printed: Callable[[Record], bytes], marks: _Marks
) -> None:
    async with Consumer(wish.bootstrap, _settings(wish)) as consumer:
        marks.consumer = consumer
        total: int | None = 0
        async with Admin(wish.bootstrap, CONNECTION) as admin:
            find = partial(admin.list_offsets, is_committed=wish.read_committed)
            for topic in await _named(wish, admin):
                count = await _assign(consumer, find, topic, wanted, wish.partitions or None)
                total = None if total is None or count is None else total + count
        if wish.count is not None:
            total = wish.count if total is None else min(total, wish.count)
        is_wanted = total is not None and not are_records_seen()
        progress = Progress(total or 0, is_wanted=is_wanted, unit="records")
        try:
            await _print(consumer, printed, wish.count, progress)
        finally:
            progress.finish()


def pattern_of(expressions: Sequence[str]) -> re.Pattern[str]:
    """Return the pattern of whole names that match any of *expressions*. Raises UsageError."""
    try:
        return re.compile("|".join(expressions))
    except re.error as error:
        message = f"--regex: {error.pattern!r} is no regular expression: {error}"
        raise click.UsageError(message) from error


async def _named(wish: Wish, admin: Admin) -> Sequence[str]:
    """Return the topics to read; of patterns those that match now."""
    if wish.pattern is None:
        return wish.topics
    pattern = wish.pattern
    found = await admin.list_topics()
    names = [each.name for each in found if not each.is_internal and pattern.fullmatch(each.name)]
    if not names:
        sentence = f"no topic has a name that matches {pattern.pattern!r}"
        raise CommandError(exits.FAILED, sentence, "See what there is with `corelane topic list`.")
    return names


def are_records_seen() -> bool:
    """Return whether records go to a terminal; a progress line between them would only disturb."""
    return sys.stdout.isatty()


async def _print(
    consumer: Reader, printed: Callable[[Record], bytes], left: int | None, progress: Progress
) -> None:
    """Print what comes, *left* records at most."""
    out = sys.stdout.buffer
    count = 0
    while records := await consumer.read(left):
        text = b"".join(map(printed, records))
        with blocking():
            out.write(text)
            out.flush()
        count += len(records)
        progress.show(count)
        if left is not None:
            left -= len(records)
            if not left:
                break


async def _assign(
    consumer: Consumer, find: Find, topic: str, wanted: Range, partitions: Sequence[int] | None
) -> int | None:
    """Assign the partitions of one topic, each with its own offsets.

    Returns the number of offsets to read, or None without an end.
    """
    beginnings = await find(topic, Edge.BEGINNING, partitions)
    ends = await find(topic, Edge.END, partitions)
    by_time = {
        time_ms: await find(topic, AtTime(time_ms), partitions) for time_ms in times_ms(wanted)
    }
    total = 0
    for partition, beginning in beginnings.items():
        times = {time_ms: found[partition].offset for time_ms, found in by_time.items()}
        extent = Extent(beginning.offset, ends[partition].offset, times)
        start = resolve(wanted.first, extent)
        stop = None if wanted.stop is None else resolve(wanted.stop, extent)
        total += 0 if stop is None else max(stop - start, 0)
        await consumer.assign(topic, [partition], start=start, stop=stop)
    return None if wanted.stop is None else total


def _printer(wish: Wish, marks: _Marks) -> Callable[[Record], bytes]:
    """Return the function that prints a record. Raises FormatError."""
    if wish.output_format == "json":
        return lambda each: _json_line(each, meta_only=wish.meta_only)
    template = wish.template
    if template is None:
        template = "%t partition %p offset %o\\n" if wish.meta_only else "%v\\n"
    return compile_template(template, Surroundings(marks.of))


def _json_line(each: Record, *, meta_only: bool) -> bytes:
    value = {"value_bytes": len(each.value or b"")} if meta_only else {}
    fields = {
        "topic": each.topic,
        "partition": each.partition,
        "offset": each.offset,
        "timestamp_ms": each.timestamp_ms,
        **_text_or_base64("key", each.key),
        **(value or _text_or_base64("value", each.value)),
        "headers": [
            {"name": name, **_text_or_base64("value", value)} for name, value in each.headers
        ],
    }
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def _text_or_base64(name: str, data: bytes | None) -> dict[str, Any]:
    """Return *data* as text if it is UTF-8; otherwise null beside its base64."""
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(data).decode()}
