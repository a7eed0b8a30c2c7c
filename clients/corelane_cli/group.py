"""`corelane group`: the options of the commands for consumer groups."""

from typing import Any

import click

from corelane_cli import completion
from corelane_cli.options import bootstrap_option, format_option
from corelane_cli.watch_options import interval, watch_options

named_groups = click.argument(
    "names", nargs=-1, required=True, metavar="GROUP...", shell_complete=completion.groups
)


@click.group()
def group() -> None:
    """List, describe, set back and delete consumer groups."""


@group.command(name="list")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Such as Stable or Empty.")
@click.option(
    "--lag", "has_lag", is_flag=True, help="With members and lag; asks about every group."
)
@watch_options
@bootstrap_option
@format_option
def list_(states: tuple[str, ...], bootstrap: str, output_format: str, **options: Any) -> None:
    """List the groups of all brokers."""
    every_s = interval(is_watch=options["is_watch"], interval_s=options["interval_s"])
    from corelane_cli import group_views

    group_views.list_groups(
        bootstrap, states, output_format, has_lag=options["has_lag"], every_s=every_s
    )


@group.command()
@named_groups
@click.option("--summary", "view", flag_value="summary", help="A line for each group.")
@click.option("--topics", "view", flag_value="topics", help="A line for each topic, with its lag.")
@watch_options
@bootstrap_option
@format_option
def describe(names: tuple[str, ...], bootstrap: str, output_format: str, **options: Any) -> None:
    """Show members, what each reads, and how far behind the group is."""
    every_s = interval(is_watch=options["is_watch"], interval_s=options["interval_s"])
    from corelane_cli import group_views

    view: Any = options["view"] or "partitions"
    group_views.describe(bootstrap, names, output_format, view=view, every_s=every_s)


@group.command()
@click.argument("name", metavar="GROUP", shell_complete=completion.groups)
@click.option(
    "--to",
    "offset",
    required=True,
    metavar="OFFSET",
    help="start, end, N, +N, -N or @TIME, as `consume --offset` has it.",
)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.topics,
    help="Default: all it has committed.",
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
