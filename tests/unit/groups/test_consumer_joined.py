"""Groups of both protocols under one coordinator: a name is of one kind at a time."""

import pytest

from corelane.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer
from corelane.groups.records import CommittedOffset
from corelane.groups.requests import (
    Commit,
    Committed,
    ConsumerBeat,
    DeletedOffsets,
    DeleteGroup,
    DeleteOffsets,
    FetchedOffsets,
    FetchOffsets,
    Identity,
    Simple,
)
from corelane.model.errors import ErrorCode
from corelane.shard import group_host
from tests.unit.groups.classic_bench import DELAY_MS, GROUP, PLACE, Bench

SESSION_MS = 45_000


@pytest.fixture
def bench() -> Bench:
    return Bench()


def beat(
    bench: Bench, member: str, epoch: int, owned: ConsumerHeartbeatAnswer | None = None
) -> ConsumerHeartbeatAnswer:
    joins = epoch == 0
    held = None if owned is None else owned.assignment
    request = ConsumerHeartbeat(
        member_id=member,
        proposed_member_id="",
        member_epoch=epoch,
        instance_id=None,
        rack_id=None,
        client_id="c",
        client_host="/h",
        rebalance_timeout_ms=30_000 if joins else -1,
        topic_names=("t",) if joins else None,
        topic_regex=None,
        server_assignor=None,
        owned=frozenset() if joins else held,
    )
    answer = bench.answers[bench.ask(ConsumerBeat(GROUP, request))]
    assert isinstance(answer, ConsumerHeartbeatAnswer)
    return answer


def commit(bench: Bench, member: str, epoch: int) -> ErrorCode:
    value = CommittedOffset(7, -1, "", bench.wall_ms)
    identity = Identity(GROUP, epoch, member, None)
    answer = bench.answers[bench.ask(Commit(identity, ((PLACE, value),)))]
    assert isinstance(answer, Committed)
    return answer.errors[0]


def test_members_go_on_after_another_coordinator_took_over(bench: Bench) -> None:
    joined = beat(bench, "a", 0)
    assert joined.error is ErrorCode.NONE
    assert len(joined.assignment or ()) == 2
    bench.restart()
    again = beat(bench, "a", joined.member_epoch, joined)
    assert (again.error, again.member_epoch) == (ErrorCode.NONE, joined.member_epoch)


def test_the_order_of_the_latest_records_does_not_matter(bench: Bench) -> None:
    """A compacted log has each key where it changed last: members may come before their group."""
    beat(bench, "a", 0)
    latest: dict[bytes, bytes] = {}
    for made in bench.log:
        key, value = group_host.encode(made)
        latest.pop(key, None)
        if value is not None:
            latest[key] = value
    found = [group_host.decode(key, value) for key, value in reversed(latest.items())]
    bench.log = [each for each in found if each is not None]
    bench.restart()
    assert bench.coordinator.consumers.describe(GROUP, bench.topics) is not None
    assert beat(bench, "a", 1).error is ErrorCode.NONE


def test_a_silent_member_is_let_go(bench: Bench) -> None:
    joined = beat(bench, "a", 0)
    bench.pass_ms(SESSION_MS - 1)
    assert beat(bench, "a", joined.member_epoch).error is ErrorCode.NONE
    bench.pass_ms(SESSION_MS)
    assert beat(bench, "a", joined.member_epoch).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_an_empty_classic_group_gives_its_name_up(bench: Bench) -> None:
    member = bench.stable(1)[0]
    assert beat(bench, "a", 0).error is ErrorCode.GROUP_ID_NOT_FOUND
    bench.leave((member.member_id, None))
    assert beat(bench, "a", 0).error is ErrorCode.NONE
    assert GROUP not in bench.coordinator.groups
    bench.restart()
    assert GROUP not in bench.coordinator.groups
    assert GROUP in bench.coordinator.consumers


def test_and_the_other_way_round(bench: Bench) -> None:
    joined = beat(bench, "a", 0)
    refused = bench.joined(bench.join())
    assert refused.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert beat(bench, "a", -1).error is ErrorCode.NONE
    token = bench.join()
    bench.pass_ms(DELAY_MS)
    assert bench.joined(token).error is ErrorCode.NONE
    bench.assign([bench.joined(token)])
    assert beat(bench, "a", joined.member_epoch).error is ErrorCode.GROUP_ID_NOT_FOUND
    bench.restart()
    assert GROUP not in bench.coordinator.consumers


def test_offsets_are_of_members_at_their_epoch(bench: Bench) -> None:
    joined = beat(bench, "a", 0)
    assert commit(bench, "a", joined.member_epoch) is ErrorCode.NONE
    assert commit(bench, "a", joined.member_epoch - 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert commit(bench, "b", 1) is ErrorCode.UNKNOWN_MEMBER_ID
    for epoch, error in ((joined.member_epoch, 0), (9, ErrorCode.STALE_MEMBER_EPOCH)):
        wish = FetchOffsets(GROUP, (PLACE,), False, "a", epoch)
        answer = bench.answers[bench.ask(wish)]
        assert isinstance(answer, FetchedOffsets)
        assert answer.error == error


def test_what_is_read_is_not_deleted(bench: Bench) -> None:
    joined = beat(bench, "a", 0)
    commit(bench, "a", joined.member_epoch)
    answer = bench.answers[bench.ask(DeleteOffsets(GROUP, (PLACE,)))]
    assert answer == DeletedOffsets(ErrorCode.NONE, (ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC,))
    assert bench.answers[bench.ask(DeleteGroup(GROUP))] == Simple(ErrorCode.NON_EMPTY_GROUP)
    beat(bench, "a", -1)
    assert bench.answers[bench.ask(DeleteGroup(GROUP))] == Simple(ErrorCode.NONE)
    assert bench.offset() is None
    assert not [*bench.coordinator.live_records()]


def test_both_kinds_are_listed(bench: Bench) -> None:
    beat(bench, "a", 0)
    bench.commit(1, group="other")
    assert sorted(bench.coordinator.listed()) == [
        ("g", "consumer", "Stable", "consumer"),
        ("other", "", "Empty", "classic"),
    ]
