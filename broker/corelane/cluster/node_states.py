"""What is wanted of nodes beside their being there: drained, filled, on their way out, begun anew.

A part of the fold of the controller's log (metadata.py).

Invariants:
O1. A data directory that was declared lost, or whose node was taken out, is never let in again:
    its members have left, and no member comes back under its id (raft/membership.py, C3).
O2. Of a node that lost its directory, every member made before that is lost with it; none of them
    is opened in the new directory, where it would vote without knowing what it promised.
"""

from collections.abc import Collection
from typing import Final

from corelane.cluster.binary import Reader, Writer
from corelane.cluster.replicas import read_node_id
from corelane.model import limits
from corelane.model.ids import GroupId, Index, MemberId, NodeId, incarnation_of, node_of
from corelane.model.record import record

JOINED: Final = 1
"""A node that is to be filled has come to a cluster that had topics."""
ASKED: Final = 2
"""An operator asked for it."""
DIRECTORIES_MAX: Final = 16
"""So many former data directories of a node are remembered."""


@record
class Loss:
    """What a node had when its data directory was lost is gone."""

    index: Index
    """Members of an incarnation from here on were made later."""
    next_group: GroupId
    """So were groups from here on."""
    directories: tuple[str, ...]
    """Those that must not come back, the latest last."""


class NodeStates:
    """By node; read the dictionaries, never write to them."""

    __slots__ = ("drained", "filling", "leaving", "losses")

    def __init__(self) -> None:
        self.drained: dict[NodeId, int] = {}
        """Nodes that are to lead nothing, and the life in which they are not to."""
        self.leaving: dict[NodeId, Index] = {}
        """Nodes that are to leave, and the entry that says so."""
        self.losses: dict[NodeId, Loss] = {}
        self.filling: dict[NodeId, int] = {}
        """Nodes that are to get their share of replicas (balancing.py): JOINED or ASKED."""

    def is_lost(self, group: GroupId, member: MemberId) -> bool:
        """Say whether a member was lost with its node's data directory (O2)."""
        loss = self.losses.get(node_of(member))
        return loss is not None and group < loss.next_group and incarnation_of(member) < loss.index

    def is_former(self, node: NodeId, directory: str) -> bool:
        """Say whether a node had that data directory once, and must not come back with it (O1)."""
        loss = self.losses.get(node)
        return loss is not None and directory in loss.directories

    def takes_replicas(self, node: NodeId) -> bool:
        """Say whether a node is to get new replicas."""
        return node not in self.leaving

    def lost(self, node: NodeId, index: Index, next_group: GroupId, directory: str) -> None:
        """Take note that the data directory of a node is gone."""
        former = self.losses.get(node)
        names = (*(() if former is None else former.directories), *([directory] * bool(directory)))
        self.losses[node] = Loss(index, next_group, names[-DIRECTORIES_MAX:])

    def forgotten(self, node: NodeId) -> None:
        """Take note that a node is no more."""
        self.drained.pop(node, None)
        self.leaving.pop(node, None)
        self.filling.pop(node, None)

    def write(self, out: Writer) -> None:
        """Write all but what is being filled, in the order of the nodes."""
        for table in (self.drained, self.leaving):
            out.uint(len(table))
            for node in sorted(table):
                out.uint(node)
                out.uint(table[node])
        out.uint(len(self.losses))
        for node in sorted(self.losses):
            loss = self.losses[node]
            out.uint(node)
            out.uint(loss.index)
            out.uint(loss.next_group)
            out.uint(len(loss.directories))
            for directory in loss.directories:
                out.text(directory)

    def read(self, reader: Reader) -> None:
        """Read what `write` wrote."""
        for _ in range(reader.count(limits.NODES_MAX)):
            node = _next_node(reader, self.drained)
            self.drained[node] = reader.uint()
        for _ in range(reader.count(limits.NODES_MAX)):
            node = _next_node(reader, self.leaving)
            self.leaving[node] = Index(reader.uint())
        for _ in range(reader.count(limits.NODE_ID_MAX)):
            node = _next_node(reader, self.losses)
            index, next_group = Index(reader.uint()), GroupId(reader.uint())
            count = reader.count(DIRECTORIES_MAX)
            names = tuple(reader.text(limits.HOST_CHARACTERS_MAX) for _ in range(count))
            self.losses[node] = Loss(index, next_group, names)

    def write_filling(self, out: Writer) -> None:
        """Write which nodes are to be filled, which folds did not have at first."""
        out.uint(len(self.filling))
        for node in sorted(self.filling):
            out.uint(node)
            out.uint(self.filling[node])

    def read_filling(self, reader: Reader) -> None:
        """Read what `write_filling` wrote."""
        for _ in range(reader.count(limits.NODES_MAX)):
            node = _next_node(reader, self.filling)
            self.filling[node] = reader.uint(ASKED)

    def difference(self, later: "NodeStates") -> list[NodeId]:
        """Return the nodes of which something else is wanted now than before."""
        nodes = {*self.drained, *later.drained, *self.leaving, *later.leaving}
        nodes |= {*self.losses, *later.losses, *self.filling, *later.filling}
        return [
            node
            for node in sorted(nodes)
            if self.drained.get(node) != later.drained.get(node)
            or self.leaving.get(node) != later.leaving.get(node)
            or self.losses.get(node) != later.losses.get(node)
            or self.filling.get(node) != later.filling.get(node)
        ]


def _next_node(reader: Reader, known: Collection[NodeId]) -> NodeId:
    node = read_node_id(reader)
    if any(node <= each for each in known):
        raise reader.fault(f"names node {node} out of order")
    return node


def other_directory_sentence(node: NodeId) -> str:
    """Say why a node with another data directory cannot be the one that is registered."""
    return (
        f"Node {node} is registered with another data directory: what it acknowledged and voted"
        " for is there. Start it on that directory, or start this one with a node id of its own. If"
        f" that directory is gone for good: `corelane cluster replace-disk {node}`."
    )


def former_directory_sentence(node: NodeId) -> str:
    """Say why a data directory that was given up cannot be used again."""
    return (
        f"This data directory of node {node} was declared lost, or its node taken out of the"
        " cluster: others have taken its place. Start it with an empty data directory."
    )
