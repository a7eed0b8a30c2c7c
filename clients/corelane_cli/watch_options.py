"""The options of commands that can show their result again and again."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

INTERVAL_S: Final = 2.0

F = TypeVar("F", bound=Callable[..., Any])


def watch_options(command: F) -> F:
    """Add --watch and --interval."""
    command = click.option(
        "--interval",
        "interval_s",
        type=click.FloatRange(0.1),
        metavar="SECONDS",
        help=f"How often --watch looks.  [default: {INTERVAL_S:g}]",
    )(command)
    return click.option(
        "-w",
        "--watch",
        "is_watch",
        is_flag=True,
        help="Show it again and again until Ctrl-C; a line each time where no terminal is.",
    )(command)


def interval(*, is_watch: bool, interval_s: float | None) -> float | None:
    """Return how often to look, None: once. Raises UsageError."""
    if interval_s is not None and not is_watch:
        raise click.UsageError("--interval is for --watch")
    return (interval_s or INTERVAL_S) if is_watch else None
