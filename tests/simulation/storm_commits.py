"""Groups that commit offsets in a storm: what was acknowledged is never taken back.

Each group's offsets only rise. A later one may be known although an earlier one was never answered;
none that was acknowledged may be missing at the end, and none may be there that nobody sent.
"""

from corelane.model.internal_topics import OFFSETS_TOPIC
from corelane.model.record import record
from corelane.shard.key_hash import partition_number
from corelane.wire.compiler import Message, message_type
from tests.simulation.cluster import Cluster, SimNode

GROUPS = ("one", "two", "three")
PARTITIONS = 2
COMMIT_KEY, COMMIT_VERSION = 8, 8
FETCH_VERSION = 8

Request = message_type("OffsetCommitRequest")
Topic = message_type("OffsetCommitRequest.OffsetCommitRequestTopic")
Partition = message_type("OffsetCommitRequest.OffsetCommitRequestPartition")
FetchRequest = message_type("OffsetFetchRequest")
FetchGroup = message_type("OffsetFetchRequest.OffsetFetchRequestGroup")
FetchTopic = message_type("OffsetFetchRequest.OffsetFetchRequestTopics")


@record
class _Sent:
    """A commit under way."""

    node: SimNode
    boot: int
    conn: int
    group: str
    offset: int


class Commits:
    """What groups committed, and what they were told."""

    def __init__(self, cluster: Cluster, first_raft_group: int) -> None:
        self._cluster = cluster
        self._first = first_raft_group
        self._sent: list[_Sent] = []
        self._count = 0
        self.attempted = dict.fromkeys(GROUPS, -1)
        self.acknowledged = dict.fromkeys(GROUPS, -1)

    def create(self, node: SimNode) -> None:
        """Make the topic of the groups, smaller than clusters have it."""
        self._cluster.create_topic(node, OFFSETS_TOPIC, PARTITIONS)

    def raft_group(self, group: str) -> int:
        """Return the raft group that coordinates a group."""
        return self._first + partition_number(group, PARTITIONS)

    def send(self) -> None:
        """Have a group commit its next offset."""
        group = self._cluster.chance.choice(GROUPS)
        for node in self._cluster.leaders(self.raft_group(group))[:1]:
            self._count += 1
            offset = self.attempted[group] = self.attempted[group] + 1
            row = Partition(partition_index=0, committed_offset=offset, committed_metadata="")
            request = Request(group_id=group, topics=[Topic(name="t", partitions=[row])])
            conn = 500_000 + self._count
            node.ask(request, COMMIT_VERSION, conn)
            self._sent.append(_Sent(node, node.boot, conn, group, offset))

    def collect(self) -> None:
        """Take the answers that have come."""
        waiting, self._sent = self._sent, []
        for each in waiting:
            if each.node.boot != each.boot or not each.node.is_up:
                continue  # nobody knows what became of it
            answer = each.node.receive(COMMIT_KEY, COMMIT_VERSION, each.conn)
            if answer is None:
                self._sent.append(each)
            elif answer[1].topics[0].partitions[0].error_code == 0:
                known = self.acknowledged[each.group]
                self.acknowledged[each.group] = max(known, each.offset)

    def compare(self) -> None:
        """Ask the coordinators what there is at the end."""
        for group in GROUPS:
            found = self._committed(group)
            acknowledged, attempted = self.acknowledged[group], self.attempted[group]
            assert acknowledged <= found <= attempted, (
                f"group {group} has {found}: {acknowledged} was acknowledged, {attempted} sent"
            )
        for raft_group in range(self._first, self._first + PARTITIONS):
            nodes = self._cluster.nodes.values()
            folds = [_latest(node, raft_group) for node in nodes if raft_group in node.members]
            assert all(fold == folds[0] for fold in folds), "replicas fold a log differently"

    def _committed(self, group: str) -> int:
        (node,) = self._cluster.leaders(self.raft_group(group))
        wish = FetchGroup(group_id=group, topics=[FetchTopic(name="t", partition_indexes=[0])])
        answer: Message = self._cluster.call(
            node, FetchRequest(groups=[wish]), FETCH_VERSION, conn=4
        )
        assert answer.groups[0].error_code == 0
        offset: int = answer.groups[0].topics[0].partitions[0].committed_offset
        return offset


def _latest(node: SimNode, raft_group: int) -> dict[bytes, bytes]:
    latest = getattr(node.members[raft_group], "latest", None)
    assert latest is not None
    found: dict[bytes, bytes] = latest.items
    return found
