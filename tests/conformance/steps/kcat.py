"""kcat: what people type first, on Debian's old librdkafka 2.0.2."""

import json
import time
from collections.abc import Callable

from tests.conformance import tools
from tests.conformance.probe import Address
from tests.conformance.steps.step import Step, expect, new_topic, output

CLIENT = "kcat 1.7.1"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LINES = [f"line {i}" for i in range(200)]
# kcat's own short-cuts: key, value, offset, timestamp, headers.
FORMAT = "%k|%s|%o|%h\n"


def steps() -> list[Step]:
    """Return what kcat is asked to do, in order."""
    found = [
        Step(CLIENT, "metadata", _metadata),
        Step(CLIENT, "a new topic is made by writing to it", _auto_creation),
        Step(CLIENT, "keys, headers and empty values", _keys_and_headers),
        Step(CLIENT, "idempotent producer", _idempotent),
        Step(CLIENT, "acks=0, 1 and all", _acks),
        Step(CLIENT, "consume from an offset, the end, a time", _places),
        Step(CLIENT, "ask for offsets by time", _query),
        Step(CLIENT, "consume in a group", _group),
    ]
    return found + [Step(CLIENT, f"codec {codec}", _codec(codec)) for codec in CODECS]


def _kcat(bootstrap: Address, *arguments: str, stdin: str = "") -> str:
    return output([tools.kcat(), "-b", str(bootstrap), *arguments], stdin)


def _write(bootstrap: Address, topic: str, lines: list[str], *more: str) -> None:
    _kcat(bootstrap, "-P", "-t", topic, "-p", "0", *more, stdin="\n".join(lines) + "\n")


def _read(bootstrap: Address, topic: str, *more: str) -> list[str]:
    arguments = ("-C", "-t", topic, "-p", "0", "-e", "-q")
    return _kcat(bootstrap, *arguments, *more).splitlines()


def _metadata(bootstrap: Address) -> None:
    topic = new_topic("metadata")
    _write(bootstrap, topic, ["x"])
    listed = json.loads(_kcat(bootstrap, "-L", "-J"))
    names = {row["topic"]: row for row in listed["topics"]}
    expect(topic in names, True, "the topic is listed")
    brokers = {row["id"] for row in listed["brokers"]}
    expect(names[topic]["partitions"][0]["leader"] in brokers, True, "its leader is a broker")
    expect(listed["controllerid"] in brokers, True, "the controller is a broker")


def _auto_creation(bootstrap: Address) -> None:
    topic = new_topic("auto")
    _write(bootstrap, topic, LINES)
    expect(_read(bootstrap, topic, "-o", "beginning"), LINES, "what was written")


def _keys_and_headers(bootstrap: Address) -> None:
    topic = new_topic("keys")
    _write(bootstrap, topic, ["a:1", "b:"], "-K", ":", "-H", "colour=blue")
    rows = _read(bootstrap, topic, "-o", "beginning", "-f", FORMAT)
    expect(rows, ["a|1|0|colour=blue", "b||1|colour=blue"], "keys, values, offsets, headers")


def _group(bootstrap: Address) -> None:
    topic = new_topic("group")
    _write(bootstrap, topic, LINES)
    where = ("-G", f"of-{topic}", "-q", "-X", "auto.offset.reset=earliest")
    first = _kcat(bootstrap, *where, "-c", "50", topic).splitlines()
    expect(first, LINES[:50], "the first fifty")
    rest = _kcat(bootstrap, *where, "-c", "150", topic).splitlines()
    expect(rest, LINES[50:], "what comes behind them")


def _idempotent(bootstrap: Address) -> None:
    topic = new_topic("idempotent")
    _write(bootstrap, topic, LINES, "-X", "enable.idempotence=true", "-X", "batch.num.messages=10")
    expect(_read(bootstrap, topic, "-o", "beginning"), LINES, "what was written")


def _acks(bootstrap: Address) -> None:
    for acks in ("0", "1", "all"):
        topic = new_topic(f"acks-{acks}")
        _write(bootstrap, topic, LINES, "-X", f"acks={acks}")
        deadline_s = time.monotonic() + 5
        while not (read := _read(bootstrap, topic, "-o", "beginning")):
            if time.monotonic() > deadline_s:
                break
        expect(read, LINES, f"what was written with acks={acks}")


def _places(bootstrap: Address) -> None:
    topic = new_topic("places")
    _write(bootstrap, topic, LINES[:100])
    time.sleep(0.05)
    between_ms = time.time_ns() // 1_000_000
    time.sleep(0.05)
    _write(bootstrap, topic, LINES[100:])
    expect(_read(bootstrap, topic, "-o", "150"), LINES[150:], "from an offset")
    expect(_read(bootstrap, topic, "-o", "-10"), LINES[-10:], "the last ten")
    expect(_read(bootstrap, topic, "-o", "end"), [], "from the end")
    expect(_read(bootstrap, topic, "-o", f"s@{between_ms}"), LINES[100:], "from a time")


def _query(bootstrap: Address) -> None:
    topic = new_topic("query")
    _write(bootstrap, topic, LINES)
    future_ms = time.time_ns() // 1_000_000 + 3_600_000
    for timestamp, offset in ((-2, 0), (-1, len(LINES)), (1, 0), (future_ms, -1)):
        answer = _kcat(bootstrap, "-Q", "-t", f"{topic}:0:{timestamp}")
        found = int(answer.split("offset")[-1])
        # librdkafka answers a time after the last record with the end: RD_KAFKA_OFFSET_END, -1.
        expect(found, offset, f"the offset at {timestamp}")


def _codec(codec: str) -> Callable[[Address], None]:
    def run(bootstrap: Address) -> None:
        topic = new_topic(f"codec-{codec}")
        _write(bootstrap, topic, LINES, "-z", codec)
        expect(_read(bootstrap, topic, "-o", "beginning"), LINES, "what was written")

    return run
