"""DescribeTransactions (65), ListTransactions (66): what tools ask about transactions (KIP-664).

List: v1 those that have been open for some time (KIP-994), v2 a pattern of ids (KIP-1152). The
pattern is that of topics' names; characters that no topic's name has match as "-" does.
"""

import string
from collections.abc import Callable
from itertools import groupby

from corelane.api.group_calls import of_all_cores, split_by_key
from corelane.api.transaction_calls import consult
from corelane.groups.subscriptions_pattern import TopicPattern, compile_pattern
from corelane.model.errors import ErrorCode
from corelane.model.internal_topics import TRANSACTIONS_TOPIC
from corelane.producers.transactions.records import NO_TIME, STATE_NAMES
from corelane.producers.transactions.requests import (
    Answer,
    DescribeAnswer,
    DescribeTransaction,
    ListAnswer,
    ListTransactions,
)
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message, message_type

_NO_DURATION = -1
_DURATION_FROM = 1
_PATTERN_FROM = 2
_KNOWN = frozenset(string.ascii_letters + string.digits + "._-")

DescribeResponse = message_type("DescribeTransactionsResponse")
DescribedRow = message_type("DescribeTransactionsResponse.TransactionState")
TopicRow = message_type("DescribeTransactionsResponse.TopicData")
ListResponse = message_type("ListTransactionsResponse")
ListedRow = message_type("ListTransactionsResponse.TransactionState")


def describe(shard: Shard, call: Call) -> None:
    """Say what there is to see of transactional ids."""
    _Described(shard, call, [*dict.fromkeys(call.decode().transactional_ids)])


class _Described:
    """A request about several ids, each of which its coordinator knows."""

    def __init__(self, shard: Shard, call: Call, names: list[str]) -> None:
        self._call = call
        self._rows: dict[str, Message] = {}
        self._open = 1
        for name in names:
            self._open += 1
            consult(shard, name, DescribeTransaction(name), self._teller(name))
        self._close()

    def _teller(self, name: str) -> Callable[[Answer | ErrorCode], None]:
        self._rows[name] = _refusal(name, ErrorCode.NOT_COORDINATOR)

        def told(answer: Answer | ErrorCode) -> None:
            if isinstance(answer, ErrorCode):
                self._rows[name] = _refusal(name, answer)
            else:
                assert isinstance(answer, DescribeAnswer)
                self._rows[name] = _row(name, answer)
            self._close()

        return told

    def _close(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._call.slot.connection.is_closed:
            self._call.answer(DescribeResponse(transaction_states=[*self._rows.values()]))


def _refusal(name: str, error: ErrorCode) -> Message:
    return DescribedRow(error_code=error, transactional_id=name, transaction_state="")


def _row(name: str, answer: DescribeAnswer) -> Message:
    found = answer.transaction
    if found is None:
        return _refusal(name, answer.error)
    is_open = found.is_ongoing or found.is_prepared
    return DescribedRow(
        transactional_id=name,
        transaction_state=STATE_NAMES[found.state],
        transaction_timeout_ms=found.timeout_ms,
        transaction_start_time_ms=found.started_ms if is_open else NO_TIME,
        producer_id=found.producer_id,
        producer_epoch=found.epoch,
        topics=[
            TopicRow(topic=topic, partitions=[number for _topic, number in places])
            for topic, places in groupby(found.partitions, lambda place: place[0])
        ],
    )


def list_transactions(shard: Shard, call: Call) -> None:
    """Name the transactional ids of this core's coordinators; clients ask all brokers."""
    request = call.decode()
    pattern: TopicPattern | str | None = None
    if call.version >= _PATTERN_FROM and request.transactional_id_pattern:
        pattern = compile_pattern(request.transactional_id_pattern)
    if isinstance(pattern, str):
        call.answer(ListResponse(error_code=ErrorCode.INVALID_REGULAR_EXPRESSION))
        return
    hosts = [*shard.groups.hosts.transactions.values()]
    if len(hosts) < _led_count(shard):
        call.answer(ListResponse(error_code=ErrorCode.COORDINATOR_LOAD_IN_PROGRESS))
        return
    wish = ListTransactions(
        tuple(request.state_filters),
        tuple(request.producer_id_filters),
        request.duration_filter if call.version >= _DURATION_FROM else _NO_DURATION,
    )
    names = frozenset(STATE_NAMES.values())
    unknown = [name for name in dict.fromkeys(request.state_filters) if name not in names]
    rows: list[Message] = []
    open_count = len(hosts)

    def told(answer: Answer | None) -> None:
        nonlocal open_count
        open_count -= 1
        assert answer is None or isinstance(answer, ListAnswer)
        found = () if answer is None else answer.rows
        rows.extend(
            ListedRow(
                transactional_id=row.transactional_id,
                producer_id=row.producer_id,
                transaction_state=STATE_NAMES[row.state],
            )
            for row in found
            if pattern is None or pattern.matches(_plain(row.transactional_id))
        )
        if open_count == 0 and not call.slot.connection.is_closed:
            call.answer(ListResponse(unknown_state_filters=unknown, transaction_states=rows))

    if not hosts:
        call.answer(ListResponse(unknown_state_filters=unknown))
    for host in hosts:
        host.ask(wish, told)


def _plain(name: str) -> str:
    return "".join(each if each in _KNOWN else "-" for each in name)


def _led_count(shard: Shard) -> int:
    """Return how many coordinators this core has, or will have in a moment."""
    topic = shard.groups.topics.get(TRANSACTIONS_TOPIC.encode())
    partitions = [] if topic is None else topic.partitions
    return sum(each is not None and each.serves for each in partitions)


gather_describe = split_by_key(
    describe, "transactional_ids", "transaction_states", str, TRANSACTIONS_TOPIC
)
gather_list = of_all_cores("transaction_states")
