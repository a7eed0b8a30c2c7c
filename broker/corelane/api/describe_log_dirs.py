"""DescribeLogDirs (key 35), versions 1 to 4: how large partitions are on disk.

v2  flexible.  v3  a top-level error.  v4  the disk's total and usable bytes (KIP-827). A node has
one log directory. Each core's broker answers for what lives on it, so that tools that ask every
broker count each partition once; the doors of the whole node answer for all cores together.
"""

from corelane.api.gather import Gathered, frame_of
from corelane.model.ids import CoreId
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

Response = message_type("DescribeLogDirsResponse")
Result = message_type("DescribeLogDirsResponse.DescribeLogDirsResult")
TopicRow = message_type("DescribeLogDirsResponse.DescribeLogDirsTopic")
PartitionRow = message_type("DescribeLogDirsResponse.DescribeLogDirsPartition")


def handle(shard: Shard, call: Call) -> None:
    """Answer for the partitions of this core."""
    request = call.decode()
    rows: dict[str, list[Message]] = {}
    for name, number in _wanted(shard, request):
        topic = shard.groups.topics.get(name.encode())
        partition = None if topic is None else topic.partition(number)
        if partition is not None:
            log = partition.log
            on_disk_bytes = sum(segment.log.size_bytes for segment in log.segments.items)
            # What is committed and not in a segment yet lies in the write-ahead log.
            size_bytes = on_disk_bytes + log.unflushed_bytes
            row = PartitionRow(partition_index=number, partition_size=size_bytes)
            rows.setdefault(name, []).append(row)
    call.answer(_response(shard, rows))


def gather(shard: Shard, call: Call) -> None:
    """Answer for the partitions of every core of this node."""
    gathered = Gathered(shard, call, _merge)
    frame = frame_of(call, call.decode())
    for core in range(shard.config.core_count):
        gathered.send(CoreId(core), frame)
    gathered.sent()


def _merge(gathered: Gathered) -> None:
    rows: dict[str, list[Message]] = {}
    for answer in gathered.answers.values():
        for result in () if answer is None else answer.results:
            for topic in result.topics:
                rows.setdefault(topic.name, []).extend(topic.partitions)
    gathered.call.answer(_response(gathered.shard, rows))


def _wanted(shard: Shard, request: Message) -> list[tuple[str, int]]:
    """Return what is asked for: null means everything."""
    if request.topics is None:
        topics = shard.groups.topics.values()
        return [(topic.name, at) for topic in topics for at in range(len(topic.partitions))]
    return [(row.topic, number) for row in request.topics for number in row.partitions]


def _response(shard: Shard, rows: dict[str, list[Message]]) -> Message:
    topics = [
        TopicRow(
            name=name,
            partitions=sorted(partitions, key=lambda row: int(row.partition_index)),
        )
        for name, partitions in sorted(rows.items())
    ]
    total_bytes, usable_bytes = shard.disk_bytes
    result = Result(
        log_dir=shard.config.config.node.data_dir,
        topics=topics,
        total_bytes=total_bytes,
        usable_bytes=usable_bytes,
    )
    return Response(results=[result])
