"""How a dump looks to people and to programs."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from corelane.storage.dump import Report, WalFileDump
from corelane.storage.repair import RepairReport
from corelane_cli.output import table

_LEFT_OUT = {"record"}  # a WalEntry's own bytes, for the repair


def as_json(value: Any) -> Any:
    """Return a record of the dump as JSON has it."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name not in _LEFT_OUT]
        return {name: as_json(getattr(value, name)) for name in names}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return value


def report_text(
    core: Path, report: Report, files: list[WalFileDump], *, show_segments: bool
) -> str:
    """Return one core's report; *files* are those whose records are to be shown."""
    parts = [str(core)]
    for slot in report.checkpoints:
        state = slot.error or (
            f"sequence {slot.sequence}, {slot.group_count} groups, replay from lsn"
            f" {slot.replay_lsn}"
        )
        parts.append(f"{slot.path}: {state}")
    count = len(report.wal_files)
    parts.append(
        f"write-ahead log: {count} {'file' if count == 1 else 'files'},"
        f" {report.records_replayed} records to replay, next lsn {report.next_lsn}"
    )
    if report.unfinished_write:
        parts.append(f"{report.unfinished_write} (no damage: it was never acknowledged)")
    if report.groups:
        parts.append(_groups(report))
    if show_segments and any(group.segments for group in report.groups):
        parts.append(_segments(report))
    parts += [_wal_file(each) for each in files]
    parts += [f"DAMAGED: {problem}" for problem in report.problems]
    if not report.problems:
        parts.append("sound: every checksum and every reference fits")
    return "\n".join(parts)


def repair_text(
    core: Path, report: RepairReport, problems_left: list[str], *, is_done: bool = True
) -> str:
    """Return what a repair did to one core, or would do, and what it could not do."""
    if not is_done:
        lines = [f"{core}: nothing would be cut"]
        if report.cut:
            lines = [f"{core}: WOULD BE CUT AND LOST:", *(f"  {each}" for each in report.cut)]
        if report.given_up:
            lines += ["WOULD LEAD AND VOTE AGAIN, what they lack is lost:"]
            lines += [f"  {each}" for each in report.given_up]
        return "\n".join([*lines, "Nothing was changed."])
    lines = [f"{core}: nothing had to be cut"]
    if report.cut:
        lines = [f"{core}: CUT, what follows is lost:", *(f"  {each}" for each in report.cut)]
        lines.append(f"A copy of every file that was changed is in {core / report.directory}")
    if report.given_up:
        lines += ["LEAD AND VOTE AGAIN, what they lack is lost where no other replica has it:"]
        lines += [f"  {each}" for each in report.given_up]
    lines += [f"STILL DAMAGED: {each}" for each in problems_left]
    if problems_left:
        lines.append("Restore those files from a backup; the broker serves the other partitions.")
    return "\n".join(lines)


def file_text(rows: list[dict[str, Any]]) -> str:
    """Return the rows of one file."""
    return table([name.upper() for name in rows[0]], [list(row.values()) for row in rows])


def _groups(report: Report) -> str:
    rows = [
        (
            group.group,
            f"{group.topic}-{group.partition}" if group.topic else group.directory,
            group.revision,
            group.term,
            group.start_offset,
            group.flushed_offset,
            len(group.segments),
            sum(part.log_bytes for part in group.segments),
            group.damage or "ok",
        )
        for group in report.groups
    ]
    head = (
        "GROUP",
        "PARTITION",
        "REVISION",
        "TERM",
        "FIRST",
        "FLUSHED",
        "SEGMENTS",
        "BYTES",
        "STATE",
    )
    return table(head, rows)


def _segments(report: Report) -> str:
    rows = [
        (
            part.path,
            part.base_offset,
            part.next_offset,
            part.base_index,
            part.rows_on_disk,
            part.log_bytes,
            "sealed" if part.is_sealed else "active",
        )
        for group in report.groups
        for part in group.segments
    ]
    head = ("SEGMENT", "FIRST", "NEXT", "FIRST INDEX", "ENTRIES", "BYTES", "STATE")
    return table(head, rows)


def _wal_file(found: WalFileDump) -> str:
    rows = [
        (
            each.lsn,
            each.kind,
            each.group,
            each.term,
            each.index,
            each.next_offset,
            each.payload_bytes,
            each.position,
            each.note,
        )
        for each in found.records
    ]
    head = ("LSN", "KIND", "GROUP", "TERM", "INDEX", "NEXT", "BYTES", "POSITION", "NOTE")
    title = f"{found.path}: {found.size_bytes} bytes, generation {found.generation}"
    return f"{title}\n{table(head, rows)}" if rows else f"{title}, no records"
