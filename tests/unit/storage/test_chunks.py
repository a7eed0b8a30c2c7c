"""What readers find in memory is bounded, and memory that nobody needs goes back to the system."""

from corelane.model.limits import MIB
from corelane.storage.chunks import SPARE_BYTES, Chunks
from corelane_native import Arena


def test_evicted_chunks_go_back_to_the_system_but_for_a_few() -> None:
    chunks = Chunks(Arena(128 * MIB))
    made = [chunks.new(MIB) for _ in range(100)]
    for chunk in made[:-1]:
        chunk.is_closed = True
    chunks.evict(10 * MIB)
    assert chunks.log_bytes == 10 * MIB
    assert chunks.arena.bytes_mapped == 10 * MIB + SPARE_BYTES
    assert [*chunks.fifo] == made[90:], "the oldest went"
    chunks.new(MIB)
    assert chunks.arena.bytes_mapped == 10 * MIB + SPARE_BYTES, "a spare one is used again"
