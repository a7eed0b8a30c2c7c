"""Request and response frames: headers, length prefixes, and where the body starts."""

import struct
from typing import Final

from corelane.wire.compiler import Message, codec, request_codec, response_codec
from corelane.wire.errors import DecodeError
from corelane.wire.primitives import Buffer, read_tags

REQUEST_HEAD: Final = struct.Struct(">hhih")
LENGTH: Final = struct.Struct(">i")
API_VERSIONS_KEY: Final = 18


def request_body_at(frame: Buffer, *, is_flexible: bool) -> int:
    """Return where the body starts after a request header v1, or v2 when *is_flexible*.

    The client id is never compact, may be null, and may be empty (quirks 2 and 4).
    """
    try:
        _key, _version, _correlation, client_id_bytes = REQUEST_HEAD.unpack_from(frame)
        at: int = REQUEST_HEAD.size + max(0, client_id_bytes)
        if client_id_bytes < -1 or at > len(frame):
            raise DecodeError(f"the client id has the length {client_id_bytes}")
        if is_flexible:
            _tags, at = read_tags(frame, at)
    except (struct.error, IndexError) as fault:
        raise DecodeError(f"the request header is cut: {fault}") from fault
    return at


def client_id_of(frame: Buffer) -> str | None:
    """Return the client id of a request frame; None where it is null or not text."""
    (_key, _version, _correlation, size) = REQUEST_HEAD.unpack_from(frame)
    if size < 0:
        return None
    raw = bytes(frame[REQUEST_HEAD.size : REQUEST_HEAD.size + size])
    return raw.decode("utf-8", "replace")


def encode_request(
    api_key: int, version: int, correlation_id: int, client_id: str | None, message: Message
) -> bytes:
    """Return a request frame with its length prefix."""
    body = request_codec(api_key, version)
    header = codec("RequestHeader", 2 if body.is_flexible else 1)
    head = header.message(
        request_api_key=api_key, request_api_version=version, correlation_id=correlation_id,
        client_id=client_id,
    )  # fmt: skip
    raw = header.encode(head) + body.encode(message)
    return LENGTH.pack(len(raw)) + raw


def decode_response(api_key: int, version: int, frame: Buffer) -> tuple[int, Message]:
    """Return (correlation id, message) of an answer without its length prefix."""
    body = response_codec(api_key, version)
    flexible = body.is_flexible and api_key != API_VERSIONS_KEY  # KIP-511: header v0 for ever
    head, at = codec("ResponseHeader", 1 if flexible else 0).decode(frame)
    message, _end = body.decode(frame, at)
    return head.correlation_id, message
