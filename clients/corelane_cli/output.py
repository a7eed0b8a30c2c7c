"""How results look: JSON for programs, aligned columns for people."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click


def show_json(value: Any) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return *rows* under *head* in columns; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    is_number = [
        all(row[at].removeprefix("-").isdecimal() for row in cells) for at in range(len(head))
    ]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), *map(line, cells)])


def counted(count: int, noun: str) -> str:
    """Return *count* with *noun* in the right number."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
