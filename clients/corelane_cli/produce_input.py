"""What `corelane produce` sends: records out of options, of lines, or of input in a format."""

import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

import click
import trio

from corelane.wire.records import Headers
from corelane_cli.input_format import Fields, InputFormat
from corelane_cli.input_source import InputError, InputSource
from corelane_cli.produce_wish import Wish
from corelane_cli.progress import Progress
from corelane_client.batching import Message

_READ_BYTES: Final = 256 * 1024

Sent = tuple[Message, int]
"""A record, and how many bytes of the input have been read with it."""


@contextmanager
def messages(
    wish: Wish, form: InputFormat | None
) -> Iterator[tuple[AsyncIterator[Sent], Progress]]:
    """Give the records to send, and where to show how far we are.

    Iterating raises InputError.
    """
    is_text = wish.output_format == "text"
    if wish.messages:
        yield _given(wish), Progress(0, is_wanted=False)
        return
    stream = wish.path.open("rb") if wish.path else sys.stdin.buffer
    if wish.path is None and is_text and sys.stdin.isatty() and sys.stderr.isatty():
        what = "One record in each line" if form is None else "Records as --template says"
        click.echo(f"{what}; Ctrl-D ends.", err=True)
    is_shown = is_text and not stream.isatty() and wish.output_template is None
    progress = Progress(_size_bytes(stream), is_wanted=is_shown)
    try:
        yield (_by_line(wish, stream) if form is None else _by_form(wish, form, stream)), progress
    finally:
        progress.finish()
        if wish.path:
            stream.close()


async def _given(wish: Wish) -> AsyncIterator[Sent]:
    headers = _headers(wish)
    for message in wish.messages:
        yield _message(wish, headers, message.encode()), 0


async def _by_line(wish: Wish, stream: BinaryIO) -> AsyncIterator[Sent]:
    headers = _headers(wish)
    read_bytes = 0
    async for line in _lines(stream):
        read_bytes += len(line) + 1
        yield _message(wish, headers, line), read_bytes


async def _by_form(wish: Wish, form: InputFormat, stream: BinaryIO) -> AsyncIterator[Sent]:
    source = InputSource(lambda: _read(stream))
    headers = _headers(wish)
    count = 0
    try:
        while fields := await form.read(source):
            count += 1
            yield _filled(wish, headers, fields), source.position
    except InputError as error:
        raise InputError(f"record {count + 1}: {error}") from error


def _filled(wish: Wish, headers: Headers, fields: Fields) -> Message:
    """Return the record of what was read; it wins over the options."""
    topic = fields.texts.get("t")
    name = wish.topic
    if topic is not None:
        try:
            name = topic.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"the topic {topic[:40]!r} is not UTF-8") from error
    assert name is not None, "without a topic the format reads one"
    key = wish.key.encode() if wish.key is not None else None
    value = fields.texts.get("v", b"")
    if wish.tombstones and not value:
        value = None
    partition = fields.numbers.get("p", -1)
    return Message(
        name,
        value,
        fields.texts.get("k", key),
        (*headers, *fields.headers),
        wish.partition if partition < 0 else partition,
        fields.numbers.get("d"),
    )


def _message(wish: Wish, headers: Headers, line: bytes) -> Message:
    """Return the record that one line stands for."""
    assert wish.topic is not None
    key = wish.key.encode() if wish.key is not None else None
    value: bytes | None = line
    if wish.key_separator is not None:
        first, found, rest = line.partition(wish.key_separator.encode())
        if found:
            key, value = first, rest
    if wish.tombstones and not value:
        value = None
    return Message(wish.topic, value, key, headers, wish.partition)


def _headers(wish: Wish) -> Headers:
    parts = (each.partition("=") for each in wish.headers)
    return tuple((name, value.encode()) for name, _, value in parts)


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
