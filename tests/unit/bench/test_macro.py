"""The parts of the benchmark: what the bare client sends is right, what the page says was so."""

import os
import socket
from pathlib import Path
from xml.etree import ElementTree as ET

from kafka.record.memory_records import MemoryRecords

from bench.macro import measure, peers, plots, profiling, raw, report, small_loads


def test_a_bare_batch_is_a_batch_to_others() -> None:
    values = [b"", b"x" * 300, bytes(range(256))]
    records = MemoryRecords(raw.batch(values, 1_700_000_000_000))
    read = records.next_batch()
    assert read.validate_crc()
    assert [(each.offset, each.value, each.timestamp) for each in read] == [
        (number, value, 1_700_000_000_000) for number, value in enumerate(values)
    ]
    assert not records.has_next()


def test_whole_batches_of_a_cut_answer_are_counted() -> None:
    one = raw.batch([b"a", b"b"], 0)
    assert list(raw.batches(memoryview(one + one[:-1]))) == [(0, 1)]
    assert list(raw.batches(memoryview(one + one + b"\0" * 11))) == [(0, 1), (0, 1)]


def test_a_process_is_measured_with_its_children() -> None:
    assert os.getpid() in measure.processes_of(os.getppid())
    used = measure.usage(os.getpid())
    assert used.cpu_s > 0
    assert used.machine_cpu_s > used.cpu_s
    assert measure.memory_bytes(os.getpid()) > 1 << 20


def test_the_page_shows_medians_ranges_and_ratios() -> None:
    def sample(broker: str, number: int, **metrics: float) -> dict[str, object]:
        named = {key.replace("_per_", "/").replace("_", " "): metrics[key] for key in metrics}
        return {"experiment": "produce", "broker": broker, "round": number, "metrics": named}

    page = report.render(
        {
            "machine": {"cpu": "a fast one"},
            "sync probes": [{"p50_us": 80.4, "p99_us": 200.0}],
            "rounds": 3,
            "samples": [
                sample("corelane", 1, MB_per_s=100, cores_used_by_others=0.0),
                sample("corelane", 2, MB_per_s=300, cores_used_by_others=0.5),
                sample("corelane", 3, MB_per_s=200),
                sample("kafka", 1, MB_per_s=50),
                sample("kafka", 2, failed=1),
            ],
        },
        "mine.json",
    )
    assert "| produce | MB/s | 200 (100 to 300) | 50 | 0.25× |" in page
    assert "corelane (synced before the answer)" in page
    assert "kafka (page cache, never synced)" in page
    assert "- cpu: a fast one" in page
    assert "p50 80, p99 200 µs" in page
    assert "- disturbed: produce, corelane, round 2: others used 0.5 cores" in page
    assert "- failed: produce, kafka, round 2" in page


def test_a_picture_has_a_bar_for_each_broker(tmp_path: Path) -> None:
    samples = [
        {"experiment": "fetch & wait", "broker": name, "metrics": {"MB/s": value}}
        for name, value in (("corelane", 10.0), ("corelane", 30.0), ("kafka", 5.0))
    ]
    (path,) = plots.draw(samples, tmp_path, "mine")
    root = ET.fromstring(path.read_text())  # noqa: S314 - our own picture
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["MB/s: corelane · kafka", "fetch & wait", "20 corelane", "5 kafka"]


def test_latencies_are_cut_at_their_shares() -> None:
    found = small_loads.quantiles([float(number) for number in range(1000)])
    assert found == {"p50 us": 510.0, "p99 us": 990.0, "p99.9 us": 999.0, "max us": 999.0}


def test_pinned_runs_and_peers_have_tables_of_their_own() -> None:
    def sample(broker: str, rate: float, *, pinned: bool = False) -> dict[str, object]:
        metrics = {"requests/s": rate}
        return {
            "experiment": "raw", "broker": broker, "round": 1, "metrics": metrics, "pinned": pinned,
        }  # fmt: skip

    page = report.render(
        {
            "machine": {},
            "sync probes": [],
            "rounds": 1,
            "missing": ["nats-server is not installed"],
            "durability": {"redis": "synced before the answer"},
            "settings": {"kafka": "all defaults"},
            "experiments": {"raw": "by a bare client"},
            "samples": [
                sample("corelane", 300),
                sample("kafka", 100),
                sample("corelane", 400, pinned=True),
                sample("redis", 600),
            ],
        },
        "mine.json",
    )
    free, _, rest = page.partition("## Brokers on one CPU, clients on another")
    pinned, _, beside = rest.partition("## Beside Redis and NATS")
    assert "| raw | requests/s | 300 | 100 | 0.33× |" in free
    assert "| raw | requests/s | 400 |" in pinned
    assert "redis (synced before the answer)" in beside
    assert "| raw | requests/s | 300 | 600 | 2.00× |" in beside
    assert "- nats-server is not installed" in page
    assert "- kafka: `all defaults`" in page
    assert "| raw | by a bare client |" in page


def test_answers_of_peers_are_counted_however_they_are_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        peer = peers.Peer("redis", "", [], port, b"", b"ask", b"\r\n", 2)
        connection = peers.Connection(peer)
        accepted, _ = server.accept()
        with accepted:
            connection.send(2)
            assert accepted.recv(100) == b"askask"
            accepted.sendall(b"$3\r\n1-0\r")
            accepted.sendall(b"\n$3\r\n2-0\r\n")
            counted = connection.wait()
            while counted < 2:
                counted += connection.wait()
            assert counted == 2
        connection.close()


def test_samples_of_stacks_are_counted_by_function() -> None:
    own, below = profiling.tally("main (a.py:1);step (b.py:20) 3\nmain (a.py:1);step (b.py:25) 2\n")
    assert own == {"step (b.py)": 5}
    assert below == {"step (b.py)": 5, "main (a.py)": 5}
    own, below = profiling.tally("main (a.py:1);main (a.py:2) 4")
    assert below == {"main (a.py)": 4}, "a function that calls itself is there once"
