"""Transactions as producers ask for them: each step, each version, and what is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from corelane.model.errors import ErrorCode
from corelane.model.features import TRANSACTION_VERSION
from corelane.producers.transactions.coordinator import TransactionCoordinator
from corelane.shard import transaction_records
from corelane.shard.transaction_host import TransactionHost, settings_of
from corelane.wire.compiler import message_type
from tests.unit.api.txn import (
    SETTINGS,
    Add,
    AddTopic,
    AddTransaction,
    Describe,
    End,
    List,
    Producer,
    coordinated,
    find,
)
from tests.unit.api.world import World, delete_topic

PLACES = [("t", 0), ("t", 2)]


@pytest.fixture
def world() -> World:
    return coordinated()


def hosts(world: World) -> list[TransactionHost]:
    return [*world.shard.groups.hosts.transactions.values()]


def begun(world: World, name: str = "one") -> Producer:
    producer = Producer(world, name)
    assert producer.init() == 0
    assert producer.add(*PLACES) == [0, 0]
    return producer


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_the_first_question_makes_the_topic(version: int) -> None:
    world = World(SETTINGS)
    assert find(world, "some", version).node_id == 1000
    topic = world.shard.groups.topics[b"__transaction_state"]
    assert len(topic.partitions) == 3
    assert topic.settings.is_compacted


def test_an_empty_transactional_id_has_no_coordinator(world: World) -> None:
    assert find(world, "", 4).error_code == ErrorCode.INVALID_REQUEST
    assert Producer(world, "").init() == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", range(6))
def test_a_producer_gets_an_id_and_its_successor_a_higher_epoch(world: World, version: int) -> None:
    first, second = Producer(world, "one"), Producer(world, "one")
    assert (first.init(version), second.init(version)) == (0, 0)
    assert first.producer_id == second.producer_id
    assert (first.epoch, second.epoch) == (0, 1)
    other = Producer(world, "two")
    assert other.init(version) == 0
    assert other.producer_id != first.producer_id


def test_without_the_topic_nobody_coordinates() -> None:
    world = World(SETTINGS)
    assert Producer(world, "one").init() == ErrorCode.NOT_COORDINATOR


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_a_timeout_above_the_limit_is_refused(world: World, timeout_ms: int) -> None:
    producer = Producer(world, "one")
    assert producer.init(timeout_ms=timeout_ms) == ErrorCode.INVALID_TRANSACTION_TIMEOUT
    assert producer.state() == ""  # nothing is kept of it


def test_an_id_without_an_epoch_is_no_identity(world: World) -> None:
    assert Producer(world, "one").init(producer_id=7) == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("commits", [True, False])
def test_a_transaction_ends_when_every_partition_has_the_marker(
    world: World, commits: bool
) -> None:
    producer = begun(world)
    assert producer.state() == "Ongoing"
    assert producer.end(commits=commits) == 0
    producer.settle()
    assert producer.state() == ("CompleteCommit" if commits else "CompleteAbort")
    assert producer.add(("t", 1)) == [0]  # and the next one begins
    assert producer.state() == "Ongoing"


@pytest.mark.parametrize(("version", "error"), [(0, 47), (1, 47), (2, 90), (4, 90), (5, 90)])
def test_who_was_succeeded_is_fenced_at_each_version(
    world: World, version: int, error: int
) -> None:
    first, second = Producer(world, "one"), Producer(world, "one")
    first.init()
    second.init()
    assert first.end(version=version) == error
    if version <= 3:
        assert first.add(("t", 0), version=version) == [error]
    if version <= 4:
        assert first.add_offsets("g", version=version) == error
    assert second.add(*PLACES) == [0, 0]
    assert second.end() == 0


def test_a_successor_aborts_what_is_going_on_and_asks_again(world: World) -> None:
    first = begun(world)
    second = Producer(world, "one")
    assert second.init() == ErrorCode.CONCURRENT_TRANSACTIONS
    second.settle()
    assert second.state() == "CompleteAbort"
    assert second.init() == 0
    assert second.epoch > first.epoch
    assert first.end() == ErrorCode.PRODUCER_FENCED


def test_an_end_may_come_twice_and_not_otherwise(world: World) -> None:
    producer = begun(world)
    assert producer.end() == 0
    producer.settle()
    assert producer.end() == 0
    assert producer.end(commits=False) == ErrorCode.INVALID_TXN_STATE
    fresh = Producer(world, "two")
    fresh.init()
    assert fresh.end() == ErrorCode.INVALID_TXN_STATE  # nothing was begun


def test_an_end_of_nobody_is_not_known(world: World) -> None:
    stranger = Producer(world, "nobody")
    stranger.producer_id, stranger.epoch = 77, 0
    assert stranger.end() == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert stranger.add(("t", 0)) == [ErrorCode.INVALID_PRODUCER_ID_MAPPING]


def test_with_version_5_each_transaction_has_an_epoch(world: World) -> None:
    producer = begun(world)
    assert producer.end(version=5) == 0
    assert producer.epoch == 1
    producer.settle()
    producer.epoch = 0  # the answer was lost: asked again, it is the same
    assert producer.end(version=5) == 0
    assert producer.epoch == 1
    producer.epoch = 0
    assert producer.end(version=5, commits=False) == ErrorCode.INVALID_TXN_STATE


def test_a_commit_that_comes_after_the_abort_is_fenced(world: World) -> None:
    producer = begun(world)
    world.pass_time(120_000)
    producer.settle()
    assert producer.state() == "CompleteAbort"
    assert producer.end(version=5) == ErrorCode.PRODUCER_FENCED
    assert producer.end(version=1) == ErrorCode.INVALID_PRODUCER_EPOCH


def test_what_is_open_for_too_long_is_aborted(world: World) -> None:
    producer = Producer(world, "one")
    producer.init(timeout_ms=3_000)
    producer.add(*PLACES)
    world.pass_time(2_000)
    assert producer.state() == "Ongoing"
    world.pass_time(3_000)
    producer.settle()
    assert producer.state() == "CompleteAbort"


def test_partitions_that_do_not_exist_keep_out_all_others(world: World) -> None:
    producer = Producer(world, "one")
    producer.init()
    unknown, others = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OPERATION_NOT_ATTEMPTED
    assert producer.add(("t", 0), ("t", 9), ("u", 0)) == [others, unknown, unknown]
    assert producer.state() == "Empty"


def test_a_deleted_topic_holds_up_no_transaction(world: World) -> None:
    world.create_topic("gone", 2)
    producer = Producer(world, "one")
    producer.init()
    producer.add(("gone", 1), ("t", 0))
    delete_topic(world, "gone")
    assert producer.end() == 0
    producer.settle()
    assert producer.state() == "CompleteCommit"


def test_brokers_may_ask_about_several_transactions_at_once(world: World) -> None:
    one, two = begun(world), Producer(world, "two")
    two.init()

    def asked(producer: Producer, number: int, *, verify: bool) -> object:
        return AddTransaction(
            transactional_id=producer.name,
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
            verify_only=verify,
            topics=[AddTopic(name="t", partitions=[number])],
        )

    def errors(version: int, *rows: object) -> list[int]:
        answer = world.call(Add(transactions=[*rows]), version)
        return [
            row.topic_results[0].results_by_partition[0].partition_error_code
            for row in answer.results_by_transaction
        ]

    wanted = (asked(one, 2, verify=True), asked(one, 1, verify=True), asked(two, 0, verify=True))
    abortable, state = ErrorCode.TRANSACTION_ABORTABLE, ErrorCode.INVALID_TXN_STATE
    assert errors(5, *wanted) == [0, abortable, abortable]
    assert errors(4, *wanted) == [0, state, state]
    assert errors(5, asked(two, 0, verify=False), asked(two, 7, verify=False)) == [0, 3]
    assert errors(5, asked(two, 0, verify=True)) == [0]
    assert two.state() == "Ongoing"


def test_the_partition_of_a_group_is_part_of_the_transaction(world: World) -> None:
    producer = begun(world)
    assert producer.add_offsets("g") == 0
    answer = world.call(Describe(transactional_ids=["one"]), 0)
    topics = {row.topic: row.partitions for row in answer.transaction_states[0].topics}
    assert topics["t"] == [0, 2]
    assert len(topics["__consumer_offsets"]) == 1


def test_tools_see_transactions(world: World) -> None:
    one, two = begun(world), Producer(world, "two")
    two.init()
    answer = world.call(Describe(transactional_ids=["one", "nobody", "one"]), 0)
    found, unknown = answer.transaction_states
    assert (found.error_code, found.producer_id, found.producer_epoch) == (0, one.producer_id, 0)
    assert (found.transaction_timeout_ms, found.transaction_start_time_ms > 0) == (60_000, True)
    assert unknown.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND

    def listed(version: int = 2, **fields: object) -> set[str]:
        answer = world.call(List(**fields), version)
        assert answer.error_code == 0
        return {row.transactional_id for row in answer.transaction_states}

    assert listed() == {"one", "two"}
    assert listed(0, state_filters=["Ongoing"]) == {"one"}
    assert listed(0, producer_id_filters=[two.producer_id]) == {"two"}
    assert listed(1, duration_filter=60_000) == set()
    assert listed(2, transactional_id_pattern="t.*") == {"two"}
    world.pass_time(2_000)
    assert listed(1, duration_filter=1_000) == {"one"}
    answer = world.call(List(state_filters=["Ongoing", "Odd"]), 0)
    assert answer.unknown_state_filters == ["Odd"]
    answer = world.call(List(transactional_id_pattern="("), 2)
    assert answer.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION


def test_a_coordinator_is_what_its_log_says_at_every_step(world: World) -> None:
    """T1, and the whole machine: crashed after each step, nothing that was answered is lost."""

    def check() -> None:
        for host in hosts(world):
            again = TransactionCoordinator(settings_of(world.shard))
            latest = host.partition.latest
            assert latest is not None
            for key, value in latest.items.items():
                again.replay(transaction_records.decode(key, value))
            assert again._transactions == host.coordinator._transactions
            assert again._producers == host.coordinator._producers

    one, two = Producer(world, "one"), Producer(world, "two")
    steps: list[Callable[[], int]] = [
        one.init,
        two.init,
        lambda: sum(one.add(*PLACES)),
        lambda: two.add_offsets("g"),
        one.end,
        lambda: sum(two.add(("t", 1))),
        lambda: two.end(commits=False, version=5),
        lambda: sum(two.add(("t", 1))),
        lambda: two.end(version=5),
    ]
    for step in steps:
        assert step() == 0
        check()
        before = (one.state(), two.state())
        world.crash()
        world.pass_time(500)
        for producer in (one, two):
            producer.settle()
        check()
        for producer, was in zip((one, two), before, strict=True):
            now = producer.state()
            assert now == was.replace("Prepare", "Complete"), (was, now)


def test_a_long_log_is_written_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corelane.shard.host.REWRITE_RECORDS_MIN", 50)
    producer = Producer(world, "one")
    for _ in range(80):
        assert producer.init() == 0
    logs = [host.partition.log for host in hosts(world)]
    assert max(log.start_offset for log in logs) > 0
    world.crash()
    world.pass_time(500)
    assert producer.init() == 0
    assert producer.epoch == 80


def test_epochs_come_to_their_end_and_another_id_follows(world: World) -> None:
    producer = Producer(world, "one")
    producer.init()
    host = next(each for each in hosts(world) if len(each.coordinator))
    (known,) = host.coordinator._transactions.values()
    host.coordinator._transactions["one"] = replace(known, epoch=32_766)
    before = producer.producer_id
    assert producer.init() == 0
    assert (producer.epoch, producer.producer_id != before) == (0, True)


def test_features_tell_what_every_node_knows(world: World) -> None:
    answer = world.call(
        message_type("ApiVersionsRequest")(client_software_name="t", client_software_version="1"),
        3,
    )
    finalized = {row.name: row.max_version_level for row in answer.finalized_features}
    assert finalized == {"group.version": 1, "transaction.version": TRANSACTION_VERSION}


def test_no_marker_and_no_answer_before_the_decision_is_on_disk(world: World) -> None:
    """X1 and H2: a decision that a power cut could take back was never made."""
    producer = begun(world)
    partition = world.shard.groups.topics[b"t"].partition(0)
    assert partition is not None
    before = partition.log.next_offset
    world.holds_disk = True
    request = End(
        transactional_id="one",
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        committed=True,
    )
    world.send(request, 3)
    world.pass_time(200)
    assert world.receive(26, 3) is None
    assert partition.log.next_offset == before
    world.release_disk()
    world.pass_time(200)
    answer = world.receive(26, 3)
    assert answer is not None
    assert answer[1].error_code == 0
    assert partition.log.next_offset == before + 1


def _gone_on(world: World, version: int) -> tuple[Producer, Producer]:
    """Return a producer on a connection that it has left, and itself on the next one."""
    old = Producer(world, "one")
    assert old.init() == 0
    assert old.add(("t", 0)) == [0]
    new = Producer(world, "one", conn=2)
    new.producer_id, new.epoch = old.producer_id, old.epoch
    assert new.end(version=version) == 0
    new.settle()
    assert new.add(("t", 1)) == [0], "the next transaction"
    return old, new


def test_an_end_that_is_late_does_not_end_the_next_transaction(world: World) -> None:
    """Anomaly 7b: a client of version 1 gave up waiting, asked again elsewhere, and went on."""
    old, new = _gone_on(world, 3)
    with pytest.raises(AssertionError, match="no answer"):
        old.end()
    assert "newer connection" in world.closed[1]
    assert new.state() == "Ongoing"
    assert new.end() == 0


def test_a_client_that_still_listens_goes_on_with_a_new_connection(world: World) -> None:
    old, _new = _gone_on(world, 3)
    with pytest.raises(AssertionError, match="no answer"):
        old.add(("t", 2))
    assert old.add(("t", 2)) == [0], "on the connection that it has made since"
    assert old.end() == 0


def test_another_instance_is_fenced_by_its_epoch_and_hears_so(world: World) -> None:
    old = begun(world)
    new = Producer(world, "one", conn=2)
    while new.init():
        world.pass_time(50)
    assert new.add(("t", 0)) == [0]
    assert old.end() == ErrorCode.PRODUCER_FENCED
