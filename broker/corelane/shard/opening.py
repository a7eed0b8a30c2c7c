"""Members are made of logs that are there already, or were created for them just now."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from corelane.cluster.replicas import PartitionPlan
from corelane.model.ids import GroupId, Index, incarnation_of, member_id
from corelane.raft import membership
from corelane.raft.config import HardState, RaftConfig
from corelane.raft.core import RaftGroup
from corelane.raft.membership import Configuration
from corelane.shard import partition_fold
from corelane.shard.member import Member
from corelane.shard.partition import Partition, Topic, refold
from corelane.shard.partition_fold import PartitionFold
from corelane.shard.reads import settings_of
from corelane.storage.group_log import GroupLog
from corelane.storage.layout import Descriptor
from corelane.storage.recovery import Recovered

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

_ERROR = 40
RETRY_MS = 5


class _Later:
    """A partition that cannot be opened before its former log has ended."""

    __slots__ = ("_again", "is_done")

    def __init__(self, again: Callable[[], None]) -> None:
        self._again = again
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Try again."""
        del now_ms
        self.is_done = True
        self._again()


class Opening:
    """What recovery found and nobody has opened yet, and the partitions that are being opened."""

    def __init__(self, shard: "Shard", groups: "Groups", recovered: Recovered) -> None:
        self._shard = shard
        self._groups = groups
        self.folds = recovered.folds
        self.damaged = recovered.damaged
        self.count = 0
        """Partitions that do not lead yet, of those that nobody else could."""
        self._queued: set[GroupId] = set()  # of those, the ones that wait in `shard.todo`

    def make_raft(self, log: GroupLog) -> RaftGroup:
        """Return the raft state of a log."""
        shard = self._shard
        members = Configuration(log.descriptor.voters)
        index, payload = log.configured.at(Index(log.first_index - 1))
        if index:
            members = membership.decode(payload)
        peering = self._groups.peering
        return RaftGroup(
            RaftConfig(
                log.group,
                member_id(shard.config.node, log.descriptor.incarnation),
                members.voters,
                outgoing=members.outgoing,
                learners=members.learners,
                settings=settings_of(shard.config.config),
                contacts=None if peering is None else peering.contacts,
            ),
            HardState(
                log.term, log.voted_for, log.committed_index, self._groups.repairs.loss_of(log)
            ),
            log,
            shard.config.random,
            shard.now_ms,
        )

    def stands_first(self, member: Member) -> bool:
        """Whether a member asks for votes at once: nobody leads, or its pre-vote is refused."""
        return member.raft.configuration.voters[:1] == (member.raft.self_id,)

    def is_queued(self, group: GroupId) -> bool:
        """Whether a partition is to be opened in a later turn."""
        return group in self._queued

    def queue(self, topic: Topic, number: int, group: GroupId) -> None:
        """Open a partition in a later turn: thousands of them must not hold up one."""
        if group not in self._queued:
            self._queued.add(group)
            self.count += 1
            self._shard.todo.append(partial(self._open, topic, number, group))

    def forget(self, group: GroupId) -> None:
        """Keep nothing of what recovery found of a group: it is not of this core any more."""
        self.folds.pop(group, None)
        self.damaged.pop(group, None)

    def _open(self, topic: Topic, number: int, group: GroupId) -> None:
        """Open a partition's log, made now or recovered, and stand for election."""
        shard, groups = self._shard, self._groups
        assert self.count > 0
        assert group not in groups.members
        plan = groups.cluster.plan_of(group)
        member = None if plan is None else groups.residence.member_of(plan)
        log = shard.store.groups.get(group)
        is_wanted = not topic.is_deleted and member is not None and groups.is_home(group)
        incarnation = 0 if member is None else incarnation_of(member)
        if log is not None and not (is_wanted and incarnation == log.descriptor.incarnation):
            self.forget(group)
            shard.store.drop_group(log)
            log = None
        if is_wanted and shard.store.dropping.holds(group):
            # Of two records the one that ends the former must come first (storage/dropping.py).
            again = partial(self._open, topic, number, group)
            shard.deadlines.add(shard.now_ms + RETRY_MS, _Later(again))
            return
        self._queued.discard(group)
        if not is_wanted or plan is None:
            self.count -= 1
            return
        if log is None:
            log = self._make_log(topic, number, plan, incarnation)
        raft = self.make_raft(log)
        partition = Partition(raft, log, shard.counts, topic, self._fold(topic, log))
        partition.postman = groups.peering
        assert topic.partitions[number] is None
        assert partition.number == number
        topic.partitions[number] = partition
        groups.members[group] = partition
        apply_log_settings(topic, log)
        partition.led = partial(groups.partition_leads, partition)
        partition.is_opening = raft.configuration.members == (raft.self_id,)
        if not partition.is_opening:
            self.count -= 1  # whoever leads it, this replica does its part
        if group in self.damaged:
            if not groups.repairs.found_in_log(partition, self.damaged[group]):
                self._is_damaged(partition)
            return
        if log.loss is not None and groups.repairs.may_repair(partition):
            groups.repairs.resumed(partition)
            return
        if groups.peering is not None:
            groups.peering.came(partition)
        if self.stands_first(partition):
            partition.campaign(shard.now_ms)

    def _make_log(
        self, topic: Topic, number: int, plan: PartitionPlan, incarnation: int
    ) -> GroupLog:
        """Make an empty log: of a founder, who knows the others, or of one who joins (Q2)."""
        voters = () if incarnation else tuple(member_id(node, 0) for node in plan.first_nodes)
        revision = self._groups.siblings.homes[plan.group].revision
        made = (plan.group, topic.name, topic.topic_id, number, voters, revision, incarnation)
        return self._shard.store.create_group(Descriptor(*made))

    def _fold(self, topic: Topic, log: GroupLog) -> PartitionFold:
        """Return the folds of what is committed, with the tail folded on top of them."""
        applied, blob = self.folds.pop(log.group, (Index(0), b""))
        expiration_ms = self._shard.config.config.producers.id_expiration_ms
        kept = (
            partition_fold.decode(blob, topic.name, expiration_ms)
            if blob
            else partition_fold.empty(topic.name, expiration_ms)
        )
        refold(log, kept, applied)
        kept.producers.committed(log.committed_index)
        kept.transactions.committed(log.committed_index)
        kept.transactions.trimmed(log.start_offset)
        assert kept.latest is None or kept.latest.applied_index >= log.flushed_index, "L1"
        return kept

    def _is_damaged(self, partition: Partition) -> None:
        topic = partition.topic
        partition.is_damaged = True
        topic.changed()
        self.opened(partition)
        self._shard.log(
            _ERROR,
            f"partition {topic.name}-{partition.number} is offline: "
            f"{self.damaged[partition.group]}. Everything "
            "else is served. Restore its files; `corelane dump-log --help` says what it can "
            "show and repair.",
        )

    def opened(self, partition: Partition) -> None:
        """Note that a partition leads, is known damaged, or is gone."""
        if partition.is_opening:
            assert self.count > 0
            self.count -= 1
            partition.is_opening = False


def apply_log_settings(topic: Topic, log: GroupLog) -> None:
    """Have a log follow its topic's settings."""
    log.segment_bytes = topic.settings.segment_bytes
    log.segment_ms = topic.settings.roll_ms(log.group)
