"""`corelane produce`: its options."""

from pathlib import Path
from typing import Any

import click

from corelane_cli.options import bootstrap_option, format_option


@click.command()
@click.argument("topic")
@click.option(
    "-m",
    "--message",
    "messages",
    multiple=True,
    help="A record's value, instead of standard input.",
)
@click.option(
    "-F",
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with one record in each line, instead of standard input.",
)
@click.option("-k", "--key", help="The key of every record.")
@click.option(
    "-K", "--key-separator", metavar="TEXT", help="Each line is a key, this text, and a value."
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    help="A header of every record.",
)
@click.option("-p", "--partition", type=click.IntRange(0), help="Default: by key, or any.")
@click.option("--tombstones", is_flag=True, help="An empty value is sent as null, which deletes.")
@click.option(
    "-a",
    "--acks",
    type=click.Choice(["all", "1", "0"]),
    default="all",
    show_default=True,
    help="What to wait for: a quorum's disks, the leader's, or nothing.",
)
@click.option(
    "-z",
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    show_default=True,
    help="How batches are compressed.",
)
@click.option("--create", is_flag=True, help="Let the broker make the topic if it may.")
@bootstrap_option
@format_option
def produce(topic: str, **options: Any) -> None:
    """Send records to TOPIC: one for each line of standard input, of --file, or each -m.

    Prints where they are once all are acknowledged. Records are written once even when answers
    are lost on the way (idempotence), unless --acks says otherwise.
    """
    if options["messages"] and options["path"]:
        raise click.UsageError("-m and --file exclude each other")
    if options["key"] is not None and options["key_separator"] is not None:
        raise click.UsageError("--key and --key-separator exclude each other")
    if options["key_separator"] == "":
        raise click.UsageError("--key-separator is empty")
    for header in options["headers"]:
        if "=" not in header:
            raise click.UsageError(f"--header {header}: write NAME=VALUE")
    from corelane_cli.produce_action import Wish, run_produce

    run_produce(Wish(topic=topic, **options))
