"""Pulling numbers from cores that answer, are late, or die, and the pages made of them."""

import json
import os
import signal
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from corelane.runtime import admin_pages, exporter, scrape
from corelane.runtime.admin import Page, Request
from corelane.runtime.admin_pages import AdminPages, NodeFacts
from corelane.runtime.cores import CoreState
from corelane.runtime.exporter import Exporter
from corelane.runtime.messages import Heartbeat, Operated
from corelane.runtime.scrape import Scraper
from tests.unit.runtime import node as nodes
from tests.unit.runtime.fake_node import FakeCore, FakeNode

CLUSTER = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def values(led: int, more: Mapping[str, float] | None = None) -> dict[str, float]:
    return {"partitions": 6, "partitions_led": led, "wal_writes": 10.0, **(more or {})}


def pages_of(node: FakeNode, path: Path, advertise: str = "core") -> AdminPages:
    facts = NodeFacts(1, str(CLUSTER), advertise, path, [{"name": "INSIDE"}])
    return AdminPages(cast("admin_pages.NodeView", node), facts)


async def get(pages: AdminPages, path: str) -> Page:
    return await pages.routes()["GET", path].make(Request("GET", path, {}, {}, b""))


async def post(
    pages: AdminPages, body: bytes, content_type: str = "application/json"
) -> tuple[int, dict[str, Any]]:
    request = Request("POST", "/v1/move", {}, {"content-type": content_type}, body)
    page = await pages.routes()["POST", "/v1/move"].make(request)
    return page.status, json.loads(page.body) if page.content_type == "application/json" else {}


async def text_of(node: FakeNode, path: Path, scraper: Scraper | None = None) -> list[str]:
    exporter = Exporter(scraper or Scraper(node), path, "1.2.3", 0.0)
    return (await exporter.text()).decode().splitlines()


async def test_a_scrape_shows_what_all_cores_and_the_supervisor_know(tmp_path: Path) -> None:
    node = FakeNode(FakeCore(0, values(3)), FakeCore(1, values(2)))
    node.cores[1].restarts = 5
    text = await text_of(node, tmp_path)
    for line in (
        "corelane_wal_writes_total 20.0",
        "corelane_partitions 6.0",
        "corelane_leaderless_partitions 1.0",
        'corelane_raft_leaders{shard="1"} 2.0',
        'corelane_shard_up{shard="0"} 1.0',
        'corelane_shard_stale{shard="0"} 0.0',
        'corelane_shard_restarts_total{shard="1"} 5.0',
        "corelane_offline_brokers 0.0",
        'corelane_kafka_connections_total{listener="INSIDE",result="refused"} 4.0',
        'corelane_disk_state{state="ok"} 1.0',
        'corelane_disk_state{state="full"} 0.0',
        "corelane_metrics_dropped_series 0.0",
    ):
        assert line in text, line
    (build,) = [line for line in text if line.startswith("corelane_build_info{")]
    assert 'version="1.2.3"' in build
    free = [line for line in text if line.startswith("corelane_disk_free_bytes ")]
    assert float(free[0].split()[1]) > 0


async def test_a_core_that_does_not_answer_is_stale_and_holds_up_nobody(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    late = FakeCore(1, values(3))
    node = FakeNode(FakeCore(0, values(3)), late)
    scraper = Scraper(node)
    await scraper.pull()
    late.values = None
    began_s = trio.current_time()
    by_core = await scraper.pull()
    assert trio.current_time() - began_s <= scrape.PULL_S_MAX
    assert by_core[1] == {"wal_writes": 10.0}, "counters stay, gauges are not made up"
    assert scraper.of(node.cores[0]).is_fresh
    assert not scraper.of(late).is_fresh


async def test_a_slow_core_still_leads_what_it_led_and_a_dead_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "PULL_S_MAX", 0.01)
    late = FakeCore(1, values(3))
    node = FakeNode(FakeCore(0, values(3)), late)
    scraper = Scraper(node)
    await scraper.pull()
    late.values = None
    text = await text_of(node, tmp_path, scraper)
    assert "corelane_leaderless_partitions 0.0" in text
    assert 'corelane_shard_stale{shard="1"} 1.0' in text
    late.state = CoreState.STARTING
    text = await text_of(node, tmp_path, scraper)
    assert "corelane_leaderless_partitions 3.0" in text
    assert "corelane_offline_brokers 1.0" in text
    assert "corelane_wal_writes_total 20.0" in text


async def test_many_scrapes_at_once_are_one_or_two_pulls() -> None:
    core = FakeCore(0, values(6))
    scraper = Scraper(FakeNode(core))
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(scraper.pull)
    assert core.asked <= 2
    await scraper.pull()
    assert core.asked <= 3


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    node = FakeNode(FakeCore(0, values(6, {"is_disk_full": 1.0})))
    text = await text_of(node, tmp_path)
    assert 'corelane_disk_state{state="full"} 1.0' in text
    assert 'corelane_disk_state{state="ok"} 0.0' in text


async def test_a_disk_that_does_not_answer_is_told_and_asked_by_one_thread_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    asked: list[object] = []

    def hang(path: object) -> None:
        asked.append(path)
        answer.wait()

    monkeypatch.setattr(exporter, "DISK_S_MAX", 0.05)
    monkeypatch.setattr(os, "statvfs", hang)
    made = Exporter(Scraper(FakeNode(FakeCore(0, values(6)))), tmp_path, "1", 0.0)
    for _ in range(3):
        text = (await made.text()).decode().splitlines()
        assert 'corelane_disk_state{state="silent"} 1.0' in text
        assert not [line for line in text if line.startswith("corelane_disk_free_bytes ")]
    assert len(asked) == 1
    answer.set()


async def test_the_cluster_page_says_what_the_command_line_shows(tmp_path: Path) -> None:
    node = FakeNode(FakeCore(0, values(4, {"misrouted/Produce": 2, "misrouted/Fetch": 1})))
    body = json.loads((await get(pages_of(node, tmp_path), "/v1/cluster")).body)
    assert body["cluster_id"] == "ABEiM0RVZneImaq7zN3u_w"
    assert (body["node_id"], body["advertise"]) == (1, "core")
    assert body["listeners"] == [{"name": "INSIDE"}]
    assert body["cores"] == [
        {
            "core": 0,
            "broker_id": 1000,
            "port": 19092,
            "pid": 101,
            "cpu": 3,
            "state": "serving",
            "connections": 2,
            "partitions_led": 4,
            "misrouted": 3,
            "loop_lag_ms": 7.0,
            "damaged": [],
            "restarts": 0,
            "is_stale": False,
        }
    ]
    body = json.loads((await get(pages_of(node, tmp_path, "node"), "/v1/cluster")).body)
    assert body["cores"][0]["broker_id"] == 1999


async def test_health_and_readiness_say_what_is_wrong(tmp_path: Path) -> None:
    node = FakeNode(FakeCore(0, values(6)), FakeCore(1, values(6)))
    pages = pages_of(node, tmp_path)
    assert (await get(pages, "/healthz")).status == 200
    assert (await get(pages, "/readyz")).body == b"ready\n"
    life = node.cores[1].life
    assert life is not None
    life.heartbeat = Heartbeat(0, 0, groups_offline=1, groups_opening=2)
    assert (await get(pages, "/healthz")).status == 200, "the process can serve"
    ready = await get(pages, "/readyz")
    assert ready.status == 503
    assert json.loads(ready.body)["problems"] == [
        "core 1: 1 group is offline, with damaged files",
        "core 1: 2 groups have no leader",
    ]
    node.cores[0].state = CoreState.STARTING
    for path in ("/healthz", "/readyz", "/health"):
        page = await get(pages, path)
        assert page.status == 503
    said = json.loads((await get(pages, "/healthz")).body)["problems"]
    assert said == ["core 0 does not serve: it is starting"]


async def test_a_move_goes_to_core_0_and_its_answer_comes_back(tmp_path: Path) -> None:
    node = FakeNode(FakeCore(0, values(6)))
    pages = pages_of(node, tmp_path)
    body = b'{"topic": "t", "partition": 3, "core": 1}'
    assert await post(pages, body) == (200, {"error": "", "sentence": ""})
    assert node.operated == [(0, "move", {"topic": "t", "partition": "3", "core": "1"})]
    for error, status in (
        ("UNKNOWN_TOPIC_OR_PARTITION", 404),
        ("INVALID_REQUEST", 400),
        ("COORDINATOR_NOT_AVAILABLE", 503),
        ("REQUEST_TIMED_OUT", 504),
        ("SOMETHING_ELSE", 409),
    ):
        node.answer = Operated(0, error, "why", {})
        assert await post(pages, body) == (status, {"error": error, "sentence": "why"})
    node.answer = None
    status, said = await post(pages, body)
    assert (status, said["error"]) == (504, "REQUEST_TIMED_OUT")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"move it",
        b"[]",
        b'{"topic": "t", "partition": 3}',
        b'{"topic": "t", "partition": "3", "core": 1}',
        b'{"topic": "t", "partition": 3, "core": 1, "force": true}',
        b'{"topic": "t", "partition": 3.5, "core": 1}',
        b"\xff\xfe",
    ],
)
async def test_what_is_no_move_is_refused_before_anything_happens(
    tmp_path: Path, body: bytes
) -> None:
    node = FakeNode(FakeCore(0, values(6)))
    status, said = await post(pages_of(node, tmp_path), body)
    assert (status, said["error"]) == (400, "INVALID_REQUEST")
    assert said["sentence"].startswith("the body is not a move: ")
    assert node.operated == []


async def test_a_web_site_cannot_have_a_browser_move_partitions(tmp_path: Path) -> None:
    node = FakeNode(FakeCore(0, values(6)))
    body = b'{"topic": "t", "partition": 3, "core": 1}'
    for content_type in ("text/plain", "", "application/x-www-form-urlencoded"):
        assert (await post(pages_of(node, tmp_path), body, content_type))[0] == 415
    assert node.operated == []


def test_a_scrape_of_a_real_node_goes_on_without_a_stopped_core(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=3) as node:
        ports = node.wait_ready()
        for port in ports["cores"]:
            nodes.ask(port, b"x\n")
        answered = 'corelane_kafka_requests_total{api="Echo",error="NONE"} '
        assert answered + "3.0" in node.page("/metrics").decode()
        stopped = node.health()["cores"][1]["pid"]
        os.kill(stopped, signal.SIGSTOP)
        nodes.ask(ports["cores"][2], b"x\n")
        text = node.page("/metrics").decode()
        os.kill(stopped, signal.SIGCONT)
        assert answered + "4.0" in text, "what it had said counts on"
        stale = [f'corelane_shard_stale{{shard="{core}"}}' for core in range(3)]
        for line in (f"{stale[0]} 0.0", f"{stale[1]} 1.0", f"{stale[2]} 0.0"):
            assert line in text, line
        cluster = json.loads(node.page("/v1/cluster"))
        assert [core["core"] for core in cluster["cores"]] == [0, 1, 2]
