"""A node that is to stop lets others lead first, so that its clients never miss a leader.

As Kafka's controlled shutdown; bounded, as whoever stops services kills what takes too long.
"""

import logging
from collections.abc import Sequence
from typing import Final

import trio

from corelane.runtime.cores import Core, CoreState

ASK_S: Final = 0.05
"""Between two looks at what is left."""
ANSWER_S_MAX: Final = 1.0
LINGER_S: Final = 0.2
"""For clients to hear from here who leads instead; nodes tell each other within a beat."""

_log = logging.getLogger(__name__)


async def hand_over(cores: Sequence[Core], wait_s_max: float) -> None:
    """Have all cores hand over what they lead, as long as others can lead and time is left."""
    left, led = 0, 0
    with trio.move_on_after(wait_s_max) as scope:
        led = left = await _left(cores)
        while left:
            await trio.sleep(ASK_S)
            left = await _left(cores)
        if led:
            await trio.sleep(LINGER_S)
    if scope.cancelled_caught and left:
        _log.warning("stopping with %d partitions that nobody else leads yet", left)
    elif led:
        _log.info("handed over what it led")


async def _left(cores: Sequence[Core]) -> int:
    """Have cores hand over, or go on with it; return how much is left of it."""
    left = 0

    async def ask(core: Core) -> None:
        nonlocal left
        answer = await core.operate("leave", {}, ANSWER_S_MAX)
        left += 0 if answer is None else int(answer.values["left"])

    async with trio.open_nursery() as asking:
        for core in cores:
            if core.state is CoreState.UP:
                asking.start_soon(ask, core)
    return left
