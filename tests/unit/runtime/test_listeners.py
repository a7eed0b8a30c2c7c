"""Several listeners of one node: every one bound, told apart, and refused with a sentence."""

import socket
from pathlib import Path

import pytest

from corelane.model import config as configuration
from corelane.runtime import cpus, failures, start
from corelane.runtime.failures import StartError
from tests.unit.runtime import node as nodes

TWO = """
listeners = "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.2:0"
advertised.listeners = "OUTSIDE://broker.example:0"
"""


def test_each_listener_has_a_bootstrap_port_and_a_port_of_each_core(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=2, settings=TWO) as node:
        ports = node.wait_ready()
        inside, outside = ports["listeners"]
        assert (inside["name"], outside["name"]) == ("INSIDE", "OUTSIDE")
        assert (inside["host"], outside["host"]) == ("127.0.0.1", "127.0.0.2")
        assert ports["bootstrap"] == inside["bootstrap"], "the first one is told at the top too"
        assert ports["cores"] == inside["cores"]
        for number, each in enumerate(ports["listeners"]):
            host = each["host"]
            door = nodes.ask(each["bootstrap"], b"door\n", host=host)
            assert door == f"bootstrap of {number}".encode()
            pids = set()
            for port in each["cores"]:
                door = nodes.ask(port, b"door\n", host=host)
                assert door == f"own port of {number}".encode()
                pids.add(nodes.ask(port, b"pid\n", host=host))
            assert len(pids) == 2


def test_a_stopped_node_accepts_on_no_listener(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=2, settings=TWO) as node:
        ports = node.wait_ready()
        assert node.stop() == 0
        for each in ports["listeners"]:
            for port in (each["bootstrap"], *each["cores"]):
                with pytest.raises(ConnectionRefusedError):
                    nodes.ask(port, b"x\n", host=each["host"])


def refusal(tmp_path: Path, settings: str) -> StartError:
    config = configuration.parse(
        settings, {"corelane.data.dir": str(tmp_path / "data"), "corelane.pin.cores": "false"}
    )
    with pytest.raises(StartError) as caught:
        start.serve(config)
    return caught.value


@pytest.mark.parametrize(
    ("which", "purpose", "option"),
    [
        ("bootstrap", "clients (OUTSIDE)", "listeners"),
        ("core", "core 1 (OUTSIDE)", "corelane.core.port.bases"),
    ],
)
def test_one_port_in_use_refuses_the_start_and_says_which(
    tmp_path: Path, which: str, purpose: str, option: str
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        bootstrap = port if which == "bootstrap" else 0
        base = port - 1 if which == "core" else 0
        error = refusal(
            tmp_path,
            f"""
            corelane.cores = 2
            listeners = "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.2:{bootstrap}"
            corelane.core.port.bases = "OUTSIDE:{base}"
            """,
        )
        assert error.code == failures.EXIT_PORT
        assert error.what == f"cannot listen on 127.0.0.2:{port} for {purpose}"
        assert error.why == "another program listens there"
        assert error.next_step.endswith(f"choose another port with {option}.")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("192.0.2.1", "this machine has no such address"),
        ("no-such-host.invalid", "no-such-host.invalid is no address"),
    ],
)
def test_a_host_that_is_not_ours_is_refused(tmp_path: Path, host: str, why: str) -> None:
    error = refusal(tmp_path, f'listeners = "P://{host}:0"\ncorelane.cores = 1')
    assert why in error.why
    assert error.next_step == "Correct listeners."


def test_ports_that_meet_with_the_real_number_of_cores_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "allowed_count", lambda affinity_count: 2)
    error = refusal(
        tmp_path,
        """
        corelane.cores = 0
        listeners = "A://127.0.0.1:7001,B://127.0.0.1:7002"
        corelane.core.port.bases = "A:7100,B:7101"
        """,
    )
    assert error.code == failures.EXIT_CONFIG
    assert "port 7101 is taken by core 1 of A" in error.why
