"""One request on its way through the shard: the frame, its header, and where the answer goes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import corelane_native as native
from corelane.model.ids import ChunkId
from corelane.model.record import record
from corelane.shard.connection import Slot
from corelane.shard.effects import Part
from corelane.shard.events import Event, Request
from corelane.shard.first_error import first_error
from corelane.wire import frame as wire_frame
from corelane.wire.compiler import Message, request_codec, response_codec

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

_API_VERSIONS_KEY = 18


class Call:
    """A request and its answer slot. The frame's memory is borrowed for the current step only."""

    __slots__ = ("_kept", "request", "slot")

    def __init__(self, request: Request, slot: Slot, kept: bytes | None = None) -> None:
        self.request = request
        self.slot = slot
        self._kept = kept  # a frame of its own, for a call that outlives its step

    def keep(self) -> "Call":
        """Return this call on a copy of its frame, for a later step."""
        frame, request = self.frame(), self.request
        copy = Request(
            request.conn,
            native.address_of(frame),
            len(frame),
            request.api_key,
            request.api_version,
            request.correlation_id,
        )
        return Call(copy, self.slot, frame)

    @property
    def version(self) -> int:
        """The request's version."""
        return self.request.api_version

    def frame(self) -> bytes:
        """Return a copy of the whole frame."""
        return native.bytes_at(self.request.address, self.request.size_bytes)

    def decode(self) -> Message:
        """Return the request's body, copied out of the frame; raises DecodeError."""
        request = self.request
        codec = request_codec(request.api_key, request.api_version)
        data = self.frame()
        start = wire_frame.request_body_at(data, is_flexible=codec.is_flexible)
        message, _end = codec.decode(data, start)
        return message

    def answer(self, message: Message) -> None:
        """Encode *message* as the answer and fill the slot."""
        request = self.request
        codec = response_codec(request.api_key, request.api_version)
        # The ApiVersions answer has header v0 for ever: a client that does not yet know the
        # broker's versions must be able to read it (KIP-511).
        flexible = codec.is_flexible and request.api_key != _API_VERSIONS_KEY
        self.slot.error = first_error(message)
        self.slot.fill(codec.encode(message), header_is_flexible=flexible)

    def answer_encoded(self, body: bytes, *, is_flexible: bool, error: int) -> None:
        """Answer with a body that was encoded elsewhere; *error* is the first in it."""
        self.slot.error = error
        self.slot.fill(body, header_is_flexible=is_flexible)

    def answer_parts(self, parts: list[Part], chunks_held: list[ChunkId], error: int = 0) -> None:
        """Answer with a finished frame, whose references pass to the connection.

        *error* is the first in it.
        """
        self.slot.error = error
        self.slot.fill_parts(parts, chunks_held)


Handler = Callable[["Shard", Call], None]
"""What an API module exports as `handle`: answers the call now, or keeps it and answers later."""

RunHandler = Callable[["Shard", Sequence[Event], int], int]
"""Handles requests from events[at] on together, as many as it can; returns how many it did."""


@record
class ApiRow:
    """One line of the API table: what is served, and by whom."""

    key: int
    name: str
    version_min: int
    version_max: int
    handle: Handler
    advertised_min: int = -1
    """The first version ApiVersions names; -1: `version_min` (KAFKA-18659 is why it may differ)."""
    at_controller: bool = False
    """Needs the controller's log: a core without it has core 0 handle the request."""
    gather: Handler | None = None
    """Handles a request that came through a door of the whole node: its partitions may live on
    several cores. None: any core can answer by itself."""
    unsupported: Handler | None = None
    """Answers versions that are not served, where a layout exists for that; else: close."""
    run: RunHandler | None = None
    """Handles several requests of a turn at once; what it leaves goes to `handle`."""
