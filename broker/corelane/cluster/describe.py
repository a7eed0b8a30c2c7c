"""Configurations as DescribeConfigs shows them: value, where it is from, type, what it means."""

from collections.abc import Collection, Mapping
from enum import IntEnum
from typing import Final

from corelane.cluster.topic_config_keys import TOPIC_CONFIGS, ConfigKind, TopicConfig
from corelane.model import limits
from corelane.model.config import Config, is_dynamic, values
from corelane.model.config_keys import KEYS, KEYS_BY_NAME, Key, Value
from corelane.model.ids import BrokerId
from corelane.model.record import record


class ConfigSource(IntEnum):
    """Kafka's numbers for where a value is from; the lower one wins."""

    DYNAMIC_TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5


@record
class Synonym:
    """A value that would act if those before it in the list were gone."""

    name: str
    value: str
    source: ConfigSource


@record
class ConfigRow:
    """One configuration of a topic or broker."""

    name: str
    value: str
    source: ConfigSource
    is_read_only: bool
    is_sensitive: bool
    synonyms: list[Synonym]
    kind: ConfigKind
    doc: str

    @property
    def is_default(self) -> bool:
        """What version 0 of the API says instead of the source."""
        return self.source is ConfigSource.DEFAULT_CONFIG


Dynamic = Mapping[ConfigSource, Mapping[str, str]]
"""Settings of brokers that were changed at run time, those that win first."""


def topic_rows(
    overrides: Mapping[str, str],
    config: Config,
    dynamic: Dynamic,
    names: Collection[str] | None,
) -> list[ConfigRow]:
    """Return the configurations of a topic with *overrides*, in order of their names.

    *config* is the broker's as it was started. *names*: only those (unknown ones are left out, as
    Kafka does); None: all.
    """
    broker_values = values(config)
    return [
        _topic_row(row, overrides, _Settings(config, broker_values, dynamic))
        for row in _TOPIC_ROWS
        if (names is None or row.name in names) and (not row.is_hidden or row.name in overrides)
    ]


def default_rows(dynamic: Mapping[str, str], names: Collection[str] | None) -> list[ConfigRow]:
    """Return the settings that were changed for all brokers, in order of their names."""
    source = ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
    return [
        ConfigRow(
            name=name,
            value=value,
            source=source,
            is_read_only=False,
            is_sensitive=False,
            synonyms=[Synonym(name, value, source)],
            kind=_kind_of(KEYS_BY_NAME[name]),
            doc=KEYS_BY_NAME[name].reason,
        )
        for name, value in sorted(dynamic.items())
        if name in KEYS_BY_NAME and (names is None or name in names)
    ]


def broker_rows(
    config: Config, dynamic: Dynamic, broker: BrokerId, names: Collection[str] | None
) -> list[ConfigRow]:
    """Return the settings of a broker, in order of their names.

    *config* is the broker's as it was started.
    """
    settings = _Settings(config, values(config), dynamic)
    rows = [_broker_row(key, settings) for key in KEYS if names is None or key.name in names]
    # What tools look for under Kafka's name and we derive.
    for name, value, kind, doc in (
        ("broker.id", str(broker), ConfigKind.INT, "This broker: node.id * 1000 + core."),
        ("log.dirs", config.node.data_dir, ConfigKind.LIST, "The data directory."),
    ):
        if names is None or name in names:
            source = ConfigSource.STATIC_BROKER_CONFIG
            synonyms = [Synonym(name, value, source)]
            rows.append(
                ConfigRow(
                    name=name,
                    value=value,
                    source=source,
                    is_read_only=True,
                    is_sensitive=False,
                    synonyms=synonyms,
                    kind=kind,
                    doc=doc,
                )
            )
    return sorted(rows, key=lambda row: row.name)


def text_of(value: Value) -> str:
    """Return a setting as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_TOPIC_ROWS: Final = sorted(TOPIC_CONFIGS, key=lambda row: row.name)


@record
class _Settings:
    """Where the value of a broker's setting can be from."""

    config: Config
    values: Mapping[str, Value]
    dynamic: Dynamic

    def synonyms(self, name: str) -> list[Synonym]:
        """Return every value but the default, the one that acts first."""
        found = [
            Synonym(name, given[name], source)
            for source, given in self.dynamic.items()
            if name in given
        ]
        if name in self.config.given:
            given_text = text_of(self.values[name])
            found.append(Synonym(name, given_text, ConfigSource.STATIC_BROKER_CONFIG))
        return found


def _topic_row(row: TopicConfig, overrides: Mapping[str, str], settings: _Settings) -> ConfigRow:
    synonyms: list[Synonym] = []
    if row.name in overrides:
        synonyms.append(Synonym(row.name, overrides[row.name], ConfigSource.DYNAMIC_TOPIC_CONFIG))
    key = KEYS_BY_NAME.get(row.server_key)
    default = row.default if key is None else text_of(key.default)
    if key is not None:
        synonyms += settings.synonyms(key.name)
    if row.server_key:
        synonyms.append(Synonym(row.server_key, default, ConfigSource.DEFAULT_CONFIG))
    first = synonyms[0] if synonyms else Synonym(row.name, default, ConfigSource.DEFAULT_CONFIG)
    return ConfigRow(
        name=row.name,
        value=first.value,
        source=first.source,
        is_read_only=False,
        is_sensitive=False,
        synonyms=synonyms,
        kind=row.kind,
        doc=row.documentation,
    )


def _broker_row(key: Key, settings: _Settings) -> ConfigRow:
    default = Synonym(key.name, text_of(key.default), ConfigSource.DEFAULT_CONFIG)
    synonyms = [*settings.synonyms(key.name), default]
    return ConfigRow(
        name=key.name,
        value=synonyms[0].value,
        source=synonyms[0].source,
        is_read_only=not is_dynamic(key.name),
        is_sensitive=False,
        synonyms=synonyms,
        kind=_kind_of(key),
        doc=key.reason,
    )


def _kind_of(key: Key) -> ConfigKind:
    if isinstance(key.default, bool):
        return ConfigKind.BOOLEAN
    if isinstance(key.default, int):
        is_long = key.maximum is not None and key.maximum > limits.INT32_MAX
        return ConfigKind.LONG if is_long else ConfigKind.INT
    return ConfigKind.LIST if key.name == "log.cleanup.policy" else ConfigKind.STRING
