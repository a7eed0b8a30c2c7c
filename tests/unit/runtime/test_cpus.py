"""How many CPUs a process may use, by made-up cgroups."""

from pathlib import Path

import pytest

from corelane.runtime import cpus


def v2(directory: Path, limits: dict[str, str]) -> Path:
    """Make a tree of version 2 with this process in /a/b; return the file that says so."""
    (directory / "a" / "b").mkdir(parents=True)
    for name, text in limits.items():
        (directory / name / "cpu.max").write_text(f"{text}\n")
    own = directory / "own"
    own.write_text("0::/a/b\n")
    return own


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({}, 8),
        ({"a/b": "max 100000"}, 8),
        ({"a/b": "200000 100000"}, 2),
        ({"a/b": "150000 100000"}, 2),
        ({"a/b": "1000 100000"}, 1),
        ({"a/b": "6400000 100000"}, 8),
        ({"a/b": "max 100000", "a": "300000 100000"}, 3),
        ({"a/b": "400000 100000", "a": "300000 100000", ".": "50000 10000"}, 3),
        ({"a/b": "nonsense"}, 8),
    ],
)
def test_a_quota_of_the_cgroup_or_one_above_it_is_obeyed_rounded_up(
    tmp_path: Path, limits: dict[str, str], count: int
) -> None:
    own = v2(tmp_path, limits)
    assert cpus.allowed_count(8, tmp_path, own) == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("250000", 3), ("100", 1)])
def test_a_quota_of_version_1_is_obeyed(tmp_path: Path, quota: str, count: int) -> None:
    own = tmp_path / "own"
    own.write_text("4:memory:/x\n3:cpu,cpuacct:/x/y\n1:name=systemd:/x\n")
    # A container sees its own cgroup where the tree begins, under the name it has outside.
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpus.allowed_count(8, tmp_path, own) == count


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert cpus.allowed_count(3, tmp_path, tmp_path / "missing") == 3
