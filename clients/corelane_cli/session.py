"""Runs a command's conversation with a cluster and says its errors as the command line does."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_client.address import AddressError
from corelane_client.errors import (
    AnswerTimeoutError,
    ClientError,
    ConnectError,
    DeliveryTimeoutError,
    KafkaError,
    ProtocolError,
)
from corelane_client.settings import ConnectionSettings

T = TypeVar("T")

CONNECTION: Final = ConnectionSettings(
    client_id="corelane-cli", connect_timeout_ms=5000, retry_timeout_ms=15_000
)
DELIVERY_TIMEOUT_MS: Final = 30_000

_NEXT_STEPS: Final = {
    "UNKNOWN_TOPIC_OR_PARTITION": "See what there is with `corelane topic list`, or make it with"
    " `corelane topic create`.",
    "TOPIC_ALREADY_EXISTS": "Choose another name, or look at it with `corelane topic describe`.",
    "INVALID_TOPIC_EXCEPTION": "Use letters, digits, '.', '_' and '-', at most 249 of them.",
    "INVALID_PARTITIONS": "Choose another --partitions.",
    "INVALID_REPLICATION_FACTOR": "Choose a --replication-factor of at most the number of nodes.",
    "INVALID_CONFIG": "Correct the --config; `corelane topic describe` shows names and values.",
    "MESSAGE_TOO_LARGE": "Raise max.message.bytes of the topic, or send smaller records.",
    "OFFSET_OUT_OF_RANGE": "See the first and next offsets with `corelane topic describe`.",
    "NOT_ENOUGH_REPLICAS": "Check that enough brokers are up, or lower min.insync.replicas.",
    "KAFKA_STORAGE_ERROR": "Look at the broker's log: its disk is full or failing.",
}


def run(conversation: Callable[[], Awaitable[T]]) -> T:
    """Return what *conversation* returns. Raises CommandError, KeyboardInterrupt and OSError."""
    try:
        return trio.run(conversation)
    except BaseExceptionGroup as group:
        raise _said(_only(group)) from group
    except (ClientError, AddressError) as error:
        raise _said(error) from error


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that a group is about; a group of several stays one."""
    for kind in (KeyboardInterrupt, BrokenPipeError):
        if group.split(kind)[0] is not None:
            return kind()
    first = group.exceptions[0]
    if len(group.exceptions) > 1:
        return group
    return _only(first) if isinstance(first, BaseExceptionGroup) else first


def _said(error: BaseException) -> BaseException:
    """Return *error* as the command line says it; what is not a client's error stays as it is."""
    match error:
        case AddressError():
            return CommandError(exits.USAGE, str(error), "Name a broker: --bootstrap HOST:PORT.")
        case KafkaError():
            next_step = _NEXT_STEPS.get(error.name, "")
            return CommandError(exits.REFUSED, error.sentence, next_step, error.name)
        case ConnectError() | ProtocolError():
            next_step = error.next_step or "Check the broker and its log."
            if isinstance(error, ConnectError):
                next_step += " `corelane start` starts a broker; --bootstrap names another."
            return CommandError(exits.CANNOT_CONNECT, error.sentence, next_step)
        case AnswerTimeoutError() | DeliveryTimeoutError():
            next_step = error.next_step or "Check that the broker is healthy and try again."
            return CommandError(exits.TIMED_OUT, error.sentence, next_step)
        case ClientError():
            return CommandError(exits.FAILED, error.sentence, error.next_step)
        case _:
            return error
