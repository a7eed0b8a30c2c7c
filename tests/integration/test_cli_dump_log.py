"""`corelane dump-log` on the files of a real broker: sound, damaged, repaired, in use."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from corelane.runtime.data_directory import FORMAT_VERSION
from corelane_cli import dump_log_action, exits
from corelane_client import Admin, Consumer, Edge, Message, NewTopic, Producer, ProducerSettings
from tests.integration import broker as brokers
from tests.integration.broker import Broker

CORELANE = str(Path(sys.executable).with_name("corelane"))
RECORD_COUNT = 2000


def dump(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [CORELANE, "dump-log", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def report(path: Path, exit_code: int = exits.OK, *words: str) -> Any:
    done = dump(path, "--format", "json", *words)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return json.loads(done.stdout)


async def fill(bootstrap: str) -> None:
    async with Admin(bootstrap) as admin:
        await admin.create_topic(NewTopic("t"))
    async with Producer(bootstrap, ProducerSettings(batch_bytes=500)) as producer:
        for number in range(RECORD_COUNT):
            await producer.enqueue(Message("t", b"%0100d" % number))


async def values(bootstrap: str) -> list[bytes | None]:
    async with Consumer(bootstrap) as consumer:
        await consumer.assign("t", stop=Edge.END)
        return [record.value async for record in consumer]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Leave a data directory that a broker has filled and closed."""
    directory = tmp_path / "data"
    with brokers.started(directory) as broker:
        trio.run(fill, broker.bootstrap)
        assert broker.stop(10) == 0
    return directory


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """Leave a data directory whose broker was killed, so that the WAL holds everything."""
    directory = tmp_path / "data"
    with brokers.started(directory) as broker:
        trio.run(fill, broker.bootstrap)
        broker.kill()
    return directory


def flip(path: Path, position: int) -> None:
    """Damage one bit."""
    whole = path.read_bytes()
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])


def log_file(directory: Path) -> Path:
    (found,) = directory.glob("core-00/partitions/t-0.*/*.log")
    return found


def test_a_sound_directory_is_shown(filled: Path) -> None:
    assert log_file(filled).stat().st_size > 0
    text = dump(filled, "--segments", "--wal")
    assert text.returncode == exits.OK, text.stderr
    assert "t-0" in text.stdout
    assert "sound: every checksum and every reference fits" in text.stdout
    found = report(filled, exits.OK, "--wal")
    assert found["problem_count"] == 0
    (core,) = found["cores"]
    assert core["directory"] == str(filled / "core-00")
    (group,) = (row for row in core["groups"] if row["topic"] == "t")
    assert group["segments"][0]["base_offset"] == 0
    assert all(row["lsn"] > 0 for file in core["wal"] for row in file["records"])
    assert report(filled / "core-00")["cores"][0]["groups"] == core["groups"]


def test_a_terminal_sees_how_far_it_is(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    wish = dump_log_action.Wish(
        filled,
        segments=False,
        wal=False,
        repair=False,
        accept_loss=False,
        dry_run=False,
        output_format="text",
    )
    assert dump_log_action.run_dump(wish) == exits.OK
    assert " MB/s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_the_files_of_a_partition_are_shown(filled: Path) -> None:
    log = log_file(filled)
    batches = report(log)["rows"]
    assert batches[0]["base_offset"] == 0
    assert batches[-1]["next_offset"] <= RECORD_COUNT
    assert all(row["is_good"] for row in batches)
    rows = report(log.with_suffix(".entries"))["rows"]
    assert [row["kind"] for row in rows[:2]] == ["NEW_LEADER", "BATCH"]
    assert dump(log).stdout.startswith("POSITION")


def test_a_damaged_segment_is_named_and_left_alone(filled: Path) -> None:
    """What was in it cannot be made up; the broker serves the rest."""
    log = log_file(filled)
    batches = report(log)["rows"]
    hit = batches[len(batches) // 2]
    flip(log, hit["position"] + hit["size_bytes"] - 1)
    assert not report(log, exits.DAMAGED)["rows"][len(batches) // 2]["is_good"]
    found = report(filled, exits.DAMAGED)
    assert found["problem_count"] == 1
    assert f"damaged at byte {hit['position']}" in found["cores"][0]["problems"][0]
    done = dump(filled, "--repair")
    assert done.returncode == exits.DAMAGED
    assert "STILL DAMAGED: " in done.stdout


def test_a_damaged_wal_is_cut_on_demand_only(abandoned: Path) -> None:
    (core,) = report(abandoned, exits.OK, "--wal")["cores"]
    records = [
        {**row, "path": file["path"]}
        for file in core["wal"]
        for row in file["records"]
        if row["kind"] == "BATCH"
    ]
    hit = records[len(records) // 2]
    flip(abandoned / "core-00" / hit["path"], hit["position"] + 64 + 70)
    assert "DAMAGED: " in dump(abandoned).stdout
    assert report(abandoned, exits.DAMAGED)["problem_count"] > 0, "reading repairs nothing"

    rehearsed = dump(abandoned, "--repair", "--dry-run")
    assert rehearsed.returncode == exits.OK, rehearsed.stdout + rehearsed.stderr
    assert "WOULD BE CUT AND LOST:" in rehearsed.stdout
    assert report(abandoned, exits.DAMAGED)["problem_count"] > 0, "nor does a rehearsal"
    assert dump(abandoned, "--dry-run").returncode == exits.USAGE
    assert dump(abandoned, "--accept-loss").returncode == exits.USAGE

    text = dump(abandoned, "--repair")
    assert text.returncode == exits.OK, text.stdout + text.stderr
    assert "CUT, what follows is lost:" in text.stdout
    assert "repair-1" in text.stdout
    assert report(abandoned)["problem_count"] == 0
    kept = records[len(records) // 2 - 1]["next_offset"]
    with brokers.started(abandoned) as broker:
        assert trio.run(values, broker.bootstrap) == [b"%0100d" % each for each in range(kept)]


def test_a_sound_directory_needs_no_repair(filled: Path) -> None:
    (repaired,) = report(filled, exits.OK, "--repair", "--accept-loss")["repairs"]
    assert repaired["cut"] == repaired["given_up"] == []
    assert "nothing had to be cut" in dump(filled, "--repair").stdout


def test_a_broker_that_runs_is_not_repaired_under_its_feet(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with brokers.started(directory) as broker:
        assert isinstance(broker, Broker)
        report(directory)
        done = dump(directory, "--repair", "--format", "json")
        assert done.returncode == exits.IN_USE
        error = json.loads(done.stderr)["error"]
        assert error["code"] == "IN_USE"
        assert "Stop the broker first" in error["next"]


def test_what_is_no_data_directory_is_told(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "is no data directory"),
        (tmp_path / "nowhere", "no such file or directory"),
    ):
        done = dump(path, "--format", "json")
        assert done.returncode == exits.DATA_DIRECTORY
        assert words in json.loads(done.stderr)["error"]["message"]
    strange = tmp_path / "strange.txt"
    strange.write_text("x")
    assert dump(strange).returncode == exits.USAGE


def test_a_later_format_is_left_alone(tmp_path: Path) -> None:
    assert dump_log_action.FORMAT_VERSION == FORMAT_VERSION
    (tmp_path / "core-00").mkdir()
    (tmp_path / "cluster.toml").write_text("format_version = 99\n")
    done = dump(tmp_path)
    assert done.returncode == exits.DATA_DIRECTORY
    assert "format version 99" in done.stderr


def test_bytes_that_are_no_rows_are_told(tmp_path: Path) -> None:
    path = tmp_path / "00000000000000000000.entries"
    path.write_bytes(b"x" * 64)
    done = dump(path, "--format", "json")
    assert done.returncode == exits.DAMAGED
    assert "no valid header" in json.loads(done.stderr)["error"]["message"]
