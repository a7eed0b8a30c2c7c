"""Directories of retired cores: which they are; a crash while one is removed is harmless."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corelane.runtime import data_directory, retired
from corelane.runtime.failures import StartError
from corelane.runtime.wal_place import place_wal

UUID = "0d2ea8a0-0000-4000-8000-000000000000"


class Crash(BaseException):
    """The process ends here."""


def make(root: Path, core: int, *, wal_elsewhere: bool) -> Path:
    """Make a core's directory with some files; return where its log is."""
    directory = data_directory.core_directory(root / "data", core)
    directory.mkdir(parents=True)
    place_wal(directory, str(root / "fast") if wal_elsewhere else "", UUID)
    (directory / "wal").mkdir(exist_ok=True)
    (directory / "wal" / "1.wal").write_text("records")
    (directory / "partitions" / "a-0").mkdir(parents=True)
    (directory / "partitions" / "a-0" / "0.log").write_text("records")
    (directory / "lock").write_text("1\n")
    return (directory / "wal").resolve()


def test_cores_beyond_the_number_are_found_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "core-00",
        "core-03",
        "core-11",
        "core-101",
        "core-x",
        "core-007",
        "removed-core-5",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "core-09").write_text("a file")
    assert retired.retired_cores(tmp_path, 1) == [3, 11, 101]
    assert retired.retired_cores(tmp_path, 4) == [11, 101]
    assert retired.retired_cores(tmp_path, 102) == []


@pytest.mark.parametrize("wal_elsewhere", [False, True])
def test_everything_of_a_removed_core_goes_and_nothing_of_others(
    tmp_path: Path, wal_elsewhere: bool
) -> None:
    places = [make(tmp_path, core, wal_elsewhere=wal_elsewhere) for core in (1, 2)]
    retired.remove_core(tmp_path / "data", 2)
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["core-01"]
    assert places[0].is_dir()
    assert not places[1].exists()


def test_a_log_that_somebody_put_elsewhere_by_hand_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, 2, wal_elsewhere=False)
    directory = tmp_path / "data" / "core-02"
    mine = tmp_path / "mine"
    (directory / "wal").rename(mine)
    (directory / "wal").symlink_to(mine)
    retired.remove_core(tmp_path / "data", 2)
    assert list((tmp_path / "data").iterdir()) == []
    assert (mine / "1.wal").exists()


@pytest.mark.parametrize("wal_elsewhere", [False, True])
def test_a_crash_at_any_step_leaves_a_whole_core_or_what_the_next_start_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal_elsewhere: bool
) -> None:
    steps = 0
    for crash_at in range(1, 100):
        root = tmp_path / str(crash_at)
        place = make(root, 2, wal_elsewhere=wal_elsewhere)
        whole = snapshot(root)
        with monkeypatch.context() as patches:
            crash_after(patches, crash_at)
            try:
                retired.remove_core(root / "data", 2)
            except Crash:
                steps += 1
            else:
                break
        if retired.retired_cores(root / "data", 1):
            assert snapshot(root) == whole, "what still is a core has everything"
            retired.remove_core(root / "data", 2)
        retired.finish_removals(root / "data")
        assert list((root / "data").iterdir()) == []
        assert not place.exists()
    assert steps >= 8, "a rename, and each file and directory"


def crash_after(patches: pytest.MonkeyPatch, count: int) -> None:
    """Have the process end right before call number *count* that changes a directory."""
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == count:
                raise Crash
            return real(*arguments, **named)

        return call

    for name in ("rename", "unlink", "rmdir"):
        patches.setattr(os, name, counted(getattr(os, name)))


def snapshot(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_what_cannot_be_removed_keeps_no_broker_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "removed-core-03").mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    retired.finish_removals(tmp_path)
    assert "cannot remove" in caplog.text


def test_a_core_that_comes_back_never_finds_the_log_of_the_one_that_was_removed(
    tmp_path: Path,
) -> None:
    """A log without a link to it is not the new core's: it is refused, not replayed."""
    make(tmp_path, 2, wal_elsewhere=True)
    shutil.rmtree(tmp_path / "data" / "core-02")
    (tmp_path / "data" / "core-02").mkdir()
    with pytest.raises(StartError, match="it holds a log already"):
        place_wal(tmp_path / "data" / "core-02", str(tmp_path / "fast"), UUID)
