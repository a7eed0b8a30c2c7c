"""DescribeConfigs: values with the list of what would act in their place."""

from corelane.cluster.describe import (
    ConfigRow,
    ConfigSource,
    Dynamic,
    broker_rows,
    default_rows,
    topic_rows,
)
from corelane.cluster.topic_config_keys import TOPIC_CONFIGS
from corelane.model.config import defaults, parse
from corelane.model.config_keys import KEYS, Reload
from corelane.model.ids import BrokerId


def one(rows: list[ConfigRow]) -> ConfigRow:
    (row,) = rows
    return row


def synonyms(row: ConfigRow) -> list[tuple[str, str, int]]:
    return [(synonym.name, synonym.value, synonym.source) for synonym in row.synonyms]


def test_a_topic_shows_every_configuration_in_order() -> None:
    rows = topic_rows({}, defaults(), {}, None)
    names = [row.name for row in rows]
    assert names == sorted(config.name for config in TOPIC_CONFIGS if not config.is_hidden)
    assert all(row.is_default and row.source == 5 for row in rows)
    assert not any(row.is_read_only or row.is_sensitive for row in rows)


def test_only_the_names_asked_for_are_shown_and_unknown_ones_left_out() -> None:
    rows = topic_rows({}, defaults(), {}, ["retention.ms", "nonsense"])
    assert [row.name for row in rows] == ["retention.ms"]
    assert topic_rows({}, defaults(), {}, []) == []


def test_a_topics_own_value_is_first_then_the_file_then_the_default() -> None:
    config = parse("log.retention.ms = 6")
    row = one(topic_rows({"retention.ms": "5"}, config, {}, ["retention.ms"]))
    assert (row.value, row.source, row.kind, row.is_default) == ("5", 1, 5, False)
    assert synonyms(row) == [
        ("retention.ms", "5", 1),
        ("log.retention.ms", "6", 4),
        ("log.retention.ms", "604800000", 5),
    ]


def test_a_value_of_the_file_is_static_also_when_it_is_the_default() -> None:
    row = one(topic_rows({}, parse("log.segment.bytes = 1073741824"), {}, ["segment.bytes"]))
    assert (row.value, row.source) == ("1073741824", 4)


def test_a_configuration_without_a_broker_setting_has_no_synonyms() -> None:
    row = one(topic_rows({}, defaults(), {}, ["remote.storage.enable"]))
    assert (row.value, row.source, row.synonyms) == ("false", 5, [])


def test_a_dropped_configuration_is_shown_where_it_is_set() -> None:
    row = one(
        topic_rows({"message.format.version": "2.8"}, defaults(), {}, ["message.format.version"])
    )
    assert (row.value, row.source) == ("2.8", 1)
    assert topic_rows({}, defaults(), {}, ["message.format.version"]) == []


def test_what_was_changed_at_run_time_wins_by_its_source() -> None:
    own, common = ConfigSource.DYNAMIC_BROKER_CONFIG, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
    dynamic: Dynamic = {own: {"log.retention.ms": "7"}, common: {"log.retention.ms": "8"}}
    config = parse("log.retention.ms = 6")
    expected = [
        ("log.retention.ms", "7", 2),
        ("log.retention.ms", "8", 3),
        ("log.retention.ms", "6", 4),
        ("log.retention.ms", "604800000", 5),
    ]
    row = one(topic_rows({"retention.ms": "5"}, config, dynamic, ["retention.ms"]))
    assert synonyms(row) == [("retention.ms", "5", 1), *expected]
    row = one(broker_rows(config, dynamic, BrokerId(1000), ["log.retention.ms"]))
    assert (row.value, row.source, row.is_read_only) == ("7", 2, False)
    assert synonyms(row) == expected
    (row,) = default_rows(dynamic[common], None)
    assert (row.name, row.value, row.source) == ("log.retention.ms", "8", 3)


def test_a_broker_shows_every_setting_and_which_can_be_changed() -> None:
    rows = broker_rows(parse("num.partitions = 4"), {}, BrokerId(1000), None)
    names = [row.name for row in rows]
    assert names == sorted([*(key.name for key in KEYS), "broker.id", "log.dirs"])
    live = {key.name for key in KEYS if key.reload is Reload.LIVE}
    assert {row.name for row in rows if not row.is_read_only} == live
    assert all(row.doc for row in rows)
    row = one([row for row in rows if row.name == "num.partitions"])
    assert (row.value, row.source, row.kind) == ("4", 4, 3)
    assert synonyms(row) == [("num.partitions", "4", 4), ("num.partitions", "1", 5)]


def test_kinds_are_kafkas_numbers() -> None:
    names = {
        "auto.create.topics.enable": (1, "true"),
        "compression.type": (2, "producer"),
        "message.max.bytes": (3, "1048588"),
        "log.retention.ms": (5, "604800000"),
        "log.cleanup.policy": (7, "delete"),
        "log.dirs": (7, "./data"),
        "broker.id": (3, "1000"),
    }
    rows = broker_rows(defaults(), {}, BrokerId(1000), names)
    assert {row.name: (row.kind, row.value) for row in rows} == names
