"""`corelane transaction`: the options of the commands for transactions."""

from typing import Any

import click

from corelane_cli import completion
from corelane_cli.options import bootstrap_option, format_option
from corelane_cli.watch_options import interval, watch_options

OLDER_THAN_S = 900.0
"""Kafka's transaction.max.timeout.ms: no coordinator leaves one open for longer."""


@click.group()
def transaction() -> None:
    """List, describe and abort transactions."""


@transaction.command(name="list")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Such as Ongoing.")
@click.option("--producer-id", "producer_ids", type=int, multiple=True, metavar="ID")
@click.option(
    "--hanging",
    is_flag=True,
    help="Those that are open in a partition and that no coordinator will ever end.",
)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.topics,
    help="Where --hanging looks.  [default: every topic]",
)
@click.option(
    "--older-than",
    "older_than_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help=f"How long one must be silent to count as --hanging.  [default: {OLDER_THAN_S:g}]",
)
@watch_options
@bootstrap_option
@format_option
def list_(bootstrap: str, output_format: str, **options: Any) -> None:
    """List the transactional ids of all coordinators."""
    every_s = interval(is_watch=options["is_watch"], interval_s=options["interval_s"])
    older_than_s = options["older_than_s"]
    if options["hanging"]:
        if options["states"] or options["producer_ids"]:
            raise click.UsageError("--hanging goes with --topic and --older-than only")
    elif options["topics"] or older_than_s is not None:
        raise click.UsageError("--topic and --older-than are for --hanging")
    from corelane_cli import transaction_actions

    if options["hanging"]:
        limit_s = OLDER_THAN_S if older_than_s is None else older_than_s
        look = transaction_actions.Look(options["topics"], limit_s)
        transaction_actions.list_hanging(bootstrap, look, output_format, every_s)
    else:
        wanted = transaction_actions.Filter(options["states"], options["producer_ids"])
        transaction_actions.list_all(bootstrap, wanted, output_format, every_s)


@transaction.command()
@click.argument(
    "names",
    nargs=-1,
    required=True,
    metavar="TRANSACTIONAL-ID...",
    shell_complete=completion.transactional_ids,
)
@watch_options
@bootstrap_option
@format_option
def describe(names: tuple[str, ...], bootstrap: str, output_format: str, **options: Any) -> None:
    """Show the state, the producer and the partitions of transactions."""
    every_s = interval(is_watch=options["is_watch"], interval_s=options["interval_s"])
    from corelane_cli import transaction_actions

    transaction_actions.describe(bootstrap, names, output_format, every_s)


@transaction.command()
@click.option(
    "--transactional-id",
    "name",
    metavar="ID",
    shell_complete=completion.transactional_ids,
    help="Abort what is open under this id, and fence its producer.",
)
@click.option("--topic", metavar="NAME", shell_complete=completion.topics, help="Where one hangs.")
@click.option("--partition", type=click.IntRange(0), help="Of --topic.")
@click.option(
    "--start-offset", type=click.IntRange(0), help="Where it begins, as `list --hanging` has it."
)
@bootstrap_option
@format_option
def abort(bootstrap: str, output_format: str, **options: Any) -> None:
    """Abort a transaction: all of it by its id, or what hangs in one partition.

    A transaction that its coordinator knows is aborted everywhere with --transactional-id. One that
    no coordinator knows any more is ended where it hangs: --topic, --partition and --start-offset.
    """
    place = [options[key] for key in ("topic", "partition", "start_offset")]
    if options["name"] is not None and place != [None] * 3:
        raise click.UsageError("name the transaction by --transactional-id or by its partition")
    if options["name"] is None and None in place:
        raise click.UsageError(
            "name the transaction: --transactional-id, or --topic, --partition and --start-offset"
        )
    from corelane_cli import transaction_actions

    if options["name"] is not None:
        transaction_actions.abort_by_name(bootstrap, options["name"], output_format)
    else:
        topic, partition, start = place
        transaction_actions.abort_in_partition(bootstrap, (topic, partition), start, output_format)
