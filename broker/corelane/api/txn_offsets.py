"""TxnOffsetCommit (key 28), versions 0 to 5: offsets that count when a transaction is committed.

v2  leader epochs.  v3  flexible, and members of the group are fenced (KIP-447).  v4
TRANSACTION_ABORTABLE.  v5  the partition becomes part of the transaction by this very request
(KIP-890). Before, it must be part of it; its coordinator is asked, as for a batch.
"""

from corelane.api.group_calls import host_of, routed
from corelane.api.group_offsets import known_offsets
from corelane.api.transaction_calls import abortable_at_version
from corelane.groups.records import Place as OffsetPlace
from corelane.groups.requests import Answer, Commit, Committed, Identity
from corelane.model.errors import ErrorCode
from corelane.producers.open_transactions import Append, Refuse, Verify
from corelane.shard.call import Call
from corelane.shard.group_host import GroupHost
from corelane.shard.shard import Shard
from corelane.shard.verifying import Place, Verified, VerifyTransaction
from corelane.wire.compiler import Message, message_type

_ADDS_FROM = 5
AGAIN_MS = 20
"""Until a transaction that is being completed is asked about again; Kafka's backoff."""
AGAIN_MAX = 25

Response = message_type("TxnOffsetCommitResponse")
TopicRow = message_type("TxnOffsetCommitResponse.TxnOffsetCommitResponseTopic")
PartitionRow = message_type("TxnOffsetCommitResponse.TxnOffsetCommitResponsePartition")

Errors = dict[OffsetPlace, ErrorCode]


def handle(shard: Shard, call: Call) -> None:
    """Keep offsets until the transaction's marker comes."""
    request = call.decode()
    _Attempt(shard, call, request).begin()


class _Attempt:
    """One request, until its group's partition is known to be part of the transaction."""

    def __init__(self, shard: Shard, call: Call, request: Message) -> None:
        self._shard = shard
        self._call = call
        self._request = request
        self._kept = known_offsets(shard, request)
        self._tries = 0
        self.is_done = False

    def begin(self) -> None:
        """Look where the group is coordinated, and whether its log may take the offsets."""
        shard, request = self._shard, self._request
        host = host_of(shard, request.group_id)
        if not request.group_id:
            self._refuse(ErrorCode.INVALID_GROUP_ID)
        elif isinstance(host, ErrorCode):
            self._refuse(host)
        elif shard.store.is_full:
            self._refuse(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        elif not request.transactional_id or request.producer_id < 0 or request.producer_epoch < 0:
            self._refuse(ErrorCode.INVALID_REQUEST)
        elif not self._kept:
            self._answer({})
        else:
            self._look(host)

    def _look(self, host: GroupHost) -> None:
        request, transactions = self._request, host.partition.transactions
        producer = (request.producer_id, request.producer_epoch)
        verdict = transactions.check_batch(*producer, is_transactional=True)
        match verdict:
            case Append():
                host.ask(Commit(_identity(request), tuple(self._kept), producer), self._committed)
            case Verify():
                self._verify(host, verdict.question)
            case Refuse():
                self._refuse(verdict.error)

    def _verify(self, host: GroupHost, question: int) -> None:
        request, partition = self._request, host.partition
        topic = partition.topic

        def told(said: Verified) -> None:
            verification = partition.transactions.verification
            if said.error is ErrorCode.NONE:
                verification.answered(request.producer_id, question, said.started_ms)
            else:
                verification.refused(request.producer_id, question)
            self._again(said.error)

        self._shard.groups.inquiries.verify(
            VerifyTransaction(
                request.transactional_id,
                request.producer_id,
                request.producer_epoch,
                Place(topic.name, topic.topic_id, partition.number),
                is_added=self._call.version >= _ADDS_FROM,
            ),
            told,
        )

    def _again(self, error: ErrorCode) -> None:
        """Go on with the coordinator's word: it may be outdated here, or come too early."""
        self._tries += 1
        if self._tries >= AGAIN_MAX or error not in _RETRIED:
            self._refuse(error or ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        elif error is ErrorCode.NONE:
            self.begin()
        else:
            self.is_done = False
            self._shard.deadlines.add(self._shard.now_ms + AGAIN_MS, self)

    def expire(self, now_ms: int) -> None:
        """Ask again."""
        del now_ms
        self.is_done = True
        if not self._call.slot.connection.is_closed:
            self.begin()

    def _committed(self, answer: Answer | None) -> None:
        if answer is None:
            self._refuse(ErrorCode.NOT_COORDINATOR)
            return
        assert isinstance(answer, Committed)
        places = [place for place, _offset in self._kept]
        self._answer(dict(zip(places, answer.errors, strict=True)))

    def _refuse(self, error: ErrorCode) -> None:
        known = abortable_at_version(error, "TxnOffsetCommit", self._call.version)
        self._answer({place: _AS_COORDINATORS_SAY.get(known, known) for place, _ in self._kept})

    def _answer(self, errors: Errors) -> None:
        if not self._call.slot.connection.is_closed:
            self._call.answer(_response(self._request, errors))


_RETRIED = frozenset({ErrorCode.NONE, ErrorCode.CONCURRENT_TRANSACTIONS})
_AS_COORDINATORS_SAY = {
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.PRODUCER_FENCED: ErrorCode.INVALID_PRODUCER_EPOCH,
}
"""What a log and a transaction's coordinator say, in words that clients expect here."""


def _identity(request: Message) -> Identity:
    return Identity(
        request.group_id,
        request.generation_id,
        request.member_id,
        request.group_instance_id,
    )


def _response(request: Message, errors: Errors) -> Message:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return Response(
        topics=[
            TopicRow(
                name=topic.name,
                partitions=[
                    PartitionRow(
                        partition_index=row.partition_index,
                        error_code=errors.get((topic.name, row.partition_index), unknown),
                    )
                    for row in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


gather = routed(handle, lambda request: str(request.group_id))
