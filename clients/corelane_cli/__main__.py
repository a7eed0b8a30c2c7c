"""The `corelane` command: its subcommands, and nothing that takes long to import.

The modules of the subcommands import click alone; what they do is imported when they run, so
that `corelane --help` stays under 150 ms (a test holds it to what may be imported).
"""

import sys

import click

from corelane_cli import exits
from corelane_cli.application import Application
from corelane_cli.cluster import cluster
from corelane_cli.completion import completion
from corelane_cli.config import config
from corelane_cli.consume import consume
from corelane_cli.dump_log import dump_log
from corelane_cli.group import group
from corelane_cli.node import dev, start
from corelane_cli.produce import produce
from corelane_cli.topic import topic
from corelane_cli.transaction import transaction

_EPILOG = f"""\
\b
Exit codes:
{exits.table()}

\b
Shell completion, for bash in ~/.bashrc (zsh and fish alike):
  eval "$(corelane completion bash)"
"""


@click.group(
    name="corelane",
    cls=Application,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="corelane", prog_name="corelane", message="%(prog)s %(version)s")
def cli() -> None:
    """Corelane: a Kafka-compatible streaming log broker.

    Every command takes --format json: results are JSON on stdout, errors are one line of JSON
    on stderr.
    """


COMMANDS = (
    start,
    dev,
    topic,
    produce,
    consume,
    group,
    transaction,
    cluster,
    config,
    dump_log,
    completion,
)

for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line; never returns."""
    cli.main(sys.argv[1:], prog_name="corelane")


if __name__ == "__main__":
    main()
