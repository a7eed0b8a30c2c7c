"""`corelane produce`: its options."""

from pathlib import Path
from typing import Any

import click

from corelane_cli import completion
from corelane_cli.options import bootstrap_option, format_option

_EPILOG = """\
\b
Templates (--template): text, and verbs that read the parts of a record, as rpk's.
  %t topic  %k key  %v value     with {hex} {base64} {base64raw} {json} {re[PATTERN]}
  %T %K %V  how many bytes they have, read before them; %V{3}: always three
  %H %h{%k=%v }  how many headers, and their form      %p partition  %d timestamp (ms)
  numbers: {ascii} {hex64...4} {big64...8} {little64...8} {byte} {bool}    %% %{ %} \\n \\t \\x00
A text without a size ends where the text after its verb begins: '%k=%v\\n'.

\b
--output-template prints each acknowledged record, with the verbs of `consume --template`.
"""


@click.command(epilog=_EPILOG)
@click.argument("topic", required=False, shell_complete=completion.topics)
@click.option(
    "-m",
    "--message",
    "message",
    multiple=True,
    help="A record's value, instead of standard input.",
)
@click.option(
    "-F",
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with one record in each line, instead of standard input.",
)
@click.option("-f", "--template", help="How records are read from the input; see below.")
@click.option("-o", "--output-template", help="How an acknowledged record is printed; see below.")
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
@click.option(
    "-Z", "--tombstones", is_flag=True, help="An empty value is sent as null, which deletes."
)
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
@click.option(
    "--transactional-id",
    metavar="ID",
    help="Send all of it as one transaction: readers of committed ones see everything or nothing.",
)
@click.option("--create", is_flag=True, help="Let the broker make the topic if it may.")
@bootstrap_option
@format_option
def produce(topic: str | None, **options: Any) -> None:
    """Send records to TOPIC: one for each line of standard input, of --file, or each -m.

    A --template reads other input than lines; where it names the topic (%t), TOPIC can be left
    out. Prints where they are once all are acknowledged. Records are written once even when answers
    are lost on the way (idempotence), unless --acks says otherwise.
    """
    for first, second in _EXCLUSIVE:
        if _is_given(options[first]) and _is_given(options[second]):
            names = [f"--{each.replace('_', '-')}" for each in (first, second)]
            raise click.UsageError(f"{names[0]} and {names[1]} exclude each other")
    if options["output_template"] is not None and options["output_format"] == "json":
        raise click.UsageError("--output-template and --format json exclude each other")
    if options["transactional_id"] is not None and options["acks"] != "all":
        raise click.UsageError("--transactional-id needs --acks all")
    if options["key_separator"] == "":
        raise click.UsageError("--key-separator is empty")
    for header in options["headers"]:
        if "=" not in header:
            raise click.UsageError(f"--header {header}: write NAME=VALUE")
    from corelane_cli.produce_action import run_produce
    from corelane_cli.produce_wish import Wish

    messages, path = options.pop("message"), options.pop("file")
    run_produce(Wish(topic=topic, messages=messages, path=path, **options))


_EXCLUSIVE = (
    ("message", "file"),
    ("message", "template"),
    ("key", "key_separator"),
    ("template", "key_separator"),
)


def _is_given(value: object) -> bool:
    return value is not None and value != ()
