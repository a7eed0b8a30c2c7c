"""Every message and version, against kio: both make the same bytes and read the same values.

kio knows Kafka 4.3 (604 pairs) and is made from Kafka's own descriptors by other people. Values
are random from a fixed seed; `oracle.py` bounds them to what kio accepts.
"""

import random

import pytest

from corelane.wire.compiler import codec
from corelane.wire.schema import schemas
from tests.unit.wire.oracle import Draw, all_versions, kio_decode, kio_encode

PAIRS = list(all_versions())
ROUNDS = 6


def test_the_tables_have_every_version_this_test_is_about() -> None:
    assert len(PAIRS) == 482


@pytest.mark.parametrize("name", schemas())
def test_bytes_and_values_are_those_of_kio(name: str) -> None:
    schema = schemas()[name]
    for version in range(schema.versions[0], schema.versions[1] + 1):
        draw = Draw(schema, version, random.Random(f"{name} {version}"))
        for round_number in range(ROUNDS):
            draw.fullness = min(1, round_number / 2)
            twins = draw.message()
            what = f"{name} v{version} round {round_number}: {twins.ours}"
            ours = codec(name, version)
            raw = kio_encode(twins.theirs)
            assert ours.encode(twins.ours) == raw, what
            assert ours.decode(raw) == (twins.ours, len(raw)), what
            assert kio_decode(name, version, raw) == (twins.theirs, len(raw)), what
            padded = b"junk" + raw + b"tail"
            assert ours.decode(memoryview(padded), 4) == (twins.ours, 4 + len(raw)), what
