"""A record that its producer gave up, though it is in the log, does not cost the next one."""

from tests.conformance import brokers
from tests.integration import purged


def test_what_is_acknowledged_after_an_abort_is_there() -> None:
    """Kafka loses the second record: it takes it for a repetition of the purged one."""
    with brokers.corelane(purged.SETTINGS) as running:
        found = purged.lose_an_answer(running.bootstrap.port)
    assert found.refused == {"purged": "_PURGE_QUEUE", "next": "UNKNOWN_PRODUCER_ID"}
    assert found.committed == found.read == ["first", "next", "last"]
    assert [*found.acknowledged] == found.read
