"""Loads that run in a process of their own: `python -m bench.macro.load KIND JSON` prints JSON.

Bounded in count, and in time by whoever started it.
"""

import json
import socket
import sys
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from bench.macro import raw, small_loads
from bench.macro.small_loads import Order
from tests.conformance.probe import parse_address

FETCH_BYTES = 8 << 20
RECEIVE_BYTES = 1 << 20
Metrics = dict[str, float]


def main() -> None:
    """Run one load and print what it measured."""
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(LOADS[kind](Order(**arguments))))


def librdkafka_produce(order: Order) -> Metrics:
    """Produce records as fast as librdkafka takes them."""
    topic, partitions = order.topic, order.partitions
    producer = Producer({"bootstrap.servers": order.bootstrap, "acks": "all", **order.settings})
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            errors.append(error)

    value = (bytes(range(256)) * (order.size // 256 + 1))[: order.size]
    producer.list_topics(topic, timeout=30)
    start_s = time.perf_counter()
    for i in range(order.count):
        while True:
            try:
                producer.produce(topic, value, partition=i % partitions, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.01)
        if i % 1000 == 0:
            producer.poll(0)
    left = producer.flush(120)
    took_s = time.perf_counter() - start_s
    assert not errors, f"{len(errors)} records failed: {errors[0]}"
    assert left == 0, f"{left} records were not answered"
    return {"MB/s": order.mb / took_s, "records/s": order.count / took_s}


def librdkafka_fetch(order: Order) -> Metrics:
    """Read all records from the start of all partitions by assignment."""
    settings = {
        "bootstrap.servers": order.bootstrap,
        "group.id": "never-joined",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "queued.min.messages": 100_000,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(order.topic, each, 0) for each in range(order.partitions)])
    read = 0
    start_s = 0.0
    while read < order.count:
        messages = consumer.consume(10_000, timeout=1.0)
        start_s = start_s or time.perf_counter()
        read += len(messages)
    took_s = time.perf_counter() - start_s
    consumer.close()
    return {"MB/s": order.mb / took_s, "records/s": order.count / took_s}


def raw_fetch(order: Order) -> Metrics:
    """Read all records partition by partition, and look at none of them."""
    address = parse_address(order.bootstrap)
    read = 0
    start_s = time.perf_counter()
    for index in range(order.partitions):
        partition = raw.Partition(order.topic, index)
        connection = raw.Connection(raw.leader(address, partition))
        offset, end = 0, 1
        while offset < end:
            answer = connection.ask(raw.fetch(partition, offset, FETCH_BYTES))
            next_offset, end = raw.fetched(answer, partition)
            offset = max(offset, next_offset)
        read += offset
        connection.close()
    took_s = time.perf_counter() - start_s
    assert read == order.count, f"{read} of {order.count} records were read"
    return {"MB/s": order.mb / took_s}


def raw_requests(order: Order) -> Metrics:
    """Send requests of one record each, `flight` of them without an answer at a time."""
    partition, connection = _connect(order)
    frame = raw.produce(partition, raw.batch([bytes(order.size)], int(time.time() * 1000)))
    first = connection.ask(frame)
    raw.check_produced(first, partition)
    answer_bytes = len(first) + 8  # every answer is as long as the first, with its prefixes
    answers = _Answers(connection.socket)
    sent = done = 0
    start_s = time.perf_counter()
    while done < order.count:
        room = min(order.flight - (sent - done), order.count - sent)
        if room:
            connection.socket.sendall(frame * room)
            sent += room
        done = answers.count(answer_bytes)
    took_s = time.perf_counter() - start_s
    connection.close()
    return {"requests/s": order.count / took_s}


def raw_latency(order: Order) -> Metrics:
    """Send one record, wait for its acknowledgement, send the next; microseconds."""
    partition, connection = _connect(order)
    frame = raw.produce(partition, raw.batch([bytes(order.size)], int(time.time() * 1000)))
    times_us: list[float] = []
    for _ in range(order.count):
        start_s = time.perf_counter()
        answer = connection.ask(frame)
        times_us.append((time.perf_counter() - start_s) * 1e6)
        raw.check_produced(answer, partition)
    connection.close()
    return small_loads.quantiles(times_us)


class _Answers:
    """Counts answers by their bytes, which is all there is time for."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._received_bytes = 0

    def count(self, answer_bytes: int) -> int:
        """Wait for more, and return how many answers have arrived in all."""
        piece = self._source.recv(RECEIVE_BYTES)
        assert piece, "the broker closed the connection"
        self._received_bytes += len(piece)
        return self._received_bytes // answer_bytes


def _connect(order: Order) -> tuple[raw.Partition, raw.Connection]:
    partition = raw.Partition(order.topic, 0)
    return partition, raw.Connection(raw.leader(parse_address(order.bootstrap), partition))


LOADS: dict[str, Callable[[Order], Metrics]] = {
    "librdkafka-produce": librdkafka_produce,
    "librdkafka-fetch": librdkafka_fetch,
    "raw-fetch": raw_fetch,
    "raw-requests": raw_requests,
    "raw-latency": raw_latency,
    "raw-connections": small_loads.many_connections,
    "raw-rate": small_loads.at_a_rate,
    "raw-write-to-read": small_loads.write_to_read,
    "raw-one-to-each": small_loads.one_to_each,
}


if __name__ == "__main__":
    main()
