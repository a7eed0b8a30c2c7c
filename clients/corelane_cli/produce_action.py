"""What `corelane produce` does."""

import os
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import click
import trio

from corelane.model.record import record
from corelane_cli.exits import CommandError
from corelane_cli.output import show_json
from corelane_cli.progress import Progress
from corelane_cli.session import CONNECTION, DELIVERY_TIMEOUT_MS, run
from corelane_client.batching import Delivery, Message, Outcome
from corelane_client.errors import ClientError
from corelane_client.producer import Producer
from corelane_client.records import Headers
from corelane_client.settings import Acks, Codec, ProducerSettings

_READ_BYTES: Final = 256 * 1024


@record
class Wish:
    """What the command line asks for."""

    topic: str
    bootstrap: str
    output_format: str
    messages: Sequence[str]
    path: Path | None
    key: str | None
    key_separator: str | None
    headers: Sequence[str]
    partition: int | None
    tombstones: bool
    acks: Acks
    compression: Codec
    create: bool


class Tally:
    """What became of the records."""

    def __init__(self) -> None:
        self.records = 0
        self.value_bytes = 0
        self.failure: ClientError | None = None
        self.partitions: dict[int, list[int]] = {}
        """First offset, last offset and number of records, by partition."""

    def count(self, outcome: Outcome) -> None:
        """Take note of one record; the first failure is kept."""
        if isinstance(outcome, Delivery):
            self.records += 1
            row = self.partitions.setdefault(outcome.partition, [outcome.offset, -1, 0])
            row[0] = min(row[0], outcome.offset)
            row[1] = max(row[1], outcome.offset)
            row[2] += 1
        elif self.failure is None:
            self.failure = outcome


def run_produce(wish: Wish) -> None:
    """Send what *wish* says and print where it is."""
    start_s = time.monotonic()
    tally = Tally()
    try:
        run(lambda: _produce(wish, tally))
    except CommandError:
        if tally.records:
            _print(wish, tally, time.monotonic() - start_s)
        raise
    _print(wish, tally, time.monotonic() - start_s)


async def _produce(wish: Wish, tally: Tally) -> None:
    settings = ProducerSettings(
        acks=wish.acks,
        compression=wish.compression,
        create_topics=wish.create,
        delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
        connection=CONNECTION,
    )
    headers = tuple(_header(each) for each in wish.headers)
    async with Producer(wish.bootstrap, settings) as producer:
        with _source(wish) as (lines, progress):
            read_bytes = 0
            async for line in lines:
                read_bytes += len(line) + 1
                message = _message(wish, headers, line)
                tally.value_bytes += len(message.value or b"")
                await producer.enqueue(message, tally.count)
                if tally.failure is not None:
                    break
                progress.show(read_bytes, tally.records)
            await producer.flush()
    if tally.failure is not None:
        raise tally.failure


def _message(wish: Wish, headers: Headers, line: bytes) -> Message:
    """Return the record that one line stands for."""
    key = wish.key.encode() if wish.key is not None else None
    value: bytes | None = line
    if wish.key_separator is not None:
        first, found, rest = line.partition(wish.key_separator.encode())
        if found:
            key, value = first, rest
    if wish.tombstones and not value:
        value = None
    return Message(wish.topic, value, key, headers, wish.partition)


def _header(text: str) -> tuple[str, bytes | None]:
    name, _, value = text.partition("=")
    return name, value.encode()


@contextmanager
def _source(wish: Wish) -> Iterator[tuple[AsyncIterator[bytes], Progress]]:
    """Give the lines to send and where to show how far we are."""
    is_text = wish.output_format == "text"
    if wish.messages:
        yield _given(wish.messages), Progress(0, is_wanted=False)
        return
    stream = wish.path.open("rb") if wish.path else sys.stdin.buffer
    if wish.path is None and is_text and sys.stdin.isatty() and sys.stderr.isatty():
        click.echo("One record in each line; Ctrl-D ends.", err=True)
    progress = Progress(_size_bytes(stream), is_wanted=is_text and not stream.isatty())
    try:
        yield _lines(stream), progress
    finally:
        progress.finish()
        if wish.path:
            stream.close()


async def _given(messages: Sequence[str]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message.encode()


async def _lines(stream: BinaryIO) -> AsyncIterator[bytes]:
    """Yield lines without their ends, as they come; the last may lack its end."""
    rest = b""
    while data := await _read(stream):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


async def _read(stream: BinaryIO) -> bytes:
    """Read what is there, waiting without blocking where the system lets us wait.

    Not in a thread: one that still reads when the command is interrupted aborts the interpreter.
    """
    try:
        descriptor = stream.fileno()
        await trio.lowlevel.wait_readable(descriptor)
    except OSError:  # a regular file, which is always ready, or a test's stream
        await trio.lowlevel.checkpoint()
        return stream.read(_READ_BYTES)
    return os.read(descriptor, _READ_BYTES)


def _size_bytes(stream: BinaryIO) -> int:
    """Return the size of a regular file; 0 if it is something else."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a test's stream has no descriptor
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _print(wish: Wish, tally: Tally, seconds: float) -> None:
    """Print where the records are."""
    rows = sorted(tally.partitions.items())
    if wish.output_format == "json":
        partitions = [
            {"partition": number, "first_offset": first, "last_offset": last, "records": count}
            for number, (first, last, count) in rows
        ]
        show_json(
            {
                "topic": wish.topic,
                "records": tally.records,
                "value_bytes": tally.value_bytes,
                "seconds": round(seconds, 3),
                "partitions": partitions,
            }
        )
        return
    for number, (first, last, count) in rows:
        where = f"offset {first}" if first == last else f"offsets {first} to {last}"
        if first < 0:
            where = "offset not told (acks 0)"
        noun = "record" if count == 1 else "records"
        click.echo(f"{wish.topic}, partition {number}: {count} {noun}, {where}")
