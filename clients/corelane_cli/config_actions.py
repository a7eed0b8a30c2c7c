"""What the `corelane config` commands do."""

import os
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from corelane.model import config as configuration
from corelane.model.config import ConfigError
from corelane.model.config_keys import FACTORS, KEYS
from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.config_facts import Setting, find, setting_of, settings, text_of
from corelane_cli.environment import from_environment
from corelane_cli.exits import CommandError
from corelane_cli.output import show_json, table
from corelane_cli.session import CONNECTION, run
from corelane_client.admin import Admin, ConfigEntry
from corelane_client.settings import ConnectionSettings

_QUICK = ConnectionSettings(
    client_id=CONNECTION.client_id,
    connect_timeout_ms=2_000,
    request_timeout_ms=5_000,
    retry_timeout_ms=2_000,
)
"""A broker that does not answer is no failure here, so it is not waited for long."""


@record
class Wish:
    """What the command line asks for."""

    config_path: Path | None
    assignments: Mapping[str, str]
    bootstrap: str
    output_format: str


@record
class Valued:
    """A value as text and where it is from; None where nobody could be asked."""

    value: str | None
    source: str


def explain(key: str, wish: Wish) -> None:
    """Print everything about one setting."""
    setting = setting_of(find(key))
    found, why = _values(wish, [setting])
    valued = found.get(setting.name)
    if wish.output_format == "json":
        show_json({**_json(setting, valued), **({"value_unknown_because": why} if why else {})})
        return
    click.echo(_text(setting, valued))
    if why:
        click.echo(f"  value unknown: {why}")


def list_settings(wish: Wish, *, only_changed: bool) -> None:
    """Print every setting of a broker."""
    wanted = settings()
    found, why = _values(wish, wanted)
    if why:
        raise CommandError(
            exits.CANNOT_CONNECT,
            why,
            "Name a broker, or a file: `corelane config list --config FILE`.",
        )
    rows = [
        (setting, found[setting.name])
        for setting in wanted
        if setting.name in found
        if not only_changed or found[setting.name].value != setting.default
    ]
    if wish.output_format == "json":
        show_json({"settings": [_json(setting, valued) for setting, valued in rows]})
    elif rows:
        cells = [
            (setting.name, valued.value, setting.unit, valued.source, setting.acts)
            for setting, valued in rows
        ]
        click.echo(table(("SETTING", "VALUE", "UNIT", "SOURCE", "A CHANGE ACTS"), cells))


def check(path: Path, output_format: str) -> None:
    """Print that a file can be used, or everything that is wrong with it."""
    try:
        config = configuration.parse(_read(path))
    except ConfigError as error:
        raise _refused(str(path), error) from error
    if output_format == "json":
        show_json({"valid": True, "given": sorted(config.given)})
    else:
        click.echo(f"{path} is valid; it gives {len(config.given)} of {len(KEYS)} settings")


def _values(wish: Wish, wanted: Iterable[Setting]) -> tuple[dict[str, Valued], str]:
    """Return the values by name, and why there are none."""
    if wish.config_path is not None or wish.assignments:
        return _offline(wish), ""
    if all(setting.is_of_topics for setting in wanted):
        return {}, ""
    try:
        entries = run(lambda: _ask(wish.bootstrap))
    except CommandError as error:
        if error.exit_code not in {exits.CANNOT_CONNECT, exits.TIMED_OUT}:
            raise
        return {}, error.message
    return {each.name: Valued(each.value, _source(each)) for each in entries}, ""


async def _ask(bootstrap: str) -> list[ConfigEntry]:
    async with Admin(bootstrap, _QUICK) as admin:
        brokers = (await admin.describe_cluster()).brokers
        return await admin.describe_broker_configs(brokers[0].broker_id)


def _source(entry: ConfigEntry) -> str:
    match entry.source:
        case "file":  # Kafka's word for it; which of the three it was is not told
            return "given at the start"
        case "broker" | "cluster":
            return "dynamic"
        case _:
            return entry.source


def _offline(wish: Wish) -> dict[str, Valued]:
    """Return what a start with the file, the environment and the assignments would use."""
    text = "" if wish.config_path is None else _read(wish.config_path)
    where = "the command line" if wish.config_path is None else str(wish.config_path)
    try:
        environment = from_environment(os.environ)
        whole = configuration.parse(text, {**environment, **wish.assignments})
    except ConfigError as error:
        raise _refused(where, error) from error
    sources = {
        **dict.fromkeys(whole.given, "file"),
        **dict.fromkeys(map(_target, environment), "environment"),
        **dict.fromkeys(map(_target, wish.assignments), "option"),
    }
    return {
        name: Valued(text_of(value), sources.get(name, "default"))
        for name, value in configuration.values(whole).items()
    }


def _target(name: str) -> str:
    """Return the setting that *name*, perhaps another spelling of it, stands for."""
    return FACTORS.get(name, (name, 1))[0]


def _refused(where: str, error: ConfigError) -> CommandError:
    faults = "\n  ".join(["", *str(error).splitlines()])
    return CommandError(
        exits.CONFIGURATION,
        f"cannot use the configuration of {where}: {faults}",
        "`corelane config explain KEY` tells what a setting may be.",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CommandError(
            exits.CONFIGURATION,
            f"cannot read the configuration {path}: {(why or 'the system refused').lower()}",
            "Name a file that this user may read.",
        ) from error


def _json(setting: Setting, valued: Valued | None) -> dict[str, Any]:
    return {
        "key": setting.name,
        "value": valued.value if valued else None,
        "source": valued.source if valued else None,
        "default": setting.default,
        "unit": setting.unit or None,
        "minimum": setting.minimum,
        "maximum": setting.maximum,
        "choices": [*setting.choices] or None,
        "restart_needed": setting.restart_needed,
        "acts": setting.acts,
        "reason": setting.reason,
        "environment": setting.variable,
        "default_from": setting.default_from or None,
        "also": list(setting.also),
        "has_effect": setting.has_effect,
    }


def _text(setting: Setting, valued: Valued | None) -> str:
    """Return a setting as people read it."""
    head = setting.name
    if valued is not None:
        head += f" = {_shown(valued.value)}   ({valued.source})"
    rows = [
        ("default", f"{_shown(setting.default)} {setting.unit}".rstrip()),
        ("default of", setting.default_from),
        ("allowed", setting.allowed),
        ("a change acts", setting.acts),
        ("environment", setting.variable or ""),
        ("also as", ", ".join(setting.also)),
    ]
    lines = [head, *textwrap.wrap(setting.reason, 98, initial_indent="  ", subsequent_indent="  ")]
    lines += [f"  {name:<15}{value}" for name, value in rows if value]
    return "\n".join(lines)


def _shown(value: str | None) -> str:
    return value or '""'
