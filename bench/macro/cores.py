"""Measures what cores bring and cost: the same work on one, on two, and on two behind one broker.

The last one shows the price of a hop between cores: clients know one broker, so about half of what
they ask for is passed on. All take turns in one run. `python -m bench.macro.cores` writes
`results/CORES.json` and the page beside it; about six minutes.
"""

import argparse
import http.client
import json
import statistics
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.macro import experiments, measure, raw
from bench.macro.experiments import EXPERIMENTS, Metrics, Scale, Target
from bench.macro.run import DISK, FULL, QUICK, RESULTS
from tests.conformance import brokers

SHAPES: dict[str, dict[str, object]] = {
    "1 core": {"corelane.cores": 1, "corelane.admin.port": 0},
    "2 cores": {"corelane.cores": 2, "corelane.admin.port": 0},
    "2 cores, one broker": {
        "corelane.cores": 2,
        "corelane.admin.port": 0,
        "corelane.advertise": "node",
    },
}
WANTED = ("produce librdkafka", "produce librdkafka 1MB", "fetch librdkafka")
FIGURES = ("MB/s", "CPU s/GB", "misrouted")


def main() -> None:
    """Run everything in turns and write the figures and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small round")
    parser.add_argument("--output", type=Path, default=RESULTS / "CORES.json")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    samples: list[dict[str, Any]] = []
    with ExitStack() as stack:
        targets = [
            Target(name, stack.enter_context(brokers.corelane(settings)), {})
            for name, settings in SHAPES.items()
        ]
        for number in range(rounds):
            turn = number % len(targets)
            for target in targets[turn:] + targets[:turn]:
                samples += _round(target, number, QUICK if options.quick else FULL)
    result = {"machine": measure.machine(DISK), "rounds": rounds, "samples": samples}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    page = options.output.with_suffix(".md")
    page.write_text(_page(result, options.output.name))
    print(f"written: {options.output} and {page}")


def _round(target: Target, number: int, scale: Scale) -> list[dict[str, Any]]:
    """Run every experiment once on one broker."""
    samples: list[dict[str, Any]] = []
    topics: dict[str, str] = {}
    for experiment in (each for each in EXPERIMENTS if each.name in WANTED):
        is_reader = bool(experiment.reads)
        topic = topics.get(WANTED[0]) if is_reader else f"{experiment.name}-{number}"
        assert topic is not None
        topic = topic.replace(" ", "-")
        if not is_reader:
            topics[experiment.name] = topic
            raw.create_topic(target.running.bootstrap, topic, experiment.partitions)
        before = _misrouted(target)
        metrics: Metrics = experiments.measured(experiment, target, scale, topic)
        metrics["misrouted"] = _misrouted(target) - before
        shown = ", ".join(f"{key} {value:,.2f}" for key, value in metrics.items())
        print(f"{experiment.name:24} {target.name:20} {shown}", flush=True)
        samples.append({"experiment": experiment.name, "broker": target.name, "metrics": metrics})
    for topic in topics.values():
        raw.delete_topic(target.running.bootstrap, topic)
    return samples


def _misrouted(target: Target) -> float:
    """Return how many requests came to a core that others had to answer."""
    ports = json.loads((target.running.data_dir / "ports.json").read_text())
    connection = http.client.HTTPConnection("127.0.0.1", ports["admin"], timeout=10)
    connection.request("GET", "/v1/cluster")
    cluster = json.loads(connection.getresponse().read())
    connection.close()
    return float(sum(core["misrouted"] for core in cluster["cores"]))


def _page(result: dict[str, Any], source: str) -> str:
    machine = result["machine"]
    made = (
        f"Made by `python -m bench.macro.cores` from `{source}`;"
        f" median of {result['rounds']} turns."
        f" Clients run on the same {machine.get('cpus', measure.CPU_COUNT)} CPUs, so the rate is"
        " shared between them and the broker: CPU per GB is what carries over."
    )
    lines = [
        "# One core, two cores, and two behind one broker",
        "",
        *textwrap.wrap(made, 100),
        "",
        "| load | figure | " + " | ".join(SHAPES) + " |",
        "| --- | --- |" + " --- |" * len(SHAPES),
    ]
    for experiment in WANTED:
        for figure in FIGURES:
            cells = [_median(result["samples"], experiment, name, figure) for name in SHAPES]
            lines.append(f"| {experiment} | {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _median(samples: list[dict[str, Any]], experiment: str, broker: str, figure: str) -> str:
    found = [
        each["metrics"][figure]
        for each in samples
        if (each["experiment"], each["broker"]) == (experiment, broker)
        and figure in each["metrics"]
    ]
    return f"{statistics.median(found):,.2f}" if found else "–"


if __name__ == "__main__":
    main()
