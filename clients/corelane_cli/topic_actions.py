"""What the `corelane topic` commands do."""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from corelane.model.record import record
from corelane_cli.output import show_json, table
from corelane_cli.session import CONNECTION, run
from corelane_client.admin import BROKER_DEFAULT, Admin, ConfigEntry, NewTopic
from corelane_client.errors import KafkaError, ProtocolError
from corelane_client.offsets import Edge
from corelane_client.pool import Topic

_DEFAULT_SOURCES = {"default", "file", "broker", "cluster"}
_WARNINGS: Final[dict[tuple[str, str | None], str]] = {
    ("write.caching", "true"): (
        "write.caching: producers are answered before their records are on disk; a crash can lose"
        " what was acknowledged."
    ),
}
"""Settings that promise less than a topic does without them."""


@record
class Wish:
    """What `topic create` is asked for."""

    names: Sequence[str]
    partition_count: int | None
    replication_factor: int | None
    configs: dict[str, str]
    if_not_exists: bool
    validate_only: bool


def create(bootstrap: str, wish: Wish, output_format: str) -> None:
    """Make topics, each as *wish* says; the first that fails ends it."""
    rows: list[dict[str, Any]] = []

    async def conversation() -> None:
        async with Admin(bootstrap, CONNECTION) as admin:
            for name in wish.names:
                row = await _create(admin, name, wish)
                rows.append(row)

    with shown(rows, output_format, "{status} topic {name}"):
        run(conversation)


async def _create(admin: Admin, name: str, wish: Wish) -> dict[str, Any]:
    new = NewTopic(
        name,
        wish.partition_count or BROKER_DEFAULT,
        wish.replication_factor or BROKER_DEFAULT,
        wish.configs,
    )
    try:
        made = await admin.create_topic(new, validate_only=wish.validate_only)
    except KafkaError as error:
        if not wish.if_not_exists or error.name != "TOPIC_ALREADY_EXISTS":
            raise
        return {"name": name, "status": "exists"}
    if made is None:
        return {"name": name, "status": "valid"}
    return {**summary(made), "status": "created"}


def delete(bootstrap: str, names: Sequence[str], output_format: str, *, if_exists: bool) -> None:
    """Delete topics; the first that fails ends it."""
    rows: list[dict[str, Any]] = []

    async def conversation() -> None:
        async with Admin(bootstrap, CONNECTION) as admin:
            for name in names:
                try:
                    await admin.delete_topic(name)
                except KafkaError as error:
                    if not if_exists or error.name != "UNKNOWN_TOPIC_OR_PARTITION":
                        raise
                    rows.append({"name": name, "status": "absent"})
                else:
                    rows.append({"name": name, "status": "deleted"})

    with shown(rows, output_format, "{status} topic {name}"):
        run(conversation)


def list_topics(bootstrap: str, output_format: str, *, internal: bool) -> None:
    """Print the topics."""

    async def conversation() -> list[Topic]:
        async with Admin(bootstrap, CONNECTION) as admin:
            return await admin.list_topics()

    found = [summary(each) for each in run(conversation) if internal or not each.is_internal]
    if output_format == "json":
        show_json({"topics": found})
    elif found:
        keys = ("name", "partitions", "replication_factor")
        rows = [[each[key] for key in keys] for each in found]
        click.echo(table(("TOPIC", "PARTITIONS", "REPLICAS"), rows))


def describe(
    bootstrap: str, names: Sequence[str], output_format: str, *, all_configs: bool
) -> None:
    """Print all about topics."""

    async def conversation() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            return [await _described(admin, name) for name in names]

    described = run(conversation)
    if output_format == "json":
        show_json({"topics": described})
        return
    click.echo("\n\n".join(_text(each, all_configs=all_configs) for each in described))


async def _described(admin: Admin, name: str) -> dict[str, Any]:
    """Return everything about a topic as JSON has it."""
    topic = await admin.describe_topic(name)
    first = await admin.list_offsets(name, Edge.BEGINNING)
    end = await admin.list_offsets(name, Edge.END)
    configs = await admin.describe_topic_configs(name)
    sizes = await sizes_of(admin, topic)
    partitions = [
        {
            "partition": number,
            "leader": each.leader,
            "leader_epoch": each.leader_epoch,
            "replicas": [*each.replicas],
            "in_sync": [*each.in_sync],
            "first_offset": first[number].offset,
            "next_offset": end[number].offset,
            "size_bytes": sizes.get(number),
        }
        for number, each in topic.partitions.items()
    ]
    return {
        **summary(topic),
        "partitions": partitions,
        "configs": {each.name: _config(each) for each in configs},
        "warnings": [
            _WARNINGS[each.name, each.value]
            for each in configs
            if (each.name, each.value) in _WARNINGS
        ],
    }


async def sizes_of(admin: Admin, topic: Topic) -> dict[int, int]:
    """Return the bytes of each partition on its leader's disk, as far as brokers tell."""
    try:
        directories = await admin.describe_log_dirs([topic.name])
    except (KafkaError, ProtocolError):  # forbidden, or a broker without this API
        return {}
    sizes: dict[int, int] = {}
    for each in directories:
        for (name, number), size_bytes in each.partitions.items():
            if name == topic.name and topic.partitions[number].leader == each.broker_id:
                sizes[number] = sizes.get(number, 0) + size_bytes
    return sizes


def _config(entry: ConfigEntry) -> dict[str, Any]:
    return {"value": entry.value, "source": entry.source}


def summary(topic: Topic) -> dict[str, Any]:
    """Return what every command says of a topic."""
    replicas = [len(each.replicas) for each in topic.partitions.values()]
    return {
        "name": topic.name,
        "topic_id": str(uuid.UUID(bytes=topic.topic_id)),
        "partitions": len(topic.partitions),
        "replication_factor": max(replicas, default=0),
        "internal": topic.is_internal,
    }


def _text(described: dict[str, Any], *, all_configs: bool) -> str:
    """Return a topic as people read it."""
    head = f"{described['name']}  (id {described['topic_id']})"
    rows = [
        (
            each["partition"],
            each["leader"],
            each["leader_epoch"],
            ",".join(map(str, each["replicas"])),
            ",".join(map(str, each["in_sync"])),
            each["first_offset"],
            each["next_offset"],
            "?" if each["size_bytes"] is None else each["size_bytes"],
        )
        for each in described["partitions"]
    ]
    columns = ("PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC", "FIRST", "NEXT", "BYTES")
    parts = [head, table(columns, rows)]
    configs = [
        (name, row["value"], row["source"])
        for name, row in described["configs"].items()
        if all_configs or row["source"] not in _DEFAULT_SOURCES
    ]
    if configs:
        parts.append(table(("SETTING", "VALUE", "SOURCE"), configs))
    parts += [f"warning: {each}" for each in described["warnings"]]
    return "\n".join(parts)


@contextlib.contextmanager
def shown(rows: list[dict[str, Any]], output_format: str, line: str) -> Iterator[None]:
    """Print what was done, also when the rest could not be."""
    try:
        yield
    finally:
        if output_format == "json" and rows:
            show_json({"topics": rows})
        elif output_format != "json":
            for row in rows:
                click.echo(line.format(**row))
