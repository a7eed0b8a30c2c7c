"""A simulated client that deletes records, up to where it knows them committed."""

from corelane.model.errors import ERRORS, ErrorCode
from corelane.wire.compiler import Message, message_type
from tests.simulation.clients import Client
from tests.simulation.history import History, Partition
from tests.simulation.simulator import WALL_START_MS, Node

DELETE_RECORDS = 21
BEYOND = 2**40


class Trimmer(Client):
    """Deletes records of one partition now and then; some requests are for what is not there."""

    def __init__(self, node: Node, history: History, partition: Partition, requests: int) -> None:
        super().__init__(node, history, f"trimmer-{partition[0]}-{partition[1]}")
        self.partition = partition
        self.left = requests
        self.wanted = 0
        self.told_start = 0

    def connected(self) -> None:
        self._delete_later()

    def _delete_later(self) -> None:
        delay_us = self.simulator.random.choice((0, 2_000, 50_000, 200_000))
        link = self.link

        def now() -> None:
            if self.link is link and link is not None and link.is_open and self.left > 0:
                self.left -= 1
                self._delete()

        self.simulator.after(delay_us, now)

    def _delete(self) -> None:
        rng, history = self.simulator.random, self.history
        self.told_start = start = history.starts[self.partition]
        end = max(start, history.watermarks[self.partition])
        self.wanted = rng.choice((start, end, rng.randint(start, end), -1, BEYOND))
        if self.wanted != BEYOND:
            # Of -1 nobody but the broker knows how far it went.
            history.note_deleting(self.partition, BEYOND if self.wanted < 0 else self.wanted)
        row = message_type("DeleteRecordsRequest.DeleteRecordsPartition")(
            partition_index=self.partition[1], offset=self.wanted
        )
        topic = message_type("DeleteRecordsRequest.DeleteRecordsTopic")(
            name=self.partition[0], partitions=[row]
        )
        request = message_type("DeleteRecordsRequest")(topics=[topic], timeout_ms=2_000)
        self.ask(DELETE_RECORDS, rng.randrange(3), request)

    def answered(self, key: int, message: Message) -> None:
        del key
        row = message.topics[0].partitions[0]
        if self.wanted == BEYOND and row.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            pass
        elif row.error_code:
            assert ERRORS[row.error_code].is_retriable, f"{self.name}: {row.error_code}"
        else:
            assert self.wanted != BEYOND, "what is not there was deleted"
            assert row.low_watermark >= self.wanted, f"{self.name}: {row.low_watermark}"
            now_ms = WALL_START_MS + self.simulator.now_us // 1000
            self.history.note_start(self.partition, row.low_watermark, self.told_start, now_ms)
        self._delete_later()
