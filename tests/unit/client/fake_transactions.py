"""The coordinator of transactions of the cluster in memory: one at a time for each id, V1.

Markers are written at once; what is scripted decides what a client hears of it.
"""

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import crc32c

from corelane.groups.requests import Committed
from corelane.model.errors import ErrorCode
from corelane.wire.compiler import message_type
from corelane.wire.compression import Compression
from corelane.wire.records import BatchBuilder, Producer, encode_batch
from corelane_client.protocol import Api
from tests.unit.client import fake_groups

if TYPE_CHECKING:
    from tests.unit.client.fake import Cluster

TRANSACTION_RANGES = {
    Api.ADD_PARTITIONS_TO_TXN: (0, 3),
    Api.ADD_OFFSETS_TO_TXN: (0, 4),
    Api.END_TXN: (0, 4),
    Api.TXN_OFFSET_COMMIT: (0, 4),
}
_TRANSACTIONAL_CONTROL = 0x30


def new(name: str, /, **fields: Any) -> Any:
    return message_type(name)(**fields)


@dataclass
class Known:
    """A transactional id."""

    producer_id: int
    epoch: int
    partitions: dict[tuple[str, int], int] = field(default_factory=dict)
    """What the open transaction touches, with where each partition ended before."""
    offsets: list[Any] = field(default_factory=list)


def marker(producer_id: int, epoch: int, *, commits: bool) -> bytes:
    builder = BatchBuilder()
    builder.append(1, struct.pack(">hh", 0, int(commits)), struct.pack(">hi", 0, 0), ())
    producer = Producer(producer_id, epoch, -1)
    data = bytearray(encode_batch(builder.payload(Compression.NONE), producer))
    data[22] |= _TRANSACTIONAL_CONTROL
    data[17:21] = struct.pack(">I", crc32c.crc32c(bytes(data[21:])))
    return bytes(data)


class Transactions:
    """Broker `at` coordinates every transactional id."""

    def __init__(self, cluster: "Cluster") -> None:
        self.at = 0
        self.known: dict[str, Known] = {}
        self._cluster = cluster

    def init(self, broker_id: int, request: Any) -> Any:
        """Give an id its next epoch; what is open is aborted."""
        answer = new("InitProducerIdResponse")
        if broker_id != self.at:
            answer.error_code = ErrorCode.NOT_COORDINATOR
            return answer
        found = self.known.get(request.transactional_id)
        if found is None:
            self._cluster.next_producer_id += 1
            found = self.known[request.transactional_id] = Known(self._cluster.next_producer_id, -1)
        elif request.producer_epoch >= 0 and not self._is(found, request):
            answer.error_code = ErrorCode.PRODUCER_FENCED
            return answer
        self._end(found, commits=False)
        found.epoch += 1
        answer.producer_id, answer.producer_epoch = found.producer_id, found.epoch
        return answer

    async def answer(self, broker_id: int, api: Api, request: Any) -> Any:
        """Do a request of a transaction API."""
        prefix = "v3_and_below_" if api == Api.ADD_PARTITIONS_TO_TXN else ""
        found = self.known.get(getattr(request, f"{prefix}transactional_id"))
        error = ErrorCode.NONE
        if broker_id != self.at and api != Api.TXN_OFFSET_COMMIT:
            error = ErrorCode.NOT_COORDINATOR
        elif found is None:
            error = ErrorCode.INVALID_PRODUCER_ID_MAPPING
        elif not self._is(found, request, prefix):
            error = ErrorCode.PRODUCER_FENCED
        match api:
            case Api.ADD_PARTITIONS_TO_TXN:
                return self._added(found, request, error)
            case Api.ADD_OFFSETS_TO_TXN:
                return new("AddOffsetsToTxnResponse", error_code=error)
            case Api.END_TXN:
                if found is not None and not error:
                    self._end(found, commits=request.committed)
                return new("EndTxnResponse", error_code=error)
            case Api.TXN_OFFSET_COMMIT:
                if found is not None and not error:
                    found.offsets.append(request)
                count = sum(len(topic.partitions) for topic in request.topics)
                told = Committed((error,) * count)
                return fake_groups.commit_answer(
                    "TxnOffsetCommitResponse.TxnOffsetCommitResponse", request, told
                )
            case _:
                raise AssertionError(api)

    def refuses(self, batch: Any) -> ErrorCode:
        """Return why a partition does not take a transactional batch."""
        for known in self.known.values():
            if known.producer_id == batch.producer.producer_id:
                if batch.producer.epoch < known.epoch:
                    return ErrorCode.INVALID_PRODUCER_EPOCH
                return ErrorCode.NONE
        return ErrorCode.INVALID_TXN_STATE

    def _is(self, found: Known, request: Any, prefix: str = "") -> bool:
        asked = (
            getattr(request, f"{prefix}producer_id"),
            getattr(request, f"{prefix}producer_epoch"),
        )
        return asked == (found.producer_id, found.epoch)

    def _added(self, found: Known | None, request: Any, error: ErrorCode) -> Any:
        topics = []
        for topic in request.v3_and_below_topics:
            rows = []
            for number in topic.partitions:
                if found is not None and not error:
                    place = (topic.name, number)
                    found.partitions.setdefault(place, self._cluster.topics[topic.name][number].end)
                rows.append(
                    new(
                        "AddPartitionsToTxnResponse.AddPartitionsToTxnPartitionResult",
                        partition_index=number,
                        partition_error_code=error,
                    )
                )
            topics.append(
                new(
                    "AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult",
                    name=topic.name,
                    results_by_partition=rows,
                )
            )
        return new("AddPartitionsToTxnResponse", results_by_topic_v3_and_below=topics)

    def _end(self, found: Known, *, commits: bool) -> None:
        for (topic, number), first in found.partitions.items():
            log = self._cluster.topics[topic][number]
            if not commits:
                log.aborted.append((found.producer_id, first))
            log.write(marker(found.producer_id, found.epoch, commits=commits))
        found.partitions.clear()
        if commits:
            for request in found.offsets:
                self._cluster.groups.put(request)
        found.offsets.clear()
        self._cluster.announce()
