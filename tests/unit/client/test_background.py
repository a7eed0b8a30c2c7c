"""A block's own exception comes out as it is, whatever its helpers were doing."""

import pytest
import trio
import trio.testing

from corelane_client.background import Background


async def test_helpers_end_with_the_block() -> None:
    async with Background() as background:
        background.nursery.start_soon(trio.sleep_forever)


async def block(error: Exception, scope: trio.CancelScope | None = None) -> None:
    async with Background() as background:
        background.nursery.start_soon(trio.sleep_forever)
        if scope is not None:
            scope.cancel()
        raise error


async def test_the_blocks_exception_is_not_wrapped() -> None:
    with pytest.raises(ValueError, match="mine"):
        await block(ValueError("mine"))


async def test_nor_is_it_lost_in_a_cancellation_from_outside() -> None:
    seen: list[Exception] = []
    with trio.CancelScope() as scope:
        try:
            await block(ValueError("mine"), scope)
        except ValueError as error:
            seen.append(error)
    assert len(seen) == 1


async def test_a_helpers_bug_ends_the_block() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async def run() -> None:
        async with Background() as background:
            background.nursery.start_soon(fail)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)


async def test_a_cancellation_passes_through() -> None:
    with trio.move_on_after(0) as scope:
        async with Background() as background:
            background.nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_helpers_go_on_until_a_cancelled_block_has_ended() -> None:
    answers: list[str] = []
    asked = trio.Event()

    async def help_out() -> None:
        await asked.wait()
        answers.append("good-bye")

    async def run() -> None:
        async with Background() as background:
            background.nursery.start_soon(help_out)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    asked.set()
                    await trio.testing.wait_all_tasks_blocked()

    with trio.move_on_after(0) as scope:
        await run()
    assert scope.cancelled_caught
    assert answers == ["good-bye"]


async def test_a_block_may_begin_although_it_is_cancelled() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with Background():
            await trio.sleep_forever()
    assert scope.cancelled_caught
