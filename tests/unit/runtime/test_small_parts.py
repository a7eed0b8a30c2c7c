"""The parts of the runtime that only compute."""

import os
from pathlib import Path

import pytest

from corelane.model import config as configuration
from corelane.model.config_keys import Value
from corelane.runtime import cpus, failures, listener, memory, processes, start
from corelane.runtime.failures import StartError
from corelane.runtime.listener import Address
from corelane.runtime.restart import Again, GiveUp, RestartPolicy
from corelane.runtime.throttle import LINE_EVERY_S, Throttle


def test_a_core_that_never_serves_is_tried_a_few_times() -> None:
    policy = RestartPolicy()
    delays = [policy.exited(None, is_permanent=False) for _ in range(4)]
    assert delays == [Again(0), Again(100), Again(250), Again(500)]
    assert policy.exited(None, is_permanent=False) == GiveUp()


def test_serving_once_wipes_out_the_failed_tries() -> None:
    policy = RestartPolicy()
    for _ in range(4):
        policy.exited(None, is_permanent=False)
    assert policy.exited(5_000, is_permanent=False) == Again(0)
    assert policy.exited(None, is_permanent=False) == Again(0)


def test_a_core_that_dies_right_after_each_start_is_slowed_down_but_not_given_up() -> None:
    policy = RestartPolicy()
    delays = [policy.exited(10, is_permanent=False) for _ in range(20)]
    assert delays[:4] == [Again(50), Again(100), Again(200), Again(400)]
    assert delays[4:] == [Again(500)] * 16
    assert policy.exited(1_000, is_permanent=False) == Again(0)


def test_a_reason_that_another_try_cannot_help_ends_the_tries() -> None:
    assert RestartPolicy().exited(None, is_permanent=True) == GiveUp()


def test_one_line_per_reason_in_ten_seconds_and_the_rest_are_counted() -> None:
    throttle = Throttle()
    assert throttle.ask("a", 0.0) == 0
    assert [throttle.ask("a", 1.0) for _ in range(5)] == [None] * 5
    assert throttle.ask("b", 1.0) == 0
    assert throttle.ask("a", LINE_EVERY_S) == 5
    assert throttle.ask("a", 3 * LINE_EVERY_S) == 0


def test_the_cpu_that_takes_the_disks_interrupts_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpus, "_device_interrupt_names", lambda _: ["virtio1-"])
    lines = [
        "           CPU0       CPU1       CPU2",
        " 36:          5         90         99  PCI-MSIX-0000:00:02.0  1-edge  virtio1-req.0",
        " 37:       9000          0          0  PCI-MSIX-0000:00:03.0  1-edge  virtio2-input.0",
        "LOC:      35628      56609      40000  Local timer interrupts",
    ]
    assert cpus.cpu_order({0, 1}, 0, lines) == [1, 0]
    assert cpus.cpu_order({0, 1, 2, 3}, 0, lines) == [2, 1, 0, 3]
    assert cpus.cpu_order({3, 2}, 0, []) == [2, 3]


def test_the_lowest_memory_limit_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    (tmp_path / "a" / "memory.max").write_text("1048576\n")
    (tmp_path / "memory.max").write_text("2097152\n")
    assert memory.limit_bytes(tmp_path, own) == 1048576
    own.write_text("0::/\n")
    assert memory.limit_bytes(tmp_path, own) == 2097152
    machine = memory.limit_bytes(tmp_path, tmp_path / "missing")
    assert machine is not None
    assert machine > 2097152


def test_the_memory_limit_of_cgroup_v1_is_found(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu:/x\n4:memory:/x\n")
    (tmp_path / "memory" / "x").mkdir(parents=True)
    (tmp_path / "memory" / "x" / "memory.limit_in_bytes").write_text("4096\n")
    assert memory.limit_bytes(tmp_path, own) == 4096


def test_a_port_in_use_is_refused_with_the_option_to_change() -> None:
    with listener.bind(Address("127.0.0.1", 0, "clients", "--port"), 16) as first:
        port = listener.port_of(first)
        with pytest.raises(StartError) as caught:
            listener.bind(Address("127.0.0.1", port, "clients", "--port"), 16)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port} for clients: another program listens there. "
        "Stop that program, or choose another port with --port."
    )
    assert caught.value.code == failures.EXIT_PORT


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(StartError, match="this machine has no such address"):
        listener.bind(Address("192.0.2.1", 0, "clients", "--port"), 16)


def test_a_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(StartError, match="is no address"):
        listener.bind(Address("no such host", 0, "clients", "--port"), 16)


def test_more_cores_than_cpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3})
    config = configuration.parse("", {"corelane.cores": 3})
    with pytest.raises(StartError) as caught:
        start.serve(config)
    assert str(caught.value) == (
        "cannot start 3 cores: this process may use 2 CPUs, one for each core. "
        "Start with --cores 2 or fewer, or with --no-pin-cores."
    )


def test_more_cores_than_the_cgroup_allows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cpus, "allowed_count", lambda _: 1)
    config = configuration.parse("", {"corelane.cores": 2})
    with pytest.raises(StartError, match=r"may use 1 CPU by its cgroup's limit, one for each core"):
        start.serve(config)


def test_more_cores_than_can_be_joined_are_refused() -> None:
    settings: dict[str, Value] = {
        "corelane.cores": 257,
        "corelane.pin.cores": False,
        "corelane.advertise": "node",
    }
    with pytest.raises(StartError, match=r"257 cores: each is joined with every other one"):
        start.serve(configuration.parse("", settings))


def test_retired_cores_that_need_more_memory_than_there_is_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "limit_bytes", lambda: 256 << 20)
    for number in range(8):
        (tmp_path / f"core-{number:02d}").mkdir()
    (tmp_path / "cluster.toml").write_text(
        'cluster_uuid = "0d2ea8a0-0000-4000-8000-000000000000"\nnode_id = 1\nformat_version = 1\n'
    )
    settings: dict[str, Value] = {"corelane.cores": 1, "corelane.data.dir": str(tmp_path)}
    with pytest.raises(StartError) as caught:
        start.serve(configuration.parse("", settings))
    assert str(caught.value) == (
        "cannot start 1 core: 7 cores of an earlier start must hand over what they own, and so many"
        " processes do not fit into 256 MiB of memory. Start once with more memory, or with as many"
        " cores as before."
    )


def test_a_core_is_bound_only_to_a_cpu_that_is_there() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        assert not processes.bind_to_cpu(max(allowed), allowed - {max(allowed)})
        assert not processes.bind_to_cpu(1_000_000, {1_000_000})
        assert os.sched_getaffinity(0) == allowed
        assert processes.bind_to_cpu(min(allowed), allowed)
        assert os.sched_getaffinity(0) == {min(allowed)}
    finally:
        os.sched_setaffinity(0, allowed)


def test_more_brokers_than_clients_bear_are_refused() -> None:
    settings: dict[str, Value] = {"corelane.cores": 129, "corelane.pin.cores": False}
    with pytest.raises(StartError, match=r"129 cores with corelane.advertise = core: each is a"):
        start.serve(configuration.parse("", settings))


def test_ports_of_cores_that_meet_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of cores, and so their ports, may be known at the start only."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(cpus, "allowed_count", lambda _: 4)
    settings: dict[str, Value] = {"corelane.port": 9000, "corelane.core.port.base": 8997}
    with pytest.raises(StartError, match=r"port 9000 is taken by"):
        start.serve(configuration.parse("", settings))
