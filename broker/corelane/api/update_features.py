"""UpdateFeatures (key 57), versions 0 to 2: raise or lower the levels of features (KIP-584).

v1  upgrade types and validate-only instead of "allow downgrade".  v2  no rows (KIP-1022). One
update that does not fit refuses all, in every version, with the sentences of Kafka 4.3.1, which
`kafka-features` shows.
"""

from collections.abc import Sequence
from typing import Final

from corelane.api.api_versions import SUPPORTED
from corelane.api.proposing import propose
from corelane.cluster.commands import SetFeatures
from corelane.cluster.features import known_level
from corelane.model.errors import ErrorCode
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

UPGRADE: Final = 1
SAFE_DOWNGRADE: Final = 2
UNSAFE_DOWNGRADE: Final = 3
ALL_FAILED: Final = "The update failed for all features since the following feature had an error"
FEATURE_CHARACTERS_SHOWN: Final = 100
_TYPES_FROM = 1
_NO_ROWS_FROM = 2

Response = message_type("UpdateFeaturesResponse")
Row = message_type("UpdateFeaturesResponse.UpdatableFeatureResult")


def handle(shard: Shard, call: Call) -> None:
    """Judge all updates, have them decided together, and say what became of them."""
    request = call.decode()
    names = [row.feature for row in request.feature_updates]

    def told(error: int, sentence: str) -> None:
        call.answer(_response(call.version, names, error, sentence))

    sentence = _repeated(names)
    if sentence is not None:
        told(ErrorCode.INVALID_REQUEST, sentence)
        return
    for row in request.feature_updates:
        sentence = _fault(shard, row, _kind(call.version, row))
        if sentence is not None:
            told(
                ErrorCode.INVALID_UPDATE_VERSION,
                f"{ALL_FAILED}: Invalid update version {row.max_version_level} for feature"
                f" {row.feature[:FEATURE_CHARACTERS_SHOWN]}. {sentence}",
            )
            return
    if not names or (call.version >= _TYPES_FROM and request.validate_only):
        told(0, "")
        return
    levels = {row.feature: row.max_version_level for row in request.feature_updates}
    propose(shard, SetFeatures(levels), told)


def _response(version: int, names: Sequence[str], error: int, sentence: str) -> Message:
    message = sentence if error else None
    rows = () if error or version >= _NO_ROWS_FROM else names
    return Response(
        error_code=error, error_message=message, results=[Row(feature=name) for name in rows]
    )


def _repeated(names: list[str]) -> str | None:
    again = next((name for name in names if names.count(name) > 1), None)
    return again and f"Feature {again[:FEATURE_CHARACTERS_SHOWN]} is to be updated twice."


def _kind(version: int, row: Message) -> int:
    if version < _TYPES_FROM:
        return SAFE_DOWNGRADE if row.allow_downgrade else UPGRADE
    kind: int = row.upgrade_type
    return kind


def _fault(shard: Shard, row: Message, kind: int) -> str | None:
    """Say why an update is refused (Kafka's FeatureControlManager)."""
    name, wanted = row.feature, row.max_version_level
    if kind not in {UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE}:
        return "The controller does not support the given upgrade type."
    if name not in SUPPORTED:
        return f"Local controller {shard.config.node} does not support this feature."
    if wanted < 0:
        return "A feature version cannot be less than 0."
    if wanted > SUPPORTED[name]:
        return f"Local controller {shard.config.node} only supports versions 0-{SUPPORTED[name]}"
    cluster = shard.groups.cluster
    nodes = cluster.nodes.values()
    for node in sorted(nodes, key=lambda each: each.node):
        known = known_level(name, [node])
        if wanted > known:
            return f"Broker {node.node} only supports versions 0-{known}"
    level = cluster.features.level(name, nodes)
    if wanted < level and kind == UPGRADE:
        return (
            "Can't downgrade the version of this feature without setting the upgrade type to"
            " either safe or unsafe downgrade."
        )
    if wanted > level and kind != UPGRADE:
        return "Can't downgrade to a newer version."
    return None
