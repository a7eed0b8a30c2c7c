"""What a real Kafka 4.3.1 and its clients said, byte for byte (tests/golden, see its README).

Each frame is decoded and encoded again to the same bytes; the C decoders of Produce and Fetch
read in the clients' bytes what the table codec reads.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from corelane.wire.batch import whole_batches
from corelane.wire.compiler import (
    Message,
    api_keys,
    codec,
    request_codec,
    response_codec,
    valid_versions,
)
from corelane.wire.frame import request_body_at
from corelane_native import CHECK_STORED, address_of, check_batch, decode_fetch, decode_produce

GOLDEN = Path(__file__).parents[2] / "golden"
KEYS = {name: key for key, name in api_keys().items()}
GOLDEN_BYTES_MAX = 400_000


class Row(NamedTuple):
    api: str
    version: int
    client: str
    command: str
    request: bytes
    response: bytes

    def __str__(self) -> str:
        return f"{self.api} v{self.version}, {self.client}: {self.command}"

    def header_versions(self) -> tuple[int, int]:
        """Return the versions of the headers of request and answer."""
        flexible = request_codec(KEYS[self.api], self.version).is_flexible
        return 1 + flexible, int(flexible and self.api != "ApiVersions")

    def decoded_request(self) -> tuple[Message, Message]:
        """Return header and body, which together are the whole frame."""
        header, at = codec("RequestHeader", self.header_versions()[0]).decode(self.request)
        body = request_codec(KEYS[self.api], self.version)
        assert request_body_at(self.request, is_flexible=body.is_flexible) == at
        message, end = body.decode(self.request, at)
        assert end == len(self.request), self
        return header, message

    def decoded_response(self) -> tuple[Message, Message]:
        """Return header and body, which together are the whole frame."""
        header, at = codec("ResponseHeader", self.header_versions()[1]).decode(self.response)
        message, end = response_codec(KEYS[self.api], self.version).decode(self.response, at)
        assert end == len(self.response), self
        return header, message


def load(path: Path) -> list[Row]:
    head, *lines = (json.loads(line) for line in path.read_text().splitlines())
    assert head["broker"] == "Apache Kafka 4.3.1"
    return [
        Row(
            head["api"],
            line["version"],
            line["client"],
            line["command"],
            bytes.fromhex(line["request"]),
            bytes.fromhex(line["response"]),
        )
        for line in lines
    ]


def every_version(name: str) -> range:
    first, last = valid_versions(f"{name}Request")
    return range(first, last + 1)


# Kafka closes the connection instead: the one is not released, the other asked with no
# transactions by who is no broker.
UNANSWERED = {("InitProducerId", 6), ("AddPartitionsToTxn", 4), ("UnregisterBroker", 0)}
FILES = sorted(GOLDEN.glob("*.jsonl"))
ROWS = {path.stem: load(path) for path in FILES}


def test_every_api_and_version_kafka_answers_is_there_and_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < GOLDEN_BYTES_MAX
    missing = {
        (name, version)
        for name in api_keys().values()
        for version in every_version(name)
        if not any(row.version == version for row in ROWS.get(name, []))
    }
    assert missing == UNANSWERED


@pytest.mark.parametrize("api", ROWS)
def test_requests_are_read_whole_and_written_again(api: str) -> None:
    for row in ROWS[api]:
        header, message = row.decoded_request()
        assert header.request_api_key == KEYS[api]
        assert header.request_api_version == row.version
        raw = codec("RequestHeader", row.header_versions()[0]).encode(header)
        raw += request_codec(KEYS[api], row.version).encode(message)
        assert raw == row.request, row


@pytest.mark.parametrize("api", ROWS)
def test_answers_are_read_whole_and_written_again(api: str) -> None:
    for row in ROWS[api]:
        if not row.response:
            assert api == "Produce"
            assert row.decoded_request()[1].acks == 0
            continue
        header, message = row.decoded_response()
        assert header.correlation_id == row.decoded_request()[0].correlation_id
        raw = codec("ResponseHeader", row.header_versions()[1]).encode(header)
        raw += response_codec(KEYS[api], row.version).encode(message)
        assert raw == row.response, row


@pytest.mark.parametrize("row", ROWS["Produce"], ids=str)
def test_the_c_decoder_reads_in_produce_what_the_table_reads(row: Row) -> None:
    _header, message = row.decoded_request()
    if row.version > 11:
        return  # not served: topic ids
    at = request_body_at(row.request, is_flexible=row.version >= 9)
    found = decode_produce(address_of(row.request), len(row.request), at, row.version)
    assert found is not None
    acks, timeout_ms, transactional_id, rows = found
    assert (acks, timeout_ms) == (message.acks, message.timeout_ms)
    assert transactional_id == message.transactional_id
    expected = [
        (topic.name.encode(), part.index, part.records)
        for topic in message.topic_data
        for part in topic.partition_data
    ]
    seen = [(row.request[r[0] : r[0] + r[1]], r[2], row.request[r[5] : r[5] + r[6]]) for r in rows]
    assert seen == expected
    assert [r[3] for r in rows] == [0] * len(rows), "clients' batches are good"


@pytest.mark.parametrize("row", ROWS["Fetch"], ids=str)
def test_the_c_decoder_reads_in_fetch_what_the_table_reads(row: Row) -> None:
    _header, message = row.decoded_request()
    if row.version > 17:
        return
    at = request_body_at(row.request, is_flexible=row.version >= 12)
    found = decode_fetch(address_of(row.request), len(row.request), at, row.version)
    assert found is not None
    head, rows = found[:7], list(found[8])
    assert len(rows) == found[7]
    assert head == (
        message.max_wait_ms,
        message.min_bytes,
        message.max_bytes,
        message.isolation_level,
        message.session_id,
        message.session_epoch,
        message.rack_id.encode(),
    )
    expected = [
        (
            topic.topic_id if row.version >= 13 else topic.topic.encode(),
            part.partition,
            part.fetch_offset,
            part.partition_max_bytes,
        )
        for topic in message.topics
        for part in topic.partitions
    ]
    assert [(row.request[r[0] : r[0] + r[1]], r[2], r[4], r[7]) for r in rows] == expected


def test_the_batches_a_real_broker_stored_are_good() -> None:
    count = 0
    for row in ROWS["Fetch"]:
        for topic in row.decoded_response()[1].responses:
            for part in topic.partitions:
                records: Any = part.records or b""
                for at, head in whole_batches(records, 10**9):
                    one = records[at : at + head.size_bytes]
                    if not head.attributes & 0x20:  # a transaction's marker is no client's batch
                        verdict = check_batch(address_of(one), len(one), flags=CHECK_STORED)
                        assert verdict.reason == 0, row
                        count += 1
    assert count > 20
