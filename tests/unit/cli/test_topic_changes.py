"""Topics that are changed: settings, partitions, and records that are deleted for ever."""

import json
from typing import cast

import pytest

from corelane.model.errors import ErrorCode
from corelane_cli import exits
from corelane_cli.topic_actions import sizes_of
from corelane_client.admin import Admin
from corelane_client.changes import LogDir
from corelane_client.pool import Partition, Topic
from corelane_client.protocol import Api
from tests.unit.cli.conftest import Served
from tests.unit.cli.invoking import failed, invoke, printed
from tests.unit.client.fake import always, new


def test_settings_are_set_deleted_and_extended(served: Served) -> None:
    for topic in ("a", "b"):
        served.cluster.topic(topic)
        served.cluster.configs[topic] = {"retention.ms": "5", "cleanup.policy": "compact"}
    arguments = ("--set", "segment.ms=1=1", "--delete", "retention.ms")
    done = invoke(served, "topic", "alter", "a", "b", *arguments, "--append", "cleanup.policy=x")
    assert (done.exit_code, done.stdout) == (0, "altered topic a\naltered topic b\n")
    expected = {"segment.ms": "1=1", "cleanup.policy": "compact,x"}
    assert served.cluster.configs == {"a": expected, "b": expected}
    invoke(served, "topic", "alter", "a", "--subtract", "cleanup.policy=compact")
    assert served.cluster.configs["a"]["cleanup.policy"] == "x"


def test_a_refused_setting_changes_nothing_of_its_topic(served: Served) -> None:
    served.cluster.topic("a")
    arguments = ("--set", "segment.ms=1", "--set", "segment.mss=1", "--format", "json")
    error = failed(invoke(served, "topic", "alter", "a", *arguments), exits.REFUSED)
    assert (error["code"], "segment.mss" in error["message"]) == ("INVALID_CONFIG", True)
    assert served.cluster.configs == {}


def test_a_change_can_be_tried(served: Served) -> None:
    served.cluster.topic("a")
    for words, count in ((("alter", "a", "--set", "segment.ms=1"), 1),
                         (("add-partitions", "a", "--num", "1"), 2)):  # fmt: skip
        done = invoke(served, "topic", *words, "--validate-only", "--format", "json")
        (row,) = printed(done)["topics"]
        assert (row["name"], row["status"], row.get("partitions", 1)) == ("a", "valid", count)
    assert served.cluster.configs == {}
    assert len(served.cluster.topics["a"]) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("alter", "a"),
        ("alter", "a", "--set", "x"),
        ("alter", "a", "--append", "=x"),
        ("alter", "a", "--set", "x=1", "--delete", "x"),
        ("add-partitions", "a"),
        ("add-partitions", "a", "--num", "1", "--total", "2"),
        ("add-partitions", "a", "--num", "0"),
        ("trim", "a"),
        ("trim", "a", "-o", "x", "--yes"),
        ("trim", "a", "-o", "1:2", "--yes"),
        ("trim", "a", "-o", ":end", "--yes"),
        ("trim", "a", "-o", "5"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(served: Served, words: tuple[str, ...]) -> None:
    failed(invoke(served, "topic", *words, "--format", "json"), exits.USAGE)


def test_partitions_are_added(served: Served) -> None:
    served.cluster.topic("a", 2)
    done = invoke(served, "topic", "add-partitions", "a", "--num", "3")
    assert done.stdout == "extended topic a: 5 partitions\n"
    done = invoke(served, "topic", "add-partitions", "a", "--total", "6", "--format", "json")
    assert printed(done)["topics"][0]["partitions"] == 6
    done = invoke(served, "topic", "add-partitions", "a", "--total", "4", "--format", "json")
    error = failed(done, exits.REFUSED)
    assert error["code"] == "INVALID_PARTITIONS"
    assert "6 partitions already" in error["message"]


def test_the_beginning_of_a_topic_is_trimmed(served: Served) -> None:
    logs = served.cluster.topic("a", 3)
    for log in logs:
        log.end = 10
    done = invoke(served, "topic", "trim", "a", "-o", "4", "-p", "1", "--yes")
    assert done.stdout == "trimmed a, partition 1: 4 offsets deleted, the first is now 4\n"
    done = invoke(served, "topic", "trim", "a", "-o", "-3", "--no-confirm", "--format", "json")
    assert printed(done)["partitions"] == [
        {"partition": 0, "first_offset": 7, "deleted": 7},
        {"partition": 1, "first_offset": 7, "deleted": 3},
        {"partition": 2, "first_offset": 7, "deleted": 7},
    ]
    invoke(served, "topic", "trim", "a", "-o", "end", "-p", "0", "-y")
    invoke(served, "topic", "trim", "a", "-o", "@2020-01-01", "-p", "2", "-y")
    assert [log.start for log in logs] == [10, 7, 10]


def test_what_was_trimmed_before_a_refusal_is_printed(served: Served) -> None:
    logs = served.cluster.topic("a", 2)
    logs[1].end = 10
    done = invoke(served, "topic", "trim", "a", "-o", "5", "--yes", "--format", "json")
    error = failed(done, exits.REFUSED)
    assert error["code"] == "OFFSET_OUT_OF_RANGE"
    assert "partition 0" in error["message"]
    assert [row["partition"] for row in json.loads(done.stdout)["partitions"]] == [1]


def test_a_person_is_asked_first(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    (log,) = served.cluster.topic("a")
    log.end = 10
    monkeypatch.setattr("corelane_cli.topic_trim.can_ask", lambda _: True)
    done = invoke(served, "topic", "trim", "a", "-o", "4", data=b"n\n")
    assert (done.exit_code, log.start) == (exits.FAILED, 0)
    assert (
        "PARTITION  FIRST  NEW FIRST  DELETED\n        0      0          4        4" in done.stderr
    )
    assert "nothing was deleted" in done.stderr
    done = invoke(served, "topic", "trim", "a", "-o", "4", data=b"y\n")
    assert (done.exit_code, log.start) == (0, 4)


def test_a_broker_that_does_not_tell_sizes_is_described_without(served: Served) -> None:
    served.cluster.topic("a")
    del served.cluster.ranges[Api.DESCRIBE_LOG_DIRS]
    assert invoke(served, "topic", "describe", "a").stdout.splitlines()[2].endswith("  ?")


def test_sizes_are_those_of_the_leaders(served: Served) -> None:
    served.cluster.topic("a")[0].batches = [bytes(77)]
    (topic,) = printed(invoke(served, "topic", "describe", "a", "--format", "json"))["topics"]
    assert topic["partitions"][0]["size_bytes"] == 77
    served.cluster.script(
        Api.DESCRIBE_LOG_DIRS,
        always(new("DescribeLogDirsResponse", error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)),
    )
    (topic,) = printed(invoke(served, "topic", "describe", "a", "--format", "json"))["topics"]
    assert topic["partitions"][0]["size_bytes"] is None


async def test_a_follower_does_not_add_to_the_size() -> None:
    class Brokers:
        async def describe_log_dirs(self, topics: list[str]) -> list[LogDir]:
            assert topics == ["a"]
            kept = {("a", 0): 5}
            return [LogDir(number, "/d", None, -1, -1, kept) for number in (0, 1)]

    topic = Topic("a", bytes(16), False, {0: Partition(1, 0, (0, 1), (0, 1), 0)})
    assert await sizes_of(cast("Admin", Brokers()), topic) == {0: 5}
