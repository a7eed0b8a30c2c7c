"""ApiVersions (key 18), versions 0 to 4: which APIs and versions this broker serves.

v3  flexible, client software names (KIP-511), features (KIP-584).  v4  as v3, fixes a bug of
Kafka's. The answer's header is v0 for ever. A version that is not known is answered with error 35
in the layout of v0, listing just this API: clients retry with what it says (quirk 1).
"""

import re
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.model.features import GROUP, GROUP_VERSION, TRANSACTION, TRANSACTION_VERSION
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, codec, message_type

KEY = 18
_SOFTWARE_FROM = 3
_SOFTWARE_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")

Response = message_type("ApiVersionsResponse")
Row = message_type("ApiVersionsResponse.ApiVersion")
Supported = message_type("ApiVersionsResponse.SupportedFeatureKey")
Finalized = message_type("ApiVersionsResponse.FinalizedFeatureKey")

SUPPORTED: Final = {GROUP: GROUP_VERSION, TRANSACTION: TRANSACTION_VERSION}
"""Every node of this version has them all."""


def finalized(shard: Shard) -> dict[str, int]:
    """Return what clients may use: what every node knows, or less if it was chosen (quirk 7)."""
    cluster = shard.groups.cluster
    levels = {name: cluster.features.level(name, cluster.nodes.values()) for name in SUPPORTED}
    return {name: min(level, SUPPORTED[name]) for name, level in levels.items() if level}


def rows(shard: Shard) -> list[Message]:
    """Return one row per API served, from the one table."""
    return [
        Row(
            api_key=api.key,
            min_version=api.version_min if api.advertised_min < 0 else api.advertised_min,
            max_version=api.version_max,
        )
        for api in shard.apis.values()
    ]


def handle(shard: Shard, call: Call) -> None:
    """Answer with the table."""
    request = call.decode()
    if call.version >= _SOFTWARE_FROM:
        names = (request.client_software_name, request.client_software_version)
        if not all(_SOFTWARE_NAME.fullmatch(name) for name in names):
            call.answer(Response(error_code=ErrorCode.INVALID_REQUEST))
            return
        call.slot.connection.client_software = " ".join(names)
    supported = [Supported(name=name, max_version=level) for name, level in SUPPORTED.items()]
    levels = finalized(shard)
    call.answer(
        Response(
            api_keys=rows(shard),
            supported_features=supported,
            # Clients believe the highest epoch, so it must rise when a level does.
            finalized_features_epoch=shard.groups.cluster.applied_index,
            finalized_features=[
                Finalized(name=name, min_version_level=level, max_version_level=level)
                for name, level in levels.items()
            ],
        )
    )


def unsupported(shard: Shard, call: Call) -> None:
    """Answer a version from the future without parsing it."""
    own = [row for row in rows(shard) if row.api_key == KEY]
    body = codec("ApiVersionsResponse", 0).encode(
        Response(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=own)
    )
    call.slot.error = ErrorCode.UNSUPPORTED_VERSION
    call.slot.fill(body, header_is_flexible=False)
