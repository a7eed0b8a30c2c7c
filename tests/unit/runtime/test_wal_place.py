"""A log on another device: made once, found again, and never replaced by an empty one."""

import shutil
from pathlib import Path

import pytest

from corelane.runtime.failures import StartError
from corelane.runtime.wal_place import place_wal


@pytest.fixture
def core(tmp_path: Path) -> Path:
    core = tmp_path / "data" / "core-00"
    core.mkdir(parents=True)
    return core


def test_without_a_wish_the_log_stays_with_the_data(core: Path) -> None:
    place_wal(core, "", "id")
    assert not (core / "wal").exists()


def test_a_new_core_gets_a_link(core: Path, tmp_path: Path) -> None:
    place_wal(core, str(tmp_path / "fast"), "id")
    place_wal(core, str(tmp_path / "fast"), "id")
    (core / "wal" / "file").write_text("x")
    assert (tmp_path / "fast" / "id" / "core-00" / "file").read_text() == "x"
    place_wal(core, "", "id")
    assert (core / "wal" / "file").exists()


def test_a_log_that_is_gone_is_not_taken_for_a_new_one(core: Path, tmp_path: Path) -> None:
    place_wal(core, str(tmp_path / "fast"), "id")
    shutil.rmtree(tmp_path / "fast")
    for directory in (str(tmp_path / "fast"), ""):
        with pytest.raises(StartError, match=r"it is not there\. Is its device mounted"):
            place_wal(core, directory, "id")
    assert not (tmp_path / "fast").exists()


def test_a_log_is_not_left_behind(core: Path, tmp_path: Path) -> None:
    place_wal(core, str(tmp_path / "fast"), "id")
    with pytest.raises(StartError, match="it is in "):
        place_wal(core, str(tmp_path / "other"), "id")
    (core / "wal").unlink()
    (core / "wal").mkdir()
    with pytest.raises(StartError, match="the write-ahead log is already in"):
        place_wal(core, str(tmp_path / "fast"), "id")
