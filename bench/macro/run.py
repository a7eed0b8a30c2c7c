"""Measures Corelane beside real Kafka: both run, and take turns, in one run on one machine.

`make bench` takes about a quarter of an hour; `make bench ARGS="--quick"` shows that it works.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from bench.macro import experiments, measure, plots, raw, report
from bench.macro.experiments import EXPERIMENTS, Experiment, LoadError, Metrics, Scale, Target
from corelane.model.record import record
from tests.conformance import brokers

DISK = Path(tempfile.gettempdir())
"""Where both brokers keep their data."""

RESULTS = Path(__file__).parents[1] / "results"
SYNCED = {"flush.messages": "1"}
KAFKA = {"auto.create.topics.enable": "false"}

FULL = Scale(records=500_000, requests=50_000, pipelined=100_000, latencies=5_000)
QUICK = Scale(records=40_000, requests=3_000, pipelined=10_000, latencies=500)
BROKER_CPU, CLIENT_CPU = 0, 1
BAR_WIDTH = 30
WARM_UP_RUNS = 3
"""Before the first round: Kafka's compiler needs gigabytes until it is fast."""


@record
class Sample:
    """One run of one experiment on one broker."""

    experiment: str
    broker: str
    round: int
    metrics: Metrics


@record
class Options:
    """What the command line asks for."""

    brokers: list[str]
    only: list[str]
    rounds: int
    is_quick: bool
    output: Path
    is_pinned: bool


def main() -> None:
    """Measure what was asked for, write the figures and the page."""
    options = _options()
    facts = measure.machine(DISK)
    samples: list[Sample] = []
    probes = [measure.sync_probe_us(DISK)]
    if "start" in options.only:
        samples += _starts(options)
    with ExitStack() as stack:
        if options.is_pinned:
            _stay_on(BROKER_CPU)  # children inherit it
        targets = _start_all(stack, options.brokers)
        if options.is_pinned:
            _stay_on(CLIENT_CPU)
        wanted = [each for each in EXPERIMENTS if each.name in options.only]
        if "memory" in options.only:
            samples += [_note("idle", each, 0, experiments.idle(each)) for each in _real(targets)]
        if wanted and not options.is_quick:
            _warm_up(targets)
        bar = Bar(options.rounds * len(wanted) * len(targets))
        for number in range(1, options.rounds + 1):
            probes.append(measure.sync_probe_us(DISK))
            scale = QUICK if options.is_quick else FULL
            samples += _round(wanted, targets, (number, scale), bar)
        if "memory" in options.only:
            after = "idle after load"
            samples += [_note(after, each, 0, experiments.idle(each)) for each in _real(targets)]
    result = {
        "machine": facts,
        "sync probes": probes,
        "rounds": options.rounds,
        "pinned": options.is_pinned,
        "samples": [msgspec.to_builtins(each) for each in samples],
    }
    _write(options.output, result)


def _starts(options: Options) -> list[Sample]:
    """Measure from the command to the first acknowledged record, on new data each time."""
    starters = {"corelane": brokers.corelane, "kafka": lambda: brokers.kafka(dict(KAFKA))}
    samples: list[Sample] = []
    for number in range(1, options.rounds + 1):
        for name in options.brokers:
            with starters[name]() as running:
                target = Target(name, running, {})
                first_s = experiments.first_produce_s(target, "first")
                metrics = {"s to first acknowledged": first_s}
                samples.append(_note("start", target, number, metrics))
    return samples


def _start_all(stack: ExitStack, names: list[str]) -> list[Target]:
    targets: list[Target] = []
    if "corelane" in names:
        targets.append(Target("corelane", stack.enter_context(brokers.corelane()), {}))
    if "kafka" in names:
        running = stack.enter_context(brokers.kafka(dict(KAFKA)))
        targets.append(Target("kafka", running, {}))
        targets.append(Target("kafka synced", running, SYNCED))
    return targets


def _real(targets: list[Target]) -> list[Target]:
    """Return the targets that are processes of their own."""
    return [each for each in targets if not each.configs]


def _warm_up(targets: list[Target]) -> None:
    for number in range(WARM_UP_RUNS):
        for target in _real(targets):
            print(f"warming up {target.name} ({number + 1} of {WARM_UP_RUNS})", flush=True)
            for experiment in (EXPERIMENTS[0], EXPERIMENTS[1]):
                topic = f"warm-{experiment.name.replace(' ', '-')}-{number}"
                bootstrap = target.running.bootstrap
                raw.create_topic(bootstrap, topic, experiment.partitions)
                experiment.run(target, FULL, topic)
                raw.delete_topic(bootstrap, topic)


def _round(
    wanted: list[Experiment], targets: list[Target], which: tuple[int, Scale], bar: "Bar"
) -> list[Sample]:
    """Run every experiment on every broker, turn by turn; who begins changes with the round."""
    number, scale = which
    samples: list[Sample] = []
    made: set[tuple[str, str]] = set()
    turn = number % len(targets)
    for experiment in wanted:
        for target in targets[turn:] + targets[:turn]:
            bar.step(f"{experiment.name}, {target.name}, round {number}")
            if target.configs and not experiment.is_synced:
                continue
            topic = _topic(experiment.reads or experiment.name, target, number)
            if (target.name, topic) not in made:
                made.add((target.name, topic))
                bootstrap = target.running.bootstrap
                raw.create_topic(bootstrap, topic, experiment.partitions, target.configs)
                _fill(experiment, target, scale, topic)
            try:
                metrics = experiments.measured(experiment, target, scale, topic)
            except LoadError as error:
                print(f"{experiment.name} on {target.name} failed: {error}", flush=True)
                metrics = {"failed": 1}
            samples.append(_note(experiment.name, target, number, metrics))
    for name, topic in made:
        (target,) = (each for each in targets if each.name == name)
        raw.delete_topic(target.running.bootstrap, topic)
    return samples


class Bar:
    """How far the run is, on standard error, where a person looks at it."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began_s = time.monotonic()

    def step(self, what: str) -> None:
        """Show that *what* begins."""
        if sys.stderr.isatty():
            filled = BAR_WIDTH * self._done // max(1, self._steps)
            left_s = 0.0
            if self._done:
                spent_s = time.monotonic() - self._began_s
                left_s = spent_s / self._done * (self._steps - self._done)
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            print(f"[{bar}] {left_s / 60:.0f} min left: {what}", file=sys.stderr, flush=True)
        self._done += 1


def _stay_on(cpu: int) -> None:
    """Keep this process, and what it starts from now on, on one CPU of those it may use."""
    allowed = sorted(os.sched_getaffinity(os.getppid()))
    os.sched_setaffinity(0, {allowed[cpu % len(allowed)]})


def _fill(experiment: Experiment, target: Target, scale: Scale, topic: str) -> None:
    """Write what *experiment* reads, when the experiment that writes it was not asked for."""
    for each in EXPERIMENTS:
        if each.name == experiment.reads:
            each.run(target, scale, topic)


def _topic(name: str, target: Target, number: int) -> str:
    return f"{name} {target.name} {number}".replace(" ", "-")


def _note(name: str, target: Target, number: int, metrics: Metrics) -> Sample:
    shown = ", ".join(f"{key} {value:,.2f}" for key, value in metrics.items())
    print(f"{name:24} {target.name:13} {shown}", flush=True)
    return Sample(name, target.name, number, metrics)


def _write(output: Path, result: dict[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    page = output.with_suffix(".md")
    page.write_text(report.render(result, output.name))
    pictures = plots.draw(result["samples"], output.parent, output.stem)
    print(f"\nwritten: {output}, {page} and {len(pictures)} pictures beside it")


def _name(text: str) -> str:
    """Return an experiment's name; on a command line words may be joined by a hyphen."""
    return text.replace("-", " ")


def _options() -> Options:
    everything = ["start", "memory", *(each.name for each in EXPERIMENTS)]
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--brokers", nargs="+", choices=["corelane", "kafka"])
    parser.add_argument(
        "--only", nargs="+", choices=everything, default=everything, type=_name, metavar="NAME"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small round, no warm-up")
    parser.add_argument(
        "--pinned", action="store_true", help="the brokers on one CPU, the clients on another"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "FIRST.json")
    given = parser.parse_args()
    names = given.brokers or ["corelane", "kafka"]
    rounds = 1 if given.quick else given.rounds
    return Options(names, given.only, rounds, given.quick, given.output, given.pinned)


if __name__ == "__main__":
    main()
