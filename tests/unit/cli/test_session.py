"""A command's conversation: how it ends when somebody presses Ctrl-C."""

import signal
from collections.abc import Iterator

import pytest
import trio

from corelane_cli.exits import CommandError
from corelane_cli.interruption import blocking
from corelane_cli.session import run
from corelane_client.errors import ConnectError


@pytest.fixture
def ignored() -> Iterator[None]:
    """Ignore Ctrl-C, as a shell's script has it done by its commands in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_what_waits() -> None:
    async def conversation() -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run(conversation)


def test_ctrl_c_is_not_hidden_by_the_errors_of_what_it_cut() -> None:
    """Found in a slow run: a connection that was cut told its reader so, and that was shown."""

    async def conversation() -> None:
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)
        try:
            await trio.sleep_forever()
        finally:
            raise ConnectError("the connection was closed")

    with pytest.raises(KeyboardInterrupt):
        run(conversation)


@pytest.mark.parametrize("turns_before", range(4))
def test_ctrl_c_strikes_in_no_other_task(turns_before: int) -> None:
    """Not in the first turns either."""
    seen: list[BaseException] = []

    async def struck() -> None:
        try:
            for _ in range(turns_before):
                await trio.lowlevel.checkpoint()
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        except BaseException as error:
            seen.append(error)
            raise

    async def conversation() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(struck)

    with pytest.raises(KeyboardInterrupt):
        run(conversation)
    assert [type(error) for error in seen] == [trio.Cancelled]


def test_ctrl_c_before_the_first_turn_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trio.run

    def late(*arguments: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trio, "run", late)
    with pytest.raises(KeyboardInterrupt):
        run(trio.sleep_forever)


def test_ctrl_c_cuts_short_what_blocks() -> None:
    """A reader of our output that stops reading must not keep us."""
    seen: list[str] = []

    async def conversation() -> None:
        await trio.lowlevel.checkpoint()
        with blocking():
            signal.raise_signal(signal.SIGINT)
            seen.append("goes on")

    with pytest.raises(KeyboardInterrupt):
        run(conversation)
    assert seen == []


def test_a_second_ctrl_c_strikes_where_it_hangs() -> None:
    seen: list[str] = []

    async def conversation() -> None:
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        seen.append("goes on")

    with pytest.raises(KeyboardInterrupt):
        run(conversation)
    assert seen == []


def test_a_conversation_that_ended_has_its_result() -> None:
    async def conversation() -> int:
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)
        return 7

    assert run(conversation) == 7


@pytest.mark.usefixtures("ignored")
def test_who_ignores_ctrl_c_goes_on_doing_so() -> None:
    async def conversation() -> int:
        signal.raise_signal(signal.SIGINT)
        await trio.lowlevel.checkpoint()
        return 7

    assert run(conversation) == 7
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_is_as_before_when_a_conversation_has_ended() -> None:
    before = signal.getsignal(signal.SIGINT)
    run(trio.lowlevel.checkpoint)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_errors_are_said_as_before() -> None:
    async def conversation() -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectError("the connection was closed")

    with pytest.raises(CommandError):
        run(conversation)
