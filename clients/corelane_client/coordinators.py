"""Finds who coordinates a group or a transactional id, and asks it, wherever it moves."""

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, Final, TypeVar

from corelane.model.errors import ErrorCode
from corelane_client import protocol
from corelane_client.connection import Connection
from corelane_client.errors import ClientError, KafkaError
from corelane_client.pool import NO_BROKER, SHARED, Pool
from corelane_client.protocol import Api

T = TypeVar("T")

MOVED: Final = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)
"""Another broker is the coordinator now, or this one is not there yet."""


class Kind(IntEnum):
    """What is coordinated, as FindCoordinator numbers it."""

    GROUP = 0
    TRANSACTION = 1

    @property
    def noun(self) -> str:
        """How errors call it."""
        return "group" if self is Kind.GROUP else "transactional id"


class Coordinator:
    """The broker that coordinates one key, as far as is known.

    Each question is asked once; who asks again after an error that may pass finds the coordinator
    that is one by then.
    """

    def __init__(self, pool: Pool, kind: Kind, key: str) -> None:
        self.what = f"{kind.noun} {key!r}"
        self.broker_id = NO_BROKER
        self._pool = pool
        self._kind = kind
        self._key = key

    async def connection(self, lane: str = SHARED) -> Connection:
        """Return an open connection to the coordinator. Raises ClientError."""
        if self.broker_id == NO_BROKER:
            self.broker_id = await self._find()
        try:
            return await self._pool.connection(self.broker_id, lane)
        except ClientError:
            self.forget()
            raise

    async def request(self, api: Api, body: Any, *, timeout_ms: int = 0, lane: str = SHARED) -> Any:
        """Return the coordinator's answer. Raises ClientError; not for what the answer says."""
        connection = await self.connection(lane)
        try:
            return await connection.request(api, body, timeout_ms=timeout_ms)
        except ClientError:
            self.forget()
            raise

    def check(self, code: int, what: str = "", said: str | None = None) -> None:
        """Raise KafkaError unless *code* says that all is well; look for who has taken over."""
        if code in MOVED:
            self.forget()
        protocol.check(code, what or self.what, said)

    def forget(self) -> None:
        """Look for the coordinator before it is asked again."""
        self.broker_id = NO_BROKER

    async def _find(self) -> int:
        body = protocol.message(
            "FindCoordinatorRequest",
            key=self._key,
            key_type=self._kind,
            coordinator_keys=[self._key],
        )
        answer = await (await self._pool.any_connection()).request(Api.FIND_COORDINATOR, body)
        found = answer.coordinators[0] if answer.coordinators else answer
        protocol.check(found.error_code, self.what, found.error_message)
        if found.node_id not in self._pool.brokers:
            await self._pool.refresh(())
        return int(found.node_id)


async def at_coordinator(
    pool: Pool, kind: Kind, key: str, ask: Callable[[Connection, int], Awaitable[T]]
) -> T:
    """Return what the coordinator of *key* answers; another one is looked for while it moves."""
    coordinator = Coordinator(pool, kind, key)

    async def attempt() -> T:
        connection = await coordinator.connection()
        try:
            return await ask(connection, coordinator.broker_id)
        except ClientError as error:
            if not isinstance(error, KafkaError) or error.code in MOVED:
                coordinator.forget()
            raise

    return await pool.retry(attempt)
