"""A transaction as a block: all of it is there in the end, or nothing."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import trio

from corelane_client import group_offsets, protocol
from corelane_client.coordinators import Coordinator, Kind
from corelane_client.delivery import Deliverer
from corelane_client.errors import ClientError
from corelane_client.group_offsets import LANE, NOBODY, CommittedAt, Membership, Place
from corelane_client.pool import Pool
from corelane_client.protocol import Api
from corelane_client.transactor import Transactor

if TYPE_CHECKING:
    from corelane_client.group_consumer import GroupConsumer

_ABORT_S_MAX: Final = 10.0
"""How long the end of a block that failed may take; what is left the coordinator does, later."""


class Transaction:
    """What `Producer.transaction` returns, to be used in an `async with` block."""

    def __init__(self, pool: Pool, deliverer: Deliverer, transactor: Transactor) -> None:
        self._pool = pool
        self._deliverer = deliverer
        self._transactor = transactor

    async def __aenter__(self) -> Self:
        transactor = self._transactor
        transactor.begin()
        try:
            if transactor.identity is None:
                await transactor.renew()
                self._deliverer.forget()
        except BaseException:
            transactor.cancel()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self._commit()
        except ClientError as failure:
            await self._abort()
            raise self._transactor.fenced or failure from None
        except BaseException:
            await self._abort()
            raise
        if error is not None:
            await self._abort()
            if isinstance(error, ClientError) and self._transactor.fenced is not None:
                raise self._transactor.fenced from error

    async def send_offsets(self, consumer: "GroupConsumer") -> None:
        """Commit with the transaction how far *consumer* has read: all that it returned.

        The consumer must not commit by itself (`auto_commit=False`); `rewind` it after an abort.
        Raises ClientError, such as ILLEGAL_GENERATION when the group goes on without it.
        """
        await self._send_offsets(consumer.group, consumer.positions(), consumer.membership)

    async def send_group_offsets(self, group: str, offsets: Mapping[Place, int]) -> None:
        """Commit *offsets* for a group that nobody is in. Raises ClientError."""
        wanted = {place: CommittedAt(offset) for place, offset in offsets.items()}
        await self._send_offsets(group, wanted, NOBODY)

    async def _send_offsets(
        self, group: str, offsets: Mapping[Place, CommittedAt], member: Membership
    ) -> None:
        if not offsets:
            return
        try:
            await self._transactor.add_group(group)
            await self._pool.retry(self._offset_commit(group, offsets, member))
        except ClientError as error:
            self._transactor.failed(error)
            raise

    def _offset_commit(
        self, group: str, offsets: Mapping[Place, CommittedAt], member: Membership
    ) -> Callable[[], Awaitable[None]]:
        """Return what tells a group's coordinator of the offsets, once."""
        coordinator = Coordinator(self._pool, Kind.GROUP, group)
        body = protocol.message(
            "TxnOffsetCommitRequest",
            group_id=group,
            generation_id=member.generation,
            member_id=member.member_id,
            group_instance_id=member.instance_id,
            topics=group_offsets.rows("TxnOffsetCommitRequest.TxnOffsetCommitRequest", offsets),
            **self._transactor.who(),
        )

        async def attempt() -> None:
            answer = await coordinator.request(Api.TXN_OFFSET_COMMIT, body, lane=LANE)
            group_offsets.check_rows(coordinator, answer)

        return attempt

    async def _commit(self) -> None:
        """Wait for everything that was sent, and have all of it count. Raises ClientError."""
        await self._deliverer.flush()
        if self._transactor.failure is not None:
            raise self._transactor.failure
        await self._transactor.end(commits=True)

    async def _abort(self) -> None:
        """Have nothing of it count, unless its end is under way already.

        Why the block ends says more than what goes wrong here: who coordinates the transaction
        ends it sooner or later, and the next one waits for that.
        """
        if not self._transactor.is_open:
            return
        with (
            suppress(ClientError),
            trio.CancelScope(shield=True, deadline=trio.current_time() + _ABORT_S_MAX),
        ):
            self._transactor.failed(ClientError("the transaction was aborted"))
            await self._deliverer.flush()
            await self._transactor.end(commits=False)
        self._transactor.cancel()
