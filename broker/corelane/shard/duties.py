"""What a core does with its leaderships: keeps them, hands them over, or gives them up.

A core that turns late on and on, or whose disk hangs, leads badly. It hands over what it leads to
cores that are clearly better (`peers/watch.py`, W1), a few at a time: a hand-over is work, and
costs its partition a pause. Where all cores are late nobody is better, and everybody keeps what it
has. The cores of a node that is drained hand over what they lead as far as others can take it, and
stand for election last. So do those of a node that is about to stop, quicker: what they cannot hand
over will pause. And a core whose disk is full hands over to those that can write; where nobody can,
it goes on and refuses.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from corelane.model import limits
from corelane.model.ids import MemberId, node_of
from corelane.raft.events import TransferLeadership
from corelane.shard.partition import Partition
from corelane.shard.peers.watch import Duty

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.member import Member
    from corelane.shard.peering import Peering
    from corelane.shard.shard import Shard

LOOK_MS: Final = limits.PEER_BEAT_MS
DRAINED_AT_ONCE: Final = 32
"""So many groups a core hands over per look while it is drained: a thousand in three seconds."""
LEAVING_AT_ONCE: Final = 128
"""The same while its node is about to stop: a thousand in a second."""
FULL_REST_MS: Final = 30_000
"""So long a disk must have had room before its core leads again where others can."""
LATE_LOOKS: Final = 100
"""A late core has handed over all it leads after so many looks: in ten seconds."""
_WARNING: Final = 30
_INFO: Final = 20


class Duties:
    """The leaderships of one core, as its own punctuality allows them."""

    def __init__(self, shard: "Shard", groups: "Groups", peering: "Peering") -> None:
        self._shard = shard
        self._groups = groups
        self._peering = peering
        self._look_at_ms = 0
        self._duty = Duty.LEAD
        self._is_drained = False
        self._is_leaving = False
        self._full_until_ms = 0

    @property
    def may_lead(self) -> bool:
        """Whether members of this core should lead, where others could."""
        return self._duty is Duty.LEAD and not self._is_drained

    def turn(self) -> None:
        """Look at the own lag now and then, and act on it."""
        now_ms = self._shard.now_ms
        if now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_MS
        former, was_drained = self._duty, self._is_drained
        self._duty = self._judged()
        is_drained = self._shard.config.node in self._groups.cluster.states.drained
        self._peering.peers.is_unfit = is_unfit = self._is_leaving or self._is_full(now_ms)
        self._is_drained = is_drained or is_unfit
        if self.may_lead and former is Duty.LEAD and not was_drained:
            return
        members = [each for each in self._groups.members.values() if _is_replicated(each)]
        for member in members:
            member.raft.may_lead = self.may_lead
        if self._duty is not former:
            self._tell()
        if self.may_lead:
            return
        led = [member for member in members if member.raft.is_leader]
        count_max = len(led)
        if self._duty is Duty.HAND_OVER and not self._is_leaving:
            count_max = 1 + count_max // LATE_LOOKS
        elif self._duty is not Duty.GIVE_UP:
            count_max = LEAVING_AT_ONCE if self._is_leaving else DRAINED_AT_ONCE
        for member in led:
            if count_max > 0:
                count_max -= self._let_go(member)

    def _is_full(self, now_ms: int) -> bool:
        """Say whether the disk is full, or was a moment ago: it may be again at once."""
        was_full = now_ms < self._full_until_ms
        if self._shard.store.is_full:
            self._full_until_ms = now_ms + FULL_REST_MS
            if not was_full:
                said = "the disk is full: what this core leads goes to nodes whose disks are not"
                self._shard.log(_WARNING, f"{said}. Free space; leaderships come back then.")
        return now_ms < self._full_until_ms

    def leave(self) -> int:
        """This node is about to stop; return how much is still led that another one could."""
        if not self._is_leaving:
            self._is_leaving = self._peering.peers.is_unfit = True
            self._look_at_ms = self._shard.now_ms
        members = self._groups.members.values()
        led = [each for each in members if _is_replicated(each) and each.raft.is_leader]
        return sum(each.raft.is_transferring or self._heir(each) is not None for each in led)

    def _heir(self, member: "Member") -> MemberId | None:
        """Return who is to lead instead; before a stop also one that has to catch up first.

        It does in a moment, as nothing is appended meanwhile. Under load nobody else may be there.
        """
        is_better = self._duty is Duty.HAND_OVER and not self._is_drained
        heir, raft = self.successor(member, is_better=is_better), member.raft
        if heir is not None or not self._is_leaving:
            return heir
        in_sync, matches = raft.in_sync(self._shard.now_ms), raft.match_indexes()
        heirs = [each for each in self._heirs(member) if each in in_sync]
        return max(heirs, key=lambda each: matches[each], default=None)

    def _judged(self) -> Duty:
        """Return what this core is to do; where nobody is better, it is to lead."""
        fitness, peers = self._peering.fitness, self._peering.peers
        duty = peers.duty(self._peering.wal_age_ms)
        if duty is Duty.LEAD:
            return duty
        is_heir = fitness.may_take_over if duty is Duty.GIVE_UP else fitness.is_better
        return duty if any(map(is_heir, peers.reachable())) else Duty.LEAD

    def _tell(self) -> None:
        shard = self._shard
        if self._duty is Duty.LEAD:
            shard.log(_INFO, "this core may lead again: it is punctual, or no other one is")
            return
        lag_ms = self._peering.peers.watch.lag_ms
        verb = "hands over" if self._duty is Duty.HAND_OVER else "gives up"
        age_ms = self._peering.wal_age_ms
        disk = f"; a write to its log has taken {age_ms} ms" if age_ms and age_ms > lag_ms else ""
        shard.log(
            _WARNING,
            f"this core was up to {lag_ms} ms late{disk}: it {verb} what it leads until it is"
            " punctual again. Look for what else uses its CPU, its disk or its memory.",
        )

    def _let_go(self, member: "Member") -> bool:
        """Lead a group no more, or begin to; say whether that is under way."""
        if member.raft.is_transferring:
            return True
        if self._duty is Duty.GIVE_UP:
            is_missed = next(self._heirs(member), None) is not None
            if is_missed:
                member.perform(member.raft.step_down())
            return is_missed
        target = self._heir(member)
        if target is not None:
            member.step(self._shard.now_ms, TransferLeadership(target))
        return target is not None

    def successor(self, member: "Member", *, is_better: bool = False) -> MemberId | None:
        """Return the most preferred voter that could lead instead at once; None: nobody can.

        *is_better*: it is to lead clearly better than this core.
        """
        heirs = self._heirs(member, is_better=is_better)
        return next((each for each in heirs if member.raft.is_caught_up(each)), None)

    def _heirs(self, member: "Member", *, is_better: bool = False) -> Iterator[MemberId]:
        raft, drained = member.raft, self._groups.cluster.states.drained
        fitness, whereabouts = self._peering.fitness, self._peering.whereabouts
        is_fit = fitness.is_better if is_better else fitness.may_take_over
        for voter in raft.configuration.voters:
            is_other = voter != raft.self_id and node_of(voter) not in drained
            if is_other and is_fit(whereabouts.of(member.group, voter)):
                yield voter


def _is_replicated(member: "Member") -> bool:
    is_here = not (isinstance(member, Partition) and member.is_dropped)
    return is_here and not member.is_damaged and len(member.raft.configuration.members) > 1
