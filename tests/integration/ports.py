"""Ports that are free now, for brokers that must come back on the same ones."""

import os
import socket


def free_ports(count: int) -> list[int]:
    """Return *count* different ports on which nobody listens, below the ephemeral range.

    A port of the ephemeral range could be taken by some client's outgoing connection while the
    broker is down. Each test process looks from another place, so that parallel runs do not meet.
    """
    found: list[int] = []
    if not count:
        return found
    for port in range(20_000 + (os.getpid() * 97) % 10_000, 32_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
