"""A stock producer that numbers its records and keeps what was acknowledged."""

import threading
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

FLUSH_S_MAX = 60.0
QUEUED_MAX = 20_000

PLAIN = {"acks": "1", "enable.idempotence": False, "max.in.flight": 1}
IDEMPOTENT = {"acks": "all", "enable.idempotence": True, "max.in.flight": 5}


class NumberedProducer:
    """Produces 0, 1, 2, ... to one partition from a thread of its own."""

    def __init__(self, bootstrap: str, topic: str, settings: dict[str, Any]) -> None:
        self.topic = topic
        self.acknowledged: dict[int, int] = {}
        self.failures: list[str] = []
        self.produced = 0
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 2,
                "message.timeout.ms": 120_000,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 50,
                "queue.buffering.max.messages": QUEUED_MAX,
                "log_level": 0,
                **settings,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._producer.produce(
                    self.topic, str(self.produced), partition=0, on_delivery=self._delivered
                )
                self.produced += 1
            except BufferError:
                self._producer.poll(0.01)
            if self.produced % 20 == 0:
                self._producer.poll(0.005)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(str(error))
            return
        value, offset = message.value(), message.offset()
        assert value is not None
        assert offset is not None
        self.acknowledged[int(value)] = offset

    def finish(self) -> None:
        """Stop producing and wait for every acknowledgement."""
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(FLUSH_S_MAX)
        assert left == 0, f"{left} records of {self.topic} were not acknowledged in time"
