"""Counts of a core survive the way to Prometheus text: each metric, with its unit and labels."""

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

from corelane.model.metrics import LATENCY_BOUNDS_US, METRICS, Histogram, ShardCounts, ShardGauges
from corelane.runtime import stats
from corelane.runtime.families import families
from corelane.runtime.stats import Names

NAMES = Names({0: "Produce"}, ["INSIDE", "OUTSIDE"])


class Snapshot:
    """A collector of families made before."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> list[Metric]:
        return self.families


def text_of(by_core: dict[int, dict[str, float]]) -> list[str]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot(list(families(by_core))))
    return generate_latest(registry).decode().splitlines()


def filled() -> dict[str, float]:
    """Return what a core of two listeners, one topic and a bit of everything says."""
    counts, gauges = ShardCounts(), ShardGauges()
    counts.wal_writes = 5
    counts.busy_us = 2_500_000
    counts.answered = [(0, 0, 700, 1), (77, 16, 0, 1)]
    counts.count_answers(1_000)
    counts.misrouted[0] = 2
    counts.connections_accepted = {1: 3}
    counts.sibling_frames[1] = 9
    counts.topic_bytes_in["t"] = 40
    for value in (90, 300, 99_000_000):
        counts.turn_us.observe(value)
    gauges.connections = {0: 4, 1: 0}
    gauges.topics = 1
    return stats.flatten(counts, gauges, NAMES)


def test_every_kind_of_count_arrives() -> None:
    text = text_of({0: filled()})
    for line in (
        "corelane_wal_writes_total 5.0",
        'corelane_shard_busy_seconds_total{shard="0"} 2.5',
        'corelane_kafka_requests_total{api="Produce",error="NONE"} 1.0',
        'corelane_kafka_requests_total{api="77",error="NOT_COORDINATOR"} 1.0',
        'corelane_kafka_request_duration_seconds_bucket{api="Produce",le="0.00025"} 0.0',
        'corelane_kafka_request_duration_seconds_bucket{api="Produce",le="0.0005"} 1.0',
        'corelane_kafka_request_duration_seconds_sum{api="Produce"} 0.0003',
        'corelane_kafka_misrouted_requests_total{api="Produce",shard="0"} 2.0',
        'corelane_kafka_connections{listener="INSIDE",shard="0"} 4.0',
        'corelane_kafka_connections{listener="OUTSIDE",shard="0"} 0.0',
        'corelane_kafka_connections_total{listener="OUTSIDE",result="accepted"} 3.0',
        'corelane_kafka_received_bytes_total{topic="t"} 40.0',
        'corelane_shard_messages_total{from="0",to="1"} 9.0',
        'corelane_shard_turn_seconds_bucket{le="0.00025",shard="0"} 1.0',
        'corelane_shard_turn_seconds_bucket{le="0.0005",shard="0"} 2.0',
        'corelane_shard_turn_seconds_bucket{le="10.0",shard="0"} 2.0',
        'corelane_shard_turn_seconds_bucket{le="+Inf",shard="0"} 3.0',
        'corelane_shard_turn_seconds_sum{shard="0"} 99.00039',
        'corelane_shard_turn_seconds_count{shard="0"} 3.0',
    ):
        assert line in text, line


def test_what_has_no_label_for_the_core_is_one_number_for_all() -> None:
    text = text_of({0: filled(), 1: filled(), 2: {"wal_writes": 1.0}})
    for line in (
        "corelane_wal_writes_total 11.0",
        'corelane_kafka_requests_total{api="Produce",error="NONE"} 2.0',
        'corelane_kafka_request_duration_seconds_bucket{api="Produce",le="0.0005"} 2.0',
        'corelane_kafka_request_duration_seconds_count{api="Produce"} 2.0',
        "corelane_topics 1.0",  # each core knows of the same ones
        'corelane_shard_busy_seconds_total{shard="0"} 2.5',
        'corelane_shard_busy_seconds_total{shard="1"} 2.5',
    ):
        assert line in text, line


def test_a_new_shard_shows_every_metric_without_further_labels() -> None:
    flat = stats.flatten(ShardCounts(), ShardGauges(), NAMES)
    names = {family.name for family in families({0: flat})}
    wanted = {row.name.removesuffix("_total") for row in METRICS if row.labels in {(), ("shard",)}}
    assert names == wanted


def test_a_number_of_another_version_is_passed_over() -> None:
    assert not list(families({0: {"unheard_of": 1.0, "misrouted": 2.0}}))


def test_a_node_of_eight_cores_and_a_hundred_topics_stays_within_its_budget() -> None:
    """2,000 series (with 50 groups, which are not counted here yet)."""
    by_core = {}
    for core in range(8):
        counts, gauges = ShardCounts(), ShardGauges()
        for api in range(20):
            counts.requests[api, 0] = 1
            counts.requests[api, 1] = 1
            counts.request_us[api] = Histogram(LATENCY_BOUNDS_US)
        counts.misrouted[:3] = [1, 1, 1]
        counts.connections_accepted = {0: 1, 1: 1}
        gauges.connections = {0: 1, 1: 1}
        for peer in range(8):
            counts.sibling_frames[peer] = counts.sibling_bytes[peer] = 1
        for topic in range(100):
            for column in (
                counts.topic_bytes_in,
                counts.topic_bytes_out,
                counts.topic_records_in,
                counts.topic_records_out,
                gauges.log_bytes,
            ):
                column[f"topic-{topic}"] = 1
        by_core[core] = stats.flatten(counts, gauges, NAMES)
    series = [line for line in text_of(by_core) if not line.startswith("#")]
    assert len(series) < 1_800
