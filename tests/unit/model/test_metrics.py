"""What is counted is shown, and what is shown is counted."""

from corelane.model.metrics import (
    LATENCY_BOUNDS_US,
    METRICS,
    NOT_SHOWN,
    Histogram,
    MetricKind,
    ShardCounts,
    ShardGauges,
)


def test_every_counter_and_gauge_is_in_the_table_once() -> None:
    attributes = [metric.attribute for metric in METRICS]
    counted = {*ShardCounts.__slots__, *ShardGauges.__slots__} - NOT_SHOWN
    assert sorted(attributes) == sorted(counted)
    assert set(ShardCounts.__slots__) >= NOT_SHOWN


def test_everything_starts_at_nothing() -> None:
    counts, gauges = ShardCounts(), ShardGauges()
    for metric in METRICS:
        owner = gauges if metric.kind is MetricKind.GAUGE else counts
        match getattr(owner, metric.attribute):
            case int(value):
                assert value == 0
            case list(by_key):
                assert not any(by_key)
            case Histogram() as histogram:
                assert metric.kind is MetricKind.HISTOGRAM
                assert not any(histogram.counts)
            case other:
                assert other == {}


def test_names_follow_prometheus() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("corelane_")
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.help.endswith(".")
        assert ("seconds" in metric.name) == (metric.scale == 1e-6)
        assert not metric.name.startswith("corelane_shard_") or metric.is_by_core
        assert len(set(metric.labels)) == len(metric.labels)


def test_every_histogram_has_few_buckets_from_a_quarter_millisecond_to_ten_seconds() -> None:
    assert (LATENCY_BOUNDS_US[0], LATENCY_BOUNDS_US[-1]) == (250, 10_000_000)
    assert 12 <= len(LATENCY_BOUNDS_US) <= 14


def test_answers_are_counted_by_api_and_error_with_their_time() -> None:
    counts = ShardCounts()
    counts.answered += [(0, 0, 1_000, 1), (0, 0, 900, 1), (1, 16, 0, 1)]
    counts.count_answers(1_300)
    counts.count_answers(9_999)
    assert counts.requests == {(0, 0): 2, (1, 16): 1}
    assert counts.request_us[0].counts[:2] == [0, 2]
    assert counts.request_us[0].total == 300 + 400
    assert counts.request_us[1].total == 1_300


def test_a_histogram_counts_a_value_at_the_first_bound_not_below_it() -> None:
    histogram = Histogram((10, 20))
    for value in (0, 10, 11, 20, 21):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 62
