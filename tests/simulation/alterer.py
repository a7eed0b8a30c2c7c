"""A simulated administrator that alters a topic, adds partitions, and looks whether it all stays.

It is the only one that alters its resources. A change that was not answered may have been made or
not, and stays in doubt until a later one of the same setting is acknowledged (H10, H11).
"""

from collections.abc import Callable

from corelane.model.errors import ERRORS, ErrorCode
from corelane.wire.compiler import Message, message_type
from tests.simulation.clients import Client
from tests.simulation.history import History
from tests.simulation.simulator import Node

METADATA, DESCRIBE_CONFIGS, CREATE_PARTITIONS, INCREMENTAL_ALTER_CONFIGS = 3, 32, 37, 44
SET, DELETE = 0, 1
TOPIC, BROKER = 2, 4
ADDED_MAX = 3
OWN_SOURCES = {TOPIC: 1, BROKER: 2}
CHOICES: dict[int, dict[str, tuple[str, ...]]] = {
    TOPIC: {
        "compression.type": ("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
        "compression.zstd.level": ("1", "5"),
        "max.message.bytes": ("300000", "1000000"),
        "segment.jitter.ms": ("0", "5"),
        "message.timestamp.type": ("CreateTime", "LogAppendTime"),
        "cleanup.policy": ("delete", "compact,delete"),
        "corelane.strict.validation": ("true", "false"),
        "flush.ms": ("1", "1000"),
    },
    BROKER: {
        "log.retention.check.interval.ms": ("40", "200"),
        "num.partitions": ("2", "3"),
        "message.max.bytes": ("300000", "2000000"),
    },
}
"""What may change under clients that must not notice."""

Resource = tuple[int, str]


class Alterer(Client):
    """Alters one topic, and perhaps the broker, now and then."""

    def __init__(
        self, node: Node, history: History, topic: str, partitions: int, requests: int
    ) -> None:
        super().__init__(node, history, f"alterer-{topic}")
        self.topic = topic
        self.resources: list[Resource] = [(TOPIC, topic)]
        self.left = requests
        self.counts = (partitions, partitions)  # acknowledged, asked for
        self.most = partitions + ADDED_MAX
        self.grown: Callable[[str, int], None] = lambda _topic, _number: None
        self.altered = 0
        self.verified = 0
        self.wanted: dict[str, str | None] = {}
        self.resource: Resource = self.resources[0]
        self.is_wrong = False
        self.is_busy = False
        self.is_looking = False  # in order, to verify everything

    # --- what it does ---

    def connected(self) -> None:
        """Begin; mostly by looking, for the node may have started a moment ago."""
        if self.simulator.random.random() < 0.7:
            self.is_busy = True
            self.resource = self.simulator.random.choice(self.resources)
            self._look_at()
        else:
            self._act_later()

    def disconnected(self) -> None:
        self.is_busy = self.is_looking = False

    def verify(self) -> None:
        """Look at everything, now and until it was answered."""
        assert self.left == 0
        self.verified = 0
        if self.link is not None and not self.is_busy:
            self._look()

    @property
    def is_verified(self) -> bool:
        """Whether everything was looked at since `verify`."""
        return self.verified > len(self.resources)

    def _act_later(self) -> None:
        self.is_busy = self.is_looking = False
        link = self.link
        delay_us = self.simulator.random.choice((0, 1_000, 20_000, 100_000))

        def now() -> None:
            if self.link is link and link is not None and link.is_open:
                self._act()

        self.simulator.after(delay_us, now)

    def _act(self) -> None:
        if self.is_busy:
            return
        if self.left == 0:
            if not self.is_verified:
                self._look()
            return
        self.left -= 1
        self.resource = self.simulator.random.choice(self.resources)
        act = self.simulator.random.choice((self._alter, self._alter, self._grow, self._look_at))
        self.is_busy = True
        act()

    def _look(self) -> None:
        self.is_busy = self.is_looking = True
        if self.verified < len(self.resources):
            self.resource = self.resources[self.verified]
            self._look_at()
        else:
            name = message_type("MetadataRequest.MetadataRequestTopic")(name=self.topic)
            request = message_type("MetadataRequest")(topics=[name])
            self.ask(METADATA, 9, request)

    def _alter(self) -> None:
        rng, kind = self.simulator.random, self.resource[0]
        names = rng.sample(sorted(CHOICES[kind]), rng.randrange(1, 3))
        self.wanted = {name: rng.choice((None, *CHOICES[kind][name])) for name in names}
        self.is_wrong = rng.random() < 0.2
        row = message_type("IncrementalAlterConfigsRequest.AlterableConfig")
        rows = [
            row(name=name, config_operation=DELETE if value is None else SET, value=value)
            for name, value in self.wanted.items()
        ]
        if self.is_wrong:
            rows.append(row(name="compression.type", config_operation=SET, value="burn"))
            if "compression.type" in self.wanted:
                rows.pop()
                rows.append(row(name="no.such.setting", config_operation=SET, value="1"))
        else:
            self.history.note_altering(self.resource, self.wanted)
        resource = message_type("IncrementalAlterConfigsRequest.AlterConfigsResource")(
            resource_type=kind, resource_name=self.resource[1], configs=rows
        )
        request = message_type("IncrementalAlterConfigsRequest")(resources=[resource])
        self.ask(INCREMENTAL_ALTER_CONFIGS, rng.randrange(2), request)

    def _grow(self) -> None:
        least, asked = self.counts
        count = min(asked + 1, self.most)
        self.counts = (least, count)
        topic = message_type("CreatePartitionsRequest.CreatePartitionsTopic")(
            name=self.topic, count=count, assignments=None
        )
        request = message_type("CreatePartitionsRequest")(topics=[topic], timeout_ms=1_000)
        self.ask(CREATE_PARTITIONS, self.simulator.random.randrange(4), request)

    def _look_at(self) -> None:
        kind, name = self.resource
        resource = message_type("DescribeConfigsRequest.DescribeConfigsResource")(
            resource_type=kind, resource_name=name, configuration_keys=sorted(CHOICES[kind])
        )
        request = message_type("DescribeConfigsRequest")(resources=[resource])
        self.ask(DESCRIBE_CONFIGS, self.simulator.random.randrange(1, 5), request)

    # --- what it hears ---

    def answered(self, key: int, message: Message) -> None:
        if key == INCREMENTAL_ALTER_CONFIGS:
            self._altered(message.responses[0])
        elif key == CREATE_PARTITIONS:
            self._extended(message.results[0])
        elif key == DESCRIBE_CONFIGS:
            self._described(message.results[0])
        else:
            self._counted(message.topics[0])
        self._act_later()

    def _altered(self, row: Message) -> None:
        if row.error_code == 0:
            assert not self.is_wrong, "a wrong change was taken"
            self.history.note_altered(self.resource, self.wanted)
            self.altered += 1
        else:
            is_expected = self.is_wrong and row.error_code == ErrorCode.INVALID_CONFIG
            is_expected |= self.is_wrong and row.error_code == ErrorCode.INVALID_REQUEST
            assert is_expected or ERRORS[row.error_code].is_retriable, f"{self.name}: {row}"

    def _extended(self, row: Message) -> None:
        least, asked = self.counts
        if row.error_code == 0:
            self.counts = (asked, asked)
            for number in range(least, asked):
                self.grown(self.topic, number)
        elif row.error_code == ErrorCode.INVALID_PARTITIONS:
            assert asked == self.most, f"{self.name}: {row}"  # asked for again
        else:
            assert ERRORS[row.error_code].is_retriable, f"{self.name}: {row}"

    def _described(self, result: Message) -> None:
        if result.error_code:
            assert ERRORS[result.error_code].is_retriable, f"{self.name}: {result}"
            return
        own = OWN_SOURCES[self.resource[0]]
        there = {row.name: row.value for row in result.configs if row.config_source == own}
        self.history.note_described(self.resource, there, CHOICES[self.resource[0]])
        self.verified += self.is_looking

    def _counted(self, topic: Message) -> None:
        if topic.error_code:
            assert ERRORS[topic.error_code].is_retriable, f"{self.name}: {topic}"
            return
        self.history.check_count(self.topic, len(topic.partitions), *self.counts)
        self.verified += self.is_looking
