"""Runs all hunts of the simulation over seeds.

    python -m tests.simulation.simulate --seeds 20               seeds 1 to 20 (make simulate)
    python -m tests.simulation.simulate --seeds 20 --from 100    seeds 100 to 119
    python -m tests.simulation.simulate --only cluster_storm --jobs 2

A seed that fails is named with the one command that replays it. Exit code 1: some seed failed.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from corelane.model.record import record
from tests.simulation.hunts import HUNTS, Hunt, Tally, command

JOBS_MAX: Final = 64
BAR_CHARACTERS: Final = 30
FAILURE_CHARACTERS_MAX: Final = 200
BY_NAME: Final = {hunt.name: hunt for hunt in HUNTS}


@record
class Outcome:
    """What came of one seed of one hunt."""

    hunt: str
    seed: int
    tally: Tally
    failure: str
    """Empty: it ran clean."""
    seconds: float


def run(name: str, seed: int) -> Outcome:
    """Run one seed, in whatever process."""
    began = time.monotonic()
    tally, failure = Tally(0, 0), ""
    try:
        tally = BY_NAME[name].run(seed)
    except Exception as error:  # noqa: BLE001 a hunt reports whatever it finds and goes on
        said = str(error).strip().splitlines() or [""]
        failure = f"{type(error).__name__}: {said[0][:FAILURE_CHARACTERS_MAX]}"
        notes: list[str] = getattr(error, "__notes__", [])
        failure += "".join(f"\n    {note}" for note in notes)
    return Outcome(name, seed, tally, failure, time.monotonic() - began)


class Progress:
    """A bar on a terminal; nothing where there is none."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.failed = 0
        self.began = time.monotonic()
        self.is_shown = sys.stderr.isatty()

    def show(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        self.done += 1
        self.failed += bool(outcome.failure)
        if self.is_shown:
            filled = BAR_CHARACTERS * self.done // self.total
            left_s = (time.monotonic() - self.began) / self.done * (self.total - self.done)
            bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
            text = f"[{bar}] {self.done}/{self.total} {self.failed} failed, {left_s:.0f} s left"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a line."""
        if self.is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def hunt_all(hunts: list[Hunt], seeds: range, jobs: int) -> list[Outcome]:
    """Run every seed of every hunt; say at once which failed."""
    outcomes: list[Outcome] = []
    progress = Progress(len(hunts) * len(seeds))
    with ProcessPoolExecutor(jobs) as pool:
        # All hunts of a seed before the next seed: whoever stops early has seen all kinds.
        waits = {
            pool.submit(run, hunt.name, seed): (hunt, seed) for seed in seeds for hunt in hunts
        }
        try:
            for done in as_completed(waits):
                outcomes.append(done.result())
                progress.show(outcomes[-1])
                if outcomes[-1].failure:
                    progress.clear()
                    hunt, seed = waits[done]
                    print(f"{hunt.name} {seed}: {outcomes[-1].failure}\n  {command(hunt, seed)}")
        except BrokenProcessPool:
            progress.clear()
            known = {(outcome.hunt, outcome.seed) for outcome in outcomes}
            lost = [each for each in waits.values() if (each[0].name, each[1]) not in known]
            for hunt, seed in lost[:jobs]:
                print(f"{hunt.name} {seed}: its process died, or one beside it")
                print(f"  {command(hunt, seed)}")
                outcomes.append(Outcome(hunt.name, seed, Tally(0, 0), "died", 0.0))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("stopped; so far:")
    progress.clear()
    return outcomes


def totals(hunts: list[Hunt], outcomes: list[Outcome]) -> str:
    """Return a line for each hunt, and one for all."""
    lines = [
        f"{'hunt':18}{'seeds':>7}{'failed':>8}{'events':>13}{'least':>9}{'faults':>9}{'least':>7}"
    ]
    for hunt in [*hunts, None]:
        own = [each for each in outcomes if hunt is None or each.hunt == hunt.name]
        clean = [each.tally for each in own if not each.failure]
        events = [tally.events for tally in clean] or [0]
        faults = [tally.faults for tally in clean] or [0]
        seconds = sum(each.seconds for each in own)
        lines.append(
            f"{hunt.name if hunt else 'all':18}{len(own):7}{len(own) - len(clean):8}"
            f"{sum(events):13,}{min(events):9,}{sum(faults):9,}{min(faults):7}  {seconds:.0f} s"
        )
    return "\n".join(lines)


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="how many")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="S")
    parser.add_argument("--only", choices=[*BY_NAME], action="append", help="may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    options = parser.parse_args()
    if options.seeds < 1 or options.first < 0 or not 0 < options.jobs <= JOBS_MAX:
        parser.error("at least one seed, from 0 on, in 1 to 64 processes")
    hunts = [hunt for hunt in HUNTS if not options.only or hunt.name in options.only]
    seeds = range(options.first, options.first + options.seeds)
    outcomes = hunt_all(hunts, seeds, options.jobs)
    print(totals(hunts, outcomes))
    is_clean = all(not each.failure for each in outcomes)
    return 0 if is_clean and len(outcomes) == len(hunts) * len(seeds) else 1


if __name__ == "__main__":
    sys.exit(main())
