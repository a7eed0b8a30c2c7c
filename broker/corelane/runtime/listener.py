"""Listening sockets: bound once per broker, refused with a sentence."""

import errno
import socket
from typing import Final

from corelane.model.record import record
from corelane.runtime.failures import EXIT_CONFIG, EXIT_PORT, StartError

_REASONS: Final = {
    errno.EADDRINUSE: "another program listens there",
    errno.EACCES: "this user may not use a port below 1024",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


@record
class Address:
    """Where to listen, for what, and the option that changes it."""

    host: str
    port: int
    """0: any free one."""
    purpose: str
    option: str
    host_option: str = "--bind-host"


def bind(where: Address, backlog: int) -> socket.socket:
    """Return a listening socket; the kernel keeps *backlog* connections while nobody accepts.

    SO_REUSEADDR lets a restarted broker take its port while old connections fade away; without
    SO_REUSEPORT a second broker is refused. Raises `StartError`.
    """
    host = where.host
    what = f"cannot listen on {host}:{where.port} for {where.purpose}"
    try:
        rows = socket.getaddrinfo(
            host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise StartError(
            what,
            f"{host} is no address: {error.strerror}",
            f"Correct {where.host_option}.",
            EXIT_CONFIG,
        ) from error
    family, kind, protocol, _, address = rows[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        why = _REASONS.get(error.errno or 0, error.strerror or "the system refused")
        next_step = f"Stop that program, or choose another port with {where.option}."
        if error.errno != errno.EADDRINUSE:
            options = dict.fromkeys((where.host_option, where.option))
            next_step = f"Correct {' or '.join(options)}."
        raise StartError(what, why, next_step, EXIT_PORT) from error
    listener.setblocking(False)
    return listener


def port_of(listener: socket.socket) -> int:
    """Return the port a socket listens on."""
    return int(listener.getsockname()[1])


def peer_text(address: tuple[object, ...]) -> str:
    """Return a peer's address as it is logged."""
    if not address:
        return "unknown"
    host = str(address[0])
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def stop_listening(listener: socket.socket) -> None:
    """Refuse new connections at once, also where another process holds the same socket.

    Closing alone would not: the copy that a core holds goes on accepting.
    """
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        # Another process that shares the socket did it already.
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):
            raise
