"""`corelane dump-log`: its options."""

from pathlib import Path
from typing import Any

import click

from corelane_cli.options import format_option


@click.command(name="dump-log")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--segments", is_flag=True, help="Show each segment of each partition.")
@click.option("--wal", is_flag=True, help="Show each record of the write-ahead log.")
@click.option(
    "--repair",
    is_flag=True,
    help="Cut what is damaged so that the broker starts. THE RECORDS CUT ARE LOST; a copy is kept.",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="With --repair: replicas lead and vote again though they lack ACKNOWLEDGED RECORDS.",
)
@click.option("--dry-run", is_flag=True, help="With --repair: only show what would be cut.")
@format_option
def dump_log(path: Path, **options: Any) -> int:
    """Show what the files of a broker hold, and whether they are sound.

    PATH is a data directory, one core's directory in it, or one .log, .entries or .control file.
    Reading changes nothing and works beside a running broker, whose last write may then look
    unfinished. --repair needs the broker stopped; replicas that have peers then lead and vote for
    nothing until they have all again. Where a majority of a partition's replicas is damaged they
    wait for ever: --accept-loss on as many nodes as a majority lacks lets them go on with what they
    have, and the whole ones with what they have. The exit code is 5 where there is damage.
    """
    from corelane_cli.dump_log_action import Wish, run_dump

    return run_dump(Wish(path, **options))
