"""The checker of histories finds each kind of broken promise, planted one at a time."""

from collections.abc import Callable

import pytest

from tests.integration.histories import Acknowledged, History, Sent, faults, longest_gap_s


def good() -> History:
    """Two producers, one partition each and one in common; a reader that saw most of it."""
    return History(
        sent=[
            Sent("a", 0, ["a0", "a1", "a2"]),
            Sent("b", 0, ["b0", "b1"]),
            Sent("b", 1, ["b2"]),
        ],
        acknowledged=[
            Acknowledged("a0", (0, 0), 1.0),
            Acknowledged("b0", (0, 1), 1.5),
            Acknowledged("a1", (0, 2), 4.0),
            Acknowledged("b2", (1, 0), 2.0),
        ],
        reads={"r": [((0, 0), "a0"), ((1, 0), "b2"), ((0, 1), "b0")]},
        final={0: ["a0", "b0", "a1", "b1"], 1: ["b2"]},
    )


def test_a_good_history_has_no_fault() -> None:
    """What was never acknowledged may be there or not: a2 is not, b1 is."""
    assert faults(good()) == []


def lose(history: History) -> None:
    history.final[1].clear()
    history.reads["r"].pop(1)


def double(history: History) -> None:
    history.final[0].append("a0")


def reorder(history: History) -> None:
    history.acknowledged.clear()
    history.reads.clear()
    history.final[0][:] = ["a1", "b0", "a0", "b1"]


def diverge(history: History) -> None:
    """A reader saw another record at an offset than another reader."""
    history.reads["other"] = [((0, 3), "a2")]


def read_ahead(history: History) -> None:
    history.reads["r"].append(((0, 4), "a2"))
    history.reads["r"].insert(3, ((0, 2), "a1"))
    history.reads["r"].insert(4, ((0, 3), "b1"))


def misplace(history: History) -> None:
    """It is there, but not where its acknowledgement said."""
    history.acknowledged[2] = Acknowledged("a1", (0, 3), 4.0)


def skip(history: History) -> None:
    history.reads["r"].append(((0, 3), "b1"))


def go_back(history: History) -> None:
    history.reads["r"].append(((0, 0), "a0"))


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lose, "b2 was acknowledged at (1, 0) and is lost"),
        (double, "a0 is there more than once: [(0, 0), (0, 4)]"),
        (reorder, "a1 of a comes before a0"),
        (diverge, "at (0, 3) there are {'a2': 'other', 'b1': 'the end'}"),
        (read_ahead, "r was given a2 at (0, 4), which was never committed"),
        (misplace, "at (0, 3) there are {'a1': 'its acknowledgement', 'b1': 'the end'}"),
        (skip, "r was given 3 after 1 of 0"),
        (go_back, "r was given 0 after 1 of 0"),
    ],
)
def test_each_broken_promise_is_found(plant: Callable[[History], None], words: str) -> None:
    history = good()
    plant(history)
    assert words in faults(history)
    assert len(faults(history)) == 1, "each plant breaks one promise"


def test_the_longest_gap_counts_from_the_beginning_to_the_end() -> None:
    assert longest_gap_s(good(), 0.5, 5.0) == {0: 2.5, 1: 3.0}
    assert longest_gap_s(good(), 0.5, 9.0) == {0: 5.0, 1: 7.0}
    assert longest_gap_s(good(), 1.2, 5.0) == {0: 2.5, 1: 3.0}
    assert longest_gap_s(good(), 3.5, 5.0) == {0: 1.0, 1: 1.5}
