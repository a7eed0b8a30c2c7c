"""Which replicas a partition has, and how a change of them goes on: values and pure transitions.

A change is asked for, *adds* replicas until they have everything, *switches* from the former ones
to the new ones, and is done; each step but the first is told by the partition's leader, which
carries it out.

Invariants:
E1. A member that has left never comes back under its id (raft/membership.py, C3): one that is new
    on a node has the index of the command that asked for it as its incarnation.
E2. Until it switches no member has left, so it can be taken back, or lead elsewhere. What is asked
    for after that waits until it is done (`then`).
E3. A step names the change that it belongs to, by its revision: one of an earlier change does
    nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from corelane.cluster.binary import Reader, Writer
from corelane.model import limits
from corelane.model.ids import GroupId, Index, MemberId, NodeId, incarnation_of, member_id, node_of
from corelane.model.record import record

ANY_CORE = limits.CORES_MAX + 1
"""Instead of a core: the node chooses."""
INCARNATION_MAX = limits.INT32_MAX


@record
class Place:
    """Where a replica is to be."""

    node: NodeId
    core: int = ANY_CORE


@record
class Reassignment:
    """What a partition is changing to."""

    revision: Index
    """Of the command that asked for it."""
    members: tuple[MemberId, ...]
    """The preferred leader first."""
    cores: tuple[int, ...]
    """Where each of them was asked for, or ANY_CORE."""
    is_switching: bool = False
    then: tuple[Place, ...] = ()
    """What was asked for while it switched (E2)."""


@record
class PartitionPlan:
    """One partition: its raft group and the nodes of its replicas, the preferred leader first."""

    group: GroupId
    replicas: tuple[NodeId, ...]
    incarnations: tuple[int, ...] = ()
    """Of the replicas, in their order; empty: all are the first of their node."""
    founders: tuple[NodeId, ...] = ()
    """Where it was created; empty: where it is."""
    change: Reassignment | None = None

    @property
    def members(self) -> tuple[MemberId, ...]:
        """Return the replicas as members of the raft group, without what is being changed."""
        if not self.incarnations:
            return tuple([member_id(node, 0) for node in self.replicas])
        pairs = zip(self.replicas, self.incarnations, strict=True)
        return tuple([member_id(node, incarnation) for node, incarnation in pairs])

    @property
    def target(self) -> tuple[NodeId, ...]:
        """Return where the replicas are to be, once nothing is being changed."""
        if self.change is None:
            return self.replicas
        if self.change.then:
            return tuple([place.node for place in self.change.then])
        return tuple(map(node_of, self.change.members))

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Return every node that has a replica or is to have one: those that stay or come first."""
        if self.change is None:
            return self.replicas
        return tuple(dict.fromkeys([*map(node_of, self.change.members), *self.replicas]))

    @property
    def adding(self) -> tuple[NodeId, ...]:
        """Return the nodes that get a replica."""
        if self.change is None:
            return ()
        members = self.members
        return tuple([node_of(each) for each in self.change.members if each not in members])

    @property
    def removing(self) -> tuple[NodeId, ...]:
        """Return the nodes whose replica goes."""
        if self.change is None:
            return ()
        wanted = [*map(node_of, self.change.members)]
        return tuple([node for node in self.replicas if node not in wanted])

    @property
    def first_nodes(self) -> tuple[NodeId, ...]:
        """Return where the partition was created."""
        return self.founders or self.replicas

    def member_on(self, node: NodeId) -> MemberId | None:
        """Return which member of the group a node has, or is to have; the newer of two."""
        found = None
        for member in (*self.members, *(() if self.change is None else self.change.members)):
            if node_of(member) == node and (found is None or member > found):
                found = member
        return found

    def core_on(self, node: NodeId) -> int:
        """Return which core of a node was asked for, or ANY_CORE."""
        if self.change is not None:
            for member, core in zip(self.change.members, self.change.cores, strict=True):
                if node_of(member) == node:
                    return core
        return ANY_CORE


IsLost = Callable[[GroupId, MemberId], bool]
"""Says whether a member of a group was lost with the data directory of its node."""


def asked(
    plan: PartitionPlan, index: Index, places: Sequence[Place], is_lost: IsLost
) -> PartitionPlan:
    """Return the plan after replicas were asked for at *places* by the command at *index*."""
    if plan.change is not None and plan.change.is_switching:
        return replace(plan, change=replace(plan.change, then=tuple(places)))
    known: dict[NodeId, MemberId] = {}
    for member in (*(() if plan.change is None else plan.change.members), *plan.members):
        if not is_lost(plan.group, member):
            known[node_of(member)] = member
    members = tuple([known.get(each.node, member_id(each.node, index)) for each in places])
    cores = tuple([each.core for each in places])
    return replace(plan, change=Reassignment(index, members, cores))


def cancelled(plan: PartitionPlan, index: Index) -> PartitionPlan:
    """Return the plan after its change was called off: the replicas it had are asked for (E2)."""
    assert plan.change is not None
    if plan.change.is_switching:
        places = tuple([Place(node) for node in plan.replicas])
        return replace(plan, change=replace(plan.change, then=places))
    members = plan.members
    return replace(plan, change=Reassignment(index, members, (ANY_CORE,) * len(members)))


def switches(plan: PartitionPlan, revision: Index) -> PartitionPlan | None:
    """Return the plan once its change may not be taken back any more; None: another one (E3)."""
    change = plan.change
    if change is None or change.revision != revision or change.is_switching:
        return None
    return replace(plan, change=replace(change, is_switching=True))


def done(
    plan: PartitionPlan, revision: Index, index: Index, is_lost: IsLost
) -> PartitionPlan | None:
    """Return the plan with the replicas it was to have; None: that change is not under way (E3)."""
    change = plan.change
    if change is None or change.revision != revision:
        return None
    incarnations = tuple([incarnation_of(member) for member in change.members])
    result = PartitionPlan(
        plan.group,
        tuple(map(node_of, change.members)),
        incarnations if any(incarnations) else (),
        plan.first_nodes,
    )
    return asked(result, index, change.then, is_lost) if change.then else result


def write_plan(out: Writer, plan: PartitionPlan) -> None:
    """Write all of a plan."""
    out.uint(plan.group)
    write_nodes(out, plan.replicas)
    write_nodes(out, plan.founders)
    out.uint(len(plan.incarnations))
    for incarnation in plan.incarnations:
        out.uint(incarnation)
    out.uint(plan.change is not None)
    if plan.change is not None:
        change = plan.change
        out.uint(change.revision)
        out.uint(change.is_switching)
        out.uint(len(change.members))
        for member, core in zip(change.members, change.cores, strict=True):
            out.uint(member)
            out.uint(core)
        write_places(out, change.then)


def read_plan(reader: Reader, revision_max: Index) -> PartitionPlan:
    """Read what `write_plan` wrote."""
    group = read_group(reader)
    replicas = read_nodes(reader)
    founders = read_nodes(reader)
    count = reader.count(limits.REPLICAS_MAX)
    incarnations = tuple(reader.uint(INCARNATION_MAX) for _ in range(count))
    if not replicas or count not in (0, len(replicas)) or (count and not any(incarnations)):
        raise reader.fault("has a partition whose replicas are not what they should be")
    change = _read_change(reader, revision_max) if reader.uint(1) else None
    return PartitionPlan(group, replicas, incarnations, founders, change)


def _read_change(reader: Reader, revision_max: Index) -> Reassignment:
    revision = Index(reader.uint(revision_max))
    is_switching = bool(reader.uint(1))
    members: list[MemberId] = []
    cores: list[int] = []
    for _ in range(reader.count(limits.REPLICAS_MAX)):
        members.append(MemberId(reader.uint(limits.INT64_MAX)))
        cores.append(reader.uint(ANY_CORE))
    nodes = [*map(node_of, members)]
    if not members or len(set(nodes)) != len(nodes):
        raise reader.fault("changes a partition to no replica, or to two on one node")
    if not all(0 < node <= limits.NODE_ID_MAX for node in nodes):
        raise reader.fault("changes a partition to a node that cannot be")
    return Reassignment(revision, tuple(members), tuple(cores), is_switching, read_places(reader))


def read_group(reader: Reader) -> GroupId:
    """Read the raft group of a partition."""
    group = reader.uint()
    if group == 0:
        raise reader.fault("gives a partition the controller's raft group")
    return GroupId(group)


def read_node_id(reader: Reader) -> NodeId:
    """Read the id of a node."""
    node = reader.uint(limits.NODE_ID_MAX)
    if node == 0:
        raise reader.fault("has the node id 0")
    return NodeId(node)


def write_nodes(out: Writer, nodes: tuple[NodeId, ...]) -> None:
    """Write the nodes of replicas, in their order."""
    out.uint(len(nodes))
    for node in nodes:
        out.uint(node)


def read_nodes(reader: Reader) -> tuple[NodeId, ...]:
    """Read what `write_nodes` wrote: each node once, or none at all."""
    nodes = tuple(read_node_id(reader) for _ in range(reader.count(limits.REPLICAS_MAX)))
    if len(set(nodes)) != len(nodes):
        raise reader.fault("has a partition with two replicas on one node")
    return nodes


def write_places(out: Writer, places: tuple[Place, ...]) -> None:
    """Write where replicas are to be."""
    out.uint(len(places))
    for place in places:
        out.uint(place.node)
        out.uint(place.core)


def read_places(reader: Reader) -> tuple[Place, ...]:
    """Read what `write_places` wrote: each node once, or none at all."""
    count = reader.count(limits.REPLICAS_MAX)
    places = tuple(Place(read_node_id(reader), reader.uint(ANY_CORE)) for _ in range(count))
    if len({place.node for place in places}) != count:
        raise reader.fault("has two replicas on one node")
    return places
