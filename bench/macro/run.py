"""Measures Corelane beside real Kafka: both run, and take turns, in one run on one machine.

`make bench` takes some hours, `make bench ARGS="--quick"` a quarter of one: one round of all.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bench.macro import experiments, measure, peers, plots, profiling, raw, report, three
from bench.macro.experiments import EXPERIMENTS, Experiment, LoadError, Metrics, Scale, Target
from bench.macro.lifecycle import LIFECYCLES, home
from corelane.model.record import record
from tests.conformance import brokers

DISK = Path(tempfile.gettempdir())
"""Where both brokers keep their data."""

RESULTS = Path(__file__).parents[1] / "results"
SYNCED = {"flush.messages": "1"}
KAFKA: dict[str, object] = {"auto.create.topics.enable": "false"}

FULL = Scale(records=500_000, requests=50_000, pipelined=100_000, latencies=5_000, rated=60_000)
QUICK = Scale(records=200_000, requests=10_000, pipelined=50_000, latencies=2_000, rated=10_000)
BROKER_CPU, CLIENT_CPU = 0, 1
BAR_WIDTH = 30
WARM_UP_RUNS = 3
"""Before the first round: Kafka's compiler needs gigabytes until it is fast."""
MINUTES_MAX = 24 * 60.0
IDLE = "idle"
PEERS = "peers"


@record
class Sample:
    """One run of one experiment on one broker."""

    experiment: str
    broker: str
    round: int
    metrics: Metrics
    pinned: bool = False


@record
class Options:
    """What the command line asks for."""

    brokers: list[str]
    only: list[str]
    rounds: int
    is_quick: bool
    output: Path
    affinities: list[bool]
    """Whether brokers and clients are bound to CPUs of their own; one after the other."""
    is_profiled: bool
    minutes: float
    """What would begin later is left out, and named on the page."""

    @property
    def scale(self) -> Scale:
        """How much of everything."""
        return QUICK if self.is_quick else FULL


class Yardstick:
    """The whole run: what has been measured so far, and how."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.samples: list[Sample] = []
        self.probes: list[dict[str, float]] = []
        self.missing: list[str] = []
        self.durability: dict[str, str] = {}
        self.is_pinned = False
        self._ends_s = time.monotonic() + options.minutes * 60
        lives = [each for each in LIFECYCLES if each.name in options.only]
        standing = self._wanted(EXPERIMENTS)
        peers_count = len(peers.LOADS) if PEERS in options.only else 0
        in_turns = 3 * (
            len(options.affinities) * len(standing) + len(self._wanted(three.EXPERIMENTS))
        )
        self.bar = Bar(options.rounds * (2 * len(lives) + in_turns + 2 * peers_count))

    def lifecycles(self) -> None:
        """Start and restart brokers, turn by turn."""
        for number in range(1, self.options.rounds + 1):
            for each in LIFECYCLES:
                for name in self.options.brokers if each.name in self.options.only else []:
                    if self._is_late(f"{each.name}, {name}, round {number}"):
                        continue
                    with self._profile((), each.name):
                        for what, metrics in each.run(home(name, KAFKA), name, self.options.scale):
                            self.note(what, name, number, metrics)

    def standing(self, *, is_pinned: bool) -> None:
        """Run the experiments on brokers of one node, which stay up and take turns."""
        wanted = self._wanted(EXPERIMENTS)
        if not wanted and IDLE not in self.options.only:
            return
        self.is_pinned = is_pinned
        allowed = os.sched_getaffinity(0)
        with ExitStack() as stack:
            if is_pinned:
                stack.callback(os.sched_setaffinity, 0, allowed)
                _stay_on(BROKER_CPU)  # children inherit it
            targets = _start_all(stack, self.options.brokers)
            if is_pinned:
                os.sched_setaffinity(0, allowed)
                _stay_on(CLIENT_CPU)
            if IDLE in self.options.only:
                for each in _real(targets):
                    self.note(IDLE, each.name, 0, experiments.idle(each))
            if wanted:
                _warm_up(targets, EXPERIMENTS[:2], 1 if self.options.is_quick else WARM_UP_RUNS)
            self._rounds(wanted, targets)
        self.is_pinned = False

    def three_nodes(self) -> None:
        """Run the experiments on three nodes of each kind."""
        wanted = self._wanted(three.EXPERIMENTS)
        if not wanted:
            return
        with ExitStack() as stack:
            targets: list[Target] = []
            if "corelane" in self.options.brokers:
                targets.append(three.start_corelane(stack))
            if "kafka" in self.options.brokers:
                targets += _kafkas(three.start_kafka(stack, KAFKA))
            _warm_up(targets, wanted[:1], 1 if self.options.is_quick else WARM_UP_RUNS)
            self._rounds(wanted, targets)

    def peers(self) -> None:
        """Ask Redis and NATS for the same small work, where they are installed."""
        if PEERS not in self.options.only:
            return
        with peers.installed() as (found, missing):
            self.missing += missing
            for peer in found:
                self.durability[peer.name] = peer.durability
                with peers.running(peer) as pid:
                    for number in range(1, self.options.rounds + 1):
                        for load in peers.LOADS:
                            if self._is_late(f"{load}, {peer.name}, round {number}"):
                                continue
                            metrics = peers.measured(peer, pid, load, self.options.scale)
                            self.note(load, peer.name, number, metrics)

    def note(self, name: str, broker: str, number: int, metrics: Metrics) -> None:
        """Keep and show what was measured."""
        shown = ", ".join(f"{key} {value:,.2f}" for key, value in metrics.items())
        print(f"{name:28} {broker:13} {shown}", flush=True)
        self.samples.append(Sample(name, broker, number, metrics, self.is_pinned))

    def _is_late(self, what: str) -> bool:
        """Say whether there is no time left for *what*, and take note of that; else show it."""
        self.bar.step(what)
        is_late = time.monotonic() > self._ends_s
        if is_late:
            self.missing.append(f"left out, as {self.options.minutes:g} minutes were over: {what}")
        return is_late

    def _wanted(self, every: Sequence[Experiment]) -> list[Experiment]:
        return [each for each in every if each.name in self.options.only]

    def _rounds(self, wanted: list[Experiment], targets: list[Target]) -> None:
        for number in range(1, self.options.rounds + 1):
            self.probes.append(measure.sync_probe_us(DISK))
            self._round(wanted, targets, number)

    def _round(self, wanted: list[Experiment], targets: list[Target], number: int) -> None:
        """Run every experiment on every broker, turn by turn; who begins changes with the round."""
        made: dict[tuple[str, str], Target] = {}
        turn = number % len(targets)
        for experiment in wanted:
            for target in targets[turn:] + targets[:turn]:
                what = f"{experiment.name}, {target.name}, round {number}"
                if self._is_late(what) or (target.configs and not experiment.is_synced):
                    continue
                topic = _topic(experiment.reads or experiment.name, target, number)
                if (target.name, topic) not in made:
                    made[target.name, topic] = target
                    target.create(topic, experiment.partitions)
                    _fill(experiment, target, self.options.scale, topic)
                self._once(experiment, target, topic, number)
        for (_name, topic), target in made.items():
            raw.delete_topic(target.running.bootstrap, topic)

    def _once(self, experiment: Experiment, target: Target, topic: str, number: int) -> None:
        try:
            with self._profile(target.pids, f"{experiment.name} {target.name}"):
                metrics = experiments.measured(experiment, target, self.options.scale, topic)
        except LoadError as error:
            print(f"{experiment.name} on {target.name} failed: {error}", flush=True)
            metrics = {"failed": 1}
        self.note(experiment.name, target.name, number, metrics)
        if experiment.then_idle:
            self.note(experiment.then_idle, target.name, number, experiments.idle(target))

    def _profile(self, pids: tuple[int, ...], title: str) -> AbstractContextManager[None]:
        if not self.options.is_profiled:
            return nullcontext()
        output = self.options.output
        page = output.with_name(f"{output.stem}-profile-{title.replace(' ', '-')}.txt")
        print(f"a profile is written to {page}", flush=True)
        return profiling.profiled(pids, page, title)


def main() -> None:
    """Measure what was asked for, write the figures and the page."""
    options = _options()
    facts = measure.machine(DISK)
    run = Yardstick(options)
    run.probes.append(measure.sync_probe_us(DISK))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; what was measured is written"))
    try:
        for is_pinned in options.affinities:
            run.standing(is_pinned=is_pinned)
        run.three_nodes()
        run.peers()
        run.lifecycles()
    finally:
        _write(options.output, _result(run, facts))


def _result(run: Yardstick, facts: dict[str, str]) -> dict[str, Any]:
    """Return everything that the page is made of."""
    return {
        "machine": facts,
        "sync probes": run.probes,
        "rounds": run.options.rounds,
        "missing": run.missing,
        "durability": run.durability,
        "settings": _settings(),
        "experiments": {
            each.name: each.sentence for each in (*LIFECYCLES, *EXPERIMENTS, *three.EXPERIMENTS)
        },
        "samples": [msgspec.to_builtins(each) for each in run.samples],
    }


def _settings() -> dict[str, str]:
    """Return how everything is set, for the page."""
    rows = ", ".join(f"{name}={value}" for name, value in KAFKA.items())
    ours = ", ".join(f"{name}={value}" for name, value in three.SETTINGS.items())
    return {
        "corelane": "corelane start --port 0; nothing else is set",
        "kafka": f"java {' '.join(brokers.KAFKA_JVM)} kafka.Kafka; broker and controller, {rows}",
        "kafka synced": "the same process, topics with flush.messages=1",
        "3 nodes, corelane": f"three nodes, {ours}",
        "3 nodes, kafka": "three of the above, default.replication.factor=3, min.insync.replicas=2",
        "all clients": "acks=all; on this machine, over the loopback device",
        "redis": "redis-server --save '' --appendonly yes --appendfsync always; XADD of 100 bytes",
        "nats": "nats-server with JetStream; a stream in files; PUB of 100 bytes with its answer",
    }


def _start_all(stack: ExitStack, names: list[str]) -> list[Target]:
    targets: list[Target] = []
    if "corelane" in names:
        targets.append(Target("corelane", stack.enter_context(brokers.corelane()), {}))
    if "kafka" in names:
        running = stack.enter_context(brokers.kafka(dict(KAFKA)))
        targets += _kafkas(Target("kafka", running, {}))
    return targets


def _kafkas(kafka: Target) -> list[Target]:
    """Return Kafka as it is, and with a sync for each append."""
    return [kafka, replace(kafka, name="kafka synced", configs=SYNCED)]


def _real(targets: list[Target]) -> list[Target]:
    """Return the targets that are processes of their own."""
    return [each for each in targets if not each.configs]


def _warm_up(
    targets: list[Target], loads: Sequence[Experiment], run_count: int = WARM_UP_RUNS
) -> None:
    for number in range(run_count):
        for target in _real(targets):
            print(f"warming up {target.name} ({number + 1} of {run_count})", flush=True)
            for experiment in loads:
                topic = f"warm-{experiment.name.replace(' ', '-')}-{number}"
                target.create(topic, experiment.partitions)
                experiment.run(target, FULL, topic)
                raw.delete_topic(target.running.bootstrap, topic)


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


def _write(output: Path, result: dict[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    page = output.with_suffix(".md")
    page.write_text(report.render(result, output.name))
    pictures: list[Path] = []
    for is_pinned, stem in ((False, output.stem), (True, f"{output.stem}-pinned")):
        own = [each for each in result["samples"] if each["pinned"] == is_pinned]
        pictures += plots.draw(own, output.parent, stem)
    print(f"\nwritten: {output}, {page} and {len(pictures)} pictures beside it")


def _name(text: str) -> str:
    """Return an experiment's name; on a command line words may be joined by a hyphen."""
    return text.replace("-", " ")


def _options() -> Options:
    every = (*LIFECYCLES, *EXPERIMENTS, *three.EXPERIMENTS)
    everything = [IDLE, PEERS, *(each.name for each in every)]
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--brokers", nargs="+", choices=["corelane", "kafka"])
    parser.add_argument(
        "--only", nargs="+", choices=everything, default=everything, type=_name, metavar="NAME",
        help=f"some of: {', '.join(each.replace(' ', '-') for each in everything)}",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small round, warmed up once")
    parser.add_argument(
        "--affinity",
        choices=["free", "pinned", "both"],
        help="pinned: brokers on one CPU, clients on another (default: both; with --quick: free)",
    )
    parser.add_argument(
        "--profile", action="store_true", help="sample the broker meanwhile; ours alone"
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES_MAX, help="begin nothing after so long"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "BARS.json")
    given = parser.parse_args()
    affinity = given.affinity or ("free" if given.quick or given.profile else "both")
    return Options(
        given.brokers or (["corelane"] if given.profile else ["corelane", "kafka"]),
        given.only,
        1 if given.quick or given.profile else given.rounds,
        given.quick,
        given.output,
        {"free": [False], "pinned": [True], "both": [False, True]}[affinity],
        given.profile,
        given.minutes,
    )


if __name__ == "__main__":
    main()
