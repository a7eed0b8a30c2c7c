"""The same as gaps.py with librdkafka at its default settings, all of them.

`python -m bench.macro.gaps_librdkafka host:port,... --topic t --partitions n --seconds s`
"""

import argparse
import time

from confluent_kafka import KafkaError, Message, Producer

from bench.macro.gaps import TELL_EVERY_S, Watched, tell_open

EVERY_S = 0.2


class Gaps:
    """One producer for all partitions."""

    def __init__(self, bootstrap: str, topic: str, count: int) -> None:
        now_s = time.monotonic()
        self.partitions = [Watched(index, now_s) for index in range(count)]
        self.failed = 0
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bootstrap})

    def run(self, seconds: float) -> None:
        """Produce a record to each partition again and again."""
        next_s = time.monotonic()
        end_s = next_s + seconds
        tell_s = next_s
        while next_s < end_s:
            next_s += EVERY_S
            if next_s >= tell_s:
                tell_s = next_s + TELL_EVERY_S
                tell_open(self.partitions)
            for each in self.partitions:
                self._produce(each.index)
            while (rest_s := next_s - time.monotonic()) > 0:
                self._producer.poll(rest_s)
        self._producer.flush(30)
        now_s = time.monotonic()
        for each in self.partitions:
            each.tell(now_s)
        print(f"failed {self.failed}", flush=True)

    def _produce(self, index: int) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            del message
            self.failed += error is not None
            self.partitions[index].settled(time.monotonic(), is_good=error is None)

        try:
            self._producer.produce(self._topic, b"x" * 100, partition=index, on_delivery=delivered)
        except BufferError:  # 100,000 records wait: the gap is counted all the same
            self._producer.poll(0.01)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("brokers", help="host:port,…")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    Gaps(options.brokers, options.topic, options.partitions).run(options.seconds)


if __name__ == "__main__":
    main()
