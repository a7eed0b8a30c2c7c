"""The comparison of instruction counts: which part is whose, and what is held against a change."""

from pathlib import Path

import pytest

from bench.micro import cases, instructions

PRINTED = "one\t10\tof a kind\ntwo\t4\tof another\n"


def figure(count: float) -> dict[str, float | str]:
    return {"instructions": count, "what": ""}


def test_a_case_is_what_lies_between_its_two_marks() -> None:
    found = instructions.figures(PRINTED, [999, 1000, 999, 80, 999])
    assert {name: row["instructions"] for name, row in found.items()} == {"one": 100, "two": 20}


def test_a_case_that_ended_in_the_middle_is_no_figure() -> None:
    with pytest.raises(AssertionError, match="3 parts of 2 cases"):
        instructions.figures(PRINTED, [999, 1000, 999])


def test_parts_are_read_in_the_order_they_were_written(tmp_path: Path) -> None:
    for number, total in ((10, 7), (9, 8)):
        (tmp_path / f"part.{number}").write_text(f"part: {number}\ndesc: x\ntotals: {total}\n")
    assert instructions.parts(tmp_path) == [8, 7]


@pytest.mark.parametrize(("count", "is_worse"), [(100, False), (105, False), (106, True)])
def test_five_percent_are_allowed(count: float, *, is_worse: bool) -> None:
    found = instructions.worse({"one": figure(100)}, {"one": figure(count)})
    assert found == (["one"] if is_worse else [])


def test_a_case_without_a_committed_figure_is_named() -> None:
    assert instructions.worse({}, {"new": figure(1)}) == ["new"]


def test_every_case_does_its_work() -> None:
    names = []
    for case in cases.cases():
        case.run()
        assert case.per_run * case.runs > 0
        names.append(case.name)
    assert len(set(names)) == len(names)
