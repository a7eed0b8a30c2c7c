"""The rows of a log's tail: an array in C does what a list of tuples would."""

import random

import pytest

from corelane_native import COLLECT_MAX, Arena, Collecting, EntryRow, EntryRows

BATCH, NEW_LEADER, TRIM = 1, 2, 4
BIG = 1 << 40


def entry(chance: random.Random, offset: int, chunk: int) -> EntryRow:
    kind = chance.choice((BATCH, BATCH, BATCH, NEW_LEADER, TRIM))
    newest = chance.choice((-1, -(1 << 63), (1 << 63) - 1, 1000, 2000, 3000))
    size = chance.randrange(1, 500)
    end = offset + chance.randrange(1, 4) if kind == BATCH else offset
    return end, newest, chance.randrange(1000), chunk, 8 * chance.randrange(99), size, 7, kind


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_those_of_a_list(seed: int) -> None:
    chance = random.Random(seed)
    rows, wanted, chunk = EntryRows(), list[EntryRow](), 1
    for _ in range(400):
        count = len(wanted)
        match chance.randrange(8):
            case 0:
                dropped = chance.randrange(count // 2 + 1)
                rows.drop_first(dropped)
                del wanted[:dropped]
            case 1:
                kept = count - chance.randrange(count // 4 + 1)
                rows.cut(kept)
                del wanted[kept:]
            case 2 if count:
                at = chance.randrange(count)
                end, _newest, *rest = wanted[at]
                wanted[at] = (end, 77, *rest)  # type: ignore[assignment]
                rows.replace(at, wanted[at])
            case _:
                for _ in range(chance.randrange(6)):
                    chunk += chance.random() < 0.1
                    wanted.append(entry(chance, wanted[-1][0] if wanted else 0, chunk))
                    rows.add(wanted[-1])
        look_at(chance, rows, wanted)


def look_at(chance: random.Random, rows: EntryRows, wanted: list[EntryRow]) -> None:
    at = chance.randrange(len(wanted) + 1)
    end = chance.randrange(at, len(wanted) + 1)
    assert len(rows) == len(wanted)
    assert [*rows.rows(0, len(wanted) + 5)] == wanted
    some = wanted[at:end]
    assert [*rows.rows(at, end)] == some
    assert rows.sums(at, end) == (
        sum(row[5] for row in some),
        sum(row[7] == TRIM for row in some),
        max((row[1] for row in some), default=-(1 << 63)),
    )
    in_chunk = 0
    while in_chunk < len(some) and some[in_chunk][3] == some[0][3]:
        in_chunk += 1
    assert rows.same_chunk(at, end) == in_chunk
    offset = chance.randrange(wanted[-1][0] + 2) if wanted else 0
    above = (number for number, row in enumerate(wanted) if row[0] > offset)
    assert rows.find(offset) == next(above, len(wanted))


def test_memory_is_given_back() -> None:
    rows = EntryRows()
    for number in range(1000):
        rows.add((number + 1, 5, number, 1, 0, 1, 1, BATCH))
    rows.drop_first(999)
    assert [*rows.rows(0, 1)] == [(1000, 5, 999, 1, 0, 1, 1, BATCH)]
    assert rows._capacity < 20


def collected(rows: list[EntryRow], given: Collecting) -> int:
    """Return how many go to a segment, as FORMAT.md and Kafka have it."""
    log_bytes, oldest, last_offset = 0, given.oldest, given.last_offset
    for number, (end, newest, _lsn, _chunk, _at, size, _term, kind) in enumerate(rows):
        if number and (log_bytes + size > given.bytes_max or last_offset == given.closed_at):
            return number
        if kind == BATCH:
            is_begun = given.begin + log_bytes > 0
            too_old = oldest != -1 and newest - oldest > given.segment_ms
            if number and ((log_bytes + size > given.segment_left and is_begun) or too_old):
                return number
            log_bytes += size
            oldest = newest if oldest == -1 else oldest
        last_offset = end
    return len(rows)


@pytest.mark.parametrize("seed", range(200))
def test_what_goes_to_a_segment(seed: int) -> None:
    chance = random.Random(seed)
    rows, wanted = EntryRows(), list[EntryRow]()
    for _ in range(chance.randrange(1, 60)):
        wanted.append(entry(chance, wanted[-1][0] if wanted else 10, 1))
        rows.add(wanted[-1])
    given = Collecting(
        begin=chance.choice((0, 100)),
        bytes_max=chance.choice((BIG, 2000)),
        segment_left=chance.choice((BIG, 0, 3000)),
        segment_ms=chance.choice((1 << 62, 1500, 0)),
        closed_at=chance.choice((-1, -1, 20)),
        oldest=chance.choice((-1, 900)),
        newest=chance.choice((-1, 1500)),
        biggest=chance.choice((0, 300)),
        last_offset=10,
        last_term=6,
    )
    found, made = rows.collect(0, len(wanted), given)
    taken = wanted[: collected(wanted, given)]
    batches = [row for row in taken if row[7] == BATCH]
    assert found.entries == len(taken)
    assert found.batches == len(batches)
    assert found.log_bytes == sum(row[5] for row in batches)
    assert found.all_bytes == sum(row[5] for row in taken)
    assert found.biggest == max([given.biggest, *(row[5] for row in batches)])
    assert (found.last_offset, found.last_term) == (taken[-1][0], 7)
    newest, end = given.newest, given.begin
    for number, row in enumerate(taken):
        if row[7] == BATCH:
            newest, end = max(newest, row[1]), end + row[5]
        (line,) = [made[at : at + 32] for at in (number * 32,)]
        assert line[:24] == b"".join(
            value.to_bytes(8, "little", signed=True) for value in (row[0], end, newest)
        )
        assert line[24:] == (7).to_bytes(4, "little") + bytes([row[7], 0, 0, 0])
    assert found.newest == newest
    assert len(made) == 32 * len(taken)


def test_batches_are_copied_behind_one_another() -> None:
    arena = Arena(8 << 20)
    chunks = [arena.chunk_new(1 << 20) for _ in range(2)]
    data = random.Random(1).randbytes(4096)
    arena.write(chunks[0], 0, data)
    rows = EntryRows()
    for at, size, kind in ((0, 100, BATCH), (200, 9, NEW_LEADER), (300, 50, BATCH)):
        rows.add((1, 0, 1, chunks[0], at, size, 1, kind))
    assert rows.gather(arena, chunks[1], 7, 0, 3) == 150
    assert bytes(arena.view(chunks[1], 7, 150)) == data[:100] + data[300:350]
    assert COLLECT_MAX >= 3
