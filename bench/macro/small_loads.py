"""Loads of small requests by bare clients: connections, a fixed rate, partitions, a reader.

Each is asked for as those of `load.py`, which lists them; all time is the client's own.
"""

import selectors
import socket
import struct
import time
from dataclasses import field
from typing import Any

from bench.macro import raw
from corelane.model.record import record
from tests.conformance.probe import Address, parse_address, read_exactly

FIRST_PORTION = 0.02
RATE_PER_S = 1_000
RECEIVE_BYTES = 1 << 16
ANSWER_S_MAX = 60.0
_PREFIX = struct.Struct(">i")

Metrics = dict[str, float]


@record
class Order:
    """What is to be done; not every load looks at everything."""

    bootstrap: str
    topic: str
    count: int
    size: int
    partitions: int = 1
    flight: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def mb(self) -> float:
        """Megabytes of values in all."""
        return self.count * self.size / 1e6


def many_connections(order: Order) -> Metrics:
    """Send one-record requests on `flight` connections, one under way on each."""
    partition, address = _first(order)
    frame = _frame(partition, order.size)
    selector = selectors.DefaultSelector()
    clients = [raw.Connection(address) for _ in range(order.flight)]
    answer_bytes = len(clients[0].ask(frame)) + 8
    began: dict[socket.socket, float] = {}
    times_us: list[float] = []
    start_s = time.perf_counter()
    for each in clients:
        selector.register(each.socket, selectors.EVENT_READ)
        began[each.socket] = time.perf_counter()
        each.socket.sendall(frame)
    sent = len(clients)
    while len(times_us) < order.count:
        ready = selector.select(ANSWER_S_MAX)
        assert ready, "no answer came"
        for key, _events in ready:
            assert isinstance(key.fileobj, socket.socket)
            read_exactly(key.fileobj, answer_bytes)
            now_s = time.perf_counter()
            times_us.append((now_s - began[key.fileobj]) * 1e6)
            if sent < order.count:
                sent += 1
                began[key.fileobj] = now_s
                key.fileobj.sendall(frame)
    took_s = time.perf_counter() - start_s
    for each in clients:
        each.close()
    return {"requests/s": order.count / took_s} | quantiles(times_us)


def at_a_rate(order: Order) -> Metrics:
    """Send a record each millisecond, whether or not the ones before were answered.

    A time begins when its record was due, so a client or broker that falls behind shows.
    """
    partition, address = _first(order)
    frame = _frame(partition, order.size)
    connection = raw.Connection(address)
    answer_bytes = len(connection.ask(frame)) + 8
    connection.socket.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(connection.socket, selectors.EVENT_READ)
    times_us: list[float] = []
    start_s = time.perf_counter()
    sent = received = 0
    while len(times_us) < order.count:
        now_s = time.perf_counter()
        due = min(order.count, int((now_s - start_s) * RATE_PER_S) + 1)
        while sent < due:
            connection.socket.setblocking(True)
            connection.socket.sendall(frame)
            connection.socket.setblocking(False)
            sent += 1
        wait_s = max(0.0, start_s + sent / RATE_PER_S - time.perf_counter())
        if selector.select(wait_s if sent < order.count else ANSWER_S_MAX):
            received += len(connection.socket.recv(RECEIVE_BYTES))
            now_s = time.perf_counter()
            while len(times_us) < received // answer_bytes:
                times_us.append((now_s - start_s - len(times_us) / RATE_PER_S) * 1e6)
    connection.close()
    return quantiles(times_us)


def write_to_read(order: Order) -> Metrics:
    """Send one record and have a waiting reader get it; the time between, again and again."""
    partition, address = _first(order)
    frame = _frame(partition, order.size)
    writer, reader = raw.Connection(address), raw.Connection(address)
    offset = raw.check_produced(writer.ask(frame), partition) + 1
    times_us: list[float] = []
    for _ in range(order.count):
        reader.socket.sendall(raw.fetch(partition, offset, RECEIVE_BYTES))
        time.sleep(0.0005)  # so that it waits
        start_s = time.perf_counter()
        writer.socket.sendall(frame)
        (size_bytes,) = _PREFIX.unpack(read_exactly(reader.socket, _PREFIX.size))
        answer = read_exactly(reader.socket, size_bytes)[4:]
        times_us.append((time.perf_counter() - start_s) * 1e6)
        offset, _end = raw.fetched(answer, partition)
        (size_bytes,) = _PREFIX.unpack(read_exactly(writer.socket, _PREFIX.size))
        read_exactly(writer.socket, size_bytes)
    writer.close()
    reader.close()
    return quantiles(times_us)


def one_to_each(order: Order) -> Metrics:
    """Append one small record to each of many partitions, round after round, all under way."""
    address = parse_address(order.bootstrap)
    batch = raw.batch([bytes(order.size)], int(time.time() * 1000))
    frames: dict[tuple[str, int], list[bytes]] = {}
    for number, broker in raw.all_leaders(address, order.topic, order.partitions).items():
        frame = raw.produce(raw.Partition(order.topic, number), batch)
        frames.setdefault((broker.host, broker.port), []).append(frame)
    rounds = max(1, order.count // order.partitions)
    connections = {place: raw.Connection(Address(*place)) for place in frames}
    start_s = time.perf_counter()
    for _ in range(rounds):
        for place, owned in frames.items():
            for frame in owned:
                connections[place].socket.sendall(frame)
        for place, owned in frames.items():
            for _ in owned:
                client = connections[place].socket
                (size_bytes,) = _PREFIX.unpack(read_exactly(client, _PREFIX.size))
                read_exactly(client, size_bytes)
    took_s = time.perf_counter() - start_s
    for connection in connections.values():
        connection.close()
    return {"requests/s": rounds * order.partitions / took_s}


def quantiles(times_us: list[float]) -> Metrics:
    """Return the figures of latencies, the first few left out: caches warm up."""
    kept = sorted(times_us[int(len(times_us) * FIRST_PORTION) :])

    def at(share: float) -> float:
        return kept[min(int(len(kept) * share), len(kept) - 1)]

    return {"p50 us": at(0.5), "p99 us": at(0.99), "p99.9 us": at(0.999), "max us": kept[-1]}


def _first(order: Order) -> tuple[raw.Partition, Address]:
    partition = raw.Partition(order.topic, 0)
    return partition, raw.leader(parse_address(order.bootstrap), partition)


def _frame(partition: raw.Partition, size: int) -> bytes:
    return raw.produce(partition, raw.batch([bytes(size)], int(time.time() * 1000)))
