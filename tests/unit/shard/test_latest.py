"""The map of a coordinator's log, against a dumb second version, and its bytes."""

import random
import struct

import pytest

from corelane.model.ids import Index, Offset
from corelane.producers.sequences import ProducedBatch
from corelane.shard import partition_fold
from corelane.shard.latest import LatestByKey, LatestError
from corelane.shard.partition_fold import FoldError
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, CorruptBatchError, Producer, encode_batch

Change = tuple[bytes, bytes | None]
TRANSACTIONAL, CONTROL = 0x10, 0x20
HOUR_MS = 3_600_000


def batch(changes: list[Change], producer: Producer | None = None, attributes: int = 0) -> bytes:
    builder = BatchBuilder()
    for key, value in changes:
        builder.append(1_000, key, value, ())
    return encode_batch(
        builder.payload(Compression.NONE), producer or Producer(-1, -1, -1), attributes
    )


def transactional(producer_id: int, changes: list[Change], epoch: int = 0) -> bytes:
    return batch(changes, Producer(producer_id, epoch, 0), TRANSACTIONAL)


def marker(producer_id: int, *, commits: bool) -> bytes:
    key = struct.pack(">hh", 0, int(commits))
    return batch([(key, b"")], Producer(producer_id, 0, -1), TRANSACTIONAL | CONTROL)


def test_the_latest_value_of_a_key_counts_and_null_removes_it() -> None:
    latest = LatestByKey()
    latest.apply(Index(1), batch([(b"a", b"1"), (b"b", b"2")]))
    latest.apply(Index(3), batch([(b"a", b"3"), (b"b", None), (b"c", None)]))
    assert latest.items == {b"a": b"3"}
    assert latest.size_bytes == 2


def test_keys_are_in_the_order_of_their_last_change() -> None:
    """L2: whoever folds the map again must meet a group before what refers to it."""
    latest = LatestByKey()
    latest.apply(Index(1), batch([(b"a", b"1"), (b"b", b"2")]))
    latest.apply(Index(2), batch([(b"a", b"3")]))
    assert [*latest.items] == [b"b", b"a"]


def test_what_a_transaction_wrote_counts_from_its_marker_on() -> None:
    """multiraft.md D 12: ordered by the marker, not by when it was written."""
    latest = LatestByKey()
    latest.apply(Index(1), transactional(7, [(b"a", b"old")]))
    latest.apply(Index(2), batch([(b"a", b"between")]))
    assert latest.items == {b"a": b"between"}
    latest.apply(Index(3), marker(7, commits=True))
    assert latest.items == {b"a": b"old"}
    assert not latest.open


def test_a_null_takes_a_key_back_from_open_transactions_too() -> None:
    """L4: a group that was deleted does not come back with a transaction's marker."""
    latest = LatestByKey()
    latest.apply(Index(1), transactional(7, [(b"a", b"1"), (b"b", b"2")]))
    latest.apply(Index(2), batch([(b"a", None)]))
    latest.apply(Index(3), marker(7, commits=True))
    assert latest.items == {b"b": b"2"}


def test_what_was_aborted_never_counts() -> None:
    latest = LatestByKey()
    latest.apply(Index(1), transactional(7, [(b"a", b"1")]))
    latest.apply(Index(2), marker(7, commits=False))
    latest.apply(Index(3), marker(7, commits=True))  # it ended before: nothing happens
    assert not latest.items
    assert not latest.open


def test_a_later_epoch_begins_anew() -> None:
    latest = LatestByKey()
    latest.apply(Index(1), transactional(7, [(b"a", b"1")], epoch=0))
    latest.apply(Index(2), transactional(7, [(b"b", b"2")], epoch=1))
    latest.apply(Index(3), marker(7, commits=True))
    assert latest.items == {b"b": b"2"}


def test_no_entry_is_taken_twice() -> None:
    latest = LatestByKey()
    latest.skip(Index(2))
    with pytest.raises(AssertionError, match="L1"):
        latest.apply(Index(2), batch([(b"a", b"1")]))


def test_a_record_without_a_key_is_none_of_a_coordinator() -> None:
    builder = BatchBuilder()
    builder.append(0, None, b"x", ())
    with pytest.raises(CorruptBatchError, match="no key"):
        LatestByKey().apply(Index(1), encode_batch(builder.payload(Compression.NONE)))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_a_replay_of_all_entries_gives(seed: int) -> None:
    chance = random.Random(seed)
    latest = LatestByKey()
    model: dict[bytes, bytes] = {}
    staged: dict[int, list[Change]] = {}

    def put(changes: list[Change]) -> None:
        for key, value in changes:
            model.pop(key, None)
            if value is not None:
                model[key] = value

    for index in range(1, 200):
        changes = [
            (b"k%d" % chance.randrange(8), chance.choice((None, b"v%d" % index)))
            for _ in range(chance.randint(1, 4))
        ]
        producer = chance.randrange(3)
        dice = chance.random()
        if dice < 0.5:
            latest.apply(Index(index), batch(changes))
            put(changes)
            gone = {key for key, value in changes if value is None}
            for number, each in staged.items():
                staged[number] = [change for change in each if change[0] not in gone]
        elif dice < 0.8:
            latest.apply(Index(index), transactional(producer, changes))
            staged.setdefault(producer, []).extend(changes)
        else:
            commits = chance.random() < 0.5
            latest.apply(Index(index), marker(producer, commits=commits))
            ended = staged.pop(producer, [])
            put(ended if commits else [])
        if chance.random() < 0.2:
            latest = LatestByKey.decode(latest.encode())
        assert [*latest.items.items()] == [*model.items()], f"seed {seed}"
        assert latest.size_bytes == sum(len(k) + len(v) for k, v in model.items())
    assert {number: each.changes for number, each in latest.open.items()} == staged


def test_damaged_bytes_are_refused() -> None:
    latest = LatestByKey()
    latest.apply(Index(4), batch([(b"a", b"1"), (b"b", b"2")]))
    latest.apply(Index(5), transactional(7, [(b"c", None)]))
    data = latest.encode()
    assert LatestByKey.decode(data).encode() == data
    for end in range(len(data)):
        with pytest.raises(LatestError):
            LatestByKey.decode(data[:end])
    with pytest.raises(LatestError, match="longer"):
        LatestByKey.decode(data + b"x")
    with pytest.raises(LatestError, match="format 9"):
        LatestByKey.decode(b"\x09" + data[1:])


def test_an_ordinary_partition_keeps_its_producers_alone() -> None:
    kept = partition_fold.empty("orders", HOUR_MS)
    assert kept.latest is None
    assert kept.encode() == kept.producers.encode()
    assert partition_fold.decode(kept.encode(), "orders", HOUR_MS).latest is None


def test_a_coordinators_partition_keeps_both() -> None:
    kept = partition_fold.empty("__consumer_offsets", HOUR_MS)
    assert kept.latest is not None
    kept.latest.apply(Index(3), batch([(b"a", b"1")]))
    kept.producers.appended(ProducedBatch(Index(3), 5, 0, 0, 1, Offset(0), 1_000))
    kept.producers.committed(Index(3))
    data = kept.encode()
    again = partition_fold.decode(data, "__consumer_offsets", HOUR_MS)
    assert again.encode() == data
    assert again.applied_index == 3
    assert again.latest is not None
    assert again.latest.items == {b"a": b"1"}
    for end in range(len(data)):
        with pytest.raises(FoldError):
            partition_fold.decode(data[:end], "__consumer_offsets", HOUR_MS)
