"""Several cores from outside: real processes, signals and pipes, cores that only echo."""

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.processes import Node, check_pipes, wait_gone
from tests.unit.runtime import node as nodes

QUICK = "from corelane.runtime import cores\ncores.SILENT_S_MAX = 0.5\n"


def siblings(node: Node, core: int, only: str = "") -> dict[int, int]:
    """Ask a core which processes answer through its pipes, by their cores."""
    line = f"siblings {only}\n".encode()
    words = nodes.ask(node.ports["cores"][core], line).decode().strip()
    pairs = [word.split(":") for word in words.split(", ") if word]
    return {int(core): int(pid) if pid.isdigit() else -1 for core, pid in pairs}


def pids(node: Node) -> list[int]:
    """Return the process of each core, as the supervisor knows it."""
    return [core["pid"] for core in node.health()["cores"]]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def knows(node: Node, core: int, expected: dict[int, int]) -> bool:
    """Return whether the core's pipes from and to some siblings join these processes."""
    return siblings(node, core, " ".join(map(str, expected))) == expected


def wait_joined(node: Node, core_count: int) -> list[int]:
    """Wait until every core is up and talks to all others; return their processes."""

    def is_joined() -> bool:
        if any(core["state"] != "up" for core in node.health()["cores"]):
            return False
        known = pids(node)
        return all(
            siblings(node, core) == {each: pid for each, pid in enumerate(known) if each != core}
            for core in range(core_count)
        )

    wait_for(is_joined)
    return pids(node)


def test_every_core_talks_to_every_other(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=4) as node:
        node.wait_ready()
        check_pipes(node, wait_joined(node, 4))


def test_a_killed_core_is_back_while_the_others_serve(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=3) as node:
        ports = node.wait_ready()
        before = wait_joined(node, 3)
        for core in (1, 0, 2, 1):
            victim = pids(node)[core]
            os.kill(victim, signal.SIGKILL)
            for other in {0, 1, 2} - {core}:
                assert nodes.ask(ports["cores"][other], b"x\n") == b"x\n"
            assert int(nodes.ask(ports["cores"][core], b"pid\n")) != victim
            wait_joined(node, 3)
        after = wait_joined(node, 3)
        check_pipes(node, after)
        assert [core["restarts"] for core in node.health()["cores"]] == [1, 2, 1]
        assert not set(before) & set(after)


def test_all_cores_killed_at_once_come_back_joined(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=3) as node:
        node.wait_ready()
        for _ in range(3):
            for pid in pids(node):
                os.kill(pid, signal.SIGKILL)
            node.core_pid()
            time.sleep(0.2)
            check_pipes(node, wait_joined(node, 3))


def test_a_stopped_core_is_killed_for_its_silence_while_the_others_serve(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", patches=QUICK, cores=3) as node:
        ports = node.wait_ready()
        hung = wait_joined(node, 3)[1]
        os.kill(hung, signal.SIGSTOP)
        while hung in node.descendants():
            assert nodes.ask(ports["cores"][0], b"x\n") == b"x\n"
            assert nodes.ask(ports["cores"][2], b"x\n") == b"x\n"
        assert hung not in wait_joined(node, 3)
        assert "core 1 has been silent" in node.log_text()


def test_a_stopped_core_does_not_hold_up_the_pipes_of_others(tmp_path: Path) -> None:
    """Its control socket may be full of connections: then its links wait, and nobody for them."""
    with nodes.started(tmp_path / "data", cores=3) as node:
        ports = node.wait_ready()
        known = wait_joined(node, 3)
        os.kill(known[1], signal.SIGSTOP)
        address = ("127.0.0.1", ports["bootstrap"])
        clients = [socket.create_connection(address, timeout=20) for _ in range(1000)]
        successor = known[2]
        for _ in range(3):
            os.kill(successor, signal.SIGKILL)
            successor = int(nodes.ask(ports["cores"][2], b"pid\n"))
            assert nodes.ask(ports["cores"][0], b"x\n") == b"x\n"
            wait_for(partial(knows, node, 0, {2: successor}))
        os.kill(known[1], signal.SIGCONT)
        assert wait_joined(node, 3) == [known[0], known[1], successor]
        for client in clients:
            client.close()


def test_a_silent_core_is_handed_no_clients(tmp_path: Path) -> None:
    patch = "from corelane.runtime import acceptor\nacceptor.QUIET_S_MAX = 0.5\n"
    with nodes.started(tmp_path / "data", patches=patch, cores=2) as node:
        ports = node.wait_ready()
        known = wait_joined(node, 2)
        os.kill(known[0], signal.SIGSTOP)
        time.sleep(0.6)  # Nothing is to be seen of a core that is silent.
        for _ in range(20):
            assert int(nodes.ask(ports["bootstrap"], b"pid\n")) == known[1]
        os.kill(known[0], signal.SIGCONT)
        wait_for(lambda: int(nodes.ask(ports["bootstrap"], b"pid\n")) == known[0])


def test_a_stop_signal_ends_all_cores_cleanly(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=4) as node:
        node.wait_ready()
        processes = node.descendants()
        assert len(processes) == 6
        assert node.stop() == 0
        wait_gone(processes, 5)
        assert "killing what is left" not in node.log_text()


def test_a_stop_ends_a_hanging_core_too(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=3) as node:
        node.wait_ready()
        processes = node.descendants()
        os.kill(pids(node)[2], signal.SIGSTOP)
        assert node.stop() == 0
        wait_gone(processes, 5)


@pytest.mark.parametrize("hung", [False, True])
def test_a_dead_supervisor_leaves_no_core_behind(tmp_path: Path, hung: bool) -> None:
    with nodes.started(tmp_path / "data", cores=4) as node:
        node.wait_ready()
        processes = node.descendants()
        if hung:
            os.kill(pids(node)[1], signal.SIGSTOP)
        os.kill(node.process.pid, signal.SIGKILL)
        node.wait(20)
        wait_gone(processes, 5)
    with nodes.started(tmp_path / "data", cores=4) as node:
        node.wait_ready()


def test_a_dead_fork_server_takes_all_cores_with_it(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=4) as node:
        node.wait_ready()
        processes = node.descendants()
        os.kill(processes[1], signal.SIGKILL)
        node.wait(20)
        wait_gone(processes, 5)
        assert "fork server died" in node.log_text()


def test_one_core_that_cannot_start_refuses_the_whole_start(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=3) as node:
        node.wait_ready()
        assert node.stop() == 0
    (tmp_path / "data" / "core-01" / "damaged").touch()
    with nodes.started(tmp_path / "data", cores=3) as node:
        processes = node.descendants()
        assert node.wait(20) == 73
        wait_gone(processes, 5)
        assert "corelane: cannot start core 1: it is damaged.\nMend it." in node.log_text()
        assert not (tmp_path / "data" / "ports.json").exists()


def test_a_core_that_cannot_start_any_more_leaves_the_others_serving(tmp_path: Path) -> None:
    patch = "from corelane.runtime import cores\ncores.HOPELESS_RETRY_S = 0.3\n"
    with nodes.started(tmp_path / "data", patches=patch, cores=2) as node:
        ports = node.wait_ready()
        damage = tmp_path / "data" / "core-01" / "damaged"
        damage.touch()
        os.kill(pids(node)[1], signal.SIGKILL)
        node.wait_for_line("cannot start core 1: it is damaged. Mend it. What other cores own")
        assert nodes.ask(ports["cores"][0], b"x\n") == b"x\n"
        assert nodes.ask(ports["bootstrap"], b"x\n") == b"x\n"
        assert node.health()["status"] == "degraded"
        damage.unlink()
        wait_joined(node, 2)
        assert node.health()["status"] == "ok"


def test_a_stop_does_not_wait_for_a_core_that_cannot_start(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=2) as node:
        node.wait_ready()
        (tmp_path / "data" / "core-01" / "damaged").touch()
        os.kill(pids(node)[1], signal.SIGKILL)
        node.wait_for_line("What other cores own is served")
        assert node.stop() == 0


def test_the_last_core_that_cannot_start_ends_the_node(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data") as node:
        node.wait_ready()
        (tmp_path / "data" / "core-00" / "damaged").touch()
        os.kill(pids(node)[0], signal.SIGKILL)
        assert node.wait(20) == 73


def core_directories(node: Node) -> list[str]:
    return sorted(each.name for each in node.directory.glob("*core-*"))


def test_cores_of_an_earlier_start_hand_over_and_go(tmp_path: Path) -> None:
    with nodes.started(tmp_path / "data", cores=4) as node:
        node.wait_ready()
        assert node.stop() == 0
        assert len(core_directories(node)) == 4
    owned = tmp_path / "data" / "core-02" / "owned"
    owned.touch()
    with nodes.started(tmp_path / "data", cores=2) as node:
        node.wait_ready()
        node.wait_for_line("asked to retired_gone {'core': '3'}")
        assert core_directories(node) == ["core-00", "core-01", "core-02"]
        known = pids(node)
        [retired] = set(node.descendants()[2:]) - set(known)
        assert siblings(node, 0) == {1: known[1], 2: retired}
        assert siblings(node, 1) == {0: known[0], 2: retired}
        answers = {int(nodes.ask(node.ports["bootstrap"], b"pid\n")) for _ in range(20)}
        assert answers <= set(known), "no client is handed to it"
        os.kill(retired, signal.SIGKILL)
        node.wait_for_line("core 2 serves again")
        assert node.stop() == 0
    owned.unlink()
    with nodes.started(tmp_path / "data", cores=2) as node:
        node.wait_ready()
        node.wait_for_line("core 2 of an earlier start has handed everything over")
        assert core_directories(node) == ["core-00", "core-01"]
        check_pipes(node, wait_joined(node, 2))
        assert node.stop() == 0


def test_a_retired_core_that_is_hard_to_stop_goes_all_the_same(tmp_path: Path) -> None:
    patch = "from corelane.runtime import supervisor\nsupervisor.RETIRE_S_MAX = 0.2\n"
    (tmp_path / "data" / "core-01").mkdir(parents=True)
    identity = (
        'cluster_uuid = "0d2ea8a0-0000-4000-8000-000000000000"\nnode_id = 1\nformat_version = 1\n'
    )
    (tmp_path / "data" / "cluster.toml").write_text(identity)
    (tmp_path / "data" / "core-01" / "stubborn").touch()
    with nodes.started(tmp_path / "data", patches=patch) as node:
        node.wait_ready()
        node.wait_for_line("core 1 of an earlier start has handed everything over")
        assert core_directories(node) == ["core-00"]
        assert len(node.descendants()) == 3


def test_open_files_are_raised_for_all_processes(tmp_path: Path) -> None:
    patch = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))\n"
    with nodes.started(tmp_path / "data", patches=patch, cores=2) as node:
        node.wait_ready()
        for pid in node.descendants():
            text = Path(f"/proc/{pid}/limits").read_text()
            [line] = [line for line in text.splitlines() if line.startswith("Max open files")]
            assert line.split()[3:5] == ["4096", "4096"]
