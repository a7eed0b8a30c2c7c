"""The configuration file as text: every setting with its default, unit and reason."""

import textwrap
from typing import Final

from corelane.model.config_keys import HEADINGS, KEYS, Key, Value

_INTRODUCTION: Final = """\
# Corelane's settings. Every one is here, with its default: what is left out has it anyway.
# Settings that Kafka has carry Kafka's names. Under each reason: its unit, and when a change acts.
"""


def example() -> str:
    """Return the text of `config/corelane.toml`; parsing it gives the defaults."""
    parts = [_INTRODUCTION]
    for section, heading in HEADINGS.items():
        parts.append(f"\n# --- {heading} ".ljust(100, "-") + "\n")
        parts += [_paragraph(key) for key in KEYS if key.path.startswith(section + ".")]
    return "".join(parts)


def literal(value: Value) -> str:
    """Return *value* as TOML writes it; long numbers in groups of three digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 100_000 else str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _paragraph(key: Key) -> str:
    reason = textwrap.fill(key.reason, 100, initial_indent="# ", subsequent_indent="# ")
    facts = [fact for fact in (key.unit, _allowed(key), f"acts {key.reload.value}") if fact]
    return f"\n{reason}\n# ({'; '.join(facts)})\n{key.name} = {literal(key.default)}\n"


def _allowed(key: Key) -> str:
    if key.choices:
        return " | ".join(f'"{choice}"' for choice in key.choices)
    if key.minimum is not None and key.maximum is not None:
        return f"{literal(key.minimum)} to {literal(key.maximum)}"
    return ""
