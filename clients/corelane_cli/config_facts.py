"""What is known of each setting, of brokers and of topics, from the tables of both."""

import difflib
from typing import Final

from corelane.cluster.topic_config_keys import TOPIC_CONFIGS, ConfigKind, TopicConfig
from corelane.model.config_keys import FACTORS, HINTS, KEYS, KEYS_BY_NAME, Key, Reload, Value
from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.environment import variable_of
from corelane_cli.exits import CommandError

_NEAREST_COUNT: Final = 3


@record
class Setting:
    """A setting of a broker or of a topic."""

    name: str
    default: str
    unit: str
    minimum: int | None
    maximum: int | None
    choices: tuple[str, ...]
    allowed: str
    """The last three in words."""
    acts: str
    """When a change of it does."""
    restart_needed: bool
    reason: str
    variable: str | None
    """The environment's name for it; a topic's settings have none."""
    default_from: str
    """The broker's setting that is the default of a topic's."""
    also: tuple[str, ...]
    """Kafka's other spellings."""
    is_of_topics: bool
    has_effect: bool


_TOPIC_CONFIGS: Final = {row.name: row for row in TOPIC_CONFIGS}


def find(name: str) -> Key | TopicConfig:
    """Return the setting of this name. Raises CommandError, with the nearest names."""
    target = FACTORS.get(name, (name, 1))[0]
    # A few names are both; the broker's is the one that `config` is about.
    found = KEYS_BY_NAME.get(target) or _TOPIC_CONFIGS.get(target)
    if found is not None:
        return found
    if name in HINTS:
        why = f"{name} is not a setting here: {HINTS[name]}"
        raise CommandError(exits.CONFIGURATION, why, "`corelane config list` shows all.")
    known = [*KEYS_BY_NAME, *FACTORS, *_TOPIC_CONFIGS]
    near = difflib.get_close_matches(name, known, n=_NEAREST_COUNT, cutoff=0.5)
    why = f"there is no setting {name}"
    if near:
        why += f"; did you mean {' or '.join(near)}?"
    raise CommandError(exits.CONFIGURATION, why, "`corelane config list` shows all.")


def settings() -> list[Setting]:
    """Return every setting of a broker, by its name."""
    return sorted(map(setting_of, KEYS), key=lambda setting: setting.name)


def setting_of(row: Key | TopicConfig) -> Setting:
    """Return what is known of one row of a table."""
    return _of_broker(row) if isinstance(row, Key) else _of_topic(row)


def text_of(value: Value) -> str:
    """Return a value as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_broker(key: Key) -> Setting:
    if isinstance(key.default, bool):
        allowed = "true or false"
    elif key.choices:
        allowed = "one of " + ", ".join(key.choices)
    else:
        allowed = _range(key.minimum, key.maximum)
    return Setting(
        name=key.name,
        default=text_of(key.default),
        unit=key.unit,
        minimum=key.minimum,
        maximum=key.maximum,
        choices=key.choices,
        allowed=allowed,
        acts=key.reload.value,
        restart_needed=key.reload is Reload.RESTART,
        reason=key.reason,
        variable=variable_of(key.name),
        default_from="",
        also=tuple(name for name, (target, _) in FACTORS.items() if target == key.name),
        is_of_topics=False,
        has_effect=True,
    )


def _of_topic(row: TopicConfig) -> Setting:
    allowed = _range(row.minimum, row.maximum)
    if row.kind is ConfigKind.BOOLEAN:
        allowed = "true or false"
    elif row.choices:
        kind = "a list of" if row.kind is ConfigKind.LIST else "one of"
        allowed = f"{kind} {', '.join(row.choices)}"
    return Setting(
        name=row.name,
        default=row.default,
        unit="",
        minimum=row.minimum,
        maximum=row.maximum,
        choices=row.choices,
        allowed=allowed,
        acts="for one topic, with `corelane topic alter NAME --set`",
        restart_needed=False,
        reason=row.documentation,
        variable=None,
        default_from=row.server_key if row.server_key in KEYS_BY_NAME else "",
        also=(),
        is_of_topics=True,
        has_effect=row.acts,
    )


def _range(minimum: int | None, maximum: int | None) -> str:
    if minimum is None and maximum is None:
        return ""
    if maximum is None:
        return f"from {minimum}"
    return f"{minimum} to {maximum}" if minimum is not None else f"up to {maximum}"
