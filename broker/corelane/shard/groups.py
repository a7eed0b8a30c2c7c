"""The raft groups of one core: the controller's (core 0), and one per partition that lives here.

What the cluster is comes from the controller's log alone, and which core of the node owns a group
from core 0 (siblings.py); this file makes what is on this core agree with both: opens partitions
that were created or came here, drops those that were deleted or left.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, assert_never

from corelane.cluster.changes import (
    BrokerConfigChanged,
    Change,
    ClusterNamed,
    FeaturesChanged,
    NodeChanged,
    NodeGone,
    NodeStateChanged,
    PartitionsAdded,
    PreferredWanted,
    ProducerIdsGranted,
    Refused,
    ReplicasChanged,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
)
from corelane.cluster.changes import Topic as TopicPlan
from corelane.cluster.commands import Command
from corelane.cluster.metadata import Cluster, Reservations
from corelane.cluster.topic_config import effective
from corelane.model.config import with_dynamic
from corelane.model.ids import (
    CONTROLLER_GROUP,
    GroupId,
    Index,
    NodeId,
    Term,
    TopicId,
    incarnation_of,
    member_id,
    node_of,
)
from corelane.raft.events import Tick
from corelane.shard import council
from corelane.shard.controller import Applied, Controller
from corelane.shard.fold_barrier import Barrier
from corelane.shard.hosts import Hosts
from corelane.shard.id_blocks import IdBlocks
from corelane.shard.inquiries import Inquiries
from corelane.shard.majority import Majority
from corelane.shard.marker_delivery import MarkerWriter
from corelane.shard.member import Member
from corelane.shard.moves import Moves
from corelane.shard.opening import Opening, apply_log_settings
from corelane.shard.partition import Partition, Topic
from corelane.shard.peering import Peering
from corelane.shard.peers.leads import Lead
from corelane.shard.reads import Reads
from corelane.shard.registration import Registration
from corelane.shard.repairs import Repairs
from corelane.shard.residence import Residence
from corelane.shard.siblings import Siblings
from corelane.shard.transaction_desk import TransactionDesk
from corelane.shard.verifying import TransactionInquiries
from corelane.storage.layout import Descriptor
from corelane.storage.news import News
from corelane.storage.recovery import Recovered

if TYPE_CHECKING:
    from corelane.shard.shard import Shard

NO_TOPIC_ID: Final = TopicId(bytes(16))


class Groups:
    """Members by group, topics by name and id.

    Invariant G1: a topic is in `topics` exactly while it is in the controller's fold, once that
    is established and homes are known.
    """

    def __init__(self, shard: "Shard", recovered: Recovered) -> None:
        self.shard = shard
        self.members: dict[GroupId, Member] = {}
        self.topics: dict[bytes, Topic] = {}
        self.topics_by_id: dict[bytes, Topic] = {}
        self.is_reconciled = False
        self.is_resized = False  # this start has another number of cores than the last
        self.opening = Opening(shard, self, recovered)
        self.hosts = Hosts(shard)
        self.reads = Reads(shard, self)
        shard.store.state_of = self._state_of
        self.siblings = Siblings(shard, self)
        peer = shard.config.peer
        self.peering = None if peer is None else Peering(shard, self, peer)
        self.registration = Registration(shard, self)
        self.majority = Majority(shard, self)
        self.asking = Inquiries(shard, self)
        self.barrier = Barrier(shard, self)
        self.desk = TransactionDesk(shard, self)
        self.inquiries: TransactionInquiries = self.desk
        self.marker_writer = MarkerWriter(shard, self)
        self.id_blocks = IdBlocks(shard, self)
        self.moves = Moves(shard, self)
        self.residence = Residence(shard, self)
        self.repairs = Repairs(shard, self)
        self._controller: Controller | None = None
        self.cluster = Cluster()
        self._has_fold = False
        if self.siblings.is_controller:
            self._controller = self._make_controller()
            self.cluster = self._controller.cluster
        self.reservations = Reservations(self.cluster)

    @property
    def controller(self) -> Controller:
        """The controller's group; on core 0 only, where everything that needs it is handled."""
        assert self._controller is not None, "the controller's log is core 0's"
        return self._controller

    # --- making members ---

    def _make_controller(self) -> Controller:
        shard = self.shard
        log = shard.store.groups.get(CONTROLLER_GROUP)
        if log is None:
            log = shard.store.create_group(self._controller_descriptor())
        applied, blob = self.opening.folds.pop(CONTROLLER_GROUP, (Index(0), b""))
        cluster = Cluster.decode(blob) if blob else Cluster()
        assert cluster.applied_index == applied
        assert applied >= log.flushed_index
        raft = self.opening.make_raft(log)
        controller = Controller(raft, log, shard.counts, cluster, self)
        controller.postman = self.peering
        self.members[CONTROLLER_GROUP] = controller
        if self.peering is not None:
            self.peering.came(controller)
        return controller

    def _controller_descriptor(self) -> Descriptor:
        """Return what an empty directory is in the controller's group: founder, or who joins."""
        config = self.shard.config
        if config.founds or config.peer is None:
            voters = (member_id(config.node, 0),)
            return Descriptor(CONTROLLER_GROUP, "", NO_TOPIC_ID, 0, voters)
        own = council.member_of_directory(config.node, config.peer.directory)
        incarnation = incarnation_of(own)
        return Descriptor(CONTROLLER_GROUP, "", NO_TOPIC_ID, 0, (), incarnation=incarnation)

    def start(self) -> None:
        """Begin: the controller's group campaigns, the rest follows from its log."""
        if self.peering is not None:
            self.peering.start()
        if self._controller is None:
            return  # the fold comes from core 0
        if CONTROLLER_GROUP in self.opening.damaged:
            # What topics there are is not known: to lead would be to drop those that are missing.
            if self.repairs.found_in_log(self.controller, self.opening.damaged[CONTROLLER_GROUP]):
                return
            self.controller.is_damaged = True
            why = self.opening.damaged[CONTROLLER_GROUP]
            self.shard.log(40, f"the controller's log is damaged, offline: {why}")
            return
        if self.controller.log.loss is not None and self.repairs.may_repair(self.controller):
            self.repairs.resumed(self.controller)
            return
        if self.opening.stands_first(self.controller):
            self.controller.campaign(self.shard.now_ms)

    def _state_of(self, group: GroupId) -> tuple[Index, bytes]:
        """Return a group's fold for its checkpoint row."""
        member = self.members.get(group)
        if member is None:  # recovered, and its topic not opened yet
            return self.opening.folds.get(group, (Index(0), b""))
        if isinstance(member, Partition):
            # After a start this may be further than is known as committed again.
            return member.kept.applied_index, member.kept.encode()
        return self.cluster.applied_index, self.cluster.encode()

    # --- the disk's news ---

    def disk_done(self, news: News) -> None:
        """Tell members what became durable."""
        now_ms = self.shard.now_ms
        members = self.members
        if news.votes:
            self.shard.is_stirred = True
        for log, term, voted_for in news.votes:
            member = members.get(log.group)
            if member is not None:
                member.vote_durable(now_ms, term, voted_for)
        for log, last_index, truncations in news.entries:
            member = members.get(log.group)
            if member is not None:
                if member.stirs:
                    self.shard.is_stirred = True
                member.entries_durable(last_index, truncations)

    # --- following the controller's log ---

    @property
    def is_established(self) -> bool:
        """Whether the fold is the cluster's, and not still being read."""
        return self._has_fold

    def established(self) -> None:
        """This core knows the whole of the controller's log: act on it."""
        assert not self._has_fold, "what is known stays known"
        assert not self.topics
        self._has_fold = True
        self.hosts.topics_changed()
        self.is_resized = self.registration.is_resized
        if self.peering is not None:
            self.peering.nodes_changed()
        self.siblings.established()
        self.id_blocks.lost()  # a block granted before this was passed by unseen

    def took_lead(self) -> None:
        """This core leads the controller's group: commands are decided here."""
        self.reservations = Reservations(self.cluster)
        self.siblings.led(CONTROLLER_GROUP, self.controller.raft.term)
        if self.peering is not None:
            self.peering.tell_lead(self.controller)
        self.registration.took_lead()

    def mirrored(self, cluster: Cluster, changes: Sequence[Change]) -> None:
        """Take over the fold from core 0; *changes* lead to it from the one known before."""
        self.cluster = cluster
        self._has_fold = True
        self.hosts.topics_changed()
        if self.peering is not None:
            self.peering.nodes_changed()
        for change in changes:
            self.changed(change)
        self.siblings.ids_came()
        self.id_blocks.lost()  # a block that the fold has already was passed by unseen
        if self.siblings.is_settled and not self.is_reconciled:
            self.settled()

    def applied(self, index: Index, payload: bytes) -> None:
        """Pass on what was applied here to who mirrors it."""
        self.siblings.applied(index, payload)

    def settled(self) -> None:
        """Every group's home is known: own what belongs here, and nothing else."""
        if self.is_reconciled or not self._has_fold:
            return
        if self.registration.stands_down():
            return
        self.is_reconciled = True
        self._apply_dynamic()
        self.residence.settle()
        for plan in self.cluster.topics.values():
            self._open_topic(plan)

    def owned(self) -> dict[GroupId, int]:
        """Return the revision of every group in this core's log, but the controller's."""
        return {
            group: log.descriptor.revision
            for group, log in self.shard.store.groups.items()
            if group != CONTROLLER_GROUP
        }

    def led(self) -> list[tuple[GroupId, Term]]:
        """Return the groups this core leads, with their terms."""
        return [
            (group, member.raft.term)
            for group, member in self.members.items()
            if group != CONTROLLER_GROUP and member.serves
        ]

    def lead_changed(self, group: GroupId) -> None:
        """Note that another core leads a group, or another is its home."""
        found = self.cluster.partition_of(group)
        topic = None if found is None else self.topics_by_id.get(found[0].topic_id)
        if topic is not None:
            topic.changed()

    def lead_of(self, group: GroupId) -> Lead | None:
        """Return which core of which node leads a group; None: nobody that is known here."""
        member = self.members.get(group)
        config = self.shard.config
        elsewhere = None if self.peering is None else self.peering.lead_of(group)
        if member is None:
            sibling = self.siblings.lead_of(group)
        else:
            sibling = (config.core, member.raft.term) if member.serves else None
        if sibling is None:
            return elsewhere
        core, term = sibling
        if elsewhere is not None and elsewhere.term >= term:
            return elsewhere  # the very same, with its in-sync set, or a later one
        return Lead(group, term, 0, config.node, core, (config.node,))

    def controller_node(self) -> NodeId | None:
        """Return the node that leads the controller's group; None: not known."""
        if self._controller is not None:
            leader = self._controller.raft.leader
            return None if leader is None else node_of(leader)
        lead = self.lead_of(CONTROLLER_GROUP)
        return None if lead is None else lead.node

    def is_node_up(self, node: NodeId) -> bool:
        """Whether a node can be reached from here."""
        if node == self.shard.config.node:
            return True
        return self.peering is not None and self.peering.is_node_up(node)

    def node_judged(self, node: NodeId) -> None:
        """A node is there, or away: answers that name it are otherwise now."""
        for plan in self.cluster.topics.values():
            topic = self.topics_by_id.get(plan.topic_id)
            if topic is not None and any(node in part.nodes for part in plan.partitions):
                topic.changed()

    def changed(self, change: Change) -> None:
        if isinstance(change, TopicCreated | TopicDeleted | PartitionsAdded):
            self.hosts.topics_changed()
        match change:
            case TopicCreated():
                self.residence.give_homes(change.topic.partitions)
                if self.is_reconciled:
                    self._open_topic(change.topic)
            case TopicDeleted():
                if self.is_reconciled:
                    self._delete_topic(change.topic)
                self.siblings.deleted(part.group for part in change.topic.partitions)
                if self.peering is not None:
                    self.peering.deleted(part.group for part in change.topic.partitions)
            case TopicConfigChanged() if self.is_reconciled:
                topic = self.topics_by_id[change.topic.topic_id]
                topic.settings = effective(change.topic.configs, self.shard.config.config)
                self._apply_settings(topic)
            case PartitionsAdded():
                self.residence.give_homes(change.topic.partitions[change.first :])
                if self.is_reconciled:
                    topic = self.topics_by_id[change.topic.topic_id]
                    self._open_partitions(topic, change.topic, change.first)
            case ProducerIdsGranted():
                config = self.shard.config
                if (change.node, change.core) == (config.node, config.core):
                    self.siblings.ids_came()
                    self.id_blocks.granted(change.first_id, change.count)
            case BrokerConfigChanged() if self.is_reconciled:
                self._apply_dynamic()
            case ReplicasChanged():
                self.residence.changed(change.topic, change.numbers)
            case NodeChanged() | NodeGone() if self.peering is not None:
                self.peering.nodes_changed()
                self.registration.nodes_changed()
            case PreferredWanted() if self.peering is not None:
                self.peering.homecoming.wanted(change.groups)
            case (
                ClusterNamed()
                | NodeChanged()
                | NodeGone()
                | NodeStateChanged()
                | PreferredWanted()
                | FeaturesChanged()
                | Refused()
                | TopicConfigChanged()
                | BrokerConfigChanged()
            ):
                pass
            case _:
                assert_never(change)

    def _apply_dynamic(self) -> None:
        """Act on settings that were changed at run time; each topic's may depend on them."""
        shard = self.shard
        dynamic = self.cluster.dynamic_config(shard.config.node)
        shard.config = replace(shard.config, config=with_dynamic(shard.static_config, dynamic))
        for topic in self.topics.values():
            plan = self.cluster.topics_by_id[topic.topic_id]
            topic.settings = effective(plan.configs, shard.config.config)
            self._apply_settings(topic)

    def rehomed(self, groups: Iterable[GroupId]) -> None:
        """Open the groups that came here, and give up what is another core's."""
        if not self.is_reconciled:
            return
        for group in groups:
            if group in self.members:
                continue  # one that leaves does so when its parcel was taken
            found = self.cluster.partition_of(group)
            if found is None or not self.is_home(group):
                self.release_former(group)
                continue
            plan, number = found
            topic = self.topics_by_id[plan.topic_id]
            if topic.partitions[number] is None:
                self.opening.queue(topic, number, group)

    def release_former(self, group: GroupId) -> None:
        """Give up a group in this core's log that another core has at a higher revision (N2)."""
        log, home = self.shard.store.groups.get(group), self.siblings.homes.get(group)
        if log is None or home is None or home.core == self.shard.config.core:
            return  # with no home known, it is being decided
        assert home.revision != log.descriptor.revision, "two cores own one group"
        if home.revision < log.descriptor.revision:
            return  # it came here while core 0 was away, which hears of it in a moment
        self.opening.folds.pop(group, None)
        self.shard.store.release_group(log)

    def is_home(self, group: GroupId) -> bool:
        """Whether this core is to have a group."""
        return self.siblings.home_of(group) == self.shard.config.core

    def _open_topic(self, plan: TopicPlan) -> None:
        settings = effective(plan.configs, self.shard.config.config)
        assert plan.topic_id not in self.topics_by_id
        topic = Topic(plan.name, plan.topic_id, settings)
        assert topic.name_bytes not in self.topics, "G1"
        self.topics[topic.name_bytes] = topic
        self.topics_by_id[plan.topic_id] = topic
        self._open_partitions(topic, plan, 0)

    def _open_partitions(self, topic: Topic, plan: TopicPlan, first: int) -> None:
        assert first == len(topic.partitions)
        topic.partitions += [None] * (len(plan.partitions) - first)
        topic.changed()
        for number in range(first, len(plan.partitions)):
            part = plan.partitions[number]
            if self.is_home(part.group):
                self.opening.queue(topic, number, part.group)

    def partition_leads(self, partition: Partition) -> None:
        self.opening.opened(partition)
        self.siblings.led(partition.group, partition.raft.term)
        if self.peering is not None:
            self.peering.tell_lead(partition)
        self.hosts.leads(partition)

    def release(self, partition: Partition) -> None:
        """Give up a partition that another core has taken over, durably."""
        self.give_up(partition)
        self.shard.store.release_group(partition.log)
        partition.fail_waits()

    def give_up(self, partition: Partition) -> None:
        """Have a partition no more on this core; what becomes of its log the caller decides."""
        assert not partition.is_dropped
        topic = partition.topic
        assert topic.partitions[partition.number] is partition
        topic.partitions[partition.number] = None
        topic.changed()
        partition.is_dropped = True
        self.opening.opened(partition)
        self._forget(partition)

    def _forget(self, partition: Partition) -> None:
        del self.members[partition.group]
        if self.peering is not None:
            self.peering.left(partition.group)

    def _apply_settings(self, topic: Topic) -> None:
        for partition in topic.partitions:
            if partition is not None:
                apply_log_settings(topic, partition.log)

    def _delete_topic(self, plan: TopicPlan) -> None:
        topic = self.topics_by_id.pop(plan.topic_id)
        for host in [*self.hosts.groups.values()]:
            host.topics_deleted({topic.name})
        self.moves.forget(part.group for part in plan.partitions)
        del self.topics[topic.name_bytes]
        assert not topic.is_deleted
        topic.is_deleted = True
        for partition in topic.partitions:
            if partition is None:
                continue
            partition.is_dropped = True
            self.opening.opened(partition)
            self._forget(partition)
            self.shard.store.drop_group(partition.log)
            partition.fail_waits()
            assert not partition.serves
        for part in plan.partitions:  # those that are here and were not opened yet
            log = self.shard.store.groups.get(part.group)
            if log is not None and not self.opening.is_queued(part.group):
                self.opening.forget(part.group)
                self.shard.store.drop_group(log)

    def took(self, group: GroupId, fold: tuple[Index, bytes]) -> None:
        """A group came here from a sibling: keep its fold until HOMES has it opened."""
        if self.cluster.partition_of(group) is None and group < self.cluster.next_group:
            self.shard.store.drop_group(self.shard.store.groups[group])  # deleted on its way
        else:
            self.opening.folds[group] = fold

    # --- time ---

    def tick(self) -> None:
        """Let the controller's group act when its time has come; others have none to come."""
        controller = self._controller
        if controller is None:
            return
        if self.peering is None:
            if self.shard.now_ms >= controller.raft.deadline_ms:
                controller.step(self.shard.now_ms, Tick())
            return
        if not controller.is_known:
            controller.look()
        self.registration.tick()
        self.majority.tick()

    @property
    def is_ready(self) -> bool:
        """Whether every partition that belongs here leads (or is known damaged)."""
        if self._controller is None:
            return self.opening.count == 0 and self.is_reconciled
        if self.peering is None or self._controller.serves:
            return self.opening.count == 0 and self.takes_commands
        is_member = self.shard.config.node in self.cluster.nodes
        return self.opening.count == 0 and self.is_reconciled and is_member

    @property
    def takes_commands(self) -> bool:
        """Whether topics can be made: the controller leads and this node is registered with it.

        Found by simulation: a topic asked for between the two had no node to be placed on.
        """
        if self._controller is None or not self.is_reconciled:
            return False
        known = self.shard.config.node in self.cluster.nodes
        return known and (self._controller.serves or self._controller.follows)

    def propose(self, command: Command, applied: Applied) -> None:
        """Have a command decided, here or where the controller's group is led (core 0)."""
        if self.controller.serves or self.peering is None:
            self.controller.propose(command, applied)
        else:
            self.peering.calls.propose(command, applied)
