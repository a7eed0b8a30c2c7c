"""Cuts the bytes of a connection into answers, and recognises who else may be talking."""

from typing import Final

from corelane_client.errors import ProtocolError

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""No answer is larger: a length beyond this is not a length."""
_LENGTH_BYTES: Final = 4
_COMPACT_BYTES: Final = 1024 * 1024

_STRANGERS: Final = (
    (b"\x15\x03", "it speaks TLS", "Use the broker's plaintext port: TLS is not supported yet."),
    (b"\x16\x03", "it speaks TLS", "Use the broker's plaintext port: TLS is not supported yet."),
    (b"HTTP", "it speaks HTTP", "Use the Kafka port of the broker, not its admin port."),
    (b"<", "it answers with a page", "Use the Kafka port of the broker, not its admin port."),
    (b"SSH-", "it speaks SSH", "Name the port of a Kafka broker."),
    (b"220 ", "it speaks SMTP or FTP", "Name the port of a Kafka broker."),
    (b"-ERR", "it speaks Redis' protocol", "Name the port of a Kafka broker."),
)


class FrameCutter:
    """Collects received bytes; `take` returns whole answers without their length.

    *sender* is what errors call the other side.
    """

    def __init__(self, sender: str) -> None:
        self._sender = sender
        self._data = bytearray()
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """No byte waits."""
        return len(self._data) == self._at

    def add(self, data: bytes | bytearray) -> None:
        """Append what has arrived."""
        if self._at == len(self._data) or self._at > _COMPACT_BYTES:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def take(self) -> bytes | None:
        """Return the next answer, or None until more bytes arrive.

        Raises ProtocolError when the length cannot be one.
        """
        start = self._at + _LENGTH_BYTES
        if len(self._data) < start:
            return None
        size_bytes = int.from_bytes(self._data[self._at : start], "big", signed=True)
        if not _LENGTH_BYTES <= size_bytes <= FRAME_BYTES_MAX:
            raise _stranger(self._sender, bytes(self._data[self._at : self._at + 16]))
        end = start + size_bytes
        if len(self._data) < end:
            return None
        frame = bytes(memoryview(self._data)[start:end])
        self._at = end
        return frame


def _stranger(sender: str, first_bytes: bytes) -> ProtocolError:
    """Return the error for a *sender* whose *first_bytes* do not start an answer."""
    for mark, what, next_step in _STRANGERS:
        if first_bytes.startswith(mark):
            return ProtocolError(f"{sender} does not speak Kafka: {what}", next_step)
    return ProtocolError(
        f"{sender} does not speak Kafka: it sent {first_bytes!r}",
        "Name the port of a Kafka broker.",
    )
