"""From a conversation's end to what the command line says."""

import pytest
import trio

from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.session import run
from corelane_client import errors


async def grouped(*found: BaseException) -> None:
    raise BaseExceptionGroup("helpers", [BaseExceptionGroup("inner", list(found))])


def test_what_a_conversation_returns_is_returned() -> None:
    async def conversation() -> int:
        await trio.lowlevel.checkpoint()
        return 7

    assert run(conversation) == 7


@pytest.mark.parametrize(
    ("error", "exit_code", "word"),
    [
        (errors.KafkaError(36, "topic 't'"), exits.REFUSED, "TOPIC_ALREADY_EXISTS"),
        (errors.KafkaError(9999), exits.REFUSED, "ERROR_9999"),
        (errors.ConnectError("cannot connect"), exits.CANNOT_CONNECT, "CANNOT_CONNECT"),
        (errors.ProtocolError("speaks TLS"), exits.CANNOT_CONNECT, "CANNOT_CONNECT"),
        (errors.AnswerTimeoutError("no answer"), exits.TIMED_OUT, "TIMED_OUT"),
        (errors.DeliveryTimeoutError("no answer"), exits.TIMED_OUT, "TIMED_OUT"),
        (errors.CorruptRecordsError("checksum"), exits.FAILED, "FAILED"),
    ],
)
@pytest.mark.parametrize("is_grouped", [False, True])
def test_a_clients_error_becomes_a_commands(
    error: errors.ClientError, exit_code: int, word: str, is_grouped: bool
) -> None:
    async def conversation() -> None:
        await trio.lowlevel.checkpoint()
        if is_grouped:
            await grouped(error)
        raise error

    with pytest.raises(CommandError) as caught:
        run(conversation)
    assert (caught.value.exit_code, caught.value.word) == (exit_code, word)
    assert caught.value.message == error.sentence


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenPipeError()])
def test_an_interruption_is_found_among_other_errors(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run(lambda: grouped(errors.ConnectError("closed"), error))


def test_a_fault_of_ours_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: grouped(ZeroDivisionError()))
