"""Produce: acks, batch rules and idempotence (quirks 22 to 25, section D), by one shard."""

import struct
from collections.abc import Callable

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.batch import batch_header, whole_batches
from corelane.wire.compiler import message_type
from corelane.wire.compression import Compression
from corelane.wire.records import Producer
from corelane_native import crc32c
from tests.unit.api.world import WALL_MS, World, batch_of, produce_request


@pytest.fixture
def world() -> World:
    made = World()
    made.create_topic("t")
    return made


def test_write_caching_answers_from_memory_and_shows_nothing_before_it_is_durable() -> None:
    world = World()
    world.create_topic("t", write_caching="true")
    world.create_topic("safe")
    world.holds_disk = True
    assert world.produce("t", batch_of(3)).base_offset == 0
    assert world.fetch("t", 0).high_watermark == 0
    world.send(produce_request("safe", batch_of()), 9, conn=2)
    assert world.receive(0, 9, conn=2) is None, "other topics wait for the disk"
    world.release_disk()
    assert world.fetch("t", 0).high_watermark == 3


def resealed(batch: bytes, at: int, layout: str, value: int) -> bytes:
    """Return *batch* with a field overwritten and its checksum made right again."""
    raw = bytearray(batch)
    struct.pack_into(layout, raw, at, value)
    struct.pack_into(">I", raw, 17, crc32c(bytes(raw[21:])))
    return bytes(raw)


@pytest.mark.parametrize("version", range(3, 12))
def test_offsets_start_at_0_and_are_dense(world: World, version: int) -> None:
    offsets = [world.produce("t", batch_of(3), version=version).base_offset for _ in range(3)]
    assert offsets == [0, 3, 6]


def test_nothing_is_answered_before_its_wal_write_is_done(world: World) -> None:
    for acks in (-1, 1):
        world.holds_disk = True
        world.send(produce_request("t", batch_of(), acks=acks), 9)
        assert not world.inbox[1]
        world.release_disk()
        assert world.receive(0, 9) is not None


def test_acks_0_gets_no_frame_and_later_answers_still_come(world: World) -> None:
    world.send(produce_request("t", batch_of(), acks=0), 9)
    assert not world.inbox[1]
    assert world.produce("t", batch_of()).base_offset == 1


def test_a_refused_batch_with_acks_0_closes_the_connection(world: World) -> None:
    world.send(produce_request("nowhere", batch_of(), acks=0), 9)
    assert 1 in world.closed


@pytest.mark.parametrize("acks", [-2, 2, 100])
def test_other_acks_are_refused(world: World, acks: int) -> None:
    assert world.produce("t", batch_of(), acks=acks).error_code == ErrorCode.INVALID_REQUIRED_ACKS


BAD: dict[str, tuple[Callable[[bytes], bytes], ErrorCode]] = {
    "wrong crc": (lambda b: b[:-1] + bytes([b[-1] ^ 1]), ErrorCode.CORRUPT_MESSAGE),
    "wrong count": (lambda b: resealed(b, 57, ">i", 7), ErrorCode.INVALID_RECORD),
    "lying last delta": (lambda b: resealed(b, 23, ">i", 5), ErrorCode.INVALID_RECORD),
    "unknown codec": (
        lambda b: resealed(b, 21, ">h", 7),
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
    ),
    "control bit": (lambda b: resealed(b, 21, ">h", 0x20), ErrorCode.INVALID_RECORD),
    "timestamp type": (lambda b: resealed(b, 21, ">h", 0x08), ErrorCode.INVALID_TIMESTAMP),
    "transactional": (
        lambda b: resealed(resealed(b, 43, ">q", 1), 21, ">h", 0x10),
        ErrorCode.INVALID_RECORD,
    ),
    "magic 1": (lambda b: b[:16] + b"\x01" + b[17:], ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
    "two batches": (lambda b: b + b, ErrorCode.INVALID_RECORD),
    "trailing byte": (lambda b: b + b"\0", ErrorCode.INVALID_RECORD),
    "cut": (lambda b: b[:-3], ErrorCode.CORRUPT_MESSAGE),
    "empty": (lambda b: b[:0], ErrorCode.INVALID_RECORD),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_is_refused_with_a_sentence_and_spoils_nothing_else(
    world: World, name: str
) -> None:
    spoil, error = BAD[name]
    row = world.produce("t", spoil(batch_of(3)))
    assert row.error_code in {error, ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE}
    assert row.error_code != 0
    assert row.error_message
    assert row.base_offset == -1
    assert world.produce("t", batch_of()).base_offset == 0


def test_lying_record_deltas_are_found_in_uncompressed_batches(world: World) -> None:
    batch = batch_of(2, value=b"")
    body = bytearray(batch)
    second = 61 + 1 + body[61] // 2
    assert body[second + 3] == 2, "the second record's offset delta, zigzag 1"
    body[second + 3] = 4
    struct.pack_into(">I", body, 17, crc32c(bytes(body[21:])))
    assert world.produce("t", bytes(body)).error_code == ErrorCode.INVALID_RECORD


def test_compressed_batches_are_looked_into_on_strict_topics(world: World) -> None:
    assert world.create_topic("strict", corelane_strict_validation="true").error_code == 0
    lying = resealed(resealed(batch_of(3, codec=Compression.GZIP), 23, ">i", 3), 57, ">i", 4)
    assert world.produce("t", lying).error_code == 0, "not looked into elsewhere"
    assert world.produce("strict", lying).error_code == ErrorCode.INVALID_RECORD
    good = batch_of(3, codec=Compression.ZSTD)
    assert world.produce("strict", good).base_offset == 0


def test_keyless_records_do_not_enter_compacted_topics(world: World) -> None:
    world.create_topic("c", cleanup_policy="compact")
    for codec in Compression:
        row = world.produce("c", batch_of(2, codec=codec, key=None))
        assert row.error_code == ErrorCode.INVALID_RECORD, codec
    assert world.produce("c", batch_of(2)).base_offset == 0


def test_a_batch_over_max_message_bytes_is_too_large(world: World) -> None:
    world.create_topic("small", max_message_bytes="1000")
    assert world.produce("small", batch_of(1, value=bytes(900))).error_code == 0
    row = world.produce("small", batch_of(1, value=bytes(1000)))
    assert row.error_code == ErrorCode.MESSAGE_TOO_LARGE


def test_a_batch_of_exactly_max_message_bytes_passes(world: World) -> None:
    overhead = len(batch_of(1, value=bytes(100_000))) - 100_000
    largest = batch_of(1, value=bytes(1_048_588 - overhead))
    assert len(largest) == 1_048_588
    assert world.produce("t", largest).error_code == 0
    assert bytes(world.fetch("t", 0).records)[61:] == largest[61:]


def test_zstd_needs_produce_7(world: World) -> None:
    batch = batch_of(codec=Compression.ZSTD)
    assert world.produce("t", batch, version=6).error_code == 76
    assert world.produce("t", batch, version=7).error_code == 0


@pytest.mark.parametrize("codec", Compression)
def test_codecs_pass_through_unchanged(world: World, codec: Compression) -> None:
    batch = batch_of(5, codec=codec)
    assert world.produce("t", batch).error_code == 0
    assert bytes(world.fetch("t", 0).records)[16:] == batch[16:]


def test_log_append_time_is_ours_and_the_checksum_is_right(world: World) -> None:
    world.create_topic("lat", message_timestamp_type="LogAppendTime")
    row = world.produce("lat", batch_of(2, timestamp_ms=5))
    assert row.log_append_time_ms == WALL_MS
    raw = bytes(world.fetch("lat", 0).records)
    head = batch_header(raw)
    assert head.max_timestamp == WALL_MS
    assert head.attributes & 8
    assert head.crc == crc32c(raw[21:])
    assert world.produce("t", batch_of()).log_append_time_ms == -1


def test_timestamps_too_far_in_the_future_are_refused(world: World) -> None:
    row = world.produce("t", batch_of(timestamp_ms=WALL_MS + 2 * 3_600_000))
    assert row.error_code == ErrorCode.INVALID_TIMESTAMP


def test_min_insync_replicas_above_the_replicas_is_not_enough_replicas(world: World) -> None:
    world.create_topic("two", min_insync_replicas="2")
    assert world.produce("two", batch_of()).error_code == ErrorCode.NOT_ENOUGH_REPLICAS
    assert world.produce("two", batch_of(), acks=1).error_code == 0


# --- idempotence (quirk 24) ---


def sequence(number: int, epoch: int = 0, producer_id: int = 7) -> Producer:
    return Producer(producer_id, epoch, number)


def test_any_of_the_last_five_batches_is_answered_with_its_offset(world: World) -> None:
    for number in range(6):
        world.produce("t", batch_of(2, producer=sequence(number * 2)))
    for number in range(1, 6):
        row = world.produce("t", batch_of(2, producer=sequence(number * 2)))
        assert (row.error_code, row.base_offset) == (0, number * 2)
    sixth = world.produce("t", batch_of(2, producer=sequence(0)))
    assert sixth.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert world.fetch("t", 0).high_watermark == 12


def test_a_gap_an_old_epoch_and_a_new_epoch_not_at_0_are_refused(world: World) -> None:
    world.produce("t", batch_of(1, producer=sequence(0, epoch=1)))
    errors = [
        world.produce("t", batch_of(1, producer=sequence(5, epoch=1))).error_code,
        world.produce("t", batch_of(1, producer=sequence(1, epoch=0))).error_code,
        world.produce("t", batch_of(1, producer=sequence(3, epoch=2))).error_code,
    ]
    assert errors == [
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ]
    assert world.produce("t", batch_of(1, producer=sequence(0, epoch=2))).error_code == 0


def test_sequences_wrap_to_0(world: World) -> None:
    last = 2**31 - 1
    assert world.produce("t", batch_of(1, producer=sequence(last))).error_code == 0
    assert world.produce("t", batch_of(1, producer=sequence(0))).error_code == 0


def test_a_duplicate_of_a_batch_in_flight_waits_for_the_first(world: World) -> None:
    world.holds_disk = True
    batch = batch_of(2, producer=sequence(0))
    world.send(produce_request("t", batch), 9, conn=1)
    world.send(produce_request("t", batch), 9, conn=2)
    assert not world.inbox.get(1)
    assert not world.inbox.get(2)
    world.release_disk()
    for conn in (1, 2):
        answer = world.receive(0, 9, conn)
        assert answer is not None
        row = answer[1].responses[0].partition_responses[0]
        assert (row.error_code, row.base_offset) == (0, 0)
    assert world.fetch("t", 0).high_watermark == 2


def test_idempotence_is_rebuilt_from_the_log(world: World) -> None:
    for number in range(5):
        world.produce("t", batch_of(1, producer=sequence(number)))
    world.crash()
    assert world.produce("t", batch_of(1, producer=sequence(2))).base_offset == 2
    assert world.produce("t", batch_of(1, producer=sequence(5))).base_offset == 5
    world.shard.stop()
    world.run([])
    world.crash()
    assert world.recovered.records_replayed < 10, "a clean stop leaves next to nothing to replay"
    assert world.produce("t", batch_of(1, producer=sequence(5))).base_offset == 5
    assert world.produce("t", batch_of(1, producer=sequence(7))).error_code == 45


def test_producer_ids_are_never_given_twice(world: World) -> None:
    init = message_type("InitProducerIdRequest")
    given = []
    for _ in range(3):
        given += [world.call(init(transactional_id=None), 4).producer_id for _ in range(5)]
        world.crash()
    assert len(set(given)) == len(given)


def test_a_produce_that_is_not_durable_in_time_is_in_doubt_not_failed(world: World) -> None:
    world.holds_disk = True
    world.send(produce_request("t", batch_of(), timeout_ms=500), 9)
    world.pass_time(600)
    answer = world.receive(0, 9)
    assert answer is not None
    row = answer[1].responses[0].partition_responses[0]
    assert row.error_code == ErrorCode.REQUEST_TIMED_OUT
    world.release_disk()
    assert world.fetch("t", 0).high_watermark == 1, "it did take effect"


def test_what_was_acknowledged_survives_a_crash_byte_for_byte(world: World) -> None:
    batches = [
        batch_of(3, value=bytes([n % 256]) * 3000, codec=Compression(n % 5)) for n in range(300)
    ]
    for batch in batches:
        world.produce("t", batch)
    world.crash()
    offset, found = 0, []
    while offset < 900:
        raw = bytes(world.fetch("t", offset).records)
        for at, head in whole_batches(raw, len(raw)):
            assert head.base_offset == offset
            found.append(raw[at + 16 : at + head.size_bytes])
            offset += head.record_count
    assert found == [batch[16:] for batch in batches]


def test_a_request_that_waits_for_room_is_not_overtaken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(world.shard.store)
    monkeypatch.setattr(store, "has_room", lambda _store, size_bytes: size_bytes < 1000)
    world.send(produce_request("t", batch_of(1, value=bytes(5000))), 9)
    world.send(produce_request("t", batch_of(1)), 9)
    assert not world.inbox[1], "the small one must wait behind the large one"
    monkeypatch.undo()
    world.pass_time(50)
    offsets = []
    for _ in range(2):
        answer = world.receive(0, 9)
        assert answer is not None
        offsets.append(answer[1].responses[0].partition_responses[0].base_offset)
    assert offsets == [0, 1]
