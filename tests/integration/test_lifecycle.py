"""A broker's life from outside: starts, refusals, signals, deaths, all with real processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corelane.runtime import failures
from tests.integration import broker as brokers
from tests.integration import raw_kafka
from tests.integration.broker import read_all
from tests.integration.ports import free_ports
from tests.integration.raw_kafka import RawClient
from tests.processes import ROOT, descendants, wait_gone

TOPIC = "kept"
KAFKA_STORAGE_ERROR = 56


def produce(client: RawClient, number: int, acks: int = -1) -> int:
    """Produce one record and return its offset."""
    body = client.ask(
        raw_kafka.PRODUCE,
        raw_kafka.PRODUCE_VERSION,
        number,
        raw_kafka.produce(TOPIC, 0, raw_kafka.record_batch([b"%d" % number]), acks),
    )
    produced = raw_kafka.parse_produced(body)
    assert produced.error == 0
    return produced.base_offset


def refused(directory: Path, settings: dict[str, object] | None = None) -> tuple[int, str]:
    """Start a broker that must refuse to; return exit code and what it said."""
    broker = brokers.launch(directory, settings)
    try:
        code = broker.wait(20)
        lines = broker.log_text().splitlines()
        sentence = [line for line in lines if line.startswith("corelane: ")]
        assert len(sentence) == 1, broker.log_text()
        assert "Traceback" not in broker.log_text()
        return code, "\n".join(lines[lines.index(sentence[0]) :])
    finally:
        broker.kill()


def test_a_broker_comes_back_with_its_data_after_a_clean_stop(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data") as broker:
        with RawClient(broker.ports["bootstrap"]) as client:
            client.create_topic(TOPIC)
            assert [produce(client, number) for number in range(10)] == list(range(10))
        assert broker.stop() == 0
    with brokers.started(tmp_path / "data") as broker:
        with RawClient(broker.ports["bootstrap"]) as client:
            assert produce(client, 10) == 10
        assert broker.stop() == 0


def test_a_start_is_quick_and_says_where_it_serves(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with brokers.started(tmp_path / "data") as broker:
        seconds = time.monotonic() - began_s
        port = broker.ports["bootstrap"]
        broker.wait_for_line(f"serves clients on 127.0.0.1:{port} after")
        assert "http://127.0.0.1:" in broker.log_text()
        assert broker.health()["status"] == "ok"
    assert seconds < 15, "a generous bar: other work may use the machine too"


def test_a_second_broker_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data") as broker:
        code, text = refused(tmp_path / "data")
        assert code == failures.EXIT_IN_USE
        assert f"another broker is using it (process {broker.process.pid})" in text
        assert "choose another directory with --data-dir" in text
        assert broker.health()["status"] == "ok"


@pytest.mark.parametrize(
    ("key", "option"),
    [
        ("corelane.port", "--port"),
        ("corelane.core.port.base", "--core-port-base"),
        ("corelane.admin.port", "--admin-port"),
    ],
)
def test_a_port_in_use_is_refused(tmp_path: Path, key: str, option: str) -> None:
    port, base, admin = free_ports(3)
    settings: dict[str, object] = {
        "corelane.port": port,
        "corelane.core.port.base": base,
        "corelane.admin.port": admin,
    }
    with socket.create_server(("127.0.0.1", int(str(settings[key])))):
        code, text = refused(tmp_path / "data", settings)
    assert code == failures.EXIT_PORT
    assert f"127.0.0.1:{settings[key]} for " in text
    assert (
        f"another program listens there.\nStop that program, or choose another port with {option}."
        in (text)
    )


def test_a_directory_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data") as broker:
        assert broker.stop() == 0
    file = tmp_path / "data" / "cluster.toml"
    file.write_text(file.read_text().replace("format_version = 1", "format_version = 2"))
    before = snapshot(tmp_path / "data")
    code, text = refused(tmp_path / "data")
    assert code == failures.EXIT_DATA_DIRECTORY
    assert "it has format version 2, this broker reads 1" in text
    assert snapshot(tmp_path / "data") == before


def snapshot(directory: Path) -> dict[str, bytes]:
    """Return every file but the lock, which names its last holder."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory to mount a small file system on."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    path = tmp_path / "mounted"
    path.mkdir()
    yield path
    if path.is_mount():
        subprocess.run(["umount", str(path)], check=True)


def mount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)


def test_a_read_only_directory_is_refused(mounted: Path) -> None:
    mount(mounted, "size=8m,ro")
    code, text = refused(mounted)
    assert code == failures.EXIT_DATA_DIRECTORY
    assert "the file system is mounted read-only" in text
    assert "Make it writable for this user, or choose another with --data-dir." in text


def test_a_full_disk_is_refused(mounted: Path) -> None:
    mount(mounted, "size=8m")
    code, text = refused(mounted)
    assert code == failures.EXIT_DATA_DIRECTORY
    assert "the disk is full: " in text
    assert "84 MiB are needed" in text, "two WAL files and some room"
    assert "Free some space" in text


def test_a_disk_that_fills_up_while_it_serves_refuses_writes_and_nothing_else(
    mounted: Path,
) -> None:
    mount(mounted, "size=128m")
    with brokers.started(mounted) as broker, RawClient(broker.ports["bootstrap"]) as client:
        client.create_topic(TOPIC)
        assert produce(client, 0) == 0
        with contextlib.suppress(OSError), (mounted / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 20))
        kept, error = fill_up(client, 1)
        assert error == KAFKA_STORAGE_ERROR
        assert len(read_all(broker.bootstrap, TOPIC)) == kept, "reads go on"
        (mounted / "filler").unlink()
        deadline_s = time.monotonic() + 30
        while fill_up(client, kept, count=1)[1] != 0:
            assert time.monotonic() < deadline_s, "writes go on when there is room again"
            time.sleep(0.1)


def fill_up(client: RawClient, first: int, count: int = 1000) -> tuple[int, int]:
    """Produce big records until one is refused; return how many there are then, and the error."""
    batch = raw_kafka.record_batch([b"x" * 200_000])
    for number in range(first, first + count):
        body = raw_kafka.produce(TOPIC, 0, batch)
        answer = client.ask(raw_kafka.PRODUCE, raw_kafka.PRODUCE_VERSION, number, body)
        produced = raw_kafka.parse_produced(answer)
        if produced.error:
            return number, produced.error
        assert produced.base_offset == number
    return first + count, 0


def test_a_disk_that_fills_up_while_a_core_starts_is_refused(tmp_path: Path) -> None:
    """ENOSPC and a file size limit take the same way out; the limit needs no mount."""
    directory = tmp_path / "data"
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    broker = brokers.launch(directory, before=limit)
    try:
        assert broker.wait(20) == failures.EXIT_DATA_DIRECTORY
        text = broker.log_text()
        assert "files may not grow large enough" in text
        assert "Traceback" not in text
    finally:
        broker.kill()
    with brokers.started(directory) as again:  # with the limit lifted it is as good as new
        assert again.health()["status"] == "ok"


def test_python_without_assertions_is_refused(tmp_path: Path) -> None:
    code = "import sys; from corelane_cli.start import start; sys.exit(start(None, {}))"
    result = subprocess.run(
        [sys.executable, "-O", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == failures.EXIT_CONFIG
    assert "python -O removes the checks" in result.stderr
    assert not (tmp_path / "data").exists()


def test_more_cores_than_cpus_are_refused(tmp_path: Path) -> None:
    count = len(os.sched_getaffinity(0)) + 1
    code, text = refused(tmp_path / "data", {"corelane.cores": count})
    assert code == failures.EXIT_CONFIG
    assert f"cannot start {count} cores: this process may use" in text
    assert "or with --no-pin-cores." in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_is_quick_and_loses_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    patient = "from corelane.runtime import supervisor\nsupervisor.DRAIN_S_MAX = 15.0\n"
    with brokers.started(tmp_path / "data", before=patient) as broker:
        pids = broker.descendants()
        acknowledged = 0
        with RawClient(broker.ports["bootstrap"]) as client:
            client.create_topic(TOPIC)
            stop_at = time.monotonic() + 0.5
            began_s = stop_at
            try:
                while True:
                    if began_s is stop_at and time.monotonic() > stop_at:
                        began_s = time.monotonic()
                        broker.process.send_signal(number)
                    assert produce(client, acknowledged) == acknowledged
                    acknowledged += 1
            except (EOFError, ConnectionResetError, BrokenPipeError):
                pass
        assert broker.wait(20) == 0, broker.log_text()
        assert time.monotonic() - began_s < 10, "a generous bar"
        wait_gone(pids, 5)
        assert "killing what is left" not in broker.log_text()
    assert acknowledged > 0
    with brokers.started(tmp_path / "data") as broker:
        assert len(read_all(broker.bootstrap, TOPIC)) >= acknowledged


def test_a_hanging_core_is_killed_and_comes_back(tmp_path: Path) -> None:
    patch = "from corelane.runtime import cores\ncores.SILENT_S_MAX = 2.0\n"
    with brokers.started(tmp_path / "data", before=patch) as broker:
        with RawClient(broker.ports["bootstrap"]) as client:
            client.create_topic(TOPIC)
            produce(client, 0)
        before = broker.core_pid()
        os.kill(before, signal.SIGSTOP)
        wait_gone([before], 30)
        broker.core_pid(other_than=before)
        assert "has been silent for" in broker.log_text()
        with RawClient(broker.ports["bootstrap"]) as client:
            assert produce(client, 1) == 1


def test_a_killed_fork_server_ends_the_broker_and_leaves_nothing(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data") as broker:
        pids = broker.descendants()
        os.kill(pids[1], signal.SIGKILL)
        assert broker.wait(20) == failures.EXIT_SYSTEM
        wait_gone(pids, 5)
    with brokers.started(tmp_path / "data") as broker:
        assert broker.health()["status"] == "ok"


def test_a_core_is_bound_to_a_cpu_and_its_native_threads_are_not(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data") as broker:
        pid = broker.core_pid()
        assert os.sched_getaffinity(pid) == {broker.health()["cores"][0]["cpu"]}
        threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
        others = [thread for thread in threads if thread != pid]
        assert len(others) >= 3, "wal, store and read"
        assert all(os.sched_getaffinity(thread) == os.sched_getaffinity(0) for thread in others)


def test_an_idle_broker_uses_no_cpu(tmp_path: Path) -> None:
    with (
        brokers.started(tmp_path / "data") as broker,
        RawClient(broker.ports["bootstrap"]) as client,
    ):
        client.create_topic(TOPIC)
        produce(client, 0)
        time.sleep(1)
        pids = broker.descendants()
        before = sum(cpu_seconds(pid) for pid in pids)
        time.sleep(3)
        used = sum(cpu_seconds(pid) for pid in pids) - before
    assert used / 3 < 0.02, f"{used / 3:.1%} of a CPU while nothing happens"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_dev_serves_on_a_free_port_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from corelane_cli.dev import dev; raise SystemExit(dev({}))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pids: list[int] = []
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("corelane dev: a throw-away broker on 127.0.0.1:")
        port = int(first.split("127.0.0.1:")[1].split(";")[0])
        with RawClient(port) as client:
            client.create_topic(TOPIC)
            assert produce(client, 0) == 0
        assert len(list(tmp_path.iterdir())) == 1
        pids = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        wait_gone(pids, 5)
        assert process.stdout is not None
        process.stdout.close()


def test_the_log_can_be_on_another_device(tmp_path: Path) -> None:
    settings: dict[str, object] = {"corelane.wal.dir": str(tmp_path / "fast")}
    for number in range(2):
        with (
            brokers.started(tmp_path / "data", settings) as broker,
            RawClient(broker.ports["bootstrap"]) as client,
        ):
            client.create_topic(TOPIC)
            assert produce(client, number) == number
    assert list((tmp_path / "fast").rglob("*.wal"))
    (tmp_path / "fast").rename(tmp_path / "unplugged")
    code, text = refused(tmp_path / "data", settings)
    assert code == failures.EXIT_DATA_DIRECTORY
    assert "Is its device mounted?" in text
    (tmp_path / "unplugged").rename(tmp_path / "fast")
    with brokers.started(tmp_path / "data", settings) as broker:
        assert read_all(broker.bootstrap, TOPIC) == [b"0", b"1"]


def test_a_hang_up_stops_it_cleanly(tmp_path: Path) -> None:
    with brokers.started(tmp_path / "data") as broker:
        broker.process.send_signal(signal.SIGHUP)
        assert broker.wait(20) == 0


def test_the_command_refuses_in_words_and_in_json(tmp_path: Path) -> None:
    directory = str(tmp_path / "data")
    command = [sys.executable, "-m", "corelane_cli", "start", "--data-dir", directory]
    with brokers.started(tmp_path / "data"):
        words = subprocess.run(command, capture_output=True, text=True, check=False)
        code = subprocess.run(
            [*command, "--format", "json"], capture_output=True, text=True, check=False
        )
    assert words.returncode == code.returncode == failures.EXIT_IN_USE
    first, second = words.stderr.splitlines()
    assert first.startswith(f"corelane: cannot use the data directory {directory}: another broker")
    assert second == "Stop that one first, or choose another directory with --data-dir."
    error = json.loads(code.stderr)["error"]
    assert error["code"] == "IN_USE"
    assert error["next"] == second


def test_every_fault_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "corelane.toml"
    file.write_text("corelane.port = 99999\nnum.partitons = 3\n")
    command = [sys.executable, "-m", "corelane_cli", "start", "--config", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == failures.EXIT_CONFIG
    assert "corelane.port: must be a whole number" in result.stderr
    assert "did you mean num.partitions?" in result.stderr
    assert list(tmp_path.iterdir()) == [file]
