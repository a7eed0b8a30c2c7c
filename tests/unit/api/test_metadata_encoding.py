"""Metadata from kept bytes: the same as encoded whole, and never of yesterday."""

import pytest

from corelane.api import metadata_encoding
from corelane.model.ids import Index, Offset
from corelane.storage.segments import Segment
from corelane.wire.compiler import message_type, response_codec
from tests.unit.api.world import World, delete_topic

TopicRow = message_type("MetadataResponse.MetadataResponseTopic")
Response = message_type("MetadataResponse")
PartitionRow = message_type("MetadataResponse.MetadataResponsePartition")
Broker = message_type("MetadataResponse.MetadataResponseBroker")


@pytest.mark.parametrize("version", range(13))
@pytest.mark.parametrize("count", [0, 1, 200])
def test_the_pieces_are_the_whole(version: int, count: int) -> None:
    topics = [
        TopicRow(
            name=f"topic-{number}",
            topic_id=bytes([number % 256]) * 16,
            error_code=number % 3,
            partitions=[
                PartitionRow(partition_index=at, leader_id=1000, replica_nodes=[1000, 2000])
                for at in range(number % 5)
            ],
        )
        for number in range(count)
    ]
    fields = {
        "brokers": [Broker(node_id=1000, host="127.0.0.1", port=9092, rack=None)],
        "cluster_id": "abc",
        "controller_id": 1000,
        "cluster_authorized_operations": -(2**31),
    }
    whole = response_codec(3, version).encode(Response(topics=topics, **fields))
    pieces = [metadata_encoding.encode_topic(topic, version) for topic in topics]
    assert metadata_encoding.encode_answer(Response(**fields), pieces, version) == whole
    assert [piece.error for piece in pieces] == [topic.error_code for topic in topics]


def test_what_changes_is_told_at_once() -> None:
    world = World()
    world.create_topic("t")
    row = message_type("MetadataRequest.MetadataRequestTopic")(name="t")
    request = message_type("MetadataRequest")(topics=[row], allow_auto_topic_creation=False)

    def leader() -> tuple[int, int, int]:
        (topic,) = world.call(request, 9).topics
        if not topic.partitions:
            return topic.error_code, -1, -1
        return len(topic.partitions), topic.partitions[0].leader_id, topic.partitions[0].error_code

    assert leader() == leader() == (1, 1000, 0)
    partition = world.shard.groups.topics[b"t"].partitions[0]
    assert partition is not None
    partition.leave(lambda: None)
    assert leader() == (1, -1, 5)
    partition.stay()
    assert leader() == (1, 1000, 0)
    world.shard.damage(partition, Segment("gone", Index(1), Offset(0)), "a test")
    assert leader() == (1, -1, 5)
    delete_topic(world, "t")
    assert leader()[0] == 3
    world.create_topic("t", partitions=2)
    assert leader() == (2, 1000, 0)
