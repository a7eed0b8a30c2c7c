"""Starts brokers to be judged: ours, and real Apache Kafka beside it.

`python -m tests.conformance.brokers kafka` runs real Kafka until it is interrupted and prints its
address. With `CORELANE_BOOTSTRAP` set to that, the conformance tests judge Kafka, so themselves.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from corelane.model.record import record
from tests.conformance import tools
from tests.conformance.probe import Address, api_versions, parse_address

CORELANE = Path(sys.executable).with_name("corelane")
START_S_MAX = 60
STOP_S_MAX = 30

# As bin/kafka-run-class.sh and kafka-server-start.sh of 4.3.1 start it.
KAFKA_JVM = (
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
)


@record
class Running:
    """A broker that answers. `ports` are all that clients may be sent to."""

    name: str
    bootstrap: Address
    ports: list[int]
    pid: int
    data_dir: Path
    spawned_s: float
    """When its command was given, by the monotonic clock."""


Start = Callable[[], contextlib.AbstractContextManager[Running]]
"""Starts a broker on the directory that was made for it."""


class StartError(Exception):
    """A broker did not come up; the message holds its last words."""


def environment_bootstrap() -> Address | None:
    """Return the broker that `CORELANE_BOOTSTRAP` names, if any."""
    text = os.environ.get("CORELANE_BOOTSTRAP", "")
    return parse_address(text) if text else None


@contextlib.contextmanager
def corelane(settings: dict[str, object] | None = None) -> Iterator[Running]:
    """Run `corelane start` in a new data directory, on free ports."""
    with corelane_home(settings) as start, start() as running:
        yield running


@contextlib.contextmanager
def corelane_home(settings: dict[str, object] | None = None) -> Iterator[Start]:
    """Make a new data directory; what is given starts `corelane start` on it, again and again."""
    with _data_directory("corelane-") as directory:
        data_dir = directory / "data"
        command = [str(CORELANE), "start", "--data-dir", str(data_dir), "--port", "0"]
        if settings:
            config = directory / "corelane.toml"
            rows = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
            config.write_text("".join(rows))
            command += ["--config", str(config)]
        yield lambda: corelane_process(command, data_dir)


@contextlib.contextmanager
def corelane_process(command: list[str], data_dir: Path) -> Iterator[Running]:
    """Run *command*, a `corelane start` in *data_dir* on free ports, until the block ends."""
    ports_file = data_dir / "ports.json"
    ports_file.unlink(missing_ok=True)
    if not CORELANE.exists():
        message = f"{CORELANE} is not there; `make test` installs it."
        raise StartError(message)
    log = data_dir.with_suffix(".log")
    spawned_s = time.monotonic()
    with _process(command, log) as process:
        bootstrap, ports = _await_ports(process, ports_file, log)
        _await_answer(process, bootstrap, log)
        yield Running("corelane", bootstrap, ports, process.pid, data_dir, spawned_s)


@contextlib.contextmanager
def kafka(settings: dict[str, object] | None = None) -> Iterator[Running]:
    """Run real Apache Kafka as one combined broker and controller, on free ports."""
    with kafka_home(settings) as start, start() as running:
        yield running


@contextlib.contextmanager
def kafka_home(settings: dict[str, object] | None = None) -> Iterator[Start]:
    """Make a formatted data directory; what is given starts Kafka on it, again and again."""
    with _data_directory("kafka-") as directory:
        port, controller_port = free_ports(2)
        properties = directory / "server.properties"
        properties.write_text(_kafka_properties(directory, port, controller_port, settings or {}))
        storage = _kafka_storage(directory)
        _output([*storage, "format", "-t", _cluster_id(storage), "-c", str(properties)])
        yield lambda: kafka_process(properties, directory / "data", port)


@contextlib.contextmanager
def kafka_nodes(count: int, settings: dict[str, object] | None = None) -> Iterator[list[Running]]:
    """Run a cluster of combined brokers and controllers, one replica of a topic on each."""
    libs = tools.kafka_libs()
    with _data_directory("kafka-") as directory, contextlib.ExitStack() as stack:
        ports = free_ports(2 * count)
        voters = ",".join(
            f"{number}@127.0.0.1:{port}" for number, port in enumerate(ports[count:], 1)
        )
        storage = _kafka_storage(directory)
        cluster_id = _cluster_id(storage)
        starting: list[tuple[subprocess.Popen[bytes], Address, Path]] = []
        for number in range(1, count + 1):
            home = directory / str(number)
            home.mkdir()
            own: dict[str, object] = {
                "node.id": number,
                "controller.quorum.voters": voters,
                "default.replication.factor": count,
                "min.insync.replicas": count // 2 + 1,
                **(settings or {}),
            }
            port, controller_port = ports[number - 1], ports[count + number - 1]
            properties = home / "server.properties"
            properties.write_text(_kafka_properties(home, port, controller_port, own))
            _output([*storage, "format", "-t", cluster_id, "-c", str(properties)])
            command = [tools.java(), *KAFKA_JVM, "-cp", f"{libs}/*", "kafka.Kafka", str(properties)]
            log = home / "data.log"
            process = stack.enter_context(_process(command, log))
            starting.append((process, Address("127.0.0.1", port), home))
        spawned_s = time.monotonic()
        for process, address, home in starting:
            _await_answer(process, address, home / "data.log")
        yield [
            Running("kafka", address, [address.port], process.pid, home / "data", spawned_s)
            for process, address, home in starting
        ]


@contextlib.contextmanager
def kafka_process(properties: Path, data_dir: Path, port: int) -> Iterator[Running]:
    """Run Kafka on a formatted data directory until the block ends."""
    libs = tools.kafka_libs()
    command = [tools.java(), *KAFKA_JVM, "-cp", f"{libs}/*", "kafka.Kafka", str(properties)]
    log = data_dir.with_suffix(".log")
    spawned_s = time.monotonic()
    with _process(command, log) as process:
        address = Address("127.0.0.1", port)
        _await_answer(process, address, log)
        yield Running("kafka", address, [port], process.pid, data_dir, spawned_s)


def _kafka_storage(directory: Path) -> list[str]:
    """Return the command of Kafka's tool for data directories."""
    java = [tools.java(), "-cp", f"{tools.kafka_libs()}/*", f"-Djava.io.tmpdir={directory}"]
    return [*java, "kafka.tools.StorageTool"]


def _cluster_id(storage: list[str]) -> str:
    return _output([*storage, "random-uuid"]).splitlines()[-1]


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _kafka_properties(
    directory: Path, port: int, controller_port: int, settings: dict[str, object]
) -> str:
    chosen: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": directory / "data",
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        **settings,
    }
    if "advertised.host" in chosen:
        host = chosen.pop("advertised.host")
        chosen["advertised.listeners"] = f"PLAINTEXT://{host}:{port}"
    return "".join(f"{name}={value}\n" for name, value in chosen.items())


@contextlib.contextmanager
def _data_directory(prefix: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = _spawn(command, output)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _spawn(command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )


def _await_ports(
    process: subprocess.Popen[bytes], ports_file: Path, log: Path
) -> tuple[Address, list[int]]:
    deadline_s = time.monotonic() + START_S_MAX
    while True:
        if ports_file.exists():
            ports = json.loads(ports_file.read_text())
            bootstrap = Address("127.0.0.1", ports["bootstrap"])
            return bootstrap, [ports["bootstrap"], *ports["cores"]]
        _check_alive(process, deadline_s, log)
        time.sleep(0.005)


def _await_answer(process: subprocess.Popen[bytes], address: Address, log: Path) -> None:
    deadline_s = time.monotonic() + START_S_MAX
    while True:
        try:
            api_versions(address)
        except OSError:
            _check_alive(process, deadline_s, log)
            time.sleep(0.01)
        else:
            return


def _check_alive(process: subprocess.Popen[bytes], deadline_s: float, log: Path) -> None:
    status = process.poll()
    if status is None and time.monotonic() < deadline_s:
        return
    fate = f"ended with status {status}" if status is not None else "did not answer"
    message = f"the broker {fate} within {START_S_MAX} s; its last words:\n"
    raise StartError(message + log.read_text(errors="replace")[-3000:])


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        message = f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise StartError(message)
    return done.stdout


def main() -> None:
    """Run one broker, print its address, and stop it at the first signal."""
    starters = {"kafka": kafka, "corelane": corelane}
    if len(sys.argv) != 2 or sys.argv[1] not in starters:
        sys.exit("say which: python -m tests.conformance.brokers kafka|corelane")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), starters[sys.argv[1]]() as running:
        print(running.bootstrap, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
