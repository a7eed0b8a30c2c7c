"""Asks a cluster about its topics and changes them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane_client import changes, groups, protocol, reassignments, transaction_admin
from corelane_client.changes import ConfigChange, EpochEnd, LogDir
from corelane_client.connection import Connect, connect_tcp
from corelane_client.errors import ClientError, KafkaError
from corelane_client.group_offsets import CommittedAt
from corelane_client.groups import Group, GroupListing
from corelane_client.offsets import Place, Resolved, list_offsets
from corelane_client.pool import Broker, Pool, Topic
from corelane_client.protocol import Api
from corelane_client.reassignments import Reassignment
from corelane_client.settings import CONNECTION, ConnectionSettings
from corelane_client.transaction_admin import (
    ActiveProducer,
    Filter,
    TransactionDescription,
    TransactionListing,
)

BROKER_DEFAULT: Final = -1
"""As partition count or replication factor: what the broker is configured to."""
_TOPIC_RESOURCE: Final = 2
_BROKER_RESOURCE: Final = 4
_ROWS: Final = {
    Api.CREATE_TOPICS: "topics",
    Api.DELETE_TOPICS: "responses",
    Api.CREATE_PARTITIONS: "results",
    Api.INCREMENTAL_ALTER_CONFIGS: "responses",
}
"""Where an answer to a change of topics has a row for each topic."""
_SOURCES: Final = {
    1: "topic",
    2: "broker",
    3: "cluster",
    4: "file",
    5: "default",
}


@record
class NewTopic:
    """A topic to be made."""

    name: str
    partition_count: int = BROKER_DEFAULT
    replication_factor: int = BROKER_DEFAULT
    configs: Mapping[str, str] | None = None


@record
class ConfigEntry:
    """A setting and where its value comes from: topic, broker, cluster, file or default."""

    name: str
    value: str | None
    source: str
    is_read_only: bool
    is_sensitive: bool
    documentation: str


@record
class ClusterInfo:
    """The cluster as its metadata shows it."""

    cluster_id: str | None
    controller: int
    brokers: list[Broker]


class Admin:
    """Administers a cluster, to be used in an `async with` block.

        async with Admin("127.0.0.1:9092") as admin:
            await admin.create_topic(NewTopic("greetings", partition_count=3))

    Entering connects and raises ConnectError when no broker answers. Every method asks again
    while an error may pass, up to `retry_timeout_ms`, and raises ClientError after that.
    """

    def __init__(
        self,
        bootstrap: str,
        settings: ConnectionSettings = CONNECTION,
        connect: Connect = connect_tcp,
    ) -> None:
        self._pool = Pool(bootstrap, settings, connect)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.__aexit__(kind, error, traceback)

    async def describe_cluster(self) -> ClusterInfo:
        """Return the cluster's id, controller and brokers."""
        await self._pool.retry(lambda: self._pool.refresh(()))
        brokers = sorted(self._pool.brokers.values(), key=lambda broker: broker.broker_id)
        return ClusterInfo(self._pool.cluster_id, self._pool.controller, brokers)

    async def list_topics(self) -> list[Topic]:
        """Return every topic, by name."""
        await self._pool.retry(lambda: self._pool.refresh(None))
        return sorted(self._pool.topics.values(), key=lambda topic: topic.name)

    async def describe_topic(self, name: str) -> Topic:
        """Return a topic as it is now."""

        async def attempt() -> Topic:
            await self._pool.refresh((name,))
            return await self._pool.topic(name)

        return await self._pool.retry(attempt)

    async def create_topic(self, topic: NewTopic, *, validate_only: bool = False) -> Topic | None:
        """Make a topic and return it once its partitions have leaders.

        *validate_only* changes nothing and returns None; what the broker would refuse is raised.
        """
        await self._change_topic(
            Api.CREATE_TOPICS, lambda: _creation(topic, self._timeout_ms, validate_only)
        )
        return None if validate_only else await self._led(topic.name, 1)

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records."""
        await self._change_topic(Api.DELETE_TOPICS, lambda: _deletion(name, self._timeout_ms))

    async def create_partitions(
        self,
        name: str,
        count: int,
        *,
        validate_only: bool = False,
        told: Callable[[int], None] | None = None,
    ) -> Topic | None:
        """Give a topic *count* partitions in all and return it once they have leaders.

        *told* hears how many have. *validate_only* changes nothing and returns None.
        """
        await self._change_topic(
            Api.CREATE_PARTITIONS,
            lambda: changes.more_partitions(name, count, self._timeout_ms, validate_only),
        )
        return None if validate_only else await self._led(name, count, told)

    async def alter_topic_configs(
        self, name: str, wanted: Sequence[ConfigChange], *, validate_only: bool = False
    ) -> None:
        """Change settings of a topic, all of them or none."""
        await self._change_topic(
            Api.INCREMENTAL_ALTER_CONFIGS,
            lambda: changes.config_changes(_TOPIC_RESOURCE, name, wanted, validate_only),
        )

    async def delete_records(
        self, topic: str, before: Mapping[int, int]
    ) -> dict[int, int | ClientError]:
        """Delete what is before an offset in each partition; END_OF_LOG deletes all there is.

        Returns the first offset left in each partition, or why it is as it was.
        """
        return await changes.delete_records(self._pool, topic, before)

    async def elect_leaders(
        self, topic: str, partitions: Collection[int], *, unclean: bool = False
    ) -> dict[int, ClientError | None]:
        """Let the preferred replica of each partition lead, *unclean*: any that is alive.

        Returns for each partition None, also where nothing had to change, or what went wrong.
        """
        return await changes.elect_leaders(self._pool, topic, partitions, unclean=unclean)

    async def reassign_partitions(
        self, topic: str, wanted: Mapping[int, Sequence[int] | None]
    ) -> dict[int, KafkaError | None]:
        """Have partitions' replicas on other brokers, the preferred leader first.

        None instead of brokers calls off what is under way. Returns for each partition None where
        it was taken, or why not; `list_reassignments` shows how far it is.
        """
        return await reassignments.alter(self._pool, topic, wanted)

    async def list_reassignments(self) -> list[Reassignment]:
        """Return the partitions whose replicas are being changed."""
        return await reassignments.ongoing(self._pool)

    async def epoch_ends(self, topic: str, epochs: Mapping[int, int]) -> dict[int, EpochEnd]:
        """Return for each partition where the log of the given leader epoch ends."""
        return await changes.epoch_ends(self._pool, topic, epochs)

    async def describe_log_dirs(self, topics: Collection[str] | None = None) -> list[LogDir]:
        """Return what each broker keeps where, of the named topics (None: all)."""
        await self._pool.retry(lambda: self._pool.refresh(()))
        return [
            directory
            for broker_id in sorted(self._pool.brokers)
            for directory in await changes.log_dirs(self._pool, broker_id, topics)
        ]

    async def describe_topic_configs(
        self, name: str, keys: Collection[str] | None = None
    ) -> list[ConfigEntry]:
        """Return the settings of a topic, or those named by *keys*."""
        connection = await self._pool.any_connection()
        return await self._describe_configs(connection, _TOPIC_RESOURCE, name, keys)

    async def describe_broker_configs(
        self, broker_id: int, keys: Collection[str] | None = None
    ) -> list[ConfigEntry]:
        """Return the settings of a broker, or those named by *keys*."""
        connection = await self._pool.connection(broker_id)
        return await self._describe_configs(connection, _BROKER_RESOURCE, str(broker_id), keys)

    async def list_offsets(
        self,
        topic: str,
        at: Place,
        partitions: Sequence[int] | None = None,
        *,
        is_committed: bool = False,
    ) -> dict[int, Resolved]:
        """Return the offset of *at* in each partition of *topic*.

        With *is_committed* the end is that for readers of committed records: before what is open.
        """
        return await list_offsets(self._pool, topic, at, partitions, int(is_committed))

    async def list_groups(self) -> list[GroupListing]:
        """Return the consumer groups of all brokers, by name."""
        return await groups.list_groups(self._pool)

    async def describe_group(self, name: str) -> Group:
        """Return a consumer group with its members and what each reads."""
        return await groups.describe_group(self._pool, name)

    async def group_offsets(self, name: str) -> dict[tuple[str, int], CommittedAt]:
        """Return how far a group has read, by topic and partition."""
        return await groups.fetch_offsets(self._pool, name)

    async def commit_group_offsets(self, name: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Set how far a group has read; that works only while nobody is in it."""
        await groups.commit_offsets(self._pool, name, offsets)

    async def delete_groups(self, names: Collection[str]) -> dict[str, KafkaError | None]:
        """Delete groups that nobody is in; return for each None, or why it is still there."""
        return await groups.delete_groups(self._pool, names)

    async def list_transactions(self, wanted: Filter | None = None) -> list[TransactionListing]:
        """Return the transactional ids of all coordinators, by name."""
        return await transaction_admin.list_transactions(self._pool, wanted or Filter())

    async def describe_transaction(self, name: str) -> TransactionDescription:
        """Return what the coordinator of a transactional id knows."""
        return await transaction_admin.describe_transaction(self._pool, name)

    async def describe_producers(
        self, topic: str, partitions: Collection[int] | None = None
    ) -> dict[int, list[ActiveProducer]]:
        """Return the producers that each partition of *topic* remembers."""
        return await transaction_admin.describe_producers(self._pool, topic, partitions)

    async def is_coordinated(self, place: tuple[str, int], producer_id: int) -> bool:
        """Return whether some coordinator still means to end a producer's transaction there."""
        return await transaction_admin.is_coordinated(self._pool, place, producer_id)

    async def abort_transaction(self, name: str) -> int:
        """Abort what is open under a transactional id and fence its producer; the new epoch."""
        return await transaction_admin.abort_of(self._pool, name)

    async def abort_in_partition(self, place: tuple[str, int], producer: ActiveProducer) -> None:
        """End a producer's transaction in one partition, whatever its coordinator says."""
        await transaction_admin.abort_in_partition(self._pool, place, producer)

    @property
    def _timeout_ms(self) -> int:
        return self._pool.settings.request_timeout_ms

    async def _led(self, name: str, count: int, told: Callable[[int], None] | None = None) -> Topic:
        """Return a topic once it has *count* partitions and all of them have leaders."""

        async def attempt() -> Topic:
            await self._pool.refresh((name,))
            made = await self._pool.topic(name)
            brokers = self._pool.brokers
            led = sum(each.leader in brokers for each in made.partitions.values())
            if told is not None:
                told(led)
            if led < max(count, len(made.partitions)):
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {name!r}")
            return made

        return await self._pool.retry(_patiently(attempt))

    async def _change_topic(self, api: Api, body: Callable[[], Any]) -> None:
        """Ask the controller for a change of one topic."""

        async def attempt() -> None:
            answer = await self._pool.request_controller(api, body(), self._timeout_ms)
            (row,) = getattr(answer, _ROWS[api])
            if row.error_code == ErrorCode.NOT_CONTROLLER:
                await self._pool.refresh(())
            if row.error_code:
                is_config = api == Api.INCREMENTAL_ALTER_CONFIGS
                name = row.resource_name if is_config else row.name
                error = KafkaError(row.error_code, f"topic {name!r}", row.error_message)
                if error.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                    error.retriable = False  # what is not there cannot be changed later either
                raise error

        await self._pool.retry(attempt)

    async def _describe_configs(
        self, connection: Any, kind: int, name: str, keys: Collection[str] | None
    ) -> list[ConfigEntry]:
        resource = protocol.message(
            "DescribeConfigsRequest.DescribeConfigsResource",
            resource_type=kind,
            resource_name=name,
            configuration_keys=None if keys is None else list(keys),
        )
        body = protocol.message(
            "DescribeConfigsRequest", resources=[resource], include_documentation=True
        )
        (row,) = (await connection.request(Api.DESCRIBE_CONFIGS, body)).results
        what = f"topic {name!r}" if kind == _TOPIC_RESOURCE else f"broker {name}"
        protocol.check(row.error_code, what, row.error_message)
        return [_config(each) for each in sorted(row.configs, key=lambda each: str(each.name))]


def _creation(topic: NewTopic, timeout_ms: int, validate_only: bool) -> Any:
    configs = [
        protocol.message("CreateTopicsRequest.CreatableTopicConfig", name=name, value=value)
        for name, value in (topic.configs or {}).items()
    ]
    row = protocol.message(
        "CreateTopicsRequest.CreatableTopic",
        name=topic.name,
        num_partitions=topic.partition_count,
        replication_factor=topic.replication_factor,
        configs=configs,
    )
    return protocol.message(
        "CreateTopicsRequest", topics=[row], timeout_ms=timeout_ms, validate_only=validate_only
    )


def _deletion(name: str, timeout_ms: int) -> Any:
    row = protocol.message("DeleteTopicsRequest.DeleteTopicState", name=name)
    return protocol.message(
        "DeleteTopicsRequest", topics=[row], topic_names=[name], timeout_ms=timeout_ms
    )


def _config(row: Any) -> ConfigEntry:
    return ConfigEntry(
        row.name,
        row.value,
        _SOURCES.get(row.config_source, "unknown"),
        row.read_only,
        row.is_sensitive,
        row.documentation or "",
    )


def _patiently(attempt: Callable[[], Any]) -> Callable[[], Any]:
    """Return *attempt* with every error of the broker retriable: the topic is there, or will be."""

    async def patient() -> Any:
        try:
            return await attempt()
        except ClientError as error:
            error.retriable = True
            raise

    return patient
