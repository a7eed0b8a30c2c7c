"""The worker thread when the disk misbehaves: in a child, under a shim or a resource limit."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corelane_native import crc32c

SHIM = Path(__file__).with_name("disk_shim.c")

CHILD = """
import json, os, resource, select, sys
from corelane_native import *

def one(call):
    call()
    select.select([worker.eventfd], [], [], 10)
    os.eventfd_read(worker.eventfd)
    return worker.reap()[0][1:]

worker = Worker("test", sys.argv[1])
arena = Arena(1 << 20)
chunk = arena.chunk_new(1)
memory = bytearray(50_000)
arena.write(chunk, 0, bytes(at * 7 % 251 for at in range(131072)))
block = [(arena.address(chunk), 131072)]
DURABLE = WRITE_DIRECT | WRITE_DSYNC | WRITE_CREATE
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shim") / "disk_shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", path, SHIM, "-ldl"], check=True)
    return path


def child(directory: Path, script: str, **environment: str) -> Any:
    """Run *script* behind `CHILD` and return the JSON it prints."""
    preload = [environment.pop("shim", ""), os.environ.get("LD_PRELOAD", "")]
    done = subprocess.run(
        [sys.executable, "-c", CHILD + script, str(directory)],
        env=os.environ | environment | {"LD_PRELOAD": " ".join(filter(None, reversed(preload)))},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


WRITE = """
result = one(lambda: worker.write(1, "shim-file", 4096, block, {flags}))
print(json.dumps(result))
"""
CONTENT = bytes(at * 7 % 251 for at in range(131_072))


@pytest.mark.parametrize("flags", ["DURABLE", "WRITE_CREATE | WRITE_DSYNC"])
@pytest.mark.parametrize("fault", ["write-short", "write-eintr", "write-einval"])
def test_a_write_goes_on_until_it_is_whole(
    shim: Path, tmp_path: Path, fault: str, flags: str
) -> None:
    log = tmp_path / "log"
    script = WRITE.format(flags=flags)
    result = child(tmp_path, script, shim=str(shim), SHIM=fault, SHIM_LOG=str(log))
    assert result == [0, 131_072]
    assert (tmp_path / "shim-file").read_bytes() == bytes(4096) + CONTENT
    if fault == "write-einval" or flags != "DURABLE":
        # Buffered: durable only because fdatasync is the last thing that was called.
        assert log.read_text().splitlines()[-1] == "fdatasync 0"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("write-eio", -errno.EIO),
        ("write-stuck", -errno.EIO),
        ("sync-eio", -errno.EIO),
    ],
)
def test_a_disk_that_fails_is_a_result(
    shim: Path, tmp_path: Path, fault: str, expected: int
) -> None:
    script = WRITE.format(flags="WRITE_CREATE | WRITE_DSYNC")
    assert child(tmp_path, script, shim=str(shim), SHIM=fault)[0] == expected


@pytest.mark.parametrize("fault", ["write-eio", "sync-eio"])
def test_every_durable_job_reports_the_failure(shim: Path, tmp_path: Path, fault: str) -> None:
    script = """
jobs = [
    lambda: worker.zerofill(1, "shim-wal", 300_000),
    lambda: worker.write_file(1, "shim-checkpoint", b"x" * 100),
]
print(json.dumps([one(job)[0] for job in jobs]))
"""
    expected = [-errno.EIO, -errno.EIO]
    assert child(tmp_path, script, shim=str(shim), SHIM=fault) == expected
    assert not (tmp_path / "shim-wal").exists()
    assert not (tmp_path / "shim-wal.new").exists()


def test_a_read_goes_on_until_it_is_whole(shim: Path, tmp_path: Path) -> None:
    (tmp_path / "shim-file").write_bytes(CONTENT)
    script = """
result = one(lambda: worker.read(1, "shim-file", 3, 50_000, address_of(memory)))
print(json.dumps([*result, crc32c(memory)]))
"""
    result, value, crc = child(tmp_path, script, shim=str(shim), SHIM="read-short")
    assert (result, value, crc) == (0, 50_000, crc32c(CONTENT[3:50_003]))


def test_a_failed_read_is_a_result(shim: Path, tmp_path: Path) -> None:
    (tmp_path / "shim-file").write_bytes(CONTENT)
    script = """
print(json.dumps(one(lambda: worker.read(1, "shim-file", 0, 10, address_of(memory)))))
"""
    assert child(tmp_path, script, shim=str(shim), SHIM="read-eio")[0] == -errno.EIO


def test_a_file_size_limit_is_a_result_and_no_signal(tmp_path: Path) -> None:
    script = """
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
results = [
    one(lambda: worker.write(1, "one", 0, block, DURABLE)),
    one(lambda: worker.write(2, "two", 0, block, WRITE_CREATE)),
    one(lambda: worker.zerofill(3, "wal", 300_000)),
    one(lambda: worker.write_file(4, "checkpoint", bytes(30_000))),
]
print(json.dumps([[result, value] for result, value in results]))
"""
    results = child(tmp_path, script)
    assert [result for result, _ in results] == [-errno.EFBIG] * 4
    assert 0 <= results[0][1] <= 20_000
    assert results[1][1] == 20_000
    assert not (tmp_path / "wal").exists()
    assert not (tmp_path / "wal.new").exists()


def test_the_wal_write_is_one_durable_call(shim: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = WRITE.format(flags="DURABLE")
    child(tmp_path, script, shim=str(shim), SHIM_LOG=str(log))
    assert log.read_text().splitlines() in (["pwritev 131072"], ["pwritev 131072", "fdatasync 0"])


LINK = """
open(os.path.join(sys.argv[1], "file"), "w").close()
pairs = [("file", "shim-d/one"), ("file", "shim-d/two"), ("file", "shim-e/one")]
print(json.dumps(one(lambda: worker.link(1, pairs))[0]))
"""


def test_a_link_is_answered_when_its_directory_is_synced(shim: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert child(tmp_path, LINK, shim=str(shim), SHIM_LOG=str(log)) == 0
    assert log.read_text().splitlines() == ["fsync 0", "fsync 0"], "each directory once"


def test_a_link_whose_directory_cannot_be_synced_is_an_error(shim: Path, tmp_path: Path) -> None:
    assert child(tmp_path, LINK, shim=str(shim), SHIM="sync-eio") == -errno.EIO
