"""Shows something again and again: on a terminal in place, into a pipe as one line each time."""

import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import click
import trio

from corelane.model.record import record
from corelane_cli.interruption import blocking
from corelane_cli.output import show_json
from corelane_cli.session import run

_CLEAR: Final = "\x1b[H\x1b[J"

T = TypeVar("T")


@record
class Views:
    """The ways to show one thing."""

    whole: Callable[[Any], str]
    """What people read."""
    line: Callable[[Any], str]
    """It in one line, for a log that grows by one each time."""
    json: Callable[[Any], Any]


def show(
    look: Callable[[], Awaitable[T]], views: Views, output_format: str, every_s: float | None
) -> None:
    """Print what *look* finds, once or every so many seconds. Raises CommandError."""
    if every_s is None:
        _print(run(look), views, output_format)
    else:
        run(lambda: _watch(look, views, output_format, every_s))


async def _watch(
    look: Callable[[], Awaitable[T]], views: Views, output_format: str, every_s: float
) -> None:
    next_s = trio.current_time()
    while True:
        found = await look()
        with blocking():
            if output_format == "json":
                show_json(views.json(found))
            elif sys.stdout.isatty():
                _redraw(views.whole(found), every_s)
            else:
                click.echo(f"{_now()}  {views.line(found)}")
            sys.stdout.flush()
        next_s = max(next_s + every_s, trio.current_time())
        await trio.sleep_until(next_s)


def _print(found: Any, views: Views, output_format: str) -> None:
    if output_format == "json":
        show_json(views.json(found))
    elif text := views.whole(found):
        click.echo(text)


def _redraw(text: str, every_s: float) -> None:
    """Put *text* on the terminal in place of what is there, as much as it holds."""
    columns, rows = shutil.get_terminal_size()
    lines = [f"{_now()}, every {every_s:g} s", *text.splitlines()]
    if len(lines) > rows - 1:
        hidden = len(lines) - (rows - 2)
        lines = [*lines[: rows - 2], f"... and {hidden} lines more"]
    click.echo(_CLEAR + "\n".join(line[:columns] for line in lines))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
