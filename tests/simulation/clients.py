"""Simulated Kafka clients: producers, idempotent and plain, and consumers, in real bytes."""

import struct
from collections import deque

from corelane.model.errors import ERRORS, ErrorCode
from corelane.model.limits import BATCH_HEADER_BYTES
from corelane.wire.compiler import Message, message_type
from corelane.wire.compression import Compression
from corelane.wire.frame import decode_response, encode_request
from corelane.wire.records import (
    ANONYMOUS,
    BatchBuilder,
    Payload,
    Producer,
    batch_records,
    encode_batch,
    split_batches,
)
from tests.simulation.history import History, Partition
from tests.simulation.simulator import WALL_START_MS, Link, Node

PRODUCE, FETCH, LIST_OFFSETS, CREATE_TOPICS, INIT_PRODUCER_ID = 0, 1, 2, 19, 22
IN_FLIGHT_MAX = 5
SEQUENCE_SPAN = 2**31


class Client:
    """One connection at a time, requests answered in order; subclasses say what to do with it."""

    def __init__(self, node: Node, history: History, name: str) -> None:
        self.node = node
        self.simulator = node.simulator
        self.history = history
        self.name = name
        self.link: Link | None = None
        self.is_over = False
        self._buffer = bytearray()
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._correlation = 0

    def connect(self) -> None:
        """Connect, or try again in a while."""
        if self.is_over:
            return
        self._buffer.clear()
        self._waiting.clear()
        self.link = self.node.connect(self)
        if self.link is None:
            self.simulator.after(self.simulator.random.randrange(5_000, 50_000), self.connect)
        else:
            self.connected()

    def lost(self) -> None:
        """Begin again on a new connection."""
        if self.link is not None:
            self.link.is_open = False
            self.link = None
        self.disconnected()
        self.simulator.after(self.simulator.random.randrange(1_000, 30_000), self.connect)

    def ask(self, key: int, version: int, message: Message) -> None:
        """Send a request."""
        assert self.link is not None
        self._correlation += 1
        self._waiting.append((key, version, self._correlation))
        self.link.send(encode_request(key, version, self._correlation, self.name, message)[4:])

    def received(self, data: bytes) -> None:
        """Take answers; they come in the order of the requests."""
        self._buffer += data
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from(">i", self._buffer)
            if len(self._buffer) < 4 + size:
                return
            frame = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            key, version, correlation = self._waiting.popleft()
            answered, message = decode_response(key, version, frame)
            assert answered == correlation, "an answer came out of order"
            self.answered(key, message)
            if self.link is None or not self.link.is_open:
                return  # left: what follows is for nobody

    def reconnect(self) -> None:
        """Leave this connection for another."""
        if self.link is not None:
            self.link.cut()

    def connected(self) -> None:
        """Start working on a new connection."""
        raise NotImplementedError

    def disconnected(self) -> None:
        """Take the loss of the connection."""

    def answered(self, key: int, message: Message) -> None:
        """Take an answer."""
        raise NotImplementedError


class Creator(Client):
    """Creates one topic, however often it takes."""

    def __init__(
        self, node: Node, history: History, topic: str, partitions: int, configs: dict[str, str]
    ) -> None:
        super().__init__(node, history, f"creator-{topic}")
        row = message_type("CreateTopicsRequest.CreatableTopicConfig")
        self.topic = message_type("CreateTopicsRequest.CreatableTopic")(
            name=topic,
            num_partitions=partitions,
            replication_factor=1,
            configs=[row(name=name, value=value) for name, value in configs.items()],
        )

    def connected(self) -> None:
        request = message_type("CreateTopicsRequest")(topics=[self.topic], timeout_ms=1000)
        self.ask(CREATE_TOPICS, 7, request)

    def answered(self, key: int, message: Message) -> None:
        del key
        error = message.topics[0].error_code
        if error in {0, ErrorCode.TOPIC_ALREADY_EXISTS}:
            self.is_over = True
        else:
            assert ERRORS[error].is_retriable, message
            self.reconnect()


class Sent:
    """One batch on its way."""

    __slots__ = ("payload", "sequence", "values")

    def __init__(self, payload: Payload, values: list[bytes], sequence: int) -> None:
        self.payload = payload
        self.values = values
        self.sequence = sequence


class ProducerClient(Client):
    """Sends batches to one partition, five in flight; idempotent ones repeat what is in doubt."""

    def __init__(
        self, node: Node, history: History, name: str, partition: Partition, batches: int
    ) -> None:
        super().__init__(node, history, name)
        self.partition = partition
        self.left = batches
        self.is_idempotent = name.startswith("idempotent")
        self.in_flight_max = IN_FLIGHT_MAX
        self.producer_id = -1
        self.sequence = 0
        self.number = 0
        self.queue: deque[Sent] = deque()  # to be sent, again or for the first time
        self.flying: deque[Sent] = deque()

    @property
    def is_done(self) -> bool:
        """Whether everything was answered (or, for plain producers, given up)."""
        return self.left == 0 and not self.queue and not self.flying

    def connected(self) -> None:
        if self.is_idempotent and self.producer_id < 0:
            self.ask(
                INIT_PRODUCER_ID, 4, message_type("InitProducerIdRequest")(transactional_id=None)
            )
        else:
            self._send_more()

    def disconnected(self) -> None:
        if self.is_idempotent:
            self.queue.extendleft(reversed(self.flying))  # the same sequences, in order
        self.flying.clear()  # a plain producer does not know what became of them

    def answered(self, key: int, message: Message) -> None:
        if key == INIT_PRODUCER_ID:
            if message.error_code == 0:
                self.producer_id = message.producer_id
            else:
                assert ERRORS[message.error_code].is_retriable, message
                self.reconnect()
                return
        else:
            self._produced(message.responses[0].partition_responses[0])
        if self.link is not None:
            self._send_more()

    def begin_slowly(self) -> None:
        """Send one batch at a time until the first is acknowledged.

        Of a producer that a partition does not know any sequence number is taken, as in Kafka: had
        the first batch been refused for a reason that passes, the second would stand in its place.
        """
        self.in_flight_max = 1

    def _produced(self, row: Message) -> None:
        sent = self.flying.popleft()
        if row.error_code == 0:
            self.in_flight_max = IN_FLIGHT_MAX
            for number, value in enumerate(sent.values):
                offset = row.base_offset + number
                self.history.note_acknowledged(self.partition, offset, value)
            return
        assert ERRORS[row.error_code].is_retriable or (
            row.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        ), f"{self.name}: {row}"
        if self.is_idempotent:
            # One refused batch makes those behind it out of order: begin again with all of them.
            self.flying.appendleft(sent)
            self.reconnect()

    def _send_more(self) -> None:
        delay_us = self.simulator.random.choice((0, 0, 500, 5_000, 20_000))
        self.simulator.after(delay_us, self._send)

    def _send(self) -> None:
        while self.link is not None and self.link.is_open and len(self.flying) < self.in_flight_max:
            if not self.queue:
                if self.left == 0:
                    return
                self.left -= 1
                self.queue.append(self._make())
            sent = self.queue.popleft()
            self.flying.append(sent)
            for number, value in enumerate(sent.values):
                name = self.name if self.is_idempotent else None
                self.history.note_sent(value, name, sent.sequence + number)
            self._ask_produce(sent)

    def _make(self) -> Sent:
        rng = self.simulator.random
        builder = BatchBuilder()
        values = []
        padding = bytes(rng.choice((0, 10, 500, 5_000, 40_000)))
        for _ in range(rng.choice((1, 1, 2, 5, 30 if len(padding) < 1000 else 1))):
            self.number += 1
            value = f"{self.name}/{self.number}".encode()
            values.append(value)
            timestamp_ms = WALL_START_MS + self.simulator.now_us // 1000
            self.history.times_ms[value] = timestamp_ms
            builder.append(timestamp_ms, value, value + b"\0" + padding, ())
        sent = Sent(builder.payload(rng.choice(list(Compression))), values, self.sequence)
        self.sequence = (self.sequence + len(values)) % SEQUENCE_SPAN
        return sent

    def _ask_produce(self, sent: Sent) -> None:
        producer = ANONYMOUS
        if self.is_idempotent:
            producer = Producer(self.producer_id, 0, sent.sequence)
        row = message_type("ProduceRequest.PartitionProduceData")(
            index=self.partition[1], records=encode_batch(sent.payload, producer)
        )
        topic = message_type("ProduceRequest.TopicProduceData")(
            name=self.partition[0], partition_data=[row]
        )
        acks = -1 if self.is_idempotent else self.simulator.random.choice((-1, 1))
        request = message_type("ProduceRequest")(acks=acks, timeout_ms=2_000, topic_data=[topic])
        self.ask(PRODUCE, self.simulator.random.choice((7, 8, 9, 11)), request)


class ConsumerClient(Client):
    """Reads one partition from its start, again and again, and tells the history."""

    def __init__(self, node: Node, history: History, name: str, partition: Partition) -> None:
        super().__init__(node, history, name)
        self.partition = partition
        self.offset = 0
        self.high_watermark = -1
        # Per request under way: the offset, and what was known of the log's start when it was sent.
        self.asked: deque[tuple[int, int]] = deque()

    def connected(self) -> None:
        self.asked.clear()
        self._fetch()

    def rewind(self) -> None:
        """Read everything once more."""
        self.offset = 0
        self.high_watermark = -1

    def _fetch(self) -> None:
        if self.link is None or not self.link.is_open:
            return
        rng = self.simulator.random
        self.asked.append((self.offset, self.history.starts[self.partition]))
        partition = message_type("FetchRequest.FetchPartition")(
            partition=self.partition[1],
            fetch_offset=self.offset,
            partition_max_bytes=rng.choice((100, 20_000, 1_000_000)),
        )
        topic = message_type("FetchRequest.FetchTopic")(
            topic=self.partition[0], partitions=[partition]
        )
        request = message_type("FetchRequest")(
            max_wait_ms=100,
            min_bytes=rng.choice((1, 10_000)),
            max_bytes=2_000_000,
            topics=[topic],
        )
        self.ask(FETCH, rng.choice((4, 7, 11, 12)), request)

    def _ask_start(self, offset: int) -> None:
        """Ask where the log begins: *offset* is gone."""
        self.asked.append((offset, self.history.starts[self.partition]))
        partition = message_type("ListOffsetsRequest.ListOffsetsPartition")(
            partition_index=self.partition[1], timestamp=-2
        )
        topic = message_type("ListOffsetsRequest.ListOffsetsTopic")(
            name=self.partition[0], partitions=[partition]
        )
        self.ask(LIST_OFFSETS, 5, message_type("ListOffsetsRequest")(replica_id=-1, topics=[topic]))

    def _begins_at(self, row: Message, asked: int, told: int) -> None:
        if row.error_code:
            assert ERRORS[row.error_code].is_retriable, f"{self.name}: {row.error_code}"
        else:
            self._note_start(row.offset, told)
            assert row.offset > asked, f"{asked} is there, but was out of range"
            self.offset = max(self.offset, row.offset)
        self.simulator.after(1_000, self._fetch)

    def _note_start(self, offset: int, told: int) -> None:
        now_ms = WALL_START_MS + self.simulator.now_us // 1000
        self.history.note_start(self.partition, offset, told, now_ms)

    def answered(self, key: int, message: Message) -> None:
        asked, told = self.asked.popleft()
        if key == LIST_OFFSETS:
            self._begins_at(message.topics[0].partitions[0], asked, told)
            return
        row = message.responses[0].partitions[0]
        if row.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self._ask_start(asked)
            return
        if row.error_code:
            assert ERRORS[row.error_code].is_retriable, f"{self.name}: {row.error_code}"
            self.simulator.after(5_000, self._fetch)
            return
        self.history.note_watermark(self.partition, row.high_watermark)
        if asked != self.offset:  # rewound while the answer was on its way
            self._fetch()
            return
        self.high_watermark = row.high_watermark
        if row.log_start_offset >= 0:  # from version 5 on
            self._note_start(row.log_start_offset, told)
        for batch in split_batches(bytes(row.records or b"")):
            for found in batch_records(batch, *self.partition):
                if found.offset < self.offset:
                    continue  # the batch holds the wanted offset in its middle
                assert found.offset == self.offset, f"a gap at {self.offset}: {found.offset}"
                assert found.offset < row.high_watermark
                assert found.key is not None
                self.history.note_read(self.partition, found.offset, found.key, told)
                self.offset += 1
            size_bytes = BATCH_HEADER_BYTES + len(batch.records)
            self.history.note_batch(self.partition, batch.base_offset, size_bytes)
        if self.simulator.random.random() < 0.01:
            self.offset = self.simulator.random.randrange(self.offset + 1)
        self.simulator.after(self.simulator.random.choice((0, 1_000, 20_000)), self._fetch)
