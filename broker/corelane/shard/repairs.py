"""Replicas whose files or log are damaged: they lead nothing, and get again what they lost.

    found ──▶ hands over what it leads ──▶ another node leads ──▶ the log goes back (RENEW) to where
    it is whole ──▶ entries come from the leader, as for any follower that lags ──▶ made good

Until then the others serve. What a replica may say meanwhile is raft's affair (raft/loss.py); what
stays of its files is storage's (renewing.py). One that has no peers is offline instead.

Invariants:
Q1. Nothing whole is thrown away while nobody else is known to lead: whoever leads has all that is
    committed (Leader Completeness).
Q2. A replica whose votes may be lost takes no part before its log has gone back.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from corelane.model.ids import CONTROLLER_GROUP, GroupId, MemberId, node_of
from corelane.raft.events import TransferLeadership
from corelane.raft.loss import Loss
from corelane.shard.member import Member
from corelane.shard.partition import Partition
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import LayoutError
from corelane.storage.segments import Segment
from corelane.storage.wal import WalFullError

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

LOOK_MS: Final = 100
PATIENCE_MS: Final = 10_000
"""An election, and the others' start, are over by then."""
AGAIN_MS: Final = 300_000
NAMED_MAX: Final = 5
_INFO: Final = 20
_WARNING: Final = 30
_ERROR: Final = 40
WHAT_NEXT: Final = (
    "Start the nodes that are down: those with a whole replica must be a majority. Where too many"
    " are damaged, nobody can tell what was acknowledged, and nothing is led: restore the files"
    " of one; or, to go on without what is lost, stop a node with a damaged replica and run"
    " `corelane dump-log DIRECTORY --repair --accept-loss` (first with --dry-run)."
)


class Repair:
    """One damaged replica."""

    __slots__ = ("are_votes_lost", "is_begun", "say_at_ms", "segment", "waits", "why")

    def __init__(self, why: str, segment: Segment | None, *, are_votes_lost: bool) -> None:
        self.why = why
        self.segment = segment
        self.are_votes_lost = are_votes_lost
        self.is_begun = False
        """The log has gone back: what it lost is coming."""
        self.waits = ""
        """Why it does not go on by itself; empty while it does."""
        self.say_at_ms = 0
        """When that is said, if it is still so."""


class Repairs:
    """The damaged replicas of one core that others have."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._look_at_ms = 0
        self.open: dict[GroupId, Repair] = {}

    # --- what is found ---

    def may_repair(self, member: Member) -> bool:
        """Whether other replicas have what this one lost."""
        return self._groups.peering is not None and len(member.raft.configuration.members) > 1

    def found_in_log(self, member: Member, why: str) -> bool:
        """The write-ahead log had lost something of *member*; False: nobody can repair it.

        Without a majority of others nobody could ever lead again: votes may be lost, too.
        """
        if not self.may_repair(member) or len(member.raft.configuration.voters) == 2:
            return False
        member.is_damaged = True  # Q2
        self._open(member, Repair(why, None, are_votes_lost=True))
        return True

    def found_in_segment(self, member: Member, segment: Segment, why: str) -> bool:
        """A segment of *member* cannot be read, or is not what it was; False: as above."""
        if not self.may_repair(member):
            return False
        if segment not in member.log.segments.items:
            return True  # it went meanwhile
        known = self.open.get(member.group)
        if known is None:
            self._open(member, Repair(why, segment, are_votes_lost=False))
        elif known.is_begun:
            known.is_begun, known.segment, known.are_votes_lost = False, segment, False
        elif known.segment is not None and segment.base_index < known.segment.base_index:
            known.segment = segment
        return True

    def resumed(self, member: Member) -> None:
        """*member* has begun to make good a loss in an earlier life."""
        lost = member.log.loss
        assert lost is not None
        repair = Repair(
            "it was being repaired when it stopped", None, are_votes_lost=lost.are_votes_lost
        )
        repair.is_begun = True
        self.open[member.group] = repair
        self._takes_part(member)

    def _open(self, member: Member, repair: Repair) -> None:
        self.open[member.group] = repair
        self._shard.log(
            _ERROR,
            f"{self._name(member)} is damaged here: {repair.why}. It leads nothing until what it"
            " lost has come from its other replicas. Check the disk.",
        )
        self._changed(member)

    # --- what is done ---

    def turn(self) -> None:
        """Go on with what is damaged, now and then."""
        if not self.open or self._shard.now_ms < self._look_at_ms:
            return
        self._look_at_ms = self._shard.now_ms + LOOK_MS
        for group, repair in list(self.open.items()):
            member = self._groups.members.get(group)
            if member is None or member.log.is_dropped:
                del self.open[group]
            elif repair.is_begun:
                self._look_for_end(member, repair)
            else:
                self._advance(member, repair)
            if self.open.get(group) is repair and member is not None:
                self._say(member, repair)

    def _say(self, member: Member, repair: Repair) -> None:
        """Tell a person what a repair waits for, when it has waited for long."""
        repair.waits, now_ms = self._waits(member), self._shard.now_ms
        if not repair.waits:
            repair.say_at_ms = 0
        elif not repair.say_at_ms:
            repair.say_at_ms = now_ms + PATIENCE_MS
        elif now_ms >= repair.say_at_ms:
            repair.say_at_ms = now_ms + AGAIN_MS
            self._shard.log(
                _WARNING,
                f"{self._name(member)} is damaged here ({repair.why}) and cannot be repaired:"
                f" {repair.waits}. {WHAT_NEXT}",
            )

    def _waits(self, member: Member) -> str:
        """Say what hinders a repair, or nothing."""
        peering, raft, own = self._groups.peering, member.raft, self._shard.config.node
        assert peering is not None
        lead = peering.lead_of(member.group)
        is_led = raft.is_leader or (lead is not None and lead.node != own)
        if raft.recollection is not None and raft.recollection.is_asking:
            members = raft.recollection.silent(raft.configuration.members, raft.self_id)
            silent = _listed(members)
            return f"the replicas on node(s) {silent} do not tell their terms" if silent else ""
        if is_led:
            return ""
        others = [each for each in raft.configuration.members if each != raft.self_id]
        return f"nobody leads it, of the replicas on node(s) {_listed(others)}"

    def _advance(self, member: Member, repair: Repair) -> None:
        """Hand over, or begin anew, when the time has come for it."""
        peering, raft, log = self._groups.peering, member.raft, member.log
        assert peering is not None
        raft.may_lead = False
        if raft.is_leader:
            target = None if raft.is_transferring else peering.duties.successor(member)
            if target is not None:
                member.step(self._shard.now_ms, TransferLeadership(target))
            return
        lead = peering.lead_of(member.group)
        is_led = lead is not None and lead.node != self._shard.config.node
        is_said = log.last_lsn <= self._shard.store.wal.durable_lsn
        if not is_led or not is_said or log.is_leaving or member.is_leaving:
            return  # Q1; and what was said must be on disk, or raft would say it again otherwise
        try:
            self._begin(member, repair)
        except (WalFullError, MemoryError):
            return
        except LayoutError as fault:
            member.is_damaged = True
            self._shard.log(_ERROR, f"{self._name(member)} cannot be repaired: {fault}.")
            del self.open[member.group]

    def _begin(self, member: Member, repair: Repair) -> None:
        """Have the log go back, and raft begin with what is left of it."""
        shard, log, former = self._shard, member.log, member.log.loss
        end = (log.last_term, log.last_index)
        are_votes_lost = repair.are_votes_lost
        if former is not None:
            end = max(end, (former.last_term, former.last_index))
            are_votes_lost = are_votes_lost or former.are_votes_lost
        before = log.last_index
        _applied, fold = shard.store.state_of(member.group)
        shard.store.renew(log, Loss(end[1], end[0], are_votes_lost), repair.segment)
        member.renewed(fold)
        member.raft = self._groups.opening.make_raft(log)
        member.raft.truncations = log.truncations
        member.is_damaged = False
        repair.is_begun, repair.segment = True, None
        self._takes_part(member)
        self._changed(member)
        shard.log(
            _INFO,
            f"{self._name(member)} goes back from entry {before} to {log.last_index}, and fetches"
            " what is behind it from its leader",
        )

    def _takes_part(self, member: Member) -> None:
        """Hear of the leader anew; of nobody while the own term is not known (loss.py, L3)."""
        peering = self._groups.peering
        assert peering is not None
        peering.left(member.group)
        peering.came(member)
        member.raft.deadline_ms = self._shard.now_ms  # and ask at once

    def _look_for_end(self, member: Member, repair: Repair) -> None:
        if member.raft.recollection is not None:
            return
        del self.open[member.group]
        self._shard.counts.repairs_done += 1
        self._changed(member)
        self._shard.log(
            _INFO, f"{self._name(member)} has all again that it had lost ({repair.why})"
        )

    def others_of(self, group: GroupId) -> tuple[MemberId, ...]:
        """Return the members that the plan names, whatever the log's configuration says."""
        plan = self._groups.cluster.plan_of(group)
        return () if plan is None else plan.members

    def loss_of(self, log: GroupLog) -> Loss | None:
        """Return what raft is told of a log's loss."""
        return None if log.loss is None else replace(log.loss, others=self.others_of(log.group))

    def names(self) -> tuple[str, ...]:
        """Return what is said of the replicas that are damaged, the first few of them."""
        found = []
        for group, repair in [*self.open.items()][:NAMED_MAX]:
            member = self._groups.members.get(group)
            if member is not None:
                state = "it comes again from its leader" if repair.is_begun else "not repaired yet"
                state = f"it waits: {repair.waits}" if repair.waits else state
                found.append(f"{self._name(member)} is damaged ({repair.why}): {state}")
        return tuple(found)

    def _changed(self, member: Member) -> None:
        if isinstance(member, Partition):
            member.topic.changed()

    def _name(self, member: Member) -> str:
        if member.group == CONTROLLER_GROUP:
            return "the replica of the controller's log"
        if isinstance(member, Partition):
            return f"the replica of partition {member.topic.name}-{member.number}"
        return f"the replica of raft group {member.group}"


def _listed(members: Iterable[MemberId]) -> str:
    return ", ".join(str(node_of(each)) for each in sorted(members))
