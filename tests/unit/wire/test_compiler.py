"""What the compiler promises about messages, by example; bytes were checked by hand."""

import struct

import pytest

from corelane.wire.compiler import (
    api_keys,
    codec,
    flexible_from,
    message_type,
    request_codec,
    response_codec,
    valid_versions,
)
from corelane.wire.errors import DecodeError
from corelane.wire.frame import (
    client_id_of,
    decode_response,
    encode_request,
    request_body_at,
)


def test_a_tagged_struct_at_its_default_is_left_out() -> None:
    partition = message_type("ProduceResponse.PartitionProduceResponse")
    leader = message_type("ProduceResponse.LeaderIdAndEpoch")
    response = message_type("ProduceResponse")
    topic = message_type("ProduceResponse.TopicProduceResponse")

    def encoded(row: object) -> bytes:
        answer = response(responses=[topic(name="t", partition_responses=[row])])
        return codec("ProduceResponse", 10).encode(answer)

    assert encoded(partition()).endswith(b"\x01\x00" + b"\x00" + b"\x00" + bytes(4) + b"\x00")
    assert encoded(partition()) == encoded(partition(current_leader=leader()))
    named = encoded(partition(current_leader=leader(leader_id=7, leader_epoch=2)))
    assert len(named) == len(encoded(partition())) + 2 + 9  # tag, size, two int32 and no tags


def test_a_decoded_struct_equals_one_that_was_made_by_name() -> None:
    cursor = message_type("DescribeTopicPartitionsRequest.Cursor")(
        topic_name="t", partition_index=3
    )
    request = message_type("DescribeTopicPartitionsRequest")(cursor=cursor)
    body = request_codec(75, 0)
    decoded, _end = body.decode(body.encode(request))
    assert decoded == request
    assert type(decoded.cursor) is type(cursor)


def test_a_message_begins_with_the_defaults_of_kafka() -> None:
    partition = message_type("FetchResponse.PartitionData")()
    assert partition.preferred_read_replica == -1
    assert partition.aborted_transactions == []
    assert partition.current_leader.leader_id == -1
    assert message_type("MetadataRequest")().allow_auto_topic_creation is True
    assert message_type("ProduceRequest")().transactional_id is None
    one, other = message_type("MetadataRequest")(), message_type("MetadataRequest")()
    assert one.topics is not other.topics


def test_a_message_compares_and_shows_its_fields_and_has_no_hash() -> None:
    request = message_type("HeartbeatRequest")(group_id="g", generation_id=1)
    assert request == message_type("HeartbeatRequest")(group_id="g", generation_id=1)
    assert request != message_type("HeartbeatRequest")(group_id="g", generation_id=2)
    assert request != "g"
    assert "group_id='g', generation_id=1" in repr(request)
    with pytest.raises(TypeError, match="no hash"):
        hash(request)


def test_a_field_the_version_does_not_have_is_left_out_and_comes_back_as_its_default() -> None:
    request = message_type("MetadataRequest")(topics=[], allow_auto_topic_creation=False)
    old = codec("MetadataRequest", 3)
    assert old.encode(request) == bytes(4)
    assert old.decode(bytes(4))[0].allow_auto_topic_creation is True


def test_versions_kafka_never_published_are_refused() -> None:
    with pytest.raises(ValueError, match="FetchRequest has no version 3"):
        request_codec(1, 3)
    with pytest.raises(ValueError, match="FetchResponse has no version 19"):
        response_codec(1, 19)
    with pytest.raises(KeyError):
        request_codec(99, 0)
    with pytest.raises(KeyError):
        message_type("FetchRequest.Nobody")


def test_where_flexible_versions_begin() -> None:
    assert flexible_from("FetchRequest") == 12
    assert flexible_from("SaslHandshakeRequest") is None
    assert valid_versions("FetchRequest") == (4, 18)
    assert api_keys()[18] == "ApiVersions"


def test_unknown_tags_are_skipped_in_every_place() -> None:
    unknown = b"\x01\x63\x03abc"
    body = request_codec(12, 4)
    request = body.message(group_id="g", generation_id=1, member_id="m")
    plain = body.encode(request)
    decoded, end = body.decode(plain[:-1] + unknown)
    assert (decoded, end) == (request, len(plain) - 1 + len(unknown))


def test_an_unknown_tag_beside_a_known_one_is_skipped() -> None:
    body = request_codec(1, 17)
    request = body.message(cluster_id="c")
    raw = body.encode(request)
    known = b"\x00\x02\x02c"
    assert raw.endswith(b"\x01" + known)
    with_unknown = raw[: -len(known) - 1] + b"\x02" + known + b"\x7f\x01z"
    assert body.decode(with_unknown) == (request, len(with_unknown))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (b"\x02\x63\x00\x63\x00", "tagged field 99 follows 99"),
        (b"\x02\x63\x00\x05\x00", "tagged field 5 follows 99"),
        (b"\x01\x63\x05abc", "announces 5 bytes"),
        (b"\xe9\x07", "1001 tagged fields"),
        (b"\x01\x00\x01\x02", "a tagged field has a wrong size|announced"),
        (b"\x01\x00\x03\x02cX", "a tagged field has a wrong size"),
    ],
)
def test_tags_that_lie_are_refused(tags: bytes, words: str) -> None:
    body = request_codec(1, 17)
    raw = body.encode(body.message())
    assert raw.endswith(b"\x00")
    with pytest.raises(DecodeError, match=words):
        body.decode(raw[:-1] + tags)


def test_null_where_it_may_not_be_is_refused_by_name() -> None:
    with pytest.raises(DecodeError, match="HeartbeatRequest v0: group_id may not be null"):
        request_codec(12, 0).decode(b"\xff\xff" + bytes(10))
    with pytest.raises(DecodeError, match="topic_data may not be null"):
        request_codec(0, 9).decode(b"\x00" + bytes(6) + b"\x00")


@pytest.mark.parametrize("client_id", [None, "", "rdkafka", "größe"])
@pytest.mark.parametrize(("key", "version"), [(3, 1), (3, 12), (18, 3)])
def test_a_request_frame_is_as_long_as_it_says_and_its_body_is_found(
    client_id: str | None, key: int, version: int
) -> None:
    body = request_codec(key, version)
    frame = encode_request(key, version, 5, client_id, body.message())
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert client_id_of(frame[4:]) == client_id
    at = request_body_at(frame[4:], is_flexible=body.is_flexible)
    assert body.decode(frame[4:], at) == (body.message(), len(frame) - 4)


@pytest.mark.parametrize("key", [3, 18])
def test_an_answer_of_api_versions_has_the_old_header_for_ever(key: int) -> None:
    body = response_codec(key, 3 if key == 18 else 12)
    tags = b"" if key == 18 else b"\x00"
    frame = (9).to_bytes(4, "big") + tags + body.encode(body.message())
    assert decode_response(key, body.version, frame) == (9, body.message())


@pytest.mark.parametrize("is_flexible", [False, True])
def test_a_cut_request_header_is_refused(is_flexible: bool) -> None:
    frame = encode_request(
        3, 12 if is_flexible else 1, 5, "client", codec("MetadataRequest", 1).message()
    )
    end = request_body_at(frame[4:], is_flexible=is_flexible)
    for size in range(end):
        with pytest.raises(DecodeError):
            request_body_at(frame[4 : 4 + size], is_flexible=is_flexible)


@pytest.mark.parametrize("size", [-2, -32768, 32767])
def test_a_client_id_with_an_absurd_length_is_refused(size: int) -> None:
    head = b"\x00\x03\x00\x01" + bytes(4) + size.to_bytes(2, "big", signed=True)
    with pytest.raises(DecodeError, match="client id"):
        request_body_at(head + bytes(20), is_flexible=False)


@pytest.mark.parametrize("version", [8, 9])
def test_a_string_that_fits_no_message_is_not_encoded(version: int) -> None:
    body = codec("MetadataRequest", version)
    topic = message_type("MetadataRequest.MetadataRequestTopic")
    body.encode(body.message(topics=[topic(name="x" * 32_767)]))
    with pytest.raises(struct.error):
        body.encode(body.message(topics=[topic(name="x" * 32_768)]))
