"""No answer with acks != 0 leaves before the WAL write that holds its batch has returned, synced.

kill -9 leaves the page cache alive and proves little, so here the order of system calls is looked
at: `shim/order.c` is preloaded into a real broker and numbers every WAL write when it has
returned and every send before it is made. Each batch carries a marker and each request a
correlation id of its own. Every WAL write is also held back for two milliseconds, so that an
answer that does not wait for it has all the time to leave first. The same check must catch two
builds that are broken on purpose (`planted.py`).
"""

import itertools
from pathlib import Path

import pytest

from tests.integration import broker as brokers
from tests.integration import order, planted, raw_kafka
from tests.integration.broker import read_all
from tests.integration.order import Event, Verdict
from tests.integration.raw_kafka import RawClient

TOPIC = "promised"
PARTITIONS = 4
CONNECTIONS = 4
ROUNDS = 25
PIPELINED = 4
WRITE_DELAY_US = 2000
BIG_EVERY = 20
BIG_BYTES = 300_000


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return order.build(tmp_path_factory.mktemp("shim"))


def run(
    library: Path, directory: Path, before: str = "", *, write_delay_us: int = WRITE_DELAY_US
) -> Verdict:
    """Produce through a broker under the shim and return what the check says.

    Without a delay, from one connection and one request at a time: then the core writes itself.
    """
    log = directory / "order"
    env = order.environment(library, log, write_delay_us)
    connections, pipelined = (CONNECTIONS, PIPELINED) if write_delay_us else (1, 1)
    with brokers.started(directory / "data", before=before, env=env) as broker:
        markers = produce(broker.ports["bootstrap"], connections, pipelined)
    events = order.read_events(log)
    assert events, "the shim saw no WAL write: are there system calls that it does not know?"
    return order.check(events, markers)


def produce(port: int, connections: int, pipelined: int) -> dict[int, bytes]:
    """Send pipelined requests on several connections; return correlation id -> marker."""
    markers: dict[int, bytes] = {}
    numbers = itertools.count(1_000_000)
    clients = [RawClient(port) for _ in range(connections)]
    clients[0].create_topic(TOPIC, PARTITIONS)
    for _ in range(ROUNDS):
        for client in clients:
            for _ in range(pipelined):
                number = next(numbers)
                markers[number] = b"<marker %d>" % number
                client.send(request(number, markers[number]))
        for client in clients:
            for _ in range(pipelined):
                number, body = client.answer()
                assert raw_kafka.parse_produced(body).error == 0
    # An answer is here before the shim has written down that it was sent, and the broker may be
    # killed in between; one more round trip puts the last record behind us.
    clients[0].create_topic(f"{TOPIC}-end", 1)
    for client in clients:
        client.socket.close()
    return markers


def request(number: int, marker: bytes) -> bytes:
    """Return one produce request: acks 1 and all in turn, now and then a big batch."""
    padding = b"x" * (BIG_BYTES if number % BIG_EVERY == 0 else number % 97)
    batch = raw_kafka.record_batch([marker + padding])
    acks = 1 if number % 2 else -1
    body = raw_kafka.produce(TOPIC, number % PARTITIONS, batch, acks)
    return raw_kafka.frame(raw_kafka.PRODUCE, raw_kafka.PRODUCE_VERSION, number, body)


def test_every_answer_waits_for_its_synced_write(library: Path, tmp_path: Path) -> None:
    verdict = run(library, tmp_path)
    assert verdict.faults == []
    assert verdict.answers == CONNECTIONS * ROUNDS * PIPELINED
    assert 0 < verdict.writes < verdict.answers, "group commit: fewer writes than answers"


def test_the_answer_to_a_lone_request_waits_too(library: Path, tmp_path: Path) -> None:
    verdict = run(library, tmp_path, write_delay_us=0)
    assert verdict.faults == []
    assert verdict.answers == ROUNDS
    assert verdict.writes >= ROUNDS


def test_a_build_that_does_not_sync_is_caught(library: Path, tmp_path: Path) -> None:
    verdict = run(library, tmp_path, planted.NO_SYNC)
    assert len(verdict.faults) == CONNECTIONS * ROUNDS * PIPELINED
    assert all("never synced" in fault for fault in verdict.faults)


def test_a_build_that_answers_early_is_caught(library: Path, tmp_path: Path) -> None:
    verdict = run(library, tmp_path, planted.ANSWER_EARLY)
    assert len(verdict.faults) > CONNECTIONS * ROUNDS * PIPELINED / 2
    assert any("durable only at" in fault for fault in verdict.faults)


def send(number: int, *correlations: int) -> Event:
    data = b"".join(
        (4 + 6).to_bytes(4, "big") + each.to_bytes(4, "big") + b"answer" for each in correlations
    )
    return Event(number, 3, 9, 0, data)


def test_the_checker_knows_late_from_early() -> None:
    markers = {1: b"<1>", 2: b"<2>"}
    write = Event(1, 1, 5, 1, b"..<1>..<2>..")
    assert order.check([write, send(2, 1, 2)], markers).faults == []
    early = [send(1, 1), Event(2, 1, 5, 1, b"<1><2>"), send(3, 2)]
    assert order.check(early, markers).faults == ["request 1 was answered at 1, durable only at 2"]


def test_the_checker_wants_a_sync_after_a_buffered_write() -> None:
    markers = {1: b"<1>"}
    write = Event(1, 1, 5, 0, b"<1>")
    sync, other_sync = Event(2, 2, 5, 0, b""), Event(2, 2, 6, 0, b"")
    assert order.check([write, sync, send(3, 1)], markers).faults == []
    assert order.check([write, other_sync, send(3, 1)], markers).faults
    assert order.check([write, send(3, 1), Event(4, 2, 5, 0, b"")], markers).faults


def test_the_checker_puts_an_answer_sent_in_pieces_together() -> None:
    whole = send(0, 1, 2).data
    pieces = [
        Event(1, 1, 5, 1, b"<1>"),
        Event(2, 3, 9, 0, whole[:16]),
        Event(3, 1, 5, 1, b"<2>"),
        Event(4, 3, 9, 0, whole[16:]),
    ]
    verdict = order.check(pieces, {1: b"<1>", 2: b"<2>"})
    assert verdict.faults == ["request 2 was answered at 2, durable only at 3"]


def test_a_failed_write_or_sync_makes_nothing_durable() -> None:
    markers = {1: b"<1>"}
    assert order.check([Event(1, 1, 5, 3, b"<1>"), send(2, 1)], markers).faults
    failed_sync = [Event(1, 1, 5, 0, b"<1>"), Event(2, 2, 5, 2, b""), send(3, 1)]
    assert order.check(failed_sync, markers).faults


def test_a_failed_wal_write_ends_the_core_and_is_never_acknowledged(
    library: Path, tmp_path: Path
) -> None:
    env = {"LD_PRELOAD": str(library), "SHIM_FAIL_WRITE": "40"}
    acknowledged: list[bytes] = []
    with brokers.started(tmp_path / "data", env=env) as broker:
        before = broker.core_pid()
        with RawClient(broker.ports["bootstrap"]) as client:
            client.create_topic(TOPIC)
            with pytest.raises((EOFError, ConnectionResetError)):
                produce_until_cut_off(client, acknowledged)
        assert 20 < len(acknowledged) < 40
        broker.core_pid(other_than=before)
        line = "a write to the write-ahead log failed: Input/output error"
        assert broker.log_text().count(f"error core 0: {line}") == 1
        assert f"core 0 died (core 0 stopped: {line}); starting it again" in broker.log_text()
        broker.wait_for_line("core 0 serves again after")
        assert read_all(broker.bootstrap, TOPIC)[: len(acknowledged)] == acknowledged


def produce_until_cut_off(client: RawClient, acknowledged: list[bytes]) -> None:
    """Produce one record after another; each that is acknowledged is added to the list."""
    for number in range(100):
        value = b"%d" % number
        body = raw_kafka.produce(TOPIC, 0, raw_kafka.record_batch([value]))
        answer = client.ask(raw_kafka.PRODUCE, raw_kafka.PRODUCE_VERSION, 1, body)
        assert raw_kafka.parse_produced(answer).error == 0
        acknowledged.append(value)
