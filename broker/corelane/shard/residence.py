"""Which replicas are on this core, as the plan of each partition wants it: kept so as plans change.

Invariants:
Q1. A replica is removed from disk only when the fold says that its node has none of that group any
    more, or another one: its leader had the change committed before it said so.
Q2. A replica is opened as the very member that the plan names. One that is not of the first
    members of its group knows nobody, and votes for nobody, until a leader tells it of them.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from corelane.cluster.changes import Topic as TopicPlan
from corelane.cluster.replicas import ANY_CORE, PartitionPlan
from corelane.model.ids import CONTROLLER_GROUP, CoreId, GroupId, MemberId, incarnation_of
from corelane.shard.partition import Partition, Topic

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard


class Residence:
    """What of the cluster's partitions is here, and what should be."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups

    def member_of(self, plan: PartitionPlan) -> MemberId | None:
        """Return which member of a group this node has, or is to have; None: none."""
        return self._groups.cluster.member_on(plan, self._shard.config.node)

    def on_node(self) -> Iterator[tuple[GroupId, MemberId]]:
        """Return the partitions' raft groups that have a replica on this node, and which."""
        for topic in self._groups.cluster.topics.values():
            for plan in topic.partitions:
                member = self.member_of(plan)
                if member is not None:
                    yield plan.group, member

    def core_wanted(self, group: GroupId) -> int:
        """Return which core of this node a replica was asked for on, or ANY_CORE."""
        plan = self._groups.cluster.plan_of(group)
        return ANY_CORE if plan is None else plan.core_on(self._shard.config.node)

    def settle(self) -> None:
        """Forget what recovery found and the plan has no more."""
        groups, store = self._groups, self._shard.store
        wanted = dict(self.on_node())
        for group, log in [*store.groups.items()]:
            if group == CONTROLLER_GROUP:
                continue
            member = wanted.get(group)
            if member is None or log.descriptor.incarnation != incarnation_of(member):
                groups.opening.forget(group)
                store.drop_group(log)
            else:
                groups.release_former(group)

    def give_homes(self, plans: Iterable[PartitionPlan]) -> None:
        """Decide which core is to have new replicas of this node, on core 0."""
        siblings = self._groups.siblings
        if not siblings.is_controller:
            return
        node = self._shard.config.node
        new = [plan for plan in plans if self.member_of(plan) is not None]
        siblings.created({plan.group: plan.core_on(node) for plan in new})

    def changed(self, topic_plan: TopicPlan, numbers: Iterable[int]) -> None:
        """Take up the replicas that partitions have now, and give up those they have no more."""
        groups = self._groups
        topic = groups.topics_by_id.get(topic_plan.topic_id)
        for number in numbers:
            plan = topic_plan.partitions[number]
            member = self.member_of(plan)
            if member is None:
                if groups.siblings.is_controller:
                    groups.moves.forget([plan.group])
                groups.siblings.deleted([plan.group])
            else:
                self._house(plan)
            if topic is not None and groups.is_reconciled:
                topic.changed()
                self._agree(topic, number, plan.group, member)

    def _house(self, plan: PartitionPlan) -> None:
        """Have a replica on the core that was asked for, or on any one (core 0)."""
        groups, core = self._groups, plan.core_on(self._shard.config.node)
        if not groups.siblings.is_controller or not groups.siblings.is_settled:
            return
        home = groups.siblings.homes.get(plan.group)
        if home is None:
            self.give_homes([plan])
        elif core != home.core and core < self._shard.config.core_count:
            groups.moves.want(plan.group, CoreId(core), _nobody)

    def _agree(self, topic: Topic, number: int, group: GroupId, member: MemberId | None) -> None:
        groups, store = self._groups, self._shard.store
        log = store.groups.get(group)
        is_other = log is not None and (
            member is None or log.descriptor.incarnation != incarnation_of(member)
        )
        if log is not None and is_other:
            partition = topic.partitions[number]
            if partition is not None:
                self._drop(partition)
            elif not groups.opening.is_queued(group):
                groups.opening.forget(group)
                store.drop_group(log)
        if member is not None and topic.partitions[number] is None and groups.is_home(group):
            groups.opening.queue(topic, number, group)

    def _drop(self, partition: Partition) -> None:
        groups = self._groups
        groups.moves.forget([partition.group])
        groups.give_up(partition)
        self._shard.store.drop_group(partition.log)
        partition.fail_waits()


def _nobody(why: str) -> None:
    """Nobody waits for this move."""
    del why
