"""What the commands print and return, against a cluster in memory behind a real port."""

import json
from pathlib import Path

import pytest

from corelane.model.errors import ErrorCode
from corelane.wire.records import batch_records, split_batches
from corelane_cli import exits
from corelane_cli.progress import Progress, Unit
from corelane_client.protocol import Api
from tests.unit.cli.conftest import Served
from tests.unit.cli.invoking import failed, invoke, printed
from tests.unit.client.fake import always, new, refuse_produce


def rows(served: Served, topic: str, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
    log = served.cluster.topics[topic][partition]
    batches = [batch for data in log.batches for batch in split_batches(data)]
    return [(each.key, each.value) for b in batches for each in batch_records(b, topic, partition)]


def test_a_topic_is_created_listed_described_and_deleted(served: Served) -> None:
    done = invoke(served, "topic", "create", "t", "-p", "2", "-c", "retention.ms=5")
    assert (done.exit_code, done.stdout) == (0, "created topic t\n")
    assert invoke(served, "topic", "list").stdout == (
        "TOPIC  PARTITIONS  REPLICAS\nt               2         0\n"
    )
    text = invoke(served, "topic", "describe", "t").stdout
    assert text.startswith("t  (id 742e2e2e-")
    assert "PARTITION  LEADER  EPOCH" in text
    assert "retention.ms      5  topic" in text
    assert "cleanup.policy" not in text
    assert "cleanup.policy" in invoke(served, "topic", "describe", "t", "--all-configs").stdout
    assert invoke(served, "topic", "delete", "t").stdout == "deleted topic t\n"
    assert invoke(served, "topic", "list").stdout == ""


def test_a_topic_whose_producers_are_answered_early_is_shown_with_what_that_means(
    served: Served,
) -> None:
    invoke(served, "topic", "create", "safe")
    assert "warning" not in invoke(served, "topic", "describe", "safe").stdout
    for value, count in (("true", 1), ("false", 0)):
        name = f"cached-{value}"
        invoke(served, "topic", "create", name, "-c", f"write.caching={value}")
        text = invoke(served, "topic", "describe", name).stdout
        assert text.count("warning: write.caching") == count
        described = printed(invoke(served, "topic", "describe", name, "--format", "json"))
        (topic,) = described["topics"]
        assert len(topic["warnings"]) == count
        assert all("before" in each and "lose" in each for each in topic["warnings"])


def test_topics_as_json(served: Served) -> None:
    made = printed(invoke(served, "topic", "create", "a", "b", "--format", "json"))
    assert [(row["name"], row["status"]) for row in made["topics"]] == [
        ("a", "created"),
        ("b", "created"),
    ]
    listed = printed(invoke(served, "topic", "list", "--format", "json"))["topics"]
    keys = {"name", "topic_id", "partitions", "replication_factor", "internal"}
    assert [set(row) for row in listed] == [keys, keys]
    served.cluster.topics["a"][0].end = 7
    (described,) = printed(invoke(served, "topic", "describe", "a", "--format", "json"))["topics"]
    assert described["partitions"] == [
        {
            "partition": 0,
            "leader": 0,
            "leader_epoch": 0,
            "replicas": [],
            "in_sync": [],
            "first_offset": 0,
            "next_offset": 7,
            "size_bytes": 0,
        }
    ]
    assert described["configs"] == {"cleanup.policy": {"value": "delete", "source": "default"}}
    gone = printed(invoke(served, "topic", "delete", "a", "--format", "json"))
    assert gone == {"topics": [{"name": "a", "status": "deleted"}]}
    assert printed(invoke(served, "topic", "list", "--internal", "--format", "json"))["topics"]


def test_what_was_done_before_a_refusal_is_printed(served: Served) -> None:
    served.cluster.topic("b")
    done = invoke(served, "topic", "create", "a", "b", "c", "--format", "json")
    error = failed(done, exits.REFUSED)
    assert error["code"] == "TOPIC_ALREADY_EXISTS"
    assert error["message"] == "topic 'b': topic 'b' exists"
    assert "another name" in error["next"]
    assert [row["name"] for row in json.loads(done.stdout)["topics"]] == ["a"]
    assert sorted(served.cluster.topics) == ["a", "b"]


def test_scripts_may_run_twice(served: Served) -> None:
    for expected in ("created", "exists"):
        done = invoke(served, "topic", "create", "t", "--if-not-exists")
        assert (done.exit_code, done.stdout) == (0, f"{expected} topic t\n")
    for expected in ("deleted", "absent"):
        done = invoke(served, "topic", "delete", "t", "--if-exists")
        assert (done.exit_code, done.stdout) == (0, f"{expected} topic t\n")


@pytest.mark.parametrize(
    "words", [("topic", "describe"), ("topic", "delete"), ("consume",), ("produce", "-m", "x")]
)
def test_a_missing_topic_is_refused_with_a_way_on(served: Served, words: tuple[str, ...]) -> None:
    error = failed(invoke(served, *words, "nowhere", "--format", "json"), exits.REFUSED)
    assert error["code"] == "UNKNOWN_TOPIC_OR_PARTITION"
    assert "nowhere" in error["message"]
    assert "corelane topic list" in error["next"]


def test_each_line_is_a_record(served: Served) -> None:
    served.cluster.topic("t")
    done = invoke(served, "produce", "t", data=b"a\n\nb c\nno end")
    assert done.stdout == "t, partition 0: 4 records, offsets 0 to 3\n"
    assert done.stderr == ""
    assert rows(served, "t") == [(None, b"a"), (None, b""), (None, b"b c"), (None, b"no end")]


def test_a_file_is_produced(served: Served, tmp_path: Path) -> None:
    served.cluster.topic("t")
    lines = tmp_path / "lines"
    lines.write_bytes(b"".join(b"%06d\n" % number for number in range(20_000)))
    report = printed(invoke(served, "produce", "t", "-F", str(lines), "--format", "json"))
    assert report["records"] == 20_000
    assert report["value_bytes"] == 120_000
    assert report["partitions"] == [
        {"topic": "t", "partition": 0, "first_offset": 0, "last_offset": 19_999, "records": 20_000}
    ]
    assert rows(served, "t")[19_999] == (None, b"019999")


def test_messages_with_key_headers_and_partition(served: Served) -> None:
    logs = served.cluster.topic("t", 3)
    arguments = ("-m", "x", "-m", "y", "-k", "key", "-H", "a=1", "-H", "b=", "-p", "2", "-z", "lz4")
    done = invoke(served, "produce", "t", *arguments)
    assert done.stdout == "t, partition 2: 2 records, offsets 0 to 1\n"
    assert rows(served, "t", 2) == [(b"key", b"x"), (b"key", b"y")]
    (batch,) = split_batches(logs[2].batches[0])
    assert batch.codec.name == "LZ4"
    assert batch_records(batch, "t", 2)[0].headers == (("a", b"1"), ("b", b""))


def test_lines_hold_keys_and_tombstones(served: Served) -> None:
    served.cluster.topic("t")
    data = b"k1::v1\nk2::\nplain\n"
    invoke(served, "produce", "t", "-K", "::", "--tombstones", data=data)
    assert rows(served, "t") == [(b"k1", b"v1"), (b"k2", None), (None, b"plain")]


def test_a_template_reads_records_of_several_topics(served: Served) -> None:
    for topic in ("a", "b"):
        served.cluster.topic(topic, 2)
    template = "%t %p %d %K:%k%H{1}%h{%k=%v,}%v\\n"
    data = b"a 1 17 1:kh=1,v1\nb 0 18 -1:g=,\na 1 19 0:f=2,v3\n"
    done = invoke(served, "produce", "-f", template, "-Z", "-H", "x=y", data=data)
    assert done.stdout == (
        "a, partition 1: 2 records, offsets 0 to 1\nb, partition 0: 1 record, offset 0\n"
    )
    assert rows(served, "a", 1) == [(b"k", b"v1"), (b"", b"v3")]
    assert rows(served, "b", 0) == [(None, None)]
    data = b"".join(served.cluster.topics["a"][1].batches)
    read = [each for batch in split_batches(data) for each in batch_records(batch, "a", 1)]
    assert read[0].headers == (("x", b"y"), ("h", b"1"))
    assert [each.timestamp_ms for each in read] == [17, 19]


def test_input_that_does_not_fit_ends_it_and_the_rest_is_sent(served: Served) -> None:
    served.cluster.topic("t")
    data = b"k v\nno space\nlost"
    done = invoke(served, "produce", "t", "-f", "%k %v\\n", "--format", "json", data=data)
    error = failed(done, exits.FAILED)
    assert error["message"] == (
        "record 3: byte 13 of the input, %k: the input ends and no ' ' was found"
    )
    assert "--template" in error["next"]
    assert json.loads(done.stdout)["records"] == 2
    assert rows(served, "t") == [(b"k", b"v"), (b"no", b"space")]


def test_acknowledged_records_are_printed_as_asked(served: Served) -> None:
    served.cluster.topic("t")
    arguments = ("-o", "%t/%p@%o %k=%v{hex} %a{compression}\\n", "-K", ":", "-z", "zstd")
    done = invoke(served, "produce", "t", *arguments, data=b"a:b\nc:d\n")
    assert done.stdout == "t/0@0 a=62 zstd\nt/0@1 c=64 zstd\n"


def test_acks_0_says_that_nobody_told_the_offset(served: Served) -> None:
    served.cluster.topic("t")
    done = invoke(served, "produce", "t", "-m", "x", "--acks", "0")
    assert done.stdout == "t, partition 0: 1 record, offset not told (acks 0)\n"


def test_a_refused_record_ends_it_and_the_rest_is_told(served: Served) -> None:
    served.cluster.topic("t")
    served.cluster.script(Api.PRODUCE, always(None), *refuse_produce(ErrorCode.MESSAGE_TOO_LARGE))
    lines = b"a" * 70_000 + b"\n" + b"b" * 70_000 + b"\n"
    done = invoke(served, "produce", "t", "--format", "json", data=lines)
    error = failed(done, exits.REFUSED)
    assert error["code"] == "MESSAGE_TOO_LARGE"
    assert "max.message.bytes" in error["next"]
    assert json.loads(done.stdout)["records"] == 1


def test_a_record_needs_a_topic(served: Served) -> None:
    for arguments in ((), ("-f", "%v")):
        error = failed(invoke(served, "produce", *arguments, "--format", "json"), exits.USAGE)
        assert "Missing argument 'TOPIC'" in error["message"]


def test_nothing_to_produce_is_no_error(served: Served) -> None:
    served.cluster.topic("t")
    assert printed(invoke(served, "produce", "t", "--format", "json", data=b""))["records"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "x", "-F", __file__),
        ("-m", "x", "-f", "%v"),
        ("-f", "%v", "-K", ":"),
        ("-f", "%q"),
        ("-o", "%q"),
        ("-o", "%["),
        ("-o", "%v"),  # beside --format json
        ("-k", "a", "-K", ":"),
        ("-K", ""),
        ("-H", "noequals"),
        ("-a", "2"),
        ("-F", "/no/such/file"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error(
    served: Served, arguments: tuple[str, ...]
) -> None:
    failed(invoke(served, "produce", "t", *arguments, "--format", "json"), exits.USAGE)


def test_records_are_printed_as_values(served: Served) -> None:
    served.cluster.topic("t")
    invoke(served, "produce", "t", data=b"a\nb\nc\n")
    assert invoke(served, "consume", "t", "-o", ":end").stdout == "a\nb\nc\n"
    assert invoke(served, "consume", "t", "-o", "1:2").stdout == "b\n"
    assert invoke(served, "consume", "t", "-n", "2").stdout == "a\nb\n"
    assert invoke(served, "consume", "t", "-o", "-1", "-n", "1").stdout == "c\n"
    assert invoke(served, "consume", "t", "-o", "@-1h:end").stdout == "a\nb\nc\n"
    assert invoke(served, "consume", "t", "-o", "@2100-01-01:end").stdout == ""


def test_records_are_printed_by_a_template(served: Served) -> None:
    served.cluster.topic("t", 2)
    invoke(served, "produce", "t", "-p", "1", "-K", ":", data=b"k:v\n")
    template = "%t/%p@%o %k=%v{hex};"
    done = invoke(served, "consume", "t", "-o", ":end", "-f", template)
    assert done.stdout == "t/1@0 k=76;"
    done = invoke(served, "consume", "t", "-o", ":end", "-p", "0", "-f", template)
    assert done.stdout == ""


def test_a_template_prints_what_the_broker_knows(served: Served) -> None:
    (log,) = served.cluster.topic("t")
    invoke(served, "produce", "t", "-z", "gzip", data=b"a\nb\n")
    log.aborted.append((7, 9))
    template = "%[ %| %] %i %x %y %e %a{compression}\\n"
    done = invoke(served, "consume", "t", "-o", ":end", "-f", template)
    assert done.stdout == "-1 -1 2 1 1001 0 0 gzip\n-1 -1 2 2 1001 0 0 gzip\n"


@pytest.mark.parametrize(
    ("arguments", "total", "is_wanted"),
    [
        (("-o", ":end"), 3, True),
        (("-o", "1:end", "-n", "5"), 1, True),
        (("-o", "-1", "-n", "1"), 1, True),
        (("-o", ":end", "seen"), 3, False),
    ],
    ids=str,
)
def test_progress_knows_how_much_there_is(
    served: Served,
    arguments: tuple[str, ...],
    total: int,
    is_wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served.cluster.topic("t", 2)
    invoke(served, "produce", "t", "-p", "0", data=b"a\n")
    invoke(served, "produce", "t", "-p", "1", data=b"a\nb\n")
    made: list[tuple[int, bool]] = []

    def progress(total: int, *, is_wanted: bool, unit: Unit) -> Progress:
        made.append((total, is_wanted))
        return Progress(total, is_wanted=False, unit=unit)

    monkeypatch.setattr("corelane_cli.consume_action.Progress", progress)
    monkeypatch.setattr("corelane_cli.consume_action.are_records_seen", lambda: not is_wanted)
    done = invoke(served, "consume", "t", *(word for word in arguments if word != "seen"))
    assert (done.exit_code, made) == (0, [(total, is_wanted)])


def test_values_can_be_left_out(served: Served) -> None:
    served.cluster.topic("t")
    invoke(served, "produce", "t", "-m", "secret")
    arguments = ("consume", "t", "-o", ":end", "--meta-only")
    assert invoke(served, *arguments).stdout == "t partition 0 offset 0\n"
    row = json.loads(invoke(served, *arguments, "--format", "json").stdout)
    assert (row["value_bytes"], "value" in row) == (6, False)


def test_records_as_json_keep_every_byte(served: Served) -> None:
    served.cluster.topic("t")
    invoke(served, "produce", "t", "-K", ":", "-H", "h=1", "--tombstones", data=b"k:\xff\ne:\n")
    lines = invoke(served, "consume", "t", "-o", ":end", "--format", "json").stdout.splitlines()
    first, second = map(json.loads, lines)
    time_ms = first.pop("timestamp_ms")
    assert time_ms > 1_700_000_000_000
    assert first == {
        "topic": "t",
        "partition": 0,
        "offset": 0,
        "key": "k",
        "value": None,
        "value_base64": "/w==",
        "headers": [{"name": "h", "value": "1"}],
    }
    assert (second["key"], second["value"], "value_base64" in second) == ("e", None, False)


def test_several_topics_are_consumed(served: Served) -> None:
    for topic in ("a", "b"):
        served.cluster.topic(topic)
        invoke(served, "produce", topic, "-m", f"from {topic}")
    done = invoke(served, "consume", "a", "b", "-o", ":end")
    assert sorted(done.stdout.splitlines()) == ["from a", "from b"]


def test_an_offset_beyond_the_log_is_refused_with_a_way_on(served: Served) -> None:
    served.cluster.topic("t")
    done = invoke(served, "consume", "t", "-o", "5", "--format", "json")
    error = failed(done, exits.REFUSED)
    assert error["code"] == "OFFSET_OUT_OF_RANGE"
    assert "corelane topic describe" in error["next"]


def test_a_damaged_batch_is_a_failure(served: Served) -> None:
    (log,) = served.cluster.topic("t")
    invoke(served, "produce", "t", "-m", "x")
    log.batches[0] = log.batches[0][:-2] + b"y" + log.batches[0][-1:]
    done = invoke(served, "consume", "t", "-n", "1", "--format", "json")
    error = failed(done, exits.FAILED)
    assert "checksum" in error["message"]
    assert "dump-log" in error["next"]


@pytest.mark.parametrize(
    "arguments",
    [("-o", "x"), ("-f", "%q"), ("-f", "%v", "--format", "json"), ("-n", "0"), ("-p", "-1")],
)
def test_what_is_not_understood_is_a_usage_error(
    served: Served, arguments: tuple[str, ...]
) -> None:
    done = invoke(served, "consume", "t", *arguments)
    assert done.exit_code == exits.USAGE
    assert done.stdout == ""


def test_a_broker_too_new_is_told(served: Served) -> None:
    served.cluster.ranges[Api.METADATA] = (90, 91)
    error = failed(invoke(served, "topic", "list", "--format", "json"), exits.CANNOT_CONNECT)
    assert "Metadata in versions 90 to 91" in error["message"]


def test_a_broker_that_refuses_to_speak_is_told(served: Served) -> None:
    refusal = new("ApiVersionsResponse", error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    served.cluster.script(Api.API_VERSIONS, always(refusal))
    error = failed(invoke(served, "topic", "list", "--format", "json"), exits.REFUSED)
    assert error["code"] == "CLUSTER_AUTHORIZATION_FAILED"
