"""An answer on its way from one core to another core's client: its pieces, and who holds them."""

# performance-critical: see STYLE.md

from corelane.model.ids import ChunkId
from corelane.shard.effects import Part
from corelane_native import Arena


class Answer:
    """An answer from its correlation id on; without any piece where none is due (acks=0).

    Whoever takes it takes over one reference on each of `chunks`.
    """

    __slots__ = ("chunks", "parts")

    def __init__(self, parts: list[Part], chunks: list[ChunkId]) -> None:
        self.parts = parts
        self.chunks = chunks

    @property
    def size_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(len(part) if isinstance(part, bytes) else part[2] for part in self.parts)

    def take_bytes(self, arena: Arena) -> bytes:
        """Return all of it as one, and release what it held."""
        views = [part if isinstance(part, bytes) else arena.view(*part) for part in self.parts]
        data = b"".join(views)
        self.release(arena)
        return data

    def release(self, arena: Arena) -> None:
        """Let go of what it holds: nobody wants it."""
        for chunk in self.chunks:
            arena.release(chunk)
        self.chunks = []
        self.parts = []
