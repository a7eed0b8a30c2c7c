"""What `corelane cluster info` and `corelane cluster move-core` do."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from corelane_cli.admin_port import (
    MOVE_TIMEOUT_S,
    address_of,
    ask,
    ask_cluster,
    ask_nodes,
    refusal,
)
from corelane_cli.exits import CommandError
from corelane_cli.output import counted, show_json, table
from corelane_cli.session import CONNECTION, run
from corelane_client.address import Address
from corelane_client.admin import Admin, ClusterInfo
from corelane_client.pool import Topic

_CORE_COLUMNS: Final = {
    "CORE": "core",
    "BROKER": "broker_id",
    "PORT": "port",
    "PID": "pid",
    "STATE": "state",
    "CONNECTIONS": "connections",
    "LEADS": "partitions_led",
    "MISROUTED": "misrouted",
    "LAG MS": "loop_lag_ms",
    "RESTARTS": "restarts",
}
_STATES: Final = {
    "drained": "drained",
    "lost": "its disk is lost",
    "leaving": "leaving",
    "filling": "being filled",
}


def look(bootstrap: str) -> tuple[ClusterInfo, list[Topic]]:
    """Return what the metadata says. Raises CommandError."""

    async def conversation() -> tuple[ClusterInfo, list[Topic]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            topics = await admin.list_topics()
            return await admin.describe_cluster(), topics

    return run(conversation)


def info(bootstrap: str, admin: str | None, output_format: str) -> None:
    """Print brokers, nodes and cores."""
    found, topics = look(bootstrap)
    address = address_of(admin, bootstrap)
    cores: Sequence[Mapping[str, Any]] | None = None
    nodes: Sequence[Mapping[str, Any]] | None = None
    why: dict[str, str] = {}
    try:
        cores = ask_cluster(address, found.cluster_id).get("cores", [])
    except CommandError as error:
        if admin is not None:  # it was named, so it is to answer
            raise
        why["cores"] = error.message
    if cores is not None:
        try:
            nodes = _nodes(address)
        except CommandError as error:  # core 0 tells of nodes, and may be away: the rest is shown
            why["nodes"] = error.message
    brokers = _brokers(found, leaders(topics))
    if output_format == "json":
        show_json(
            {
                "cluster_id": found.cluster_id,
                "brokers": brokers,
                "topics": len(topics),
                "partitions": sum(len(topic.partitions) for topic in topics),
                "nodes": nodes,
                "cores": cores,
                **{f"{what}_unknown_because": said for what, said in why.items()},
            }
        )
        return
    click.echo(f"cluster {found.cluster_id}, {counted(len(topics), 'topic')}")
    rows = [
        (
            row["broker_id"],
            row["address"],
            row["rack"] or "",
            row["partitions_led"],
            "controller" if row["controller"] else "",
        )
        for row in brokers
    ]
    click.echo(table(("BROKER", "ADDRESS", "RACK", "LEADS", "ROLE"), rows))
    if nodes is not None:
        click.echo(table(("NODE", "STATE"), [(row["node"], _state(row)) for row in nodes]))
    if cores is not None:
        cells = [[_cell(core, key) for key in _CORE_COLUMNS.values()] for core in cores]
        click.echo(table([*_CORE_COLUMNS], cells))
    for what, said in why.items():
        click.echo(f"{what}: {said}", err=True)


def _brokers(found: ClusterInfo, leads: Mapping[int, int]) -> list[dict[str, Any]]:
    return [
        {
            "broker_id": each.broker_id,
            "address": str(each.address),
            "rack": each.rack,
            "controller": each.broker_id == found.controller,
            "partitions_led": leads.get(each.broker_id, 0),
        }
        for each in found.brokers
    ]


def _nodes(address: Address) -> list[dict[str, Any]]:
    """Return what is wanted of each node, and what hinders it. Raises CommandError."""
    told = ask_nodes(address)
    stuck = told["stuck"]
    return [{**row, "stuck": stuck.get(str(row["node"]))} for row in told["nodes"]]


def _state(node: Mapping[str, Any]) -> str:
    words = ["up" if node.get("up") else "down"]
    words += [said for key, said in _STATES.items() if node.get(key)]
    return ", ".join(words) + (f": {node['stuck']}" if node["stuck"] else "")


def move_core(
    place: tuple[str, int, int], *, bootstrap: str, admin: str | None, output_format: str
) -> None:
    """Let another core own a partition and say when that is so."""
    topic, partition, core = place
    body = {"topic": topic, "partition": partition, "core": core}
    reply = ask(address_of(admin, bootstrap), "/v1/move", body, MOVE_TIMEOUT_S)
    if reply.status != 200:
        raise refusal(reply, f"topic {topic!r}, partition {partition}")
    if output_format == "json":
        show_json({**body, "status": "moved"})
    else:
        click.echo(f"moved {topic}, partition {partition} to core {core}")


def leaders(topics: Sequence[Topic]) -> dict[int, int]:
    """Return the number of partitions each broker leads; -1 has those without a leader."""
    leads: dict[int, int] = {}
    for topic in topics:
        for each in topic.partitions.values():
            leads[each.leader] = leads.get(each.leader, 0) + 1
    return leads


def _cell(core: Mapping[str, Any], key: str) -> object:
    value = core.get(key)
    if value is None:
        return "?"
    return f"{value:.1f}" if isinstance(value, float) else value
