"""How results look, and the progress line."""

import io

import pytest

from corelane_cli.output import counted, table
from corelane_cli.progress import Progress, Unit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress(2_000_000, is_wanted=True)
    progress.show(1_000_000, 10)
    progress.show(1_500_000, 15)  # too soon after the first
    progress.finish()
    text = terminal.getvalue()
    assert " 50%  10 records, 1.0 MB" in text
    assert "#" * 15 + "-" * 15 in text
    assert "15 records" not in text
    assert text.endswith("\r\x1b[K")


@pytest.mark.parametrize("is_wanted", [True, False])
def test_progress_is_silent_elsewhere(is_wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO() if is_wanted else Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    progress = Progress(100, is_wanted=is_wanted)
    progress.show(50, 1)
    progress.finish()
    assert stream.getvalue() == ""


def test_numbers_stand_to_the_right() -> None:
    assert table(("NAME", "N"), [("a", 1), ("bcdef", -200)]) == (
        "NAME      N\na         1\nbcdef  -200"
    )


@pytest.mark.parametrize(
    ("unit", "total", "text"),
    [
        ("bytes", 0, "2.0 MB, "),
        ("bytes", 4_000_000, " 50%  2.0 MB, "),
        ("records", 4_000_000, " 50%  2000000 records, "),
        ("partitions", 4_000_000, " 50%  2000000 of 4000000 partitions"),
    ],
)
def test_progress_counts_what_is_done(
    unit: Unit, total: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress(total, is_wanted=True, unit=unit)
    progress.show(2_000_000)
    shown = terminal.getvalue()
    assert text in shown
    assert ("[" in shown.removeprefix("\r\x1b[K")) == bool(total)


def test_nouns_have_a_number() -> None:
    assert [counted(number, "core") for number in (0, 1, 2)] == ["0 cores", "1 core", "2 cores"]
