"""What stock clients write is what they read again, in every form a record can have."""

import time

import pytest

from tests.conformance.clients.base import Client, ClientError, Place, Producing, Sent

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
MESSAGE_TOO_LARGE = 10
LATE_MS_MAX = 60_000


def round_trip(client: Client, topic: str, sent: list[Sent], how: Producing) -> None:
    """Produce to a new topic and assert that the same records come back, at dense offsets."""
    client.create_topic(topic, 1, {})
    offsets = client.produce(topic, 0, sent, how)
    assert offsets == list(range(len(sent)))
    received = client.consume(Place(topic, 0, 0), len(sent))
    assert [each.offset for each in received] == offsets
    assert [each.value for each in received] == [each.value for each in sent]
    assert [each.key for each in received] == [each.key for each in sent]
    assert [each.headers for each in received] == [each.headers for each in sent]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("is_idempotent", [False, True], ids=["plain", "idempotent"])
def test_every_codec_passes_through(
    client: Client, topic: str, codec: str, is_idempotent: bool
) -> None:
    sent = [Sent(b"value %d " % i * 20, key=b"key %d" % (i % 7)) for i in range(500)]
    round_trip(client, topic, sent, Producing(codec=codec, is_idempotent=is_idempotent))


@pytest.mark.parametrize("acks", [1, -1], ids=["leader", "all"])
def test_acknowledged_records_have_their_offsets(client: Client, topic: str, acks: int) -> None:
    round_trip(client, topic, [Sent(b"a"), Sent(b"b"), Sent(b"c")], Producing(acks=acks))


def test_unacknowledged_records_arrive(client: Client, topic: str) -> None:
    """With acks=0 the broker says nothing at all; a frame too many would confuse the client."""
    client.create_topic(topic, 1, {})
    sent = [Sent(b"%d" % i) for i in range(100)]
    client.produce(topic, 0, sent, Producing(acks=0))
    received = client.consume(Place(topic, 0, 0), len(sent))
    assert [each.value for each in received] == [each.value for each in sent]


def test_empty_is_not_absent(client: Client, topic: str) -> None:
    """A null value is a tombstone, an empty one is a value; the same holds for keys and headers."""
    sent = [
        Sent(b"", key=b""),
        Sent(None, key=b"gone"),
        Sent(b"no key"),
        Sent(b"headers", headers=(("empty", b""), ("twice", b"1"), ("twice", b"2"), ("", b"x"))),
    ]
    round_trip(client, topic, sent, Producing())


def test_bytes_of_every_kind_survive(client: Client, topic: str) -> None:
    everything = bytes(range(256))
    round_trip(client, topic, [Sent(everything, key=everything[::-1])], Producing())


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_record_may_be_nearly_as_big_as_the_limit(client: Client, topic: str, codec: str) -> None:
    big = bytes(range(251)) * 4_000  # 1,004,000 bytes; max.message.bytes is 1,048,588
    how = Producing(codec=codec, request_bytes_max=1_048_588, batch_bytes=1_048_588)
    round_trip(client, topic, [Sent(b"before"), Sent(big), Sent(b"after")], how)


def test_the_limit_is_the_topics_own(client: Client, topic: str) -> None:
    big = bytes(range(251)) * 12_000
    how = Producing(request_bytes_max=8 << 20, batch_bytes=4 << 20)
    client.create_topic(topic, 1, {"max.message.bytes": str(4 << 20)})
    assert client.produce(topic, 0, [Sent(big)], how) == [0]
    (received,) = client.consume(Place(topic, 0, 0), 1)
    assert received.value == big


def test_a_record_over_the_limit_is_refused(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {"max.message.bytes": "2000"})
    how = Producing(request_bytes_max=8 << 20)
    with pytest.raises(ClientError) as refused:
        client.produce(topic, 0, [Sent(bytes(range(250)) * 20)], how)
    assert refused.value.code == MESSAGE_TOO_LARGE
    assert client.produce(topic, 0, [Sent(b"small enough")], Producing()) == [0]


def test_the_senders_time_is_kept(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {})
    now_ms = int(time.time() * 1000)
    times_ms = [now_ms - 5_000, now_ms - 9_000, now_ms]
    client.produce(topic, 0, [Sent(b"x", timestamp_ms=each) for each in times_ms], Producing())
    received = client.consume(Place(topic, 0, 0), 3)
    assert [each.timestamp_ms for each in received] == times_ms
    assert not any(each.is_append_time for each in received)


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_topic_may_keep_the_brokers_time(client: Client, topic: str, codec: str) -> None:
    client.create_topic(topic, 1, {"message.timestamp.type": "LogAppendTime"})
    before_ms = int(time.time() * 1000)
    sent = [Sent(b"x", timestamp_ms=before_ms - 100_000_000 + i) for i in range(3)]
    client.produce(topic, 0, sent, Producing(codec=codec))
    received = client.consume(Place(topic, 0, 0), 3)
    assert all(each.is_append_time for each in received)
    for each in received:
        assert before_ms <= each.timestamp_ms <= before_ms + LATE_MS_MAX


def test_many_batches_stay_in_order(client: Client, topic: str) -> None:
    """Five requests in flight and 200 batches: where order and sequence numbers go wrong."""
    sent = [Sent(b"%06d" % i * 40) for i in range(5_000)]
    round_trip(client, topic, sent, Producing(is_idempotent=True, batch_bytes=6_000))


def test_two_producers_do_not_mix_up_their_numbers(client: Client, topic: str) -> None:
    client.create_topic(topic, 1, {})
    how = Producing(is_idempotent=True)
    assert client.produce(topic, 0, [Sent(b"a"), Sent(b"b")], how) == [0, 1]
    assert client.produce(topic, 0, [Sent(b"c"), Sent(b"d")], how) == [2, 3]
    received = client.consume(Place(topic, 0, 0), 4)
    assert [each.value for each in received] == [b"a", b"b", b"c", b"d"]
