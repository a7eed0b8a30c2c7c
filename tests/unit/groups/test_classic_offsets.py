"""How far groups have read: who may commit, what counts, and what is forgotten."""

import pytest

from corelane.groups.requests import DeletedOffsets, DeleteGroup, DeleteOffsets, Simple
from corelane.groups.subscribed import topics_in
from corelane.model.errors import ErrorCode
from tests.unit.groups.classic_bench import DELAY_MS, GROUP, PLACE, WALL_MS, Bench
from tests.unit.groups.consumer_bytes import subscription

DAY_MS = 24 * 3_600_000


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_offset_is_what_was_committed_last(bench: Bench) -> None:
    member = bench.stable(1)[0]
    assert bench.offset() is None
    assert bench.commit(5, member) is ErrorCode.NONE
    assert bench.commit(3, member) is ErrorCode.NONE, "a group may go back"
    assert bench.offset() == 3


def test_it_survives_another_coordinator_with_its_leader_epoch(bench: Bench) -> None:
    """Quirk 21."""
    bench.commit(7, metadata="note")
    bench.restart()
    known = bench.coordinator.offsets.of(GROUP)[PLACE]
    assert (known.offset, known.leader_epoch, known.metadata) == (7, 5, "note")


def test_without_an_identity_only_an_empty_group_takes_offsets(bench: Bench) -> None:
    """Quirk 20: simple consumers, and tools that set a group back."""
    assert bench.commit(1) is ErrorCode.NONE
    member = bench.stable(1)[0]
    assert bench.commit(2) is ErrorCode.UNKNOWN_MEMBER_ID
    bench.leave((member.member_id, None))
    assert bench.commit(3) is ErrorCode.NONE


def test_a_member_commits_in_its_generation(bench: Bench) -> None:
    leader, follower = bench.stable()
    bench.leave((follower.member_id, None))
    assert bench.commit(1, follower) is ErrorCode.UNKNOWN_MEMBER_ID
    assert bench.commit(1, leader) is ErrorCode.NONE, "while others join it may still"
    again = bench.joined(bench.join(leader.member_id))
    assert bench.commit(2, leader) is ErrorCode.ILLEGAL_GENERATION
    assert bench.commit(2, again) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.offset() == 1


def test_a_generation_of_no_group_is_illegal(bench: Bench) -> None:
    member = bench.stable(1)[0]
    assert bench.commit(1, member, group="other") is ErrorCode.ILLEGAL_GENERATION


def test_a_commit_is_a_sign_of_life(bench: Bench) -> None:
    member = bench.stable(1)[0]
    for _ in range(5):
        bench.pass_ms(9_000)
        assert bench.commit(1, member) is ErrorCode.NONE


def test_metadata_is_bounded(bench: Bench) -> None:
    assert bench.commit(1, metadata="x" * 4_097) is ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert bench.commit(1, metadata="ü" * 2_049) is ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert bench.offset() is None
    assert not bench.log, "what is refused leaves no record"


# --- transactions ---


def test_a_transactions_offsets_count_when_it_commits(bench: Bench) -> None:
    bench.commit(1)
    assert bench.commit(9, producer=(7, 0)) is ErrorCode.NONE
    assert bench.offset() == 1
    bench.coordinator.marker(7, commits=True)
    assert bench.offset() == 9


def test_they_never_count_when_it_aborts(bench: Bench) -> None:
    bench.commit(9, producer=(7, 0))
    bench.coordinator.marker(7, commits=False)
    assert bench.offset() is None


def test_who_asks_for_what_is_stable_waits_for_open_transactions(bench: Bench) -> None:
    """Quirk 19 (KIP-447); redpanda 9571."""
    bench.commit(1)
    bench.commit(9, producer=(7, 0))
    assert bench.offset(is_stable=True) is ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert bench.offset(("t", 1), is_stable=True) is None
    bench.coordinator.marker(7, commits=True)
    assert bench.offset(is_stable=True) == 9


def test_a_commit_between_is_overtaken_by_the_marker(bench: Bench) -> None:
    """Redpanda 31483: ordered by the marker, not by when it was staged."""
    bench.commit(9, producer=(7, 0))
    bench.commit(5)
    bench.coordinator.marker(7, commits=True)
    assert bench.offset() == 9


# --- deleting ---


def test_a_group_is_deleted_when_nobody_is_in_it(bench: Bench) -> None:
    member = bench.stable(1)[0]
    bench.commit(1, member)
    assert bench.answers[bench.ask(DeleteGroup(GROUP))] == Simple(ErrorCode.NON_EMPTY_GROUP)
    bench.leave((member.member_id, None))
    assert bench.answers[bench.ask(DeleteGroup(GROUP))] == Simple(ErrorCode.NONE)
    assert bench.answers[bench.ask(DeleteGroup(GROUP))] == Simple(ErrorCode.GROUP_ID_NOT_FOUND)
    bench.restart()
    assert not bench.coordinator.groups
    assert bench.offset() is None


def test_a_groups_staged_offsets_go_with_it(bench: Bench) -> None:
    """As in Kafka: the transaction may commit later, and brings nothing back."""
    bench.commit(9, producer=(7, 0))
    assert bench.answers[bench.ask(DeleteGroup(GROUP))] == Simple(ErrorCode.NONE)
    bench.coordinator.marker(7, commits=True)
    assert bench.offset() is None
    assert bench.answers[bench.ask(DeleteGroup(GROUP))] == Simple(ErrorCode.GROUP_ID_NOT_FOUND)


def test_a_staged_offset_is_deleted_where_nobody_reads(bench: Bench) -> None:
    bench.commit(1)
    bench.commit(9, producer=(7, 0))
    answer = bench.answers[bench.ask(DeleteOffsets(GROUP, (PLACE,)))]
    assert answer == DeletedOffsets(ErrorCode.NONE, (ErrorCode.NONE,))
    assert bench.offset(is_stable=True) is None, "nothing is undecided"
    bench.coordinator.marker(7, commits=True)
    assert bench.offset() is None


def test_what_is_staged_after_a_delete_counts(bench: Bench) -> None:
    bench.commit(9, producer=(7, 0))
    bench.ask(DeleteGroup(GROUP))
    bench.commit(11, producer=(7, 0))
    bench.coordinator.marker(7, commits=True)
    assert bench.offset() == 11


def test_offsets_of_topics_that_are_read_stay(bench: Bench) -> None:
    bench.stable(1, protocols=(("range", subscription("t")),))
    bench.commit(1, bench.joined(1))
    bench.commit(2, bench.joined(1), place=("u", 0))
    answer = bench.answers[bench.ask(DeleteOffsets(GROUP, (PLACE, ("u", 0), ("v", 0))))]
    assert answer == DeletedOffsets(
        ErrorCode.NONE,
        (ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.NONE, ErrorCode.NONE),
    )
    assert bench.offset() == 1
    assert bench.offset(("u", 0)) is None


def test_of_other_types_nobody_knows_what_they_read(bench: Bench) -> None:
    bench.stable(1, kind="connect")
    answer = bench.answers[bench.ask(DeleteOffsets(GROUP, (PLACE,)))]
    assert answer == DeletedOffsets(ErrorCode.NON_EMPTY_GROUP)


def test_offsets_of_no_group_are_not_found(bench: Bench) -> None:
    answer = bench.answers[bench.ask(DeleteOffsets(GROUP, (PLACE,)))]
    assert answer == DeletedOffsets(ErrorCode.GROUP_ID_NOT_FOUND)


def test_offsets_go_with_their_topic(bench: Bench) -> None:
    bench.commit(1)
    bench.commit(2, place=("u", 0))
    bench.coordinator.topics_deleted({"t"})
    assert bench.offset() is None
    assert bench.offset(("u", 0)) == 2


@pytest.mark.parametrize(
    "data", [b"", b"\x00", subscription("t")[:-1], b"\x00\x01\x7f\xff\xff\xff", b"\x00\x01" * 40]
)
def test_a_subscription_that_cannot_be_read_names_no_topic(data: bytes) -> None:
    assert topics_in(data) == frozenset()


# --- expiry ---


def test_offsets_are_kept_for_a_week_after_the_group_became_empty(bench: Bench) -> None:
    """Quirk 20."""
    member = bench.stable(1)[0]
    bench.commit(1, member)
    for _ in range(3_000):  # the member lives for eight hours
        bench.pass_ms(9_000)
        bench.beat(member)
    bench.leave((member.member_id, None))
    bench.pass_ms(7 * DAY_MS - 600_000)
    assert bench.offset() == 1
    bench.pass_ms(1_200_000)
    assert bench.offset() is None
    assert not bench.coordinator.groups
    bench.restart()
    assert not bench.coordinator.groups
    assert not [*bench.coordinator.live_records()]


def test_a_simple_consumers_offset_counts_from_its_commit(bench: Bench) -> None:
    bench.commit(1)
    bench.pass_ms(4 * DAY_MS)
    bench.commit(2, place=("u", 0))
    bench.pass_ms(4 * DAY_MS)
    assert bench.offset() is None
    assert bench.offset(("u", 0)) == 2


def test_what_a_transaction_has_yet_to_decide_is_not_forgotten(bench: Bench) -> None:
    bench.commit(1)
    bench.commit(9, producer=(7, 0))
    bench.pass_ms(9 * DAY_MS)
    assert bench.offset() == 1


def test_the_first_look_is_not_before_time(bench: Bench) -> None:
    assert bench.coordinator.next_deadline_ms > bench.now_ms
    assert bench.wall_ms > WALL_MS
    bench.join()
    assert bench.coordinator.next_deadline_ms <= bench.now_ms + DELAY_MS
