"""Questions between cores: told once, whatever happens to who was asked."""

import pytest

from corelane.cluster.binary import Reader
from corelane.model.ids import CoreId, NodeId
from corelane.shard import inquiries
from corelane.shard.inquiries import Inquiries, Question, Reply
from tests.unit.shard.node import Node

ASKED = Question.PUSH


@pytest.fixture
def node() -> Node:
    return Node(3)


def asking(node: Node, core: int) -> Inquiries:
    return node[core].shard.groups.asking


class Told(list[bytes | None]):
    """What a question was told."""

    def ask(self, node: Node, of: int, at: int, body: bytes = b"?") -> None:
        at_core = (NodeId(1), CoreId(at))
        shard = node[of].shard
        shard.todo.append(lambda: asking(node, of).ask(at_core, ASKED, body, self.append))
        node.run()


@pytest.mark.parametrize("at", [0, 1])
def test_a_question_is_answered_by_a_sibling_and_by_oneself(node: Node, at: int) -> None:
    def answer(body: bytes, reply: Reply) -> None:
        reply(body + b"!")

    asking(node, at).answerers[ASKED] = answer
    told = Told()
    told.ask(node, 1, at)
    assert told == [b"?!"]
    assert len(asking(node, 1)) == 0


def test_who_never_answers_is_waited_for_a_while(node: Node) -> None:
    kept: list[Reply] = []
    asking(node, 2).answerers[ASKED] = lambda _body, reply: kept.append(reply)
    told = Told()
    told.ask(node, 1, 2)
    node.pass_time(1_000)
    assert told == []
    node.pass_time(1_500)
    assert told == [None]
    kept[0](b"late")
    kept[0](b"and twice")
    node.run()
    assert told == [None]


def test_an_answer_that_comes_twice_is_told_once(node: Node) -> None:
    def answer(body: bytes, reply: Reply) -> None:
        reply(b"1")
        reply(b"2")

    asking(node, 2).answerers[ASKED] = answer
    told = Told()
    told.ask(node, 1, 2)
    assert told == [b"1"]


def test_the_death_of_who_was_asked_is_told_at_once(node: Node) -> None:
    asking(node, 2).answerers[ASKED] = lambda _body, _reply: None
    told = Told()
    told.ask(node, 1, 2)
    node.kill(2)
    assert told == [None]
    told.ask(node, 1, 2)
    assert told == [None, None], "nobody is there to be asked"
    node.revive(2)
    asking(node, 2).answerers[ASKED] = lambda _body, reply: reply(b"yes")
    told.ask(node, 1, 2)
    assert told == [None, None, b"yes"]


def test_another_nodes_core_cannot_be_asked_by_who_stands_alone(node: Node) -> None:
    told: list[bytes | None] = []
    asking(node, 0).ask((NodeId(2), CoreId(0)), ASKED, b"", told.append)
    assert told == [None]


def test_questions_under_way_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "OPEN_MAX", 2)
    asking(node, 2).answerers[ASKED] = lambda _body, _reply: None
    told = Told()
    for _ in range(3):
        told.ask(node, 1, 2)
    assert told == [None]


def test_what_cannot_be_read_is_reported_and_not_answered(node: Node) -> None:
    asking(node, 2).answerers[ASKED] = lambda body, _reply: Reader(body).end()
    told = Told()
    told.ask(node, 1, 2)
    node.pass_time(3_000)
    assert told == [None]
    assert any("cannot be read" in line for line in node[2].logs)


@pytest.mark.parametrize("core", [0, 2])
def test_the_fold_is_known_to_be_up_to_date(node: Node, core: int) -> None:
    passed: list[bool] = []
    groups = node[core].shard.groups
    before = groups.cluster.applied_index
    for _ in range(2):
        node[core].shard.todo.append(lambda: groups.barrier.pass_through(passed.append))
    node.run()
    assert passed == [True, True]
    assert groups.cluster.applied_index > before


def test_without_the_controller_the_fold_may_be_old(node: Node) -> None:
    passed: list[bool] = []
    node.kill(0)
    shard = node[2].shard
    shard.todo.append(lambda: shard.groups.barrier.pass_through(passed.append))
    node.run()
    assert passed == [False]
