"""The tables of messages, parsed: which fields a message has in which version.

A table is text. A message begins with a line `Name key K versions A-B flexible F+`; each field is
a line below it, indented by four spaces a level:

    name: type VERSIONS [null VERSIONS] [tag N VERSIONS] [flexible VERSIONS] [= default]

VERSIONS are `3+`, `0-12`, `4` or `none`; `[]T` is an array; a struct's fields are the lines
indented below the field that holds it.
"""

import importlib
import re
from functools import cache
from typing import Final

from corelane.model.record import record

TABLES: Final = (
    "headers",
    "data",
    "cluster",
    "topics",
    "groups",
    "consumer_groups",
    "transactions",
    "security",
)
NEVER: Final = (1, 0)
VERSION_MAX: Final = 0x7FFF
_FIELD: Final = re.compile(
    r"(?P<indent> +)(?P<name>\w+): (?P<kind>\S+) (?P<versions>\S+)"
    r"(?: null (?P<null>\S+))?(?: tag (?P<tag>\d+) (?P<tagged>\S+))?"
    r"(?: flexible (?P<flexible>\S+))?(?: = (?P<default>.*))?"
)
_HEAD: Final = re.compile(
    r"(?P<name>\w+)(?: key (?P<key>\d+))? versions (?P<versions>\S+) flexible (?P<flexible>\S+)"
)

Versions = tuple[int, int]


@record
class Field:
    """One field of a struct."""

    name: str
    kind: str
    is_array: bool
    versions: Versions
    nullable: Versions
    tag: int
    tagged: Versions
    flexible: Versions | None
    default: str
    fields: "list[Field]"


@record
class MessageSchema:
    """One message with its fields."""

    name: str
    key: int
    versions: Versions
    flexible: Versions
    fields: list[Field]


def versions(text: str | None) -> Versions:
    """Return the half-closed meaning of a version range: first and last, both included."""
    if text is None or text == "none":
        return NEVER
    first, plus, _ = text.partition("+")
    if plus:
        return int(first), VERSION_MAX
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _parse_field(line: str) -> tuple[int, Field]:
    match = _FIELD.fullmatch(line)
    assert match, f"a table line is malformed: {line!r}"
    words = match.groupdict()
    kind = words["kind"]
    return len(words["indent"]) // 4, Field(
        words["name"],
        kind.removeprefix("[]"),
        kind.startswith("[]"),
        versions(words["versions"]),
        versions(words["null"]),
        int(words["tag"] or -1),
        versions(words["tagged"]),
        versions(words["flexible"]) if words["flexible"] else None,
        words["default"] or "",
        [],
    )


def _parse(block: str) -> MessageSchema:
    head, *lines = block.splitlines()
    match = _HEAD.fullmatch(head)
    assert match, f"a table line is malformed: {head!r}"
    schema = MessageSchema(
        match["name"],
        int(match["key"] or -1),
        versions(match["versions"]),
        versions(match["flexible"]),
        [],
    )
    levels = [schema.fields]
    for line in lines:
        depth, field = _parse_field(line)
        del levels[depth:]
        levels[-1].append(field)
        levels.append(field.fields)
    return schema


@cache
def schemas() -> dict[str, MessageSchema]:
    """Return every message by name."""
    found = {}
    for name in TABLES:
        table: str = importlib.import_module(f"corelane.wire.messages.{name}").TABLE
        for block in table.strip().split("\n\n"):
            schema = _parse(block)
            found[schema.name] = schema
    return found
