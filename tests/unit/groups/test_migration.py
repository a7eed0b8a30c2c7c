"""Members of both protocols in one group: it goes up and down while they go on (KIP-848)."""

import dataclasses
from collections.abc import Callable

import pytest

from corelane.groups.classic_group import State
from corelane.groups.consumer_requests import (
    ConsumerGroupSettings,
    ConsumerHeartbeatAnswer,
    Migration,
)
from corelane.groups.records import CommittedOffset
from corelane.groups.requests import (
    Beat,
    Commit,
    Committed,
    ConsumerBeat,
    FetchedOffsets,
    FetchOffsets,
    Identity,
    Joined,
    Simple,
    Sync,
    Synced,
)
from corelane.model.errors import ErrorCode
from tests.unit.groups.classic_bench import GROUP, PLACE, REBALANCE_MS, SESSION_MS, Bench
from tests.unit.groups.consumer_bytes import assigned, assignment, subscription
from tests.unit.groups.consumer_world import heartbeat, joining, some
from tests.unit.groups.test_migration_storm import folded

PARTITIONS = 4
ALL = [("t", number) for number in range(PARTITIONS)]
PROTOCOLS = (("range", subscription("t")), ("roundrobin", subscription("t")))


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.topics.set("t", PARTITIONS)
    return bench


def classic(bench: Bench, *, instances: tuple[str | None, ...] = (None, None)) -> list[Joined]:
    """Return the members of a classic group that share the topic; the first one leads."""
    tokens = [bench.join(instance=each, protocols=PROTOCOLS) for each in instances]
    bench.pass_ms(2 * bench.settings.initial_delay_ms)
    members = sorted(map(bench.joined, tokens), key=lambda each: each.member_id != each.leader)
    for follower in members[1:]:
        bench.sync(follower)
    share = {each.member_id: assignment(ALL[n::2]) for n, each in enumerate(members)}
    bench.sync(members[0], share)
    return members


def set_consumers(bench: Bench, settings: ConsumerGroupSettings) -> None:
    bench.coordinator.settings = dataclasses.replace(bench.settings, consumer=settings)


def new(bench: Bench, member_id: str, **said: object) -> ConsumerHeartbeatAnswer:
    """Join with the new protocol."""
    return told(bench, joining(member_id, "t", **said))


def told(bench: Bench, beat: object) -> ConsumerHeartbeatAnswer:
    answer = bench.answers[bench.ask(ConsumerBeat(GROUP, beat))]  # type: ignore[arg-type]
    assert isinstance(answer, ConsumerHeartbeatAnswer)
    return answer


def rejoin(bench: Bench, member: Joined, **how: object) -> Joined:
    """Join again, and be answered at once."""
    how = {"protocols": PROTOCOLS} | how
    return bench.joined(bench.join(member.member_id, **how))  # type: ignore[arg-type]


def synced(bench: Bench, joined: Joined, instance: str | None = None) -> set[tuple[str, int]]:
    """Ask what to read, with success."""
    identity = Identity(GROUP, joined.generation_id, joined.member_id, instance)
    answer = bench.answers[bench.ask(Sync(identity, "consumer", "range", ()))]
    assert isinstance(answer, Synced)
    assert answer.error is ErrorCode.NONE
    assert (answer.protocol_type, answer.protocol) == ("consumer", "range")
    return assigned(answer.assignment)


def check(bench: Bench) -> None:
    """The state is what the log says."""
    assert folded(bench.coordinator.live_records()) == folded(bench.log)


def test_a_member_of_the_new_protocol_takes_over_a_classic_group(bench: Bench) -> None:
    a, b = classic(bench)
    first = new(bench, "n")
    assert first.error is ErrorCode.NONE
    assert first.member_epoch == a.generation_id + 1
    assert first.assignment == frozenset(), "all is read by others still"
    assert GROUP not in bench.coordinator.groups
    check(bench)
    for member in (a, b):
        assert bench.beat(member) is ErrorCode.REBALANCE_IN_PROGRESS
    again = rejoin(bench, a)
    assert (again.error, again.generation_id) == (ErrorCode.NONE, first.member_epoch)
    assert (again.leader, again.members) == ("", ())
    assert (again.protocol_type, again.protocol) == ("consumer", "range")
    have = synced(bench, again)
    assert bench.beat(again) is ErrorCode.NONE
    other = rejoin(bench, b)
    have |= synced(bench, other)
    second = told(bench, heartbeat("n", first.member_epoch, owned=frozenset()))
    assert second.assignment is not None
    assert len(have) + len(second.assignment) == PARTITIONS
    check(bench)
    bench.restart()
    assert bench.beat(again) is ErrorCode.NONE
    assert bench.beat(b) is ErrorCode.ILLEGAL_GENERATION


def test_the_last_of_the_new_protocol_leaves_a_classic_group_behind(bench: Bench) -> None:
    a, b = classic(bench)
    first = new(bench, "n")
    a, b = rejoin(bench, a), rejoin(bench, b)
    synced(bench, a)
    synced(bench, b)
    assert told(bench, heartbeat("n", -1)).error is ErrorCode.NONE
    group = bench.coordinator.groups[GROUP]
    assert (group.state, group.generation_id) == (State.PREPARING, first.member_epoch)
    assert GROUP not in bench.coordinator.consumers
    check(bench)
    assert bench.beat(a) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.commit(7, a) is ErrorCode.NONE, "who gives back may say how far it came"
    tokens = [bench.join(each.member_id, protocols=PROTOCOLS) for each in (a, b)]
    joined = [bench.joined(token) for token in tokens]
    assert {each.generation_id for each in joined} == {first.member_epoch + 1}
    assert sum(bool(each.members) for each in joined) == 1, "one of them leads"
    assert bench.offset() == 7
    check(bench)


def test_a_rebalance_that_was_due_is_begun_by_the_next_coordinator(bench: Bench) -> None:
    a, _b = classic(bench)
    new(bench, "n")
    a = rejoin(bench, a)
    told(bench, heartbeat("n", -1))
    bench.restart()
    check(bench)
    assert bench.coordinator.groups[GROUP].state is State.PREPARING
    assert bench.beat(a) is ErrorCode.REBALANCE_IN_PROGRESS
    bench.join(a.member_id, protocols=PROTOCOLS)
    bench.pass_ms(SESSION_MS)  # the other one does not come
    assert len(bench.coordinator.groups[GROUP].members) == 1


def test_a_silent_member_of_the_new_protocol_is_the_last_one_too(bench: Bench) -> None:
    a, _b = classic(bench)
    new(bench, "n")
    a = rejoin(bench, a)
    synced(bench, a)
    for _ in range(9):
        bench.pass_ms(SESSION_MS // 2)
        if (
            bench.beat(a) is ErrorCode.REBALANCE_IN_PROGRESS
            and GROUP in bench.coordinator.consumers
        ):
            a = rejoin(bench, a)
            synced(bench, a)
    assert bench.coordinator.groups[GROUP].state is State.PREPARING
    check(bench)


def test_classic_members_are_thrown_out_by_their_own_timeouts(bench: Bench) -> None:
    a, b = classic(bench)
    new(bench, "n")
    bench.pass_ms(SESSION_MS - 1)
    assert bench.beat(a) is ErrorCode.REBALANCE_IN_PROGRESS  # from now on it is to join again
    bench.pass_ms(1)
    assert bench.beat(b) is ErrorCode.UNKNOWN_MEMBER_ID, "its session is over"
    for _ in range(2 * REBALANCE_MS // SESSION_MS - 1):
        bench.pass_ms(SESSION_MS // 2)
        assert bench.beat(a) is ErrorCode.REBALANCE_IN_PROGRESS
    bench.pass_ms(SESSION_MS // 2)
    assert bench.beat(a) is ErrorCode.UNKNOWN_MEMBER_ID, "it did not join in its time"
    check(bench)


def test_who_joins_and_does_not_ask_what_to_read_is_thrown_out(bench: Bench) -> None:
    a, _b = classic(bench)
    new(bench, "n")
    a = rejoin(bench, a)
    for _ in range(2 * REBALANCE_MS // SESSION_MS):
        bench.pass_ms(SESSION_MS // 2)
        last = bench.beat(a)
    assert last is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_cooperative_member_gives_back_before_others_take(bench: Bench) -> None:
    def protocols(*owned: tuple[str, int]) -> tuple[tuple[str, bytes], ...]:
        return (("cooperative-sticky", subscription("t", owned=owned)),)

    token = bench.join(protocols=protocols())
    bench.pass_ms(2 * bench.settings.initial_delay_ms)
    a = bench.joined(token)
    bench.sync(a, {a.member_id: assignment(ALL)})
    first = new(bench, "n")
    assert bench.beat(a) is ErrorCode.REBALANCE_IN_PROGRESS
    again = rejoin(bench, a, protocols=protocols(*ALL))
    assert again.generation_id == a.generation_id, "it has yet to give back"
    kept = assigned(bench.synced(bench.sync(again)).assignment)
    assert len(kept) == PARTITIONS // 2
    waits = told(bench, heartbeat("n", first.member_epoch, owned=frozenset()))
    assert not waits.assignment
    assert bench.beat(again) is ErrorCode.REBALANCE_IN_PROGRESS
    last = rejoin(bench, again, protocols=protocols(*sorted(kept)))
    assert last.generation_id == first.member_epoch
    assert assigned(bench.synced(bench.sync(last)).assignment) == kept
    given = told(bench, heartbeat("n", first.member_epoch, owned=frozenset()))
    assert given.assignment == some("t", *(n for _, n in set(ALL) - kept))
    assert bench.beat(last) is ErrorCode.NONE
    check(bench)


def test_what_a_cooperative_member_has_yet_to_give_back_is_not_given_to_another(
    bench: Bench,
) -> None:
    """U1: its leader took a partition from it, and it has not heard of that."""
    said = (("cooperative-sticky", subscription("t", owned=ALL)),)
    token = bench.join(protocols=said)
    bench.pass_ms(2 * bench.settings.initial_delay_ms)
    a = bench.joined(token)
    bench.sync(a, {a.member_id: assignment(ALL[:2])})
    first = new(bench, "n")
    assert not first.assignment
    identity = Identity(GROUP, a.generation_id, a.member_id, None)
    answer = bench.answers[bench.ask(Sync(identity, None, None, ()))]
    assert isinstance(answer, Synced)
    assert assigned(answer.assignment) == set(ALL[:2])
    assert bench.beat(a) is ErrorCode.REBALANCE_IN_PROGRESS
    rejoin(bench, a, protocols=(("cooperative-sticky", subscription("t", owned=ALL[:2])),))
    second = told(bench, heartbeat("n", first.member_epoch, owned=frozenset()))
    assert second.assignment == some("t", 2, 3)


def test_who_waits_in_a_rebalance_is_sent_to_the_new_group(bench: Bench) -> None:
    a, b = classic(bench)
    waits = bench.join(a.member_id, protocols=(("range", subscription("t", "u")),))
    fresh = bench.join(protocols=PROTOCOLS)
    assert new(bench, "n").error is ErrorCode.NONE
    assert bench.joined(waits).error is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.joined(fresh).error is ErrorCode.REBALANCE_IN_PROGRESS
    found = bench.coordinator.consumers.describe(GROUP, bench.topics)
    assert found is not None
    kinds = {each.member_id: each.is_classic for each in found.members}
    assert kinds == {a.member_id: True, b.member_id: True, "n": False}
    again = rejoin(bench, a)
    assert again.error is ErrorCode.NONE
    check(bench)


def test_who_waits_for_its_share_is_sent_to_the_new_group(bench: Bench) -> None:
    a, b = classic(bench)
    tokens = [bench.join(each.member_id, protocols=PROTOCOLS) for each in (a, b)]
    a, b = map(bench.joined, tokens)
    follower = b if a.members else a
    waits = bench.sync(follower)
    first = new(bench, "n")
    assert not first.assignment, "both may still read what they had"
    assert bench.synced(waits).error is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.beat(follower) is ErrorCode.REBALANCE_IN_PROGRESS
    check(bench)


@pytest.mark.parametrize(
    ("policy", "upgrade", "downgrade"),
    [
        (Migration.BIDIRECTIONAL, True, True),
        (Migration.UPGRADE, True, False),
        (Migration.DOWNGRADE, False, True),
        (Migration.DISABLED, False, False),
    ],
)
def test_the_policy_says_which_way_a_group_may_go(
    policy: Migration, *, upgrade: bool, downgrade: bool
) -> None:
    bench = Bench()
    set_consumers(bench, ConsumerGroupSettings(migration=policy))
    classic(bench)
    answer = new(bench, "n")
    assert (answer.error is ErrorCode.NONE) == upgrade
    if not upgrade:
        assert answer.error is ErrorCode.GROUP_ID_NOT_FOUND
        assert GROUP in bench.coordinator.groups
    check(bench)

    bench = Bench()
    set_consumers(bench, ConsumerGroupSettings(migration=policy))
    new(bench, "n")
    joined = bench.joined(bench.join(protocols=PROTOCOLS))
    assert joined.error is ErrorCode.NONE, "classic members may always join"
    told(bench, heartbeat("n", -1))
    assert (GROUP in bench.coordinator.groups) == downgrade
    check(bench)


def test_groups_that_are_no_consumers_of_topics_stay_what_they_are(bench: Bench) -> None:
    for protocols, kind, given in (
        ((("range", b"s"),), "connect", b""),
        ((("range", b"s"),), "consumer", b""),
        (PROTOCOLS, "consumer", b"garbage"),
        (PROTOCOLS, "consumer", assignment(ALL, b"of an assignor")),
    ):
        token = bench.join(protocols=protocols, kind=kind)
        bench.pass_ms(2 * bench.settings.initial_delay_ms)
        member = bench.joined(token)
        bench.sync(member, {member.member_id: given})
        assert new(bench, "n").error is ErrorCode.GROUP_ID_NOT_FOUND
        assert bench.beat(member) is ErrorCode.NONE
        bench.leave((member.member_id, None))


def test_who_is_refused_leaves_the_group_as_it_was(bench: Bench) -> None:
    a, _b = classic(bench)
    before = len(bench.log)
    assert new(bench, "n", topic_regex="(").error is ErrorCode.INVALID_REGULAR_EXPRESSION
    assert told(bench, heartbeat("n", 3)).error is ErrorCode.GROUP_ID_NOT_FOUND
    assert len(bench.log) == before
    assert bench.beat(a) is ErrorCode.NONE


def test_a_static_member_changes_its_protocol_in_its_place(bench: Bench) -> None:
    a, b = classic(bench, instances=("i", None))
    a, b = (a, b) if bench.coordinator.groups[GROUP].instances["i"] == a.member_id else (b, a)
    first = new(bench, "n", instance_id="i")
    assert first.error is ErrorCode.NONE
    assert first.assignment is not None
    assert len(first.assignment) == 2, "it has what its former self had"
    assert bench.beat(a, "i") is ErrorCode.FENCED_INSTANCE_ID
    check(bench)
    token = bench.join(instance="i", protocols=PROTOCOLS)
    group = bench.coordinator.groups[GROUP]
    assert group.state is State.PREPARING
    assert bench.beat(b) in {ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION}
    bench.join(b.member_id, protocols=PROTOCOLS)
    joined = bench.joined(token)
    assert joined.error is ErrorCode.NONE
    assert group.instances == {"i": joined.member_id}
    gone = told(bench, heartbeat("n", first.member_epoch, instance_id="i"))
    assert gone.error is ErrorCode.GROUP_ID_NOT_FOUND
    check(bench)


def test_a_static_classic_member_may_come_back_to_its_share(bench: Bench) -> None:
    first = new(bench, "n")
    joined = bench.joined(bench.join(instance="i", protocols=PROTOCOLS))
    told(bench, heartbeat("n", first.member_epoch, owned=some("t", 0, 1)))
    joined = bench.joined(bench.join(joined.member_id, instance="i", protocols=PROTOCOLS))
    have = synced(bench, joined, "i")
    back = bench.joined(bench.join(instance="i", protocols=PROTOCOLS))
    assert back.member_id != joined.member_id
    assert back.generation_id == joined.generation_id, "nobody else is disturbed"
    assert synced(bench, back, "i") == have
    assert bench.beat(joined, "i") is ErrorCode.FENCED_INSTANCE_ID
    assert bench.leave(("", "i"), ("", "j")) == [ErrorCode.NONE, ErrorCode.UNKNOWN_MEMBER_ID]
    check(bench)


def test_offsets_are_judged_by_the_protocol_of_who_commits(bench: Bench) -> None:
    first = new(bench, "n")
    joined = bench.joined(bench.join(protocols=PROTOCOLS))

    def commit(member_id: str, epoch: int, **how: object) -> ErrorCode:
        offset = CommittedOffset(7, -1, "", bench.wall_ms)
        wish = Commit(Identity(GROUP, epoch, member_id, None), ((PLACE, offset),))
        token = bench.ask(dataclasses.replace(wish, **how))  # type: ignore[arg-type]
        answer = bench.answers[token]
        assert isinstance(answer, Committed)
        return answer.errors[0]

    mine, other = joined.generation_id, first.member_epoch
    assert commit(joined.member_id, mine) is ErrorCode.NONE
    assert commit(joined.member_id, mine, knows_epochs=False) is ErrorCode.NONE
    assert commit(joined.member_id, mine - 1) is ErrorCode.ILLEGAL_GENERATION
    assert commit("n", other) is ErrorCode.NONE
    assert commit("n", other - 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert commit("n", other, knows_epochs=False) is ErrorCode.UNSUPPORTED_VERSION
    assert commit("", -1) is ErrorCode.UNKNOWN_MEMBER_ID
    producer: dict[str, object] = {"producer": (5, 0), "knows_epochs": False}
    assert commit("n", other, **producer) is ErrorCode.NONE
    assert commit(joined.member_id, mine - 1, **producer) is ErrorCode.ILLEGAL_GENERATION
    assert commit("", -1, **producer) is ErrorCode.NONE, "before KIP-447"
    for member_id, epoch, error in (
        (joined.member_id, mine, ErrorCode.NONE),
        (joined.member_id, 9, ErrorCode.ILLEGAL_GENERATION),
        ("n", 9, ErrorCode.STALE_MEMBER_EPOCH),
        ("x", 9, ErrorCode.UNKNOWN_MEMBER_ID),
    ):
        answer = bench.answers[bench.ask(FetchOffsets(GROUP, (PLACE,), False, member_id, epoch))]
        assert isinstance(answer, FetchedOffsets)
        assert answer.error is error


Ask = Callable[[Bench, Joined], ErrorCode]


def _beat(identity: Callable[[Joined], Identity]) -> Ask:
    def ask(bench: Bench, joined: Joined) -> ErrorCode:
        answer = bench.answers[bench.ask(Beat(identity(joined)))]
        assert isinstance(answer, Simple)
        return answer.error

    return ask


def _sync(
    identity: Callable[[Joined], Identity], kind: str | None = None, name: str | None = None
) -> Ask:
    def ask(bench: Bench, joined: Joined) -> ErrorCode:
        answer = bench.answers[bench.ask(Sync(identity(joined), kind, name, ()))]
        assert isinstance(answer, Synced)
        return answer.error

    return ask


def _join(**how: object) -> Ask:
    def ask(bench: Bench, joined: Joined) -> ErrorCode:
        del joined
        token = bench.join(**({"protocols": PROTOCOLS} | how))  # type: ignore[arg-type]
        return bench.joined(token).error

    return ask


def _me(joined: Joined) -> Identity:
    return Identity(GROUP, joined.generation_id, joined.member_id, None)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (_beat(_me), ErrorCode.NONE),
        (_beat(lambda me: Identity(GROUP, 1, "x", None)), ErrorCode.UNKNOWN_MEMBER_ID),
        (_beat(lambda me: Identity(GROUP, 1, "n", None)), ErrorCode.UNKNOWN_MEMBER_ID),
        (_beat(lambda me: Identity(GROUP, 1, me.member_id, "i")), ErrorCode.UNKNOWN_MEMBER_ID),
        (_beat(lambda me: Identity(GROUP, 1, "x", "s")), ErrorCode.FENCED_INSTANCE_ID),
        (_beat(lambda me: Identity(GROUP, 99, me.member_id, None)), ErrorCode.ILLEGAL_GENERATION),
        (_sync(_me), ErrorCode.NONE),
        (_sync(_me, "consumer", "range"), ErrorCode.NONE),
        (_sync(_me, "consumer", "roundrobin"), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        (_sync(_me, "connect"), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        (_sync(lambda me: Identity(GROUP, 1, "n", None)), ErrorCode.UNKNOWN_MEMBER_ID),
        (_sync(lambda me: Identity(GROUP, 99, me.member_id, None)), ErrorCode.ILLEGAL_GENERATION),
        (_join(version=4), ErrorCode.MEMBER_ID_REQUIRED),
        (_join(member_id="own"), ErrorCode.NONE),
        (_join(member_id="x" * 2_000), ErrorCode.UNKNOWN_MEMBER_ID),
        (_join(member_id="x", instance="i"), ErrorCode.UNKNOWN_MEMBER_ID),
        (_join(member_id="x", instance="s"), ErrorCode.FENCED_INSTANCE_ID),
        (_join(kind="connect"), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        (_join(protocols=()), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        (_join(protocols=(("other", PROTOCOLS[0][1]),)), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        (_join(protocols=(("range", b"garbage"),)), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        (_join(session_ms=1), ErrorCode.INVALID_SESSION_TIMEOUT),
        (lambda bench, me: bench.leave(("n", None))[0], ErrorCode.UNKNOWN_MEMBER_ID),
        (lambda bench, me: bench.leave(("x", None))[0], ErrorCode.UNKNOWN_MEMBER_ID),
        (lambda bench, me: bench.leave(("x", "s"))[0], ErrorCode.FENCED_INSTANCE_ID),
        (lambda bench, me: bench.leave((me.member_id, None))[0], ErrorCode.NONE),
    ],
)
def test_every_error_is_kafkas(bench: Bench, ask: Ask, error: ErrorCode) -> None:
    new(bench, "n")
    bench.joined(bench.join(instance="s", protocols=PROTOCOLS))
    me = bench.joined(bench.join(protocols=PROTOCOLS))
    assert me.error is ErrorCode.NONE
    assert ask(bench, me) is error
    check(bench)


def test_a_full_group_takes_nobody(bench: Bench) -> None:
    set_consumers(bench, ConsumerGroupSettings(size_max=2))
    new(bench, "n")
    me = bench.joined(bench.join(protocols=PROTOCOLS, instance="i"))
    assert bench.joined(bench.join(protocols=PROTOCOLS)).error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert rejoin(bench, me, instance="i").error is ErrorCode.NONE
    assert bench.joined(bench.join(protocols=PROTOCOLS, instance="i")).error is ErrorCode.NONE


def test_classic_members_hear_of_more_partitions(bench: Bench) -> None:
    """None of them leads, so the group looks for them; even when it may not become classic."""
    set_consumers(bench, ConsumerGroupSettings(migration=Migration.DISABLED))
    new(bench, "n")
    me = bench.joined(bench.join(protocols=PROTOCOLS))
    told(bench, heartbeat("n", -1))
    me = rejoin(bench, me)
    assert synced(bench, me) == set(ALL)
    bench.topics.set("t", PARTITIONS + 1)
    assert bench.beat(me) is ErrorCode.REBALANCE_IN_PROGRESS
    assert len(synced(bench, rejoin(bench, me))) == PARTITIONS + 1


def test_a_group_of_both_kinds_is_one_of_the_new_kind_to_tools(bench: Bench) -> None:
    new(bench, "n")
    bench.join(protocols=PROTOCOLS)
    assert next(iter(bench.coordinator.listed()))[3] == "consumer"
    assert bench.coordinator.describe(GROUP).error is ErrorCode.GROUP_ID_NOT_FOUND
