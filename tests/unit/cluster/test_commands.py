"""The bytes of the controller's log: fixed, compact, and read without trust."""

import pytest

from corelane.cluster.binary import BinaryError, Reader, Writer
from corelane.cluster.commands import (
    NODE_ENDPOINT,
    AddPartitions,
    AlterTopicConfig,
    ClusterCreated,
    Command,
    CommandError,
    CreateTopic,
    DeleteTopic,
    Endpoint,
    NodeRegistered,
    ProducerIdBlock,
    decode,
    encode,
)
from corelane.cluster.replicas import PartitionPlan
from corelane.model.ids import CoreId, GroupId, NodeId, TopicId

ID = TopicId(bytes(range(16)))
PLAN = (PartitionPlan(GroupId(300), (NodeId(1), NodeId(2))),)

# What each command is on disk. A change here is a new VERSION, and old logs stay readable.
GOLDEN: list[tuple[Command, str]] = [
    (ClusterCreated(bytes(16)), "01 01 10" + "00" * 16),
    (
        NodeRegistered(NodeId(1), "r", 2, (Endpoint("L", "h", 9092, NODE_ENDPOINT),)),
        "01 02 01 01 72 02 01 01 4c 01 68 84 47 e7 07",
    ),
    (
        CreateTopic("t", ID, PLAN, {"b": "2", "a": "1"}),
        "01 03 01 74" + ID.hex() + "01 ac 02 02 01 02" + "02 01 61 01 31 01 62 01 32",
    ),
    (AddPartitions(ID, PLAN), "01 04" + ID.hex() + "01 ac 02 02 01 02"),
    (DeleteTopic(ID), "01 05" + ID.hex()),
    (AlterTopicConfig(ID, {"a": "1"}, ("b",)), "01 06" + ID.hex() + "01 01 61 01 31 01 01 62"),
    (ProducerIdBlock(NodeId(1), CoreId(0), 2_000, 1_000), "01 07 01 00 d0 0f e8 07"),
]


@pytest.mark.parametrize(("command", "data"), GOLDEN, ids=lambda value: type(value).__name__)
def test_a_command_has_these_bytes(command: Command, data: str) -> None:
    assert encode(command) == bytes.fromhex(data)
    assert decode(bytes.fromhex(data)) == command


@pytest.mark.parametrize(("command", "data"), GOLDEN, ids=lambda value: type(value).__name__)
def test_every_cut_of_a_command_is_an_error(command: Command, data: str) -> None:
    whole = bytes.fromhex(data)
    for size in range(len(whole)):
        with pytest.raises(CommandError):
            decode(whole[:size])
    with pytest.raises(CommandError, match="followed by other bytes"):
        decode(whole + b"\0")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("", "ends inside a number"),
        ("02 05", "has version 2; this node knows 1"),
        ("01 63", "has the unknown kind 99"),
        ("01 05" + "00" * 16, "has an empty topic id"),
        ("01 01 04 00000000", "has a cluster id of the wrong size"),
        ("01 03 01 20" + ID.hex(), "characters that no topic name has"),
        ("01 03 02 ff fe" + ID.hex(), "is not UTF-8"),
        ("01 04" + ID.hex() + "00", "a topic without partitions"),
        ("01 04" + ID.hex() + "01 05 00", "a partition with no replica"),
        ("01 04" + ID.hex() + "01 05 02 01 01", "two replicas on one node"),
        ("01 04" + ID.hex() + "01 00 01 01", "the controller's raft group"),
        ("01 04" + ID.hex() + "01 05 01 00", "has the node id 0"),
        ("01 04" + ID.hex() + "8f 4e", "announces 9999 things"),
        ("01 04" + ID.hex() + "ff ff ff ff 7f", "has the number 34359738367 above 10000"),
        ("01 06" + ID.hex() + "02 01 61 00 01 61 00 00", "sets a configuration twice"),
        ("01 07 01 00 00 00", "grants producer ids that do not exist"),
        ("01 07 01 00" + "ff" * 8 + "7f 01", "grants producer ids that do not exist"),
        ("01" + "ff" * 11, "has a number without end"),
    ],
)
def test_what_is_no_command_is_named_with_its_place(data: str, what: str) -> None:
    with pytest.raises(CommandError, match=what):
        decode(bytes.fromhex(data))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**63, 2**64 - 1])
def test_numbers_come_back(value: int) -> None:
    out = Writer()
    out.uint(value)
    reader = Reader(bytes(out.data))
    assert reader.uint() == value
    reader.end()


def test_a_number_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(BinaryError, match="above"):
        Reader(b"\xff" * 9 + b"\x02").uint()
