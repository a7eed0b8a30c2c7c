"""One shard with a disk that answers at once: requests in, answers out, no clock and no socket.

A test speaks to it as a client does, in bytes made by the wire layer. `crash()` throws everything
away but the disk and recovers.
"""

import random
import struct
from typing import Any

from corelane.api.table import API_TABLE
from corelane.model.config import Config, parse
from corelane.model.ids import BrokerId, ConnId, CoreId, NodeId
from corelane.shard.config import Advertised, ListenerBrokers, ShardConfig
from corelane.shard.effects import (
    Close,
    Effect,
    Emptied,
    HoldProduce,
    LogLine,
    OperatorAnswer,
    Pause,
    Resume,
    Send,
    Stopped,
    Work,
)
from corelane.shard.events import Closed, Event, Opened, Request, WorkDone
from corelane.shard.shard import Shard
from corelane.storage.effects import DiskDone, DiskEffect
from corelane.storage.recovery import RecoverySettings, recover
from corelane.storage.store import StoreSettings
from corelane.wire.compiler import Message, api_keys, message_type
from corelane.wire.compression import Compression
from corelane.wire.frame import decode_response, encode_request
from corelane.wire.records import ANONYMOUS, BatchBuilder, Producer, encode_batch
from corelane_native import Arena, address_of
from tests.simulation.sim_disk import SimDisk

MIB = 1024 * 1024
SETTINGS = RecoverySettings(StoreSettings(8 * MIB, 8, 32 * MIB, 6 * MIB), 64 * MIB, 4 * MIB)
WALL_MS = 1_700_000_000_000
TURNS_MAX = 500


class World:
    """A shard and its clients."""

    def __init__(self, settings: str = "", disk: SimDisk | None = None) -> None:
        self.config: Config = parse(settings)
        self.disk = disk or SimDisk(seed=7)
        self.random = random.Random(7)
        self.logs: list[str] = []
        self.closed: dict[int, str] = {}
        self.now_ms = 1000
        self.wall_ms = WALL_MS
        self.correlation = 0
        self.holds_disk = False
        self.kinds_held: tuple[type, ...] = (object,)
        self.held: list[DiskEffect] = []
        self.holds_work = False
        self.held_work: list[Work] = []
        self.operated: list[OperatorAnswer] = []
        self.told: list[Effect] = []
        self.start()

    def shard_config(self) -> ShardConfig:
        """Return what the shard is told about itself."""
        advertised = Advertised(BrokerId(1000), "127.0.0.1", 19092, None)
        listeners = [ListenerBrokers("PLAINTEXT", [advertised])]
        return ShardConfig(
            NodeId(1), CoreId(0), 1, b"corelane-cluster", listeners, 0, self.config, self.random
        )

    def start(self) -> None:
        """Recover what the disk has and come up."""
        self.arena = Arena(64 * MIB)
        config = self.shard_config()
        self.recovered = recover(self.disk, self.arena, SETTINGS)
        self.shard = Shard(config, self.recovered, self.arena, API_TABLE)
        self.inbox: dict[int, bytearray] = {}
        self.come_up()

    def come_up(self) -> None:
        """Run until the shard serves."""
        self.run([])
        assert self.shard.is_ready

    def crash(self) -> None:
        """Lose everything but the disk, and start again."""
        self.held.clear()
        self.start()

    # --- the driver ---

    def run(self, events: list[Event]) -> None:
        """Step until nothing is left to do now."""
        for _ in range(TURNS_MAX):
            events = self.step_once(events)
            deadline_ms = self.shard.next_deadline_ms()
            if not events and (deadline_ms is None or deadline_ms >= self.now_ms + 10):
                return
        raise AssertionError("the shard never comes to rest")

    def step_once(self, events: list[Event]) -> list[Event]:
        """Step once; return what came of it."""
        self.now_ms += 1
        effects = self.shard.step(self.now_ms, self.wall_ms, events)
        return [done for effect in effects for done in self.perform(effect)]

    def perform(self, effect: Effect) -> list[Event]:
        """Do what the shard asks for; return what it hears of it."""
        match effect:
            case Send():
                inbox = self.inbox.setdefault(effect.conn, bytearray())
                for part in effect.parts:
                    inbox += part if isinstance(part, bytes) else self.arena.view(*part)
                for chunk in effect.chunks_held:
                    self.arena.release(chunk)
            case Close():
                self.closed[effect.conn] = effect.reason
                return [Closed(effect.conn, effect.reason)]
            case LogLine():
                self.logs.append(effect.text)
            case Work() if self.holds_work:
                self.held_work.append(effect)
            case Work():
                return [_worked(effect)]
            case OperatorAnswer():
                self.operated.append(effect)
            case HoldProduce() | Pause() | Resume() | Stopped() | Emptied():
                self.told.append(effect)
            case _ if self.holds_disk and isinstance(effect, self.kinds_held):
                self.held.append(effect)  # type: ignore[arg-type]
            case _:
                return [self._disk_done(effect)]  # type: ignore[arg-type]
        return []

    def release_disk(self) -> None:
        """Let the disk do everything it was asked for meanwhile."""
        self.holds_disk = False
        held, self.held = self.held, []
        self.run([self._disk_done(effect) for effect in held])

    def release_work(self) -> None:
        """Let everything be computed that was asked for meanwhile."""
        self.holds_work = False
        held, self.held_work = self.held_work, []
        self.run([_worked(effect) for effect in held])

    def _disk_done(self, effect: DiskEffect) -> DiskDone:
        self.disk.submit(effect, self.arena)
        (queue,) = self.disk.busy()
        return self.disk.complete(queue)

    def pass_time(self, ms: int) -> None:
        """Let time go by."""
        self.now_ms += ms
        self.wall_ms += ms
        self.run([])

    # --- a client ---

    def send_frame(self, frame: bytes, conn: int = 1) -> None:
        """Send a frame, without its length prefix, as it is."""
        if conn not in self.shard.connections:
            self.closed.pop(conn, None)
            self.run([Opened(ConnId(conn), 0, f"client-{conn}")])
        self.run([request_event(frame, conn)])

    def send(self, message: Message, version: int, conn: int = 1) -> int:
        """Send a request and return its correlation id."""
        self.correlation += 1
        key = key_of(message)
        self.send_frame(encode_request(key, version, self.correlation, "test", message)[4:], conn)
        return self.correlation

    def receive(self, key: int, version: int, conn: int = 1) -> tuple[int, Message] | None:
        """Return the next answer as (correlation id, message), or None."""
        inbox = self.inbox.get(conn, bytearray())
        if not inbox:
            return None
        (size,) = struct.unpack_from(">i", inbox)
        frame = bytes(inbox[4 : 4 + size])
        assert len(frame) == size
        del inbox[: 4 + size]
        return decode_response(key, version, frame)

    def call(self, message: Message, version: int, conn: int = 1) -> Message:
        """Send a request and return its answer."""
        correlation = self.send(message, version, conn)
        answer = self.receive(key_of(message), version, conn)
        assert answer is not None, "no answer came"
        assert answer[0] == correlation
        return answer[1]

    # --- what most tests do ---

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> Message:
        """Create a topic; configuration names have _ for the dot."""
        topic = message_type("CreateTopicsRequest.CreatableTopic")
        row = message_type("CreateTopicsRequest.CreatableTopicConfig")
        wish = topic(
            name=name,
            num_partitions=partitions,
            replication_factor=1,
            configs=[row(name=n.replace("_", "."), value=v) for n, v in configs.items()],
        )
        request = message_type("CreateTopicsRequest")(topics=[wish], timeout_ms=5000)
        result: Message = self.call(request, 7).topics[0]
        return result

    def produce(
        self, topic: str, batch: bytes, *, partition: int = 0, acks: int = -1, version: int = 9
    ) -> Message:
        """Produce one batch and return its row of the answer."""
        answer = self.call(produce_request(topic, batch, partition=partition, acks=acks), version)
        row: Message = answer.responses[0].partition_responses[0]
        return row

    def fetch(self, topic: str, offset: int, *, version: int = 12, **fields: Any) -> Message:
        """Fetch from one partition and return its row of the answer."""
        answer = self.call(self.fetch_request(topic, offset, **fields), version)
        row: Message = answer.responses[0].partitions[0]
        return row

    def fetch_request(self, topic: str, offset: int, **fields: Any) -> Message:
        """Return a fetch of one partition; *fields* go to the request or to the partition."""
        known = self.shard.groups.topics.get(topic.encode())
        names = ("partition", "current_leader_epoch", "partition_max_bytes")
        inner = {name: fields.pop(name) for name in names if name in fields}
        partition = message_type("FetchRequest.FetchPartition")(
            **{"partition": 0, "fetch_offset": offset, "partition_max_bytes": MIB} | inner
        )
        row = message_type("FetchRequest.FetchTopic")(
            topic=topic, topic_id=known.topic_id if known else bytes(16), partitions=[partition]
        )
        defaults = {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 50 * MIB}
        return message_type("FetchRequest")(topics=[row], **defaults | fields)

    def offset_at(self, topic: str, timestamp: int, *, version: int = 7) -> Message:
        """Return ListOffsets' row for a timestamp."""
        partition = message_type("ListOffsetsRequest.ListOffsetsPartition")(timestamp=timestamp)
        row = message_type("ListOffsetsRequest.ListOffsetsTopic")(
            name=topic, partitions=[partition]
        )
        request = message_type("ListOffsetsRequest")(replica_id=-1, topics=[row])
        result: Message = self.call(request, version).topics[0].partitions[0]
        return result


def references(world: World) -> int:
    """Return how many references are held on chunks of the log."""
    return sum(world.arena.references(chunk.id) for chunk in world.shard.store.chunks.fifo)


def request_event(frame: bytes, conn: int) -> Request:
    """Return the event of *frame*, which must live as long as the turn."""
    key, version, correlation = struct.unpack_from(">hhi", frame)
    return Request(ConnId(conn), address_of(frame), len(frame), key, version, correlation)


def _worked(effect: Work) -> WorkDone:
    try:
        return WorkDone(effect.job, effect.function(*effect.arguments), None)
    except ValueError as fault:
        return WorkDone(effect.job, None, str(fault))


def key_of(message: Message) -> int:
    """Return the API key of a request message."""
    name = type(message).__name__.removesuffix("Request")
    return next(key for key, api in api_keys().items() if api == name)


def delete_topic(world: World, name: str, conn: int = 9) -> None:
    """Delete a topic by its name."""
    state = message_type("DeleteTopicsRequest.DeleteTopicState")
    request = message_type("DeleteTopicsRequest")(topics=[state(name=name)], timeout_ms=5000)
    assert world.call(request, 6, conn).responses[0].error_code == 0


def produce_request(
    topic: str, batch: bytes | None, *, partition: int = 0, acks: int = -1, timeout_ms: int = 30_000
) -> Message:
    """Return a Produce request with one batch."""
    row = message_type("ProduceRequest.PartitionProduceData")(index=partition, records=batch)
    data = message_type("ProduceRequest.TopicProduceData")(name=topic, partition_data=[row])
    return message_type("ProduceRequest")(acks=acks, timeout_ms=timeout_ms, topic_data=[data])


def batch_of(
    count: int = 1,
    *,
    codec: Compression = Compression.NONE,
    timestamp_ms: int = WALL_MS,
    step_ms: int = 1,
    producer: Producer = ANONYMOUS,
    key: bytes | None = b"k",
    value: bytes = b"value",
) -> bytes:
    """Return a batch as clients make it."""
    builder = BatchBuilder()
    for number in range(count):
        builder.append(timestamp_ms + number * step_ms, key, value, ())
    return encode_batch(builder.payload(codec), producer)
