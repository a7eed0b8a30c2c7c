"""A Kafka cluster in memory that keeps its promises except where a test scripts otherwise.

It speaks through `corelane.wire` over trio's memory streams, so the client is tested with every
byte it sends. Under `autojump_clock` time-outs take no time.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

from corelane.model.errors import ErrorCode
from corelane.wire.compiler import codec, message_type, request_codec, response_codec
from corelane.wire.frame import request_body_at
from corelane.wire.records import Batch, split_batches
from corelane_client.address import Address
from corelane_client.protocol import Api
from tests.unit.client import fake_admin
from tests.unit.client.fake_consumer_groups import topic_id
from tests.unit.client.fake_groups import GROUP_RANGES, Groups
from tests.unit.client.fake_transactions import TRANSACTION_RANGES, Transactions

API_VERSIONS_MAX = 4
RANGES = {
    Api.PRODUCE: (0, 11),
    Api.FETCH: (4, 17),
    Api.LIST_OFFSETS: (1, 7),
    Api.METADATA: (0, 12),
    Api.API_VERSIONS: (0, API_VERSIONS_MAX),
    Api.CREATE_TOPICS: (2, 7),
    Api.DELETE_TOPICS: (1, 6),
    Api.DELETE_RECORDS: (0, 2),
    Api.INIT_PRODUCER_ID: (0, 4),
    Api.OFFSET_FOR_LEADER_EPOCH: (2, 4),
    Api.DESCRIBE_CONFIGS: (1, 4),
    Api.DESCRIBE_LOG_DIRS: (1, 4),
    Api.CREATE_PARTITIONS: (0, 3),
    Api.ELECT_LEADERS: (1, 2),
    Api.INCREMENTAL_ALTER_CONFIGS: (0, 1),
    **GROUP_RANGES,
    **TRANSACTION_RANGES,
}

Script = Callable[[Any], Any]
"""Gets the request; returns the answer, None to go on as usual, or CUT, CUT_AFTER or SILENCE."""

CUT = object()
"""Cut the connection without doing anything."""
CUT_AFTER = object()
"""Do what was asked and cut the connection instead of answering."""
SILENCE = object()
"""Never answer, nor anything after it on this connection."""


def new(name: str, /, **fields: Any) -> Any:
    return message_type(name)(**fields)


@dataclass
class Log:
    """A partition: its batches with their offsets, and what it knows of producers."""

    batches: list[bytes] = field(default_factory=list)
    end: int = 0
    start: int = 0
    last_sequences: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    aborted: list[tuple[int, int]] = field(default_factory=list)

    def append(self, data: bytes) -> tuple[int, int]:
        """Write a batch as a leader does; return (error, base offset)."""
        (batch,) = split_batches(data)
        sequence = batch.producer.base_sequence
        if batch.producer.producer_id >= 0:
            writer = (batch.producer.producer_id, batch.producer.epoch)
            known = self.last_sequences.setdefault(writer, [])
            for base, offset in known[-5:]:
                if base == sequence:
                    return 0, offset
            if sequence != self._expected(batch):
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
            known.append((sequence, self.end))
        return 0, self.write(data)

    def write(self, data: bytes) -> int:
        """Write a batch unseen; return its base offset."""
        (batch,) = split_batches(data)
        base = self.end
        self.batches.append(struct.pack(">q", base) + data[8:12] + bytes(4) + data[16:])
        self.end += batch.last_offset_delta + 1
        return base

    def read(self, offset: int, bytes_max: int) -> bytes:
        """Return whole batches from the one that holds *offset*."""
        found = b""
        for data in self.batches:
            base, delta = struct.unpack_from(">q", data)[0], struct.unpack_from(">i", data, 23)[0]
            if base + delta >= offset:
                if found and len(found) + len(data) > bytes_max:
                    break
                found += data
        return found

    def _expected(self, batch: Batch) -> int:
        known = self.last_sequences[batch.producer.producer_id, batch.producer.epoch]
        if not known:
            return 0
        base, offset = known[-1]
        (last,) = (b for b in map(_only, self.batches) if b.base_offset == offset)
        return base + last.count


def _only(data: bytes) -> Batch:
    (batch,) = split_batches(data)
    return batch


class Cluster:
    """Brokers 0, 1, ... at `broker-N:9092`, topics with logs, and scripts for the next requests."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.addresses: dict[int, Address] = {}
        self.topics: dict[str, list[Log]] = {}
        self.leaders: dict[tuple[str, int], int] = {}
        self.scripts: dict[Api, list[Script]] = {}
        self.requests: list[tuple[int, Api, Any]] = []
        self.ranges = dict(RANGES)
        self.down: set[int] = set()
        self.auto_create = False
        self.configs: dict[str, dict[str, str | None]] = {}
        self.groups = Groups(self.topics)
        self.transactions = Transactions(self)
        self.next_producer_id = 1000
        self.changed = trio.Event()
        self.grow(1)

    def grow(self, brokers: int) -> None:
        """Have so many brokers."""
        self.addresses = {number: Address(f"broker-{number}", 9092) for number in range(brokers)}

    @property
    def bootstrap(self) -> str:
        return "broker-0:9092"

    def topic(self, name: str, partitions: int = 1) -> list[Log]:
        """Make a topic; partition i is led by broker i modulo their number."""
        self.topics[name] = [Log() for _ in range(partitions)]
        for number in range(partitions):
            self.leaders[name, number] = number % len(self.addresses)
        return self.topics[name]

    def announce(self) -> None:
        """Let who waits for records look again."""
        self.changed.set()
        self.changed = trio.Event()

    def script(self, api: Api, *steps: Script) -> None:
        """Let the next requests of *api* meet *steps*, one each."""
        self.scripts.setdefault(api, []).extend(steps)

    def asked(self, api: Api) -> list[Any]:
        """Return the requests of *api* so far."""
        return [request for _, each, request in self.requests if each == api]

    async def connect(self, address: Address) -> trio.abc.Stream:
        """Open a connection, as the client does."""
        broker_id = int(address.host.removeprefix("broker-"))
        if broker_id in self.down or broker_id not in self.addresses:
            raise ConnectionRefusedError(111, "Connection refused")
        client, server = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.serve, broker_id, server)
        return client

    async def serve(self, broker_id: int, stream: trio.abc.Stream) -> None:
        """Speak with one client until one of us ends it."""
        data = b""
        try:
            async for received in stream:
                data += received
                while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
                    size = 4 + int.from_bytes(data[:4], "big")
                    frame, data = data[4:size], data[size:]
                    if not await self._answer(broker_id, stream, frame):
                        await stream.aclose()
                        return
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _answer(self, broker_id: int, stream: trio.abc.Stream, frame: bytes) -> bool:
        """Do one request; return False to cut the connection."""
        key, version, correlation_id = struct.unpack_from(">hhi", frame)
        api = Api(key)
        if api == Api.API_VERSIONS and version > self.ranges[api][1]:
            too_new = new("ApiVersionsResponse", error_code=ErrorCode.UNSUPPORTED_VERSION)
            too_new.api_keys = [self._range(api)]
            await self.send(stream, api, 0, correlation_id, too_new)
            return True
        requests = request_codec(key, version)
        at = request_body_at(frame, is_flexible=requests.is_flexible)
        request, _end = requests.decode(frame, at)
        self.requests.append((broker_id, api, request))
        steps = self.scripts.get(api)
        scripted = steps.pop(0)(request) if steps else None
        if scripted is CUT:
            return False
        if scripted is SILENCE:
            await trio.sleep_forever()
        answer = scripted
        if scripted is None or scripted is CUT_AFTER:
            answer = await self._handle(broker_id, api, version, request)
        if scripted is CUT_AFTER:
            return False
        if answer is not None:
            await self.send(stream, api, version, correlation_id, answer)
        return True

    async def send(
        self, stream: trio.abc.Stream, api: Api, version: int, correlation_id: int, answer: Any
    ) -> None:
        """Send one answer."""
        answers = response_codec(api, version)
        is_tagged = answers.is_flexible and api != Api.API_VERSIONS
        header = codec("ResponseHeader", 1 if is_tagged else 0)
        raw = header.encode(header.message(correlation_id=correlation_id)) + answers.encode(answer)
        await stream.send_all(struct.pack(">i", len(raw)) + raw)

    async def _handle(self, broker_id: int, api: Api, version: int, request: Any) -> Any:
        match api:
            case Api.API_VERSIONS:
                rows = [self._range(each) for each in self.ranges]
                return new("ApiVersionsResponse", api_keys=rows)
            case Api.METADATA:
                return self._metadata(request)
            case Api.INIT_PRODUCER_ID:
                if request.transactional_id is not None:
                    return self.transactions.init(broker_id, request)
                self.next_producer_id += 1
                return new("InitProducerIdResponse", producer_id=self.next_producer_id)
            case Api.FIND_COORDINATOR if request.key_type == 1:
                return self.groups.find(request, version, self.transactions.at)
            case _ if api in TRANSACTION_RANGES:
                return await self.transactions.answer(broker_id, api, request)
            case Api.PRODUCE:
                return self._produce(broker_id, request)
            case Api.FETCH:
                return await self._fetch(broker_id, version, request)
            case Api.LIST_OFFSETS:
                return self._list_offsets(broker_id, request)
            case Api.CREATE_TOPICS:
                return new("CreateTopicsResponse", topics=[*map(self._create, request.topics)])
            case Api.DELETE_TOPICS:
                names = request.topic_names or [row.name for row in request.topics]
                return new("DeleteTopicsResponse", responses=[*map(self._delete, names)])
            case Api.DESCRIBE_CONFIGS:
                rows = [self._describe(each) for each in request.resources]
                return new("DescribeConfigsResponse", results=rows)
            case _ if api in GROUP_RANGES:
                return await self.groups.answer(broker_id, api, version, request)
            case _:
                return fake_admin.answer(self, broker_id, api, request)

    def _range(self, api: Api) -> Any:
        first, last = self.ranges[api]
        return new(
            "ApiVersionsResponse.ApiVersion", api_key=api, min_version=first, max_version=last
        )

    def _create(self, row: Any) -> Any:
        answer = new("CreateTopicsResponse.CreatableTopicResult", name=row.name, error_message=None)
        if row.name in self.topics:
            answer.error_code = ErrorCode.TOPIC_ALREADY_EXISTS
            answer.error_message = f"topic {row.name!r} exists"
        else:
            self.topic(row.name, max(row.num_partitions, 1))
            self.configs[row.name] = {each.name: each.value for each in row.configs}
        return answer

    def _delete(self, name: str) -> Any:
        answer = new("DeleteTopicsResponse.DeletableTopicResult", name=name)
        if self.topics.pop(name, None) is None:
            answer.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return answer

    def _describe(self, resource: Any) -> Any:
        own = self.configs.get(resource.resource_name, {})
        rows = [("cleanup.policy", "delete", 5)] + [(name, value, 1) for name, value in own.items()]
        configs = [
            new(
                "DescribeConfigsResponse.DescribeConfigsResourceResult",
                name=name,
                value=value,
                config_source=source,
                documentation=None,
            )
            for name, value, source in rows
        ]
        return new(
            "DescribeConfigsResponse.DescribeConfigsResult",
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
            error_message=None,
            configs=configs,
        )

    def _metadata(self, request: Any) -> Any:
        names = [*self.topics] if request.topics is None else [row.name for row in request.topics]
        brokers = [
            new("MetadataResponse.MetadataResponseBroker", node_id=number, host=host, port=port)
            for number, (host, port) in self.addresses.items()
        ]
        if self.auto_create and request.allow_auto_topic_creation:
            for name in names:
                if name not in self.topics:
                    self.topic(name)
        rows = [self._metadata_topic(name) for name in names]
        return new(
            "MetadataResponse",
            brokers=brokers,
            cluster_id="in-memory",
            controller_id=0,
            topics=rows,
        )

    def _metadata_topic(self, name: str) -> Any:
        if name not in self.topics:
            return new(
                "MetadataResponse.MetadataResponseTopic",
                name=name,
                error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            )
        partitions = [
            new(
                "MetadataResponse.MetadataResponsePartition",
                partition_index=number,
                leader_id=self.leaders[name, number],
                leader_epoch=0,
            )
            for number in range(len(self.topics[name]))
        ]
        return new(
            "MetadataResponse.MetadataResponseTopic",
            name=name,
            topic_id=topic_id(name),
            partitions=partitions,
        )

    def _produce(self, broker_id: int, request: Any) -> Any:
        topics = []
        for topic in request.topic_data:
            rows = []
            for part in topic.partition_data:
                error, base = ErrorCode.NOT_LEADER_OR_FOLLOWER, -1
                if self.leaders.get((topic.name, part.index)) == broker_id:
                    (batch,) = split_batches(part.records)
                    error, base = ErrorCode.NONE, -1
                    if batch.is_transactional:
                        error = self.transactions.refuses(batch)
                    if not error:
                        error, base = self.topics[topic.name][part.index].append(part.records)
                rows.append(
                    new(
                        "ProduceResponse.PartitionProduceResponse",
                        index=part.index,
                        error_code=error,
                        base_offset=base,
                    )
                )
            topics.append(
                new(
                    "ProduceResponse.TopicProduceResponse",
                    name=topic.name,
                    partition_responses=rows,
                )
            )
        self.announce()
        return new("ProduceResponse", responses=topics) if request.acks else None

    async def _fetch(self, broker_id: int, version: int, request: Any) -> Any:
        deadline_s = trio.current_time() + request.max_wait_ms / 1000
        while True:
            topics, has_news = [], False
            for topic in request.topics:
                name = topic.topic if version < 13 else topic.topic_id.rstrip(b".").decode()
                rows = [self._fetch_row(broker_id, name, part) for part in topic.partitions]
                has_news = has_news or any(row.records or row.error_code for row in rows)
                topics.append(
                    new(
                        "FetchResponse.FetchableTopicResponse",
                        topic=name,
                        topic_id=topic.topic_id,
                        partitions=rows,
                    )
                )
            if has_news or trio.current_time() >= deadline_s:
                return new("FetchResponse", responses=topics)
            with trio.move_on_at(deadline_s):
                await self.changed.wait()

    def _fetch_row(self, broker_id: int, name: str, part: Any) -> Any:
        row = new("FetchResponse.PartitionData", partition_index=part.partition)
        row.aborted_transactions = None
        if self.leaders.get((name, part.partition)) != broker_id:
            row.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
            return row
        log = self.topics[name][part.partition]
        if not log.start <= part.fetch_offset <= log.end:
            row.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
            return row
        row.high_watermark = log.end
        row.records = log.read(part.fetch_offset, part.partition_max_bytes)
        row.aborted_transactions = [
            new("FetchResponse.AbortedTransaction", producer_id=who, first_offset=first)
            for who, first in log.aborted
        ]
        return row

    def _list_offsets(self, broker_id: int, request: Any) -> Any:
        topics = []
        for topic in request.topics:
            rows = []
            for part in topic.partitions:
                row = new(
                    "ListOffsetsResponse.ListOffsetsPartitionResponse",
                    partition_index=part.partition_index,
                )
                log = self.topics[topic.name][part.partition_index]
                if self.leaders[topic.name, part.partition_index] != broker_id:
                    row.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
                elif part.timestamp == -2:
                    row.offset = log.start
                elif part.timestamp == -1:
                    row.offset = log.end
                else:
                    batches = map(_only, log.batches)
                    fits = [b for b in batches if b.max_timestamp_ms >= part.timestamp]
                    row.offset = fits[0].base_offset if fits else -1
                rows.append(row)
            topics.append(
                new(
                    "ListOffsetsResponse.ListOffsetsTopicResponse",
                    name=topic.name,
                    partitions=rows,
                )
            )
        return new("ListOffsetsResponse", topics=topics)


def refuse_produce(error: int, count: int = 1) -> list[Script]:
    """Return *count* steps that refuse every batch of a Produce with *error*."""

    def step(request: Any) -> Any:
        topics = [
            new(
                "ProduceResponse.TopicProduceResponse",
                name=topic.name,
                partition_responses=[
                    new(
                        "ProduceResponse.PartitionProduceResponse",
                        index=part.index,
                        error_code=error,
                        base_offset=-1,
                    )
                    for part in topic.partition_data
                ],
            )
            for topic in request.topic_data
        ]
        return new("ProduceResponse", responses=topics)

    return [step] * count


def always(outcome: object) -> Script:
    """Return a step with this outcome."""
    return lambda _request: outcome
