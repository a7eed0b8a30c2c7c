"""Transactional batches at one partition: appended, kept waiting, or refused."""

import pytest

from corelane.api import produce_errors
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.shard import parking
from corelane.shard.verifying import Place, Verified, VerifyTransaction
from tests.unit.api.transactions import NONE, TransactionWorld, Writer
from tests.unit.api.world import delete_topic

ABORTABLE = ErrorCode.TRANSACTION_ABORTABLE


@pytest.fixture
def world() -> TransactionWorld:
    made = TransactionWorld()
    assert made.create_topic("t", partitions=2).error_code == 0
    return made


@pytest.fixture
def writer(world: TransactionWorld) -> Writer:
    return Writer(world, 7)


def test_the_first_batch_of_a_transaction_asks_and_the_others_do_not(
    world: TransactionWorld, writer: Writer
) -> None:
    topic_id = world.partition().topic.topic_id
    assert [writer.write(2), writer.write(), writer.write()] == [NONE] * 3
    assert world.coordinators.asked == [
        VerifyTransaction("id-7", 7, 0, Place("t", topic_id, 0), is_added=False)
    ]
    assert world.ends == (0, 4)
    assert world.marker(7) == [NONE]
    assert world.ends == (5, 5)
    writer.write()
    assert len(world.coordinators.asked) == 2, "the next transaction is another one"


def test_each_partition_asks_for_itself(world: TransactionWorld, writer: Writer) -> None:
    assert writer.write(number=0) is NONE
    writer.sequence = 0
    assert writer.write(number=1) is NONE
    assert [each.place.number for each in world.coordinators.asked] == [0, 1]


def test_clients_on_transaction_version_2_have_the_partition_added(
    world: TransactionWorld, writer: Writer
) -> None:
    writer.version = 12
    assert writer.write() is NONE
    assert world.coordinators.asked[0].is_added


def test_what_comes_behind_a_batch_that_waits_waits_too_and_keeps_its_order(
    world: TransactionWorld, writer: Writer
) -> None:
    world.coordinators.holds = True
    other = Writer(world, 8)
    for count in (3, 2, 1):
        writer.send(count)
    assert len(world.coordinators.asked) == 1
    assert world.partition().log.next_offset == 0
    assert world.shard.parked_bytes > 0
    assert world.produce("t", Writer(world, 9).batch(plain=True)).base_offset == 0, "others go on"
    other.send()
    assert len(world.coordinators.asked) == 2
    world.coordinators.answer()
    world.run([])
    assert [writer.answer().base_offset for _ in range(3)] == [1, 4, 6]  # type: ignore[union-attr]
    assert other.answer().base_offset == 7  # type: ignore[union-attr]
    assert world.shard.parked_bytes == 0
    assert not world.partition().parked


def test_a_retry_of_a_batch_that_waits_shares_its_fate(
    world: TransactionWorld, writer: Writer
) -> None:
    """As of a batch in flight (protocol.md quirk 24): it is never written twice."""
    world.coordinators.holds = True
    writer.send()
    writer.sequence = 0
    writer.send()
    world.coordinators.answer()
    world.run([])
    assert [writer.answer().base_offset for _ in range(2)] == [0, 0]  # type: ignore[union-attr]
    assert world.ends == (0, 1)


@pytest.mark.parametrize(
    ("said", "version", "heard"),
    [
        (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, 9, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.NOT_COORDINATOR, 12, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.COORDINATOR_NOT_AVAILABLE, 12, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.CONCURRENT_TRANSACTIONS, 11, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.CONCURRENT_TRANSACTIONS, 12, ErrorCode.CONCURRENT_TRANSACTIONS),
        (ABORTABLE, 10, ErrorCode.INVALID_TXN_STATE),
        (ABORTABLE, 11, ABORTABLE),
        (ErrorCode.INVALID_TXN_STATE, 12, ErrorCode.INVALID_TXN_STATE),
        (ErrorCode.PRODUCER_FENCED, 9, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.PRODUCER_FENCED, 12, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.INVALID_PRODUCER_EPOCH, 12, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, 9, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
    ],
)
def test_what_a_coordinator_refuses_is_told_as_kafka_tells_it(
    world: TransactionWorld, writer: Writer, said: ErrorCode, version: int, heard: ErrorCode
) -> None:
    world.coordinators.said = Verified(said)
    writer.version = version
    writer.send()
    world.pass_time(parking.AGAIN_MS * (parking.AGAIN_COUNT + 1))
    for _ in range(parking.AGAIN_COUNT):
        world.pass_time(parking.AGAIN_MS)
    row = writer.answer()
    assert row is not None
    assert (row.error_code, row.base_offset) == (heard, -1)
    assert row.error_message
    assert world.ends == (0, 0)
    assert world.shard.parked_bytes == 0


def test_all_that_waited_hears_the_same(world: TransactionWorld, writer: Writer) -> None:
    """Else the second would be out of order, and librdkafka gives up."""
    world.coordinators.holds = True
    for _ in range(3):
        writer.send()
    world.coordinators.answer(Verified(ErrorCode.NOT_COORDINATOR))
    world.run([])
    rows = [writer.answer() for _ in range(3)]
    assert [row.error_code for row in rows if row] == [ErrorCode.NOT_ENOUGH_REPLICAS] * 3


def test_a_transaction_that_follows_at_once_waits_for_the_end_of_the_one_before(
    world: TransactionWorld, writer: Writer
) -> None:
    """As Kafka does within add.partitions.to.txn.retry.backoff.max.ms: else clients back off."""
    writer.version = 12
    world.coordinators.said = Verified(ErrorCode.CONCURRENT_TRANSACTIONS)
    writer.send()
    assert writer.answer() is None
    world.coordinators.said = Verified(NONE, 50)
    world.pass_time(parking.AGAIN_MS)
    row = writer.answer()
    assert row is not None
    assert row.error_code == 0
    assert len(world.coordinators.asked) == 2


def test_an_answer_of_before_a_marker_does_not_count(
    world: TransactionWorld, writer: Writer
) -> None:
    """Anomaly 7: the batch would open a transaction that nobody ends, or join the next one."""
    world.coordinators.holds = True
    writer.send()
    world.marker(7, commits=False)
    world.coordinators.answer()
    world.run([])
    assert len(world.coordinators.asked) == 2, "it is asked anew"
    assert writer.answer() is None
    world.coordinators.answer(Verified(ABORTABLE))
    world.run([])
    row = writer.answer()
    assert row is not None
    assert row.error_code == ErrorCode.INVALID_TXN_STATE
    assert world.ends == (1, 1), "the marker alone"


def test_a_producer_that_was_fenced_by_a_marker_hears_that_first(
    world: TransactionWorld, writer: Writer
) -> None:
    """KAFKA-19690: also where its sequence number, or its transaction, would be wrong as well."""
    writer.write()
    assert world.marker(7, epoch=1, commits=False) == [NONE]
    asked = len(world.coordinators.asked)
    for sequence in (0, 1, 5):
        writer.sequence = sequence
        assert writer.write() is ErrorCode.INVALID_PRODUCER_EPOCH
        assert writer.write(plain=True) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert len(world.coordinators.asked) == asked


def test_records_outside_of_the_open_transaction_are_refused(
    world: TransactionWorld, writer: Writer
) -> None:
    writer.write()
    assert writer.write(plain=True) is ErrorCode.INVALID_TXN_STATE
    writer.sequence = 1
    world.marker(7)
    assert writer.write(plain=True) is NONE
    assert world.ends == (3, 3)


def test_a_batch_that_comes_again_after_its_commit_is_a_duplicate(
    world: TransactionWorld, writer: Writer
) -> None:
    assert writer.write() is NONE
    world.marker(7)
    writer.sequence = 0
    assert writer.write() is NONE
    assert world.ends == (2, 2)
    assert len(world.coordinators.asked) == 1


def test_a_batch_that_comes_again_after_its_abort_is_not_acknowledged(
    world: TransactionWorld, writer: Writer
) -> None:
    """Its number may be that of the next record (librdkafka), which would then be nowhere."""
    other = Writer(world, 8)
    assert [writer.write(), other.write()] == [NONE] * 2
    world.marker(7, commits=False)
    world.marker(8)
    for _ in range(2):
        writer.sequence = other.sequence = 0
        assert writer.write() is ErrorCode.UNKNOWN_PRODUCER_ID
        assert other.write() is NONE, "a duplicate of what another producer committed beside it"
        assert world.ends == (4, 4)
        world.crash()
        world.pass_time(500)
    writer.epoch, writer.sequence = 1, 0
    assert writer.write() is NONE, "so it begins again with a new epoch"


def test_a_transactional_batch_needs_a_transactional_id(
    world: TransactionWorld, writer: Writer
) -> None:
    writer.name = None
    assert writer.write() is ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert world.ends == (0, 0)


def test_a_request_writes_in_one_transaction(world: TransactionWorld, writer: Writer) -> None:
    request = writer.request(writer.batch())
    other = Writer(world, 8)
    request.topic_data += other.request(other.batch(), 1).topic_data
    answer = world.call(request, 9)
    errors = [row.error_code for t in answer.responses for row in t.partition_responses]
    assert errors == [ErrorCode.INVALID_PRODUCER_ID_MAPPING] * 2


def test_who_waits_hears_that_the_partition_is_gone(
    world: TransactionWorld, writer: Writer
) -> None:
    world.coordinators.holds = True
    writer.send()
    delete_topic(world, "t")
    row = writer.answer()
    assert row is not None
    assert row.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    world.coordinators.answer()
    world.run([])
    assert world.shard.parked_bytes == 0


def test_what_waits_is_bounded(
    world: TransactionWorld, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.coordinators.holds = True
    for _ in range(parking.WAITING_MAX + 1):
        writer.send()
    monkeypatch.setattr(limits, "PARKED_BYTES_MAX", world.shard.parked_bytes)
    other = Writer(world, 8)
    assert other.write() is ErrorCode.NOT_ENOUGH_REPLICAS
    assert len(world.coordinators.asked) == 1, "who may not wait asks nobody"
    world.coordinators.answer()
    world.run([])
    rows = [writer.answer() for _ in range(parking.WAITING_MAX + 1)]
    errors = [row.error_code for row in rows if row]
    assert errors == [0] * parking.WAITING_MAX + [ErrorCode.NOT_ENOUGH_REPLICAS]


def test_a_batch_whose_client_waits_no_longer_is_written_in_its_order_all_the_same(
    world: TransactionWorld, writer: Writer
) -> None:
    """What comes behind it may still be waited for, and must not be out of order."""
    world.coordinators.holds = True
    request = writer.request(writer.batch())
    request.timeout_ms = 1_000
    world.send(request, 9, 7)
    writer.sequence = 1
    writer.send()
    world.pass_time(1_100)
    row = writer.answer()
    assert row is not None
    assert row.error_code == ErrorCode.REQUEST_TIMED_OUT
    world.coordinators.answer()
    world.run([])
    row = writer.answer()
    assert row is not None
    assert (row.error_code, row.base_offset) == (0, 1)


def test_nothing_is_lost_or_open_twice_after_a_crash(
    world: TransactionWorld, writer: Writer
) -> None:
    writer.write(3)
    world.crash()
    assert world.ends == (0, 3)
    assert writer.write() is NONE, "it is open still: nobody has to be asked"
    assert len(world.coordinators.asked) == 1
    world.marker(7, commits=False)
    assert world.ends == (5, 5)


def test_every_error_has_a_sentence() -> None:
    for error in ErrorCode:
        for version in (9, 11, 12):
            assert produce_errors.unverified(error, version)[1]
