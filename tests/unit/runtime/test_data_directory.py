"""A data directory is made, locked and recognised, or refused with a sentence that helps."""

import os
import subprocess
from pathlib import Path

import pytest

from corelane.runtime import data_directory, failures
from corelane.runtime.data_directory import open_data_directory
from corelane.runtime.failures import StartError


def refusal(path: Path, node_id: int = 1) -> StartError:
    with pytest.raises(StartError) as caught:
        open_data_directory(path, node_id)
    assert str(path) in caught.value.what
    return caught.value


def test_a_new_directory_is_made_with_its_parents_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    first = open_data_directory(path, 7)
    os.close(first.lock_fd)
    second = open_data_directory(path, 7)
    os.close(second.lock_fd)
    assert first.identity == second.identity
    assert first.identity.node_id == 7
    assert (path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_directory_in_use_names_its_holder(tmp_path: Path) -> None:
    holder = open_data_directory(tmp_path, 1)
    error = refusal(tmp_path)
    assert error.why == f"another broker is using it (process {os.getpid()})"
    assert error.code == failures.EXIT_IN_USE
    os.close(holder.lock_fd)
    os.close(open_data_directory(tmp_path, 1).lock_fd)


def test_another_format_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    os.close(open_data_directory(tmp_path, 1).lock_fd)
    file = tmp_path / "cluster.toml"
    text = file.read_text().replace("format_version = 1", "format_version = 99\nnew_key = 1")
    file.write_text(text)
    error = refusal(tmp_path)
    assert error.why == "it has format version 99, this broker reads 1"
    assert error.code == failures.EXIT_DATA_DIRECTORY
    assert file.read_text() == text


def test_the_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    os.close(open_data_directory(tmp_path, 1).lock_fd)
    error = refusal(tmp_path, node_id=2)
    assert error.why == "it belongs to node 1, and this is node 2"
    assert "--node-id 1" in error.next_step


@pytest.mark.parametrize("text", ["{", "", 'node_id = "one"', "\0"])
def test_a_damaged_cluster_file_is_never_written_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    assert "cluster.toml is not readable as ours" in refusal(tmp_path).why
    assert file.read_text() == text


def test_data_without_a_cluster_file_are_not_taken_for_a_new_directory(tmp_path: Path) -> None:
    (tmp_path / "core-00").mkdir()
    assert "cluster.toml is missing" in refusal(tmp_path).why


def test_a_refused_directory_is_free_for_the_next(tmp_path: Path) -> None:
    (tmp_path / "core-00").mkdir()
    refusal(tmp_path)
    assert data_directory.is_lock_free(tmp_path / "lock")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert "not a directory" in refusal(file).why
    assert "a part of the path is a file" in refusal(file / "data").why
    assert file.read_text() == "mine"


def test_a_stale_ports_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{}")
    os.close(open_data_directory(tmp_path, 1).lock_fd)
    assert not (tmp_path / "ports.json").exists()


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """Return a small file system of our own: what fills or write-protects it harms nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    path = tmp_path / "mounted"
    path.mkdir()
    return path


def mount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_refused_with_what_is_needed(mounted: Path) -> None:
    mount(mounted, "size=8m")
    try:
        error = refusal(mounted)
        assert "the disk is full: " in error.why
        assert "16 MiB are needed" in error.why
        assert "Free some space" in error.next_step
    finally:
        unmount(mounted)


def test_a_read_only_file_system_is_named(mounted: Path) -> None:
    mount(mounted, "size=8m,ro")
    try:
        assert "mounted read-only" in refusal(mounted).why
        assert "mounted read-only" in refusal(mounted / "data").why
    finally:
        unmount(mounted)


def test_a_full_disk_does_not_stop_a_broker_that_has_its_files(mounted: Path) -> None:
    mount(mounted, "size=32m")
    try:
        os.close(open_data_directory(mounted, 1).lock_fd)
        with pytest.raises(OSError, match="No space"):
            (mounted / "filler").write_bytes(b"x" * (64 << 20))
        os.close(open_data_directory(mounted, 1).lock_fd)
    finally:
        unmount(mounted)
