"""A command's conversation: how it ends when somebody presses Ctrl-C."""

import signal

import pytest
import trio

from corelane_cli.exits import CommandError
from corelane_cli.session import run
from corelane_client.errors import ConnectError


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


def test_ctrl_c_strikes_in_no_other_task() -> None:
    seen: list[BaseException] = []

    async def struck() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        except BaseException as error:
            seen.append(error)
            raise

    async def conversation() -> None:
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(struck)

    with pytest.raises(KeyboardInterrupt):
        run(conversation)
    assert [type(error) for error in seen] == [trio.Cancelled]


def test_other_errors_are_said_as_before() -> None:
    async def conversation() -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectError("the connection was closed")

    with pytest.raises(CommandError):
        run(conversation)
