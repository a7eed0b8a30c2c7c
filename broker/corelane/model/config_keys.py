"""The one table of settings: name, place, kind, default, unit, reload, range and reason of each.

`config.py` parses by it, `config/corelane.toml` is its printed form, DescribeConfigs and
`corelane config explain` answer from it. Settings that Kafka has carry Kafka's name and meaning;
only our own start with `corelane.`.
"""

from enum import Enum
from typing import Final

from corelane.model import limits
from corelane.model.record import record

Value = bool | int | str

_DAY_MS = 24 * 60 * 60 * 1000


class Reload(Enum):
    """When a changed value acts; the text is what an operator reads."""

    RESTART = "at the next start"
    LIVE = "at once"
    NEW = "for what is made from then on"


@record
class Key:
    """One setting. `minimum` and `maximum` are inclusive; `choices` empty means any text."""

    name: str
    path: str
    """Where `Config` has it: "section.attribute"."""
    default: Value
    unit: str
    reload: Reload
    reason: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()


_RESTART = Reload.RESTART
_LIVE = Reload.LIVE
_NEW = Reload.NEW

# A table reads best with one setting a paragraph.
# fmt: off
_NODE: Final = (
    Key("node.id", "node.id", 1, "", _RESTART,
        "Names this machine in the cluster; broker ids are node.id * 1000 + core.",
        1, limits.NODE_ID_MAX),
    Key("broker.rack", "node.rack", "", "", _RESTART,
        "The failure domain of this machine; empty: the machine is a domain of its own."),
    Key("corelane.data.dir", "node.data_dir", "./data", "path", _RESTART,
        "Everything durable is under it; relative to the directory the broker is started in."),
    Key("corelane.cores", "node.core_count", 0, "processes", _RESTART,
        "One pinned process and one Kafka broker per core; 0: every CPU this process may use.",
        0, limits.CORES_MAX),
    Key("corelane.pin.cores", "node.pin_cores", True, "", _RESTART,
        "Binds each process to its CPU, which keeps its caches warm and its tail flat."),
    Key("corelane.shutdown.handover.max.ms", "node.hand_over_ms", 5_000, "ms", _RESTART,
        "When told to stop, a node of a cluster first lets others lead what it leads, so that no"
        " client misses a leader; for no longer than this, and not at all where nobody could lead."
        " Stay below what stops it for good: ten seconds for docker stop. 0: stops at once.",
        0, 600_000),
)

_NETWORK: Final = (
    Key("corelane.bind.host", "network.bind_host", "127.0.0.1", "address", _RESTART,
        "Where all ports listen. Local by default: there is no authentication unless configured."),
    Key("corelane.port", "network.port", 9092, "port", _RESTART,
        "The bootstrap port; 0: every port is chosen freely and written to ports.json.",
        0, limits.PORT_MAX),
    Key("corelane.core.port.base", "network.core_port_base", -1, "port", _RESTART,
        "Core i listens on this + i; -1: the bootstrap port + 10000.",
        -1, limits.PORT_MAX),
    Key("corelane.advertised.host", "network.advertised_host", "127.0.0.1", "host", _RESTART,
        "What clients are told to connect to; they must be able to reach it."),
    Key("listeners", "network.listeners", "", "NAME://host:port,...", _RESTART,
        "As Kafka's, for more than one address, or in place of bind.host and port: where clients"
        " come in. The port is the bootstrap port. No host, or 0.0.0.0, is every address. Each"
        " client is told the addresses of the listener it came through."
        " Empty: PLAINTEXT on the host and port above."),
    Key("advertised.listeners", "network.advertised_listeners", "", "NAME://host:port,...",
        _RESTART,
        "As Kafka's: where clients reach each listener, when that is not where it listens: behind"
        " NAT, or on every address. Not named: where it listens."),
    Key("corelane.core.port.bases", "network.core_port_bases", "", "NAME:port,...", _RESTART,
        "Core i listens on this + i of each listener. Not named: the bootstrap port + 10000, and"
        " 1000 more for each listener after the first."),
    Key("corelane.advertised.core.port.bases", "network.advertised_core_port_bases", "",
        "NAME:port,...", _RESTART,
        "Core i is reached on this + i, where NAT changes the ports. Not named: where it listens."),
    Key("corelane.peer.port", "network.peer_port", 9192, "port", _RESTART,
        "Where other nodes connect, if this is to be one of several: it listens there only when the"
        " port or seeds are given. 0: any free one.",
        0, limits.PORT_MAX),
    Key("corelane.seeds", "network.seeds", "", "host:port,...", _RESTART,
        "Peer ports of some nodes of the cluster, the same list on each. With an empty directory:"
        " the first of them founds the cluster once a majority answers, all others join it."
        " Empty: this node founds one alone."),
    Key("corelane.admin.port", "network.admin_port", 9644, "port", _RESTART,
        "HTTP: health, metrics, status.",
        0, limits.PORT_MAX),
    Key("corelane.advertise", "network.advertise", "core", "", _RESTART,
        "core: clients connect to the core that owns the partition, with no hop inside."
        " node: one address for the whole node, for NAT and containers.",
        choices=("core", "node")),
    Key("socket.listen.backlog.size", "network.listen_backlog", 1024, "connections", _RESTART,
        "Connections the kernel keeps waiting; Kafka's 50 drops some when all clients reconnect.",
        1, limits.INT16_MAX),
    Key("max.connections", "network.connections_max", limits.CONNECTIONS_MAX, "connections",
        _RESTART,
        "Per core; a further one is closed at once and everyone else is served.",
        1, limits.CONNECTIONS_MAX),
    Key("connections.max.idle.ms", "network.connection_idle_ms", 600_000, "ms", _RESTART,
        "A connection with no request for so long is closed; Kafka's ten minutes.",
        1_000, limits.INT64_MAX),
    Key("socket.request.max.bytes", "network.request_bytes_max",
        limits.REQUEST_BYTES_MAX, "bytes", _RESTART,
        "A larger request closes its connection.",
        limits.BATCH_BYTES_DEFAULT, limits.REQUEST_BYTES_MAX),
    Key("corelane.receive.bytes", "network.receive_bytes", 128 * limits.MIB, "bytes", _RESTART,
        "Per core, for requests that are arriving; beyond, connections wait to be read."
        " Lowered at the start to fit the memory this machine or container allows.",
        limits.RECEIVE_BYTES_MIN, limits.INT64_MAX),
)

_STORAGE: Final = (
    Key("corelane.arena.bytes", "storage.arena_bytes", 256 * limits.MIB, "bytes", _RESTART,
        "Per core, the tail of the log in memory; beyond, Produce requests wait to be read."
        " Lowered at the start to fit the memory this machine or container allows.",
        limits.ARENA_BYTES_MIN, limits.INT64_MAX),
    Key("corelane.recent.bytes", "storage.recent_bytes", 64 * limits.MIB, "bytes", _RESTART,
        "Per core, how much of the log stays in memory, for readers and followers at its end,"
        " when it is on disk too; half of corelane.arena.bytes at most.",
        limits.ARENA_BYTES_MIN // 2, limits.INT64_MAX),
    Key("corelane.wal.dir", "storage.wal_dir", "", "path", _RESTART,
        "Another device for the write-ahead log; empty: in the data directory."),
    Key("corelane.wal.first.file.bytes", "storage.wal_file_first_bytes",
        limits.WAL_FILE_FIRST_BYTES, "bytes", _NEW,
        "Small, because the first start waits until it is filled with zeros.",
        limits.MIB, limits.GIB),
    Key("corelane.wal.file.bytes", "storage.wal_file_bytes", limits.WAL_FILE_BYTES, "bytes", _NEW,
        "Of every later file; they are filled in the background and used again.",
        limits.MIB, limits.GIB),
    Key("corelane.wal.files.max", "storage.wal_files_max", limits.WAL_FILES_MAX, "files", _RESTART,
        "Per core; with the size above it bounds the log's disk space and the time of a restart.",
        3, 1_024),
    Key("corelane.wal.flight.max.bytes", "storage.wal_flight_bytes_max",
        limits.WAL_FLIGHT_BYTES_MAX, "bytes", _RESTART,
        "Per core, handed to the disk and not yet durable; beyond, no Produce request is read.",
        limits.MIB, limits.CORE_UNCOMMITTED_BYTES_MAX),
    Key("corelane.checkpoint.bytes", "storage.checkpoint_bytes", 64 * limits.MIB, "bytes", _RESTART,
        "Log written since the last checkpoint that starts another: what a restart reads again.",
        limits.MIB, limits.INT64_MAX),
    Key("corelane.checkpoint.interval.ms", "storage.checkpoint_interval_ms", 60_000, "ms", _RESTART,
        "The longest time with writes and no checkpoint, as Kafka's recovery point.",
        100, _DAY_MS),
)

_TOPICS: Final = (
    Key("auto.create.topics.enable", "topics.auto_create_enable", True, "", _LIVE,
        "A topic that a client asks for by name is made, if the client allows it too."),
    Key("delete.topic.enable", "topics.delete_enable", True, "", _LIVE,
        "False refuses every DeleteTopics request."),
    Key("num.partitions", "topics.partition_count_default", 1, "partitions", _LIVE,
        "Of topics made without saying how many.",
        1, limits.TOPIC_PARTITIONS_MAX),
    Key("default.replication.factor", "topics.replication_factor_default", 1, "replicas", _LIVE,
        "Of topics made without saying how many.",
        1, limits.REPLICAS_MAX),
)

_LOG: Final = (
    Key("message.max.bytes", "log.message_bytes_max", limits.BATCH_BYTES_DEFAULT, "bytes", _LIVE,
        "The largest record batch as sent; larger ones are refused, and clients split them.",
        0, limits.INT32_MAX),
    Key("log.segment.bytes", "log.segment_bytes", limits.GIB, "bytes", _LIVE,
        "A segment file is closed at this size; retention removes whole files.",
        limits.SEGMENT_BYTES_MIN, limits.SEGMENT_BYTES_MAX),
    Key("log.roll.ms", "log.roll_ms", 7 * _DAY_MS, "ms", _LIVE,
        "A segment file is closed at this age, so that quiet partitions can be trimmed too.",
        1, limits.INT64_MAX),
    Key("log.roll.jitter.ms", "log.roll_jitter_ms", 0, "ms", _LIVE,
        "The age is lowered by up to this much, so that not all partitions roll at once.",
        0, limits.INT64_MAX),
    Key("log.retention.ms", "log.retention_ms", 7 * _DAY_MS, "ms", _LIVE,
        "Records older than this are trimmed; -1 keeps them for ever.",
        -1, limits.INT64_MAX),
    Key("log.retention.bytes", "log.retention_bytes", -1, "bytes", _LIVE,
        "Per partition, what is beyond is trimmed; -1 sets no such limit.",
        -1, limits.INT64_MAX),
    Key("log.retention.check.interval.ms", "log.retention_check_interval_ms", 300_000, "ms", _LIVE,
        "How often a core looks for something to trim.",
        1, limits.INT64_MAX),
    Key("log.segment.delete.delay.ms", "log.segment_delete_delay_ms", 60_000, "ms", _LIVE,
        "No effect: trimmed files go with the next checkpoint, late reads are told so.",
        0, limits.INT64_MAX),
    Key("log.cleanup.policy", "log.cleanup_policy", "delete", "", _LIVE,
        "delete trims by age and size; compact takes records with keys only and trims none; or"
        " both.",
        choices=("delete", "compact", "compact,delete", "delete,compact")),
    Key("log.cleaner.delete.retention.ms", "log.delete_retention_ms", _DAY_MS, "ms", _LIVE,
        "No effect yet: how long the mark of a deleted key stays readable after compaction.",
        0, limits.INT64_MAX),
    Key("compression.type", "log.compression_type", "producer", "", _LIVE,
        "producer keeps what the producer sent, and is the only one that costs nothing.",
        choices=("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd")),
    Key("log.message.timestamp.type", "log.timestamp_type", "CreateTime", "", _LIVE,
        "CreateTime keeps the producer's time; LogAppendTime is the time of arrival here.",
        choices=("CreateTime", "LogAppendTime")),
    Key("log.message.timestamp.before.max.ms", "log.timestamp_before_max_ms",
        limits.INT64_MAX, "ms", _LIVE,
        "A record with a time further in the past is refused (CreateTime only).",
        0, limits.INT64_MAX),
    Key("log.message.timestamp.after.max.ms", "log.timestamp_after_max_ms", 3_600_000, "ms", _LIVE,
        "A record with a time further in the future is refused: it would defeat retention.",
        0, limits.INT64_MAX),
    Key("min.insync.replicas", "log.replicas_in_sync_min", 1, "replicas", _LIVE,
        "Raised to the majority, which every acknowledged write waits for in any case.",
        1, limits.REPLICAS_MAX),
    Key("corelane.strict.validation", "log.strict_validation", False, "", _LIVE,
        "Also decompresses batches to check every record; costs CPU on compressed topics."),
)

_REPLICATION: Final = (
    Key("follower.replication.throttled.rate", "replication.catchup_bytes_per_second",
        64 * limits.MIB, "bytes/s", _LIVE,
        "What each core fetches at most of what its replicas missed while they were away, all of"
        " them together; new records are never held up by it. Lower: the others notice less of a"
        " node that comes back, and it takes longer. Below 1024: as 1024.",
        1, limits.INT64_MAX),
    Key("leader.replication.throttled.rate", "replication.feeding_bytes_per_second",
        limits.INT64_MAX, "bytes/s", _LIVE,
        "What each core reads at most of what replicas elsewhere missed, for all of them together;"
        " each asks for no more than its own limit above in any case. Below 1024: as 1024.",
        1, limits.INT64_MAX),
    Key("corelane.catchup.partitions.max", "replication.catchup_groups_max", 8, "partitions", _LIVE,
        "How many replicas of a core catch up at once from one other core; the rest wait for them.",
        1, 1_000),
    Key("corelane.scrub.bytes.per.second", "replication.scrub_bytes_per_second", 2 * limits.MIB,
        "bytes/s", _LIVE,
        "How fast each core reads its old segments again, to find damage before somebody needs"
        " them; 0: never.",
        0, limits.INT64_MAX),
    Key("corelane.partition.balancer", "replication.balancer", "on", "", _LIVE,
        "on: a node that joins a cluster with topics gets its share of the replicas that others"
        " have, a few at a time. off: only new partitions and `corelane cluster rebalance` bring it"
        " any. What was placed by hand is moved by neither, unless a node is to be filled.",
        choices=("on", "off")),
)

_CLIENTS: Final = (
    Key("fetch.max.bytes", "fetch.bytes_max", 55 * limits.MIB, "bytes", _LIVE,
        "The most one Fetch is answered with (one whole batch is always allowed); as Kafka.",
        1_024, limits.REQUEST_BYTES_MAX),
    Key("max.incremental.fetch.session.cache.slots", "fetch.sessions_max", 1_000, "sessions", _LIVE,
        "How many fetch sessions each core keeps; a consumer that has one names only what changes,"
        " and is told only of what is new. One not used for two minutes gives way to another.",
        0, 100_000),
    Key("corelane.read.consistency", "fetch.consistency", "linearizable", "", _RESTART,
        "What ListOffsets and questions about groups rest on, where a leader that was cut off does"
        " not know yet that another one leads."
        " linearizable: a majority is asked whether it still follows, once for all who wait, so"
        " that nothing is missed that was acknowledged before."
        " lease: as that, without asking, while a majority has promised to follow; needs the same"
        " on all nodes, clocks that run alike, machines that are never suspended, and a network"
        " that refuses connections to nobody but the dead."
        " leader: answered at once, as Kafka does. Fetch always is: it shows what is committed.",
        choices=("linearizable", "lease", "leader")),
    Key("producer.id.expiration.ms", "producers.id_expiration_ms", _DAY_MS, "ms", _NEW,
        "A producer unused for so long, by the time in the log, is no longer protected"
        " from writing a record twice.",
        1, limits.INT32_MAX),
)

_GROUPS: Final = (
    Key("offsets.topic.num.partitions", "groups.partition_count", 50, "partitions", _NEW,
        "How many coordinators consumer groups are spread over; fixed once the topic is made.",
        1, limits.TOPIC_PARTITIONS_MAX),
    Key("offsets.topic.replication.factor", "groups.replication_factor", 3, "replicas", _NEW,
        "Of the topic that groups are kept in; with fewer nodes there are as many as there are.",
        1, limits.REPLICAS_MAX),
    Key("offsets.retention.minutes", "groups.offsets_retention_minutes", 7 * 24 * 60, "min", _LIVE,
        "How long committed offsets are kept after their group has become empty.",
        1, limits.INT32_MAX),
    Key("offset.metadata.max.bytes", "groups.metadata_bytes_max", 4_096, "bytes", _LIVE,
        "Of the text that a client may commit with an offset.",
        0, 64 * limits.KIB),
    Key("group.min.session.timeout.ms", "groups.session_timeout_ms_min", 6_000, "ms", _LIVE,
        "The shortest silence after which a member may ask to be taken for dead.",
        1, limits.INT32_MAX),
    Key("group.max.session.timeout.ms", "groups.session_timeout_ms_max", 1_800_000, "ms", _LIVE,
        "The longest; partitions of a dead member are read by nobody until then.",
        1, limits.INT32_MAX),
    Key("group.initial.rebalance.delay.ms", "groups.initial_delay_ms", 3_000, "ms", _LIVE,
        "How long the first member of an empty group waits for others, so that starting many at"
        " once is one rebalance; 0 in `corelane dev`.",
        0, limits.INT32_MAX),
    Key("group.max.size", "groups.members_max", 10_000, "members", _LIVE,
        "Of one group; each rebalance tells its leader of all of them.",
        1, 100_000),
    Key("group.consumer.session.timeout.ms", "groups.consumer_session_timeout_ms", 45_000, "ms",
        _LIVE,
        "The same for group.protocol=consumer (KIP-848), where the broker chooses.",
        1, limits.INT32_MAX),
    Key("group.consumer.heartbeat.interval.ms", "groups.consumer_heartbeat_interval_ms", 5_000,
        "ms", _LIVE,
        "How often members of such groups report, and so how soon they hear of a new assignment.",
        1, limits.INT32_MAX),
    Key("group.consumer.migration.policy", "groups.consumer_migration_policy", "bidirectional", "",
        _LIVE,
        "Which groups may change their protocol while members are in them: classic ones that a"
        " member with group.protocol=consumer joins (upgrade), such groups when only classic"
        " members are left (downgrade), or both.",
        choices=("bidirectional", "upgrade", "downgrade", "disabled")),
)

_TRANSACTIONS: Final = (
    Key("transaction.state.log.num.partitions", "transactions.partition_count", 50, "partitions",
        _NEW,
        "How many coordinators transactions are spread over; fixed once the topic is made.",
        1, limits.TOPIC_PARTITIONS_MAX),
    Key("transaction.state.log.replication.factor", "transactions.replication_factor", 3,
        "replicas", _NEW,
        "Of the topic that transactions are kept in; with fewer nodes as many as there are.",
        1, limits.REPLICAS_MAX),
    Key("transaction.max.timeout.ms", "transactions.timeout_ms_max", 900_000, "ms", _LIVE,
        "The longest timeout a producer may ask for: so long a dead one may hold up readers of"
        " committed records.",
        1, limits.INT32_MAX),
    Key("transactional.id.expiration.ms", "transactions.id_expiration_ms", 7 * _DAY_MS, "ms", _LIVE,
        "A transactional id that was not used for so long is forgotten.",
        1, limits.INT32_MAX),
    Key("transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "transactions.abort_interval_ms", 1_000, "ms", _LIVE,
        "How often transactions that have been open for too long are looked for; Kafka's 10,000"
        " hold up readers for longer.",
        1, limits.INT32_MAX),
    Key("corelane.transaction.push.age.ms", "transactions.push_age_ms", 60_000, "ms", _LIVE,
        "How long a transaction is open in a partition before that asks its coordinator whether it"
        " still lives: to ask is harmless, and what nobody knows any more is aborted.",
        1_000, limits.INT32_MAX),
)
# fmt: on

KEYS: Final = (
    _NODE + _NETWORK + _STORAGE + _TOPICS + _LOG + _REPLICATION + _CLIENTS + _GROUPS + _TRANSACTIONS
)
KEYS_BY_NAME: Final = {key.name: key for key in KEYS}
HEADINGS: Final = {
    "node": "This machine",
    "network": "Addresses and connections",
    "storage": "Memory and the write-ahead log",
    "topics": "New topics",
    "log": "What a topic does unless its own configuration says other",
    "replication": "Replicas that lag, and damage",
    "fetch": "Reading",
    "producers": "Idempotent producers",
    "groups": "Consumer groups",
    "transactions": "Transactions",
}

FACTORS: Final = {
    "log.retention.minutes": ("log.retention.ms", 60_000),
    "log.retention.hours": ("log.retention.ms", 3_600_000),
    "log.roll.hours": ("log.roll.ms", 3_600_000),
    "log.roll.jitter.hours": ("log.roll.jitter.ms", 3_600_000),
}
"""Kafka's other spellings of a setting: the key they stand for and what to multiply by."""

HINTS: Final = {
    "broker.id": "the machine is named by node.id",
    "log.dir": "the data directory is corelane.data.dir",
    "log.dirs": "there is one data directory, corelane.data.dir",
    "listener.security.protocol.map": "every listener is plaintext in this version; leave it out",
    "inter.broker.listener.name": "nodes talk on corelane.peer.port; leave it out",
    "controller.listener.names": "every node is broker and controller; leave it out",
    "advertised.host.name": "use corelane.advertised.host, or advertised.listeners",
    "advertised.port": "use advertised.listeners",
    "port": "the bootstrap port is corelane.port",
    "host.name": "use corelane.bind.host",
    "process.roles": "every node is broker and controller; leave it out",
    "controller.quorum.voters": "the controller needs no setting on one node; leave it out",
    "zookeeper.connect": "there is no ZooKeeper here; leave it out",
    "controlled.shutdown.enable": "the limit is corelane.shutdown.handover.max.ms; 0 is none",
    "num.network.threads": "there are no thread pools; the number of processes is corelane.cores",
    "num.io.threads": "there are no thread pools; the number of processes is corelane.cores",
}
"""Kafka settings people bring along, and what to write instead."""

assert len(KEYS_BY_NAME) == len(KEYS)
assert len({key.path for key in KEYS}) == len(KEYS)
assert not any(a != b and b.startswith(a + ".") for a in KEYS_BY_NAME for b in KEYS_BY_NAME), (
    "a TOML file could not hold both"
)
assert all(target in KEYS_BY_NAME for target, _ in FACTORS.values())
assert not (HINTS.keys() | FACTORS.keys()) & KEYS_BY_NAME.keys()
