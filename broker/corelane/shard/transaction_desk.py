"""What partitions ask coordinators of transactions, wherever these are, and what they say.

    VERIFY  u number | text id | u producer id | u epoch | text topic | u partition | u 1: add it
      said  u error | u start + 1
    PUSH    u numbers | numbers | u producer id | u epoch | text topic | u partition
      said  u verdict | u epoch + 1 | u coordinator term + 1

Numbers are those of partitions of `__transaction_state`; errors are never below zero.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from corelane.cluster.binary import Reader, Writer
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.ids import Term
from corelane.model.internal_topics import TRANSACTIONS_TOPIC
from corelane.producers.transactions.records import Partition
from corelane.producers.transactions.requests import (
    TRANSACTIONAL_ID_BYTES_MAX,
    AddPartitions,
    Answer,
    PartitionsAnswer,
    Push,
    PushAnswer,
    PushVerdict,
    VerifyPartitions,
)
from corelane.shard.inquiries import Question, Reply
from corelane.shard.key_hash import partition_number
from corelane.shard.peers.hello import PeerId
from corelane.shard.peers.leads import Lead
from corelane.shard.transaction_host import TransactionHost
from corelane.shard.verifying import Pushed, PushTransaction, Verified, VerifyTransaction

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

_STRICT: Final = 2
_VERDICTS: Final = (PushVerdict.UNKNOWN, PushVerdict.WAIT, PushVerdict.ABORT)
_WAIT: Final = Pushed(PushVerdict.WAIT)


class TransactionDesk:
    """Asks and answers; it is the `TransactionInquiries` of this core."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        groups.asking.answerers[Question.VERIFY] = self._asked_to_verify
        groups.asking.answerers[Question.PUSH] = self._pushed

    # --- where coordinators are ---

    def host_at(self, number: int) -> TransactionHost | ErrorCode:
        """Return the coordinator of a partition of `__transaction_state`, or why it is not here."""
        topic = self._groups.topics.get(TRANSACTIONS_TOPIC.encode())
        partition = None if topic is None else topic.partition(number)
        if partition is None or not partition.serves:
            return ErrorCode.NOT_COORDINATOR
        host = self._groups.hosts.transactions.get(partition.group)
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if host is None else host

    def host_of(self, transactional_id: str) -> TransactionHost | ErrorCode:
        """Return the coordinator of a transactional id, or why it is not here."""
        count = self._partition_count
        if count == 0:
            return ErrorCode.NOT_COORDINATOR
        return self.host_at(partition_number(transactional_id, count))

    @property
    def _partition_count(self) -> int:
        topic = self._groups.cluster.topics.get(TRANSACTIONS_TOPIC)
        return 0 if topic is None else len(topic.partitions)

    def _lead(self, number: int) -> Lead | None:
        topic = self._groups.cluster.topics[TRANSACTIONS_TOPIC]
        return self._groups.lead_of(topic.partitions[number].group)

    # --- verification ---

    def verify(self, question: VerifyTransaction, told: Callable[[Verified], None], /) -> None:
        """Ask whether a partition is part of a transaction (V1)."""
        away = Verified(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        count = self._partition_count
        number = partition_number(question.transactional_id, count) if count else 0
        lead = self._lead(number) if count else None
        if lead is None or len(question.transactional_id.encode()) > TRANSACTIONAL_ID_BYTES_MAX:
            told(away)
            return
        out = Writer()
        out.uint(number)
        out.text(question.transactional_id)
        out.uint(question.producer_id)
        out.uint(question.epoch)
        _write_place(out, (question.place.topic, question.place.number))
        out.uint(question.is_added)

        def answered(answer: bytes | None) -> None:
            if answer is None:
                told(away)
                return
            reader = Reader(answer)
            error = ErrorCode(reader.uint(limits.INT16_MAX))
            told(Verified(error, reader.uint(limits.INT64_MAX) - 1))

        self._groups.asking.ask(lead.at, Question.VERIFY, bytes(out.data), answered)

    def _asked_to_verify(self, body: bytes, reply: Reply) -> None:
        reader = Reader(body)
        number = reader.uint(limits.TOPIC_PARTITIONS_MAX)
        name = reader.text(TRANSACTIONAL_ID_BYTES_MAX)
        producer_id = reader.uint(limits.INT64_MAX)
        epoch = reader.uint(limits.INT16_MAX)
        places = (_read_place(reader),)
        is_added = reader.uint(1)
        reader.end()

        def said(answer: Answer | None) -> None:
            out = Writer()
            assert answer is None or isinstance(answer, PartitionsAnswer)
            out.uint(ErrorCode.NOT_COORDINATOR if answer is None else answer.errors[0])
            out.uint(0 if answer is None else answer.started_ms + 1)
            reply(bytes(out.data))

        host = self.host_at(number)
        if isinstance(host, ErrorCode):
            said(PartitionsAnswer((host,)))
        elif is_added:
            host.ask(AddPartitions(name, producer_id, epoch, places, _STRICT), said)
        else:
            host.ask(VerifyPartitions(name, producer_id, epoch, places), said)

    # --- pushes ---

    def push(self, question: PushTransaction, told: Callable[[Pushed], None], /) -> None:
        """Ask what became of a transaction: its coordinator, or where that is unknown, all."""
        count = self._partition_count
        if count == 0:
            told(_WAIT)  # it may be on its way here
            return
        every = range(count)
        if question.transactional_id is None:
            self._push(question, every, told)
            return

        def answered(answer: Pushed) -> None:
            if answer.verdict is PushVerdict.UNKNOWN:
                self._push(question, every, told)
            else:
                told(answer)

        number = partition_number(question.transactional_id, count)
        self._push(question, range(number, number + 1), answered)

    def _push(
        self, question: PushTransaction, numbers: range, told: Callable[[Pushed], None]
    ) -> None:
        grouped: dict[PeerId, list[int]] = {}
        is_whole = True
        for number in numbers:
            lead = self._lead(number)
            if lead is None:
                is_whole = False
            else:
                grouped.setdefault(lead.at, []).append(number)
        gathering = _Gathering(len(grouped), is_whole, told)
        if not grouped:
            told(_WAIT)
        for peer, asked in grouped.items():
            out = Writer()
            out.uint(len(asked))
            for number in asked:
                out.uint(number)
            out.uint(question.producer_id)
            out.uint(question.epoch)
            _write_place(out, (question.place.topic, question.place.number))
            self._groups.asking.ask(peer, Question.PUSH, bytes(out.data), gathering.take)

    def _pushed(self, body: bytes, reply: Reply) -> None:
        reader = Reader(body)
        numbers = [
            reader.uint(limits.TOPIC_PARTITIONS_MAX)
            for _ in range(reader.count(limits.TOPIC_PARTITIONS_MAX))
        ]
        producer_id, epoch = reader.uint(limits.INT64_MAX), reader.uint(limits.INT16_MAX)
        request = Push(producer_id, epoch, _read_place(reader))
        reader.end()
        hosts = [self.host_at(number) for number in numbers]
        is_whole = not any(isinstance(host, ErrorCode) for host in hosts)

        def told(pushed: Pushed) -> None:
            reply(_encode_pushed(pushed))

        gathering = _Gathering(len(hosts), is_whole, told)
        for host in hosts:
            if isinstance(host, ErrorCode):
                gathering.add(_WAIT)
                continue
            term = host.term

            def said(answer: Answer | None, term: Term = term) -> None:
                assert answer is None or isinstance(answer, PushAnswer)
                if answer is None:
                    gathering.add(_WAIT)
                else:
                    gathering.add(Pushed(answer.verdict, answer.epoch, term))

            host.ask(request, said)


class _Gathering:
    """What several coordinators say of one transaction: at most one of them knows it."""

    def __init__(self, count: int, is_whole: bool, told: Callable[[Pushed], None]) -> None:
        self._open = count
        self._told = told
        self._found = Pushed(PushVerdict.UNKNOWN) if is_whole else _WAIT
        self._is_told = False

    def take(self, answer: bytes | None) -> None:
        """Take what another core says."""
        self.add(_WAIT if answer is None else _decode_pushed(answer))

    def add(self, pushed: Pushed) -> None:
        """Take what one says; an ABORT is somebody's certain word, a WAIT may be ignorance."""
        self._open -= 1
        if self._is_told:
            return
        if pushed.verdict is not PushVerdict.UNKNOWN:
            self._found = pushed
        if self._open == 0 or pushed.verdict is PushVerdict.ABORT:
            self._is_told = True
            self._told(self._found)


def _encode_pushed(pushed: Pushed) -> bytes:
    out = Writer()
    out.uint(_VERDICTS.index(pushed.verdict))
    out.uint(pushed.epoch + 1)
    out.uint(pushed.coordinator_term + 1)
    return bytes(out.data)


def _decode_pushed(data: bytes) -> Pushed:
    reader = Reader(data)
    verdict = _VERDICTS[reader.uint(len(_VERDICTS) - 1)]
    epoch = reader.uint(limits.INT16_MAX + 1) - 1
    return Pushed(verdict, epoch, Term(reader.uint(limits.INT64_MAX) - 1))


def _write_place(out: Writer, place: Partition) -> None:
    out.text(place[0])
    out.uint(place[1])


def _read_place(reader: Reader) -> Partition:
    name = reader.text(limits.TOPIC_NAME_CHARACTERS_MAX)
    return name, reader.uint(limits.TOPIC_PARTITIONS_MAX)
