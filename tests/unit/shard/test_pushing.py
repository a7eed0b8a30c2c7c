"""Transactions that nobody ends: their partition asks, and does what it is told."""

import pytest

from corelane.model.config import parse
from corelane.model.ids import Term
from corelane.producers.transactions.requests import PushVerdict
from corelane.shard import pushing
from corelane.shard.verifying import Place, Pushed, PushTransaction
from tests.unit.api.transactions import NONE, TransactionWorld, Writer

AGE_MS = parse("").transactions.push_age_ms
ABORT = Pushed(PushVerdict.ABORT, 0, Term(3))


@pytest.fixture
def world() -> TransactionWorld:
    made = TransactionWorld()
    assert made.create_topic("t").error_code == 0
    return made


def wait(world: TransactionWorld, ms: int) -> None:
    for _ in range(ms // pushing.PASS_MS):
        world.pass_time(pushing.PASS_MS)


def test_a_young_transaction_is_nobodys_business(world: TransactionWorld) -> None:
    Writer(world, 7).write()
    wait(world, AGE_MS)
    assert world.coordinators.pushes == []


def test_an_old_one_is_asked_about_and_left_alone_while_it_lives(world: TransactionWorld) -> None:
    Writer(world, 7).write()
    wait(world, 2 * AGE_MS)
    place = Place("t", world.partition().topic.topic_id, 0)
    assert world.coordinators.pushes[0] == PushTransaction(None, 7, 0, place)
    assert len(world.coordinators.pushes) > 1, "again and again"
    assert world.ends == (0, 1)


def test_what_its_coordinator_gave_up_is_aborted(world: TransactionWorld) -> None:
    Writer(world, 7).write()
    world.coordinators.pushed = ABORT
    wait(world, 2 * AGE_MS)
    assert world.ends == (2, 2)
    assert len(world.coordinators.pushes) == 1
    (aborted,) = world.fetch("t", 0, isolation_level=1).aborted_transactions
    assert (aborted.producer_id, aborted.first_offset) == (7, 0)
    assert any("producer 7" in line for line in world.logs)


def test_what_no_coordinator_knows_is_aborted_with_its_own_epoch(world: TransactionWorld) -> None:
    writer = Writer(world, 7)
    writer.epoch = 5
    writer.write()
    world.coordinators.pushed = Pushed(PushVerdict.UNKNOWN)
    wait(world, 2 * AGE_MS)
    assert world.ends == (2, 2)
    standing = world.partition().transactions.standing(7)
    assert standing is not None
    assert standing.epoch == 5


def test_an_answer_about_a_transaction_that_is_over_ends_nothing(world: TransactionWorld) -> None:
    """P1: the next one of the same producer may be open by then, with the same epoch."""
    writer = Writer(world, 7)
    writer.write()
    world.coordinators.holds = True
    wait(world, 2 * AGE_MS)
    assert len(world.coordinators.pushes) == 1, "P2"
    assert world.marker(7) == [NONE]
    world.coordinators.holds = False
    writer.write()
    world.coordinators.answer_pushes(ABORT)
    world.run([])
    assert world.ends == (2, 3)


def test_an_answer_to_a_leader_that_has_moved_on_ends_nothing(world: TransactionWorld) -> None:
    Writer(world, 7).write()
    world.coordinators.holds = True
    wait(world, 2 * AGE_MS)
    world.partition().is_leaving = True
    world.coordinators.answer_pushes(ABORT)
    world.run([])
    assert world.ends == (0, 1)


def test_the_age_is_a_setting() -> None:
    world = TransactionWorld("corelane.transaction.push.age.ms = 5000")
    assert world.create_topic("t").error_code == 0
    Writer(world, 7).write()
    wait(world, 2 * pushing.PASS_MS)
    assert len(world.coordinators.pushes) == 1
