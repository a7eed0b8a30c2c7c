"""`corelane cluster`: what the metadata and the admin port say, side by side."""

import json
import socket
from collections.abc import Iterator

import pytest

from corelane.model.errors import ErrorCode
from corelane_cli import exits
from corelane_cli.admin_port import address_of
from corelane_cli.exits import CommandError
from corelane_client.address import Address
from corelane_client.protocol import Api
from tests.unit.cli.admin_server import AdminServer, admin_port
from tests.unit.cli.conftest import Served
from tests.unit.cli.invoking import failed, invoke, printed
from tests.unit.client.fake import always, new

CORE = {
    "core": 0,
    "broker_id": 0,
    "port": 19092,
    "pid": 4711,
    "state": "serving",
    "connections": 3,
    "partitions_led": 2,
    "misrouted": 17,
    "loop_lag_ms": 1.25,
    "restarts": 0,
}

NODE = {
    "node": 0,
    "up": True,
    "drained": False,
    "leaving": False,
    "filling": False,
    "lost": False,
    "controller": True,
    "voter": True,
}


@pytest.fixture
def admin() -> Iterator[AdminServer]:
    with admin_port() as server:
        server.pages["/v1/cluster"] = (200, {"cores": [CORE]})
        server.pages["/v1/nodes"] = (200, {"nodes": [NODE], "stuck": {}})
        yield server


def test_brokers_and_cores_are_shown(served: Served, admin: AdminServer) -> None:
    served.cluster.topic("t", 2)
    lines = invoke(served, "cluster", "info", "--admin", admin.address).stdout.splitlines()
    assert lines[0] == "cluster in-memory, 1 topic"
    assert lines[1].split() == ["BROKER", "ADDRESS", "RACK", "LEADS", "ROLE"]
    assert lines[2].split() == ["0", served.bootstrap, "2", "controller"]
    assert lines[3:5] == ["NODE  STATE", "   0  up"]
    assert lines[6].split() == ["0", "0", "19092", "4711", "serving", "3", "2", "17", "1.2", "0"]
    found = printed(invoke(served, "cluster", "info", "--admin", admin.address, "--format", "json"))
    assert found["cores"] == [CORE]
    assert found["brokers"][0]["partitions_led"] == 2


def test_what_is_wanted_of_nodes_is_shown(served: Served, admin: AdminServer) -> None:
    why = "no other node can take its replicas: start one, or add one"
    rows = [
        {**NODE, "node": 1, "drained": True},
        {**NODE, "node": 2, "leaving": True},
        {**NODE, "node": 3, "up": False, "lost": True, "leaving": True},
    ]
    admin.pages["/v1/nodes"] = (200, {"nodes": rows, "stuck": {"2": why}})
    words = ("cluster", "info", "--admin", admin.address)
    lines = invoke(served, *words).stdout.splitlines()
    assert lines[3:7] == [
        "NODE  STATE",
        "   1  up, drained",
        f"   2  up, leaving: {why}",
        "   3  down, its disk is lost, leaving",
    ]
    found = printed(invoke(served, *words, "--format", "json"))
    assert [row.pop("stuck") for row in found["nodes"]] == [None, why, None]
    assert found["nodes"] == rows


def test_cores_are_shown_while_nobody_tells_of_nodes(served: Served, admin: AdminServer) -> None:
    sentence = "core 0 does not answer"
    admin.pages["/v1/nodes"] = (504, {"error": "REQUEST_TIMED_OUT", "sentence": sentence})
    words = ("cluster", "info", "--admin", admin.address)
    done = invoke(served, *words)
    assert (done.exit_code, "19092" in done.stdout) == (0, True)
    assert done.stderr == f"nodes: the nodes: {sentence}\n"
    found = printed(invoke(served, *words, "--format", "json"))
    assert (found["nodes"], found["cores"]) == (None, [CORE])
    assert found["nodes_unknown_because"] == f"the nodes: {sentence}"


def test_a_cluster_without_admin_port_is_shown_without_cores(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setattr("corelane_cli.admin_port.PORT_DEFAULT", probe.getsockname()[1])
    done = invoke(served, "cluster", "info")
    assert (done.exit_code, "BROKER" in done.stdout) == (0, True)
    assert "cannot ask the admin port" in done.stderr
    found = printed(invoke(served, "cluster", "info", "--format", "json"))
    assert found["cores"] is None
    assert "connection refused" in found["cores_unknown_because"]
    assert printed(invoke(served, "cluster", "health", "--format", "json")) == {
        "healthy": True,
        "problems": [],
        "brokers": 1,
        "cores_asked": False,
    }


def test_an_admin_port_that_was_named_must_answer(served: Served, admin: AdminServer) -> None:
    del admin.pages["/v1/cluster"]
    words = ("cluster", "info", "--admin", admin.address, "--format", "json")
    assert "answers 404" in failed(invoke(served, *words), exits.FAILED)["message"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        unused = f"127.0.0.1:{probe.getsockname()[1]}"
    words = ("cluster", "info", "--admin", unused, "--format", "json")
    error = failed(invoke(served, *words), exits.CANNOT_CONNECT)
    assert "--admin HOST:PORT" in error["next"]
    failed(invoke(served, "cluster", "info", "--admin", "a:b", "--format", "json"), exits.USAGE)


def test_the_admin_port_of_another_cluster_is_refused(served: Served, admin: AdminServer) -> None:
    admin.pages["/v1/cluster"] = (200, {"cluster_id": "other", "cores": []})
    words = ("cluster", "info", "--admin", admin.address, "--format", "json")
    failed_to = failed(invoke(served, *words), exits.FAILED)
    assert "is one of cluster other" in failed_to["message"]


def test_a_partition_is_moved(served: Served, admin: AdminServer) -> None:
    admin.pages["/v1/move"] = (200, {"values": {}})
    words = ("cluster", "move-core", "t", "3", "1", "--admin", admin.address)
    assert invoke(served, *words).stdout == "moved t, partition 3 to core 1\n"
    body = {"topic": "t", "partition": 3, "core": 1}
    assert printed(invoke(served, *words, "--format", "json")) == {**body, "status": "moved"}
    assert admin.posted == [("/v1/move", body)] * 2


def test_a_refused_move_is_told(served: Served, admin: AdminServer) -> None:
    refusal = {"error": "UNKNOWN_TOPIC_OR_PARTITION", "sentence": "there is no topic t"}
    words = ("cluster", "move-core", "t", "3", "1", "--admin", admin.address, "--format", "json")
    for page, word, said in (
        ((404, refusal), "UNKNOWN_TOPIC_OR_PARTITION", "there is no topic t"),
        ((409, "the core is busy"), "REFUSED", "the core is busy"),
        ((500, ""), "REFUSED", "HTTP 500"),
    ):
        admin.pages["/v1/move"] = page
        error = failed(invoke(served, *words), exits.REFUSED)
        assert (error["code"], error["message"]) == (word, f"topic 't', partition 3: {said}")


@pytest.mark.parametrize(
    ("words", "action", "said"),
    [
        (("drain", "2", "--no-wait"), "drain", "node 2 is drained"),
        (("drain", "2", "--undo"), "undrain", "node 2 may lead again"),
        (("decommission", "2", "--cancel"), "recommission", "node 2 stays"),
        (("replace-disk", "2", "--yes"), "replace-disk", "an empty data directory"),
    ],
)
def test_a_node_is_acted_on(
    served: Served, admin: AdminServer, words: tuple[str, ...], action: str, said: str
) -> None:
    admin.pages["/v1/nodes"] = (200, {"error": "", "sentence": ""})
    assert said in invoke(served, "cluster", *words, "--admin", admin.address).stdout
    assert admin.posted == [("/v1/nodes", {"node": 2, "action": action})]


def test_a_refused_action_on_a_node_is_told(served: Served, admin: AdminServer) -> None:
    sentence = "Topic t has 3 replicas, and only 2 node(s) would be left."
    admin.pages["/v1/nodes"] = (400, {"error": "INVALID_REQUEST", "sentence": sentence})
    words = ("cluster", "decommission", "2", "--admin", admin.address, "--format", "json")
    error = failed(invoke(served, *words), exits.REFUSED)
    assert error["message"] == f"node 2: {sentence}"


def test_brokers_are_numbers(served: Served) -> None:
    for words in (("1000,x",), ("1000", "--cancel"), ()):
        wish = ("cluster", "reassign", "t", "0", *words, "--format", "json")
        failed(invoke(served, *wish), exits.USAGE)


def test_a_healthy_cluster_ends_with_0(served: Served, admin: AdminServer) -> None:
    served.cluster.topic("t", 2)
    done = invoke(served, "cluster", "health", "--admin", admin.address)
    assert (done.exit_code, done.stdout) == (0, "healthy, 1 broker\n")


def test_an_unhealthy_cluster_ends_with_10_and_says_why(served: Served, admin: AdminServer) -> None:
    served.cluster.topic("t", 30)
    for number in range(1, 30):
        served.cluster.leaders["t", number] = -1
    admin.pages["/v1/cluster"] = (200, {"cores": [CORE, {**CORE, "core": 1, "state": "down"}]})
    admin.pages["/readyz"] = (503, {"problems": ["3 groups are opening"]})
    done = invoke(served, "cluster", "health", "--admin", admin.address, "--format", "json")
    assert done.exit_code == exits.UNHEALTHY == 10
    found = json.loads(done.stdout)
    assert not found["healthy"]
    assert found["problems"][0].startswith("29 partitions have no leader: t-1, t-2,")
    assert found["problems"][0].endswith(" and 9 more")
    assert found["problems"][1:] == ["core 1 does not serve: it is down", "3 groups are opening"]
    text = invoke(served, "cluster", "health", "--admin", admin.address).stdout
    assert text.startswith("UNHEALTHY, 1 broker\n  29 partitions")


def test_health_can_be_waited_for(
    served: Served, admin: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.pages["/readyz"] = (503, "starting")
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            admin.pages["/readyz"] = (200, "ready")

    monkeypatch.setattr("corelane_cli.cluster_health.time.sleep", sleep)
    words = ("cluster", "health", "--watch", "--exit-when-healthy", "--admin", admin.address)
    done = invoke(served, *words)
    assert (done.exit_code, len(naps)) == (0, 2)
    # What does not change is not said twice.
    assert done.stdout == "UNHEALTHY, 1 broker\n  starting\nhealthy, 1 broker\n"
    done = invoke(served, "cluster", "health", "--exit-when-healthy")
    assert done.exit_code == exits.USAGE


def test_a_broker_that_is_not_there_yet_can_be_waited_for(
    served: Served, admin: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = new("ApiVersionsResponse", error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    served.cluster.script(Api.API_VERSIONS, always(refusal))
    monkeypatch.setattr("corelane_cli.cluster_health.time.sleep", lambda _: None)
    words = ("cluster", "health", "-w", "-e", "--admin", admin.address)
    done = invoke(served, *words)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "UNHEALTHY"
    assert done.stdout.splitlines()[-1] == "healthy, 1 broker"


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, Address("h", 9644)),
        ("other", Address("other", 9644)),
        ("other:1", Address("other", 1)),
        ("[::1]", Address("::1", 9644)),
        ("[::1]:7", Address("::1", 7)),
    ],
)
def test_the_admin_port_has_a_default(named: str | None, found: Address) -> None:
    assert address_of(named, "h:9092,i:9092") == found


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(CommandError, match="is not a port"):
        address_of("h:x", "h:9092")


def test_what_rebalancing_would_move_is_shown(served: Served, admin: AdminServer) -> None:
    told = {"error": "", "sentence": "", "moves": "3", "waits": "node 3 cannot be reached"}
    admin.pages["/v1/rebalance"] = (200, told | {"move 0000": "t 4 1,2 4,2"})
    words = ("cluster", "rebalance", "--admin", admin.address)
    assert invoke(served, *words, "--dry-run").stdout.splitlines() == [
        "t-4: nodes 1,2 -> 4,2",
        "and 2 partitions more",
        "it would wait: node 3 cannot be reached",
    ]
    assert admin.posted == [("/v1/rebalance", {"action": "plan"})]


def test_rebalancing_waits_until_no_node_is_being_filled(
    served: Served, admin: AdminServer
) -> None:
    admin.pages["/v1/rebalance"] = (200, {"error": "", "sentence": ""})
    row = NODE | {"node": 4, "filling": True}
    admin.pages["/v1/nodes"] = (200, {"nodes": [row], "stuck": {"4": "node 2 is away"}})
    words = ("cluster", "rebalance", "--admin", admin.address)
    late = invoke(served, *words, "--timeout", "0", "--format", "json")
    assert "node 2 is away" in failed(late, exits.TIMED_OUT)["message"]
    admin.pages["/v1/nodes"] = (200, {"nodes": [row | {"filling": False}], "stuck": {}})
    assert "every node has its share" in invoke(served, *words).stdout
    assert "no more replicas are moved" in invoke(served, *words, "--cancel").stdout
    assert admin.posted[-1] == ("/v1/rebalance", {"action": "cancel"})
