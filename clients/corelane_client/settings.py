"""What can be chosen about a client, each with its default and what it means."""

from dataclasses import field
from typing import Final, Literal

from corelane.model.record import record

Acks = Literal["all", "1", "0"]
Codec = Literal["none", "gzip", "snappy", "lz4", "zstd"]


@record
class ConnectionSettings:
    """How connections are made and how long they are waited for."""

    client_id: str = "corelane"
    connect_timeout_ms: int = 10_000
    request_timeout_ms: int = 30_000
    retry_timeout_ms: int = 30_000
    """How long a question is asked again while its error may pass."""


CONNECTION: Final = ConnectionSettings()


@record
class ProducerSettings:
    """How a producer gathers, sends and repeats. The defaults are safe and quick."""

    acks: Acks = "all"
    """What counts as written: durable on a quorum ("all"), on the leader ("1"), or sent ("0")."""
    idempotence: bool = True
    """The broker recognises repetitions, so that each record is there once and in order. It needs
    acks "all" and is off otherwise; then one batch of a partition is in flight at a time."""
    compression: Codec = "none"
    linger_ms: int = 5
    """How long a record given to `enqueue` may wait for company. `send` never lets it wait."""
    batch_bytes: int = 64 * 1024
    """A batch of this size leaves at once. A larger record travels alone."""
    request_bytes_max: int = 1024 * 1024
    """Batches of several partitions travel together up to this size."""
    buffer_bytes: int = 32 * 1024 * 1024
    """What may wait for acknowledgement; beyond it `send` and `enqueue` wait."""
    delivery_timeout_ms: int = 120_000
    """A record without an acknowledgement fails after this long with DeliveryTimeoutError."""
    transactional_id: str | None = None
    """The name under which transactions are written; of two producers of one name the newer one
    goes on. Records are sent inside of `Producer.transaction` only."""
    transaction_timeout_ms: int = 60_000
    """A transaction that is open for longer is aborted by its coordinator."""
    create_topics: bool = False
    """Let the broker make a topic that is missing, if its configuration agrees."""
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)

    @property
    def is_idempotent(self) -> bool:
        """Repetitions are recognised."""
        return self.idempotence and self.acks == "all"


@record
class ConsumerSettings:
    """How a consumer fetches. The defaults fetch ahead without taking much memory."""

    isolation: Literal["read_uncommitted", "read_committed"] = "read_uncommitted"
    """read_committed shows records of transactions only once they have committed."""
    wait_ms_max: int = 500
    """How long a broker holds a fetch that finds nothing."""
    fetch_bytes_max: int = 8 * 1024 * 1024
    """What one answer may hold, a single larger batch aside."""
    partition_bytes_max: int = 1024 * 1024
    """What one answer may hold of one partition, a single larger batch aside."""
    prefetch_bytes: int = 16 * 1024 * 1024
    """Fetching ahead pauses while so much waits to be read."""
    lost_offset: Literal["error", "beginning", "end"] = "error"
    """Where to go on when the next offset is not there any more, or not there yet."""
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
