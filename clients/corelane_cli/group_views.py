"""What `corelane group list` and `corelane group describe` show."""

from collections.abc import Sequence
from typing import Any, Literal

from corelane.model.errors import ErrorCode
from corelane_cli.output import counted, table
from corelane_cli.session import CONNECTION
from corelane_cli.watching import Views, show
from corelane_client.admin import Admin
from corelane_client.errors import KafkaError
from corelane_client.groups import Group
from corelane_client.offsets import Edge

View = Literal["partitions", "topics", "summary"]


def list_groups(
    bootstrap: str,
    states: Sequence[str],
    output_format: str,
    *,
    has_lag: bool,
    every_s: float | None,
) -> None:
    """Print the groups."""
    wanted = {state.lower() for state in states}

    async def look() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            rows = [
                {
                    "name": each.name,
                    "state": each.state,
                    "type": each.kind,
                    "protocol_type": each.protocol_type,
                }
                for each in await admin.list_groups()
                if not wanted or each.state.lower() in wanted
            ]
            return [await _with_lag(admin, row) for row in rows] if has_lag else rows

    def whole(rows: list[dict[str, Any]]) -> str:
        keys = ["name", "state", "type", "protocol_type", *(("members", "lag") if has_lag else ())]
        heads = {"name": "GROUP", "protocol_type": "PROTOCOL"}
        lines = [["-" if row[key] is None else row[key] for key in keys] for row in rows]
        return table([heads.get(key, key.upper()) for key in keys], lines) if rows else ""

    def line(rows: list[dict[str, Any]]) -> str:
        return "; ".join(
            f"{row['name']} {row['state']}" + (f" lag {row['lag']}" if has_lag else "")
            for row in rows
        )

    views = Views(whole, line, lambda rows: {"groups": rows})
    show(look, views, output_format, every_s)


async def _with_lag(admin: Admin, row: dict[str, Any]) -> dict[str, Any]:
    """Add members and lag to a row of the list; a group that has gone meanwhile has neither."""
    try:
        found = await described(admin, row["name"])
    except KafkaError as error:
        if error.code != ErrorCode.GROUP_ID_NOT_FOUND:
            raise
        return {**row, "members": None, "lag": None}
    return {**row, "members": len(found["members"]), "lag": found["lag"]}


def describe(
    bootstrap: str, names: Sequence[str], output_format: str, *, view: View, every_s: float | None
) -> None:
    """Print all about groups."""

    async def look() -> list[dict[str, Any]]:
        async with Admin(bootstrap, CONNECTION) as admin:
            return [await described(admin, name) for name in names]

    def whole(found: list[dict[str, Any]]) -> str:
        if view == "summary":
            return _summary(found)
        return "\n\n".join(_text(each, view) for each in found)

    def line(found: list[dict[str, Any]]) -> str:
        return "; ".join(map(_head, found))

    show(look, Views(whole, line, lambda found: {"groups": found}), output_format, every_s)


async def described(admin: Admin, name: str) -> dict[str, Any]:
    """Return everything about a group as JSON has it."""
    group = await admin.describe_group(name)
    committed = await admin.group_offsets(name)
    owners = _owners(group)
    places = sorted(committed.keys() | owners.keys())
    ends = await _ends(admin, {topic for topic, _number in places})
    partitions = []
    for topic, number in places:
        known = committed.get((topic, number))
        end_offset = ends.get((topic, number))
        lag = None
        if known is not None and end_offset is not None:
            lag = max(0, end_offset - known.offset)
        partitions.append(
            {
                "topic": topic,
                "partition": number,
                "offset": None if known is None else known.offset,
                "end": end_offset,
                "lag": lag,
                "member": owners.get((topic, number)),
            }
        )
    return {
        "name": name,
        "state": group.state,
        "type": group.kind,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
        "lag": sum(row["lag"] or 0 for row in partitions),
        "members": [
            {
                "member": each.member_id,
                "instance": each.instance_id,
                "client": each.client_id,
                "host": each.host,
                "partitions": sum(len(numbers) for numbers in each.partitions.values()),
            }
            for each in group.members
        ],
        "topics": _topics(partitions),
        "partitions": partitions,
    }


async def _ends(admin: Admin, topics: set[str]) -> dict[tuple[str, int], int]:
    """Return where each partition ends; a topic that was deleted has no end, and no lag."""
    ends = {}
    for topic in sorted(topics):
        try:
            found = await admin.list_offsets(topic, Edge.END)
        except KafkaError as error:
            if error.code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise
            continue
        for number, end in found.items():
            ends[topic, number] = end.offset
    return ends


def _topics(partitions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many partitions of each topic the group has, and the lag of all together."""
    found: dict[str, dict[str, Any]] = {}
    for row in partitions:
        topic = row["topic"]
        each = found.setdefault(topic, {"topic": topic, "partitions": 0, "assigned": 0, "lag": 0})
        each["partitions"] += 1
        each["assigned"] += row["member"] is not None
        each["lag"] += row["lag"] or 0
    return [*found.values()]


def _owners(group: Group) -> dict[tuple[str, int], str]:
    """Return which member has each partition."""
    return {
        (topic, number): member.member_id
        for member in group.members
        for topic, numbers in member.partitions.items()
        for number in numbers
    }


def _head(described: dict[str, Any]) -> str:
    members = described["members"]
    head = (
        f"{described['name']}: {described['state']}, {counted(len(members), 'member')}, "
        f"lag {described['lag']}, coordinator {described['coordinator']}, {described['type']}"
    )
    return f"{head} ({described['assignor']})" if described["assignor"] else head


def _text(described: dict[str, Any], view: View) -> str:
    parts = [_head(described)]
    if view == "topics":
        keys = ("topic", "partitions", "assigned", "lag")
        parts += _rows(described["topics"], keys)
    else:
        parts += _rows(
            described["partitions"], ("topic", "partition", "offset", "end", "lag", "member")
        )
        parts += _rows(described["members"], ("member", "instance", "client", "host", "partitions"))
    return "\n".join(parts)


def _summary(found: list[dict[str, Any]]) -> str:
    """Return a line for each group."""
    heads = ("GROUP", "STATE", "MEMBERS", "TOPICS", "LAG", "COORDINATOR", "TYPE", "ASSIGNOR")
    lines = [
        (
            each["name"],
            each["state"],
            len(each["members"]),
            len(each["topics"]),
            each["lag"],
            each["coordinator"],
            each["type"],
            each["assignor"] or "-",
        )
        for each in found
    ]
    return table(heads, lines)


def _rows(rows: list[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    """Return a table of *rows*, if there are any."""
    if not rows:
        return []
    lines = [["-" if row[key] is None else row[key] for key in keys] for row in rows]
    return [table([key.upper() for key in keys], lines)]
