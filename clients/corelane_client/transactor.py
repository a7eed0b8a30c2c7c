"""One transactional id: who writes under it, and what its open transaction has touched.

T1  A batch is sent to a partition only once the coordinator knows that the transaction touches it;
    else nobody would end the transaction there.
T2  What has failed once can only be aborted; nothing more of it is sent.
T3  After an abort that left the fate of a batch unknown there is a new epoch, so that the batch is
    refused wherever it still arrives.
T4  Who was fenced stays fenced: only the newer producer may go on.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from corelane.model.errors import ErrorCode
from corelane_client import protocol
from corelane_client.coordinators import Coordinator, Kind
from corelane_client.errors import ClientError, FencedError, KafkaError
from corelane_client.group_offsets import Place
from corelane_client.pool import RETRY_BACKOFF_S_MAX, Pool
from corelane_client.protocol import Api
from corelane_client.settings import ProducerSettings
from corelane_client.subscriptions import by_topic

T = TypeVar("T")

_BACKOFF_S = 0.02
"""The coordinator is busy with the last transaction's end, which is a matter of milliseconds."""
NO_PRODUCER: tuple[int, int] = (-1, -1)


class Transactor:
    """What a transactional producer knows of its transactions; *woken* hears that more can go."""

    def __init__(self, pool: Pool, settings: ProducerSettings, woken: Callable[[], None]) -> None:
        assert settings.transactional_id is not None
        self.transactional_id = settings.transactional_id
        self.identity: tuple[int, int] | None = None
        """Producer id and epoch; None: a new epoch must be asked for."""
        self.failure: ClientError | None = None
        """Why the open transaction can only be aborted (T2)."""
        self.is_open = False
        self._fenced: FencedError | None = None
        self._coordinator = Coordinator(pool, Kind.TRANSACTION, self.transactional_id)
        self._pool = pool
        self._settings = settings
        self._woken = woken
        self._last_identity = NO_PRODUCER
        self._added: set[Place] = set()
        self._wanted: set[Place] = set()
        self._groups: set[str] = set()
        self._is_adding = False
        self._adding = trio.CancelScope()

    @property
    def fenced(self) -> FencedError | None:
        """Why this producer cannot go on."""
        return self._fenced

    def begin(self) -> None:
        """Open a transaction; nobody hears of it before it touches something. Raises ClientError.

        Without an `identity` it must be renewed before anything is written.
        """
        self._check_fenced()
        if self.is_open:
            raise ClientError(
                f"{self._coordinator.what} has a transaction open",
                "A producer has one transaction at a time; end the first.",
            )
        self.is_open = True
        self.failure = None

    def cancel(self) -> None:
        """It was not begun after all."""
        self.is_open = False

    async def renew(self) -> None:
        """Get a producer id or its next epoch, which ends what was open under the last one."""
        self._check_fenced()

        async def attempt() -> tuple[int, int]:
            producer_id, epoch = self._last_identity
            body = protocol.message(
                "InitProducerIdRequest",
                transactional_id=self.transactional_id,
                transaction_timeout_ms=self._settings.transaction_timeout_ms,
                producer_id=producer_id,
                producer_epoch=epoch,
            )
            answer = await self._coordinator.request(Api.INIT_PRODUCER_ID, body)
            if answer.error_code == ErrorCode.INVALID_PRODUCER_EPOCH:
                raise self._fence(KafkaError(ErrorCode.PRODUCER_FENCED))
            self._check(answer.error_code)
            return answer.producer_id, answer.producer_epoch

        self.identity = self._last_identity = await self._again(attempt)

    def admits(self, place: Place) -> bool:
        """Return whether batches of a partition may be sent (T1); if not, wake when they may."""
        if place in self._added:
            return True
        self._wanted.add(place)
        if not self._is_adding:
            self._is_adding = True
            self._pool.nursery.start_soon(self._add_partitions)
        return False

    def failed(self, error: ClientError) -> None:
        """Something of the transaction could not be written."""
        error = self._fence(error)
        if self.is_open and self.failure is None:
            self.failure = error
        self._woken()

    async def add_group(self, group: str) -> None:
        """Have the transaction touch the offsets of a group. Raises ClientError."""
        if group in self._groups:
            return

        async def attempt() -> None:
            body = protocol.message("AddOffsetsToTxnRequest", group_id=group, **self._who())
            answer = await self._coordinator.request(Api.ADD_OFFSETS_TO_TXN, body)
            self._check(answer.error_code)

        await self._again(attempt)
        self._groups.add(group)

    async def end(self, *, commits: bool) -> None:
        """Commit or abort what the transaction has touched. Raises ClientError.

        Nothing of it may be on its way. After an error the outcome is not known; the next
        transaction begins when it is. After an abort, too, there is a new epoch (T3).
        """
        has_touched = bool(self._added or self._wanted or self._groups)

        async def attempt() -> None:
            body = protocol.message("EndTxnRequest", committed=commits, **self._who())
            answer = await self._coordinator.request(Api.END_TXN, body)
            self._check(answer.error_code)

        self._adding.cancel()
        is_known = False
        try:
            self._check_fenced()
            if has_touched:
                await self._again(attempt)
            is_known = True
        finally:
            if not is_known or not commits:
                self.identity = None
            self.is_open = False
            self._added.clear()
            self._wanted.clear()
            self._groups.clear()

    def who(self) -> dict[str, Any]:
        """Return the fields that say who writes, for a TxnOffsetCommit."""
        return self._who()

    async def _add_partitions(self) -> None:
        """Tell the coordinator of partitions until it knows all that are wanted."""
        with trio.CancelScope() as self._adding:
            await self._add_wanted()
        self._is_adding = False

    async def _add_wanted(self) -> None:
        try:
            while self._wanted and self.failure is None:
                places = frozenset(self._wanted)

                async def attempt(places: frozenset[Place] = places) -> None:
                    await self._add(places)

                await self._again(attempt)
                self._added |= places
                self._wanted -= places
                self._woken()
        except ClientError as error:
            self.failed(error)

    async def _add(self, places: frozenset[Place]) -> None:
        topics = [
            protocol.message(
                "AddPartitionsToTxnRequest.AddPartitionsToTxnTopic", name=name, partitions=numbers
            )
            for name, numbers in by_topic(places).items()
        ]
        fields = {f"v3_and_below_{name}": value for name, value in self._who().items()}
        body = protocol.message("AddPartitionsToTxnRequest", v3_and_below_topics=topics, **fields)
        answer = await self._coordinator.request(Api.ADD_PARTITIONS_TO_TXN, body)
        rows = [
            row.partition_error_code
            for topic in answer.results_by_topic_v3_and_below
            for row in topic.results_by_partition
        ]
        # Where one is refused the others are not attempted, and say so.
        causes = [code for code in rows if code and code != ErrorCode.OPERATION_NOT_ATTEMPTED]
        self._check(next(iter(causes), ErrorCode.NONE))

    def _who(self) -> dict[str, Any]:
        producer_id, epoch = self.identity or self._last_identity
        return {
            "transactional_id": self.transactional_id,
            "producer_id": producer_id,
            "producer_epoch": epoch,
        }

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what *attempt* returns, repeated while its error may pass and time is left."""
        deadline_s = trio.current_time() + self._pool.settings.retry_timeout_ms / 1000
        backoff_s = _BACKOFF_S
        while True:
            try:
                return await attempt()
            except ClientError as error:
                if not error.retriable or trio.current_time() + backoff_s >= deadline_s:
                    raise
            await trio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, RETRY_BACKOFF_S_MAX)

    def _check(self, code: int) -> None:
        """Raise what an answer's error means to this producer."""
        if code == ErrorCode.PRODUCER_FENCED:
            raise self._fence(KafkaError(ErrorCode.PRODUCER_FENCED))
        self._coordinator.check(code)

    def _fence(self, error: ClientError) -> ClientError:
        """Return *error*, for good if it says that a newer producer has taken over (T4)."""
        if isinstance(error, KafkaError) and error.code == ErrorCode.PRODUCER_FENCED:
            self._fenced = self._fenced or FencedError(self.transactional_id)
            return self._fenced
        return error

    def _check_fenced(self) -> None:
        if self._fenced is not None:
            raise self._fenced
