"""`corelane start` and `corelane dev`: their options, and what they mean as settings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from corelane_cli.options import format_option

_SETTINGS: Final = {
    "data_dir": "corelane.data.dir",
    "port": "corelane.port",
    "bind_host": "corelane.bind.host",
    "advertised_host": "corelane.advertised.host",
    "advertise": "corelane.advertise",
    "core_port_base": "corelane.core.port.base",
    "peer_port": "corelane.peer.port",
    "seeds": "corelane.seeds",
    "admin_port": "corelane.admin.port",
    "cores": "corelane.cores",
    "pin_cores": "corelane.pin.cores",
    "node_id": "node.id",
}

set_option = click.option(
    "--set", "assignments", multiple=True, help="Any setting of the file.", metavar="KEY=VALUE"
)

_node_options = [
    click.option("--port", help="Bootstrap port. 0 chooses every port freely.", metavar="PORT"),
    click.option(
        "--host", "--bind-host", "bind_host", help="Address to listen on.", metavar="HOST"
    ),
    click.option("--advertised-host", help="Host that clients are told.", metavar="HOST"),
    click.option(
        "--advertise", help="What clients see: a broker per `core`, or one `node`.", metavar="KIND"
    ),
    click.option("--core-port-base", help="Core i listens on this port + i.", metavar="PORT"),
    click.option("--peer-port", help="Port for the other nodes of a cluster.", metavar="PORT"),
    click.option(
        "--seeds",
        help="Peer ports of some nodes, the same list on each; the first founds the cluster.",
        metavar="HOST:PORT,…",
    ),
    click.option("--admin-port", help="Port of health and metrics (HTTP).", metavar="PORT"),
    click.option("--cores", help="Number of cores; 0: all that are allowed.", metavar="COUNT"),
    click.option(
        "--pin-cores/--no-pin-cores",
        default=None,
        help="Each core on a CPU of its own (the default), or wherever there is room: more cores"
        " than CPUs then.",
    ),
    click.option("--node-id", help="This node's number in its cluster.", metavar="ID"),
    set_option,
]


def node_options(command: Any) -> Any:
    """Add the options that `start` and `dev` share."""
    for option in reversed(_node_options):
        command = option(command)
    return command


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings (TOML); options on the command line win.",
)
@click.option("--data-dir", help="Where everything is kept.", metavar="DIRECTORY")
@node_options
@format_option
def start(config_path: Path | None, output_format: str, **options: Any) -> int:
    """Start a broker and run until it is stopped (SIGTERM or Ctrl-C).

    Without options it listens on 127.0.0.1:9092 and keeps its data in ./data. Every option is
    a setting of config/corelane.toml, where each has its default and its reason. The environment
    gives settings too (CORELANE__LOG_RETENTION_MS): it wins over the file, options over both.
    """
    overrides = _overrides(options)
    from corelane_cli.start import start as run

    return run(config_path, overrides, output_format)


@click.command()
@node_options
@format_option
def dev(output_format: str, **options: Any) -> int:
    """Start a throw-away broker and print lines to copy.

    Its data directory is temporary and removed at the end; its ports are free ones.
    """
    overrides = _overrides(options)
    from corelane_cli.dev import dev as run

    return run(overrides, output_format)


def assignments_of(texts: Iterable[str]) -> dict[str, str]:
    """Return the two sides of each KEY=VALUE of --set."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--set {text}: write KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def _overrides(options: dict[str, Any]) -> dict[str, str]:
    """Return the settings that the command line names; a named option wins over --set."""
    overrides = assignments_of(options.pop("assignments"))
    named = {
        _SETTINGS[name]: str(value).lower() if isinstance(value, bool) else value
        for name, value in options.items()
        if value is not None
    }
    return {**overrides, **named}
