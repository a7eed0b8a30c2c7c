"""Topics that say in which codec their batches are stored."""

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.batch import RecordsFault, batch_header
from corelane.wire.compression import Compression
from corelane.wire.recompress import recompress
from corelane_client.records import Producer, batch_records, split_batches
from tests.unit.api.world import World, batch_of, produce_request

CODECS = {
    "uncompressed": Compression.NONE,
    "gzip": Compression.GZIP,
    "snappy": Compression.SNAPPY,
    "lz4": Compression.LZ4,
    "zstd": Compression.ZSTD,
}
MIB = 1024 * 1024


def stored(world: World, offset: int = 0) -> bytes:
    return bytes(world.fetch("t", offset).records)


@pytest.mark.parametrize("wanted", CODECS)
@pytest.mark.parametrize("sent", Compression)
def test_a_batch_is_stored_in_the_topics_codec_with_the_same_records(
    wanted: str, sent: Compression
) -> None:
    world = World()
    world.create_topic("t", compression_type=wanted)
    batch = batch_of(20, codec=sent, value=b"value " * 50, producer=Producer(7, 0, 0))
    row = world.produce("t", batch)
    assert (row.error_code, row.base_offset) == (0, 0)
    (kept,) = split_batches(stored(world))
    (given,) = split_batches(batch)
    assert batch_records(kept, "t", 0) == batch_records(given, "t", 0)
    head, before = batch_header(stored(world)), batch_header(batch)
    assert Compression(head.attributes & 7) is CODECS[wanted]
    same = ("record_count", "base_timestamp", "max_timestamp", "producer_id", "base_sequence")
    assert [getattr(head, name) for name in same] == [getattr(before, name) for name in same]
    if CODECS[wanted] is sent:
        assert stored(world)[16:] == batch[16:], "nothing to do, so nothing is done"
    assert world.produce("t", batch).base_offset == 0, "the same batch is known again"
    world.crash()
    assert batch_header(stored(world)).record_count == 20


def test_order_is_kept_while_a_batch_is_worked_on() -> None:
    world = World()
    world.create_topic("t", compression_type="zstd")
    world.holds_work = True
    world.send(produce_request("t", batch_of(3, codec=Compression.GZIP)), 9)
    world.send(produce_request("t", batch_of(2, codec=Compression.ZSTD)), 9)
    assert world.receive(0, 9) is None
    world.release_work()
    answers = [world.receive(0, 9) for _ in range(2)]
    offsets = [each and each[1].responses[0].partition_responses[0].base_offset for each in answers]
    assert offsets == [0, 3]


def test_what_grows_beyond_the_limit_is_refused() -> None:
    world = World()
    world.create_topic("t", compression_type="uncompressed", max_message_bytes="1000")
    batch = batch_of(1, codec=Compression.GZIP, value=bytes(5000))
    assert len(batch) < 1000
    assert world.produce("t", batch).error_code == ErrorCode.MESSAGE_TOO_LARGE


def test_records_that_cannot_be_read_are_refused() -> None:
    whole = batch_of(3, codec=Compression.GZIP)
    assert isinstance(recompress(whole[:-9], Compression.ZSTD, 3, MIB), RecordsFault)
    bomb = batch_of(1, codec=Compression.GZIP, value=bytes(3 * MIB))
    assert isinstance(recompress(bomb, Compression.ZSTD, 3, MIB), RecordsFault)


def test_a_level_is_used() -> None:
    plain = batch_of(200, value=b"".join(b"%d" % (n * n) for n in range(100)))
    sizes = []
    for level in (1, 9):
        made = recompress(plain, Compression.GZIP, level, MIB)
        assert isinstance(made, bytes)
        sizes.append(len(made))
    assert sizes[0] > sizes[1]
