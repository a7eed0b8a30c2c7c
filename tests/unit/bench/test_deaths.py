"""How gaps are measured: none is overlooked, and the page shows the worst."""

import sys
import time
from typing import Any

import pytest

from bench.macro import all_deaths, deaths, gaps


def test_a_gap_counts_while_it_is_open_and_by_whom_it_was_led(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watched = [gaps.Watched(number, 100.0) for number in range(3)]
    for each in watched[:2]:
        each.settled(100.0, is_good=True)
    watched[0].settled(100.4, is_good=True)
    watched[1].settled(100.2, is_good=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 104.5)
        gaps.tell_open(watched)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["gap 0 100.000 0.400", "gap 0 100.400 4.100", "gap 1 100.000 4.500"]
    loss = deaths.Loss(1, "kill", 100.5, 5.0, [1], 0.3, [0, 0], [1])
    assert deaths.gaps_of([*lines, "failed 0"], loss) == (4.5, 4.1)
    earlier = deaths.Loss(1, "kill", 90.0, 5.0, [1], 0.3, [0, 0], [1])
    assert deaths.gaps_of(lines, earlier) == (0.0, 0.0)


def test_the_page_of_deaths_shows_the_worst_of_each_shape() -> None:
    row = {
        "broker": "corelane", "gap_led_s": 0.41, "gap_others_s": 0.0, "led_again_s": 0.3,
        "terms_p99": 1, "terms_max": 2, "elections": 101, "votes": 1_402,
    }  # fmt: skip
    shapes = {"raw": [row, {**row, "gap_led_s": 0.52}], "kafka": [{**row, "broker": "kafka"}]}
    page = all_deaths.render({"machine": {"cpus": "2"}, "shapes": shapes}, "GAPS.json")
    what, kafka = (all_deaths.SHAPES[each][0] for each in ("raw", "kafka"))
    assert f"| {what} | 2 | 0.52 s | below 0.25 s | 0.30 | 1 | 2 | 101 | 1,402 |" in page
    assert f"| {kafka} | 1 | 0.41 s | below 0.25 s | 0.30 | 1 | 2 | - | - |" in page


def test_what_was_measured_before_a_failure_is_kept_and_pieces_are_put_together() -> None:
    row = {"broker": "corelane", "gap_led_s": 0.4, "gap_others_s": 0.0, "led_again_s": 0.3}
    row |= {"terms_p99": 1, "terms_max": 1, "elections": 1, "votes": 6}
    result: dict[str, Any] = {"machine": {}, "shapes": {"java": [row], "raw": [row]}}
    all_deaths.keep(result, "raw", [row, row], "AssertionError: not led again", is_added=False)
    page = all_deaths.render(result, "GAPS.json")
    what = all_deaths.SHAPES["raw"][0]
    assert f"| {what} | 2 | 0.40 s" in page
    assert f"- {what}: AssertionError: not led again" in page
    all_deaths.keep(result, "raw", [row], None, is_added=True)
    assert [len(result["shapes"][name]) for name in ("raw", "java")] == [3, 1]
    assert "not led again" in all_deaths.render(result, "GAPS.json"), "it did happen"
    all_deaths.keep(result, "raw", [], "AssertionError: no", is_added=False)
    assert len(result["shapes"]["raw"]) == 3, "nothing new is no reason to lose the old"
    all_deaths.keep(result, "raw", [row], None, is_added=False)
    assert "failed" not in all_deaths.render(result, "GAPS.json")


def test_a_shape_that_fails_hands_over_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import sys; open(sys.argv[-1], 'w').write('[{}]');"
        " assert sys.argv[1:3] == ['--kills', '2'], sys.argv; raise SystemExit('it died')"
    )
    monkeypatch.setattr(all_deaths, "DEATHS", [sys.executable, "-c", script])
    assert all_deaths.run(["--kills", "10"], 2) == ([{}], "it died")
