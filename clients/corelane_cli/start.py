"""`corelane start`: from the command line's words to a running node."""

import os
from collections.abc import Mapping
from pathlib import Path

from corelane.model import config as configuration
from corelane.model.config import Config, ConfigError
from corelane.model.config_keys import Value
from corelane.runtime import start as runtime
from corelane.runtime.failures import EXIT_CONFIG, StartError
from corelane_cli.application import show
from corelane_cli.environment import from_environment
from corelane_cli.exits import CommandError


def start(
    config_path: Path | None, overrides: Mapping[str, Value], error_format: str = "text"
) -> int:
    """Run a node until it is stopped and return the exit code; says on stderr why it cannot.

    *overrides* are settings by their names (`corelane.port`), values may be text.
    """
    try:
        return runtime.serve(load(config_path, overrides))
    except StartError as error:
        return say(error, error_format)


def load(config_path: Path | None, overrides: Mapping[str, Value]) -> Config:
    """Read the configuration: the environment wins over the file, *overrides* over both.

    Raises `StartError` that names every fault.
    """
    try:
        text = "" if config_path is None else config_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartError(
            f"cannot read the configuration {config_path}",
            why or "the system refused",
            "Correct the path, or start without --config.",
            EXIT_CONFIG,
        ) from error
    try:
        return configuration.parse(text, {**from_environment(os.environ), **overrides})
    except ConfigError as error:
        where = "the command line" if config_path is None else str(config_path)
        raise StartError(
            f"cannot use the configuration of {where}",
            "\n  ".join(["", *str(error).splitlines()]),
            "Correct it and start again.",
            EXIT_CONFIG,
        ) from error


def say(error: StartError, error_format: str) -> int:
    """Say on stderr why there is no broker, as all commands do, and return the exit code."""
    told = CommandError(error.code, error.sentence, error.next_step)
    return show(told, error_format == "json")
