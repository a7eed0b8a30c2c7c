"""The configuration file: what it may say, and what is said about everything wrong in it."""

from pathlib import Path

import pytest

from corelane.model import config_text, limits
from corelane.model.config import (
    ConfigError,
    MemoryPlan,
    defaults,
    fit_memory,
    parse,
    values,
)
from corelane.model.config_keys import HEADINGS, HINTS, KEYS

FILE = Path(__file__).parents[3] / "config" / "corelane.toml"


def faults(text: str, **overrides: str) -> dict[str, str]:
    """Return what is wrong with *text*, by key."""
    with pytest.raises(ConfigError) as caught:
        parse(text, {name.replace("_", "."): value for name, value in overrides.items()})
    found = {fault.key: fault.sentence for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults), "one fault a key is enough"
    assert all(sentence in str(caught.value) for sentence in found.values())
    return found


def test_the_file_in_the_repository_says_the_defaults() -> None:
    assert parse(FILE.read_text()) == defaults()


def test_the_file_in_the_repository_is_the_printed_table() -> None:
    """After a change write `config_text.example()` there."""
    assert FILE.read_text() == config_text.example()


def test_every_setting_is_in_the_file_under_its_unit_and_reason() -> None:
    paragraphs = FILE.read_text().split("\n\n")
    for key in KEYS:
        (paragraph,) = [p for p in paragraphs if f"\n{key.name} = " in p]
        comment = " ".join(paragraph.replace("\n# ", " ").split())
        assert key.reason in comment
        assert key.unit in comment
        assert key.reload.value in comment
        assert key.path.split(".")[0] in HEADINGS


def test_an_empty_file_means_the_defaults() -> None:
    assert parse("") == defaults()
    assert parse("").given == frozenset()


def test_keys_may_be_dotted_quoted_or_in_tables() -> None:
    dotted = parse("log.retention.ms = 5\nlog.roll.ms = 7\n")
    assert parse('"log.retention.ms" = 5\n"log.roll.ms" = 7\n') == dotted
    assert parse("[log]\nretention.ms = 5\n[log.roll]\nms = 7\n") == dotted
    assert (dotted.log.retention_ms, dotted.log.roll_ms) == (5, 7)
    assert dotted.given == {"log.retention.ms", "log.roll.ms"}


def test_the_command_line_wins_over_the_file_and_may_say_numbers_as_text() -> None:
    config = parse(
        "num.partitions = 3", {"num.partitions": "8", "auto.create.topics.enable": "false"}
    )
    assert config.topics.partition_count_default == 8
    assert config.topics.auto_create_enable is False
    assert values(config)["num.partitions"] == 8


def test_kafkas_hours_and_minutes_are_understood() -> None:
    assert parse("log.retention.hours = 2").log.retention_ms == 7_200_000
    assert parse("log.retention.minutes = 2").log.retention_ms == 120_000
    assert parse("log.retention.hours = -1").log.retention_ms == -1
    assert parse("log.roll.hours = 1").log.roll_ms == 3_600_000


def test_two_spellings_of_one_setting_are_refused() -> None:
    said = faults("log.retention.hours = 2\nlog.retention.ms = 5")
    assert said == {"log.retention.ms": "log.retention.hours says the same; keep one of them"}


def test_all_faults_are_reported_together() -> None:
    said = faults(
        """
        num.partition = 3
        num.partitions = 0
        auto.create.topics.enable = 1
        corelane.advertise = "cores"
        corelane.port = "9092"
        log.retention.ms = 1.5
        compression.type = ["zstd"]
        fetch.max.bytes = true
        broker.rack = 7
        node = {}
        """
    )
    assert said == {
        "num.partition": "unknown setting; did you mean num.partitions?",
        "num.partitions": "must be a whole number from 1 to 10000 (partitions), not 0",
        "auto.create.topics.enable": "must be true or false, not 1",
        "corelane.advertise": "must be one of core, node, not 'cores'",
        "corelane.port": "must be a whole number from 0 to 65535 (port), not '9092'",
        "log.retention.ms": f"must be a whole number from -1 to {2**63 - 1} (ms), not 1.5",
        "compression.type": "must be one of producer, uncompressed, gzip, snappy, lz4, zstd,"
        " not ['zstd']",
        "fetch.max.bytes": "must be a whole number from 1024 to 104857600 (bytes), not True",
        "broker.rack": "must be text in quotes, not 7",
        "node": "unknown setting; did you mean node.id?",
    }


def test_settings_people_bring_from_kafka_are_answered_with_ours() -> None:
    for name, hint in HINTS.items():
        assert faults(f'{name} = "x"') == {name: f"not a setting here: {hint}"}


def test_what_is_not_toml_is_one_fault_with_its_place() -> None:
    assert "line 2" in faults("num.partitions = 1\nlog.dirs=/data")[""]
    assert "overwrite" in faults("num.partitions = 1\nnum.partitions = 2")[""]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('corelane.data.dir = ""', "corelane.data.dir"),
        ('corelane.advertised.host = "0.0.0.0"', "corelane.advertised.host"),
        ("corelane.wal.file.bytes = 67108865", "corelane.wal.file.bytes"),
        ("corelane.wal.first.file.bytes = 134217728", "corelane.wal.first.file.bytes"),
        ("corelane.checkpoint.bytes = 268435457", "corelane.checkpoint.bytes"),
        ("corelane.receive.bytes = 104857599", "socket.request.max.bytes"),
        ("corelane.arena.bytes = 104857600", "socket.request.max.bytes"),
        ("message.max.bytes = 104857601", "message.max.bytes"),
        ("log.roll.ms = 5\nlog.roll.jitter.ms = 6", "log.roll.jitter.ms"),
        ("corelane.port = 9644", "corelane.admin.port"),
        ("corelane.admin.port = 19092", "corelane.admin.port"),
        ("corelane.cores = 4\ncorelane.peer.port = 19095", "corelane.peer.port"),
        ("corelane.cores = 2\ncorelane.core.port.base = 65535", "corelane.core.port.base"),
        ("corelane.port = 60000", "corelane.core.port.base"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(text: str, key: str) -> None:
    assert list(faults(text)) == [key]


def test_core_ports_follow_the_bootstrap_port() -> None:
    for text, base in (
        ("", 19_092),
        ("corelane.port = 5000", 15_000),
        ("corelane.core.port.base = 7000", 7_000),
        ("corelane.port = 0", 0),
    ):
        assert [each.core_port_base for each in parse(text).listeners] == [base]


def test_memory_is_as_configured_when_there_is_enough_or_nobody_knows() -> None:
    plan = MemoryPlan(256 * limits.MIB, 128 * limits.MIB, limits.REQUEST_BYTES_MAX)
    assert fit_memory(defaults(), None, 8) == plan
    assert fit_memory(defaults(), 4 * limits.GIB, 2) == plan


def test_memory_shrinks_to_half_of_a_cores_share() -> None:
    plan = fit_memory(defaults(), 384 * limits.MIB, 1)
    assert plan.arena_bytes + plan.receive_bytes == 192 * limits.MIB
    assert plan.arena_bytes == 128 * limits.MIB
    assert plan.request_bytes_max == 64 * limits.MIB


def test_cores_that_do_not_fit_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"2 cores do not fit into 90 MiB .* 48 MiB"):
        fit_memory(defaults(), 90 * limits.MIB, 2)
