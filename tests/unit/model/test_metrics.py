"""What is counted is shown, and what is shown is counted."""

from corelane.model.metrics import METRICS, Histogram, MetricKind, ShardCounts, ShardGauges


def test_every_counter_and_gauge_is_in_the_table_once() -> None:
    attributes = [metric.attribute for metric in METRICS]
    assert sorted(attributes) == sorted({*ShardCounts.__slots__, *ShardGauges.__slots__})


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


def test_a_histogram_counts_a_value_at_the_first_bound_not_below_it() -> None:
    histogram = Histogram((10, 20))
    for value in (0, 10, 11, 20, 21):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 62
