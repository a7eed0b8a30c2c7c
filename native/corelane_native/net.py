"""The data connections of a core: one nested epoll set, drained, cut and sent in C."""

# performance-critical: see STYLE.md

import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from corelane_native._core import ffi, lib
from corelane_native.arena import Arena

FRAME: Final[int] = lib.CL_NET_FRAME
ACCEPTED: Final[int] = lib.CL_NET_ACCEPTED
CLOSED: Final[int] = lib.CL_NET_CLOSED
WATCH: Final[int] = lib.CL_NET_WATCH
DRAINED: Final[int] = lib.CL_NET_DRAINED

NET_REASONS: Final[dict[int, str]] = {
    lib.CL_CLOSED_EOF: "The client closed the connection.",
    lib.CL_CLOSED_RESET: "The connection broke.",
    lib.CL_CLOSED_FRAME_TOO_LARGE: (
        "A request is larger than the limit: make the client's requests smaller or raise the limit."
    ),
    lib.CL_CLOSED_FRAME_NEGATIVE: (
        "The length of a request is negative: this is not a Kafka client."
    ),
    lib.CL_CLOSED_FRAME_SHORT: "A request is shorter than its header: this is not a Kafka client.",
    lib.CL_CLOSED_HTTP: "This is an HTTP client; Kafka is spoken here, HTTP on the admin port.",
    lib.CL_CLOSED_TLS: "The client speaks TLS; this listener is plain: check security.protocol.",
    lib.CL_CLOSED_STALLED: (
        "A large request came to a halt half-way while others waited for its memory."
    ),
    lib.CL_CLOSED_BACKLOG: "The client does not read its answers, and too many of them wait.",
    lib.CL_CLOSED_MEMORY: "There was no memory for this connection.",
}
"""Why a connection was closed, for a person."""

NET_REASONS_QUIET: Final = frozenset({lib.CL_CLOSED_EOF, lib.CL_CLOSED_RESET})
"""Ordinary ends, not worth a line in the log."""

EVENT: Final = struct.Struct("@qqQqhhi")
STATS: Final = struct.Struct("@18q")

STALL_S: Final = 5.0
"""How long a large request may come to a halt while others wait for its memory."""

_EVENTS_MAX: Final = 512
_IDLE_MAX: Final = 1024
_HEADS: Final = -1
_RANGE_WORDS: Final = 3
_RANGES_CACHED_MAX: Final = 256
_MS_PER_S: Final = 1000
_NOT_ASKED: Final = -1

Part = bytes | tuple[int, int, int]
"""Bytes, or (chunk, position, size) of arena memory."""

Event = tuple[Any, ...]
"""(FRAME, conn, address, size, api_key, api_version, correlation_id)
(ACCEPTED, conn, listener, peer)  (CLOSED, conn, reason)  (WATCH, token, count)  (DRAINED, conn)"""


class NetStats(NamedTuple):
    """Facts counted in C: `connections` and from `receive_bytes` to `link_backlog_bytes` are now,
    the rest are totals. Links are counted apart.
    """

    connections: int
    accepted: int
    refused: int
    closed: int
    frames: int
    bytes_in: int
    bytes_out: int
    starved: int
    receive_bytes: int
    receive_bytes_kept: int
    backlog_bytes: int
    backlog_bytes_copied: int
    links: int
    link_receive_bytes: int
    link_backlog_bytes: int
    link_frames: int
    link_bytes_in: int
    link_bytes_out: int


@lru_cache(_RANGES_CACHED_MAX)
def _ranges(count: int) -> struct.Struct:
    return struct.Struct("@" + "qQQ" * count)


_ONE_RANGE: Final = _ranges(1).pack


class _Freed:
    """Frees the C object, and keeps its arena alive until then."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def __call__(self, net: ffi.CData) -> None:
        lib.cl_net_free(net)


class Net:
    """Every data connection of one core, for one thread.

    A frame is at most *frame_bytes_max* long. Receive memory grows with the bytes that really
    arrive, up to *receive_bytes_max* for all connections together; then requests above 16 KiB
    wait their turn, unread, while small ones go on. One large request at a time may go beyond,
    so the whole is at most *receive_bytes_max* + *frame_bytes_max* + 16 KiB per connection.
    """

    __slots__ = ("_events", "_net", "_others", "_view")

    def __init__(
        self,
        conns_max: int,
        frame_bytes_max: int,
        receive_bytes_max: int,
        arena: Arena,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        assert conns_max > 0
        assert frame_bytes_max < 2**31 - 4
        error = ffi.new("int *")
        stall_ms = int(stall_s * _MS_PER_S)
        net = lib.cl_net_new(
            arena.handle, conns_max, frame_bytes_max, receive_bytes_max, stall_ms, error
        )
        if net == ffi.NULL:
            _raise(int(error[0]))
        self._net = ffi.gc(net, _Freed(arena))
        self._events = ffi.new("cl_event[]", _EVENTS_MAX)
        self._view = memoryview(ffi.buffer(self._events))
        self._others = ffi.new("uint32_t *")

    @property
    def fd(self) -> int:
        """The nested epoll descriptor: readable when `poll` has something to do.

        Ask for it before every wait: what the last poll left over makes it readable only then.
        """
        return lib.cl_net_fd(self._net)

    def listen(self, fd: int, listener: int) -> None:
        """Accept from a listening socket, which stays its owner's, until `unlisten`."""
        status = lib.cl_net_listen(self._net, fd, listener)
        if status < 0:
            _raise(status)

    def unlisten(self, fd: int) -> None:
        """Accept no more from a socket, or watch an eventfd no longer."""
        status = lib.cl_net_unlisten(self._net, fd)
        if status < 0:
            _raise(status)

    def watch(self, fd: int, token: int) -> None:
        """Report an eventfd as (WATCH, token, count); it is read, and so cleared, in C."""
        status = lib.cl_net_watch(self._net, fd, token)
        if status < 0:
            _raise(status)

    def add(self, fd: int, listener: int) -> int:
        """Take over a connected socket and return its conn, without an ACCEPTED event.

        Returns -1 when there is no room for it; it is closed then. *listener* is for the caller.
        """
        assert listener >= 0
        conn = lib.cl_net_add(self._net, fd)
        return conn if conn >= 0 else -1

    def add_link(self, read_fd: int, write_fd: int) -> int:
        """Take over the pipes to and from a sibling process and return the link's conn.

        Frames come and go as with `add`, but it is always read, has memory of its own, and is no
        connection to `idle`, `slow`, `hold_produce` and the counters. When the sibling closes
        either pipe, CLOSED comes after its last whole frame. SIGPIPE must be ignored, as Python
        does. Raises OSError; both are closed then.
        """
        conn = lib.cl_net_add_link(self._net, read_fd, write_fd)
        if conn < 0:
            _raise(conn)
        return conn

    def poll(self, timeout_us: int) -> list[Event]:
        """Wait up to *timeout_us* (0: not at all), without the interpreter lock; do what is due.

        Returns at most 512 events. The memory of frames is valid until the next poll.
        """
        count = lib.cl_net_poll(self._net, timeout_us, self._events, _EVENTS_MAX, self._others)
        if count == 0:
            return []
        rows: list[Event] = list(EVENT.iter_unpack(self._view[: count * EVENT.size]))
        if self._others[0]:
            for at, row in enumerate(rows):
                if row[0] != FRAME:
                    rows[at] = _other(row)
        return rows

    def send(self, conn: int, parts: Sequence[Part]) -> int:
        """Send *parts* in order, now as far as the socket takes them; return the backlog in bytes.

        The rest is sent by later polls: bytes are copied, chunks retained. A conn that is gone
        takes everything and returns 0.
        """
        if len(parts) == 1 and isinstance(parts[0], bytes):
            heads = parts[0]
            ranges = _ONE_RANGE(_HEADS, 0, len(heads))
            backlog = lib.cl_net_send(self._net, conn, heads, len(heads), ranges, 1)
        else:
            heads, words = _flat(parts)
            count = len(words) // _RANGE_WORDS
            ranges = _ranges(count).pack(*words)
            backlog = lib.cl_net_send(self._net, conn, heads, len(heads), ranges, count)
        assert backlog >= 0, "a part lies outside of its chunk, or nobody holds it"
        return backlog

    def close(self, conn: int) -> None:
        """Close a connection; what it was not sent yet is dropped, and no CLOSED event comes."""
        lib.cl_net_close(self._net, conn)

    def pause(self, conn: int) -> None:
        """Cut no more frames from a connection, and do not read it, until `resume`."""
        lib.cl_net_pause(self._net, conn)

    def resume(self, conn: int) -> None:
        """Go on with a paused connection."""
        lib.cl_net_resume(self._net, conn)

    def hold_produce(self, held: bool) -> None:
        """While *held*, connections whose next frame is a Produce are not read."""
        lib.cl_net_hold_produce(self._net, int(held))

    def idle(self, older_than_s: float) -> list[int]:
        """List connections that moved no byte either way for so long.

        To be called every few seconds: it also ends a stalled request that others wait for, and
        gives receive memory back to the system when little came in since the last call.
        """
        return self._find(int(older_than_s * _MS_PER_S), _NOT_ASKED, _NOT_ASKED)

    def slow(self, older_than_s: float) -> list[int]:
        """List connections whose current request has been coming in for so long."""
        return self._find(_NOT_ASKED, int(older_than_s * _MS_PER_S), _NOT_ASKED)

    def stuck(self, older_than_s: float) -> list[int]:
        """List connections that have taken nothing of their answers for so long."""
        return self._find(_NOT_ASKED, _NOT_ASKED, int(older_than_s * _MS_PER_S))

    def stats(self) -> NetStats:
        """Return the counters."""
        stats = ffi.new("cl_net_stats *")
        lib.cl_net_stats_read(self._net, stats)
        return NetStats(*STATS.unpack(ffi.buffer(stats)))

    def _find(self, idle_ms: int, partial_ms: int, unsent_ms: int) -> list[int]:
        conns = ffi.new("int64_t[]", _IDLE_MAX)
        count = lib.cl_net_idle(self._net, idle_ms, partial_ms, unsent_ms, conns, _IDLE_MAX)
        return [conns[at] for at in range(count)]


def _flat(parts: Sequence[Part]) -> tuple[bytes, list[int]]:
    """Return all bytes parts as one, and the ranges that name their places and the chunks'."""
    heads: list[bytes] = []
    words: list[int] = []
    at = 0
    for part in parts:
        if isinstance(part, bytes):
            heads.append(part)
            words += (_HEADS, at, len(part))
            at += len(part)
        else:
            words += part
    return b"".join(heads), words


def _other(row: Event) -> Event:
    kind, conn, address, size = row[:4]
    if kind == ACCEPTED:
        peer = ffi.string(ffi.cast("char *", address)).decode()
        return kind, conn, size, peer
    if kind == CLOSED:
        return kind, conn, size
    if kind == WATCH:
        return kind, size, address
    assert kind == DRAINED
    return kind, conn


def _raise(status: int) -> None:
    raise OSError(-status, os.strerror(-status))
