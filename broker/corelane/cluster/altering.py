"""Altering the configurations of a topic or broker: from operations to the command, or the error.

Kafka's rules (ConfigurationControlManager): the operations of one resource stand or fall together,
a name comes once, lists take items away or get more, and of a broker only what acts at run time
can be set.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final

from corelane.cluster.changes import Topic
from corelane.cluster.commands import AlterBrokerConfig, AlterTopicConfig
from corelane.cluster.creation import Refusal, plan_configs
from corelane.cluster.metadata import Cluster
from corelane.cluster.topic_config_keys import BY_NAME, ConfigKind
from corelane.model.config import Config, dynamic_fault, is_dynamic, values
from corelane.model.config_keys import KEYS_BY_NAME
from corelane.model.errors import ErrorCode
from corelane.model.record import record


class Operation(IntEnum):
    """Kafka's numbers (AlterConfigOp)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


@record
class Change:
    """One operation as a client asks for it."""

    name: str
    operation: int
    value: str | None


_LISTS: Final = {config.name for config in BY_NAME.values() if config.kind is ConfigKind.LIST}
_BROKER_LISTS: Final = {"log.cleanup.policy"}


def plan_topic_changes(
    topic: Topic, defaults: Mapping[str, str], changes: Sequence[Change]
) -> AlterTopicConfig | Refusal:
    """Return the command for IncrementalAlterConfigs of a topic.

    *defaults* are the values that act where the topic has none of its own.
    """
    current = {**defaults, **topic.configs}
    values = _resolved(changes, current, _LISTS)
    return values if isinstance(values, Refusal) else plan_configs(topic, values, is_whole=False)


def plan_broker_changes(
    cluster: Cluster, config: Config, node: int, changes: Sequence[Change], *, is_whole: bool
) -> AlterBrokerConfig | Refusal:
    """Return the command that changes the settings of a node's brokers, or of all (node 0).

    *config* is the broker's as it was started.
    """
    for change in changes:
        refusal = _broker_refusal(change.name, change.operation)
        if refusal is not None:
            return refusal
    present = cluster.broker_configs.get(node, {})
    of_file = values(config)
    current = {name: str(of_file[name]) for name in _BROKER_LISTS} | present
    resolved = _resolved(changes, current, _BROKER_LISTS)
    if isinstance(resolved, Refusal):
        return resolved
    wanted = {name: value.strip() for name, value in resolved if value is not None}
    removed = {name for name, value in resolved if value is None}
    if is_whole:
        removed |= present.keys() - wanted.keys()
    # What another version stored is neither judged nor in the way of what this one knows.
    result = {
        name: value
        for name, value in (present | wanted).items()
        if name not in removed and name in KEYS_BY_NAME
    }
    fault = dynamic_fault(config, result)
    if fault is not None:
        # Kafka's code for it, where a topic's value has INVALID_CONFIG (KAFKA-13609).
        sentence = f"Invalid value for {fault.key}: {fault.sentence}"
        return Refusal(ErrorCode.INVALID_REQUEST, sentence)
    return AlterBrokerConfig(node, wanted, tuple(sorted(removed & present.keys())))


def _broker_refusal(name: str, operation: int) -> Refusal | None:
    if name not in KEYS_BY_NAME:
        if operation == Operation.DELETE:
            return None  # another version may have stored it
        return Refusal(ErrorCode.INVALID_CONFIG, f"Unknown broker config name: {name}")
    if not is_dynamic(name):
        return Refusal(
            ErrorCode.INVALID_REQUEST,
            f"Cannot update {name} dynamically: it acts at the next start, from the"
            " configuration file.",
        )
    return None


def _resolved(
    changes: Sequence[Change], current: Mapping[str, str], lists: set[str]
) -> list[tuple[str, str | None]] | Refusal:
    """Return what each name is to be, None for its default."""
    values: dict[str, str | None] = {}
    for change in changes:
        name, value = change.name, change.value
        if name in values:
            return Refusal(ErrorCode.INVALID_REQUEST, f"The request names {name} more than once.")
        if change.operation == Operation.DELETE:
            values[name] = None
        elif value is None:
            return Refusal(ErrorCode.INVALID_REQUEST, f"Null value not supported for {name}.")
        elif change.operation == Operation.SET:
            values[name] = value
        elif change.operation not in {Operation.APPEND, Operation.SUBTRACT}:
            said = f"There is no operation {change.operation} on a configuration."
            return Refusal(ErrorCode.INVALID_REQUEST, said)
        elif name not in lists:
            said = f"Can't append or subtract: {name} is not a list."
            return Refusal(ErrorCode.INVALID_CONFIG, said)
        else:
            values[name] = _edited(current.get(name, ""), value, change.operation)
    return [*values.items()]


def _edited(present: str, value: str, operation: int) -> str:
    items = [item.strip() for item in present.split(",") if item.strip()]
    named = [item.strip() for item in value.split(",") if item.strip()]
    if operation == Operation.SUBTRACT:
        return ",".join(item for item in items if item not in named)
    return ",".join([*items, *(item for item in named if item not in items)])
