"""`corelane topic`: create, list, describe and delete topics."""

from typing import Any

import click

from corelane_cli.options import bootstrap_option, format_option


@click.group()
def topic() -> None:
    """Create, list, describe and delete topics."""


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
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--all-configs", is_flag=True, help="Show settings that are at their default too.")
@bootstrap_option
@format_option
def describe(names: tuple[str, ...], all_configs: bool, bootstrap: str, output_format: str) -> None:
    """Show partitions, their leaders and offsets, and settings."""
    from corelane_cli import topic_actions

    topic_actions.describe(bootstrap, names, output_format, all_configs=all_configs)


@topic.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--if-exists", is_flag=True, help="A topic that does not exist is not an error.")
@bootstrap_option
@format_option
def delete(names: tuple[str, ...], if_exists: bool, bootstrap: str, output_format: str) -> None:
    """Delete topics with all their records."""
    from corelane_cli import topic_actions

    topic_actions.delete(bootstrap, names, output_format, if_exists=if_exists)


def _assignment(text: str) -> tuple[str, str]:
    """Return the two sides of KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"--config {text}: write KEY=VALUE")
    return key, value
