"""Members are made of logs that are there already, or were created for them just now."""

from functools import partial
from typing import TYPE_CHECKING

from corelane.model.ids import GroupId, Index, NodeId, member_id
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
            HardState(log.term, log.voted_for, log.committed_index),
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

    def queue(
        self, topic: Topic, number: int, group: GroupId, replicas: tuple[NodeId, ...]
    ) -> None:
        """Open a partition in a later turn: thousands of them must not hold up one."""
        if group not in self._queued:
            self._queued.add(group)
            self.count += 1
            self._shard.todo.append(partial(self._open, topic, number, group, replicas))

    def _open(
        self, topic: Topic, number: int, group: GroupId, replicas: tuple[NodeId, ...]
    ) -> None:
        """Open a partition's log, made now or recovered, and stand for election."""
        shard, groups = self._shard, self._groups
        log = shard.store.groups.get(group)
        assert self.count > 0
        assert group not in groups.members
        self._queued.discard(group)
        if topic.is_deleted or not groups.is_home(group):
            self.count -= 1
            self.folds.pop(group, None)
            if log is not None:
                shard.store.drop_group(log)
            return
        if log is None:
            revision = groups.siblings.homes[group].revision
            voters = tuple(member_id(node, 0) for node in replicas)
            log = shard.store.create_group(
                Descriptor(group, topic.name, topic.topic_id, number, voters, revision)
            )
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
            self._is_damaged(partition)
            return
        if groups.peering is not None:
            groups.peering.came(partition)
        if self.stands_first(partition):
            partition.campaign(shard.now_ms)

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
