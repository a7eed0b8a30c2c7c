"""Counts of a core survive the way to Prometheus text: each metric, with its unit and labels."""

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

from corelane.model.metrics import METRICS, ShardCounts, ShardGauges
from corelane.runtime import stats
from corelane.runtime.families import families


class Snapshot:
    """A collector of families made before."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> list[Metric]:
        return self.families


def text_of(by_core: dict[int, dict[str, float]]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot(list(families(by_core))))
    return generate_latest(registry).decode()


def test_every_kind_of_count_arrives() -> None:
    counts, gauges = ShardCounts(), ShardGauges()
    counts.wal_writes = 5
    counts.busy_us = 2_500_000
    counts.requests[0] = 7
    counts.requests[77] = 1
    counts.requests_failed[0, 16] = 2
    counts.turn_us.observe(90)
    counts.turn_us.observe(300)
    counts.turn_us.observe(99_000_000)
    gauges.connections = 4
    flat = stats.flatten(counts, gauges, {0: "Produce"})
    text = text_of({0: flat, 1: {"wal_writes": 1.0}})
    for line in (
        'corelane_wal_writes_total{core="0"} 5.0',
        'corelane_wal_writes_total{core="1"} 1.0',
        'corelane_busy_seconds_total{core="0"} 2.5',
        'corelane_kafka_requests_total{api="Produce",core="0"} 7.0',
        'corelane_kafka_requests_total{api="77",core="0"} 1.0',
        'corelane_kafka_request_errors_total{api="Produce",core="0",error="NOT_COORDINATOR"} 2.0',
        'corelane_kafka_connections{core="0"} 4.0',
        'corelane_turn_seconds_bucket{core="0",le="0.0001"} 1.0',
        'corelane_turn_seconds_bucket{core="0",le="0.0005"} 2.0',
        'corelane_turn_seconds_bucket{core="0",le="10.0"} 2.0',
        'corelane_turn_seconds_bucket{core="0",le="+Inf"} 3.0',
        'corelane_turn_seconds_sum{core="0"} 99.00039',
        'corelane_turn_seconds_count{core="0"} 3.0',
    ):
        assert line in text.splitlines(), line


def test_a_new_shard_shows_every_metric_without_further_labels() -> None:
    flat = stats.flatten(ShardCounts(), ShardGauges(), {})
    names = {family.name for family in families({0: flat})}
    wanted = {row.name.removesuffix("_total") for row in METRICS if len(row.labels) == 1}
    assert names == wanted
