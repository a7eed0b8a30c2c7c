"""The one table of topic configurations: Kafka's well-known ones, and two of our own.

All of Kafka's are accepted, stored and described, also where nothing here depends on them: tools
send them, and people were locked out of brokers that refused. Those that change nothing here say
why (`no_effect`), and so does every place that shows them; config/TOPICS.md is made from here.
"""

from enum import IntEnum
from typing import Final

from corelane.model import limits
from corelane.model.record import record


class ConfigKind(IntEnum):
    """Kafka's numbers for the type of a configuration (DescribeConfigs)."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7


@record
class TopicConfig:
    """One configuration. Bounds are inclusive; `choices` are of a value, or of a list's items."""

    name: str
    kind: ConfigKind
    default: str
    server_key: str
    """The broker setting that is its default; empty: it has none."""
    doc: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    excluded: tuple[int, ...] = ()
    """Numbers within the bounds that are not allowed all the same."""
    item_pattern: str = ""
    """What each item of a list must match, and in words (`item_words`); empty: anything."""
    item_words: str = ""
    is_hidden: bool = False
    """Accepted, but not described: Kafka has dropped it, or keeps it for tests."""
    no_effect: str = ""
    """Why it changes nothing here, as a phrase; empty: it acts."""

    @property
    def acts(self) -> bool:
        """Whether it changes what this broker does."""
        return not self.no_effect

    @property
    def documentation(self) -> str:
        """What clients are told of it."""
        return f"{self.doc} No effect here: {self.no_effect}." if self.no_effect else self.doc


_BOOLEAN = ConfigKind.BOOLEAN
_STRING = ConfigKind.STRING
_INT = ConfigKind.INT
_LONG = ConfigKind.LONG
_DOUBLE = ConfigKind.DOUBLE
_LIST = ConfigKind.LIST

_DAY_MS = str(24 * 60 * 60 * 1000)
_WEEK_MS = str(7 * 24 * 60 * 60 * 1000)
_FOREVER = str(limits.INT64_MAX)
_REPLICA = r"\*|[0-9]+:[0-9]+"
_REPLICA_WORDS = "PARTITION:BROKER, or *,"

# A table reads best with one configuration a paragraph.
# fmt: off
TOPIC_CONFIGS: Final = (
    TopicConfig("cleanup.policy", _LIST, "delete", "log.cleanup.policy",
        "What becomes of old records: delete trims by age and size; compact alone never does, and"
        " refuses records without a key, but does not remove replaced ones yet; both do both;"
        " none keeps all.",
        choices=("compact", "delete")),
    TopicConfig("compression.gzip.level", _INT, "-1", "compression.gzip.level",
        "The level used when compression.type is gzip and a batch comes in another codec.",
        -1, 9, excluded=(0,)),
    TopicConfig("compression.lz4.level", _INT, "9", "compression.lz4.level",
        "The level used when compression.type is lz4 and a batch comes in another codec.",
        1, 17),
    TopicConfig("compression.type", _STRING, "producer", "compression.type",
        "The codec batches are stored with: their producer's, or this one. A batch in another"
        " codec is compressed again when it arrives, which costs CPU.",
        choices=("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")),
    TopicConfig("compression.zstd.level", _INT, "3", "compression.zstd.level",
        "The level used when compression.type is zstd and a batch comes in another codec.",
        -131_072, 22),
    TopicConfig("delete.retention.ms", _LONG, _DAY_MS, "log.cleaner.delete.retention.ms",
        "How long the mark of a deleted key stays readable after compaction.",
        0,
        no_effect="nothing is compacted yet"),
    TopicConfig("file.delete.delay.ms", _LONG, "60000", "log.segment.delete.delay.ms",
        "How long a file stays on disk after its records are gone.",
        0,
        no_effect="it goes with the next checkpoint, and a read that comes too late learns that its"
        " offset is gone"),
    TopicConfig("flush.messages", _LONG, _FOREVER, "log.flush.interval.messages",
        "Records between two syncs.",
        1,
        no_effect="every record is synced at once"),
    TopicConfig("flush.ms", _LONG, _FOREVER, "log.flush.interval.ms",
        "Time between two syncs.",
        0,
        no_effect="every record is synced at once"),
    TopicConfig("follower.replication.throttled.replicas", _LIST, "", "",
        "Replicas whose catching up is slowed down.",
        item_pattern=_REPLICA, item_words=_REPLICA_WORDS,
        no_effect="whatever replicas missed is slowed down, by the broker's rate"),
    TopicConfig("index.interval.bytes", _INT, "4096", "log.index.interval.bytes",
        "Bytes between two entries of the offset index.",
        0,
        no_effect="every batch is indexed"),
    TopicConfig("leader.replication.throttled.replicas", _LIST, "", "",
        "Replicas whose sending is slowed down.",
        item_pattern=_REPLICA, item_words=_REPLICA_WORDS,
        no_effect="whatever replicas missed is slowed down, by the broker's rate"),
    TopicConfig("local.retention.bytes", _LONG, "-2", "log.local.retention.bytes",
        "Bytes that stay on local disk with tiered storage.",
        -2,
        no_effect="tiered storage is not offered"),
    TopicConfig("local.retention.ms", _LONG, "-2", "log.local.retention.ms",
        "How long records stay on local disk with tiered storage.",
        -2,
        no_effect="tiered storage is not offered"),
    TopicConfig("max.compaction.lag.ms", _LONG, _FOREVER, "log.cleaner.max.compaction.lag.ms",
        "The longest time before a record is looked at for compaction.",
        1,
        no_effect="nothing is compacted yet"),
    TopicConfig("max.message.bytes", _INT, str(limits.BATCH_BYTES_DEFAULT), "message.max.bytes",
        "The largest record batch, as it is sent and as it is stored; larger ones are refused.",
        0),
    TopicConfig("message.timestamp.after.max.ms", _LONG, "3600000",
        "log.message.timestamp.after.max.ms",
        "A record whose time is further ahead of the broker's is refused (CreateTime only).",
        0),
    TopicConfig("message.timestamp.before.max.ms", _LONG, _FOREVER,
        "log.message.timestamp.before.max.ms",
        "A record whose time is further behind the broker's is refused (CreateTime only).",
        0),
    TopicConfig("message.timestamp.type", _STRING, "CreateTime", "log.message.timestamp.type",
        "Whose time a record carries: its producer's, or that of its arrival here.",
        choices=("CreateTime", "LogAppendTime")),
    TopicConfig("min.cleanable.dirty.ratio", _DOUBLE, "0.5", "log.cleaner.min.cleanable.ratio",
        "The share of new records that starts a compaction.",
        0, 1,
        no_effect="nothing is compacted yet"),
    TopicConfig("min.compaction.lag.ms", _LONG, "0", "log.cleaner.min.compaction.lag.ms",
        "The shortest time before a record is looked at for compaction.",
        0,
        no_effect="nothing is compacted yet"),
    TopicConfig("min.insync.replicas", _INT, "1", "min.insync.replicas",
        "Replicas that must have a record before it is acknowledged; raised to the majority.",
        1),
    TopicConfig("preallocate", _BOOLEAN, "false", "log.preallocate",
        "Reserve the space of a new segment file.",
        no_effect="the write-ahead log is what must not run out of space, and it always has its"
        " own"),
    TopicConfig("remote.copy.lag.bytes", _LONG, "0", "log.remote.copy.lag.bytes",
        "How many bytes tiered storage waits before it copies.",
        -1,
        no_effect="tiered storage is not offered"),
    TopicConfig("remote.copy.lag.ms", _LONG, "0", "log.remote.copy.lag.ms",
        "How long tiered storage waits before it copies.",
        -1,
        no_effect="tiered storage is not offered"),
    TopicConfig("remote.log.copy.disable", _BOOLEAN, "false", "",
        "Whether tiered storage is read only.",
        no_effect="tiered storage is not offered"),
    TopicConfig("remote.log.delete.on.disable", _BOOLEAN, "false", "",
        "What becomes of tiered data when it is switched off.",
        no_effect="tiered storage is not offered"),
    TopicConfig("remote.storage.enable", _BOOLEAN, "false", "",
        "Tiered storage; only false is accepted.",
        choices=("false",),
        no_effect="tiered storage is not offered"),
    TopicConfig("retention.bytes", _LONG, "-1", "log.retention.bytes",
        "Bytes a partition may have before its oldest records are trimmed, by whole segments;"
        " -1: no such limit.",
        -1),
    TopicConfig("retention.ms", _LONG, _WEEK_MS, "log.retention.ms",
        "The age at which records are trimmed, when all of their segment has it; -1: never.",
        -1),
    TopicConfig("segment.bytes", _INT, str(limits.GIB), "log.segment.bytes",
        "The size at which a segment file is closed and another begun.",
        limits.SEGMENT_BYTES_MIN),
    TopicConfig("segment.index.bytes", _INT, "10485760", "log.index.size.max.bytes",
        "The size of Kafka's offset index.",
        4,
        no_effect="the index is as large as it needs to be"),
    TopicConfig("segment.jitter.ms", _LONG, "0", "log.roll.jitter.ms",
        "The age of segment.ms is lowered by up to this, for each partition by another part, so"
        " that not all files are closed at once.",
        0),
    TopicConfig("segment.ms", _LONG, _WEEK_MS, "log.roll.ms",
        "The age at which a segment file is closed and another begun.",
        1),
    TopicConfig("unclean.leader.election.enable", _BOOLEAN, "false",
        "unclean.leader.election.enable",
        "Let a replica lead that lacks acknowledged records.",
        no_effect="that never happens"),

    # Kafka has dropped these; tools and old topic descriptions still send them.
    TopicConfig("message.downconversion.enable", _BOOLEAN, "true",
        "log.message.downconversion.enable",
        "Answer clients of before 2017 in their record formats.",
        is_hidden=True,
        no_effect="they are no longer served, by Kafka neither"),
    TopicConfig("message.format.version", _STRING, "3.0-IV1", "log.message.format.version",
        "The record format.",
        is_hidden=True,
        no_effect="there is one"),
    TopicConfig("message.timestamp.difference.max.ms", _LONG, _FOREVER,
        "log.message.timestamp.difference.max.ms",
        "How far a record's time may be from the broker's.",
        0, is_hidden=True,
        no_effect="message.timestamp.before.max.ms and message.timestamp.after.max.ms are in its"
        " place"),
    TopicConfig("internal.segment.bytes", _INT, "", "",
        "segment.bytes without its lower bound; for tests.",
        4096, is_hidden=True),

    # Ours.
    TopicConfig("corelane.strict.validation", _BOOLEAN, "false", "corelane.strict.validation",
        "Decompress batches to check every record in them; uncompressed ones always are."),
    TopicConfig("write.caching", _BOOLEAN, "false", "",
        "Answer a producer when a majority has the record in memory: faster, and what a majority"
        " loses at once (with one replica: a crash of its core) is gone although acknowledged."),
)
# fmt: on

BY_NAME: Final = {config.name: config for config in TOPIC_CONFIGS}

assert len(BY_NAME) == len(TOPIC_CONFIGS)
