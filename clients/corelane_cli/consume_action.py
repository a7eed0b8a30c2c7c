"""What `corelane consume` does."""

import base64
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from corelane.model.record import record
from corelane_cli.offsets import Extent, GrammarError, Range, parse, resolve, times_ms
from corelane_cli.session import CONNECTION, run
from corelane_cli.template import TemplateError, compile_template
from corelane_client.admin import Admin
from corelane_client.consumer import Consumer
from corelane_client.offsets import AtTime, Edge
from corelane_client.records import Record
from corelane_client.settings import ConsumerSettings


@record
class Wish:
    """What the command line asks for."""

    topics: Sequence[str]
    bootstrap: str
    output_format: str
    offset: str
    partitions: Sequence[int]
    count: int | None
    template: str | None
    read_committed: bool


def run_consume(wish: Wish) -> None:
    """Print what *wish* says, until its end or for ever."""
    try:
        wanted = parse(wish.offset, int(time.time() * 1000))
        printed = _printer(wish)
    except (GrammarError, TemplateError) as error:
        raise click.UsageError(str(error)) from error
    run(lambda: _consume(wish, wanted, printed))


async def _consume(wish: Wish, wanted: Range, printed: Callable[[Record], bytes]) -> None:
    settings = ConsumerSettings(
        isolation="read_committed" if wish.read_committed else "read_uncommitted",
        connection=CONNECTION,
    )
    async with Consumer(wish.bootstrap, settings) as consumer:
        async with Admin(wish.bootstrap, CONNECTION) as admin:
            for topic in wish.topics:
                await _assign(consumer, admin, topic, wanted, wish.partitions or None)
        out = sys.stdout.buffer
        left = wish.count
        while records := (await consumer.read())[:left]:
            out.write(b"".join(map(printed, records)))
            out.flush()
            if left is not None:
                left -= len(records)
                if not left:
                    break


async def _assign(
    consumer: Consumer, admin: Admin, topic: str, wanted: Range, partitions: Sequence[int] | None
) -> None:
    """Assign the partitions of one topic, each with its own offsets."""
    beginnings = await admin.list_offsets(topic, Edge.BEGINNING, partitions)
    ends = await admin.list_offsets(topic, Edge.END, partitions)
    by_time = {
        time_ms: await admin.list_offsets(topic, AtTime(time_ms), partitions)
        for time_ms in times_ms(wanted)
    }
    for partition, beginning in beginnings.items():
        times = {time_ms: found[partition].offset for time_ms, found in by_time.items()}
        extent = Extent(beginning.offset, ends[partition].offset, times)
        await consumer.assign(
            topic,
            [partition],
            start=resolve(wanted.first, extent),
            stop=None if wanted.stop is None else resolve(wanted.stop, extent),
        )


def _printer(wish: Wish) -> Callable[[Record], bytes]:
    """Return the function that prints a record."""
    if wish.output_format == "json":
        return _json_line
    return compile_template("%v\\n" if wish.template is None else wish.template)


def _json_line(each: Record) -> bytes:
    fields = {
        "topic": each.topic,
        "partition": each.partition,
        "offset": each.offset,
        "timestamp_ms": each.timestamp_ms,
        **_text_or_base64("key", each.key),
        **_text_or_base64("value", each.value),
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
