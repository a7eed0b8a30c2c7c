"""Starts real brokers for tests: own data directory, free ports, killed at the end."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from tests.processes import Node, wait_gone

QUIET = {"corelane.port": 0, "corelane.cores": 1}


class Broker(Node):
    """A broker, with clients' ways to it."""

    @property
    def bootstrap(self) -> str:
        """Return what clients call `bootstrap.servers`."""
        return f"127.0.0.1:{self.ports['bootstrap']}"

    def kill_core(self) -> int:
        """Kill core 0 with SIGKILL, wait until it is gone, and return what its pid was."""
        pid = self.core_pid()
        os.kill(pid, signal.SIGKILL)
        wait_gone([pid], 5)
        return pid


def launch(
    directory: Path,
    settings: dict[str, object] | None = None,
    before: str = "",
    env: dict[str, str] | None = None,
    *,
    prefix: Sequence[str] = (),
) -> Broker:
    """Start a broker on *directory* without waiting for it.

    *settings* are configuration keys; *before* is Python that runs first (planted faults); *prefix*
    is a command that runs it elsewhere.
    """
    overrides = {**QUIET, "corelane.data.dir": str(directory), **(settings or {})}
    script = (
        f"{before}\nfrom corelane_cli.start import start\nsys.exit(start(None, {overrides!r}))\n"
    )
    return Broker(directory, script, env, prefix)


@contextmanager
def started(
    directory: Path,
    settings: dict[str, object] | None = None,
    before: str = "",
    env: dict[str, str] | None = None,
) -> Iterator[Broker]:
    """Start a broker and wait until it serves; whatever is left at the end is killed."""
    (directory / "ports.json").unlink(missing_ok=True)  # of one that was killed
    broker = launch(directory, settings, before, env)
    try:
        broker.wait_ready()
        yield broker
    finally:
        broker.kill()


def read_all(bootstrap: str, topic: str) -> list[bytes]:
    """Return the values of partition 0 from its start to its end; its offsets must be dense."""
    # Without commits: there are no groups to commit to yet, and close would wait for them.
    settings = {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False}
    consumer = Consumer(settings)
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        assert low == 0
        consumer.assign([TopicPartition(topic, 0, 0)])
        values: list[bytes] = []
        while len(values) < high:
            messages = consumer.consume(min(10_000, high - len(values)), timeout=10)
            assert messages, f"{topic}: nothing more comes at {len(values)} of {high}"
            for message in messages:
                assert message.error() is None, message.error()
                assert message.offset() == len(values), "offsets are dense"
                value = message.value()
                assert value is not None
                values.append(value)
        return values
    finally:
        consumer.close()
