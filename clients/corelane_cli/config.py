"""`corelane config`: the options of the commands for a broker's settings."""

from pathlib import Path
from typing import Any

import click

from corelane_cli import completion
from corelane_cli.node import assignments_of, set_option
from corelane_cli.options import bootstrap_option, format_option

_config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Say what a start with this file would use; no broker is asked.",
)


@click.group()
def config() -> None:
    """Explain, list and check a broker's settings."""


@config.command()
@click.argument("key", shell_complete=completion.setting_names)
@_config_option
@set_option
@bootstrap_option
@format_option
def explain(key: str, **options: Any) -> None:
    """Say what the setting KEY has for a value, where that is from, and what it means.

    The broker at --bootstrap is asked; with --config or --set it is told what a start with them
    would use, together with the environment. A topic's settings are explained too.
    """
    from corelane_cli import config_actions

    config_actions.explain(key, config_actions.Wish(**_wish(options)))


@config.command(name="list")
@click.option("--changed", is_flag=True, help="Only what is not at its default.")
@_config_option
@set_option
@bootstrap_option
@format_option
def list_(changed: bool, **options: Any) -> None:
    """List every setting with its value and where that is from."""
    from corelane_cli import config_actions

    config_actions.list_settings(config_actions.Wish(**_wish(options)), only_changed=changed)


@config.command()
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@format_option
def check(path: Path, output_format: str) -> None:
    """Say everything that is wrong with a configuration FILE; nothing is started.

    The exit code is 78 where something is.
    """
    from corelane_cli import config_actions

    config_actions.check(path, output_format)


def _wish(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "assignments": assignments_of(options["assignments"])}
