"""The one table of topic configurations: Kafka's well-known ones, and two of our own.

All of Kafka's are accepted, stored and described, also where nothing here depends on them: tools
send them, and people were locked out of brokers that refused. `acts` says which change what this
broker does; the documentation marks the others from here.
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
    acts: bool
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
    TopicConfig("cleanup.policy", _LIST, "delete", "log.cleanup.policy", True,
        "What becomes of old records: delete trims by age and size, compact keeps the last"
        " record of each key and refuses records without one, both do both, none keeps all.",
        choices=("compact", "delete")),
    TopicConfig("compression.gzip.level", _INT, "-1", "compression.gzip.level", True,
        "The level used when compression.type is gzip and a batch comes in another codec.",
        -1, 9, excluded=(0,)),
    TopicConfig("compression.lz4.level", _INT, "9", "compression.lz4.level", True,
        "The level used when compression.type is lz4 and a batch comes in another codec.",
        1, 17),
    TopicConfig("compression.type", _STRING, "producer", "compression.type", True,
        "The codec batches are stored with: their producer's, or this one. A batch in another"
        " codec is compressed again when it arrives, which costs CPU.",
        choices=("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")),
    TopicConfig("compression.zstd.level", _INT, "3", "compression.zstd.level", True,
        "The level used when compression.type is zstd and a batch comes in another codec.",
        -131_072, 22),
    TopicConfig("delete.retention.ms", _LONG, _DAY_MS, "log.cleaner.delete.retention.ms", False,
        "How long the mark of a deleted key stays readable after compaction.",
        0),
    TopicConfig("file.delete.delay.ms", _LONG, "60000", "log.segment.delete.delay.ms", False,
        "How long a file stays on disk after its records are gone. Here it goes with the next"
        " checkpoint, and a read that comes too late learns that its offset is gone.",
        0),
    TopicConfig("flush.messages", _LONG, _FOREVER, "log.flush.interval.messages", False,
        "Records between two syncs. Every acknowledged record is synced here in any case.",
        1),
    TopicConfig("flush.ms", _LONG, _FOREVER, "log.flush.interval.ms", False,
        "Time between two syncs. Every acknowledged record is synced here in any case.",
        0),
    TopicConfig("follower.replication.throttled.replicas", _LIST, "", "", False,
        "Replicas whose catching up is slowed down; here every follower sees to that itself.",
        item_pattern=_REPLICA, item_words=_REPLICA_WORDS),
    TopicConfig("index.interval.bytes", _INT, "4096", "log.index.interval.bytes", False,
        "Bytes between two entries of the offset index. Every batch is indexed here.",
        0),
    TopicConfig("leader.replication.throttled.replicas", _LIST, "", "", False,
        "Replicas whose sending is slowed down; here every follower sees to that itself.",
        item_pattern=_REPLICA, item_words=_REPLICA_WORDS),
    TopicConfig("local.retention.bytes", _LONG, "-2", "log.local.retention.bytes", False,
        "What stays on local disk with tiered storage, which is not offered.",
        -2),
    TopicConfig("local.retention.ms", _LONG, "-2", "log.local.retention.ms", False,
        "What stays on local disk with tiered storage, which is not offered.",
        -2),
    TopicConfig("max.compaction.lag.ms", _LONG, _FOREVER, "log.cleaner.max.compaction.lag.ms",
        False,
        "The longest time before a record is looked at for compaction.",
        1),
    TopicConfig("max.message.bytes", _INT, str(limits.BATCH_BYTES_DEFAULT), "message.max.bytes",
        True,
        "The largest record batch, as the producer sent it; larger ones are refused.",
        0),
    TopicConfig("message.timestamp.after.max.ms", _LONG, "3600000",
        "log.message.timestamp.after.max.ms", True,
        "A record whose time is further ahead of the broker's is refused (CreateTime only).",
        0),
    TopicConfig("message.timestamp.before.max.ms", _LONG, _FOREVER,
        "log.message.timestamp.before.max.ms", True,
        "A record whose time is further behind the broker's is refused (CreateTime only).",
        0),
    TopicConfig("message.timestamp.type", _STRING, "CreateTime", "log.message.timestamp.type", True,
        "Whose time a record carries: its producer's, or that of its arrival here.",
        choices=("CreateTime", "LogAppendTime")),
    TopicConfig("min.cleanable.dirty.ratio", _DOUBLE, "0.5", "log.cleaner.min.cleanable.ratio",
        False,
        "The share of new records that starts a compaction.",
        0, 1),
    TopicConfig("min.compaction.lag.ms", _LONG, "0", "log.cleaner.min.compaction.lag.ms", False,
        "The shortest time before a record is looked at for compaction.",
        0),
    TopicConfig("min.insync.replicas", _INT, "1", "min.insync.replicas", True,
        "Replicas that must have a record before it is acknowledged; raised to the majority.",
        1),
    TopicConfig("preallocate", _BOOLEAN, "false", "log.preallocate", False,
        "Reserve the space of a new segment file; the write-ahead log here always has its own."),
    TopicConfig("remote.copy.lag.bytes", _LONG, "0", "log.remote.copy.lag.bytes", False,
        "When tiered storage copies, which is not offered.",
        -1),
    TopicConfig("remote.copy.lag.ms", _LONG, "0", "log.remote.copy.lag.ms", False,
        "When tiered storage copies, which is not offered.",
        -1),
    TopicConfig("remote.log.copy.disable", _BOOLEAN, "false", "", False,
        "Whether tiered storage is read only; it is not offered."),
    TopicConfig("remote.log.delete.on.disable", _BOOLEAN, "false", "", False,
        "What becomes of tiered data when it is switched off; it is not offered."),
    TopicConfig("remote.storage.enable", _BOOLEAN, "false", "", False,
        "Tiered storage, which is not offered: only false is accepted.",
        choices=("false",)),
    TopicConfig("retention.bytes", _LONG, "-1", "log.retention.bytes", True,
        "Bytes a partition may have before its oldest records are trimmed, by whole segments;"
        " -1: no such limit.",
        -1),
    TopicConfig("retention.ms", _LONG, _WEEK_MS, "log.retention.ms", True,
        "The age at which records are trimmed, when all of their segment has it; -1: never.",
        -1),
    TopicConfig("segment.bytes", _INT, str(limits.GIB), "log.segment.bytes", True,
        "The size at which a segment file is closed and another begun.",
        limits.SEGMENT_BYTES_MIN),
    TopicConfig("segment.index.bytes", _INT, "10485760", "log.index.size.max.bytes", False,
        "The size of Kafka's offset index; the index here is as large as it needs to be.",
        4),
    TopicConfig("segment.jitter.ms", _LONG, "0", "log.roll.jitter.ms", False,
        "The age of segment.ms is lowered by up to this, so that not all files roll at once.",
        0),
    TopicConfig("segment.ms", _LONG, _WEEK_MS, "log.roll.ms", False,
        "The age at which a segment file is closed and another begun.",
        1),
    TopicConfig("unclean.leader.election.enable", _BOOLEAN, "false",
        "unclean.leader.election.enable", False,
        "Let a replica lead that lacks acknowledged records. That never happens here."),

    # Kafka has dropped these; tools and old topic descriptions still send them.
    TopicConfig("message.downconversion.enable", _BOOLEAN, "true",
        "log.message.downconversion.enable", False,
        "Answer clients of before 2017 in their record formats; no longer done by anyone.",
        is_hidden=True),
    TopicConfig("message.format.version", _STRING, "3.0-IV1", "log.message.format.version", False,
        "The record format; there is one.",
        is_hidden=True),
    TopicConfig("message.timestamp.difference.max.ms", _LONG, _FOREVER,
        "log.message.timestamp.difference.max.ms", False,
        "Replaced by message.timestamp.before.max.ms and message.timestamp.after.max.ms.",
        0, is_hidden=True),
    TopicConfig("internal.segment.bytes", _INT, "", "", True,
        "segment.bytes without its lower bound; for tests.",
        4096, is_hidden=True),

    # Ours.
    TopicConfig("corelane.strict.validation", _BOOLEAN, "false", "corelane.strict.validation", True,
        "Decompress batches to check every record in them; uncompressed ones always are."),
    TopicConfig("write.caching", _BOOLEAN, "false", "", True,
        "Answer a producer when a majority has the record in memory: faster, and what a majority"
        " loses at once (with one replica: a crash of its core) is gone although acknowledged."),
)
# fmt: on

BY_NAME: Final = {config.name: config for config in TOPIC_CONFIGS}

assert len(BY_NAME) == len(TOPIC_CONFIGS)
