"""`corelane cluster`: the options of the commands for nodes and their cores."""

from typing import Any

import click

from corelane_cli import completion
from corelane_cli.options import admin_option, bootstrap_option, format_option


@click.group()
def cluster() -> None:
    """Look at nodes and cores, drain and decommission nodes, move replicas."""


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


def _node_options(command: Any) -> Any:
    """Add what commands for nodes share."""
    options = [
        click.option("--wait/--no-wait", default=True, help="Wait until it is done.  [default]"),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(0),
            default=600.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait; it goes on all the same.",
        ),
        admin_option,
        bootstrap_option,
        format_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cluster.command()
@click.argument("node", type=click.IntRange(1))
@click.option("--undo", is_flag=True, help="Let it lead again.")
@_node_options
def drain(node: int, undo: bool, **options: Any) -> None:
    """Have NODE lead nothing, so that it can be stopped without anybody noticing.

    Others lead until --undo, or until the node was restarted.
    """
    from corelane_cli import cluster_nodes
    from corelane_cli.cluster_wish import Wish

    cluster_nodes.act(node, Wish(action="undrain" if undo else "drain", **options))


@cluster.command()
@click.argument("node", type=click.IntRange(1))
@click.option("--cancel", is_flag=True, help="Let it stay after all.")
@_node_options
def decommission(node: int, cancel: bool, **options: Any) -> None:
    """Move all replicas of NODE to others, and take it out of the cluster.

    A node that is dead can be taken out as well. It is refused where too few nodes would be left.
    """
    from corelane_cli import cluster_nodes
    from corelane_cli.cluster_wish import Wish

    cluster_nodes.act(node, Wish(action="recommission" if cancel else "decommission", **options))


@cluster.command(name="replace-disk")
@click.argument("node", type=click.IntRange(1))
@click.confirmation_option(
    "--yes", prompt="Whatever that node had and no other is lost for ever. Go on?"
)
@admin_option
@bootstrap_option
@format_option
def replace_disk(node: int, **options: Any) -> None:
    """Say that the data directory of NODE is gone for good.

    The node may then be started with an empty one, under its id: its replicas are made anew from
    the others. Its former directory is never let in again.
    """
    from corelane_cli import cluster_nodes
    from corelane_cli.cluster_wish import Wish

    cluster_nodes.act(node, Wish(action="replace-disk", wait=False, timeout_s=0.0, **options))


@cluster.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be moved.")
@click.option("--cancel", is_flag=True, help="Ask for no more moves; those under way go on.")
@_node_options
def rebalance(dry_run: bool, cancel: bool, **options: Any) -> None:
    """Move replicas and preferred leaders until every node has its share of them.

    A node that joins is brought to its share by itself, where corelane.partition.balancer is on.
    """
    if dry_run and cancel:
        raise click.UsageError("either --dry-run or --cancel")
    from corelane_cli import cluster_rebalance
    from corelane_cli.cluster_wish import Wish

    action = "plan" if dry_run else "cancel" if cancel else "start"
    cluster_rebalance.act(Wish(action=action, **options))


@cluster.command()
@click.argument("topic", shell_complete=completion.topics)
@click.argument("partition", type=click.IntRange(0))
@click.argument("brokers", required=False, metavar="BROKER[,...]")
@click.option("--cancel", is_flag=True, help="Call off what is under way instead.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is done.  [default]")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait; it goes on all the same.",
)
@bootstrap_option
@format_option
def reassign(brokers: str | None, cancel: bool, **options: Any) -> None:
    """Have the replicas of PARTITION of TOPIC on these brokers, the preferred leader first.

    More or fewer brokers than before change how many replicas there are.
    """
    if (brokers is None) != cancel:
        raise click.UsageError("name the brokers, or --cancel")
    try:
        wanted = None if brokers is None else [int(each) for each in brokers.split(",")]
    except ValueError as error:
        raise click.UsageError("brokers are numbers: 1000,2000,3000") from error
    from corelane_cli import cluster_reassign

    cluster_reassign.reassign(cluster_reassign.Wish(brokers=wanted, **options))


@cluster.command()
@click.option("-w", "--watch", is_flag=True, help="Look again until nothing is being moved.")
@bootstrap_option
@format_option
def reassignments(watch: bool, bootstrap: str, output_format: str) -> None:
    """Show which replicas are being moved, how far that is, and what it waits for."""
    from corelane_cli import cluster_reassign

    cluster_reassign.show(bootstrap, output_format, watch=watch)
