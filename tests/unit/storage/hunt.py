"""Crashes storage at every step of many scripts: python -m tests.unit.storage.hunt [options].

With --pair groups move between two cores, and each step of either is crashed; with --replicas three
replicas of a group send each other what they lack; with --rot a sector goes bad at each step.
"""

import argparse
import sys
import time
from collections import Counter

from tests.unit.storage.machine import LARGE, SMALL
from tests.unit.storage.pair_script import BOTH, PairRun, crash_pair
from tests.unit.storage.replica_script import ReplicaRun, crash_replica
from tests.unit.storage.replicas import COUNT
from tests.unit.storage.rot import RotRun, rot
from tests.unit.storage.script import Run

PROFILES = {profile.name: profile for profile in (SMALL, LARGE)}


def hunt_pairs(options: argparse.Namespace) -> int:
    """The same for two cores."""
    end = time.monotonic() + options.seconds
    runs = 0
    for seed in range(options.seed, options.seed + options.seeds):
        count = PairRun(seed, 0)
        count.first_life(options.actions)
        for core in BOTH if options.core is None else [options.core]:
            steps = range(seed % options.stride, count.pair.disks[core].steps, options.stride)
            for step in steps if options.step is None else [options.step]:
                if time.monotonic() > end:
                    print(f"{runs} crashes, time is up at seed {seed}")
                    return 0
                crash_pair(seed, core, step, options.actions, options.luck)
                runs += 1
    print(f"{runs} crashes, nothing lost")
    return 0


def hunt_replicas(options: argparse.Namespace) -> int:
    """The same for three replicas."""
    end = time.monotonic() + options.seconds
    runs = 0
    for seed in range(options.seed, options.seed + options.seeds):
        count = ReplicaRun(seed, 0)
        count.first_life(options.actions)
        for victim in range(COUNT) if options.core is None else [options.core]:
            steps = range(seed % options.stride, count.replicas.disks[victim].steps, options.stride)
            for step in steps if options.step is None else [options.step]:
                if time.monotonic() > end:
                    print(f"{runs} crashes, time is up at seed {seed}")
                    return 0
                crash_replica(seed, victim, step, options.actions, options.luck)
                runs += 1
    print(f"{runs} crashes, nothing lost")
    return 0


def hunt_rot(options: argparse.Namespace) -> int:
    """A sector of one file is another one when the core starts again."""
    end = time.monotonic() + options.seconds
    outcomes: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.seeds):
        count = RotRun(seed, 0)
        count.first_life(options.actions)
        steps = range(seed % options.stride, count.disk.steps, options.stride)
        for step in steps if options.step is None else [options.step]:
            if time.monotonic() > end:
                print(f"{outcomes.total()} starts, time is up at seed {seed}: {dict(outcomes)}")
                return 0
            outcomes[rot(seed, step, options.actions, options.luck).outcome] += 1
    print(f"{outcomes.total()} starts, nothing served that rots: {dict(outcomes)}")
    return 0


def main() -> int:
    """Hunt until the seeds or the time are used up; return 1 at the first failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="small")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--actions", type=int, default=200)
    parser.add_argument("--stride", type=int, default=1, help="crash at every n-th step")
    parser.add_argument("--step", type=int, help="only this one: how a failure is replayed")
    parser.add_argument("--luck", type=int, default=0, help="added to the seed of what survives")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--pair", action="store_true", help="two cores between which groups move")
    parser.add_argument("--replicas", action="store_true", help="three replicas of each group")
    parser.add_argument("--rot", action="store_true", help="a sector goes bad before the start")
    parser.add_argument("--core", type=int, choices=range(COUNT), help="with --step: whose")
    options = parser.parse_args()
    if options.pair:
        return hunt_pairs(options)
    if options.replicas:
        return hunt_replicas(options)
    if options.rot:
        return hunt_rot(options)
    profile = PROFILES[options.profile]
    end = time.monotonic() + options.seconds
    runs = 0
    for seed in range(options.seed, options.seed + options.seeds):
        count = Run(profile, seed, 0)
        count.first_life(options.actions)
        steps = range(seed % options.stride, count.disk.steps, options.stride)
        for step in steps if options.step is None else [options.step]:
            if time.monotonic() > end:
                print(f"{runs} crashes, time is up at seed {seed}")
                return 0
            try:
                Run(profile, seed, step + options.luck).crash_at(step, options.actions)
            except BaseException:
                print(
                    f"replay: python -m tests.unit.storage.hunt --profile {profile.name} --seed "
                    f"{seed} --seeds 1 --actions {options.actions} --step {step} "
                    f"--luck {options.luck}",
                    flush=True,
                )
                raise
            runs += 1
    print(f"{runs} crashes, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
