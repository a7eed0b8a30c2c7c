"""Storms over a fleet: whole nodes of several cores, clients, and everything that can break.

    python -m tests.simulation.fleet_storm --seed 1 --count 100          a hunt
    python -m tests.simulation.fleet_storm --seed 17 --count 1 --trace   one seed, with its story

A seed decides the number of nodes and of the cores of each, how bad network and disks are, and
every fault: deaths of cores and nodes, power cuts, starts with other core counts, pauses, clocks
that jump, directions cut or slow, lost and mangled frames, full, failing and stopping disks,
hand-overs, moves between cores and nodes, trims. After every event the touched groups are checked
(`fleet_checks.py`), all of them every 1,000. Then it heals, and must converge: every group led,
replicas equal, every acknowledged record there once, in its order.
"""

import argparse
import errno
import gc
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from corelane.cluster.metadata import Cluster
from corelane.model.ids import GroupId, Index, MemberId
from corelane.model.internal_topics import OFFSETS_TOPIC
from corelane.raft.events import TransferLeadership
from corelane.shard.events import OperatorRequest
from corelane.shard.partition import Partition
from corelane.storage.effects import CheckpointWrite, SegmentWrite, Sync, WalPrepare, WalWrite
from corelane.wire.compiler import Message, message_type
from tests.simulation.fleet import START_US, Fleet, Machine
from tests.simulation.fleet_checks import Checks, watching
from tests.simulation.fleet_clients import (
    GROUPS,
    OFFSETS_PARTITIONS,
    ConsumerClient,
    EndReader,
    GroupClient,
    ProducerClient,
    World,
)
from tests.simulation.fleet_core import FleetCore

EVENTS = 20_000
FAULTS_MIN = 3
PARTITIONS = 4
REPLICAS = 3
SEGMENT_BYTES = 20_000
RAGE_MS_MAX = 600_000
HEAL_MS_MAX = 90_000
FORM_MS_MAX = 30_000
STORY_LINES = 60
OUTAGE_US = (100_000, 600_000, 3_000_000)
CUT_US = (300_000, 1_500_000, 5_000_000)
STALL_US = (30_000, 300_000, 1_500_000, 4_000_000)
SLOW_US = (5_000, 40_000, 150_000)
JUMPS_MS = (-3_600_000, -5_000, 5_000, 86_400_000)
FAILING = (WalWrite, SegmentWrite, Sync, CheckpointWrite, WalPrepare)


class Storm:
    """One seed."""

    def __init__(self, seed: int, events: int = EVENTS, *, is_told: bool = False) -> None:
        self.seed = seed
        self.events = events
        self.chance = chance = random.Random(seed)
        nodes = chance.choice((3, 3, 3, 3, 4))
        self.core_counts = tuple(chance.choice((1, 1, 2, 2, 3)) for _ in range(nodes))
        self.checks = Checks()
        consistency = chance.choice(("linearizable", "linearizable", "lease"))
        settings = f'corelane.read.consistency = "{consistency}"\n'
        settings += f"corelane.checkpoint.interval.ms = {chance.choice((1_000, 60_000))}\n"
        self.fleet = Fleet(seed, self.core_counts, self.checks, settings)
        self.fault_us = chance.choice((150_000, 400_000, 1_000_000))
        self.faults: Counter[str] = Counter()
        self.moves = 0
        self.story: list[str] = []
        self.is_told = is_told
        self.producers: list[ProducerClient] = []
        self.consumers: list[ConsumerClient] = []
        self.commits: list[GroupClient] = []
        self.world = World(self.fleet, self.checks, PARTITIONS)
        kinds: tuple[tuple[Callable[[], str | None], int], ...] = (
            (self.kill_core, 4),
            (self.kill_node, 3),
            (self.cut_power, 2),
            (self.black_out, 1),
            (self.resize, 2),
            (self.pause, 4),
            (self.jump, 1),
            (self.cut, 4),
            (self.slow, 2),
            (self.bad_weather, 1),
            (self.mangle, 1),
            (self.stall, 4),
            (self.fail_disk, 2),
            (self.fill_disk, 1),
            (self.hand_over, 4),
            (self.move, 3),
            (self.trim, 4),
        )
        # Some kinds of trouble are absent in a seed, so that others are seen alone.
        self.kinds = [kind for kind in kinds if chance.random() < 0.7] or [*kinds]
        if nodes > REPLICAS:
            self.kinds.append((self.reassign, 3))

    # --- the run ---

    def run(self) -> "Storm":
        """Form, rage, heal, compare."""
        with watching():
            self._form()
            self._begin()
            fleet = self.fleet
            start = fleet.event_count
            fleet.after(self.fault_us, self._trouble)

            def is_enough() -> bool:
                is_long = fleet.event_count - start >= self.events
                return is_long and self.faults.total() >= FAULTS_MIN

            fleet.run(RAGE_MS_MAX, is_enough)
            self._heal()
            self._compare()
        return self

    def say(self, text: str) -> None:
        line = f"{self.fleet.now_us / 1000:10.1f} {text}"
        self.story.append(line)
        if self.is_told:
            print(line)

    def _form(self) -> None:
        fleet, count = self.fleet, len(self.core_counts)

        def is_formed() -> bool:
            return all(
                core.shard.is_ready and len(core.shard.groups.cluster.nodes) == count
                for core in fleet.cores()
            )

        self._until(FORM_MS_MAX, is_formed, "a cluster is formed")
        size = {"internal.segment.bytes": str(SEGMENT_BYTES)}
        self._create("t", PARTITIONS, size)
        self._create(OFFSETS_TOPIC, OFFSETS_PARTITIONS, {})
        cluster = fleet.machines[1].cores[0].shard.groups.cluster
        topic = cluster.topics["t"]
        self.world.topic_id = topic.topic_id
        self.world.groups = [part.group for part in topic.partitions]
        self.world.coordinators = [part.group for part in cluster.topics[OFFSETS_TOPIC].partitions]
        everything = [*self.world.groups, *self.world.coordinators]
        self._until(FORM_MS_MAX, lambda: all(map(fleet.servers, everything)), "all is led")

    def _create(self, name: str, partitions: int, configs: dict[str, str]) -> None:
        row = message_type("CreateTopicsRequest.CreatableTopicConfig")
        wish = message_type("CreateTopicsRequest.CreatableTopic")(
            name=name,
            num_partitions=partitions,
            replication_factor=REPLICAS,
            configs=[row(name=key, value=value) for key, value in configs.items()],
        )
        request = message_type("CreateTopicsRequest")(topics=[wish], timeout_ms=10_000)
        answers: list[Message | None] = []
        self.fleet.machines[1].cores[0].connect().ask(request, 7, answers.append)
        self._until(FORM_MS_MAX, lambda: bool(answers), f"{name} is created")
        assert answers[0] is not None
        assert answers[0].topics[0].error_code == 0, answers[0].topics[0].error_message

    def _until(self, ms_max: int, is_done: Callable[[], bool], what: str) -> None:
        end_ms = self.fleet.now_ms + ms_max
        while not is_done():
            assert self.fleet.now_ms < end_ms, f"it never comes that {what}"
            self.fleet.run(50)

    def _begin(self) -> None:
        world, chance = self.world, self.chance
        pause_us = chance.choice((8_000, 30_000, 100_000))
        for partition in range(PARTITIONS):
            self.producers.append(ProducerClient(world, partition, partition, pause_us))
            self.consumers.append(ConsumerClient(world, partition, 3 * pause_us))
            EndReader(world, partition, 4 * pause_us)
        for number in range(2):
            partition = chance.randrange(PARTITIONS)
            self.producers.append(ProducerClient(world, partition, 50 + number, 2 * pause_us))
        self.commits = [GroupClient(world, name, 3 * pause_us) for name in GROUPS]

    # --- faults ---

    def _trouble(self) -> None:
        if self.world.is_ending:
            return
        kinds = [kind for kind, _weight in self.kinds]
        weights = [weight for _kind, weight in self.kinds]
        kind = self.chance.choices(kinds, weights)[0]
        done = kind()
        if done is not None:
            self.faults[kind.__name__] += 1
            self.say(f"## {done}")
        delay_us = int(self.chance.expovariate(1 / self.fault_us))
        self.fleet.after(delay_us, self._trouble)

    def _machine(self) -> Machine | None:
        up = [each for each in self.fleet.machines.values() if each.is_up]
        return self.chance.choice(up) if up else None

    def _core(self) -> FleetCore | None:
        cores = self.fleet.cores()
        leading = [core for core in cores if core.shard.groups.led()]
        chosen = leading if leading and self.chance.random() < 0.5 else cores
        return self.chance.choice(chosen) if chosen else None

    def kill_core(self) -> str | None:
        core = self._core()
        if core is None:
            return None
        core.machine.kill_core(core.number, self.chance.choice((*START_US, 1_000_000)))
        return f"core {core.number} of node {core.machine.number} is killed"

    def _end(self, machine: Machine, *, power: bool, core_count: int = 0) -> None:
        machine.kill(power=power)
        life, count = machine.life, core_count or machine.core_count

        def back() -> None:
            if not machine.is_up and machine.life == life:
                self.say(f"node {machine.number} starts with {count} cores")
                machine.start(count)

        self.fleet.after(self.chance.choice(OUTAGE_US), back)

    def kill_node(self) -> str | None:
        machine = self._machine()
        if machine is None:
            return None
        self._end(machine, power=False)
        return f"node {machine.number} is killed"

    def cut_power(self) -> str | None:
        machine = self._machine()
        if machine is None:
            return None
        self._end(machine, power=True)
        return f"node {machine.number} loses its power"

    def black_out(self) -> str | None:
        for machine in self.fleet.machines.values():
            if machine.is_up:
                self._end(machine, power=True)
        return "all lose their power"

    def resize(self) -> str | None:
        machine = self._machine()
        if machine is None:
            return None
        count = self.chance.choice((1, 2, 3))
        self._end(machine, power=self.chance.random() < 0.3, core_count=count)
        return f"node {machine.number} stops, to start with {count} cores"

    def pause(self) -> str | None:
        core = self._core()
        if core is None:
            return None
        until_us = self.fleet.now_us + self.chance.choice((*STALL_US, 8_000_000))
        is_whole = self.chance.random() < 0.4
        for each in core.machine.cores.values() if is_whole else [core]:
            each.paused_until_us = until_us
        what = "node" if is_whole else f"core {core.number} of node"
        return f"{what} {core.machine.number} stops until {until_us / 1000:.0f}"

    def jump(self) -> str | None:
        machine = self._machine()
        if machine is None:
            return None
        machine.wall_ms += self.chance.choice(JUMPS_MS)
        return f"the clock of node {machine.number} is {machine.wall_ms} ms off"

    def _later(self, act: Callable[[], None], choices: tuple[int, ...] = CUT_US) -> None:
        self.fleet.after(self.chance.choice(choices), act)

    def cut(self) -> str | None:
        network = self.fleet.network
        one, two = self.chance.sample([*self.fleet.machines], 2)
        ways = {(one, two)} if self.chance.random() < 0.5 else {(one, two), (two, one)}
        if self.chance.random() < 0.3:
            others = [each for each in self.fleet.machines if each != one]
            ways |= {(one, each) for each in others} | {(each, one) for each in others}
        network.cut |= ways
        self._later(lambda: network.cut.difference_update(ways))
        return f"cut: {sorted(ways)}"

    def slow(self) -> str | None:
        one, two = self.chance.sample([*self.fleet.machines], 2)
        slow_us = self.fleet.network.slow_us
        slow_us[one, two] = self.chance.choice(SLOW_US)

        def ends() -> None:
            slow_us.pop((one, two), None)

        self._later(ends)
        return f"slow: {one} to {two}, {slow_us[one, two]} us"

    def bad_weather(self) -> str | None:
        network = self.fleet.network
        network.loss = self.chance.choice((0.01, 0.1))

        def ends() -> None:
            network.loss = 0.0

        self._later(ends)
        return f"loss of {network.loss}"

    def mangle(self) -> str | None:
        network = self.fleet.network
        network.mangling = 0.01

        def ends() -> None:
            network.mangling = 0.0

        self._later(ends)
        return "frames come twice or before their time"

    def stall(self) -> str | None:
        core = self._core()
        if core is None:
            return None
        core.stalled_until_us = self.fleet.now_us + self.chance.choice(STALL_US)
        return f"the disk of core {core.number} of node {core.machine.number} stops"

    def fail_disk(self) -> str | None:
        core = self._core()
        if core is None:
            return None
        kind = self.chance.choice(FAILING)
        core.disk.fail(kind, errno.EIO, partly=self.chance.random() < 0.5)
        return f"EIO: {kind.__name__} on core {core.number} of node {core.machine.number}"

    def fill_disk(self) -> str | None:
        machine = self._machine()
        if machine is None:
            return None
        tree = machine.tree
        tree.room_bytes = tree.bytes_used + self.chance.choice((0, 50_000, 400_000))

        def room() -> None:
            tree.room_bytes = 1 << 62

        self._later(room)
        return f"the disk of node {machine.number} is full"

    def hand_over(self) -> str | None:
        core = self._core()
        if core is None:
            return None
        members = core.shard.groups.members.values()
        led = [each for each in members if each.serves and each.postman is not None]
        if not led or core.paused_until_us > self.fleet.now_us:
            return None
        member = self.chance.choice(led)
        target = MemberId(self.chance.choice([*self.fleet.machines]))
        member.step(core.shard.now_ms, TransferLeadership(target))
        self.checks.after_step(core, [member])
        core.wake(0)
        return f"group {member.group} is handed over to {target}"

    def move(self) -> str | None:
        machine = self._machine()
        core = None if machine is None else machine.cores.get(0)
        if machine is None or core is None or machine.core_count < 2:
            return None
        self.moves += 1
        partition, target = (
            self.chance.randrange(PARTITIONS),
            self.chance.randrange(machine.core_count),
        )
        arguments = {"topic": "t", "partition": str(partition), "core": str(target)}
        core.post(OperatorRequest(self.moves, "move", arguments))
        return f"partition {partition} moves to core {target} of node {machine.number}"

    def reassign(self) -> str | None:
        """Have other nodes keep a partition: learners, joint consensus, and one that leaves."""
        core = self._core()
        if core is None:
            return None
        partition = self.chance.randrange(PARTITIONS)
        nodes = self.chance.sample([*self.fleet.machines], REPLICAS)
        row = message_type("AlterPartitionReassignmentsRequest.ReassignablePartition")(
            partition_index=partition, replicas=[node * 1_000 for node in nodes]
        )
        topic = message_type("AlterPartitionReassignmentsRequest.ReassignableTopic")(
            name="t", partitions=[row]
        )
        request = message_type("AlterPartitionReassignmentsRequest")(
            topics=[topic], timeout_ms=5_000
        )
        core.connect().ask(request, 0, lambda _answer: None)
        return f"partition {partition} is to be on the nodes {nodes}"

    def trim(self) -> str | None:
        """Delete records: who is away may need a snapshot later."""
        group = GroupId(self.chance.choice(self.world.groups))
        for core in self.fleet.servers(group)[:1]:
            member = core.shard.groups.members[group]
            assert isinstance(member, Partition)
            if core.paused_until_us > self.fleet.now_us or core.shard.store.is_full:
                return None
            start = member.log.committed_offset
            if start <= max(member.log.start_offset, member.trim_offset):
                return None
            member.propose_start(start)
            core.wake(0)
        for core in self.fleet.cores():
            replica = core.shard.groups.members.get(group)
            if replica is not None and self.chance.random() < 0.7:
                replica.log.want_flush()  # as a checkpoint does
        return f"group {group} is trimmed"

    # --- the end ---

    def _heal(self) -> None:
        """End all faults for good."""
        self.say("-- heals")
        fleet, world = self.fleet, self.world
        world.is_ending = True
        fleet.is_calm = True
        network = fleet.network
        network.cut.clear()
        network.slow_us.clear()
        network.loss = network.mangling = 0.0
        for machine in fleet.machines.values():
            machine.tree.room_bytes = 1 << 62
            machine.wall_ms = 0
            for disk in machine.disks.values():
                disk.forget_faults()
            for core in machine.cores.values():
                core.paused_until_us = min(core.paused_until_us, fleet.now_us)
                core.stalled_until_us = min(core.stalled_until_us, fleet.now_us)
                core.wake(0)
        end_ms = fleet.now_ms + HEAL_MS_MAX
        while why := self._unsettled():
            assert fleet.now_ms < end_ms, f"after {HEAL_MS_MAX} ms of good weather {why}"
            fleet.run(50)
        self.checks.sweep()

    def _unsettled(self) -> str:
        """Return what is not well yet; empty: all is."""
        fleet, world = self.fleet, self.world
        for machine in fleet.machines.values():
            missing = [each for each in range(machine.core_count) if each not in machine.cores]
            if not machine.is_up or missing:
                return f"cores {missing} of node {machine.number} are away"
            for core in machine.cores.values():
                if not core.shard.is_ready:
                    return f"core {core.number} of node {machine.number} is not ready"
        for producer in self.producers:
            if not producer.is_done:
                return f"producer {producer.number} is not done"
        for machine in fleet.machines.values():
            if machine.retired:
                return f"retired cores {machine.retired} of node {machine.number} are not empty"
        for group in (0, *world.groups, *world.coordinators):
            servers, ends = fleet.servers(group), self._ends(group)
            if len(servers) != 1:
                return f"group {group} is served by {len(servers)} cores"
            if len(ends) != 1:
                return f"replicas of group {group} end at {ends}"
        if len({_fold(core) for core in fleet.cores()}) != 1:
            return "cores know different clusters"
        for each in self.consumers:
            if each.position < self._end_of(each.group):
                return f"partition {each.partition} is read up to {each.position}"
        return ""

    def _end_of(self, group: int) -> int:
        return self.checks.ledgers[group].offset

    def _ends(self, group: int) -> set[tuple[int, int]]:
        """Return where the replicas of a group end; one more if some are missing."""
        found: set[tuple[int, int]] = set()
        count = 0
        for core in self.fleet.cores():
            member = core.shard.groups.members.get(GroupId(group))
            if member is not None:
                count += 1
                found.add((member.log.last_index, member.log.committed_index))
        wanted = len(self.core_counts) if group == 0 else REPLICAS
        return found if count == wanted else {*found, (-1, count), (-2, 0)}

    def _compare(self) -> None:
        """Everything acknowledged is there once, in its order; all nodes know the same."""
        world = self.world
        readers = [ConsumerClient(world, partition, 500) for partition in range(PARTITIONS)]
        self._until(
            HEAL_MS_MAX,
            lambda: all(each.position >= self._end_of(each.group) for each in readers),
            "all is read",
        )
        for reader in readers:
            start = min(reader.found, default=reader.position)
            self._compare_records(reader.partition, start, reader.found)
        for commit in self.commits:
            assert commit.acknowledged <= commit.attempted

    def _compare_records(self, partition: int, start: int, found: dict[int, bytes]) -> None:
        known = self.world.values[partition]
        lost = [at for at in known if at >= start and at not in found]
        assert not lost, f"partition {partition}: lost are {lost[:5]}"
        for producer in self.producers:
            if producer.partition != partition:
                continue
            own = b"%d-" % producer.number
            values = [known[at] for at in sorted(known) if known[at].startswith(own)]
            order = [int(value[len(own) :].split(b":")[0]) for value in values]
            assert order == sorted(set(order)), f"producer {producer.number}: doubled or disordered"
            kept = [value for _at, value in sorted(found.items()) if value.startswith(own)]
            if kept:
                first = int(kept[0][len(own) :].split(b":")[0])
                assert len(kept) == producer.sequence - first, f"producer {producer.number}: a gap"
            else:
                assert start > 0 or not producer.sequence, f"producer {producer.number}: all lost"


def _fold(core: FleetCore) -> bytes:
    """Return what a core knows of the cluster; entries without a command do not reach siblings."""
    cluster = Cluster.decode(core.shard.groups.cluster.encode())
    cluster.applied_index = Index(0)
    return cluster.encode()


def run_seed(seed: int, events: int = EVENTS, *, is_told: bool = False) -> Storm:
    """Run one storm; a failure names the one command that replays it."""
    storm = Storm(seed, events, is_told=is_told)
    try:
        return storm.run()
    except Exception as error:
        more = "" if events == EVENTS else f" --events {events}"
        command = f"python -m tests.simulation.fleet_storm --count 1 --seed {seed}{more} --trace"
        told = "\n".join(storm.story[-STORY_LINES:])
        error.add_note(f"{told}\nreplay: {command}")
        raise


def main() -> int:
    """Run storms from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--events", type=int, default=EVENTS, help="before it heals")
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    gc.freeze()
    gc.disable()  # between seeds is often enough
    for seed in range(options.seed, options.seed + options.count):
        began_s = time.process_time()
        storm = run_seed(seed, options.events, is_told=options.trace)
        seconds = time.process_time() - began_s
        events = storm.fleet.event_count
        print(
            f"seed {seed}: cores {storm.core_counts}, {events} events in {seconds:.1f} s"
            f" ({events / seconds:.0f}/s), {storm.fleet.now_ms / 1000:.0f} s,"
            f" {storm.faults.total()} faults, {sum(storm.world.ends)} records,"
            f" {storm.world.reads} reads, {storm.checks.looks} looks",
            flush=True,
        )
        gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
