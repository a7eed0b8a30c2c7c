"""What a core counts, as plain numbers, and the one list of metrics made from them.

Code in the core does `counts.wal_writes += 1`; nothing here knows who reads it. The runtime pulls
the numbers once per scrape and names them by `METRICS`. Everything starts at 0 and only counters
of the same life are compared: keeping them from falling when a core restarts is the reader's part.
"""

from bisect import bisect_left
from enum import Enum
from typing import Final

from corelane.model.record import record

API_KEYS_MAX: Final = 128
"""Kafka's keys are below 100; what is above is counted at the last place."""


class Histogram:
    """How many observed values fell into each range; bounds are inclusive, in rising order."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        assert list(bounds) == sorted(set(bounds))
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """The last one is of the values above every bound."""
        self.total = 0

    def observe(self, value: int) -> None:
        """Count one value, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


LATENCY_BOUNDS_US: Final = (
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
)  # fmt: skip
"""The same everywhere, so that any two can be compared."""

UNSTABLE_SHOWN_MAX: Final = 64
"""Partitions of a core with open transactions that have numbers of their own: the furthest."""

TOPICS_SHOWN_MAX: Final = 500
"""Topics with numbers of their own; what concerns others is added up as the topic `OTHER_TOPICS`.

A broker must not be killed by its own metrics: ten thousand topics are half a million samples.
"""
OTHER_TOPICS: Final = "other topics"
"""Has a space, which no topic's name has."""


class TopicCounts:
    """What one core has done for one topic while it existed."""

    __slots__ = ("bytes_in", "bytes_out", "records_in", "records_out")

    def __init__(self) -> None:
        self.bytes_in = 0
        self.records_in = 0
        self.bytes_out = 0
        self.records_out = 0


class ShardCounts:
    """What one shard has done since it was made. Microseconds are of the runtime's clock."""

    __slots__ = (
        "answered",
        "assertions_failed",
        "batches_appended",
        "batches_duplicate",
        "batches_refused",
        "busy_us",
        "bytes_received",
        "bytes_sent",
        "checkpoints",
        "connections_accepted",
        "cpu_us",
        "elections",
        "fetch_sessions_evicted",
        "fetches_waited",
        "gc_us",
        "leader_changes",
        "loop_lag_us",
        "misrouted",
        "now_us",
        "produce_held",
        "reads_cold",
        "reads_cold_bytes",
        "repairs_done",
        "request_us",
        "requests",
        "requests_malformed",
        "requests_timed_out",
        "scrubbed_bytes",
        "segment_bytes",
        "segment_writes",
        "segments_rotten",
        "sibling_bytes",
        "sibling_frames",
        "topic_bytes_in",
        "topic_bytes_out",
        "topic_records_in",
        "topic_records_out",
        "trimmed_bytes",
        "trims",
        "turn_events",
        "turn_us",
        "turns",
        "votes_sent",
        "wal_bytes",
        "wal_records",
        "wal_write_us",
        "wal_writes",
    )

    def __init__(self) -> None:
        self.now_us = 0
        """When the turn began; the runtime sets it, and only measures by it."""
        self.answered: list[tuple[int, int, int, int]] = []
        """(API key, error code, when it came, how many) of what is answered in this turn."""
        self.requests: dict[tuple[int, int], int] = {}
        """By API key and the first error of the answer; only what occurred is there."""
        self.request_us: dict[int, Histogram] = {}
        """By API key: from a request's arrival to the end of the turn that sent its answer."""
        self.misrouted = [0] * API_KEYS_MAX
        """By API key: requests through a door of the node that concern another core."""
        self.requests_malformed = 0
        self.requests_timed_out = 0
        self.connections_accepted: dict[int, int] = {}
        """By the number of the listener."""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.batches_appended = 0
        self.batches_duplicate = 0
        self.batches_refused = 0
        self.topic_bytes_in: dict[str, int] = {}
        """By topic, as the next three; gathered from the topics when asked for."""
        self.topic_records_in: dict[str, int] = {}
        self.topic_bytes_out: dict[str, int] = {}
        self.topic_records_out: dict[str, int] = {}
        self.fetches_waited = 0
        self.fetch_sessions_evicted = 0
        self.produce_held = 0
        self.sibling_frames: dict[int, int] = {}
        """By core: frames sent to it, and below their bytes."""
        self.sibling_bytes: dict[int, int] = {}
        self.wal_writes = 0
        self.wal_records = 0
        self.wal_bytes = 0
        self.segment_writes = 0
        self.segment_bytes = 0
        self.reads_cold = 0
        self.reads_cold_bytes = 0
        self.scrubbed_bytes = 0
        self.segments_rotten = 0
        self.repairs_done = 0
        self.checkpoints = 0
        self.trims = 0
        self.trimmed_bytes = 0
        self.elections = 0
        self.votes_sent = 0
        self.leader_changes = 0
        self.assertions_failed = 0
        self.turns = 0
        self.turn_events = 0
        self.busy_us = 0
        self.cpu_us = 0
        self.gc_us = 0
        self.wal_write_us = Histogram(LATENCY_BOUNDS_US)
        self.turn_us = Histogram(LATENCY_BOUNDS_US)
        self.loop_lag_us = Histogram(LATENCY_BOUNDS_US)

    def count_answers(self, now_us: int) -> None:
        """Count what was answered in the turn that ends now."""
        requests, request_us = self.requests, self.request_us
        for api_key, error, began_us, count in self.answered:
            kind = (api_key, error)
            if kind in requests:
                requests[kind] += count
            else:
                requests[kind] = count
            if api_key not in request_us:
                request_us[api_key] = Histogram(LATENCY_BOUNDS_US)
            histogram = request_us[api_key]  # `observe`, without the call: it is for each request
            took_us = now_us - began_us
            histogram.counts[bisect_left(LATENCY_BOUNDS_US, took_us)] += count
            histogram.total += took_us * count
        self.answered.clear()


NOT_SHOWN: Final = frozenset({"now_us", "answered"})
"""Slots of ShardCounts that are means, and no metrics."""


class ShardGauges:
    """What one shard has at this moment; filled in when asked, never kept up to date."""

    __slots__ = (
        "arena_bytes",
        "connections",
        "damaged",
        "fetch_session_rows",
        "fetch_sessions",
        "groups",
        "is_disk_full",
        "log_bytes",
        "partitions",
        "partitions_led",
        "producers",
        "receive_bytes",
        "requests_waiting",
        "rss_bytes",
        "segments",
        "topics",
        "transaction_age_us",
        "unstable_records",
        "wal_flight_bytes",
    )

    def __init__(self) -> None:
        self.connections: dict[int, int] = {}
        """By the number of the listener."""
        self.requests_waiting = 0
        self.groups = 0
        self.partitions = 0
        """Of all topics, as far as this core knows."""
        self.partitions_led = 0
        self.damaged = 0
        self.topics = 0
        """Of the cluster, as far as this core knows."""
        self.producers = 0
        self.fetch_sessions = 0
        self.fetch_session_rows = 0
        self.arena_bytes = 0
        self.receive_bytes = 0
        self.wal_flight_bytes = 0
        self.segments = 0
        self.log_bytes: dict[str, int] = {}
        """By topic; every topic shown is there, so that its end is seen."""
        self.unstable_records: dict[str, dict[int, int]] = {}
        """By topic and partition: committed, and behind an open transaction."""
        self.transaction_age_us: dict[str, dict[int, int]] = {}
        """Of the oldest open one, likewise."""
        self.is_disk_full = 0
        self.rss_bytes = 0


class MetricKind(Enum):
    """How a metric may change."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(Enum):
    """What becomes of one metric's numbers of several cores, where they have no label for it."""

    SUM = "sum"
    MAX = "max"


@record
class Metric:
    """One metric as Prometheus shows it, and the attribute of ShardCounts or ShardGauges it is.

    Where the first label is `shard` or `from`, each core has samples of its own; the others are
    merged, so that a node of many cores has no more samples than one of few.
    """

    name: str
    kind: MetricKind
    attribute: str
    help: str
    labels: tuple[str, ...] = ()
    scale: float = 1.0
    """What to multiply by to reach the unit of the name: 1e-6 from microseconds to seconds."""
    merge: Merge = Merge.SUM

    @property
    def is_by_core(self) -> bool:
        """Whether each core has samples of its own."""
        return self.labels[:1] in {("shard",), ("from",)}


_COUNTER = MetricKind.COUNTER
_GAUGE = MetricKind.GAUGE
_HISTOGRAM = MetricKind.HISTOGRAM
_SHARD: Final = ("shard",)
_TOPIC: Final = ("topic",)
_LINK: Final = ("from", "to")
_US: Final = 1e-6

# A table reads best with one metric a paragraph.
# fmt: off
_KAFKA: Final = (
    Metric("corelane_kafka_requests_total", _COUNTER, "requests",
           "Kafka requests answered, by the first error in the answer.", ("api", "error")),
    Metric("corelane_kafka_request_duration_seconds", _HISTOGRAM, "request_us",
           "From a request's arrival to its answer's departure; a Fetch waits for records.",
           ("api",), _US),
    Metric("corelane_kafka_requests_malformed_total", _COUNTER, "requests_malformed",
           "Requests that could not be read; each closed its connection."),
    Metric("corelane_kafka_requests_timed_out_total", _COUNTER, "requests_timed_out",
           "Requests answered with REQUEST_TIMED_OUT: their fate was not known in time."),
    Metric("corelane_kafka_misrouted_requests_total", _COUNTER, "misrouted",
           "Requests through a door of the node that concern partitions of another core.",
           ("shard", "api")),
    Metric("corelane_kafka_connections", _GAUGE, "connections",
           "Client connections open.", ("shard", "listener")),
    Metric("corelane_kafka_connections_total", _COUNTER, "connections_accepted",
           "Client connections, by what became of them: accepted or refused.",
           ("listener", "result")),
    Metric("corelane_kafka_received_bytes_total", _COUNTER, "topic_bytes_in",
           "Bytes of record batches appended, as the producers sent them.", _TOPIC),
    Metric("corelane_kafka_records_produced_total", _COUNTER, "topic_records_in",
           "Records appended.", _TOPIC),
    Metric("corelane_kafka_sent_bytes_total", _COUNTER, "topic_bytes_out",
           "Bytes of record batches sent to consumers.", _TOPIC),
    Metric("corelane_kafka_records_fetched_total", _COUNTER, "topic_records_out",
           "Records sent to consumers.", _TOPIC),
    Metric("corelane_kafka_batches_total", _COUNTER, "batches_appended",
           "Record batches appended."),
    Metric("corelane_kafka_batches_duplicate_total", _COUNTER, "batches_duplicate",
           "Batches of idempotent producers that were in the log already."),
    Metric("corelane_kafka_batches_refused_total", _COUNTER, "batches_refused",
           "Batches of idempotent producers that did not follow the ones before."),
    Metric("corelane_kafka_produce_held_total", _COUNTER, "produce_held",
           "Times that no Produce request was read because memory or disk could not follow."),
    Metric("corelane_kafka_fetch_waits_total", _COUNTER, "fetches_waited",
           "Fetch requests that waited for records."),
    Metric("corelane_kafka_fetch_sessions", _GAUGE, "fetch_sessions",
           "Fetch sessions of consumers that are kept."),
    Metric("corelane_kafka_fetch_session_partitions", _GAUGE, "fetch_session_rows",
           "Partitions in them, all together."),
    Metric("corelane_kafka_fetch_session_evictions_total", _COUNTER, "fetch_sessions_evicted",
           "Fetch sessions that gave way to others."),
    Metric("corelane_kafka_producers", _GAUGE, "producers",
           "Producers remembered, over all partitions."),
)

_LOG: Final = (
    Metric("corelane_topics", _GAUGE, "topics",
           "Topics of the cluster.", merge=Merge.MAX),
    Metric("corelane_partitions", _GAUGE, "partitions",
           "Partitions of the cluster.", merge=Merge.MAX),
    Metric("corelane_damaged_partitions", _GAUGE, "damaged",
           "Replicas here that are damaged: being repaired from others, or offline."),
    Metric("corelane_repairs_total", _COUNTER, "repairs_done",
           "Damaged replicas here that have all again that they had lost."),
    Metric("corelane_scrubbed_bytes_total", _COUNTER, "scrubbed_bytes",
           "Bytes of old segments that were read again to see whether they are whole."),
    Metric("corelane_scrub_damaged_total", _COUNTER, "segments_rotten",
           "Damaged segments found that no other replica can repair."),
    Metric("corelane_raft_groups", _GAUGE, "groups",
           "Raft groups with a replica on this core.", _SHARD),
    Metric("corelane_raft_leaders", _GAUGE, "partitions_led",
           "Partitions this core leads.", _SHARD),
    Metric("corelane_raft_leader_changes_total", _COUNTER, "leader_changes",
           "Times that a raft group here got a leader."),
    Metric("corelane_raft_elections_total", _COUNTER, "elections",
           "Elections begun."),
    Metric("corelane_raft_votes_sent_total", _COUNTER, "votes_sent",
           "Requests for votes, for pre-votes too, and answers to them that were sent."),
    Metric("corelane_log_bytes", _GAUGE, "log_bytes",
           "Bytes of a topic's partitions, with what is only in the write-ahead log yet.", _TOPIC),
    Metric("corelane_unstable_records", _GAUGE, "unstable_records",
           "Records behind an open transaction, which readers of committed ones wait for; of the"
           " 64 partitions of a core that have most.", ("topic", "partition")),
    Metric("corelane_transaction_age_seconds", _GAUGE, "transaction_age_us",
           "For how long the oldest open transaction of such a partition has been seen.",
           ("topic", "partition"), 1e-6, Merge.MAX),
    Metric("corelane_segments", _GAUGE, "segments",
           "Segment files of all partitions."),
    Metric("corelane_log_trims_total", _COUNTER, "trims",
           "Times that retention or a client moved a partition's start."),
    Metric("corelane_log_trimmed_bytes_total", _COUNTER, "trimmed_bytes",
           "Bytes of segment files deleted since they lay before the start of their partition."),
    Metric("corelane_fsync_duration_seconds", _HISTOGRAM, "wal_write_us",
           "From a write to the write-ahead log to its durability.", scale=_US),
    Metric("corelane_wal_writes_total", _COUNTER, "wal_writes",
           "Writes to the write-ahead log; each makes many records durable."),
    Metric("corelane_wal_records_total", _COUNTER, "wal_records",
           "Records written to the write-ahead log."),
    Metric("corelane_wal_written_bytes_total", _COUNTER, "wal_bytes",
           "Bytes written to the write-ahead log, with padding."),
    Metric("corelane_segment_writes_total", _COUNTER, "segment_writes",
           "Writes to segment files."),
    Metric("corelane_segment_written_bytes_total", _COUNTER, "segment_bytes",
           "Bytes written to segment files."),
    Metric("corelane_cold_reads_total", _COUNTER, "reads_cold",
           "Reads of segment files for records that were no longer in memory."),
    Metric("corelane_cold_read_bytes_total", _COUNTER, "reads_cold_bytes",
           "Bytes of those reads."),
    Metric("corelane_checkpoints_total", _COUNTER, "checkpoints",
           "Checkpoints completed."),
)

_CORES: Final = (
    Metric("corelane_shard_busy_seconds_total", _COUNTER, "busy_us",
           "Time in which the core's loop worked instead of waiting.", _SHARD, _US),
    Metric("corelane_shard_loop_lag_seconds", _HISTOGRAM, "loop_lag_us",
           "The longest time in each second in which the loop looked at nothing new.",
           _SHARD, _US),
    Metric("corelane_shard_turn_seconds", _HISTOGRAM, "turn_us",
           "Time of one turn of the loop.", _SHARD, _US),
    Metric("corelane_shard_turns_total", _COUNTER, "turns",
           "Turns of the loop.", _SHARD),
    Metric("corelane_shard_turn_events_total", _COUNTER, "turn_events",
           "Events handled in those turns.", _SHARD),
    Metric("corelane_shard_queue_depth", _GAUGE, "requests_waiting",
           "Requests received and not yet answered.", _SHARD),
    Metric("corelane_shard_messages_total", _COUNTER, "sibling_frames",
           "Frames sent from one core of this node to another.", _LINK),
    Metric("corelane_shard_message_bytes_total", _COUNTER, "sibling_bytes",
           "Bytes of those frames.", _LINK),
    Metric("corelane_shard_received_bytes_total", _COUNTER, "bytes_received",
           "Bytes received from clients.", _SHARD),
    Metric("corelane_shard_sent_bytes_total", _COUNTER, "bytes_sent",
           "Bytes sent to clients.", _SHARD),
    Metric("corelane_shard_cpu_seconds_total", _COUNTER, "cpu_us",
           "CPU time of the core's process, with its disk threads.", _SHARD, _US),
    Metric("corelane_shard_gc_seconds_total", _COUNTER, "gc_us",
           "Time in Python's garbage collector, which runs between turns.", _SHARD, _US),
    Metric("corelane_shard_rss_bytes", _GAUGE, "rss_bytes",
           "Resident memory of the core's process.", _SHARD),
    Metric("corelane_shard_arena_bytes", _GAUGE, "arena_bytes",
           "Memory of the log's tail in use.", _SHARD),
    Metric("corelane_shard_receive_bytes", _GAUGE, "receive_bytes",
           "Memory of arriving requests in use.", _SHARD),
    Metric("corelane_shard_wal_flight_bytes", _GAUGE, "wal_flight_bytes",
           "Bytes handed to the write-ahead log and not yet durable.", _SHARD),
    Metric("corelane_shard_disk_full", _GAUGE, "is_disk_full",
           "1 while the core refuses to write because its disk is full.", _SHARD),
    Metric("corelane_shard_assertions_failed_total", _COUNTER, "assertions_failed",
           "Connections closed because an assertion failed: bugs, each with a line in the log.",
           _SHARD),
)
# fmt: on

METRICS: Final = _KAFKA + _LOG + _CORES
"""What cores count. What the supervisor knows itself is in `runtime/exporter.py`."""
