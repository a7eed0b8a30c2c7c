"""What all requests of transactions share: to ask the coordinator of a transactional id."""

from collections.abc import Callable

from corelane.model.errors import ErrorCode
from corelane.producers.transactions.requests import Answer, Request
from corelane.shard.call import Call
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message

ABORTABLE_FROM = {"AddPartitionsToTxn": 5, "TxnOffsetCommit": 4}
"""The versions from which clients know TRANSACTION_ABORTABLE (KIP-890)."""


def consult(
    shard: Shard, name: str, request: Request, told: Callable[[Answer | ErrorCode], None]
) -> None:
    """Have the coordinator of a transactional id decide; *told* hears of it once."""
    host = shard.groups.desk.host_of(name)
    if isinstance(host, ErrorCode):
        told(host)
    elif shard.store.is_full:
        told(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    else:
        host.ask(request, lambda answer: told(answer or ErrorCode.NOT_COORDINATOR))


def ask(
    shard: Shard,
    call: Call,
    name: str,
    request: Request,
    told: Callable[[Answer | ErrorCode], Message],
) -> None:
    """Have it decide, and the client answered with what *told* makes of that."""

    def decided(answer: Answer | ErrorCode) -> None:
        if not call.slot.connection.is_closed:
            call.answer(told(answer))

    consult(shard, name, request, decided)


def is_late(shard: Shard, call: Call, name: str, producer: tuple[int, int]) -> bool:
    """Drop a request of version 1 whose producer has gone on with a newer connection."""
    host, connection = shard.groups.desk.host_of(name), call.slot.connection
    if isinstance(host, ErrorCode) or connection.serial == 0:
        return False
    if not host.spoken.is_late(name, producer, connection.serial):
        return False
    shard.close(connection, f"client {connection.peer}: {name!r} goes on with a newer connection")
    return True


def abortable_at_version(error: ErrorCode, api_name: str, version: int) -> ErrorCode:
    """Return *error* as clients of that version know it."""
    if error is ErrorCode.TRANSACTION_ABORTABLE and version < ABORTABLE_FROM[api_name]:
        return ErrorCode.INVALID_TXN_STATE
    return error
