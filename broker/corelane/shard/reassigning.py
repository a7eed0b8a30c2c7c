"""The leader of a partition carries out a change of its replicas, as the controller's log wants it.

The fold says what is wanted and how far it may go (cluster/replicas.py); the raft group's own
configuration says how far it is. Whoever leads looks at both, again and again, and does the next
step; nothing else is remembered, so that a change goes on after the death of anybody.

Invariants:
Y1. One change of members of a group at a time (raft/membership.py, C2): nothing is done while one
    is not committed.
Y2. Nobody leaves before all who come have what the log had a moment ago and are heard, and a
    quorum of those that are to be is: else the group would stand still. That includes the
    configuration that names them: a voter without it votes for nobody.
Y3. Nobody leaves before the fold says that the change switches: until then it can be called off.
Y4. That it is done is said when the configuration with exactly the wanted members is committed.
"""

from typing import TYPE_CHECKING, Final

from corelane.cluster.commands import ReassignmentStep, encode
from corelane.cluster.replicas import Reassignment
from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, Index, MemberId, node_of
from corelane.raft.events import ChangeMembers, TransferLeadership
from corelane.raft.quorum import quorum_size
from corelane.shard.links import Kind
from corelane.shard.member import Member

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.peering import Peering
    from corelane.shard.shard import Shard

LOOK_MS: Final = 50
TELL_MS: Final = 1_000
"""When what the controller was told is told again: it was lost, or refused."""
HAND_OVER_MS: Final = 3_000
"""How long a leader that is to leave looks for another one first."""
AT_ONCE_MAX: Final = 16
"""Groups of one core that take in replicas at a time; the others wait."""
STUCK_MS: Final = 10_000
"""A group whose new replicas got nothing for so long holds up no other."""


class _Work:
    """What this core knows of one change, since it leads the group."""

    __slots__ = ("end_index", "got", "got_ms", "hands_over_ms", "told", "told_ms", "whole_ms")

    def __init__(self, now_ms: int) -> None:
        self.whole_ms = now_ms
        """When all that come were heard and had everything, last."""
        self.end_index = Index(0)
        """Of the log, at the last look."""
        self.got = -1
        """How much the new replicas have, taken together."""
        self.got_ms = 0
        self.told: tuple[int, bool] | None = None
        self.told_ms = 0
        self.hands_over_ms: int | None = None


class Reassigning:
    """The changes of replicas of the groups that one core leads."""

    def __init__(self, shard: "Shard", groups: "Groups", peering: "Peering") -> None:
        self._shard = shard
        self._groups = groups
        self._peering = peering
        self._look_at_ms = 0
        self._works: dict[GroupId, _Work] = {}

    def turn(self) -> None:
        """Do the next step of each change, now and then."""
        now_ms, changing = self._shard.now_ms, self._groups.cluster.changing
        if now_ms < self._look_at_ms or not (changing or self._works):
            return
        self._look_at_ms = now_ms + LOOK_MS
        led: dict[GroupId, _Work] = {}
        for group in [*changing]:
            member = self._groups.members.get(group)
            plan = self._groups.cluster.plan_of(group)
            if member is None or plan is None or plan.change is None:
                continue
            if not member.serves:  # while it hands over it does not, and may go on afterwards
                if member.raft.is_leader and group in self._works:
                    led[group] = self._works[group]
                continue
            led[group] = self._works.get(group) or _Work(now_ms)
            self._works[group] = led[group]
            self._go_on(member, plan.change, led[group])
        self._works = led

    def _go_on(self, member: Member, change: Reassignment, work: _Work) -> None:
        raft, target = member.raft, change.members
        if raft.membership.is_changing(raft.committed_index) or raft.is_transferring:  # Y1
            return
        now, learners = raft.configuration, raft.configuration.learners
        if now.voters == target and not learners:
            self._tell(member.group, change, work, is_done=True)  # Y4
            return
        if {*now.voters} == {*target}:
            self._change(member, target, ())  # another order, or who was to come is not any more
            return
        coming = tuple([each for each in target if each not in now.voters])
        if {*coming} != {*learners}:
            if {*coming} <= {*learners} or self._may_begin(member.group):
                self._change(member, now.voters, coming)
            return
        if not self._is_ready(member, change, coming, work):  # Y2
            return
        if not change.is_switching:
            self._tell(member.group, change, work, is_done=False)  # Y3
        elif not self._hands_over(member, target, work):
            self._change(member, target, ())

    def _change(
        self, member: Member, voters: tuple[MemberId, ...], learners: tuple[MemberId, ...]
    ) -> None:
        member.step(self._shard.now_ms, ChangeMembers(voters, learners))

    def _may_begin(self, group: GroupId) -> bool:
        """Say whether another group may take in replicas."""
        busy = sum(
            each != group and self._shard.now_ms - work.got_ms < STUCK_MS
            for each, work in self._works.items()
            if work.got >= 0
        )
        return busy < AT_ONCE_MAX

    def _is_ready(
        self, member: Member, change: Reassignment, coming: tuple[MemberId, ...], work: _Work
    ) -> bool:
        """Say whether the members that are to be could go on without the others.

        Where it switches already and one that comes is lost, a quorum must do.
        """
        raft, now_ms, target = member.raft, self._shard.now_ms, change.members
        matches = raft.match_indexes()
        got = sum(matches[each] for each in coming)
        if got > work.got:
            work.got, work.got_ms = got, now_ms
        end_index, work.end_index = work.end_index, member.log.last_index
        if not end_index:
            return False  # the first look
        # The last look may have been another change's, before these were members at all.
        end_index = max(end_index, raft.members_index)
        whole = [each for each in target if matches.get(each, -1) >= end_index]
        heard = [each for each in whole if each == raft.self_id or self._is_heard(member, each)]
        if {*coming} <= {*heard}:
            work.whole_ms = now_ms
        elif not change.is_switching or now_ms - work.whole_ms < STUCK_MS:
            return False
        return len(heard) >= quorum_size(len(target))

    def _is_heard(self, member: Member, each: MemberId) -> bool:
        heard_ms = self._peering.contacts.follower_heard_ms(member.group, member.raft.term, each)
        return self._shard.now_ms - heard_ms < limits.PEER_SILENT_MS

    def _hands_over(self, member: Member, target: tuple[MemberId, ...], work: _Work) -> bool:
        """Let one of those that stay lead first, if there is one: nobody then misses a leader."""
        raft, now_ms = member.raft, self._shard.now_ms
        if raft.self_id in target:
            return False
        if work.hands_over_ms is None:
            work.hands_over_ms = now_ms
        if now_ms - work.hands_over_ms >= HAND_OVER_MS:
            return False
        staying = [each for each in target if raft.configuration.is_voter(each)]
        heirs = [
            each
            for each in staying
            if self._is_heard(member, each) and self._may_take_over(member, each)
        ]
        if heirs:
            member.step(now_ms, TransferLeadership(heirs[0]))
        return bool(heirs)

    def _may_take_over(self, member: Member, each: MemberId) -> bool:
        peering = self._peering
        is_up = peering.fitness.may_take_over(peering.whereabouts.of(member.group, each))
        return is_up and node_of(each) not in self._groups.cluster.states.drained

    def _tell(self, group: GroupId, change: Reassignment, work: _Work, *, is_done: bool) -> None:
        """Have the controller's log say how far it is."""
        now_ms, said = self._shard.now_ms, (int(change.revision), is_done)
        if work.told == said and now_ms - work.told_ms < TELL_MS:
            return
        work.told, work.told_ms = said, now_ms
        command = ReassignmentStep(group, change.revision, is_done)
        siblings = self._groups.siblings
        if siblings.is_controller:
            self._groups.propose(command, _ignored)
            return
        link = siblings.links.to(CoreId(0))
        if link is not None:
            link.send(Kind.PROPOSE, 0, encode(command))


def _ignored(changes: object) -> None:
    """The fold tells, or it is said again."""
