"""The part of Kafka's protocol this client speaks: which APIs, which versions, which errors."""

from enum import IntEnum
from typing import Any, Final

from corelane.model.errors import ErrorCode
from corelane.wire import frame
from corelane.wire.compiler import message_type
from corelane.wire.errors import DecodeError
from corelane_client.errors import KafkaError, ProtocolError

SOFTWARE_NAME: Final = "corelane-client"
SOFTWARE_VERSION: Final = "0.1.0"
UNSUPPORTED_VERSION: Final = int(ErrorCode.UNSUPPORTED_VERSION)


class Api(IntEnum):
    """The APIs this client uses, by their key."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    WRITE_TXN_MARKERS = 27
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CONFIGS = 32
    DESCRIBE_LOG_DIRS = 35
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    DESCRIBE_PRODUCERS = 61
    DESCRIBE_TRANSACTIONS = 65
    LIST_TRANSACTIONS = 66
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69

    @property
    def title(self) -> str:
        """The name as Kafka writes it."""
        return "".join(word.capitalize() for word in self.name.split("_"))


# Above these versions the meaning changes in ways this client does not follow: topic ids in
# Produce 13, OffsetCommit and OffsetFetch 10, transactions v2 in Produce 12, TxnOffsetCommit 5 and
# EndTxn 5, requests of brokers in AddPartitionsToTxn 4, tiered offsets in ListOffsets 8.
_KNOWN: Final = {
    Api.PRODUCE: (3, 11),
    Api.FETCH: (4, 17),
    Api.LIST_OFFSETS: (1, 7),
    Api.METADATA: (1, 12),
    Api.OFFSET_COMMIT: (2, 9),
    Api.OFFSET_FETCH: (2, 8),
    Api.FIND_COORDINATOR: (0, 4),
    Api.JOIN_GROUP: (2, 9),
    Api.HEARTBEAT: (0, 4),
    Api.LEAVE_GROUP: (0, 5),
    Api.SYNC_GROUP: (0, 5),
    Api.DESCRIBE_GROUPS: (0, 6),
    Api.LIST_GROUPS: (0, 5),
    Api.API_VERSIONS: (0, 4),
    Api.CREATE_TOPICS: (2, 7),
    Api.DELETE_TOPICS: (1, 6),
    Api.DELETE_RECORDS: (0, 2),
    Api.INIT_PRODUCER_ID: (0, 4),
    Api.OFFSET_FOR_LEADER_EPOCH: (2, 4),
    Api.ADD_PARTITIONS_TO_TXN: (0, 3),
    Api.ADD_OFFSETS_TO_TXN: (0, 4),
    Api.END_TXN: (0, 4),
    Api.WRITE_TXN_MARKERS: (1, 1),
    Api.TXN_OFFSET_COMMIT: (0, 4),
    Api.DESCRIBE_CONFIGS: (1, 4),
    Api.DESCRIBE_LOG_DIRS: (1, 4),
    Api.CREATE_PARTITIONS: (0, 3),
    Api.DELETE_GROUPS: (0, 2),
    Api.ELECT_LEADERS: (1, 2),
    Api.INCREMENTAL_ALTER_CONFIGS: (0, 1),
    Api.ALTER_PARTITION_REASSIGNMENTS: (0, 1),
    Api.LIST_PARTITION_REASSIGNMENTS: (0, 0),
    Api.DESCRIBE_PRODUCERS: (0, 0),
    Api.DESCRIBE_TRANSACTIONS: (0, 0),
    Api.LIST_TRANSACTIONS: (0, 1),
    Api.CONSUMER_GROUP_HEARTBEAT: (1, 1),
    Api.CONSUMER_GROUP_DESCRIBE: (0, 1),
}

assert set(_KNOWN) == set(Api)


def versions(api: Api) -> tuple[int, int]:
    """Return the lowest and highest version of *api* this client knows."""
    return _KNOWN[api]


def message(name: str, /, **fields: Any) -> Any:
    """Return a message, or with a dotted name a part of one; fields not named have defaults."""
    return message_type(name)(**fields)


def encode(api: Api, version: int, correlation_id: int, client_id: str, body: Any) -> bytes:
    """Return the request with its length and header."""
    return frame.encode_request(api, version, correlation_id, client_id, body)


def decode(api: Api, version: int, data: bytes) -> Any:
    """Return the message of an answer. Raises ProtocolError."""
    try:
        return frame.decode_response(api, version, data)[1]
    except DecodeError as error:
        raise ProtocolError(
            f"an answer to {api.title} version {version} is not understood: {error}"
        ) from error


def decode_api_versions(version: int, data: bytes) -> Any:
    """Return the answer to ApiVersions, which falls back to version 0 for a version too new."""
    if int.from_bytes(data[4:6], "big", signed=True) == UNSUPPORTED_VERSION:
        version = 0
    return decode(Api.API_VERSIONS, version, data)


def api_versions_request() -> Any:
    """Return the question every connection starts with."""
    return message(
        "ApiVersionsRequest",
        client_software_name=SOFTWARE_NAME,
        client_software_version=SOFTWARE_VERSION,
    )


def check(code: int, what: str, said: str | None = None) -> None:
    """Raise KafkaError unless *code* says that all is well."""
    if code:
        raise KafkaError(code, what, said)
