"""Runs a command's conversation with a cluster and says its errors as the command line does."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from corelane_cli import catalogue, exits
from corelane_cli.exits import CommandError
from corelane_cli.interruption import Interruption
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


def run(conversation: Callable[[], Awaitable[T]]) -> T:
    """Return what *conversation* returns. Raises CommandError, KeyboardInterrupt and OSError."""
    interruption = Interruption()

    async def until_interrupted() -> T:
        with interruption.cancelling():
            return await conversation()
        raise KeyboardInterrupt

    with interruption.heeded():
        try:
            return trio.run(until_interrupted)
        except BaseException as error:
            if interruption.has_struck:
                raise KeyboardInterrupt from error
            if isinstance(error, BaseExceptionGroup):
                raise _said(_only(error)) from error
            if isinstance(error, ClientError | AddressError):
                raise _said(error) from error
            raise


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
            next_step = catalogue.next_step(error.name)
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
