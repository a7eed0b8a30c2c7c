"""Values are equal by what they hold, told by what they hold, and no keys."""

from dataclasses import field, fields, replace

import pytest

from corelane.model.record import record


@record
class Place:
    """Something with two fields, one of which does not count."""

    row: int
    note: str = field(default="", compare=False, repr=False)


@record
class Line(Place):
    """One more field, on top of inherited ones."""

    length: int = 1


@record
class Nothing:
    """No fields at all."""


@record
class Own:
    """Says itself what is equal."""

    word: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and self.word.lower() == other.word.lower()

    def __hash__(self) -> int:
        return hash(self.word.lower())

    def __repr__(self) -> str:
        return self.word


def test_values_are_equal_by_their_fields() -> None:
    assert Place(1) == Place(1, "noted")
    assert Place(1) != Place(2)
    assert Line(1, "", 2) == Line(1, "", 2)
    assert Line(1, "", 2) != Line(1, "", 3)
    assert Nothing() == Nothing()
    assert Place(1) != Line(1)
    other: object = 1
    assert Place(1) != other


def test_values_tell_their_fields() -> None:
    assert repr(Line(1, "hidden", 2)) == "Line(row=1, length=2)"
    assert repr(Nothing()) == "Nothing()"


def test_values_are_no_keys() -> None:
    with pytest.raises(TypeError, match="unhashable type: 'Place'"):
        hash(Place(1))


def test_what_a_class_says_itself_stays() -> None:
    assert Own("a") == Own("A")
    assert {Own("a"), Own("A")} == {Own("a")}
    assert repr(Own("a")) == "a"


@record
class Defaults:
    """One field without a default, and two with."""

    first: int
    word: str = "w"
    things: list[int] = field(default_factory=list)


def test_a_constructor_takes_fields_by_place_and_name_also_the_first_time() -> None:
    with pytest.raises(TypeError, match=r"Defaults.__init__\(\) missing 1 required positional"):
        Defaults()  # type: ignore[call-arg]
    one, two = Defaults(1), Defaults(1, things=[2])
    assert (one.first, one.word, one.things) == (1, "w", [])
    assert two.things == [2]
    assert one.things is not Defaults(1).things
    with pytest.raises(TypeError, match="unexpected keyword argument 'more'"):
        Defaults(1, more=2)  # type: ignore[call-arg]


def test_values_are_slotted_dataclasses() -> None:
    line = Line(1, length=2)
    assert not hasattr(line, "__dict__")
    assert [each.name for each in fields(Line)] == ["row", "note", "length"]
    assert replace(line, row=5) == Line(5, length=2)
    match line:
        case Line(row, _, length):
            assert (row, length) == (1, 2)
