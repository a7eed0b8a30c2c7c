"""The connections to a cluster, and what is known of it: who leads which partition."""

import math
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import trio

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import protocol
from corelane_client.address import Address, parse_bootstrap
from corelane_client.background import Background
from corelane_client.connection import Connect, Connection, connect_tcp
from corelane_client.errors import ClientError, ConnectError, KafkaError
from corelane_client.protocol import Api
from corelane_client.settings import CONNECTION, ConnectionSettings

T = TypeVar("T")

NO_BROKER: Final = -1
NO_TOPIC_ID: Final = bytes(16)
SHARED: Final = ""
"""The lane of everything that a broker answers at once, or that has the connection for itself."""
RETRY_BACKOFF_S: Final = 0.1
RETRY_BACKOFF_S_MAX: Final = 1.0
_UNKNOWN_TOPIC: Final = int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
_LEADER_NOT_AVAILABLE: Final = int(ErrorCode.LEADER_NOT_AVAILABLE)


@record
class Broker:
    """A broker of the cluster, as it wants to be reached."""

    broker_id: int
    address: Address
    rack: str | None


@record
class Partition:
    """A partition as the metadata has it; `leader` is -1 while it has none."""

    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    error_code: int


@record
class Topic:
    """A topic as the metadata has it; `topic_id` is all zero when the broker has no ids."""

    name: str
    topic_id: bytes
    is_internal: bool
    partitions: dict[int, Partition]


class Pool:
    """Knows a cluster by its bootstrap addresses; used in an `async with` block.

    Entering connects and raises ConnectError when no address answers. Later failures are for
    the caller to retry: `refresh` finds the cluster again through any broker it ever knew.
    """

    def __init__(
        self,
        bootstrap: str,
        settings: ConnectionSettings = CONNECTION,
        connect: Connect = connect_tcp,
    ) -> None:
        self.brokers: dict[int, Broker] = {}
        self.topics: dict[str, Topic] = {}
        self.cluster_id: str | None = None
        self.controller = NO_BROKER
        self.settings = settings
        self._bootstrap = parse_bootstrap(bootstrap)
        self._connect = connect
        self._background = Background()
        self._connections: dict[tuple[Address, str], Connection] = {}
        self._locks: dict[tuple[Address, str], trio.Lock] = {}
        self._refresh_lock = trio.Lock()
        self._topic_lock = trio.Lock()
        self._refreshed_s = -math.inf
        self._errors: dict[str, int] = {}

    @property
    def nursery(self) -> trio.Nursery:
        """Where the owner's helpers run; cancelled when the block ends."""
        return self._background.nursery

    async def __aenter__(self) -> Self:
        await self._background.__aenter__()
        try:
            await self.refresh(())
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in self._connections.values():
            connection.close()
        await self._background.__aexit__(kind, error, traceback)

    async def finish(self) -> None:
        """Wait until the brokers have read all that was sent, as long as an answer may take."""
        connections = [each for each in self._connections.values() if each.is_open]
        for connection in connections:
            connection.finish()
        with trio.move_on_after(self.settings.request_timeout_ms / 1000):
            for connection in connections:
                await connection.ended.wait()

    def leader_of(self, topic: str, partition: int) -> int:
        """Return the broker that leads a partition as far as is known, or -1."""
        known = self.topics.get(topic)
        found = known.partitions.get(partition) if known else None
        return found.leader if found and found.leader in self.brokers else NO_BROKER

    def opened(self, broker_id: int) -> Connection | None:
        """Return the connection to a broker if it is open now."""
        broker = self.brokers.get(broker_id)
        found = self._connections.get((broker.address, SHARED)) if broker else None
        return found if found and found.is_open else None

    async def connection(self, broker_id: int, lane: str = SHARED) -> Connection:
        """Return an open connection to a broker of the metadata. Raises ClientError.

        Answers come in the order of the requests, so what a broker may hold back for long, such as
        a JoinGroup, has a *lane* of its own: a connection that nothing else waits on.
        """
        broker = self.brokers.get(broker_id)
        if broker is None:
            raise ConnectError(f"broker {broker_id} is not known any more", retriable=True)
        try:
            return await self._connected(broker.address, lane)
        except ConnectError as error:
            if broker.address in self._bootstrap:
                raise
            raise ConnectError(
                f"{error.sentence} (the cluster names this address for broker {broker_id})",
                "If the bootstrap address answers and this one does not, the broker advertises an"
                " address that cannot be reached from here: correct its advertised host.",
                retriable=True,
            ) from error

    async def any_connection(self) -> Connection:
        """Return an open connection to whichever broker answers first. Raises ConnectError."""
        for connection in self._connections.values():
            if connection.is_open:
                return connection
        known = [broker.address for broker in self.brokers.values()]
        failures: list[ClientError] = []
        for address in dict.fromkeys([*self._bootstrap, *known]):
            try:
                return await self._connected(address)
            except ClientError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        raise ConnectError(
            "no broker answers: " + "; ".join(failure.sentence for failure in failures),
            failures[0].next_step,
            retriable=True,
        )

    async def refresh(self, topics: Collection[str] | None, *, may_create: bool = False) -> None:
        """Ask for the brokers and the named topics (None: all). Raises ClientError.

        A topic without partitions leaves `topics`; *may_create* lets the broker make what is
        missing, if its configuration agrees.
        """
        async with self._refresh_lock:
            connection = await self.any_connection()
            names = None if topics is None else [_wanted(name) for name in topics]
            body = protocol.message(
                "MetadataRequest", topics=names, allow_auto_topic_creation=may_create
            )
            answer = await connection.request(Api.METADATA, body)
            self._refreshed_s = trio.current_time()
            self._learn(answer, topics)

    async def topic(self, name: str, *, may_create: bool = False) -> Topic:
        """Return a topic, asked for unless it is known. Raises ClientError."""
        async with self._topic_lock:  # many may want it at once; one question serves them all
            if name not in self.topics:
                await self.refresh((name,), may_create=may_create)
        if name not in self.topics:
            error = KafkaError(self._errors.get(name, _UNKNOWN_TOPIC), f"topic {name!r}")
            # The broker is still making it; otherwise asking again finds nothing new.
            error.retriable = error.code == _LEADER_NOT_AVAILABLE or (
                may_create and error.code == _UNKNOWN_TOPIC
            )
            raise error
        return self.topics[name]

    async def request_controller(self, api: Api, body: Any, timeout_ms: int = 0) -> Any:
        """Send a request to the controller, which changes topics. Raises ClientError."""
        if self.controller in self.brokers:
            connection = await self.connection(self.controller)
        else:
            connection = await self.any_connection()
        return await connection.request(api, body, timeout_ms=timeout_ms)

    @property
    def age_s(self) -> float:
        """How long ago the metadata was asked for."""
        return trio.current_time() - self._refreshed_s

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what *attempt* returns, repeated while its error may pass and time is left."""
        deadline_s = trio.current_time() + self.settings.retry_timeout_ms / 1000
        backoff_s = RETRY_BACKOFF_S
        while True:
            try:
                return await attempt()
            except ClientError as error:
                if not error.retriable or trio.current_time() + backoff_s >= deadline_s:
                    raise
            await trio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, RETRY_BACKOFF_S_MAX)

    async def _connected(self, address: Address, lane: str = SHARED) -> Connection:
        """Return the open connection to *address*, made by the first who asks."""
        place = (address, lane)
        async with self._locks.setdefault(place, trio.Lock()):
            found = self._connections.get(place)
            if found is None or not found.is_open:
                found = Connection(address, self.settings, self._connect)
                await self.nursery.start(found.run)
                self._connections[place] = found
            return found

    def _learn(self, answer: Any, asked: Collection[str] | None) -> None:
        """Take over what the metadata says; topics it was not asked for stay as they were."""
        self.cluster_id = answer.cluster_id
        self.controller = answer.controller_id
        self.brokers = {
            row.node_id: Broker(row.node_id, Address(row.host, row.port), row.rack)
            for row in answer.brokers
        }
        living = {*self._bootstrap, *(broker.address for broker in self.brokers.values())}
        for place in [place for place in self._connections if place[0] not in living]:
            self._connections.pop(place).close()
        if asked is None:
            self.topics = {}
        for row in answer.topics:
            self._errors[row.name] = row.error_code
            if row.partitions:
                self.topics[row.name] = _topic(row)
            else:
                self.topics.pop(row.name, None)


def _wanted(name: str) -> Any:
    return protocol.message("MetadataRequest.MetadataRequestTopic", name=name)


def _topic(row: Any) -> Topic:
    """Return a row of the metadata as ours."""
    partitions = {
        each.partition_index: Partition(
            each.leader_id,
            each.leader_epoch,
            tuple(each.replica_nodes),
            tuple(each.isr_nodes),
            each.error_code,
        )
        for each in sorted(row.partitions, key=lambda each: int(each.partition_index))
    }
    return Topic(row.name, row.topic_id, row.is_internal, partitions)
