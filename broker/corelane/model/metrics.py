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
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 10_000_000,
)  # fmt: skip


class ShardCounts:
    """What one shard has done since it was made. Microseconds are of the runtime's clock."""

    __slots__ = (
        "assertions_failed",
        "batches_appended",
        "batches_duplicate",
        "batches_refused",
        "busy_us",
        "bytes_appended",
        "bytes_fetched",
        "bytes_received",
        "bytes_sent",
        "checkpoints",
        "connections_accepted",
        "connections_closed",
        "elections",
        "fetches_waited",
        "leader_changes",
        "misrouted",
        "produce_held",
        "reads_cold",
        "reads_cold_bytes",
        "records_appended",
        "requests",
        "requests_failed",
        "requests_malformed",
        "requests_timed_out",
        "segment_bytes",
        "segment_writes",
        "trims",
        "turn_events",
        "turn_us",
        "turns",
        "wal_bytes",
        "wal_records",
        "wal_write_us",
        "wal_writes",
    )

    def __init__(self) -> None:
        self.requests = [0] * API_KEYS_MAX
        """By API key."""
        self.requests_failed: dict[tuple[int, int], int] = {}
        """By API key and Kafka error code; only errors that occurred are there."""
        self.misrouted = [0] * API_KEYS_MAX
        """By API key: requests through a door of the node that concern another core."""
        self.requests_malformed = 0
        self.requests_timed_out = 0
        self.connections_accepted = 0
        self.connections_closed = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.batches_appended = 0
        self.records_appended = 0
        self.bytes_appended = 0
        self.batches_duplicate = 0
        self.batches_refused = 0
        self.bytes_fetched = 0
        self.fetches_waited = 0
        self.produce_held = 0
        self.wal_writes = 0
        self.wal_records = 0
        self.wal_bytes = 0
        self.segment_writes = 0
        self.segment_bytes = 0
        self.reads_cold = 0
        self.reads_cold_bytes = 0
        self.checkpoints = 0
        self.trims = 0
        self.elections = 0
        self.leader_changes = 0
        self.assertions_failed = 0
        self.turns = 0
        self.turn_events = 0
        self.busy_us = 0
        self.wal_write_us = Histogram(LATENCY_BOUNDS_US)
        self.turn_us = Histogram(LATENCY_BOUNDS_US)


class ShardGauges:
    """What one shard has at this moment; filled in when asked, never kept up to date."""

    __slots__ = (
        "arena_bytes",
        "connections",
        "log_bytes",
        "partitions",
        "partitions_led",
        "partitions_offline",
        "producers",
        "receive_bytes",
        "requests_waiting",
        "wal_flight_bytes",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.requests_waiting = 0
        self.partitions = 0
        self.partitions_led = 0
        self.partitions_offline = 0
        self.producers = 0
        self.arena_bytes = 0
        self.receive_bytes = 0
        self.wal_flight_bytes = 0
        self.log_bytes = 0


class MetricKind(Enum):
    """How a metric may change."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@record
class Metric:
    """One metric as Prometheus shows it, and the attribute of ShardCounts or ShardGauges it is."""

    name: str
    kind: MetricKind
    attribute: str
    help: str
    labels: tuple[str, ...] = ("core",)
    scale: float = 1.0
    """What to multiply by to reach the unit of the name: 1e-6 from microseconds to seconds."""


_COUNTER = MetricKind.COUNTER
_GAUGE = MetricKind.GAUGE
_HISTOGRAM = MetricKind.HISTOGRAM
_US: Final = 1e-6

# A table reads best with one metric a paragraph.
# fmt: off
METRICS: Final = (
    Metric("corelane_kafka_requests_total", _COUNTER, "requests",
           "Kafka requests received.", ("core", "api")),
    Metric("corelane_kafka_request_errors_total", _COUNTER, "requests_failed",
           "Error codes sent in Kafka answers.", ("core", "api", "error")),
    Metric("corelane_kafka_misrouted_requests_total", _COUNTER, "misrouted",
           "Requests through a door of the node that concern partitions of another core.",
           ("core", "api")),
    Metric("corelane_kafka_requests_malformed_total", _COUNTER, "requests_malformed",
           "Requests that could not be read; each closed its connection."),
    Metric("corelane_kafka_requests_timed_out_total", _COUNTER, "requests_timed_out",
           "Requests answered with REQUEST_TIMED_OUT: their fate was not known in time."),
    Metric("corelane_kafka_connections_accepted_total", _COUNTER, "connections_accepted",
           "Client connections accepted."),
    Metric("corelane_kafka_connections_closed_total", _COUNTER, "connections_closed",
           "Client connections that are gone, whoever closed them."),
    Metric("corelane_kafka_connections", _GAUGE, "connections",
           "Client connections open."),
    Metric("corelane_kafka_requests_waiting", _GAUGE, "requests_waiting",
           "Requests received and not yet answered."),
    Metric("corelane_kafka_received_bytes_total", _COUNTER, "bytes_received",
           "Bytes of Kafka requests received."),
    Metric("corelane_kafka_sent_bytes_total", _COUNTER, "bytes_sent",
           "Bytes of Kafka answers sent."),
    Metric("corelane_produce_batches_total", _COUNTER, "batches_appended",
           "Record batches appended."),
    Metric("corelane_produce_records_total", _COUNTER, "records_appended",
           "Records appended."),
    Metric("corelane_produce_bytes_total", _COUNTER, "bytes_appended",
           "Bytes of record batches appended, as the producers sent them."),
    Metric("corelane_produce_duplicates_total", _COUNTER, "batches_duplicate",
           "Batches of idempotent producers that were in the log already."),
    Metric("corelane_produce_refused_total", _COUNTER, "batches_refused",
           "Batches refused with an error."),
    Metric("corelane_produce_held_total", _COUNTER, "produce_held",
           "Times that no Produce request was read because memory or disk could not follow."),
    Metric("corelane_fetch_bytes_total", _COUNTER, "bytes_fetched",
           "Bytes of record batches sent to consumers."),
    Metric("corelane_fetch_waits_total", _COUNTER, "fetches_waited",
           "Fetch requests that waited for records."),
    Metric("corelane_wal_writes_total", _COUNTER, "wal_writes",
           "Writes to the write-ahead log; each makes many records durable."),
    Metric("corelane_wal_records_total", _COUNTER, "wal_records",
           "Records written to the write-ahead log."),
    Metric("corelane_wal_written_bytes_total", _COUNTER, "wal_bytes",
           "Bytes written to the write-ahead log, with padding."),
    Metric("corelane_wal_write_seconds", _HISTOGRAM, "wal_write_us",
           "From a write's submission to its durability.", scale=_US),
    Metric("corelane_wal_flight_bytes", _GAUGE, "wal_flight_bytes",
           "Bytes handed to the write-ahead log and not yet durable."),
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
    Metric("corelane_trims_total", _COUNTER, "trims",
           "Times that retention or a client moved a partition's start."),
    Metric("corelane_log_bytes", _GAUGE, "log_bytes",
           "Bytes of all partitions on disk."),
    Metric("corelane_arena_bytes", _GAUGE, "arena_bytes",
           "Memory of the log's tail in use."),
    Metric("corelane_receive_bytes", _GAUGE, "receive_bytes",
           "Memory of arriving requests in use."),
    Metric("corelane_raft_elections_total", _COUNTER, "elections",
           "Elections begun."),
    Metric("corelane_raft_leader_changes_total", _COUNTER, "leader_changes",
           "Times that a raft group here got a leader."),
    Metric("corelane_partitions", _GAUGE, "partitions",
           "Replicas of partitions on this core."),
    Metric("corelane_partitions_led", _GAUGE, "partitions_led",
           "Partitions this core leads."),
    Metric("corelane_partitions_offline", _GAUGE, "partitions_offline",
           "Partitions here that are not served because they are damaged."),
    Metric("corelane_producers", _GAUGE, "producers",
           "Producers remembered, over all partitions."),
    Metric("corelane_turns_total", _COUNTER, "turns",
           "Turns of the core's loop."),
    Metric("corelane_turn_events_total", _COUNTER, "turn_events",
           "Events handled in those turns."),
    Metric("corelane_turn_seconds", _HISTOGRAM, "turn_us",
           "Time of one turn.", scale=_US),
    Metric("corelane_busy_seconds_total", _COUNTER, "busy_us",
           "Time in which the loop worked instead of waiting.", scale=_US),
    Metric("corelane_assertions_failed_total", _COUNTER, "assertions_failed",
           "Connections closed because an assertion failed: bugs, each with a line in the log."),
)
# fmt: on
