"""A transactional producer at a `World`: requests made, answers taken apart."""

from typing import Any

from corelane.wire.compiler import Message, message_type
from tests.unit.api.world import World

Find = message_type("FindCoordinatorRequest")
Init = message_type("InitProducerIdRequest")
Add = message_type("AddPartitionsToTxnRequest")
AddTopic = message_type("AddPartitionsToTxnRequest.AddPartitionsToTxnTopic")
AddTransaction = message_type("AddPartitionsToTxnRequest.AddPartitionsToTxnTransaction")
AddOffsets = message_type("AddOffsetsToTxnRequest")
End = message_type("EndTxnRequest")
Commit = message_type("TxnOffsetCommitRequest")
CommitTopic = message_type("TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic")
CommitPartition = message_type("TxnOffsetCommitRequest.TxnOffsetCommitRequestPartition")
Fetch = message_type("OffsetFetchRequest")
FetchTopic = message_type("OffsetFetchRequest.OffsetFetchRequestTopic")
Describe = message_type("DescribeTransactionsRequest")
List = message_type("ListTransactionsRequest")

SETTINGS = "transaction.state.log.num.partitions = 3\noffsets.topic.num.partitions = 3"


def coordinated(settings: str = SETTINGS) -> World:
    """Return a world that coordinates transactions, with topic t of three partitions."""
    world = World(settings)
    world.create_topic("t", 3)
    find(world, "some")
    return world


def find(world: World, name: str, version: int = 4, kind: int = 1) -> Message:
    """Ask for the coordinator until there is one."""
    for _ in range(200):
        world.send(Find(key=name, coordinator_keys=[name], key_type=kind), version)
        world.pass_time(20)
        found = world.receive(10, version)
        if found is not None:
            row: Message = found[1].coordinators[0] if version >= 4 else found[1]
            if row.error_code != 15:
                return row
    raise AssertionError("there is no coordinator")


class Producer:
    """One transactional producer."""

    def __init__(self, world: World, name: str, conn: int = 1) -> None:
        self.world = world
        self.name = name
        self.conn = conn
        self.producer_id = -1
        self.epoch = -1

    def init(self, version: int = 4, timeout_ms: int = 60_000, **fields: Any) -> int:
        """Begin; return the error."""
        request = Init(transactional_id=self.name, transaction_timeout_ms=timeout_ms, **fields)
        answer = self.world.call(request, version, self.conn)
        if answer.error_code == 0:
            self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
        error: int = answer.error_code
        return error

    def add(self, *places: tuple[str, int], version: int = 3) -> list[int]:
        """Add partitions; return their errors."""
        topics = [AddTopic(name=name, partitions=[number]) for name, number in places]
        request = Add(
            v3_and_below_transactional_id=self.name,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=topics,
        )
        answer = self.world.call(request, version, self.conn)
        return [
            row.partition_error_code
            for topic in answer.results_by_topic_v3_and_below
            for row in topic.results_by_partition
        ]

    def add_offsets(self, group: str, version: int = 3) -> int:
        """Add the partition of a group; return the error."""
        request = AddOffsets(
            transactional_id=self.name,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            group_id=group,
        )
        error: int = self.world.call(request, version, self.conn).error_code
        return error

    def commit(
        self, group: str, offset: int, version: int = 3, place: tuple[str, int] = ("t", 0)
    ) -> int:
        """Commit an offset as part of the transaction; return the error."""
        row = CommitPartition(partition_index=place[1], committed_offset=offset)
        request = Commit(
            transactional_id=self.name,
            group_id=group,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            topics=[CommitTopic(name=place[0], partitions=[row])],
        )
        sent = self.world.send(request, version, self.conn)
        for _ in range(100):
            answer = self.world.receive(28, version, self.conn)
            if answer is not None:
                assert answer[0] == sent
                error: int = answer[1].topics[0].partitions[0].error_code
                return error
            self.world.pass_time(20)
        raise AssertionError("no answer came")

    def end(self, *, commits: bool = True, version: int = 3) -> int:
        """Commit or abort; return the error."""
        request = End(
            transactional_id=self.name,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=commits,
        )
        answer = self.world.call(request, version, self.conn)
        if answer.error_code == 0 and version >= 5:
            self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
        error: int = answer.error_code
        return error

    def state(self) -> str:
        """Return the state that tools see."""
        row = self.world.call(Describe(transactional_ids=[self.name]), 0, self.conn)
        found: str = row.transaction_states[0].transaction_state
        return found

    def settle(self) -> None:
        """Let the markers be delivered."""
        for _ in range(100):
            if not self.state().startswith("Prepare"):
                return
            self.world.pass_time(50)
        raise AssertionError("the transaction is never over")


def offset_of(world: World, group: str, *, stable: bool = True) -> tuple[int, int]:
    """Return what OffsetFetch says of partition t-0: offset and error."""
    topic = FetchTopic(name="t", partition_indexes=[0])
    request = Fetch(group_id=group, topics=[topic], require_stable=stable)
    row = world.call(request, 7).topics[0].partitions[0]
    return row.committed_offset, row.error_code
