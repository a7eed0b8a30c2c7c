"""The process that `node.py` starts: a real supervisor and fork server with fake cores."""

from pathlib import Path

from corelane.model import config as configuration
from corelane.model.config_keys import Value
from corelane.runtime import failures, start
from corelane.runtime.failures import StartError
from corelane.runtime.forkserver import CoreMain
from tests.unit.runtime import fake_cores

FULL = StartError("cannot start core 0", "the disk is full", "Free some.", failures.EXIT_DISK)


def core_main(kind: str, directory: Path) -> CoreMain:
    """Return the fake core that a test asks for by name."""
    match kind:
        case "echo":
            return fake_cores.echo(directory)
        case "failing":
            return fake_cores.failing(FULL, is_permanent=False)
        case "hopeless":
            return fake_cores.failing(FULL, is_permanent=True)
        case "dying":
            return fake_cores.dying
        case "stubborn":
            return fake_cores.stubborn
        case "silent":
            return fake_cores.silent
        case _:
            raise AssertionError(kind)


def main(directory: str, kind: str, cores: int = 1, settings: str = "") -> int:
    """Run the node until it ends; *settings* are TOML."""
    overrides: dict[str, Value] = {
        "corelane.data.dir": directory,
        **({} if settings else {"corelane.port": 0}),
        "corelane.cores": cores,
        "corelane.pin.cores": cores == 1,
    }
    config = configuration.parse(settings, overrides)
    try:
        return start.serve(config, load=lambda: core_main(kind, Path(directory)))
    except StartError as error:
        start.say(error)
        return error.code
