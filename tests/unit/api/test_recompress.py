"""Topics that say in which codec their batches are stored."""

import struct

import pytest

from corelane.model import limits
from corelane.model.errors import ERRORS, ErrorCode
from corelane.shard.effects import HoldProduce, Work
from corelane.shard.events import WorkDone
from corelane.wire.batch import RecordsFault, batch_header
from corelane.wire.compression import Compression, compress
from corelane.wire.recompress import Recompressed, recompress
from corelane.wire.records import Producer, batch_records, split_batches
from corelane_native import crc32c
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


def remade(batch: bytes, codec: Compression, plain: bytes) -> bytes:
    """Return *batch* with other records in it, sealed as a client does."""
    raw = bytearray(batch[:61]) + compress(codec, plain)
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">I", raw, 17, crc32c(bytes(raw[21:])))
    return bytes(raw)


LIES = {
    "no records": b"\xff" * 40,
    "fewer than it says": batch_of(2)[61:],
    "more than it says": batch_of(4)[61:],
    "a cut record": batch_of(3)[61:-1],
}


@pytest.mark.parametrize("wanted", CODECS)
@pytest.mark.parametrize("lie", LIES)
def test_what_lies_about_its_records_is_not_stored_in_another_codec(wanted: str, lie: str) -> None:
    world = World()
    world.create_topic("t", compression_type=wanted)
    codec = Compression.SNAPPY if wanted == "gzip" else Compression.GZIP
    batch = remade(batch_of(3, codec=codec), codec, LIES[lie])
    assert world.produce("t", batch).error_code == ErrorCode.INVALID_RECORD
    row = world.produce("t", batch_of(3, codec=codec))
    assert (row.error_code, row.base_offset) == (0, 0), "what comes behind it is served"


def test_keyless_records_are_not_stored_in_a_compacted_topic_in_any_codec() -> None:
    world = World()
    world.create_topic("t", compression_type="zstd", cleanup_policy="compact")
    for codec in Compression:
        keyless = batch_of(3, codec=codec, key=None)
        assert world.produce("t", keyless).error_code == ErrorCode.INVALID_RECORD
        assert world.produce("t", batch_of(3, codec=codec, key=b"k")).error_code == 0


def test_records_that_cannot_be_read_are_refused() -> None:
    whole = batch_of(3, codec=Compression.GZIP)
    cut = recompress(whole[:-9], Compression.ZSTD, 3, MIB, keys_needed=False)
    assert isinstance(cut, RecordsFault)
    bomb = batch_of(1, codec=Compression.GZIP, value=bytes(3 * MIB))
    assert isinstance(recompress(bomb, Compression.ZSTD, 3, MIB, keys_needed=False), RecordsFault)


def test_the_largest_time_is_that_of_the_records() -> None:
    plain = batch_of(5)
    lying = bytearray(plain)
    struct.pack_into(">q", lying, 35, 1)
    made = recompress(bytes(lying), Compression.ZSTD, 3, MIB, keys_needed=False)
    assert isinstance(made, Recompressed)
    assert made.max_timestamp == batch_header(plain).max_timestamp
    assert batch_header(made.batch).max_timestamp == made.max_timestamp


def test_what_could_not_be_worked_on_may_be_sent_again() -> None:
    """A failure of the workbench says nothing about the batch."""
    world = World()
    world.create_topic("t", compression_type="zstd")
    world.holds_work = True
    batch = batch_of(3)
    world.send(produce_request("t", batch), 9)
    (work,) = world.held_work
    world.held_work.clear()
    world.run([WorkDone(work.job, None, "MemoryError: planted")])
    answer = world.receive(0, 9)
    assert answer is not None
    assert ERRORS[answer[1].responses[0].partition_responses[0].error_code].is_retriable
    world.holds_work = False
    assert world.produce("t", batch).base_offset == 0


def test_only_so_much_waits_to_be_worked_on() -> None:
    world = World()
    world.create_topic("t", compression_type="gzip")
    world.holds_work = True
    large = batch_of(1, value=bytes(900_000))
    for number in range(2 * limits.WORKED_BYTES_MAX // len(large)):
        if HoldProduce(held=True) in world.told:
            break
        world.send(produce_request("t", large), 9, conn=number)
    assert number == limits.WORKED_BYTES_MAX // len(large) + 1
    world.release_work()
    assert world.told[-1] == HoldProduce(held=False)


def test_only_so_many_jobs_are_at_the_workbench_at_once() -> None:
    world = World()
    partitions = limits.WORKS_MAX + 30
    world.create_topic("t", partitions, compression_type="gzip")
    world.holds_work = True
    for number in range(partitions):
        world.send(produce_request("t", batch_of(1), partition=number), 9, conn=number)
    assert len(world.held_work) == limits.WORKS_MAX
    assert all(isinstance(work, Work) for work in world.held_work)
    world.release_work()
    for number in range(partitions):
        answer = world.receive(0, 9, conn=number)
        assert answer is not None
        assert answer[1].responses[0].partition_responses[0].error_code == 0


def test_a_level_is_used() -> None:
    plain = batch_of(200, value=b"".join(b"%d" % (n * n) for n in range(100)))
    sizes = []
    for level in (1, 9):
        made = recompress(plain, Compression.GZIP, level, MIB, keys_needed=False)
        assert isinstance(made, Recompressed)
        sizes.append(len(made.batch))
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize(
    ("codec", "low", "high"), [("gzip", "1", "9"), ("lz4", "1", "12"), ("zstd", "-50", "19")]
)
def test_the_level_is_the_topics(codec: str, low: str, high: str) -> None:
    plain = batch_of(200, value=b"".join(b"%d" % (n * n) for n in range(100)))
    sizes = []
    for level in (low, high):
        world = World()
        configs = {f"compression_{codec}_level": level}
        world.create_topic("t", 1, compression_type=codec, **configs)
        assert world.produce("t", plain).error_code == 0
        sizes.append(len(stored(world)))
    assert sizes[0] > sizes[1]
