"""Where a broker listens, and how people write it."""

from typing import Final, NamedTuple

PORT_DEFAULT: Final = 9092
_PORT_MAX: Final = 65535


class Address(NamedTuple):
    """A host and a TCP port; a tuple, since connections are found by it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class AddressError(ValueError):
    """The text is not HOST:PORT."""


def parse_bootstrap(text: str) -> list[Address]:
    """Return the addresses of `host:port,host:port`; a host alone means port 9092.

    Raises AddressError.
    """
    addresses = [_parse(part.strip()) for part in text.split(",") if part.strip()]
    if not addresses:
        raise AddressError("no broker is named; write HOST:PORT")
    return addresses


def _parse(text: str) -> Address:
    """Return one address; an IPv6 one stands in brackets."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError(f"{text!r} is not [IPV6]:PORT")
    elif text.count(":") > 1:
        raise AddressError(f"{text!r} is not HOST:PORT; an IPv6 address stands in brackets")
    else:
        host, _, port = text.partition(":")
    if not host:
        raise AddressError(f"{text!r} names no host")
    if not port:
        return Address(host, PORT_DEFAULT)
    if not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= _PORT_MAX:
        raise AddressError(f"{port!r} in {text!r} is not a port")
    return Address(host, int(port))
