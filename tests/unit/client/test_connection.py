"""One connection: who is on the other side, answers in order, and what breaks it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from corelane.model.errors import ErrorCode
from corelane_client import protocol
from corelane_client.address import Address
from corelane_client.connection import Connection
from corelane_client.errors import (
    AnswerTimeoutError,
    ClientError,
    ConnectError,
    KafkaError,
    ProtocolError,
)
from corelane_client.frames import FRAME_BYTES_MAX, FrameCutter
from corelane_client.protocol import Api
from corelane_client.settings import ConnectionSettings
from tests.unit.client.fake import CUT, SILENCE, Cluster, always, new

ADDRESS = Address("broker-0", 9092)
SETTINGS = ConnectionSettings(connect_timeout_ms=1000, request_timeout_ms=5000)


def metadata() -> Any:
    return protocol.message("MetadataRequest", topics=[])


async def connected(cluster: Cluster) -> Connection:
    connection = Connection(ADDRESS, SETTINGS, cluster.connect)
    await cluster.nursery.start(connection.run)
    return connection


async def test_both_sides_agree_on_versions(cluster: Cluster) -> None:
    cluster.ranges[Api.METADATA] = (0, 9)
    connection = await connected(cluster)
    assert connection.version_of(Api.METADATA) == 9
    assert connection.version_of(Api.METADATA, 5) == 5


async def test_an_old_broker_is_asked_again_in_its_own_words(cluster: Cluster) -> None:
    cluster.ranges[Api.API_VERSIONS] = (0, 2)
    connection = await connected(cluster)
    assert connection.ranges[Api.API_VERSIONS] == (0, 2)


async def test_no_common_version_is_said_before_sending(cluster: Cluster) -> None:
    cluster.ranges[Api.METADATA] = (90, 91)
    del cluster.ranges[Api.FETCH]
    connection = await connected(cluster)
    with pytest.raises(ProtocolError, match="Metadata in versions 90 to 91"):
        await connection.request(Api.METADATA, metadata())
    with pytest.raises(ProtocolError, match="does not serve Fetch"):
        connection.version_of(Api.FETCH)


async def test_a_broker_that_refuses_to_negotiate_is_heard(cluster: Cluster) -> None:
    refusal = new("ApiVersionsResponse", error_code=ErrorCode.INVALID_REQUEST)
    cluster.script(Api.API_VERSIONS, always(refusal))
    with pytest.raises(KafkaError, match="refused to negotiate"):
        await connected(cluster)


async def test_answers_find_their_requests(cluster: Cluster) -> None:
    cluster.topic("a")
    connection = await connected(cluster)
    names: list[list[str]] = []
    for wanted in ([], ["a"], None):
        rows = wanted and [protocol.message("MetadataRequest.MetadataRequestTopic", name="a")]
        body = protocol.message("MetadataRequest", topics=rows)

        def done(answer: Any) -> None:
            names.append([topic.name for topic in answer.topics])

        connection.submit(Api.METADATA, 12, body, done)
    assert connection.pending_count == 3
    await wait_all_tasks_blocked()
    assert names == [[], ["a"], ["a"]]


async def test_silence_breaks_the_connection_for_all_that_wait(
    cluster: Cluster, clock: MockClock
) -> None:
    connection = await connected(cluster)
    cluster.script(Api.METADATA, always(SILENCE), always(SILENCE))
    outcomes: list[ClientError] = []
    start_s = trio.current_time()
    connection.submit(Api.METADATA, 12, metadata(), outcomes.append)
    with pytest.raises(AnswerTimeoutError, match="did not answer Metadata") as caught:
        await connection.request(Api.METADATA, metadata())
    assert caught.value.retriable
    assert trio.current_time() == start_s + 5
    assert outcomes == [caught.value]
    assert not connection.is_open


async def test_a_request_that_waits_at_the_broker_has_more_time(
    cluster: Cluster, clock: MockClock
) -> None:
    connection = await connected(cluster)
    cluster.script(Api.METADATA, always(SILENCE))
    start_s = trio.current_time()
    with pytest.raises(AnswerTimeoutError):
        await connection.request(Api.METADATA, metadata(), timeout_ms=2000)
    assert trio.current_time() == start_s + 7


async def test_a_cut_connection_is_told_to_all_that_wait(cluster: Cluster) -> None:
    connection = await connected(cluster)
    cluster.script(Api.METADATA, always(CUT))
    with pytest.raises(ConnectError, match="lost the connection to broker-0:9092") as caught:
        await connection.request(Api.METADATA, metadata())
    assert caught.value.retriable
    with pytest.raises(ConnectError):
        await connection.request(Api.METADATA, metadata())


async def test_an_answer_to_another_question_breaks_the_connection(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await connected(cluster)
    send = cluster.send

    async def send_late(stream: Any, api: Any, version: int, number: int, answer: Any) -> None:
        await send(stream, api, version, number + 1, answer)

    monkeypatch.setattr(cluster, "send", send_late)
    with pytest.raises(ProtocolError, match="answered request 1 before request 0"):
        await connection.request(Api.METADATA, metadata())
    assert not connection.is_open


async def test_an_answer_nobody_asked_for_breaks_the_connection(cluster: Cluster) -> None:
    connection = await connected(cluster)
    body = protocol.message("MetadataRequest", topics=[])
    outcomes: list[object] = []
    connection.submit_unanswered(Api.METADATA, 12, body, outcomes.append)
    assert outcomes == [], "nothing is sent yet"
    await wait_all_tasks_blocked()
    assert outcomes == [None]
    assert not connection.is_open


async def test_who_waits_for_no_answer_hears_when_nothing_was_sent(cluster: Cluster) -> None:
    connection = await connected(cluster)
    outcomes: list[object] = []
    body = protocol.message("MetadataRequest", topics=[])
    connection.submit_unanswered(Api.METADATA, 12, body, outcomes.append)
    connection.close()
    (outcome,) = outcomes
    assert isinstance(outcome, ConnectError)


async def test_a_broker_that_takes_nothing_more_is_given_up(
    cluster: Cluster, clock: MockClock
) -> None:
    """Also where no answer is awaited: who waits for the sending would wait for ever."""

    async def connect(_address: Address) -> trio.abc.Stream:
        client, server = trio.testing.lockstep_stream_pair()
        cluster.nursery.start_soon(cluster.serve, 0, server)
        return client

    connection = Connection(ADDRESS, SETTINGS, connect)
    await cluster.nursery.start(connection.run)
    cluster.script(Api.METADATA, always(SILENCE))
    outcomes: list[object] = []
    connection.submit_unanswered(Api.METADATA, 12, metadata(), outcomes.append)
    await wait_all_tasks_blocked()
    assert outcomes == [None]
    connection.submit_unanswered(Api.METADATA, 12, metadata(), outcomes.append)
    await trio.sleep(4.9)
    assert outcomes == [None]
    await trio.sleep(0.2)
    assert isinstance(outcomes[1], AnswerTimeoutError)
    assert outcomes[1].retriable
    assert "takes nothing" in outcomes[1].sentence
    assert not connection.is_open


async def test_what_was_taken_in_time_is_overdue_never(cluster: Cluster, clock: MockClock) -> None:
    connection = await connected(cluster)
    cluster.script(Api.METADATA, always(SILENCE))
    outcomes: list[object] = []
    connection.submit_unanswered(Api.METADATA, 12, metadata(), outcomes.append)
    await trio.sleep(100)
    assert outcomes == [None]
    assert connection.is_open


async def test_a_finished_connection_ends_when_the_broker_has_read_all(cluster: Cluster) -> None:
    connection = await connected(cluster)
    outcomes: list[object] = []
    for _ in range(3):
        connection.submit(Api.METADATA, 12, metadata(), outcomes.append)
    connection.finish()
    await connection.ended.wait()
    assert [type(each).__name__ for each in outcomes] == ["MetadataResponse"] * 3
    assert not connection.is_open


async def test_giving_up_an_answer_leaves_the_connection_in_step(cluster: Cluster) -> None:
    connection = await connected(cluster)
    with trio.CancelScope() as scope:
        scope.cancel()
        await connection.request(Api.METADATA, metadata())
    assert scope.cancelled_caught
    assert (await connection.request(Api.METADATA, metadata())).controller_id == 0


async def test_nobody_listens(cluster: Cluster) -> None:
    cluster.down.add(0)
    with pytest.raises(ConnectError, match="cannot connect to broker-0:9092: connection refused"):
        await connected(cluster)


async def test_an_address_that_swallows_packets_is_given_up(
    clock: MockClock,
) -> None:
    async def connect(_address: Address) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(ConnectError, match="no answer within 1000 ms"):
        await Connection(ADDRESS, SETTINGS, connect).run()


Stranger = Callable[[trio.abc.Stream], Awaitable[None]]


async def meet(stranger: Stranger) -> ClientError:
    """Return the error of connecting to somebody who is not a Kafka broker."""
    async with trio.open_nursery() as nursery:

        async def connect(_address: Address) -> trio.abc.Stream:
            client, server = trio.testing.memory_stream_pair()
            nursery.start_soon(stranger, server)
            return client

        with pytest.raises(ClientError) as caught:
            await Connection(ADDRESS, SETTINGS, connect).run()
        nursery.cancel_scope.cancel()
    return caught.value


@pytest.mark.parametrize(
    ("greeting", "sentence"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", "broker-0:9092 does not speak Kafka: it speaks TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n", "it speaks HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it speaks SSH"),
        (b"-ERR unknown command\r\n", "it speaks Redis"),
        (b"\xff\xff\xff\xffxyz", "it sent b'"),
    ],
)
async def test_strangers_are_recognised(greeting: bytes, sentence: str) -> None:
    async def stranger(stream: trio.abc.Stream) -> None:
        await stream.send_all(greeting)
        await trio.sleep_forever()

    error = await meet(stranger)
    assert sentence in error.sentence
    assert error.next_step


async def test_a_port_that_hangs_up_may_want_tls() -> None:
    async def stranger(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()

    error = await meet(stranger)
    assert "closed the connection at the first question" in error.sentence
    assert "TLS" in error.next_step


async def test_a_port_that_says_nothing_is_given_up(
    clock: MockClock,
) -> None:
    async def stranger(_stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    assert "said nothing for 1000 ms" in (await meet(stranger)).sentence


async def test_an_answer_that_is_not_understood_is_the_others_fault() -> None:
    async def stranger(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x00\x00\x00\x08" + b"\x00\x00\x00\x00" + b"\x00\x00\x7f\xff")
        await trio.sleep_forever()

    error = await meet(stranger)
    assert isinstance(error, ProtocolError)
    assert "is not understood" in error.sentence


def test_frames_are_cut_wherever_the_network_cut_them() -> None:
    wire = b"".join(len(data).to_bytes(4, "big") + data for data in (b"abcd", b"efghi"))
    for step in range(1, len(wire)):
        cutter, frames = FrameCutter("somebody"), []
        for at in range(0, len(wire), step):
            cutter.add(wire[at : at + step])
            while (frame := cutter.take()) is not None:
                frames.append(frame)
        assert frames == [b"abcd", b"efghi"]


@pytest.mark.parametrize("length", [-1, 0, 3, FRAME_BYTES_MAX + 1])
def test_an_impossible_length_is_not_waited_for(length: int) -> None:
    cutter = FrameCutter("somebody")
    cutter.add(length.to_bytes(4, "big", signed=True))
    with pytest.raises(ProtocolError):
        cutter.take()
