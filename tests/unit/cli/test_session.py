"""From a conversation's end to what the command line says; and the progress line."""

import io

import pytest
import trio

from corelane_cli import exits
from corelane_cli.exits import CommandError
from corelane_cli.output import table
from corelane_cli.progress import Progress
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress(2_000_000, is_wanted=True)
    progress.show(1_000_000, 10)
    progress.show(1_500_000, 15)  # too soon after the first
    progress.finish()
    text = terminal.getvalue()
    assert " 50%  10 records, 1.0 MB" in text
    assert "#" * 15 + "-" * 15 in text
    assert "15 records" not in text
    assert text.endswith("\r\x1b[K")


@pytest.mark.parametrize("is_wanted", [True, False])
def test_progress_is_silent_elsewhere(is_wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO() if is_wanted else Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    progress = Progress(100, is_wanted=is_wanted)
    progress.show(50, 1)
    progress.finish()
    assert stream.getvalue() == ""


def test_numbers_stand_to_the_right() -> None:
    assert table(("NAME", "N"), [("a", 1), ("bcdef", -200)]) == (
        "NAME      N\na         1\nbcdef  -200"
    )
