"""What a stock producer loses when it gives up a record that is in the log, without knowing it.

librdkafka (2.16; it writes transactions of version 1) aborts with records in its queue: it purges
them and moves its numbers back by so many ("advancing epoch base msgid"), though one of them may
have been sent, and be in the log, where only the answer was lost. The next record then has the
sequence number of the purged one, and whoever answers it as a repetition loses it: acknowledged,
committed, and nowhere. `python -m tests.integration.purged kafka|corelane` shows that Apache Kafka
(4.3.1) does.
"""

import json
import socket
import struct
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from corelane.model.record import record
from tests.conformance import brokers
from tests.conformance.recorder import BROKER_HOST, PRODUCE_KEY, RECORDED_HOST

TOPIC = "purged"
SETTINGS: dict[str, object] = {
    "corelane.cores": 1,
    "corelane.advertise": "node",
    "corelane.advertised.host": RECORDED_HOST,
}
WAIT_S_MAX = 30.0
IN_QUEUE_S = 0.3
"""By then the producer has its record back from the connection that is gone."""


@record
class Found:
    """What became of the transactions."""

    acknowledged: dict[str, int]
    """The offset that the producer was told of each record."""
    refused: dict[str, str]
    """The error that it was told of others."""
    committed: list[str]
    """What its commits were successful with, in this order."""
    read: list[str]
    """What a reader of committed records sees."""


class Swallower:
    """Stands before a broker and swallows one answer to a Produce request, with its connection."""

    def __init__(self, port: int) -> None:
        self.swallows = False
        self.swallowed = threading.Event()
        self.passes = threading.Event()
        """While it is not set, new connections wait."""
        self.passes.set()
        self._port = port
        self._listener = socket.create_server((RECORDED_HOST, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        self.passes.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self.passes.wait()
        produced: set[int] = set()
        try:
            with client, socket.create_connection((BROKER_HOST, self._port)) as broker:
                ask = threading.Thread(target=_ask, args=(client, broker, produced), daemon=True)
                ask.start()
                while frame := _frame(broker):
                    (number,) = struct.unpack_from(">i", frame, 4)
                    if self.swallows and number in produced:
                        self.swallows = False
                        self.passes.clear()
                        client.shutdown(socket.SHUT_RDWR)
                        self.swallowed.set()
                        return
                    client.sendall(frame)
        except OSError:
            return  # either side is gone


def _ask(client: socket.socket, broker: socket.socket, produced: set[int]) -> None:
    """Pass requests on, and note which of them are Produce."""
    try:
        while frame := _frame(client):
            key, _version, number = struct.unpack_from(">hhi", frame, 4)
            if key == PRODUCE_KEY:
                produced.add(number)
            broker.sendall(frame)
        broker.shutdown(socket.SHUT_WR)
    except OSError:
        return  # either side is gone


def _frame(sender: socket.socket) -> bytes:
    """Return a message with its length, or nothing at the end."""
    head = _exactly(sender, 4)
    return head and head + _exactly(sender, struct.unpack(">i", head)[0])


def _exactly(sender: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sender.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return data


class Application:
    """Writes one record in each transaction."""

    def __init__(self, bootstrap: str) -> None:
        self.found = Found({}, {}, [], [])
        self._bootstrap = bootstrap
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": "purger",
                "linger.ms": 0,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 10,
            }
        )
        self.producer.init_transactions(WAIT_S_MAX)

    def begin(self, value: str) -> None:
        """Begin a transaction and give it its record."""
        self.producer.begin_transaction()
        self.producer.produce(TOPIC, value, partition=0, on_delivery=self._told)

    def commit(self, value: str) -> None:
        """Write it in a transaction, which is done again when it must be aborted."""
        while True:
            self.begin(value)
            try:
                self.producer.commit_transaction(WAIT_S_MAX)
            except KafkaException as fault:
                if not fault.args[0].txn_requires_abort():
                    raise
                self.producer.abort_transaction(WAIT_S_MAX)
            else:
                self.found.committed.append(value)
                return

    def read(self) -> None:
        """Read what is committed."""
        settings = {
            "bootstrap.servers": self._bootstrap,
            "group.id": "readers",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        consumer = Consumer(settings)
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        while (message := consumer.poll(WAIT_S_MAX)) is not None and message.error() is None:
            self.found.read.append((message.value() or b"").decode())
        consumer.close()

    def _told(self, error: KafkaError | None, message: Message) -> None:
        value, offset = (message.value() or b"").decode(), message.offset()
        if error is not None:
            self.found.refused.setdefault(value, error.name())
        elif offset is not None:
            self.found.acknowledged[value] = offset


def lose_an_answer(port: int) -> Found:
    """Abort a transaction whose record is in the log, unknown to its producer, and go on.

    The broker on that port says that it is reached at `RECORDED_HOST`.
    """
    swallower = Swallower(port)
    bootstrap = f"{RECORDED_HOST}:{port}"
    try:
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(WAIT_S_MAX)
        application = Application(bootstrap)
        application.commit("first")
        swallower.swallows = True
        application.begin("purged")
        assert swallower.swallowed.wait(WAIT_S_MAX)
        time.sleep(IN_QUEUE_S)
        again = threading.Timer(IN_QUEUE_S, swallower.passes.set)
        again.start()
        application.producer.abort_transaction(WAIT_S_MAX)
        again.join()
        for value in ("next", "last"):
            application.commit(value)
        application.read()
    finally:
        swallower.close()
    return application.found


def main() -> None:
    """Show what a broker makes of it."""
    is_kafka = sys.argv[1:] == ["kafka"]
    with (
        brokers.kafka({"advertised.host": RECORDED_HOST})
        if is_kafka
        else brokers.corelane(SETTINGS)
    ) as running:
        found = lose_an_answer(running.bootstrap.port)
    names = ("acknowledged", "refused", "committed", "read")
    print(json.dumps({name: getattr(found, name) for name in names}))
    sys.exit(found.committed != found.read)


if __name__ == "__main__":
    main()
