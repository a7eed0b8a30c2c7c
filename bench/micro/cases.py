"""What the instruction counts are counted of: each case does its work `count` times.

`python -m bench.micro.cases` runs all of them between marks that callgrind sees; see
`bench.micro.instructions`. Every case is warmed up first, and none depends on the time.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import corelane_native as native
from bench.macro import raw
from bench.micro.beats import Pair
from bench.micro.core import Core
from corelane.model.record import record
from corelane.wire.frame import encode_request
from tests.unit.api.world import WALL_MS, batch_of, produce_request

SMALL: Final = 100
KIB: Final = 1024
PARTITIONS: Final = 8
HEARTBEAT_ROWS: Final = 1_000
METADATA_VERSION: Final = 12


@record
class Case:
    """Work to be counted: `run()` does it `per_run` times."""

    name: str
    sentence: str
    run: Callable[[], object]
    per_run: int
    runs: int


def cases() -> Iterator[Case]:
    """Make the cases one after another; a later one may use what an earlier one left."""
    yield from _native()
    yield from _one_core()
    yield _heartbeats()


def _native() -> Iterator[Case]:
    data = bytes(range(256)) * 256
    yield Case("crc", "CRC-32C of 64 KiB", lambda: native.crc32c(data), 1, 50)
    batch = batch_of(16, value=bytes(KIB))
    frame = encode_request(0, 9, 1, "bench", produce_request("t", batch))[4:]
    body_at = 8 + 2 + len("bench") + 1

    def decode() -> None:
        native.decode_produce(native.address_of(frame), len(frame), body_at, 9)

    yield Case(
        "decode", "a Produce request of one 16 KiB batch, decoded and checked", decode, 1, 50
    )


def _one_core() -> Iterator[Case]:
    core = Core()
    core.create_topic("t", PARTITIONS)
    one = raw.produce(raw.Partition("t", 0), raw.batch([bytes(SMALL)], WALL_MS))
    answer_bytes = len(core.answer_to(one))
    for flight, runs in ((1, 40), (5, 20), (64, 8)):
        yield Case(
            f"produce {flight}",
            f"a record of {SMALL} bytes to its durable answer, {flight} at a time",
            partial(core.exchange, one * flight, answer_bytes * flight),
            flight,
            runs,
        )
    wide = wide_produce("t", raw.batch([bytes(KIB)] * 16, WALL_MS))
    wide_bytes = len(core.answer_to(wide))
    ask = raw.fetch(raw.Partition("t", 1), 0, KIB * 16)
    fetch_bytes = len(core.answer_to(ask))
    yield Case(
        "fetch", "a batch of 16 KiB from memory", lambda: core.exchange(ask, fetch_bytes), 1, 40
    )
    metadata = raw.request(raw.METADATA, 1, b"\0\0\0\1" + raw.text("t"))
    told_bytes = len(core.answer_to(metadata))
    yield Case("metadata", "of one topic", lambda: core.exchange(metadata, told_bytes), 1, 40)
    yield Case(
        "produce wide",
        f"a batch of 16 KiB, {PARTITIONS} partitions in a request",
        lambda: core.exchange(wide, wide_bytes),
        PARTITIONS,
        10,
    )
    yield Case("turn", "a turn in which nothing happens", core.turn, 1, 100)
    core.close()


def wide_produce(topic: str, records: bytes) -> bytes:
    """Return a Produce v7 frame with the same batch for every partition."""
    return raw.produce_rows(topic, [(index, records) for index in range(PARTITIONS)])


def _heartbeats() -> Case:
    pair = Pair(HEARTBEAT_ROWS)
    sentence = f"a heartbeat of {HEARTBEAT_ROWS:,} groups and its answer, nothing new"
    return Case("heartbeat", sentence, pair.round, 1, 10)


def main() -> None:
    """Run every case, warm, between two marks; say on standard output what was between them."""
    chosen = set(sys.argv[1:])
    for case in cases():
        if chosen and case.name not in chosen:
            continue
        for _ in range(max(2, case.runs // 4)):
            case.run()
        gc.collect()
        gc.disable()
        native.crc32c_portable(False)
        for _ in range(case.runs):
            case.run()
        native.crc32c_portable(False)
        gc.enable()
        print(f"{case.name}\t{case.per_run * case.runs}\t{case.sentence}", flush=True)


if __name__ == "__main__":
    main()
