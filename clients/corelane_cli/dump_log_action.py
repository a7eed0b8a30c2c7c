"""What `corelane dump-log` does."""

import fcntl
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import click

from corelane.model.record import record
from corelane.storage import dump
from corelane.storage.disk import OsDisk
from corelane.storage.layout import LayoutError
from corelane.storage.repair import RepairReport, rehearse, repair
from corelane.storage.wal_scan import CorruptWalError
from corelane_cli import exits
from corelane_cli.dump_log_text import as_json, file_text, repair_text, report_text
from corelane_cli.exits import CommandError
from corelane_cli.output import show_json
from corelane_cli.progress import Progress

FORMAT_VERSION: Final = 1
_FILES: Final = (".log", ".entries", ".control")


@record
class Wish:
    """What the command line asks for."""

    path: Path
    segments: bool
    wal: bool
    repair: bool
    accept_loss: bool
    dry_run: bool
    output_format: str


def run_dump(wish: Wish) -> int:
    """Print what *wish* asks for and return the exit code. Raises CommandError."""
    try:
        if wish.dry_run and not wish.repair:
            raise CommandError(
                exits.USAGE,
                "--dry-run says what --repair would do, and there is no --repair",
                "Without --repair nothing is ever changed.",
            )
        if wish.accept_loss and not wish.repair:
            raise CommandError(
                exits.USAGE,
                "--accept-loss says how --repair is meant, and there is no --repair",
                "Try --repair --accept-loss --dry-run first: it says whom it is about.",
            )
        if wish.path.is_file():
            return _dump_file(wish)
        cores = _cores(wish.path)
        if wish.repair:
            return _repair(wish, cores)
        return _dump(wish, cores)
    except (LayoutError, CorruptWalError) as error:
        raise CommandError(exits.DAMAGED, str(error), "") from error
    except OSError as error:
        raise CommandError(
            exits.DATA_DIRECTORY,
            f"cannot read {error.filename or wish.path}: {(error.strerror or str(error)).lower()}",
            "Name a data directory of Corelane that this user may read.",
        ) from error


def _cores(path: Path) -> list[Path]:
    """Return the directories of the cores in a data directory, or the one that *path* is."""
    path.stat()  # raises what is wrong with it
    if path.name.startswith("core-") and (path / "wal").exists():
        return [path]
    cores = sorted(each for each in path.glob("core-*") if each.is_dir())
    if not cores or not (path / "cluster.toml").exists():
        raise CommandError(
            exits.DATA_DIRECTORY,
            f"{path} is no data directory: it has no cluster.toml or no core",
            "Name what `corelane start --data-dir` names, ./data by default.",
        )
    version = tomllib.loads((path / "cluster.toml").read_text()).get("format_version")
    if version != FORMAT_VERSION:
        raise CommandError(
            exits.DATA_DIRECTORY,
            f"{path} has format version {version}, this command reads {FORMAT_VERSION}",
            "Use the version of corelane that wrote it.",
        )
    return cores


def _dump(wish: Wish, cores: list[Path]) -> int:
    """Print every core; return whether there is damage."""
    reports = _verified(cores, is_text=wish.output_format == "text")
    problem_count = sum(len(report.problems) for report in reports.values())
    if wish.output_format == "json":
        rows = [_core_json(wish, core, report) for core, report in reports.items()]
        show_json({"cores": rows, "problem_count": problem_count})
    else:
        for core, report in reports.items():
            files = dump.wal_files(dump.open_core(core)) if wish.wal else []
            click.echo(report_text(core, report, files, show_segments=wish.segments))
    return exits.DAMAGED if problem_count else exits.OK


class _WatchedDisk(OsDisk):
    """Tells how many bytes have been read."""

    def __init__(self, root: Path, told: Callable[[int], None]) -> None:
        super().__init__(root)
        self._told = told

    def read(self, path: str, position: int, size_bytes: int) -> bytes:
        data = super().read(path, position, size_bytes)
        self._told(len(data))
        return data


def _verified(cores: list[Path], *, is_text: bool) -> dict[Path, dump.Report]:
    """Return what is found in each core, showing how far it is: a large log takes minutes."""
    total_bytes = sum(_size_bytes(path) for core in cores for path in core.rglob("*"))
    progress = Progress(total_bytes, is_wanted=is_text)
    read_bytes = 0

    def told(count: int) -> None:
        nonlocal read_bytes
        read_bytes += count
        progress.show(read_bytes)

    try:
        return {core: dump.verify(_WatchedDisk(core, told)) for core in cores}
    finally:
        progress.finish()


def _size_bytes(path: Path) -> int:
    """Return a file's size; 0 for what is none, or was removed by the broker meanwhile."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _core_json(wish: Wish, core: Path, report: dump.Report) -> dict[str, Any]:
    row = {"directory": str(core), **as_json(report)}
    if wish.wal:
        row["wal"] = [as_json(each) for each in dump.wal_files(dump.open_core(core))]
    return row


def _dump_file(wish: Wish) -> int:
    """Print one file of a partition."""
    if wish.repair or wish.path.suffix not in _FILES:
        raise CommandError(
            exits.USAGE,
            f"{wish.path} is neither a data directory nor a file ending in {', '.join(_FILES)}",
            "--repair takes a data directory. See `corelane dump-log --help`.",
        )
    disk = dump.open_core(wish.path.parent)
    name, size_bytes = wish.path.name, wish.path.stat().st_size
    rows: list[Any]
    match wish.path.suffix:
        case ".entries":
            rows = [as_json(each) for each in dump.rows(disk, name, size_bytes)]
        case ".log":
            rows = [as_json(each) for each in dump.batches(disk, name, size_bytes)]
        case _:
            rows = [
                {"index": index, "kind": kind, "payload_hex": payload.hex()}
                for index, kind, payload in dump.controls(disk, name, size_bytes)
            ]
    if wish.output_format == "json":
        show_json({"file": str(wish.path), "rows": rows})
    elif rows:
        click.echo(file_text(rows))
    return exits.OK if all(row.get("is_good", True) for row in rows) else exits.DAMAGED


def _repair(wish: Wish, cores: list[Path]) -> int:
    """Repair every core and say loudly what was cut; return whether damage is left."""
    found: dict[Path, RepairReport] = {}
    left: dict[Path, list[str]] = {}
    with ExitStack() as held:
        for directory in dict.fromkeys([core.parent for core in cores] + cores):
            held.enter_context(_locked(directory / "lock"))
        for core in cores:
            disk = dump.open_core(core)
            if wish.dry_run:
                found[core], left[core] = rehearse(disk, accepts_loss=wish.accept_loss), []
                continue
            found[core] = repair(disk, accepts_loss=wish.accept_loss)
            problems = [*found[core].problems_left, *dump.verify(disk).problems]
            left[core] = [*dict.fromkeys(problems)]
    if wish.output_format == "json":
        rows = [
            {"core": str(core), **as_json(report), "problems_left": left[core]}
            for core, report in found.items()
        ]
        show_json({"repairs": rows})
    else:
        for core, report in found.items():
            click.echo(repair_text(core, report, left[core], is_done=not wish.dry_run))
    return exits.DAMAGED if any(left.values()) else exits.OK


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock as a broker does, so that none starts meanwhile."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                exits.IN_USE,
                f"cannot repair {path.parent}: a broker is using it",
                "Stop the broker first. Without --repair the files can be read beside it.",
            ) from error
        yield
