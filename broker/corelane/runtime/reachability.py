"""Whether clients could connect to what they are told: tried from here when the node serves.

The most frequent trap of a first start: bootstrap works, the answer names an address that does not,
and the client fails with a time-out that names neither. What works from here may not work from
there, and the other way round behind NAT, so this only ever warns.
"""

import errno
import logging
import socket
import struct
from collections.abc import Sequence
from typing import Final

import trio

from corelane.model.config import Config
from corelane.model.config_keys import KEYS_BY_NAME
from corelane.model.config_listeners import WILDCARDS
from corelane.model.record import record
from corelane.runtime.messages import ListenerPorts
from corelane.shard.config import ListenerBrokers

ANSWER_S_MAX: Final = 3.0
ADDRESSES_AT_ONCE_MAX: Final = 16
ANSWER_BYTES_MAX: Final = 1 << 20

_METADATA: Final = 3
_VERSION: Final = 4
_CORRELATION: Final = 1
_REASONS: Final = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ENETUNREACH: "there is no route to it",
    errno.EHOSTUNREACH: "there is no route to it",
    errno.ETIMEDOUT: f"it does not answer within {ANSWER_S_MAX:.0f} s",
}

_log = logging.getLogger(__name__)


@record
class Told:
    """An address that clients of a listener are told, and which broker it is to be."""

    broker: int
    host: str
    port: int


def wildcard_warning(config: Config) -> str | None:
    """Return what to say where a node listens to everybody and tells them to come to itself."""
    network = config.network
    key = KEYS_BY_NAME["corelane.advertised.host"]
    if network.listeners or network.advertised_listeners:
        return None  # Written out, and refused where it could not be meant.
    if network.bind_host not in WILDCARDS or network.advertised_host != key.default:
        return None
    return (
        f"listening on every address, but clients are told to connect to {key.default}: those on"
        " other machines will fail after their first answer. Set corelane.advertised.host to a"
        " name or address of this machine that they can reach"
    )


def addresses_to_try(
    config: Config, bound: Sequence[ListenerPorts], told: Sequence[ListenerBrokers]
) -> dict[str, list[Told]]:
    """Return by listener what clients are told, where that is not just where we listen."""
    found: dict[str, list[Told]] = {}
    for listener, ports, brokers in zip(config.listeners, bound, told, strict=True):
        own = {(listener.bind_host, port) for port in (ports.bootstrap, *ports.cores)}
        rows = [
            Told(broker.broker_id, broker.host, broker.port)
            for broker in brokers.brokers
            if (broker.host, broker.port) not in own
        ]
        if rows:
            found[listener.name] = rows
    return found


async def look(by_listener: dict[str, list[Told]], cluster_id: str) -> list[str]:
    """Try every address and return a sentence for each listener whose clients may fail."""
    warnings = []
    slots = trio.CapacityLimiter(ADDRESSES_AT_ONCE_MAX)
    for name, rows in by_listener.items():
        found: dict[int, str] = {}

        async def try_one(row: Told, found: dict[int, str] = found) -> None:
            async with slots:
                fault = await _fault(row, cluster_id)
            if fault is not None:
                found[row.broker] = fault

        async with trio.open_nursery() as nursery:
            for row in rows:
                nursery.start_soon(try_one, row)
        wrong = [row for row in rows if row.broker in found]
        if wrong:
            warnings.append(_sentence(name, wrong, found[wrong[0].broker]))
    return warnings


async def warn(by_listener: dict[str, list[Told]], cluster_id: str) -> None:
    """Log what `look` finds."""
    for sentence in await look(by_listener, cluster_id):
        _log.warning("%s", sentence)


def _sentence(name: str, wrong: list[Told], fault: str) -> str:
    first = wrong[0]
    more = f" (and {len(wrong) - 1} more brokers so)" if len(wrong) > 1 else ""
    return (
        f"clients of listener {name} are told that broker {first.broker} is at"
        f" {first.host}:{first.port}{more}, but from here {fault}. Unless it works from where they"
        " are, they will connect once and then fail: correct advertised.listeners or"
        " corelane.advertised.host, or let the router pass the port"
    )


async def _fault(row: Told, cluster_id: str) -> str | None:
    """Return what is wrong with an address; None: one of our brokers answers there."""
    try:
        with trio.move_on_after(ANSWER_S_MAX):
            found = await _cluster_id_at(row.host, row.port)
            return None if found == cluster_id else f"another cluster ({found}) answers there"
    except socket.gaierror:
        return "the name is not known"
    except OSError as error:
        cause = _first_cause(error)
        return _REASONS.get(cause.errno or 0, (cause.strerror or str(cause)).lower())
    except (trio.BrokenResourceError, ValueError, struct.error):
        return "what answers is no Kafka broker"
    return _REASONS[errno.ETIMEDOUT]


def _first_cause(error: OSError) -> OSError:
    """Return what the first address of a name said (trio tries several and collects)."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


async def _cluster_id_at(host: str, port: int) -> str | None:
    """Ask whoever listens there for Metadata of no topic; raises OSError, ValueError and others."""
    client = b"corelane-reachability"
    head = struct.pack(">hhih", _METADATA, _VERSION, _CORRELATION, len(client)) + client
    frame = head + struct.pack(">ib", 0, 0)  # no topics, and none made
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(struct.pack(">i", len(frame)) + frame)
        (size_bytes,) = struct.unpack(">i", await _receive(stream, 4))
        if not 8 <= size_bytes <= ANSWER_BYTES_MAX:
            raise ValueError(size_bytes)
        return _cluster_id_in(await _receive(stream, size_bytes))


async def _receive(stream: trio.SocketStream, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        piece = await stream.receive_some(size_bytes - len(data))
        if not piece:
            raise ValueError(len(data))
        data += piece
    return data


def _cluster_id_in(answer: bytes) -> str | None:
    """Return the cluster's id in a Metadata answer of version 4; raises ValueError, struct.error.

    By hand, since the supervisor has no use for the rest of the protocol.
    """
    correlation, _throttle_ms, broker_count = struct.unpack_from(">iii", answer)
    if correlation != _CORRELATION:
        raise ValueError(correlation)
    at = 12
    for _ in range(broker_count):
        at += 4  # the broker's id
        at += 2 + struct.unpack_from(">h", answer, at)[0] + 4  # host and port
        at += 2 + max(0, struct.unpack_from(">h", answer, at)[0])  # rack
    (length,) = struct.unpack_from(">h", answer, at)
    if length < 0:
        return None
    found = answer[at + 2 : at + 2 + length]
    if len(found) < length:
        raise ValueError(length)
    return found.decode()
