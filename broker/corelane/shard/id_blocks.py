"""Producer ids on one core: blocks granted by the controller's log, handed out one by one."""

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from corelane.producers.ids import ProducerIdAllocator

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

RETRY_MS: Final = 100


class IdWaiter(Protocol):
    """Who waits for a producer id."""

    is_done: bool

    def granted(self, producer_id: int) -> None:
        """Take the id."""


class _Retry:
    """A block to be asked for again."""

    __slots__ = ("_blocks", "is_done")

    def __init__(self, blocks: "IdBlocks") -> None:
        self._blocks = blocks
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Ask, if somebody still waits."""
        del now_ms
        self.is_done = True
        self._blocks.ask_again()


class IdBlocks:
    """The blocks of this core, and who waits for an id."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._ids = ProducerIdAllocator()
        self._waiting: deque[IdWaiter] = deque()
        self._retry: _Retry | None = None

    def take(self, waiter: IdWaiter) -> None:
        """Give *waiter* a producer id, now or when the controller granted more of them."""
        producer_id = self._ids.take()
        if producer_id is not None:
            waiter.granted(producer_id)
        else:
            waiting = self._waiting
            while waiting and waiting[0].is_done:  # they wait equally long: the first end first
                waiting.popleft()
            waiting.append(waiter)
        if self._ids.wants_block and self._retry is None:
            self._ask()

    def lost(self) -> None:
        """The block asked for, if any, will not come: ask again if somebody waits."""
        self._ids.block_refused()
        if self._waiting:
            self._ask()

    def refused(self) -> None:
        """The block was not granted now: ask again in a moment if somebody waits."""
        self._ids.block_refused()
        if self._waiting and self._retry is None:
            self._retry = _Retry(self)
            self._shard.deadlines.add(self._shard.now_ms + RETRY_MS, self._retry)

    def ask_again(self) -> None:
        """The moment is over."""
        self._retry = None
        if self._waiting and self._ids.wants_block:
            self._ask()

    def granted(self, first_id: int, count: int) -> None:
        """Hand out the ids of a block to those that wait."""
        self._ids.block_granted(first_id, count)
        waiting = self._waiting
        while waiting:
            waiter = waiting.popleft()
            if waiter.is_done:
                continue
            producer_id = self._ids.take()
            if producer_id is None:
                waiting.appendleft(waiter)
                self._ask()
                return
            waiter.granted(producer_id)

    def _ask(self) -> None:
        self._ids.block_asked()
        siblings = self._groups.siblings
        if siblings.is_controller:
            self._groups.registration.propose_producer_ids(self._shard.config.core)
        else:
            siblings.ask_for_ids()
