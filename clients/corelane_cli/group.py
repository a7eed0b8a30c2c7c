"""`corelane group`: the options of the commands for consumer groups."""

from typing import Any

import click

from corelane_cli.options import bootstrap_option, format_option

named_groups = click.argument("names", nargs=-1, required=True, metavar="GROUP...")


@click.group()
def group() -> None:
    """List, describe, set back and delete consumer groups."""


@group.command(name="list")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Such as Stable or Empty.")
@bootstrap_option
@format_option
def list_(states: tuple[str, ...], bootstrap: str, output_format: str) -> None:
    """List the groups of all brokers."""
    from corelane_cli import group_actions

    group_actions.list_groups(bootstrap, states, output_format)


@group.command()
@named_groups
@click.option("--summary", is_flag=True, help="Only the state, the members and the total lag.")
@bootstrap_option
@format_option
def describe(names: tuple[str, ...], summary: bool, bootstrap: str, output_format: str) -> None:
    """Show members, what each reads, and how far behind the group is."""
    from corelane_cli import group_actions

    group_actions.describe(bootstrap, names, output_format, is_summary=summary)


@group.command()
@click.argument("name", metavar="GROUP")
@click.option(
    "--to",
    "offset",
    required=True,
    metavar="OFFSET",
    help="start, end, N, +N, -N or @TIME, as `consume --offset` has it.",
)
@click.option(
    "--topic", "topics", multiple=True, metavar="NAME", help="Default: all it has committed."
)
@click.option("--dry-run", is_flag=True, help="Show what would be; change nothing.")
@bootstrap_option
@format_option
def seek(name: str, bootstrap: str, output_format: str, **options: Any) -> None:
    """Set how far a group has read; nobody may be in it meanwhile."""
    from corelane_cli import group_actions

    wish = group_actions.Wish(name, options["offset"], options["topics"], options["dry_run"])
    group_actions.seek(bootstrap, wish, output_format)


@group.command()
@named_groups
@bootstrap_option
@format_option
def delete(names: tuple[str, ...], bootstrap: str, output_format: str) -> None:
    """Delete groups that nobody is in, with their offsets."""
    from corelane_cli import group_actions

    group_actions.delete(bootstrap, names, output_format)
