"""Topic configurations: as text they are checked like Kafka's, as values they are typed."""

import pytest

from corelane.cluster.topic_config import effective, fault_of
from corelane.cluster.topic_config_keys import BY_NAME, TOPIC_CONFIGS, ConfigKind
from corelane.model.config import defaults, parse
from corelane.model.config_keys import KEYS_BY_NAME
from tests.tools import topic_table

# Kafka 4.3: LogConfig.nonInternalConfigNames, and the two of 4.4.
KAFKA = [
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.copy.lag.bytes",
    "remote.copy.lag.ms",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
]
DROPPED = {
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.difference.max.ms",
}


def test_all_of_kafkas_configurations_are_known() -> None:
    shown = {config.name for config in TOPIC_CONFIGS if not config.is_hidden}
    assert shown == {*KAFKA, "write.caching", "corelane.strict.validation"}
    assert DROPPED | {"internal.segment.bytes"} == BY_NAME.keys() - shown


OTHER = {
    ConfigKind.BOOLEAN: {"true": "false", "false": "true"},
    ConfigKind.DOUBLE: {"0.5": "0.25"},
    ConfigKind.LIST: {"delete": "compact", "": "1:1"},
    ConfigKind.STRING: {
        "producer": "zstd",
        "CreateTime": "LogAppendTime",
        "3.0-IV1": "2.8",
    },
}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_acts_changes_what_partitions_do_and_the_rest_says_why_not(name: str) -> None:
    config = BY_NAME[name]
    if name == "remote.storage.enable":
        assert not config.acts, "it can have one value only"
        return
    if config.kind in OTHER:
        other = OTHER[config.kind][config.default]
    else:
        other = "5000000" if config.maximum is None else "5"
    assert fault_of(name, other) is None
    beside = {}
    if name.startswith("compression.") and name.endswith(".level"):
        beside = {"compression.type": name.split(".")[1]}
    is_changed = effective({name: other} | beside, defaults()) != effective(beside, defaults())
    assert is_changed == config.acts


def test_what_does_not_act_is_described_so() -> None:
    for config in TOPIC_CONFIGS:
        assert config.documentation.startswith(config.doc)
        assert ("No effect here: " in config.documentation) == (not config.acts)
        assert config.documentation.endswith(".")
        assert not config.no_effect.endswith(".")


def test_the_page_of_configurations_is_made_from_the_table() -> None:
    """After a change run `python -m tests.tools.topic_table`."""
    page = topic_table.TARGET.read_text()
    assert page == topic_table.text()
    assert all(f"`{config.name}`" in page for config in TOPIC_CONFIGS)


def test_files_are_closed_at_ages_that_are_spread_over_the_jitter() -> None:
    settings = effective({"segment.ms": "1000", "segment.jitter.ms": "400"}, defaults())
    ages_ms = [settings.roll_ms(group) for group in range(1, 101)]
    assert ages_ms == [settings.roll_ms(group) for group in range(1, 101)]
    assert all(600 < age_ms <= 1000 for age_ms in ages_ms)
    quarters = {(age_ms - 601) // 100 for age_ms in ages_ms}
    assert quarters == {0, 1, 2, 3}
    assert effective({"segment.ms": "1000"}, defaults()).roll_ms(5) == 1000
    # Kafka never lowers an age by more than there is of it.
    most = effective({"segment.ms": "10", "segment.jitter.ms": "99"}, defaults())
    assert {most.roll_ms(group) for group in range(1, 101)} == set(range(1, 11))


def test_every_default_is_a_value() -> None:
    for config in TOPIC_CONFIGS:
        if config.default or config.name != "internal.segment.bytes":
            assert fault_of(config.name, config.default) is None, config.name
        assert config.doc.endswith(".")


def test_a_default_is_that_of_the_broker_setting_it_follows() -> None:
    for config in TOPIC_CONFIGS:
        key = KEYS_BY_NAME.get(config.server_key)
        if key is not None:
            default = key.default
            text = str(default).lower() if isinstance(default, bool) else str(default)
            assert text == config.default, config.name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "-1"),
        ("retention.ms", " 100 "),
        ("retention.ms", "+7"),
        ("retention.ms", str(2**63 - 1)),
        ("segment.bytes", "1048576"),
        ("cleanup.policy", "compact,delete"),
        ("cleanup.policy", "delete , compact"),
        ("cleanup.policy", ""),
        ("compression.type", "zstd"),
        ("compression.zstd.level", "-5"),
        ("preallocate", "TRUE"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("min.cleanable.dirty.ratio", "1e-3"),
        ("message.format.version", "0.10.2-IV0"),
        ("follower.replication.throttled.replicas", "0:1,1:2"),
        ("leader.replication.throttled.replicas", "*"),
        ("remote.storage.enable", "false"),
        ("write.caching", "true"),
        ("internal.segment.bytes", "4096"),
    ],
)
def test_what_kafka_takes_is_taken(name: str, value: str) -> None:
    assert fault_of(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("retention.ms", "", "a whole number from -1 to 9223372036854775807"),
        ("retention.ms", "1.5", "a whole number"),
        ("retention.ms", "1_000", "a whole number"),
        ("retention.ms", "\u0661", "a whole number"),
        ("retention.ms", str(2**63), "a whole number"),
        ("retention.ms", "-2", "a whole number from -1"),
        ("retention.ms", "1" * 200, "…"),
        ("segment.bytes", "1048575", "a whole number from 1048576 to 2147483647"),
        ("segment.bytes", str(2**31), "a whole number"),
        ("compression.gzip.level", "10", "from -1 to 9, but not 0"),
        ("compression.gzip.level", "0", "from -1 to 9, but not 0"),
        ("leader.replication.throttled.replicas", "0", "a list of PARTITION:BROKER"),
        ("follower.replication.throttled.replicas", "0:1,x", "a list of PARTITION:BROKER"),
        ("cleanup.policy", "delete,delete", "nothing twice"),
        ("cleanup.policy", "compact;delete", "a list of compact, delete"),
        ("compression.type", "ZSTD", "one of uncompressed, zstd, lz4, snappy, gzip, producer"),
        ("message.timestamp.type", "createtime", "one of CreateTime, LogAppendTime"),
        ("preallocate", "yes", "true or false"),
        ("min.cleanable.dirty.ratio", "1.01", "a number from 0 to 1"),
        ("min.cleanable.dirty.ratio", "nan", "a number"),
        ("remote.storage.enable", "true", "it must be false"),
        ("internal.segment.bytes", "4095", "from 4096"),
        ("retention", "1", "Unknown topic config name: retention"),
    ],
)
def test_what_kafka_refuses_is_refused_with_what_is_allowed(
    name: str, value: str, why: str
) -> None:
    sentence = fault_of(name, value)
    assert sentence is not None
    assert why in sentence
    assert name in sentence
    assert len(sentence) < 250


def test_a_topic_follows_the_broker_where_it_says_nothing() -> None:
    config = parse(
        """
        message.max.bytes = 5_000
        log.retention.hours = 1
        log.cleanup.policy = "compact,delete"
        log.message.timestamp.type = "LogAppendTime"
        corelane.strict.validation = true
        """
    )
    settings = effective({}, config)
    assert settings.message_bytes_max == 5_000
    assert settings.retention_ms == 3_600_000
    assert (settings.is_compacted, settings.is_deleted) == (True, True)
    assert settings.is_log_append_time
    assert settings.is_strict
    assert not settings.is_write_caching
    assert not settings.bounds_timestamps


def test_a_topics_own_configurations_win() -> None:
    settings = effective(
        {
            "max.message.bytes": "77",
            "cleanup.policy": "compact",
            "segment.bytes": "2000000",
            "message.timestamp.type": "CreateTime",
            "message.timestamp.after.max.ms": "9",
            "write.caching": "true",
            "min.insync.replicas": "2",
        },
        parse('log.message.timestamp.type = "LogAppendTime"'),
    )
    assert settings.message_bytes_max == 77
    assert (settings.is_compacted, settings.is_deleted) == (True, False)
    assert settings.segment_bytes == 2_000_000
    assert settings.timestamp_after_max_ms == 9
    assert settings.bounds_timestamps
    assert settings.is_write_caching
    assert settings.min_insync_replicas == 2


def test_with_no_policy_everything_is_kept() -> None:
    settings = effective({"cleanup.policy": ""}, defaults())
    assert (settings.is_compacted, settings.is_deleted) == (False, False)


def test_no_batch_may_be_larger_than_a_request() -> None:
    settings = effective({"max.message.bytes": str(2**31 - 1)}, defaults())
    assert settings.message_bytes_max == defaults().network.request_bytes_max


def test_tests_may_have_small_segments() -> None:
    assert effective({"internal.segment.bytes": "8192"}, defaults()).segment_bytes == 8192


def test_a_stored_value_that_cannot_be_read_counts_as_not_set() -> None:
    """Another version may have written it; the fold of the log must not fail on it."""
    settings = effective({"retention.ms": "for ever", "unknown": "x"}, defaults())
    assert settings == effective({}, defaults())
