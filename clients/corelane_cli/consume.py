"""`corelane consume`: its options."""

from typing import Any

import click

from corelane_cli import completion
from corelane_cli.options import bootstrap_option, format_option

_EPILOG = """\
\b
Offsets (--offset):
  start   end        the beginning, the end       :end   up to the current end
  N       N:         from offset N                :N     up to offset N
  N:M                from N up to M, without M
  +N      -N         N after the beginning, N before the end
  @T      @T:        from time T                  @:T    up to time T
  @T1:T2             from T1 up to T2; T2 may be `end`, or a duration after T1
Times: 2026-11-23, 2026-11-23T10:00:00Z, seconds or milliseconds since 1970, or before now: -1h30m.

\b
Templates (--template): text, and verbs that print the parts of a record, as rpk's.
  %t topic  %k key  %v value     with {hex} {base64} {base64raw} {unpack[<I]}
  %T %K %V  bytes of topic, key and value; -1: null        %H number of headers
  %p partition  %o offset  %e leader epoch  %x %y producer  %i number of the record
  %[ %| %]  first offset, last stable offset, high watermark of the partition
  numbers: {ascii} {hex} {hex64...4} {big64...8} {little64...8} {byte} {bool}
  %d timestamp (ms), with {strftime[%F %T]} {go[2006-01-02]} or as a number
  %h{%k=%v }  each header in this form      %h  all headers as name=value
  %a{compression}  and timestamp-type, transactional-bit, control-bit
  %% %{ %}  \\n \\t \\r \\0 \\x00 \\\\
"""

_OF_MEMBERS = {"balancer": (), "protocol": "classic", "assignor": None, "instance_id": None}
"""Options that only members have, with what they are when nobody said them."""


@click.command(epilog=_EPILOG)
@click.argument(
    "topics", nargs=-1, required=True, metavar="TOPIC...", shell_complete=completion.topics
)
@click.option(
    "-o", "--offset", default="start", show_default=True, help="Where to start and stop; see below."
)
@click.option(
    "-p", "--partition", "partitions", type=click.IntRange(0), multiple=True, help="Default: all."
)
@click.option(
    "-g",
    "--group",
    shell_complete=completion.groups,
    help="Share the topics with the other members of this group, and commit what is printed.",
)
@click.option(
    "--balancer",
    type=click.Choice(["range", "roundrobin", "cooperative-sticky"]),
    multiple=True,
    help="How the group shares partitions, the best first.  [default: range, cooperative-sticky]",
)
@click.option(
    "--protocol",
    type=click.Choice(["classic", "consumer"]),
    default="classic",
    show_default=True,
    help="Who shares the partitions of the --group out: a member, or the broker (KIP-848).",
)
@click.option(
    "--assignor",
    type=click.Choice(["uniform", "range"]),
    help="With --protocol consumer: how the broker shares them.  [default: the broker's]",
)
@click.option("--instance-id", help="A name that makes this member of the --group a static one.")
@click.option(
    "-r",
    "--regex",
    is_flag=True,
    help="Each TOPIC is a regular expression for whole names; a --group sees later topics, too.",
)
@click.option("-n", "--count", type=click.IntRange(1), help="Stop after so many records.")
@click.option("-f", "--template", help="How a record is printed; see below.")
@click.option("--meta-only", is_flag=True, help="Leave the values out.")
@click.option("--read-committed", is_flag=True, help="Hide records of aborted transactions.")
@bootstrap_option
@format_option
def consume(topics: tuple[str, ...], **options: Any) -> None:
    """Print the records of TOPIC, one line each, and wait for more.

    With an --offset that has an end, or a --count, it stops there; otherwise Ctrl-C or SIGTERM
    does, and a member commits and leaves its --group first. With --format json each line is an
    object; a key or value that is not UTF-8 is in `key_base64` or `value_base64`.

    With --group it reads what falls to it, from where the group has got to; --offset (start or end)
    says where to begin in a partition that the group has not read yet.
    """
    if options["template"] is not None and options["output_format"] == "json":
        raise click.UsageError("--template and --format json exclude each other")
    if options["group"] is None:
        for name, unsaid in _OF_MEMBERS.items():
            if options[name] != unsaid:
                raise click.UsageError(f"--{name.replace('_', '-')} is for members of a --group")
    elif options["partitions"]:
        raise click.UsageError("--partition and --group exclude each other: groups share them out")
    elif options["offset"] not in {"start", "end"}:
        raise click.UsageError("with --group, --offset is start or end; see `group seek`")
    elif options["protocol"] == "consumer" and options["balancer"]:
        raise click.UsageError("with --protocol consumer the broker shares out: see --assignor")
    elif options["protocol"] == "classic" and options["assignor"]:
        raise click.UsageError("--assignor is for --protocol consumer: see --balancer")
    from corelane_cli.consume_action import Wish, pattern_of, run_consume

    pattern = pattern_of(topics) if options.pop("regex") else None
    run_consume(Wish(topics=topics, pattern=pattern, **options))
