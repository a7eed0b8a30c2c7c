"""What the tests ask of every Python client: one small vocabulary, three dialects."""

import threading
import time
from typing import Protocol

from corelane.model.record import record
from tests.conformance.probe import Address

Header = tuple[str, bytes | None]

TIMEOUT_S = 20
"""For everything a client is asked to do; a healthy broker needs a hundredth of it."""


@record
class Sent:
    """A record on its way to a broker. A `timestamp_ms` of None is the client's own clock."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int | None = None


@record
class Received:
    """A record as a consumer got it."""

    offset: int
    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int
    is_append_time: bool


@record
class Place:
    """Where to read from."""

    topic: str
    partition: int
    offset: int


@record
class Producing:
    """How a producer is set up."""

    acks: int = -1
    is_idempotent: bool = False
    codec: str = "none"
    request_bytes_max: int = 1_000_000
    batch_bytes: int = 100_000


@record
class Where:
    """What has configurations: a topic or a broker."""

    topic: str = ""
    broker: str = ""


@record
class Change:
    """One operation on a configuration: SET, DELETE, APPEND or SUBTRACT."""

    operation: str
    name: str
    value: str | None = None


class ClientError(Exception):
    """A broker's answer with an error, by Kafka's code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Kafka error {code}")
        self.code = code


class Share:
    """How many records several members have yet to take, and until when."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self._deadline_s = time.monotonic() + TIMEOUT_S

    @property
    def is_open(self) -> bool:
        """Whether more are to be taken."""
        return self._left > 0 and time.monotonic() < self._deadline_s

    def take(self, count: int) -> int:
        """Take up to *count*, and return how many that are."""
        with self._lock:
            taken = min(count, self._left)
            self._left -= taken
            return taken


class Client(Protocol):
    """A Kafka client; every call connects anew and closes what it opened."""

    name: str

    def create_topic(self, topic: str, partitions: int, configs: dict[str, str]) -> None:
        """Create *topic*; raises ClientError."""

    def delete_topic(self, topic: str) -> None:
        """Delete *topic*; raises ClientError."""

    def topics(self) -> set[str]:
        """Return all topics."""

    def partitions(self, topic: str) -> set[int]:
        """Return the partitions of an existing topic."""

    def configs(self, topic: str) -> dict[str, str]:
        """Return the configuration of a topic as DescribeConfigs has it."""

    def produce(self, topic: str, partition: int, records: list[Sent], how: Producing) -> list[int]:
        """Send *records* in order and return their offsets (-1 with acks=0); raises ClientError."""

    def consume(self, place: Place, count: int) -> list[Received]:
        """Return the next *count* records from *place*, by assignment; waits for them."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (earliest, latest) offset."""

    def delete_records(self, topic: str, partition: int, before: int) -> int:
        """Delete records below *before* (-1: all) and return the low watermark; ClientError."""

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int | None:
        """Return the offset of the first record at or after *timestamp_ms*, if there is one."""

    def add_partitions(self, topic: str, count: int) -> None:
        """Raise the number of partitions to *count*; raises ClientError."""

    def read_in_group(self, topic: str, group: str, members: int, count: int) -> list[Received]:
        """Return *count* records that as many consumers read together, and commit just those."""

    def replace_configs(self, topic: str, configs: dict[str, str]) -> None:
        """Let *topic* have these configurations and no others (AlterConfigs); ClientError."""


class Administrator(Client, Protocol):
    """A client that also speaks the newer of the administrators' APIs."""

    def alter_configs(self, where: Where, *changes: Change) -> None:
        """Change single configurations (IncrementalAlterConfigs); raises ClientError."""

    def configs_of(self, where: Where) -> dict[str, str]:
        """Return the configurations of a topic or broker."""

    def brokers(self) -> set[int]:
        """Return the ids of all brokers."""

    def elect(self, topic: str, partition: int) -> None:
        """Have the preferred replica lead; raises ClientError, also if it does already."""


class MakeClient(Protocol):
    """Makes a client that bootstraps from an address."""

    def __call__(self, bootstrap: Address) -> Client: ...


class MakeAdministrator(Protocol):
    """Makes an administrator that bootstraps from an address."""

    def __call__(self, bootstrap: Address) -> Administrator: ...
