"""A Kafka client for trio.

    from corelane_client import Consumer, Edge, Producer

    async with Producer("127.0.0.1:9092") as producer:
        await producer.send("greetings", b"hello", key=b"a")

    async with Consumer("127.0.0.1:9092") as consumer:
        await consumer.assign("greetings", stop=Edge.END)
        async for record in consumer:
            print(record.partition, record.offset, record.value)

    async with GroupConsumer("127.0.0.1:9092", "readers", ["greetings"]) as consumer:
        async for record in consumer:  # shared with all members of the group, and committed
            print(record.partition, record.offset, record.value)

It speaks to Corelane and to Apache Kafka. Names are imported when they are first used, so a
program that only administers topics does not load the codecs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corelane.wire.records import Record
    from corelane_client.admin import Admin, ClusterInfo, ConfigEntry, NewTopic
    from corelane_client.batching import Delivery, Message
    from corelane_client.changes import ConfigChange, EpochEnd, LogDir, Operation
    from corelane_client.consumer import Consumer
    from corelane_client.errors import (
        AnswerTimeoutError,
        ClientError,
        ConnectError,
        CorruptRecordsError,
        DeliveryTimeoutError,
        FencedError,
        KafkaError,
        ProtocolError,
    )
    from corelane_client.fetching import Watermarks
    from corelane_client.group_consumer import GroupConsumer
    from corelane_client.group_offsets import CommittedAt
    from corelane_client.group_settings import GroupSettings, RebalanceListener
    from corelane_client.groups import Group, GroupListing, GroupMember
    from corelane_client.offsets import AtTime, Edge, Resolved
    from corelane_client.pool import Broker, Partition, Topic
    from corelane_client.producer import Pending, Producer
    from corelane_client.settings import ConnectionSettings, ConsumerSettings, ProducerSettings
    from corelane_client.transaction import Transaction
    from corelane_client.transaction_admin import (
        ActiveProducer,
        TransactionDescription,
        TransactionListing,
    )

__all__ = [
    "ActiveProducer",
    "Admin",
    "AnswerTimeoutError",
    "AtTime",
    "Broker",
    "ClientError",
    "ClusterInfo",
    "CommittedAt",
    "ConfigChange",
    "ConfigEntry",
    "ConnectError",
    "ConnectionSettings",
    "Consumer",
    "ConsumerSettings",
    "CorruptRecordsError",
    "Delivery",
    "DeliveryTimeoutError",
    "Edge",
    "EpochEnd",
    "FencedError",
    "Group",
    "GroupConsumer",
    "GroupListing",
    "GroupMember",
    "GroupSettings",
    "KafkaError",
    "LogDir",
    "Message",
    "NewTopic",
    "Operation",
    "Partition",
    "Pending",
    "Producer",
    "ProducerSettings",
    "ProtocolError",
    "RebalanceListener",
    "Record",
    "Resolved",
    "Topic",
    "Transaction",
    "TransactionDescription",
    "TransactionListing",
    "Watermarks",
]

_HOMES = {
    "admin": ("Admin", "ClusterInfo", "ConfigEntry", "NewTopic"),
    "batching": ("Delivery", "Message"),
    "changes": ("ConfigChange", "EpochEnd", "LogDir", "Operation"),
    "consumer": ("Consumer",),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "fetching": ("Watermarks",),
    "group_consumer": ("GroupConsumer",),
    "group_offsets": ("CommittedAt",),
    "group_settings": ("GroupSettings", "RebalanceListener"),
    "groups": ("Group", "GroupListing", "GroupMember"),
    "offsets": ("AtTime", "Edge", "Resolved"),
    "pool": ("Broker", "Partition", "Topic"),
    "producer": ("Pending", "Producer"),
    "corelane.wire.records": ("Record",),
    "transaction": ("Transaction",),
    "transaction_admin": ("ActiveProducer", "TransactionDescription", "TransactionListing"),
    "settings": ("ConnectionSettings", "ConsumerSettings", "ProducerSettings"),
}
_HOME = {
    name: module if "." in module else f"corelane_client.{module}"
    for module, names in _HOMES.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
