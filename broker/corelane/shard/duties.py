"""What a core does with its leaderships: keeps them, hands them over, or gives them up.

A core that turns late, or whose disk hangs, leads badly and soon illegitimately: its followers may
stand against it at any moment (`peers/watch.py`, W1). It hands over what it leads while it still
can, and leads nothing once it cannot know any more whether it does. The cores of a node that is
drained hand over what they lead as far as others can take it, and stand for election last. So do
those of a node that is about to stop, quicker: what they cannot hand over will pause. And a core
whose disk is full hands over to those that can write; where nobody can, it goes on and refuses.
"""

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
        self._duty = self._peering.peers.duty(self._peering.wal_age_ms)
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
        count_max = LEAVING_AT_ONCE if self._is_leaving else DRAINED_AT_ONCE
        count_max = count_max if self._duty is Duty.LEAD else len(members)
        for member in members:
            if member.raft.is_leader and count_max > 0:
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
        heir, peering, raft = self._peering.successor(member), self._peering, member.raft
        if heir is not None or not self._is_leaving:
            return heir
        drained, now_ms = self._groups.cluster.states.drained, self._shard.now_ms
        heirs = [
            each
            for each in raft.in_sync(now_ms)
            if each != raft.self_id
            and raft.configuration.is_voter(each)
            and node_of(each) not in drained
            and peering.peers.may_take_over(peering.whereabouts.of(member.group, each))
        ]
        matches = raft.match_indexes()
        return max(heirs, key=lambda each: matches[each], default=None)

    def _tell(self) -> None:
        shard = self._shard
        if self._duty is Duty.LEAD:
            shard.log(_INFO, "this core is punctual again, and may lead")
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
        raft = member.raft
        if self._duty is Duty.GIVE_UP:
            member.perform(raft.step_down())
            return True
        target = None if raft.is_transferring else self._heir(member)
        if target is not None:
            member.step(self._shard.now_ms, TransferLeadership(target))
        return raft.is_transferring or target is not None


def _is_replicated(member: "Member") -> bool:
    is_here = not (isinstance(member, Partition) and member.is_dropped)
    return is_here and not member.is_damaged and len(member.raft.configuration.members) > 1
