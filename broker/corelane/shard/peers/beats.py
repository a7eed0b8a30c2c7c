"""The frames by which cores know of each other that they live, as bytes.

    BEAT         u64 boot epoch | u32 round | u32 loop lag | u32 age of the WAL's progress
                 | u32 age of the data link's progress | u32 KiB/s wanted | u32 1 if unfit
                 | u32 rows | u32 incarnations
                 | rows: u64 group, u32 term, u64 committed | incarnations
    BEAT_ANSWER  u64 boot epoch | u32 round | u32 followed | u32 higher | u32 incarnations
                 | followed: u64 group, u32 term | higher: the same | incarnations
    ENDED        u32 lives | lives: u16 core, u64 boot epoch

Times are milliseconds, ages 2^32 - 1 while nothing is pending. A row speaks from the member of
incarnation 0 at the sender's node to that at the receiver's; where either is another one, its
group has an *incarnation* of 16 bytes: u64 group, u32 the sender's, u32 the receiver's. That is
nothing for most groups and 16 bytes for one that was repaired or came back.
"""

# performance-critical: see STYLE.md

import struct
from typing import Final

from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, Term
from corelane.model.record import record
from corelane.raft import codec
from corelane.raft.codec import AnswerRow, HeartbeatRow, MalformedMessageError
from corelane.shard.peers.frames import FrameError, check, unpack

_BEAT: Final = struct.Struct("<QIIIIIIII")
_ANSWER: Final = struct.Struct("<QIIII")
_ENDED: Final = struct.Struct("<I")
_LIFE: Final = struct.Struct("<HQ")
_INCARNATION: Final = struct.Struct("<QII")
_BEAT_ROW_BYTES: Final = 20
_ANSWER_ROW_BYTES: Final = 12
AGE_NONE: Final = (1 << 32) - 1
"""Nothing is pending."""
LIVES_MAX: Final = limits.CORES_MAX

Incarnations = dict[GroupId, tuple[int, int]]
"""Of the groups where a member is not the first of its node: the sender's, the receiver's."""


@record
class Health:
    """What a core says of itself."""

    lag_ms: int
    """How late its loop was."""
    wal_age_ms: int | None
    """Since its last completed WAL write, while one is pending."""
    data_age_ms: int | None
    """Since something of what it sent to the receiver last arrived, while something should."""
    catchup_kib: int = 0
    """How much a second it wants to get from the receiver of what its replicas missed."""
    is_unfit: bool = False
    """It is about to stop, or its disk is full: nothing is to be handed over to it."""


@record
class Beat:
    """One heartbeat frame; the rows are still bytes: most frames repeat those of the last."""

    boot: int
    round: int
    health: Health
    rows: bytes
    incarnations: bytes


@record
class Answer:
    """What a core says to a heartbeat frame; the rows are still bytes."""

    boot: int
    round: int
    followed: bytes
    higher: bytes
    incarnations: bytes


def encode_beat(beat: Beat) -> bytes:
    """Return the body of BEAT."""
    health = beat.health
    head = _BEAT.pack(
        beat.boot,
        beat.round,
        min(health.lag_ms, AGE_NONE),
        AGE_NONE if health.wal_age_ms is None else min(health.wal_age_ms, AGE_NONE - 1),
        AGE_NONE if health.data_age_ms is None else min(health.data_age_ms, AGE_NONE - 1),
        health.catchup_kib,
        health.is_unfit,
        len(beat.rows) // _BEAT_ROW_BYTES,
        len(beat.incarnations) // _INCARNATION.size,
    )
    return head + beat.rows + beat.incarnations


def decode_beat(body: memoryview) -> Beat:
    """Return the heartbeat that *body* is; FrameError otherwise."""
    boot, number, lag_ms, wal_age_ms, data_age_ms, catchup_kib, unfit, *counts = unpack(
        _BEAT, body, "A heartbeat"
    )
    rows, incarnations = counts
    check(unfit <= 1, "A heartbeat neither fit nor unfit.")
    _check_counts(rows, incarnations)
    middle = _BEAT.size + rows * _BEAT_ROW_BYTES
    check(len(body) == middle + incarnations * _INCARNATION.size, "A heartbeat has another length.")
    health = Health(
        lag_ms,
        None if wal_age_ms == AGE_NONE else wal_age_ms,
        None if data_age_ms == AGE_NONE else data_age_ms,
        catchup_kib,
        bool(unfit),
    )
    return Beat(boot, number, health, bytes(body[_BEAT.size : middle]), bytes(body[middle:]))


def encode_answer(answer: Answer) -> bytes:
    """Return the body of BEAT_ANSWER."""
    counts = (len(answer.followed) // _ANSWER_ROW_BYTES, len(answer.higher) // _ANSWER_ROW_BYTES)
    incarnations = len(answer.incarnations) // _INCARNATION.size
    head = _ANSWER.pack(answer.boot, answer.round, *counts, incarnations)
    return head + answer.followed + answer.higher + answer.incarnations


def decode_answer(body: memoryview) -> Answer:
    """Return the answer that *body* is; FrameError otherwise."""
    boot, number, followed, higher, incarnations = unpack(_ANSWER, body, "An answer")
    _check_counts(followed + higher, incarnations)
    first = _ANSWER.size + followed * _ANSWER_ROW_BYTES
    second = first + higher * _ANSWER_ROW_BYTES
    check(len(body) == second + incarnations * _INCARNATION.size, "An answer has another length.")
    rows = (bytes(body[_ANSWER.size : first]), bytes(body[first:second]))
    return Answer(boot, number, *rows, bytes(body[second:]))


def _check_counts(rows: int, incarnations: int) -> None:
    check(rows <= limits.PEER_BEAT_ROWS_MAX, f"A heartbeat with {rows} rows.")
    check(incarnations <= rows, "More incarnations than rows.")


def encode_ended(lives: list[tuple[CoreId, int]]) -> bytes:
    """Return the body of ENDED."""
    assert len(lives) <= LIVES_MAX
    return _ENDED.pack(len(lives)) + b"".join([_LIFE.pack(*life) for life in lives])


def decode_ended(body: memoryview) -> list[tuple[CoreId, int]]:
    """Return the lives that have ended; FrameError for bytes that are none."""
    (count,) = unpack(_ENDED, body, "A list of ended lives")
    check(count <= LIVES_MAX, "More lives than cores.")
    check(len(body) == _ENDED.size + count * _LIFE.size, "A list of lives has another length.")
    return [(CoreId(core), boot) for core, boot in _LIFE.iter_unpack(body[_ENDED.size :])]


def beat_rows(data: bytes) -> list[HeartbeatRow]:
    """Return the rows of a heartbeat; FrameError if they cannot be."""
    try:
        return codec.unpack_heartbeats(data)
    except MalformedMessageError as fault:
        raise FrameError(f"A heartbeat cannot be read: {fault}.") from fault


def answer_rows(data: bytes) -> list[AnswerRow]:
    """Return rows of an answer; FrameError if they cannot be."""
    try:
        return codec.unpack_heartbeat_answers(data)
    except MalformedMessageError as fault:
        raise FrameError(f"An answer cannot be read: {fault}.") from fault


def encode_incarnations(incarnations: Incarnations) -> bytes:
    """Return what follows the rows of a heartbeat or an answer."""
    return b"".join([_INCARNATION.pack(group, *each) for group, each in incarnations.items()])


def decode_incarnations(data: bytes) -> Incarnations:
    """Return what `encode_incarnations` was given; FrameError otherwise."""
    if not data:
        return {}
    found = {
        GroupId(group): (sender, receiver)
        for group, sender, receiver in _INCARNATION.iter_unpack(data)
    }
    check(len(found) * _INCARNATION.size == len(data), "A group has two incarnations.")
    check((0, 0) not in found.values(), "An incarnation that needs no saying.")
    return found


def mark(term: Term, incarnation: int) -> int:
    """Return term and incarnation of a row's sender as one number, to be compared at once."""
    return incarnation << 32 | term
