"""The numbers that name things, each a type of its own so that they cannot be mixed up."""

from enum import IntEnum
from typing import Final, NewType

Offset = NewType("Offset", int)
"""Kafka's number of a record inside its partition; dense for data and transaction markers."""

Index = NewType("Index", int)
"""Raft's number of an entry inside its group; starts at 1. Counts entries, never records."""

Lsn = NewType("Lsn", int)
"""The number of a WAL record on its core; dense, starts at 1."""

Position = NewType("Position", int)
"""Bytes from the start of a file or chunk."""

Term = NewType("Term", int)
"""Raft's term; on the Kafka wire the leader epoch, so it must fit 31 bits."""

GroupId = NewType("GroupId", int)
"""A raft group, u64, handed out by the controller and never used again."""

NodeId = NewType("NodeId", int)
"""One machine: a supervisor with its cores."""

MemberId = NewType("MemberId", int)
"""A member of a raft group: incarnation << 32 | node. One that left never comes back (multiraft
A7): a replica that is made on the same node again is another incarnation. The first is 0."""

CoreId = NewType("CoreId", int)
"""One pinned process of a node, 0 to 998."""

BrokerId = NewType("BrokerId", int)
"""What Kafka clients call a broker: node * 1000 + core, or node * 1000 + 999 for the whole node."""

ConnId = NewType("ConnId", int)
"""A connection of one core; never used again within that core's life."""

JobId = NewType("JobId", int)
"""A disk or work effect that will be answered by one completion event."""

ChunkId = NewType("ChunkId", int)
"""A chunk of the arena."""

TopicId = NewType("TopicId", bytes)
"""A topic for life, 16 bytes; a topic made again under the same name gets another."""

CONTROLLER_GROUP: Final = GroupId(0)
NO_TERM: Final = Term(0)
NO_MEMBER: Final = MemberId(-1)
NODE_BROKER_SUFFIX: Final = 999
BROKERS_PER_NODE: Final = 1000


class RecordKind(IntEnum):
    """What a WAL record holds. 1 to 31 are raft entries; 32 and above are notes of this core."""

    BATCH = 1
    NEW_LEADER = 2
    COMMAND = 3
    TRIM = 4
    CONFIG = 5
    OWN = 32
    VOTE = 33
    TRUNCATE = 34
    TAIL = 35
    DROP = 36
    MOVED = 37
    IMPORT = 38
    INSTALL = 39
    RENEW = 40


ENTRY_KIND_MAX: Final = 31


def member_id(node: NodeId, incarnation: int) -> MemberId:
    """Return the member of a group that is the *incarnation*-th replica made on *node*."""
    assert 0 <= incarnation < 1 << 31
    return MemberId(incarnation << 32 | node)


def node_of(member: MemberId) -> NodeId:
    """Return the node that a member of a group lives on."""
    return NodeId(member & 0xFFFF_FFFF)


def incarnation_of(member: MemberId) -> int:
    """Return how many replicas of a group were made on that node before, or what stands for it."""
    return member >> 32


def core_broker_id(node: NodeId, core: CoreId) -> BrokerId:
    """Return the Kafka broker id of one core."""
    assert 0 <= core < NODE_BROKER_SUFFIX
    return BrokerId(node * BROKERS_PER_NODE + core)


def node_broker_id(node: NodeId) -> BrokerId:
    """Return the Kafka broker id that stands for a whole node (advertise = "node")."""
    return BrokerId(node * BROKERS_PER_NODE + NODE_BROKER_SUFFIX)
