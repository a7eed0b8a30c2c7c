"""`corelane cluster`: the options of the commands for nodes and their cores."""

from typing import Any

import click

from corelane_cli import completion
from corelane_cli.options import admin_option, bootstrap_option, format_option


@click.group()
def cluster() -> None:
    """Look at nodes and cores, and move partitions between cores."""


@cluster.command()
@admin_option
@bootstrap_option
@format_option
def info(admin: str | None, bootstrap: str, output_format: str) -> None:
    """Show brokers, what they lead, and the cores of a node.

    Brokers and leaders come from the cluster's metadata, cores from the node's admin port; a
    broker that has none is shown without.
    """
    from corelane_cli import cluster_actions

    cluster_actions.info(bootstrap, admin, output_format)


@cluster.command()
@click.option("-w", "--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@click.option("-e", "--exit-when-healthy", is_flag=True, help="With --watch: end once all is well.")
@admin_option
@bootstrap_option
@format_option
def health(admin: str | None, bootstrap: str, output_format: str, **options: Any) -> int:
    """Say whether every partition has a leader and every core serves.

    The exit code is 0 when all is well and 10 when it is not.
    """
    if options["exit_when_healthy"] and not options["watch"]:
        raise click.UsageError("--exit-when-healthy needs --watch")
    from corelane_cli import cluster_health

    wish = cluster_health.Wish(bootstrap, admin, output_format, **options)
    return cluster_health.health(wish)


@cluster.command(name="move-core")
@click.argument("topic", shell_complete=completion.topics)
@click.argument("partition", type=click.IntRange(0))
@click.argument("core", type=click.IntRange(0))
@admin_option
@bootstrap_option
@format_option
def move_core(topic: str, partition: int, core: int, **options: Any) -> None:
    """Move PARTITION of TOPIC to another CORE of its node.

    Clients see it as a change of the leader; nothing is lost or reordered.
    """
    from corelane_cli import cluster_actions

    cluster_actions.move_core((topic, partition, core), **options)
