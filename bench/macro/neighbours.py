"""Measures what a slow, huge or hostile client costs another: p99 of one record at a time.

One core, so that both meet there. Each neighbour runs in a process of its own; turns without any
are taken between them, and the ratio is to these. `python -m bench.macro.neighbours` writes
`results/NEIGHBOURS.json` and the page beside it; about two minutes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.macro import measure, raw
from bench.macro.neighbours_load import NEIGHBOURS, WIDE_PARTITIONS, WIDE_TOPICS
from bench.macro.run import DISK, RESULTS
from tests.conformance import brokers
from tests.conformance.probe import Address

LATENCIES: Final = 3000
FILLED_BYTES: Final = 60 << 20
BATCH_BYTES: Final = 900_000
SETTLE_S: Final = 1.0
SAMPLE_S_MAX: Final = 10.0


def main() -> None:
    """Measure alone and beside every neighbour, in turns, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "NEIGHBOURS.json")
    options = parser.parse_args()
    samples: list[dict[str, Any]] = []
    with brokers.corelane({"corelane.cores": 1}) as running:
        address = running.bootstrap
        raw.create_topic(address, "mine", 1)
        _fill(address)
        for number in range(WIDE_TOPICS):
            raw.create_topic(address, f"wide-{number}", WIDE_PARTITIONS)
        for _ in range(options.rounds):
            for name in NEIGHBOURS:
                samples.append(_sample("alone", address))
                with _neighbour(name, address):
                    samples.append(_sample(name, address))
    result = {"machine": measure.machine(DISK), "rounds": options.rounds, "samples": samples}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    page = options.output.with_suffix(".md")
    page.write_text(_page(result, options.output.name))
    print(f"written: {options.output} and {page}")


def _fill(address: Address) -> None:
    raw.create_topic(address, "huge", 1)
    partition = raw.Partition("huge", 0)
    connection = raw.Connection(raw.leader(address, partition))
    frame = raw.produce(partition, raw.batch([bytes(BATCH_BYTES)], int(time.time() * 1000)))
    for _ in range(FILLED_BYTES // BATCH_BYTES):
        raw.check_produced(connection.ask(frame), partition)
    connection.close()


def _sample(name: str, address: Address) -> dict[str, Any]:
    """Measure one record at a time."""
    partition = raw.Partition("mine", 0)
    connection = raw.Connection(raw.leader(address, partition))
    frame = raw.produce(partition, raw.batch([bytes(100)], int(time.time() * 1000)))
    times_us: list[float] = []
    deadline_s = time.monotonic() + SAMPLE_S_MAX
    while len(times_us) < LATENCIES and time.monotonic() < deadline_s:
        began_s = time.perf_counter()
        answer = connection.ask(frame)
        times_us.append((time.perf_counter() - began_s) * 1e6)
        raw.check_produced(answer, partition)
    connection.close()
    times_us.sort()
    count = len(times_us)
    found = {"p50 us": times_us[count // 2], "p99 us": times_us[count * 99 // 100]}
    print(f"{name:28} " + ", ".join(f"{key} {value:,.0f}" for key, value in found.items()))
    return {"beside": name, **found}


@contextmanager
def _neighbour(name: str, address: Address) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.macro.neighbours_load", name]
    command.append(f"{address.host}:{address.port}")
    with subprocess.Popen(command) as process:
        time.sleep(SETTLE_S)
        try:
            yield
        finally:
            process.kill()


def _page(result: dict[str, Any], source: str) -> str:
    made = (
        f"Made by `python -m bench.macro.neighbours` from `{source}`; median of"
        f" {result['rounds']} turns. One record at a time on a connection of its own, on the same"
        " core as its neighbour, whose own CPU use yields to that of the measured client."
    )
    lines = [
        "# What a neighbour costs",
        "",
        *textwrap.wrap(made, 100),
        "",
        "| beside | p50 µs | p99 µs | p99 / alone |",
        "| --- | --- | --- | --- |",
    ]
    alone = _median(result, "alone", "p99 us")
    for name in ("alone", *NEIGHBOURS):
        p50, p99 = (_median(result, name, figure) for figure in ("p50 us", "p99 us"))
        lines.append(f"| {name} | {p50:,.0f} | {p99:,.0f} | {p99 / alone:.2f} |")
    return "\n".join(lines) + "\n"


def _median(result: dict[str, Any], name: str, figure: str) -> float:
    found = [each[figure] for each in result["samples"] if each["beside"] == name]
    return float(statistics.median(found))


if __name__ == "__main__":
    main()
