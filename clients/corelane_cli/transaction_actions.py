"""What the `corelane transaction` commands do."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.output import show_json, table
from corelane_cli.session import CONNECTION, run
from corelane_cli.watching import Views, show
from corelane_client.admin import Admin
from corelane_client.transaction_admin import ActiveProducer, Filter, TransactionDescription

__all__ = ["Filter", "Look", "abort_by_name", "abort_in_partition", "describe", "list_all"]


@record
class Look:
    """Where to look for transactions that hang, and for how long they must have been silent."""

    topics: Sequence[str]
    older_than_s: float


def list_all(bootstrap: str, wanted: Filter, output_format: str, every_s: float | None) -> None:
    """Print the transactional ids."""

    async def look() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            return [
                {
                    "transactional_id": each.transactional_id,
                    "state": each.state,
                    "producer_id": each.producer_id,
                    "coordinator": each.coordinator,
                }
                for each in await admin.list_transactions(wanted)
            ]

    keys = ("transactional_id", "state", "producer_id", "coordinator")
    heads = ("TRANSACTIONAL ID", "STATE", "PRODUCER", "COORDINATOR")
    views = Views(
        lambda rows: _table(heads, keys, rows),
        lambda rows: "; ".join(f"{row['transactional_id']} {row['state']}" for row in rows),
        lambda rows: {"transactions": rows},
    )
    show(look, views, output_format, every_s)


def list_hanging(bootstrap: str, look: Look, output_format: str, every_s: float | None) -> None:
    """Print what is open in a partition and that no coordinator will ever end."""

    async def find() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            names = look.topics or [topic.name for topic in await admin.list_topics()]
            return [row for name in names for row in await _hanging(admin, name, look.older_than_s)]

    keys = ("topic", "partition", "start_offset", "producer_id", "producer_epoch", "silent_s")
    heads = ("TOPIC", "PARTITION", "START OFFSET", "PRODUCER", "EPOCH", "SILENT S")
    views = Views(
        lambda rows: _table(heads, keys, rows),
        lambda rows: (
            "; ".join(
                f"{row['topic']}-{row['partition']} from {row['start_offset']}" for row in rows
            )
            or "none hangs"
        ),
        lambda rows: {"hanging": rows},
    )
    show(find, views, output_format, every_s)


async def _hanging(admin: Admin, topic: str, older_than_s: float) -> list[dict[str, Any]]:
    """Return what hangs in the partitions of one topic."""
    now_ms = time.time() * 1000
    rows = []
    for number, producers in (await admin.describe_producers(topic)).items():
        for producer in producers:
            silent_s = (now_ms - producer.last_timestamp_ms) / 1000
            if producer.transaction_start < 0 or silent_s < older_than_s:
                continue
            if not await admin.is_coordinated((topic, number), producer.producer_id):
                rows.append(
                    {
                        "topic": topic,
                        "partition": number,
                        "start_offset": producer.transaction_start,
                        "producer_id": producer.producer_id,
                        "producer_epoch": producer.producer_epoch,
                        "silent_s": int(silent_s),
                    }
                )
    return rows


def describe(
    bootstrap: str, names: Sequence[str], output_format: str, every_s: float | None
) -> None:
    """Print all about transactional ids."""

    async def look() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            return [_described(await admin.describe_transaction(name)) for name in names]

    views = Views(
        lambda found: "\n\n".join(map(_text, found)),
        lambda found: "; ".join(map(_head, found)),
        lambda found: {"transactions": found},
    )
    show(look, views, output_format, every_s)


def _described(found: TransactionDescription) -> dict[str, Any]:
    is_open = found.start_ms >= 0
    started = datetime.fromtimestamp(found.start_ms / 1000, UTC) if is_open else None
    return {
        "transactional_id": found.transactional_id,
        "state": found.state,
        "producer_id": found.producer_id,
        "producer_epoch": found.producer_epoch,
        "timeout_ms": found.timeout_ms,
        "started": None if started is None else started.isoformat(timespec="milliseconds"),
        "open_ms": max(0, int(time.time() * 1000) - found.start_ms) if is_open else None,
        "coordinator": found.coordinator,
        "partitions": [
            {"topic": topic, "partition": number} for topic, number in sorted(found.partitions)
        ],
    }


def _head(row: dict[str, Any]) -> str:
    head = (
        f"{row['transactional_id']}: {row['state']}, producer {row['producer_id']} epoch "
        f"{row['producer_epoch']}, timeout {row['timeout_ms']} ms, coordinator {row['coordinator']}"
    )
    if row["started"] is not None:
        head += f", open since {row['started']} ({row['open_ms'] / 1000:.1f} s)"
    return head


def _text(row: dict[str, Any]) -> str:
    keys = ("topic", "partition")
    return "\n".join([_head(row), *filter(None, [_table(None, keys, row["partitions"])])])


def abort_by_name(bootstrap: str, name: str, output_format: str) -> None:
    """Abort what is open under a transactional id, and say so."""

    async def conversation() -> int:
        async with Admin(bootstrap, CONNECTION) as admin:
            return await admin.abort_transaction(name)

    epoch = run(conversation)
    if output_format == "json":
        show_json({"transactional_id": name, "status": "aborted", "producer_epoch": epoch})
    else:
        click.echo(f"aborted what was open under {name}; its producer is fenced (epoch {epoch})")


def abort_in_partition(
    bootstrap: str, place: tuple[str, int], start: int, output_format: str
) -> None:
    """End what hangs in a partition, and say so."""
    topic, number = place

    async def conversation() -> ActiveProducer:
        async with Admin(bootstrap, CONNECTION) as admin:
            found = (await admin.describe_producers(topic, [number]))[number]
            opened = [each for each in found if each.transaction_start >= 0]
            for producer in opened:
                if producer.transaction_start == start:
                    await admin.abort_in_partition(place, producer)
                    return producer
            starts = ", ".join(str(each.transaction_start) for each in opened)
            raise CommandError(
                exits.REFUSED,
                f"{topic}, partition {number}: no transaction is open from offset {start}",
                f"Those that are open begin at: {starts}." if opened else "None is open there.",
            )

    producer = run(conversation)
    fields = {"producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch}
    if output_format == "json":
        where = {"topic": topic, "partition": number, "start_offset": start}
        show_json({**where, **fields, "status": "aborted"})
    else:
        click.echo(
            f"aborted in {topic}, partition {number}, from offset {start}: "
            f"producer {producer.producer_id} epoch {producer.producer_epoch}"
        )


def _table(heads: Sequence[str] | None, keys: Sequence[str], rows: list[dict[str, Any]]) -> str:
    """Return *rows* as a table; empty without any."""
    if not rows:
        return ""
    return table(
        heads or [key.upper() for key in keys], [[row[key] for key in keys] for row in rows]
    )
