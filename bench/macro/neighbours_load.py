"""The neighbours of `neighbours.py`, each a process of its own that runs until it is killed:

`python -m bench.macro.neighbours_load NAME HOST:PORT`
"""

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Final

from bench.macro import raw
from tests.conformance.probe import Address, parse_address, read_exactly

WIDE_TOPICS: Final = 100
WIDE_PARTITIONS: Final = 100
FETCH_BYTES: Final = 50 << 20
CONNECTIONS: Final = 50
QUEUED_REQUESTS: Final = 100
RECEIVE_BYTES: Final = 1 << 18
METADATA, METADATA_VERSION = 3, 8
PARTITIONS_PER_FETCH: Final = 1000
NICE: Final = 15
"""The measured client must not wait for this one's CPU: the broker's is what is asked about."""


def main() -> None:
    """Be that neighbour."""
    address = parse_address(sys.argv[2])
    os.nice(NICE)
    NEIGHBOURS[sys.argv[1]](address)


def huge_fetches(address: Address) -> None:
    """Fetch 50 MB on 50 connections, again and again."""
    _swallow(address, raw.fetch(raw.Partition("huge", 0), 0, FETCH_BYTES), CONNECTIONS)


def never_reads(address: Address) -> None:
    """Ask for 100 MB on one connection and read nothing of it."""
    partition = raw.Partition("huge", 0)
    connection = raw.Connection(raw.leader(address, partition))
    for _ in range(QUEUED_REQUESTS):
        connection.socket.sendall(raw.fetch(partition, 0, 1 << 20))
    time.sleep(3600)


def wide_metadata(address: Address) -> None:
    """Ask for the metadata of 10,000 partitions, again and again."""
    body = struct.pack(">i???", -1, False, False, False)
    _swallow(address, raw.request(METADATA, METADATA_VERSION, body), 1)


def wide_fetches(address: Address) -> None:
    """Fetch from 1,000 partitions without data, again and again."""
    body = struct.pack(">iiiib", -1, 0, 0, 1 << 20, 0)
    topics = PARTITIONS_PER_FETCH // WIDE_PARTITIONS
    body += struct.pack(">i", topics)
    for number in range(topics):
        body += raw.text(f"wide-{number}") + struct.pack(">i", WIDE_PARTITIONS)
        for partition in range(WIDE_PARTITIONS):
            body += struct.pack(">iqi", partition, 0, 1 << 20)
    _swallow(address, raw.request(raw.FETCH, 4, body), 1)


def _swallow(address: Address, frame: bytes, count: int) -> None:
    """Keep one request under way on each of *count* connections; look at no answer."""
    partition = raw.Partition("huge", 0)
    leader = raw.leader(address, partition)
    sockets: dict[int, socket.socket] = {}
    left: dict[int, int] = {}
    poll = select.poll()
    for _ in range(count):
        made = raw.Connection(leader).socket
        sockets[made.fileno()] = made
        left[made.fileno()] = 0
        made.sendall(frame)
        poll.register(made, select.POLLIN)
    buffer = bytearray(RECEIVE_BYTES)
    while True:
        for number, _events in poll.poll():
            each = sockets[number]
            if not left[number]:
                left[number] = struct.unpack(">i", read_exactly(each, 4))[0]
            left[number] -= each.recv_into(buffer, min(left[number], RECEIVE_BYTES))
            if not left[number]:
                each.sendall(frame)


NEIGHBOURS: Final[dict[str, Callable[[Address], None]]] = {
    "50 × 50 MB fetches": huge_fetches,
    "100 MB nobody reads": never_reads,
    "metadata of 10,000 partitions": wide_metadata,
    "fetches of 1,000 partitions": wide_fetches,
}

if __name__ == "__main__":
    main()
