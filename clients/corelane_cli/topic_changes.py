"""What `corelane topic alter` and `corelane topic add-partitions` do."""

from collections.abc import Sequence
from typing import Any

from corelane.model.record import record
from corelane_cli.progress import Progress
from corelane_cli.session import CONNECTION, run
from corelane_cli.topic_actions import shown, summary
from corelane_client.admin import Admin
from corelane_client.changes import ConfigChange, Operation

Change = tuple[str, str, str | None]
"""What to do (a name of an Operation in small letters), with which setting, and the value."""


@record
class More:
    """What `topic add-partitions` is asked for; either `num` more, or `total` in all."""

    names: Sequence[str]
    num: int | None
    total: int | None
    validate_only: bool


def alter(
    bootstrap: str,
    names: Sequence[str],
    changes: Sequence[Change],
    output_format: str,
    *,
    validate_only: bool,
) -> None:
    """Change settings of topics; the first topic that fails ends it."""
    wanted = [ConfigChange(Operation[kind.upper()], key, value) for kind, key, value in changes]
    rows: list[dict[str, Any]] = []

    async def conversation() -> None:
        async with Admin(bootstrap, CONNECTION) as admin:
            for name in names:
                await admin.alter_topic_configs(name, wanted, validate_only=validate_only)
                rows.append({"name": name, "status": "valid" if validate_only else "altered"})

    with shown(rows, output_format, "{status} topic {name}"):
        run(conversation)


def add_partitions(bootstrap: str, wish: More, output_format: str) -> None:
    """Give topics more partitions; the first topic that fails ends it."""
    rows: list[dict[str, Any]] = []

    async def conversation() -> None:
        async with Admin(bootstrap, CONNECTION) as admin:
            for name in wish.names:
                row = await _more(admin, name, wish, is_text=output_format == "text")
                rows.append(row)

    line = "{status} topic {name}: {partitions} partitions"
    with shown(rows, output_format, line):
        run(conversation)


async def _more(admin: Admin, name: str, wish: More, *, is_text: bool) -> dict[str, Any]:
    if wish.total is not None:
        total = wish.total
    else:
        assert wish.num is not None
        total = len((await admin.describe_topic(name)).partitions) + wish.num
    progress = Progress(total, is_wanted=is_text, unit="partitions")
    try:
        made = await admin.create_partitions(
            name, total, validate_only=wish.validate_only, told=progress.show
        )
    finally:
        progress.finish()
    if made is None:
        return {"name": name, "partitions": total, "status": "valid"}
    return {**summary(made), "status": "extended"}
