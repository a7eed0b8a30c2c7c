"""`corelane topic`: the options of the commands for topics."""

from typing import Any

import click

from corelane_cli import completion
from corelane_cli.options import bootstrap_option, format_option

existing_topics = click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.topics
)


@click.group()
def topic() -> None:
    """Create, list, describe, change and delete topics."""


@topic.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-p", "--partitions", type=click.IntRange(1), help="Default: the broker's setting.")
@click.option(
    "-r", "--replication-factor", type=click.IntRange(1), help="Default: the broker's setting."
)
@click.option(
    "-c", "--config", "configs", multiple=True, metavar="KEY=VALUE", help="A topic setting."
)
@click.option("--if-not-exists", is_flag=True, help="A topic that exists is not an error.")
@click.option("--validate-only", is_flag=True, help="Ask whether it would work; change nothing.")
@bootstrap_option
@format_option
def create(bootstrap: str, output_format: str, **options: Any) -> None:
    """Create topics and wait until they can be used."""
    settings = dict(_assignment(each) for each in options["configs"])
    from corelane_cli import topic_actions

    wish = topic_actions.Wish(
        options["names"],
        options["partitions"],
        options["replication_factor"],
        settings,
        options["if_not_exists"],
        options["validate_only"],
    )
    topic_actions.create(bootstrap, wish, output_format)


@topic.command(name="list")
@click.option("--internal", is_flag=True, help="Show the cluster's own topics too.")
@bootstrap_option
@format_option
def list_(internal: bool, bootstrap: str, output_format: str) -> None:
    """List topics."""
    from corelane_cli import topic_actions

    topic_actions.list_topics(bootstrap, output_format, internal=internal)


@topic.command()
@existing_topics
@click.option("--all-configs", is_flag=True, help="Show settings that are at their default too.")
@bootstrap_option
@format_option
def describe(names: tuple[str, ...], all_configs: bool, bootstrap: str, output_format: str) -> None:
    """Show partitions, their leaders and offsets, and settings."""
    from corelane_cli import topic_actions

    topic_actions.describe(bootstrap, names, output_format, all_configs=all_configs)


@topic.command()
@existing_topics
@click.option("--if-exists", is_flag=True, help="A topic that does not exist is not an error.")
@bootstrap_option
@format_option
def delete(names: tuple[str, ...], if_exists: bool, bootstrap: str, output_format: str) -> None:
    """Delete topics with all their records."""
    from corelane_cli import topic_actions

    topic_actions.delete(bootstrap, names, output_format, if_exists=if_exists)


@topic.command()
@existing_topics
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Give it this value.")
@click.option(
    "--delete",
    "deletes",
    multiple=True,
    metavar="KEY",
    help="Back to its default.",
    shell_complete=completion.topic_setting_names,
)
@click.option(
    "--append", "appends", multiple=True, metavar="KEY=VALUE", help="Add to a list of values."
)
@click.option(
    "--subtract", "subtracts", multiple=True, metavar="KEY=VALUE", help="Take from a list."
)
@click.option("--validate-only", is_flag=True, help="Ask whether it would work; change nothing.")
@bootstrap_option
@format_option
def alter(names: tuple[str, ...], bootstrap: str, output_format: str, **options: Any) -> None:
    """Change settings of topics: for each topic all of them or none."""
    changes = [
        *(("set", *_assignment(each, "--set")) for each in options["sets"]),
        *(("delete", each, None) for each in options["deletes"]),
        *(("append", *_assignment(each, "--append")) for each in options["appends"]),
        *(("subtract", *_assignment(each, "--subtract")) for each in options["subtracts"]),
    ]
    if not changes:
        raise click.UsageError("Name a change: --set, --delete, --append or --subtract.")
    for key in {key for _, key, _ in changes}:
        if len({kind for kind, each, _ in changes if each == key} & {"set", "delete"}) > 1:
            raise click.UsageError(f"{key} cannot be set and deleted at once")
    from corelane_cli import topic_changes

    validate_only = options["validate_only"]
    topic_changes.alter(bootstrap, names, changes, output_format, validate_only=validate_only)


@topic.command(name="add-partitions")
@existing_topics
@click.option("-n", "--num", type=click.IntRange(1), help="How many to add.")
@click.option("--total", type=click.IntRange(1), help="How many there are to be in all.")
@click.option("--validate-only", is_flag=True, help="Ask whether it would work; change nothing.")
@bootstrap_option
@format_option
def add_partitions(
    names: tuple[str, ...], bootstrap: str, output_format: str, **options: Any
) -> None:
    """Give topics more partitions and wait until they can be used.

    Records stay where they are, but new records with a key may go to another partition than
    older ones with the same key. There is no way back to fewer.
    """
    if (options["num"] is None) == (options["total"] is None):
        raise click.UsageError("Say how many: either --num more, or --total in all.")
    from corelane_cli import topic_changes

    wish = topic_changes.More(names, options["num"], options["total"], options["validate_only"])
    topic_changes.add_partitions(bootstrap, wish, output_format)


@topic.command()
@click.argument("name", shell_complete=completion.topics)
@click.option(
    "-o",
    "--offset",
    required=True,
    help="Delete what is before: N, end, -N (before the end), +N, or @TIME as in `consume`.",
)
@click.option(
    "-p", "--partition", "partitions", type=click.IntRange(0), multiple=True, help="Default: all."
)
@click.option("-y", "--yes", "--no-confirm", "is_sure", is_flag=True, help="Do not ask.")
@bootstrap_option
@format_option
def trim(name: str, offset: str, bootstrap: str, output_format: str, **options: Any) -> None:
    """Delete the oldest records of a topic: all before an offset, for ever.

    On a terminal it shows what would go, and asks; anywhere else it needs --yes.
    """
    from corelane_cli import topic_trim

    wish = topic_trim.Wish(name, offset, options["partitions"], options["is_sure"])
    topic_trim.trim(bootstrap, wish, output_format)


def _assignment(text: str, option: str = "--config") -> tuple[str, str]:
    """Return the two sides of KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{option} {text}: write KEY=VALUE")
    return key, value
