"""The rebalances of classic groups: who joins, who leads, who is told what, and who is too late.

After Kafka's group coordinator (ClassicGroup and GroupMetadataManager of 4.x). Numbers in brackets
are quirks of the wire protocol that each have a test.

Invariants:
B1. What is durable of a group changes by `Desk.store` only, and that is what a restart finds.
B2. Who was answered waits no more: every token is answered once.
B3. A member that waits for the group is not taken for dead; the group's own deadlines end that.
"""

from typing import Protocol

from corelane.groups.classic_group import NO_TOKEN, ClassicGroup, Member, State
from corelane.groups.requests import (
    Answer,
    Identity,
    Join,
    Joined,
    Sync,
    Synced,
)
from corelane.model.errors import ErrorCode

NEW_MEMBER_MS = 300_000
"""How long a member may wait for its first generation: Kafka's classic new member timeout."""

CROWD_QUIET_MS = 50
CROWD_MS_MAX = 500
"""Where several members come at once the joining ends when none has come for that long, or at all
after this. Of a generation without the others those that ask for their share already would be sent
back, and librdkafka joins once a second at most: 49 members had theirs after two seconds.
"""


class Desk(Protocol):
    """What a rebalance needs of the coordinator."""

    now_ms: int

    @property
    def initial_delay_ms(self) -> int:
        """How long the first member of an empty group waits for others."""

    def answer(self, token: int, answer: Answer) -> None:
        """Have a request answered."""

    def store(self, group: ClassicGroup) -> None:
        """Have a group's generation kept."""

    def wake(self, group: ClassicGroup, at_ms: int) -> None:
        """Have `Rebalancing.look` called at a time."""


def identity_fault(group: ClassicGroup | None, identity: Identity) -> ErrorCode:
    """Say whether somebody is the member it says it is; not of which generation."""
    if group is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if identity.instance_id is not None:
        known = group.instances.get(identity.instance_id)
        if known is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if known != identity.member_id:
            return ErrorCode.FENCED_INSTANCE_ID  # [17]
    if identity.member_id not in group.members:
        return ErrorCode.UNKNOWN_MEMBER_ID
    return ErrorCode.NONE


class Rebalancing:
    """The rules; all state is in the groups."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # --- joining ---

    def join(self, group: ClassicGroup, token: int, join: Join) -> None:
        """Take a Join; the answer may have to wait for the others."""
        names = {name for name, _data in join.protocols}
        if not group.supports(join.protocol_type, names):
            error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
            self._refuse(token, join.member_id, error)
        elif join.member_id == "":
            self._join_unknown(group, token, join)
        else:
            self._join_known(group, token, join)

    def _join_unknown(self, group: ClassicGroup, token: int, join: Join) -> None:
        """Take in who has no id yet."""
        member_id = join.proposed_member_id
        if join.instance_id is not None:
            known = group.instances.get(join.instance_id)
            if known is not None:
                self._return(group, group.members[known], token, join)
                return
        elif join.needs_known_member:
            until_ms = self._desk.now_ms + join.session_timeout_ms
            group.pending[member_id] = until_ms
            self._desk.wake(group, until_ms)
            self._refuse(token, member_id, ErrorCode.MEMBER_ID_REQUIRED)  # [15]
            return
        self._add(group, Member(member_id, join.instance_id), token, join)

    def _join_known(self, group: ClassicGroup, token: int, join: Join) -> None:
        """Take who comes with an id: its first time with it, or again."""
        member_id = join.member_id
        if member_id in group.pending and join.instance_id is None:
            self._add(group, Member(member_id, None), token, join)
            return
        identity = Identity(group.group, -1, member_id, join.instance_id)
        error = identity_fault(group, identity)
        if error is not ErrorCode.NONE:
            self._refuse(token, member_id, error)
            return
        member = group.members[member_id]
        is_same = member.protocols == join.protocols
        settled = group.state is State.COMPLETING and is_same
        if group.state is State.STABLE and is_same:
            settled = member_id != group.leader  # the leader asks for a rebalance by it
        if settled:
            self._update(member, join)
            self._desk.answer(token, self._joined(group, member))
            self._heard(group, member)
            return
        self._wait(group, member, token, join)

    def _return(self, group: ClassicGroup, member: Member, token: int, join: Join) -> None:
        """Let a static member, which was started anew, take its former place (KIP-345) [17]."""
        self._fence(member)
        leader = group.leader or ""
        was_leader = leader == member.member_id
        former = member.metadata(group.protocol)
        group.replace(member, join.proposed_member_id)
        self._update(member, join)
        if group.state is not State.STABLE:
            self._wait(group, member, token, join)
            return
        if group.elected_protocol() != group.protocol or member.metadata(group.protocol) != former:
            self._wait(group, member, token, join)
            return
        self._desk.store(group)
        skips = was_leader and join.may_skip_assignment
        # A leader that cannot skip is told its former id, and so does not assign again.
        if skips:
            leader = member.member_id
        answer = Joined(
            ErrorCode.NONE,
            member.member_id,
            group.generation_id,
            group.protocol_type,
            group.protocol,
            leader,
            skips,
            self._everybody(group) if skips else (),
        )
        self._desk.answer(token, answer)
        self._heard(group, member)

    def _fence(self, member: Member) -> None:
        """Tell the former life of a static member that another one is here."""
        if member.join_token != NO_TOKEN:
            self._refuse(member.join_token, member.member_id, ErrorCode.FENCED_INSTANCE_ID)
            member.join_token = NO_TOKEN
        if member.sync_token != NO_TOKEN:
            self._desk.answer(member.sync_token, Synced(ErrorCode.FENCED_INSTANCE_ID))
            member.sync_token = NO_TOKEN

    def _add(self, group: ClassicGroup, member: Member, token: int, join: Join) -> None:
        group.add(member, join.protocol_type)
        if group.state is State.PREPARING and group.is_initial:
            group.is_joined_lately = True
        group.newcomer_ms = self._desk.now_ms
        member.deadline_ms = self._desk.now_ms + NEW_MEMBER_MS
        self._desk.wake(group, member.deadline_ms)
        self._wait(group, member, token, join)

    def _wait(self, group: ClassicGroup, member: Member, token: int, join: Join) -> None:
        """Have a member wait for the next generation."""
        self._update(member, join)
        if member.join_token != NO_TOKEN:  # it asked before and has lost patience
            error = ErrorCode.UNKNOWN_MEMBER_ID
            self._refuse(member.join_token, member.member_id, error)
        member.join_token = token
        self.prepare(group)
        self._complete_if_all_joined(group)

    def _update(self, member: Member, join: Join) -> None:
        member.protocols = join.protocols
        member.client_id, member.client_host = join.client_id, join.client_host
        member.session_timeout_ms = join.session_timeout_ms
        member.rebalance_timeout_ms = join.rebalance_timeout_ms

    # --- a rebalance ---

    def prepare(self, group: ClassicGroup) -> None:
        """Begin a rebalance, unless one has begun already."""
        now_ms = self._desk.now_ms
        if group.state is State.PREPARING:
            return
        if group.state is State.COMPLETING:
            for member in group.members.values():
                member.assignment = b""
                self._answer_sync(member, Synced(ErrorCode.REBALANCE_IN_PROGRESS))
        delay_ms = group.rebalance_timeout_ms
        group.is_initial = group.state is State.EMPTY
        if group.is_initial:  # others are about to come, most likely [16]
            group.is_joined_lately = False
            group.join_extended_ms = delay_ms
            delay_ms = min(self._desk.initial_delay_ms, delay_ms)
            group.join_extended_ms -= delay_ms
        group.state = State.PREPARING
        group.prepared_ms = now_ms
        group.join_deadline_ms = now_ms + delay_ms
        self._desk.wake(group, group.join_deadline_ms)

    def _complete_if_all_joined(self, group: ClassicGroup) -> None:
        if group.state is not State.PREPARING or not group.all_joined:
            return
        if group.is_initial and self._desk.now_ms < group.join_deadline_ms:
            return
        if not group.is_initial:
            settled_ms = group.crowd_settled_ms(CROWD_QUIET_MS, CROWD_MS_MAX)
            if self._desk.now_ms < settled_ms:
                self._desk.wake(group, settled_ms)
                return
        self._complete(group)

    def _join_time_over(self, group: ClassicGroup) -> None:
        """Go on without who has not joined; the first rebalance waits while members come."""
        desk = self._desk
        if group.is_initial and group.is_joined_lately and group.join_extended_ms > 0:
            delay_ms = min(desk.initial_delay_ms, group.join_extended_ms)
            group.is_joined_lately = False
            group.join_extended_ms -= delay_ms
            group.join_deadline_ms = desk.now_ms + delay_ms
            desk.wake(group, group.join_deadline_ms)
            return
        self._complete(group)

    def _complete(self, group: ClassicGroup) -> None:
        """End the joining: a new generation of those that are here."""
        desk = self._desk
        for member in [*group.members.values()]:
            if member.join_token == NO_TOKEN and member.instance_id is None:
                group.remove(member.member_id)
        joined = [each for each in group.members.values() if each.join_token != NO_TOKEN]
        if group.members and not joined:
            # Static members alone, none of which came: they have their sessions' time to do so.
            group.is_initial = False
            group.join_deadline_ms = desk.now_ms + max(1, group.rebalance_timeout_ms)
            desk.wake(group, group.join_deadline_ms)
            return
        group.generation_id += 1
        group.is_initial = False
        if not group.members:
            self._empty(group)
            return
        if group.leader is None or group.members[group.leader].join_token == NO_TOKEN:
            group.leader = joined[0].member_id
        group.protocol = group.elected_protocol()
        group.state = State.COMPLETING
        group.sync_deadline_ms = desk.now_ms + group.rebalance_timeout_ms
        desk.wake(group, group.sync_deadline_ms)
        for member in joined:
            token, member.join_token = member.join_token, NO_TOKEN
            member.is_new = False
            member.assignment = b""
            desk.answer(token, self._joined(group, member))
            self._heard(group, member)

    def _empty(self, group: ClassicGroup) -> None:
        group.state = State.EMPTY
        group.protocol = None
        group.leader = None
        self._desk.store(group)

    def _joined(self, group: ClassicGroup, member: Member) -> Joined:
        is_leader = member.member_id == group.leader
        return Joined(
            ErrorCode.NONE,
            member.member_id,
            group.generation_id,
            group.protocol_type,
            group.protocol,
            group.leader or "",
            False,
            self._everybody(group) if is_leader else (),  # [18]
        )

    def _everybody(self, group: ClassicGroup) -> tuple[tuple[str, str | None, bytes], ...]:
        return tuple(
            (each.member_id, each.instance_id, each.metadata(group.protocol))
            for each in group.members.values()
        )

    # --- assigning ---

    def sync(self, group: ClassicGroup | None, token: int, sync: Sync) -> None:
        """Take a Sync; followers wait for the leader's."""
        error = identity_fault(group, sync.identity)
        if error is ErrorCode.NONE and group is not None:
            error = _sync_fault(group, sync)
        if error is not ErrorCode.NONE or group is None:
            self._desk.answer(token, Synced(error))
            return
        member = group.members[sync.identity.member_id]
        if group.state is State.STABLE:
            self._desk.answer(token, _synced(group, member))
            self._heard(group, member)
            return
        self._answer_sync(member, Synced(ErrorCode.REBALANCE_IN_PROGRESS))  # it asked before
        member.sync_token = token
        if member.member_id == group.leader:
            self._assign(group, dict(sync.assignments))

    def _assign(self, group: ClassicGroup, assignments: dict[str, bytes]) -> None:
        group.state = State.STABLE
        for member in group.members.values():
            member.assignment = assignments.get(member.member_id, b"")
        self._desk.store(group)
        for member in group.members.values():
            if member.sync_token != NO_TOKEN:
                self._answer_sync(member, _synced(group, member))
                self._heard(group, member)

    def _answer_sync(self, member: Member, answer: Synced) -> None:
        if member.sync_token != NO_TOKEN:
            token, member.sync_token = member.sync_token, NO_TOKEN
            self._desk.answer(token, answer)

    # --- members that are heard, leave, or are silent ---

    def beat(self, group: ClassicGroup | None, identity: Identity) -> ErrorCode:
        """Take a heartbeat, and say what the member should know."""
        error = identity_fault(group, identity)
        if error is not ErrorCode.NONE or group is None:
            return error
        if identity.generation_id != group.generation_id:
            return ErrorCode.ILLEGAL_GENERATION
        self._heard(group, group.members[identity.member_id])
        if group.state is State.PREPARING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def leave(self, group: ClassicGroup, member_id: str, instance_id: str | None) -> ErrorCode:
        """Let a member go: by its id, or by its instance [17]."""
        if instance_id is None and member_id in group.pending:
            del group.pending[member_id]
            self._complete_if_all_joined(group)
            return ErrorCode.NONE
        if instance_id is not None and member_id == "":
            member_id = group.instances.get(instance_id, "")
        error = identity_fault(group, Identity(group.group, -1, member_id, instance_id))
        if error is ErrorCode.NONE:
            self._remove(group, group.members[member_id])
        return error

    def _remove(self, group: ClassicGroup, member: Member) -> None:
        """Go on without a member, which nobody tells."""
        if member.join_token != NO_TOKEN:
            self._refuse(member.join_token, member.member_id, ErrorCode.UNKNOWN_MEMBER_ID)
            member.join_token = NO_TOKEN
        self._answer_sync(member, Synced(ErrorCode.UNKNOWN_MEMBER_ID))
        group.remove(member.member_id)
        if group.state is not State.PREPARING:
            self.prepare(group)
        if not group.members and not group.pending and not group.is_initial:
            self._complete(group)
        else:
            self._complete_if_all_joined(group)

    def look(self, group: ClassicGroup) -> None:
        """Act on the deadlines of a group that have come."""
        now_ms = self._desk.now_ms
        for member_id, until_ms in [*group.pending.items()]:
            if until_ms <= now_ms:
                del group.pending[member_id]
                self._complete_if_all_joined(group)
        for member in [*group.members.values()]:
            if member.deadline_ms > now_ms or member.member_id not in group.members:
                continue
            if member.is_waiting and not member.is_new:
                self._heard(group, member)  # B3
            else:
                self._remove(group, member)
        if group.state is State.PREPARING and group.join_deadline_ms <= now_ms:
            self._join_time_over(group)
        self._complete_if_all_joined(group)
        if group.state is State.COMPLETING and group.sync_deadline_ms <= now_ms:
            self._sync_time_over(group)

    def next_ms(self, group: ClassicGroup) -> int | None:
        """Return when a group is to be looked at next; None: nothing is due."""
        due = [*group.pending.values(), *(each.deadline_ms for each in group.members.values())]
        if group.state is State.PREPARING:
            due.append(group.join_deadline_ms)
            if group.all_joined and not group.is_initial:
                due.append(group.crowd_settled_ms(CROWD_QUIET_MS, CROWD_MS_MAX))
        elif group.state is State.COMPLETING:
            due.append(group.sync_deadline_ms)
        return min(due, default=None)

    def _sync_time_over(self, group: ClassicGroup) -> None:
        """Go on without those that joined and never asked what they are to read."""
        late = [each for each in group.members.values() if each.sync_token == NO_TOKEN]
        for member in late:
            if member.member_id in group.members:
                self._remove(group, member)
        if not late:
            self.prepare(group)

    def _heard(self, group: ClassicGroup, member: Member) -> None:
        desk = self._desk
        member.deadline_ms = desk.now_ms + member.session_timeout_ms
        desk.wake(group, member.deadline_ms)

    def heard(self, group: ClassicGroup, member_id: str) -> None:
        """A member was heard by something that is no heartbeat."""
        self._heard(group, group.members[member_id])

    def lives_again(self, group: ClassicGroup) -> None:
        """Give every member a whole session: nobody knows when it was heard before.

        A group that has members and no leader was of the new protocol, and is to be led anew.
        """
        for member in group.members.values():
            self._heard(group, member)
        if group.members and group.leader is None:
            group.leader = next(iter(group.members))
            self.prepare(group)

    def disband(self, group: ClassicGroup) -> None:
        """Send those that wait away: who joins again finds a group of the new protocol."""
        for member in group.members.values():
            if member.join_token != NO_TOKEN:
                token, member.join_token = member.join_token, NO_TOKEN
                self._refuse(token, member.member_id, ErrorCode.REBALANCE_IN_PROGRESS)
            self._answer_sync(member, Synced(ErrorCode.REBALANCE_IN_PROGRESS))

    def _refuse(self, token: int, member_id: str, error: ErrorCode) -> None:
        self._desk.answer(token, Joined(error, member_id))


def _sync_fault(group: ClassicGroup, sync: Sync) -> ErrorCode:
    if sync.identity.generation_id != group.generation_id:
        return ErrorCode.ILLEGAL_GENERATION
    if sync.protocol_type is not None and sync.protocol_type != group.protocol_type:
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if sync.protocol is not None and sync.protocol != group.protocol:
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if group.state is State.PREPARING:
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def _synced(group: ClassicGroup, member: Member) -> Synced:
    return Synced(ErrorCode.NONE, group.protocol_type, group.protocol, member.assignment)
