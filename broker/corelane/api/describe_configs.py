"""DescribeConfigs (key 32), versions 1 to 4: every configuration with its source and synonyms.

v1  synonyms (KIP-226).  v3  types and documentation.  v4  flexible. Tools compare the whole list,
so all of Kafka's topic configurations are there, also those that do not act (quirk 13).
"""

from corelane.api.early import EarlyCall
from corelane.cluster.describe import (
    ConfigRow,
    ConfigSource,
    Dynamic,
    broker_rows,
    default_rows,
    topic_rows,
)
from corelane.cluster.metadata import ALL_NODES
from corelane.model.errors import ErrorCode
from corelane.model.ids import BrokerId
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

TOPIC = 2
BROKER = 4
Response = message_type("DescribeConfigsResponse")
Result = message_type("DescribeConfigsResponse.DescribeConfigsResult")
Row = message_type("DescribeConfigsResponse.DescribeConfigsResourceResult")
SynonymRow = message_type("DescribeConfigsResponse.DescribeConfigsSynonym")


def handle(shard: Shard, call: Call) -> None:
    """Describe each resource."""
    request = call.decode()
    if shard.groups.is_established:
        _answer(shard, call, request, is_known=True)
        return

    def known(kept: Call, is_known: bool) -> None:
        _answer(shard, kept, request, is_known=is_known)

    EarlyCall(shard, call, lambda: shard.groups.is_established, known)


def _answer(shard: Shard, call: Call, request: Message, *, is_known: bool) -> None:
    describe = _describe if is_known else _unknown_yet
    call.answer(Response(results=[describe(shard, request, row) for row in request.resources]))


def _unknown_yet(shard: Shard, request: Message, wanted: Message) -> Message:
    del shard, request
    return Result(
        resource_type=wanted.resource_type,
        resource_name=wanted.resource_name,
        error_code=ErrorCode.REQUEST_TIMED_OUT,
        error_message="this broker is still reading the controller's log: retry",
    )


def _describe(shard: Shard, request: Message, wanted: Message) -> Message:
    result = Result(resource_type=wanted.resource_type, resource_name=wanted.resource_name)
    keys = wanted.configuration_keys
    names = None if keys is None else set(keys)
    config = shard.static_config
    if wanted.resource_type == TOPIC:
        topic = shard.groups.cluster.topics.get(wanted.resource_name)
        if topic is None:
            result.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            result.error_message = f"there is no topic {wanted.resource_name}"
            return result
        rows = topic_rows(topic.configs, config, _dynamic(shard), names)
    elif wanted.resource_type == BROKER:
        broker = _broker(shard, wanted.resource_name)
        if broker is None:
            result.error_code = ErrorCode.INVALID_REQUEST
            result.error_message = f"there is no broker {wanted.resource_name!r} here"
            return result
        if wanted.resource_name:
            rows = broker_rows(config, _dynamic(shard), broker, names)
        else:
            rows = default_rows(shard.groups.cluster.broker_configs.get(ALL_NODES, {}), names)
    else:
        result.error_code = ErrorCode.INVALID_REQUEST
        result.error_message = f"resources of type {wanted.resource_type} have no configuration"
        return result
    result.configs = [_row(request, row) for row in rows]
    return result


def _dynamic(shard: Shard) -> Dynamic:
    """Return the settings changed at run time that act on this node."""
    configs = shard.groups.cluster.broker_configs
    return {
        ConfigSource.DYNAMIC_BROKER_CONFIG: configs.get(shard.config.node, {}),
        ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG: configs.get(ALL_NODES, {}),
    }


def _broker(shard: Shard, name: str) -> BrokerId | None:
    own = shard.config.broker_ids[shard.config.self_broker]
    if not name:
        return own
    known = {str(broker): broker for broker in shard.config.broker_ids}
    return known.get(name)


def _row(request: Message, row: ConfigRow) -> Message:
    synonyms = row.synonyms if request.include_synonyms else []
    return Row(
        name=row.name,
        value=row.value,
        read_only=row.is_read_only,
        config_source=row.source,
        is_sensitive=row.is_sensitive,
        synonyms=[SynonymRow(name=s.name, value=s.value, source=s.source) for s in synonyms],
        config_type=row.kind,
        documentation=row.doc if request.include_documentation else None,
    )
