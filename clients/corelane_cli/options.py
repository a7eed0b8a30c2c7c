"""The options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

BOOTSTRAP_DEFAULT = "127.0.0.1:9092"
BOOTSTRAP_VARIABLE = "CORELANE_BOOTSTRAP"


def format_option(command: F) -> F:
    """Add --format."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How results and errors are printed.",
    )(command)


def bootstrap_option(command: F) -> F:
    """Add --bootstrap."""
    return click.option(
        "-b",
        "--bootstrap",
        default=BOOTSTRAP_DEFAULT,
        show_default=True,
        envvar=BOOTSTRAP_VARIABLE,
        show_envvar=True,
        metavar="HOST:PORT[,...]",
        help="Any brokers of the cluster.",
    )(command)


def admin_option(command: F) -> F:
    """Add --admin."""
    return click.option(
        "--admin",
        envvar="CORELANE_ADMIN",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The node's admin port.  [default: port 9644 of the first --bootstrap host]",
    )(command)
