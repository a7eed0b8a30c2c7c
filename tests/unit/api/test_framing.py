"""Framing and negotiation: quirks 1 to 6 of the protocol, spoken in bytes to one shard."""

import random
import struct
from dataclasses import replace

import pytest

from corelane.api.table import API_TABLE
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import codec, message_type
from corelane.wire.frame import encode_request
from corelane.wire.schema import schemas
from tests.unit.api.world import World, batch_of, produce_request
from tests.unit.wire.oracle import Draw

ApiVersions = message_type("ApiVersionsRequest")


@pytest.fixture
def world() -> World:
    return World()


def test_an_unknown_version_of_api_versions_is_answered_in_layout_0_with_one_key(
    world: World,
) -> None:
    frame = struct.pack(">hhih", 18, 5, 77, -1) + b"\x00\xff\xff garbage of the future"
    world.send_frame(frame)
    inbox = world.inbox[1]
    (correlation,) = struct.unpack_from(">i", inbox, 4)
    answer, end = codec("ApiVersionsResponse", 0).decode(bytes(inbox), 8)
    assert correlation == 77
    assert end == len(inbox)
    assert answer.error_code == 35
    assert [(row.api_key, row.max_version) for row in answer.api_keys] == [(18, 4)]
    assert 1 not in world.closed


def test_the_answer_of_api_versions_has_header_0_and_others_header_1(world: World) -> None:
    names = {"client_software_name": "a", "client_software_version": "1"}
    world.send_frame(encode_request(18, 3, 5, "c", ApiVersions(**names))[4:])
    assert world.inbox[1][8:10] == b"\x00\x00", "the error code follows the correlation id at once"
    world.inbox[1].clear()
    world.send_frame(encode_request(3, 9, 6, "c", message_type("MetadataRequest")())[4:])
    assert world.inbox[1][8:9] == b"\x00", "an empty tag section follows the correlation id"


@pytest.mark.parametrize(("key", "version"), [(9999, 0), (3, 13), (0, 2), (1, 3), (1, 18), (9, 0)])
def test_other_unknown_keys_and_versions_close_the_connection(
    world: World, key: int, version: int
) -> None:
    world.send_frame(struct.pack(">hhih", key, version, 1, -1) + bytes(20))
    assert "is not served" in world.closed[1]
    assert world.call(message_type("MetadataRequest")(), 5, conn=2).brokers, "others are served"


@pytest.mark.parametrize("client_id", [None, "", "with ünicode"])
def test_a_client_id_may_be_null_or_empty(world: World, client_id: str | None) -> None:
    request = message_type("MetadataRequest")()
    world.send_frame(encode_request(3, 12, 9, client_id, request)[4:])
    assert world.receive(3, 12) is not None


def test_answers_leave_in_the_order_of_their_requests(world: World) -> None:
    world.create_topic("t")
    world.holds_disk = True
    first = world.send(produce_request("t", batch_of()), 9)
    second = world.send(message_type("MetadataRequest")(), 9)
    assert world.receive(3, 9) is None, "the second answer must not overtake the first"
    world.release_disk()
    answer = world.receive(0, 9)
    assert answer is not None
    assert answer[0] == first
    answer = world.receive(3, 9)
    assert answer is not None
    assert answer[0] == second


@pytest.mark.parametrize("name", ["", "-a", "a b", "a-", "ä"])
def test_a_malformed_software_name_is_an_invalid_request(world: World, name: str) -> None:
    answer = world.call(ApiVersions(client_software_name=name, client_software_version="1"), 3)
    assert answer.error_code == 42


def test_unknown_tagged_fields_are_skipped(world: World) -> None:
    raw = encode_request(3, 12, 4, "c", message_type("MetadataRequest")(topics=None))[4:]
    assert raw.endswith(b"\x00")
    world.send_frame(raw[:-1] + b"\x01\x55\x03abc")
    assert world.receive(3, 12) is not None


def test_the_table_advertises_what_is_served_and_produce_from_0(world: World) -> None:
    names = {"client_software_name": "a", "client_software_version": "1"}
    rows = world.call(ApiVersions(**names), 4).api_keys
    assert {row.api_key for row in rows} == set(API_TABLE)
    for row in rows:
        api = API_TABLE[row.api_key]
        assert row.max_version == api.version_max
        assert row.min_version == (0 if row.api_key == 0 else api.version_min)


@pytest.mark.parametrize("cut", range(8, 60, 3))
@pytest.mark.parametrize(("key", "version"), [(0, 7), (0, 9), (1, 11), (1, 12), (3, 12), (19, 7)])
def test_a_cut_frame_closes_its_connection_and_no_other(
    world: World, key: int, version: int, cut: int
) -> None:
    requests = {
        0: produce_request("t", batch_of()),
        1: world.fetch_request("t", 0),
        3: message_type("MetadataRequest")(topics=[]),
        19: message_type("CreateTopicsRequest")(),
    }
    whole = encode_request(key, version, 1, "client", requests[key])[4:]
    if cut >= len(whole):
        return
    world.send_frame(whole[:cut])
    assert 1 in world.closed, "half a request is refused"
    assert not world.inbox.get(1)
    assert world.call(message_type("MetadataRequest")(), 5, conn=2).brokers


ALTERING = {
    "AlterConfigs": 2,
    "CreatePartitions": 3,
    "DescribeConfigs": 4,
    "DescribeLogDirs": 4,
    "ElectLeaders": 2,
    "IncrementalAlterConfigs": 1,
    "UpdateFeatures": 2,
}
NOISES = 150


@pytest.mark.parametrize(("name", "newest"), ALTERING.items())
def test_requests_that_alter_or_describe_are_refused_where_they_are_cut(
    world: World, name: str, newest: int
) -> None:
    key = next(row.key for row in API_TABLE.values() if row.name == name)
    for version in range(API_TABLE[key].version_min, newest + 1):
        draw = Draw(schemas()[f"{name}Request"], version, random.Random(name))
        request = draw.message().ours
        whole = encode_request(key, version, 1, "client", request)[4:]
        head = len(encode_request(key, version, 1, "client", message_type(f"{name}Request")())) - 4
        assert len(whole) > head - 12
        for cut in range(8, len(whole)):
            world.closed.clear()
            world.send_frame(whole[:cut], conn=cut)
            assert cut in world.closed, f"{name} v{version}, {cut} of {len(whole)} bytes"
            assert not world.inbox.get(cut)
    assert world.shard.groups.cluster.topics == {}
    assert world.call(message_type("MetadataRequest")(), 5, conn=2).brokers


@pytest.mark.parametrize(("name", "newest"), ALTERING.items())
def test_nonsense_in_requests_that_alter_or_describe_is_answered_or_refused(
    world: World, name: str, newest: int
) -> None:
    """Whatever names, values, counts and numbers it has; and it changes nothing that is there."""
    world.create_topic("t")
    key = next(row.key for row in API_TABLE.values() if row.name == name)
    rng = random.Random(name)
    for number in range(NOISES):
        version = rng.randint(API_TABLE[key].version_min, newest)
        draw = Draw(schemas()[f"{name}Request"], version, rng)
        draw.words = ("", "t", "1000", "retention.ms", "cleanup.policy", "-1", "größe")
        conn = 10 + number
        request = draw.message().ours
        for resource in getattr(request, "resources", ()):
            resource.resource_type = rng.choice((2, 4, 4, 8))
        world.send_frame(encode_request(key, version, 1, "c", request)[4:], conn)
        world.pass_time(100)
        assert bool(world.inbox.get(conn)) != (conn in world.closed), f"{name} v{version}"
        assert "a bug in" not in world.closed.get(conn, "")
    assert world.shard.counts.assertions_failed == 0
    assert world.produce("t", batch_of()).error_code == 0


def test_a_bug_in_a_handler_costs_one_connection_and_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(shard: Shard, call: Call) -> None:
        raise AssertionError("planted")

    row = replace(API_TABLE[60], handle=broken)
    monkeypatch.setattr(world.shard, "apis", {**API_TABLE, 60: row})
    world.send(message_type("DescribeClusterRequest")(), 0)
    assert "a bug in DescribeCluster" in world.closed[1]
    assert any("planted" in line for line in world.logs)
    assert world.shard.counts.assertions_failed == 1
    assert world.call(message_type("MetadataRequest")(), 5, conn=2).brokers
