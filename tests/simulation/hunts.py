"""The hunts: one way each to run a seed, and what happened in it, counted.

Events are what raft groups, shards or disks were handed; faults are deliberate ones: deaths, power
cuts, pauses, cut networks, stopped or full disks, hand-overs, changes of members. What the weather
does to every message (loss, delay, repetition, reordering) is not counted.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from corelane.model.record import record
from corelane.shard.shard import Shard
from tests.simulation import (
    cluster_power,
    cluster_rot,
    cluster_storm,
    fleet_storm,
    moving_storm,
    node_storm,
    raft_changes,
    raft_cluster,
    raft_losses,
    simulator,
    transaction_storm,
    world,
)
from tests.simulation.cluster import SimNode
from tests.simulation.sim_disk import SimDisk
from tests.unit.storage import replica_script, rot, script
from tests.unit.storage.machine import SMALL

STORAGE_ACTIONS: Final = 200
STORAGE_STRIDE: Final = 2
REPLICA_STRIDE: Final = 5
ROT_STRIDE: Final = 5
HAND_OVER_DICE: Final = 0.30
"""Below it `Storm._strike` does harm or hands over; from it on it trims or produces."""


@record
class Tally:
    """What happened in a seed."""

    events: int
    faults: int


@record
class Hunt:
    """A simulation that a seed decides."""

    name: str
    run: Callable[[int], Tally]
    replay: str
    """The command that runs a seed again, where a failure does not name one itself."""


class _Count:
    n = 0


@contextlib.contextmanager
def _calls(
    *methods: tuple[type, str], amount: Callable[..., int] = lambda *_words: 1
) -> Iterator[_Count]:
    """Count calls of *methods*, each as *amount* of its arguments says."""
    count = _Count()

    def counted(method: Any) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            count.n += amount(*words)
            return method(*words, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in methods:
            patch.setattr(owner, name, counted(getattr(owner, name)))
        yield count


def _taken() -> contextlib.AbstractContextManager[_Count]:
    """Count what shards are handed, by whoever drives them whole or in parts."""
    return _calls((Shard, "begin"), amount=lambda _shard, _now_ms, _wall_ms, events: len(events))


def _raft(seed: int) -> Tally:
    with _calls((raft_cluster.Cluster, "_trouble")) as faults:
        events = raft_cluster.run_seed(seed).event_count
    return Tally(events, faults.n)


def _members(seed: int) -> Tally:
    with _calls((raft_cluster.Cluster, "_trouble")) as faults:
        run = raft_changes.run_seed(seed)
    return Tally(run.event_count, faults.n + run.changes + run.transfers)


def _losses(seed: int) -> Tally:
    with _calls((raft_cluster.Cluster, "_trouble")) as faults:
        run = raft_losses.run_seed(seed)
    return Tally(run.event_count, faults.n + run.losses)


def _rot(seed: int) -> Tally:
    with _taken() as events:
        storm = cluster_rot.RotStorm(seed)
        storm.run()
    return Tally(events.n, storm.flips_in_logs + storm.flips_in_segments)


def _state(storm: cluster_storm.Storm) -> object:
    nodes = storm.cluster.nodes.values()
    return [(node.is_up, node.paused_until_ms) for node in nodes], {*storm.cluster.cut}


class _Struck(cluster_storm.Storm):
    """A storm that counts what does harm."""

    faults = 0

    def _strike(self, dice: float) -> None:
        before = _state(self)
        super()._strike(dice)
        self.faults += dice < HAND_OVER_DICE and before != _state(self)


def _cluster(seed: int) -> Tally:
    with (
        _taken() as events,
        _calls((cluster_storm.Storm, "_hand_over")) as handed,
    ):
        storm = _Struck(seed)
        storm.run()
    return Tally(events.n, storm.faults + handed.n)


class _Moved(moving_storm.MovingStorm):
    """A storm that counts what changes, beside the harm that others do too."""

    faults = 0

    def strike_nodes(self, dice: float, pair: list[int]) -> None:
        before = _state(self)
        super().strike_nodes(dice, pair)
        self.faults += before != _state(self)

    def _operate(self, node: SimNode, action: str, number: int) -> None:
        self.faults += action == "drain"
        super()._operate(node, action, number)


def _moves(seed: int) -> Tally:
    strikes = ("_reassign", "_lose", "_hand_over")
    harm = [(moving_storm.MovingStorm, name) for name in strikes]
    with _taken() as events, _calls(*harm) as faults:
        storm = _Moved(seed)
        storm.run()
    return Tally(events.n, storm.faults + faults.n + storm.blows.total())


def _power(seed: int) -> Tally:
    strikes = [(cluster_power.PowerCluster, "kill"), (cluster_storm.Storm, "_hand_over")]
    with _taken() as events, _calls(*strikes) as faults:
        storm = cluster_power.run_seed(seed)
    return Tally(events.n, faults.n + storm.stalls)


def _transactions(seed: int) -> Tally:
    with _taken() as events:
        storm = transaction_storm.TransactionStorm(seed)
        storm.run()
    return Tally(events.n, storm.blows + storm.strikes.counts.total())


def _cores(seed: int, *, has_power_cuts: bool) -> Tally:
    strikes = ("kill", "cut_power", "resize", "pause", "stop_disk", "move")
    harm = [(node_storm.Storm, name) for name in strikes]
    with _taken() as events, _calls(*harm) as faults:
        node_storm.Storm(seed, 2 + seed % 3, has_power_cuts=has_power_cuts).run()
    return Tally(events.n, faults.n)


def _fleet(seed: int) -> Tally:
    storm = fleet_storm.run_seed(seed)
    return Tally(storm.fleet.event_count, storm.faults.total())


def _world(seed: int) -> Tally:
    harm = [(simulator.Node, name) for name in ("crash", "fill_disk", "fail_disk")]
    with _taken() as events, _calls(*harm) as faults:
        run = world.World(seed)
        # As `world.run_seed`, but for the trace that only a person wants.
        run.run()
    return Tally(events.n, faults.n)


def _storage(seed: int) -> Tally:
    with _calls((SimDisk, "submit")) as events, _calls((SimDisk, "crash")) as faults:
        script.crash_everywhere(SMALL, seed, actions=STORAGE_ACTIONS, stride=STORAGE_STRIDE)
    return Tally(events.n, faults.n)


def _replicas(seed: int) -> Tally:
    with _calls((SimDisk, "submit")) as events, _calls((SimDisk, "crash")) as faults:
        replica_script.crash_everywhere(seed, actions=STORAGE_ACTIONS, stride=REPLICA_STRIDE)
    return Tally(events.n, faults.n)


def _bad_sectors(seed: int) -> Tally:
    with _calls((SimDisk, "submit")) as events:
        runs = rot.rot_everywhere(seed, actions=STORAGE_ACTIONS, stride=ROT_STRIDE)
    return Tally(events.n, sum(bool(run.outcome) for run in runs))


_STORAGE = f"tests.unit.storage.hunt --seeds 1 --actions {STORAGE_ACTIONS}"

HUNTS: Final = (
    Hunt("raft_cluster", _raft, "tests.simulation.raft_cluster --trace --seed {seed}"),
    Hunt("raft_changes", _members, "tests.simulation.raft_changes --trace --seed {seed}"),
    Hunt("raft_losses", _losses, "tests.simulation.raft_losses --trace --seed {seed}"),
    Hunt("cluster_storm", _cluster, "tests.simulation.cluster_storm --count 1 --seed {seed}"),
    Hunt("moving_storm", _moves, "tests.simulation.moving_storm --count 1 --seed {seed}"),
    Hunt(
        "transaction_storm",
        _transactions,
        "tests.simulation.transaction_storm --count 1 --seed {seed}",
    ),
    Hunt("cluster_rot", _rot, "tests.simulation.cluster_rot --count 1 --seed {seed}"),
    Hunt("cluster_power", _power, "tests.simulation.cluster_power --count 1 --seed {seed}"),
    Hunt("fleet_storm", _fleet, "tests.simulation.fleet_storm --trace --count 1 --seed {seed}"),
    Hunt(
        "node_storm",
        lambda seed: _cores(seed, has_power_cuts=False),
        "tests.simulation.node_storm --count 1 --cores {cores} --seed {seed}",
    ),
    Hunt(
        "node_storm_power",
        lambda seed: _cores(seed, has_power_cuts=True),
        "tests.simulation.node_storm --weather power --count 1 --cores {cores} --seed {seed}",
    ),
    Hunt("world", _world, "tests.simulation.world --seed {seed}"),
    Hunt("storage", _storage, f"{_STORAGE} --stride {STORAGE_STRIDE} --seed {{seed}}"),
    Hunt("replicas", _replicas, f"{_STORAGE} --replicas --stride {REPLICA_STRIDE} --seed {{seed}}"),
    Hunt("bad_sectors", _bad_sectors, f"{_STORAGE} --rot --stride {ROT_STRIDE} --seed {{seed}}"),
)


def command(hunt: Hunt, seed: int) -> str:
    """Return the one command that replays a seed."""
    return f"python -m {hunt.replay.format(seed=seed, cores=2 + seed % 3)}"
