"""The data link keeps its bounds, its order and its references, whatever the peer acknowledges.

Method: two ends over one wire that this file carries by hand, frame by frame.
"""

import pytest

from corelane.model import limits
from corelane.model.ids import ChunkId, ConnId, GroupId, Index, Position, Term
from corelane.raft.messages import Append, Appended, VoteAnswer
from corelane.shard.effects import Send
from corelane.shard.peers.data_link import Address, DataLink
from corelane.shard.peers.frames import LENGTH_BYTES, Channel, FrameError, decode
from corelane.shard.peers.line import Line
from corelane.storage.entries import ENTRY_HEAD, ENTRY_HEAD_BYTES
from corelane_native import Arena

MIB = limits.MIB
TO = Address(GroupId(7), 1, 3 << 32 | 2)


class End:
    """One end, with an arena of its own and one large chunk in it."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.arena = Arena(256 * MIB)
        self.chunk = ChunkId(self.arena.chunk_new(112 * MIB))
        self.line = Line(Channel.DATA, 0)
        self.link = DataLink(self.line, self.arena)
        if is_open:
            self.open()

    def open(self) -> None:
        self.line.connected(ConnId(1))
        self.line.opened(0, 1)
        self.link.opened()

    def append(self, index: int, size_bytes: int, now_ms: int = 0) -> None:
        """Send an append of one entry; its payload stays in the chunk."""
        message = Append(
            Term(1), 0, Index(index - 1), Term(index > 1), Index(index),
            ((Index(index), Term(1)),), Index(0),
        )  # fmt: skip
        self.arena.retain(self.chunk)
        part = (self.chunk, Position(0), size_bytes - ENTRY_HEAD_BYTES)
        self.link.put(now_ms, TO, message, [ENTRY_HEAD.pack(1, part[2]), part], [self.chunk])

    def word(self, number: int) -> None:
        self.link.put(0, TO, VoteAnswer(Term(1), number, True))

    def sent(self) -> bytes | None:
        """Return the frame of a turn in which heartbeats are due, performed."""
        self.link.settle()
        effect = self.link.flush()
        if effect is None:
            return None
        return self.performed(effect)

    def performed(self, effect: Send) -> bytes:
        parts = [
            part if isinstance(part, bytes) else bytes(self.arena.view(*part))
            for part in effect.parts
        ]
        for chunk in effect.chunks_held:
            self.arena.release(chunk)
        return b"".join(parts)[LENGTH_BYTES:]

    def take(self, data: bytes | None, now_ms: int = 0) -> list[int]:
        """Take a frame; return words' numbers and appends' last indexes."""
        assert data is not None
        frame = decode(data, limits.PEER_FRAME_BYTES_MAX)
        self.line.take(frame.number)
        found = []
        for each in self.link.take(now_ms, frame.body):
            assert (each.group, each.sender, each.recipient) == (7, 1, 3 << 32 | 2)
            if isinstance(each.message, VoteAnswer):
                assert len(each.payload) == 0
                found.append(each.message.round)
            else:
                assert isinstance(each.message, Append)
                assert bytes(each.payload[:ENTRY_HEAD_BYTES]) == ENTRY_HEAD.pack(
                    1, len(each.payload) - ENTRY_HEAD_BYTES
                )
                found.append(-each.message.last_index)
        return found


def test_a_turn_is_one_frame_and_words_go_before_appends_which_keep_their_order() -> None:
    near, far = End(), End()
    near.append(1, 100)
    near.word(1)
    near.append(2, 100)
    near.word(2)
    assert far.take(near.sent()) == [1, 2, -1, -2]
    assert near.sent() is None
    assert near.arena.references(near.chunk) == 1


def test_nothing_of_a_payload_is_copied() -> None:
    near = End()
    near.append(1, MIB)
    effect = near.link.flush()
    assert effect is not None
    assert [part for part in effect.parts if not isinstance(part, bytes)] == [
        (near.chunk, 0, MIB - ENTRY_HEAD_BYTES)
    ]
    assert sum(len(part) for part in effect.parts if isinstance(part, bytes)) < 200
    assert effect.chunks_held == [near.chunk]
    near.performed(effect)


def test_what_has_arrived_is_acknowledged_once_and_an_acknowledgement_is_not() -> None:
    near, far = End(), End()
    near.word(1)
    far.take(near.sent())
    assert near.link.flight_bytes > 0
    near.take(far.sent())
    assert near.link.flight_bytes == 0
    assert near.sent() is None
    assert far.sent() is None


def test_acknowledgements_wait_for_a_frame_that_says_something_or_a_heartbeat() -> None:
    near, far = End(), End()
    near.append(1, 100)
    far.take(near.sent())
    assert far.link.flush() is None
    far.word(1)
    effect = far.link.flush()
    assert effect is not None
    assert near.take(far.performed(effect)) == [1]
    assert near.link.flight_bytes == 0
    near.append(2, 100)
    far.take(near.sent())
    far.link.settle()
    assert far.link.flush() is not None


def test_much_that_has_arrived_is_acknowledged_at_once() -> None:
    near, far = End(), End()
    for index in range(1, 10):
        near.append(index, limits.PEER_OWED_BYTES_MAX // 8)
        far.take(near.sent())
        effect = far.link.flush()
        if effect is not None:
            near.take(far.performed(effect))
        assert near.link.flight_bytes < limits.PEER_OWED_BYTES_MAX
    assert near.link.flight_bytes < limits.PEER_OWED_BYTES_MAX // 4, "8 of 9 are acknowledged"


def test_flight_is_bounded_and_goes_on_with_acknowledgements() -> None:
    near, far = End(), End()
    frames: list[bytes] = []
    for index in range(1, 200):
        near.append(index, MIB)
        sent = near.sent()
        if sent is not None:
            frames.append(sent)
        assert near.link.flight_bytes <= limits.PEER_FLIGHT_BYTES_MAX
        assert near.link.queued_bytes <= limits.PEER_QUEUE_BYTES_MAX + MIB
    assert len(frames) == 31, "32 MiB hold 31 appends of a MiB and their heads"
    taken = [index for frame in frames for index in far.take(frame)]
    near.take(far.sent())
    taken += far.take(near.sent())
    assert taken[:31] == [-index for index in range(1, 32)]
    assert taken[31] < -100, "the oldest of those that waited were dropped"
    assert near.link.dropped > 100


def test_appends_that_wait_are_dropped_oldest_first_and_their_references_given_back() -> None:
    near = End(is_open=True)
    for index in range(1, 100):
        near.append(index, MIB)
    assert near.link.queued_bytes <= limits.PEER_QUEUE_BYTES_MAX + MIB
    assert near.link.dropped == 99 - len(near.link)
    assert near.arena.references(near.chunk) == 1 + len(near.link)
    near.line.failed(0, Dice())
    near.link.closed(0)
    assert near.arena.references(near.chunk) == 1
    assert len(near.link) == 0


def test_words_that_wait_are_bounded_by_number() -> None:
    near = End()
    for number in range(limits.PEER_QUEUE_MESSAGES_MAX + 100):
        near.word(number)
    assert len(near.link) == limits.PEER_QUEUE_MESSAGES_MAX
    far = End()
    assert far.take(near.sent())[0] == 100, "the oldest were dropped"


def test_a_message_without_a_connection_is_dropped_and_ages_the_link() -> None:
    near = End(is_open=False)
    assert near.link.age_ms(50) is None, "nothing is due"
    near.append(1, 100, now_ms=100)
    assert near.arena.references(near.chunk) == 1
    assert near.link.age_ms(600) == 500
    near.open()
    assert near.link.age_ms(700) == 600, "that it opens is no progress"
    far = End()
    far.take(near.sent(), now_ms=700)
    near.take(far.sent(), now_ms=710)
    assert near.link.age_ms(800) is None
    assert near.sent() is None


def test_the_age_is_that_of_the_last_progress() -> None:
    near, far = End(), End()
    near.append(1, 100, now_ms=0)
    first = near.sent()
    near.append(2, 100, now_ms=300)
    second = near.sent()
    assert near.link.age_ms(400) == 400
    far.take(first)
    near.take(far.sent(), now_ms=500)
    assert near.link.age_ms(600) == 100
    far.take(second)
    near.take(far.sent(), now_ms=700)
    assert near.link.age_ms(9_000) is None


@pytest.mark.parametrize("size_bytes", [5 * MIB, 40 * MIB, 100 * MIB])
def test_one_large_message_goes_alone_whatever_else_is_said(size_bytes: int) -> None:
    near, far = End(), End()
    near.append(1, MIB)
    far.take(near.sent())
    near.append(2, size_bytes)
    near.append(3, 100)
    near.word(1)
    taken: list[int] = []
    for _ in range(3):
        frame = near.sent()
        if frame is not None:
            taken += far.take(frame)
        answer = far.sent()
        if answer is not None:
            near.take(answer)
    assert taken == [1, -2, -3]
    assert near.link.dropped == 0


def test_what_was_never_sent_cannot_arrive() -> None:
    near, far = End(), End()
    near.word(1)
    far.take(near.sent())
    stranger = End()
    with pytest.raises(FrameError, match="never sent"):
        stranger.take(far.sent())
    assert stranger.link.flight_bytes == 0


def test_a_payload_needs_its_append() -> None:
    near, far = End(), End()
    near.link.put(0, TO, Appended(Term(1), Index(1), Index(1)), [b"entry"])
    with pytest.raises(FrameError, match="without their append"):
        far.take(near.sent())


class Dice:
    """Chance without any."""

    def randrange(self, stop: int, /) -> int:
        return stop - 1
