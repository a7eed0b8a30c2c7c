"""Asks a broker what it serves, with nothing but a socket: no client's opinion in between."""

import socket
import struct

from corelane.model.record import record

API_VERSIONS_KEY = 18
ANSWER_BYTES_MAX = 1 << 20

API_NAMES = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    12: "Heartbeat",
    13: "LeaveGroup",
    14: "SyncGroup",
    15: "DescribeGroups",
    16: "ListGroups",
    17: "SaslHandshake",
    18: "ApiVersions",
    19: "CreateTopics",
    20: "DeleteTopics",
    21: "DeleteRecords",
    22: "InitProducerId",
    23: "OffsetForLeaderEpoch",
    32: "DescribeConfigs",
    33: "AlterConfigs",
    35: "DescribeLogDirs",
    37: "CreatePartitions",
    43: "ElectLeaders",
    44: "IncrementalAlterConfigs",
    46: "ListPartitionReassignments",
    60: "DescribeCluster",
    68: "ConsumerGroupHeartbeat",
    71: "GetTelemetrySubscriptions",
    75: "DescribeTopicPartitions",
}


@record
class Address:
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address that *text* (host:port) names."""
    host, _, port = text.rpartition(":")
    assert host, f"{text!r} is not host:port"
    return Address(host, int(port))


def api_name(key: int) -> str:
    """Return Kafka's name of an API, or its number when nobody has asked for it before."""
    return API_NAMES.get(key, f"API {key}")


def api_versions(address: Address, timeout_s: float = 5.0) -> dict[int, tuple[int, int]]:
    """Return key -> (lowest, highest version) as ApiVersions v0 has it.

    Raises OSError while nobody answers there.
    """
    client_id = b"corelane-probe"
    head = struct.pack(">hhih", API_VERSIONS_KEY, 0, 1, len(client_id)) + client_id
    with socket.create_connection((address.host, address.port), timeout_s) as connection:
        connection.sendall(struct.pack(">i", len(head)) + head)
        size = struct.unpack(">i", read_exactly(connection, 4))[0]
        if not 0 < size <= ANSWER_BYTES_MAX:
            message = f"an ApiVersions answer of {size} bytes"
            raise ConnectionError(message)
        answer = read_exactly(connection, size)
    correlation, error, count = struct.unpack_from(">ihi", answer)
    assert correlation == 1
    assert error == 0, f"ApiVersions was answered with error {error}"
    rows = struct.iter_unpack(">hhh", answer[10 : 10 + 6 * count])
    return {key: (lowest, highest) for key, lowest, highest in rows}


def read_exactly(connection: socket.socket, size_bytes: int) -> bytes:
    """Return the next *size_bytes*; raises ConnectionError when the other side ends before."""
    data = bytearray()
    while len(data) < size_bytes:
        piece = connection.recv(size_bytes - len(data))
        if not piece:
            message = f"closed after {len(data)} of {size_bytes} bytes"
            raise ConnectionError(message)
        data += piece
    return bytes(data)
