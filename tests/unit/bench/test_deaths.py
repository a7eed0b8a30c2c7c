"""How gaps are measured: none is overlooked, and the page shows the worst."""

import time

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
