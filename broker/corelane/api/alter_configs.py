"""AlterConfigs (key 33), versions 0 to 2, and IncrementalAlterConfigs (key 44), versions 0 and 1.

The older of the two replaces everything a resource has; the newer sets, deletes, appends and
subtracts. Both are flexible from their last version on. Topics take all of their configurations;
brokers those settings that act at run time: for one node under any of its broker ids, for all under
the empty name. The operations of a resource stand or fall together, and act when it is answered.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from corelane.api.proposing import NOT_READY, propose
from corelane.cluster.altering import (
    Change,
    Operation,
    plan_broker_changes,
    plan_topic_changes,
)
from corelane.cluster.changes import Topic
from corelane.cluster.commands import Command
from corelane.cluster.creation import Refusal, plan_configs, topic_name_fault
from corelane.cluster.describe import topic_rows
from corelane.cluster.metadata import ALL_NODES
from corelane.model.errors import ErrorCode
from corelane.model.ids import BROKERS_PER_NODE
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

TOPIC = 2
BROKER = 4


class AlterWait:
    """A request whose changes are being committed."""

    __slots__ = ("call", "response", "rows_open")

    def __init__(self, call: Call, response: Message) -> None:
        self.call = call
        self.response = response
        self.rows_open = 1

    def settle(self) -> None:
        """Count one resource as decided, and answer after the last."""
        self.rows_open -= 1
        if self.rows_open == 0 and not self.call.slot.connection.is_closed:
            self.call.answer(self.response)


def handle_whole(shard: Shard, call: Call) -> None:
    """Replace the configurations of every resource named (AlterConfigs)."""
    _handle(shard, call, "AlterConfigs", _whole)


def handle_incremental(shard: Shard, call: Call) -> None:
    """Change the configurations of every resource named (IncrementalAlterConfigs)."""
    _handle(shard, call, "IncrementalAlterConfigs", _incremental)


Plan = Callable[[Shard, Message], "Command | Refusal"]


def _handle(shard: Shard, call: Call, api: str, plan: Plan) -> None:
    request = call.decode()
    wait = AlterWait(call, message_type(f"{api}Response")())
    row_type = message_type(f"{api}Response.AlterConfigsResourceResponse")
    copies = Counter((row.resource_type, row.resource_name) for row in request.resources)
    for wanted in request.resources:
        row = row_type(resource_type=wanted.resource_type, resource_name=wanted.resource_name)
        wait.response.responses.append(row)
        if copies[wanted.resource_type, wanted.resource_name] > 1:
            said = "Each resource must appear at most once."
            _told(row, ErrorCode.INVALID_REQUEST, said)
            continue
        if not shard.groups.takes_commands:
            # Nor is anything judged by a cluster that is not known yet.
            _told(row, ErrorCode.NOT_CONTROLLER, NOT_READY)
            continue
        _alter(shard, wait, row, plan(shard, wanted), validate_only=request.validate_only)
    wait.settle()


def _alter(
    shard: Shard, wait: AlterWait, row: Message, plan: Command | Refusal, *, validate_only: bool
) -> None:
    if isinstance(plan, Refusal):
        _told(row, plan.error, plan.sentence)
        return
    if validate_only:
        return

    def told(error: int, sentence: str) -> None:
        _told(row, error, sentence)
        wait.settle()

    wait.rows_open += 1
    propose(shard, plan, told)


def _whole(shard: Shard, wanted: Message) -> Command | Refusal:
    pairs = [(config.name, config.value) for config in wanted.configs]
    if len(dict(pairs)) != len(pairs):
        said = "The request names a configuration more than once."
        return Refusal(ErrorCode.INVALID_REQUEST, said)
    empty = [name for name, value in pairs if value is None]
    if empty:
        said = f"Null value not supported for {', '.join(empty)}."
        return Refusal(ErrorCode.INVALID_REQUEST, said)
    if wanted.resource_type == TOPIC:
        topic = _topic(shard, wanted.resource_name)
        return topic if isinstance(topic, Refusal) else plan_configs(topic, pairs, is_whole=True)
    changes = [Change(name, Operation.SET, value) for name, value in pairs]
    return _broker(shard, wanted, changes, is_whole=True)


def _incremental(shard: Shard, wanted: Message) -> Command | Refusal:
    changes = [Change(row.name, row.config_operation, row.value) for row in wanted.configs]
    if wanted.resource_type == TOPIC:
        topic = _topic(shard, wanted.resource_name)
        if isinstance(topic, Refusal):
            return topic
        rows = topic_rows({}, shard.config.config, {}, None)
        defaults = {row.name: row.value for row in rows}
        return plan_topic_changes(topic, defaults, changes)
    return _broker(shard, wanted, changes, is_whole=False)


def _broker(
    shard: Shard, wanted: Message, changes: Sequence[Change], *, is_whole: bool
) -> Command | Refusal:
    if wanted.resource_type != BROKER:
        said = f"Resources of type {wanted.resource_type} have no configurations to alter here."
        return Refusal(ErrorCode.INVALID_REQUEST, said)
    node = node_of(wanted.resource_name)
    if node is None or (node != ALL_NODES and node not in shard.groups.cluster.nodes):
        return Refusal(ErrorCode.INVALID_REQUEST, f"There is no broker {wanted.resource_name!r}.")
    static = shard.static_config
    return plan_broker_changes(shard.groups.cluster, static, node, changes, is_whole=is_whole)


def node_of(broker: str) -> int | None:
    """Return the node of a broker id, `ALL_NODES` for an empty name; None: it is no number."""
    if not broker:
        return ALL_NODES
    return int(broker) // BROKERS_PER_NODE if broker.isascii() and broker.isdigit() else None


def _topic(shard: Shard, name: str) -> Topic | Refusal:
    topic = shard.groups.cluster.topics.get(name)
    if topic is not None:
        return topic
    if not name:
        said = "Default topic resources are not allowed."
        return Refusal(ErrorCode.INVALID_REQUEST, said)
    fault = topic_name_fault(name)
    if fault is not None:
        return Refusal(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {fault}")
    return Refusal(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")


def _told(row: Message, error: int, sentence: str) -> None:
    row.error_code = error
    row.error_message = sentence or None
