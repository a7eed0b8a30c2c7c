"""The meaning of a topic's configurations: checked as text, used as typed values.

Topics store text, as clients sent it; `effective` turns it, with the broker's settings as
defaults, into the one record that hot paths read.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from corelane.cluster.topic_config_keys import BY_NAME, ConfigKind, TopicConfig
from corelane.model import limits
from corelane.model.config import Config
from corelane.model.record import record

N = TypeVar("N", int, float)
Parsed = bool | int | float | str | tuple[str, ...]

_INTEGER_RANGES: Final = {
    ConfigKind.SHORT: (-limits.INT16_MAX - 1, limits.INT16_MAX),
    ConfigKind.INT: (-limits.INT32_MAX - 1, limits.INT32_MAX),
    ConfigKind.LONG: (-limits.INT64_MAX - 1, limits.INT64_MAX),
}
_KNUTH: Final = 2_654_435_761
_DIGITS_MAX: Final = 20
"""More than a 64-bit number has: longer text is not a number anybody means."""


@record
class TopicSettings:
    """What a topic's partitions do; typed, within bounds, ready for the hot paths."""

    message_bytes_max: int
    segment_bytes: int
    segment_ms: int
    segment_jitter_ms: int
    retention_ms: int
    """-1: no limit."""
    retention_bytes: int
    """-1: no limit."""
    is_deleted: bool
    """Trimmed by age and size."""
    is_compacted: bool
    """Records need keys."""
    min_insync_replicas: int
    compression_type: str
    compression_level: int
    """Of the codec in `compression_type`; 0 where it has none."""
    is_log_append_time: bool
    timestamp_before_max_ms: int
    timestamp_after_max_ms: int
    is_strict: bool
    is_write_caching: bool

    def roll_ms(self, group: int) -> int:
        """Return the age at which files of a raft group are closed.

        Spread over the jitter (by Knuth's multiplicative hash), and the same after each start.
        """
        span_ms = min(self.segment_jitter_ms, self.segment_ms)
        return self.segment_ms - (group * _KNUTH % 2**32 * span_ms >> 32)

    @property
    def bounds_timestamps(self) -> bool:
        """Say whether a producer's record times can be wrong at all."""
        return not self.is_log_append_time and (
            self.timestamp_before_max_ms < limits.INT64_MAX
            or self.timestamp_after_max_ms < limits.INT64_MAX
        )

    def timestamps_ms(self, wall_ms: int) -> tuple[int, int]:
        """Return the least and the greatest timestamp that batches may have now."""
        if self.is_log_append_time:
            return -limits.INT64_MAX - 1, limits.INT64_MAX
        return wall_ms - self.timestamp_before_max_ms, wall_ms + self.timestamp_after_max_ms

    @property
    def is_plain(self) -> bool:
        """Say whether batches are taken as they come: nobody looks at records, or answers early."""
        is_looked_at = self.is_compacted or self.is_strict
        return not (is_looked_at or self.is_write_caching or self.compression_type != "producer")


def fault_of(name: str, value: str | None) -> str | None:
    """Return what is wrong with one configuration, as a sentence, or None."""
    config = BY_NAME.get(name)
    if config is None:
        return f"Unknown topic config name: {name}"
    if value is None:
        return f"Null value not supported for topic configs: {name}"
    if len(value.encode()) > limits.CONFIG_VALUE_BYTES_MAX:
        return f"The value of {name} is longer than {limits.CONFIG_VALUE_BYTES_MAX} bytes"
    if _parse(config, value) is None:
        shown = value if len(value) <= 100 else value[:100] + "…"
        return f"Invalid value {shown!r} for configuration {name}: it must be {allowed(config)}"
    return None


def canonical(name: str, value: str) -> str:
    """Return *value*, which has no fault, as it is stored and shown: as Kafka prints what it read.

    A fraction stays as it was written.
    """
    parsed = _parse(BY_NAME[name], value)
    assert parsed is not None
    if isinstance(parsed, tuple):
        return ",".join(parsed)
    if isinstance(parsed, bool):
        return str(parsed).lower()
    return str(parsed) if isinstance(parsed, int) else value.strip()


def fault_of_all(configs: Mapping[str, str]) -> str | None:
    """Return what is wrong between configurations that are each right alone, or None."""
    if len(configs) > limits.TOPIC_CONFIGS_MAX:
        return f"A topic can have {limits.TOPIC_CONFIGS_MAX} configurations of its own"
    lags = [
        _parse(BY_NAME[name], configs.get(name, BY_NAME[name].default))
        for name in ("min.compaction.lag.ms", "max.compaction.lag.ms")
    ]
    least_ms, most_ms = lags
    if isinstance(least_ms, int) and isinstance(most_ms, int) and least_ms > most_ms:
        return f"min.compaction.lag.ms ({least_ms}) is above max.compaction.lag.ms ({most_ms})"
    return None


def effective(overrides: Mapping[str, str], config: Config) -> TopicSettings:
    """Return what a topic with *overrides* does on a broker with *config*."""
    values = _Values(overrides)
    log = config.log
    policies = values.items("cleanup.policy", log.cleanup_policy)
    timestamps = values.text("message.timestamp.type", log.timestamp_type)
    segment_bytes = values.integer("segment.bytes", log.segment_bytes)
    message_bytes_max = values.integer("max.message.bytes", log.message_bytes_max)
    compression_type = values.text("compression.type", log.compression_type)
    return TopicSettings(
        message_bytes_max=min(message_bytes_max, config.network.request_bytes_max),
        segment_bytes=values.integer("internal.segment.bytes", segment_bytes),
        segment_ms=values.integer("segment.ms", log.roll_ms),
        segment_jitter_ms=values.integer("segment.jitter.ms", log.roll_jitter_ms),
        retention_ms=values.integer("retention.ms", log.retention_ms),
        retention_bytes=values.integer("retention.bytes", log.retention_bytes),
        is_deleted="delete" in policies,
        is_compacted="compact" in policies,
        min_insync_replicas=values.integer("min.insync.replicas", log.replicas_in_sync_min),
        compression_type=compression_type,
        compression_level=_level(values, compression_type),
        is_log_append_time=timestamps == "LogAppendTime",
        timestamp_before_max_ms=values.integer(
            "message.timestamp.before.max.ms", log.timestamp_before_max_ms
        ),
        timestamp_after_max_ms=values.integer(
            "message.timestamp.after.max.ms", log.timestamp_after_max_ms
        ),
        is_strict=values.flag("corelane.strict.validation", default=log.strict_validation),
        is_write_caching=values.flag("write.caching", default=False),
    )


def _level(values: "_Values", codec: str) -> int:
    """Return the level a codec is used with; Kafka has a setting for three of them."""
    row = BY_NAME.get(f"compression.{codec}.level")
    return 0 if row is None else values.integer(row.name, int(row.default))


class _Values:
    """A topic's own configurations as typed values.

    What cannot be read (another version may have stored it) counts as not set: the log was
    checked when it was written, and a fold must not fail on it.
    """

    __slots__ = ("_overrides",)

    def __init__(self, overrides: Mapping[str, str]) -> None:
        self._overrides = overrides

    def _get(self, name: str) -> Parsed | None:
        text = self._overrides.get(name)
        return None if text is None else _parse(BY_NAME[name], text)

    def integer(self, name: str, default: int) -> int:
        value = self._get(name)
        return value if isinstance(value, int) else default

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._get(name)
        return value if isinstance(value, bool) else default

    def text(self, name: str, default: str) -> str:
        value = self._get(name)
        return value if isinstance(value, str) else default

    def items(self, name: str, default: str) -> Sequence[str]:
        value = self._get(name)
        return value if isinstance(value, tuple) else _split(default)


def _parse(config: TopicConfig, text: str) -> Parsed | None:
    """Return the typed value, or None when *text* is none; as Kafka's ConfigDef reads it."""
    text = text.strip()
    if config.kind is ConfigKind.BOOLEAN:
        lower = text.lower()
        allowed = config.choices or ("true", "false")
        return lower == "true" if lower in allowed else None
    if config.kind is ConfigKind.STRING:
        return text if not config.choices or text in config.choices else None
    if config.kind is ConfigKind.LIST:
        items = _split(text)
        known = not config.choices or all(item in config.choices for item in items)
        if config.item_pattern:
            known = all(re.fullmatch(config.item_pattern, item) for item in items)
        return items if known and len(set(items)) == len(items) else None
    if config.kind is ConfigKind.DOUBLE:
        return _bounded(config, _double(text))
    return _bounded(config, _integer(config.kind, text))


def _split(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",")) if text else ()


def _integer(kind: ConfigKind, text: str) -> int | None:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX):
        return None
    least, most = _INTEGER_RANGES[kind]
    value = int(text)
    return value if least <= value <= most else None


def _double(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bounded(config: TopicConfig, value: N | None) -> N | None:
    if value is None:
        return None
    if config.minimum is not None and not value >= config.minimum:
        return None
    if config.maximum is not None and not value <= config.maximum:
        return None
    return None if value in config.excluded else value


def allowed(config: TopicConfig) -> str:
    """Say in words which values *config* takes."""
    if config.kind is ConfigKind.BOOLEAN:
        return " or ".join(config.choices or ("true", "false"))
    if config.kind is ConfigKind.LIST:
        words = config.item_words or ", ".join(config.choices)
        items = f"of {words} " if words else ""
        return f"a list {items}with commas between, nothing twice"
    if config.kind is ConfigKind.STRING:
        return "one of " + ", ".join(config.choices)
    number = "a number" if config.kind is ConfigKind.DOUBLE else "a whole number"
    _, most = _INTEGER_RANGES.get(config.kind, (0, 0))
    most = most if config.maximum is None else config.maximum
    but = f", but not {', '.join(map(str, config.excluded))}" if config.excluded else ""
    return f"{number} from {config.minimum} to {most}{but}"
