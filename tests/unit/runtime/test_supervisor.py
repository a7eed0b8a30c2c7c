"""The supervisor from outside: real processes and signals, cores that only echo."""

import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from corelane.runtime import failures
from tests.processes import wait_gone
from tests.unit.runtime import node as nodes


def core_pid(port: int) -> int:
    """Ask the core for its pid; one that dies meanwhile cuts the connection, as clients expect."""
    for _ in range(50):
        try:
            if answer := nodes.ask(port, b"pid\n"):
                return int(answer)
        except ConnectionResetError:
            time.sleep(0.01)
    raise AssertionError("the core does not answer")


def test_a_connection_to_the_bootstrap_port_reaches_a_core(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        ports = node.wait_ready()
        assert nodes.ask(ports["bootstrap"], b"hello\n") == b"hello\n"
        assert nodes.ask(ports["cores"][0], b"hello\n") == b"hello\n"
        assert core_pid(ports["bootstrap"]) == node.health()["cores"][0]["pid"]


def test_ports_json_is_there_only_while_the_node_serves(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        node.wait_ready()
        node.process.terminate()
        assert node.wait(20) == 0
        assert not (tmp_path / "data" / "ports.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_everything_by_itself(tmp_path: Path, number: signal.Signals) -> None:
    with nodes.started(tmp_path / "data") as node:
        node.wait_ready()
        pids = node.descendants()
        assert len(pids) == 3, "supervisor, fork server, core"
        node.process.send_signal(number)
        assert node.wait(20) == 0
        wait_gone(pids, 5)


def test_ctrl_c_of_a_terminal_reaches_all_processes_and_stops_cleanly(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        node.wait_ready()
        for pid in node.descendants():
            os.kill(pid, signal.SIGINT)
        assert node.wait(20) == 0
        assert "died" not in node.log_text()


def test_a_core_that_does_not_stop_is_killed_in_time(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", "stubborn") as node:
        node.wait_ready()
        pids = node.descendants()
        node.process.terminate()
        assert node.wait(20) == 0
        wait_gone(pids, 5)
        assert "killing what is left" in node.log_text()


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", "stubborn") as node:
        node.wait_ready()
        pids = node.descendants()
        node.process.terminate()
        time.sleep(0.3)
        node.process.terminate()
        node.wait(20)
        wait_gone(pids, 5)
        assert "killing what is left" not in node.log_text(), "nobody waited for the deadline"


def test_a_killed_core_is_back_on_its_port(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        ports = node.wait_ready()
        before = core_pid(ports["cores"][0])
        os.kill(before, signal.SIGKILL)
        after = core_pid(ports["cores"][0])  # the connection waits in the kernel's queue
        assert after != before
        assert core_pid(ports["bootstrap"]) == after
        assert node.health()["cores"][0]["restarts"] == 1
        assert "core 0 died (killed by SIGKILL" in node.log_text()


def test_a_core_that_is_killed_again_and_again_comes_back_again_and_again(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        ports = node.wait_ready()
        for _ in range(8):
            os.kill(core_pid(ports["bootstrap"]), signal.SIGKILL)
        assert core_pid(ports["bootstrap"]) in node.descendants()
        assert node.health()["cores"][0]["restarts"] == 8


def test_a_dead_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        node.wait_ready()
        pids = node.descendants()
        os.kill(node.process.pid, signal.SIGKILL)
        node.wait(20)
        wait_gone(pids, 5)
    with nodes.started(tmp_path / "data") as node:
        node.wait_ready()  # and the data directory is free again


def test_a_dead_fork_server_ends_the_broker_with_a_sentence(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        node.wait_ready()
        pids = node.descendants()
        os.kill(pids[1], signal.SIGKILL)
        assert node.wait(20) == failures.EXIT_SYSTEM
        wait_gone(pids, 5)
        assert "fork server died" in node.log_text()


def test_a_core_that_never_serves_is_tried_five_times_and_then_explained(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", "dying") as node:
        assert node.wait(20) == failures.EXIT_BUG
        text = node.log_text()
        assert text.count("starting it again") == 4
        assert "cannot start core 0: it ended 5 times before it served (killed by SIGKILL" in text


def test_a_core_that_says_why_it_cannot_start_is_quoted(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", "failing") as node:
        assert node.wait(20) == failures.EXIT_DISK
        assert "corelane: cannot start core 0: the disk is full.\nFree some." in node.log_text()


def test_a_core_that_another_try_cannot_help_is_not_tried_again(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", "hopeless") as node:
        assert node.wait(20) == failures.EXIT_DISK
        assert "starting it again" not in node.log_text()


def test_a_silent_core_is_killed_and_started_again(tmp_path: Path) -> None:
    patch = "from corelane.runtime import cores\ncores.SILENT_S_MAX = 0.5\n"
    with nodes.started(tmp_path / "data", "silent", patch) as node:
        node.wait_ready()
        deadline_s = time.monotonic() + 5
        while "starting it again" not in node.log_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert "has been silent for 1 s and is killed" in node.log_text()


def test_a_hanging_core_is_killed_and_started_again(tmp_path: Path) -> None:
    patch = "from corelane.runtime import cores\ncores.SILENT_S_MAX = 0.5\n"
    with nodes.started(tmp_path / "data", "echo", patch) as node:
        ports = node.wait_ready()
        before = core_pid(ports["bootstrap"])
        with socket.create_connection(("127.0.0.1", ports["bootstrap"]), timeout=5) as connection:
            connection.sendall(b"hang\n")
            assert connection.recv(10) == b""
        assert core_pid(ports["bootstrap"]) != before


def test_a_thousand_connections_at_once_are_all_served(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        port = node.wait_ready()["bootstrap"]
        connections = [
            socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(1000)
        ]
        for connection in connections:
            connection.sendall(b"x\n")
        answers = Counter(connection.recv(10) for connection in connections)
        for connection in connections:
            connection.close()
        assert answers == {b"x\n": 1000}


def test_counters_do_not_go_back_when_a_core_restarts(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        ports = node.wait_ready()
        for _ in range(3):
            nodes.ask(ports["bootstrap"], b"x\n")
        line = 'corelane_kafka_requests_total{api="Echo",error="NONE"} '
        assert line + "3.0" in metrics(ports["admin"])
        before = core_pid(ports["bootstrap"])
        os.kill(before, signal.SIGKILL)
        wait_gone([before], 5)
        nodes.ask(ports["cores"][0], b"x\n")
        text = metrics(ports["admin"])
        assert line + "4.0" in text
        assert 'corelane_shard_up{shard="0"} 1.0' in text
        assert 'corelane_shard_stale{shard="0"} 0.0' in text
        assert 'corelane_shard_restarts_total{shard="0"} 1.0' in text


def metrics(port: int) -> str:
    answer = http(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    return answer.decode()


def http(port: int, request: bytes) -> bytes:
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /health HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"HEAD /health?x=1 HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_the_admin_port_answers_only_what_it_knows(
    tmp_path: Path, request_bytes: bytes, status: bytes
) -> None:
    with nodes.started(tmp_path / "data") as node:
        port = node.wait_ready()["admin"]
        assert http(port, request_bytes).split(b" ")[1] == status


def test_an_endless_admin_request_is_cut_off(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        port = node.wait_ready()["admin"]
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            http(port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2_000_000)
        assert node.health()["status"] == "ok"
