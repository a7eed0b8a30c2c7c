"""A seeded simulation of one raft group: event heap, virtual time, bad network, bad disks.

    python -m tests.simulation.raft_cluster --seed 1 --count 1000     a hunt
    python -m tests.simulation.raft_cluster --seed 17 --trace         one seed, told event by event

A seed decides everything: the number of voters, how bad things are (swarm testing), and every
fault. Messages are lost, repeated, reordered and cut off in one or both directions; nodes crash
(un-synced records are lost, some of them may have landed), pause, and their disks stall. Then all
nodes or a bare majority are healed: they must elect a leader, agree, and then leave it at that.
Checkers look on after every event. Reads are asked of whoever believes to lead, paused or not, with
leases in a quarter of the seeds: none may miss what was committed when it was asked for.
"""

import argparse
import heapq
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from corelane.model.ids import Index, MemberId, Term
from corelane.model.record import record
from corelane.raft import codec
from corelane.raft.config import RaftConfig, RaftSettings
from corelane.raft.effects import Effect, Send
from corelane.raft.messages import Heartbeat, HeartbeatAnswer, Message
from corelane.raft.quorum import quorum_size
from tests.simulation.raft_checkers import Checkers, ViolationError
from tests.simulation.raft_replica import GROUP, Entry, Replica

FAULTY_MS = 4_000
HEALED_MS_MAX = 20_000
CALM_MS = 1_000
HEARTBEAT_MS = 100
READ_MS_MEAN = 15.0
LEASED_READ_MS_MEAN = 3.0
PROGRESS_SEEDS = 500

WORLD = -1
"""The life of events that happen to no node."""

ANY_LIFE = -2
"""The life of messages: they may outlive the process they were sent to."""


@record
class Weather:
    """How bad it is, drawn once per seed."""

    voter_count: int
    loss: float
    repetition: float
    delay_ms_mean: float
    write_ms_mean: float
    propose_ms_mean: float
    fault_ms_mean: float
    trims: float
    """How often a log is trimmed that grows, whoever may still need it."""
    settings: RaftSettings


@record
class Read:
    """A read that a leader was asked for."""

    floor: int
    """How much was committed, as anybody may know, when its client asked."""
    asked_ms: int
    term: Term


@record
class Frame:
    """What a link carries."""

    kind: str
    round: int
    data: bytes


def draw_weather(chance: random.Random) -> Weather:
    """Draw a weather; every kind of trouble is absent in some seeds, and extreme in others."""
    entry_bytes = chance.choice((1, 20, 1000))
    timeout_ms = chance.choice((500, 250, 150))
    inflight_bytes = chance.choice((entry_bytes, 5 * entry_bytes, 10_000))
    return Weather(
        voter_count=chance.choice((3, 3, 3, 5, 5, 4, 2)),
        loss=chance.choice((0.0, 0.01, 0.1, 0.3)),
        repetition=chance.choice((0.0, 0.01, 0.2)),
        delay_ms_mean=chance.choice((0.2, 1.0, 10.0, 40.0)),
        write_ms_mean=chance.choice((0.2, 2.0, 15.0, 80.0)),
        propose_ms_mean=chance.choice((8.0, 20.0, 100.0)),
        fault_ms_mean=chance.choice((50.0, 100.0, 200.0, 500.0)),
        trims=chance.choice((0.0, 0.0, 0.05, 0.3)),
        settings=RaftSettings(
            election_timeout_ms=timeout_ms,
            election_rank_ms=timeout_ms // 10,
            election_jitter_ms=timeout_ms // 5,
            round_timeout_ms=timeout_ms // chance.choice((1, 3)),
            append_bytes_max=entry_bytes,
            inflight_messages_max=chance.choice((1, 3, 64)),
            inflight_bytes_max=inflight_bytes,
        ),
    )


class Cluster:
    """The world of one seed."""

    def __init__(self, seed: int, say: Callable[[str], None] | None = None) -> None:
        self.chance = random.Random(seed)
        self.say = say
        self.weather = draw_weather(self.chance)
        self.readers = random.Random(seed)
        if self.readers.random() < 0.25:
            settings = self.weather.settings
            lease_ms = settings.election_timeout_ms * self.readers.choice((3, 6, 9)) // 10
            self.weather = replace(self.weather, settings=replace(settings, lease_ms=lease_ms))
        self.reads: dict[MemberId, list[Read]] = {}
        self.reads_confirmed = self.reads_leased = 0
        self.now_us = 0
        self.event_count = 0
        self.proposed = 0
        self.is_healed = False
        self.is_asked = False
        self.healed: set[MemberId] = set()
        self.blocked: set[tuple[MemberId, MemberId]] = set()
        self.paused_until_us: dict[MemberId, int] = {}
        self.stalled_until_us: dict[MemberId, int] = {}
        self.lives: dict[MemberId, int] = {}
        self.ticks_us: dict[MemberId, int] = {}
        self.checkers = Checkers()
        self._heap: list[tuple[int, int, MemberId, int, Callable[[], None]]] = []
        self._sequence = 0
        nodes = tuple(MemberId(node) for node in range(1, self.weather.voter_count + 1))
        self.nodes = nodes
        self.replicas: dict[MemberId, Replica] = self.checkers.replicas
        for node in nodes:
            config = RaftConfig(GROUP, node, nodes, self.weather.settings)
            self.replicas[node] = Replica(config, self.chance, self.transmit, self)
            self.lives[node] = 0

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def run(self) -> None:
        """Live through the seed; raise `ViolationError` (or an assertion of the core)."""
        for node in self.nodes:
            self._start(node)
            self._beat(node)
        self._world_after_ms(self._exponential(self.weather.fault_ms_mean), self._trouble)
        self._world_after_ms(self._exponential(self.weather.propose_ms_mean), self._propose)
        self._world_after_ms(READ_MS_MEAN, self._ask_read)
        self._advance(FAULTY_MS, lambda: False)
        self._heal()
        self._advance(FAULTY_MS + HEALED_MS_MAX, self._is_settled)
        self.checkers.converged({node: self.replicas[node] for node in self.healed})
        self.checkers.calm = self.healed
        self._advance(self.now_ms + CALM_MS, lambda: False)

    # -- The heap -------------------------------------------------------------------------------

    def _advance(self, until_ms: int, is_done: Callable[[], bool]) -> None:
        heap = self._heap
        while heap and heap[0][0] < until_ms * 1000:
            at_us, _, node, life, act = heapq.heappop(heap)
            if life >= 0 and life != self.lives[node]:
                continue  # of a life before a crash
            if life != WORLD and at_us < self.paused_until_us.get(node, 0):
                self._push(self.paused_until_us[node], node, life, act)
                continue
            assert at_us >= self.now_us
            self.now_us = at_us
            self.event_count += 1
            act()
            if life != WORLD:
                replica = self.replicas[node]
                self.checkers.after_event(replica)
                self._follow_up(replica)
            elif is_done():
                return

    def _push(self, at_us: int, node: MemberId, life: int, act: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_us, self._sequence, node, life, act))

    def _after_ms(self, node: MemberId, delay_ms: float, act: Callable[[], None]) -> None:
        """Do something at a node, unless it crashes before."""
        self._push(self.now_us + int(delay_ms * 1000), node, self.lives[node], act)

    def _world_after_ms(self, delay_ms: float, act: Callable[[], None]) -> None:
        self._push(self.now_us + int(delay_ms * 1000), self.nodes[0], WORLD, act)

    def _exponential(self, mean: float) -> float:
        return self.chance.expovariate(1 / mean)

    # -- What a driver does for its group -------------------------------------------------------

    def _follow_up(self, replica: Replica) -> None:
        """Begin a WAL write when there is something to write, and look at the deadline."""
        if not replica.is_up:
            return
        node = replica.node
        if node in self.reads:
            self._answer_reads(replica)
        if not replica.writes and replica.start_write() is not None:
            self._after_ms(
                node, self._exponential(self._write_ms()), lambda: self._written(replica)
            )
        deadline_us = replica.group.deadline_ms * 1000
        if deadline_us < self.ticks_us[node]:
            self._tick_at(replica, deadline_us)

    def _write_ms(self) -> float:
        return 1.0 if self.is_healed else self.weather.write_ms_mean

    def _written(self, replica: Replica) -> None:
        stalled_us = self.stalled_until_us.get(replica.node, 0) - self.now_us
        if stalled_us > 0:
            self._after_ms(replica.node, stalled_us / 1000, lambda: self._written(replica))
            return
        replica.finish_write(self.now_ms)

    def _tick_at(self, replica: Replica, at_us: int) -> None:
        node = replica.node
        self.ticks_us[node] = at_us
        fires_us = max(at_us, self.now_us)
        self._push(fires_us, node, self.lives[node], lambda: self._tick(replica, at_us))

    def _tick(self, replica: Replica, at_us: int) -> None:
        """The timer of a group is lazy: the deadline may have moved away in the meantime."""
        if at_us != self.ticks_us[replica.node]:
            return  # replaced by an earlier one
        replica.tick(self.now_ms)
        self._tick_at(replica, max(replica.group.deadline_ms * 1000, self.now_us + 1000))

    def _beat(self, node: MemberId) -> None:
        """Every 100 ms one frame per peer with the rows of all groups led, here at most one."""
        replica = self.replicas[node]
        if replica.group.is_leader:
            round_number = self.now_ms
            for peer in self.nodes:
                if peer != node:
                    beat = replica.group.heartbeat(peer, round_number)
                    self.checkers.performed(replica, Send(peer, beat))
                    self.transmit(node, peer, beat, [])
        self._after_ms(node, HEARTBEAT_MS, lambda: self._beat(node))

    def _start(self, node: MemberId) -> None:
        replica = self.replicas[node]
        self.lives[node] += 1
        replica.start(self.now_ms)
        self.ticks_us[node] = 1 << 62
        self.checkers.after_start(replica)
        self._follow_up(replica)

    # -- Watcher --------------------------------------------------------------------------------

    def performed(self, replica: Replica, effect: Effect) -> None:
        if self.say is not None:
            self.say(f"{self.now_us / 1000:10.3f} {replica.node}: {effect}")
        self.checkers.performed(replica, effect)

    def appended(self, replica: Replica, index: Index, entry: Entry) -> None:
        self.checkers.appended(replica, index, entry)

    # -- The network ----------------------------------------------------------------------------

    def transmit(
        self, sender: MemberId, to: MemberId, message: Message, entries: list[Entry]
    ) -> None:
        """Carry a message as bytes; lose, repeat and reorder it as the weather has it."""
        chance, weather = self.chance, self.weather
        if (sender, to) in self.blocked:
            return
        copies = 1
        if not self.is_healed:
            if chance.random() < weather.loss:
                return
            copies += chance.random() < weather.repetition
        frame = to_frame(message)
        for _ in range(copies):
            delay_ms = 1.0 if self.is_healed else self._exponential(weather.delay_ms_mean)
            at_us = self.now_us + int(delay_ms * 1000)
            self._push(at_us, to, ANY_LIFE, lambda: self._arrived(sender, to, frame, entries))

    def _arrived(self, sender: MemberId, to: MemberId, frame: Frame, entries: list[Entry]) -> None:
        replica = self.replicas[to]
        if not replica.is_up:
            return
        message = from_frame(frame)
        if self.say is not None:
            self.say(f"{self.now_us / 1000:10.3f} {sender} -> {to} {message}")
        replica.receive(self.now_ms, sender, message, entries)

    # -- Clients --------------------------------------------------------------------------------

    def _propose(self) -> None:
        leaders = [
            one
            for one in self.replicas.values()
            if one.is_up and one.group.is_leader and not one.group.is_transferring
        ]
        if leaders and not self.is_healed:
            replica = self.chance.choice(leaders)
            if self.paused_until_us.get(replica.node, 0) <= self.now_us:
                for _ in range(self.chance.choice((1, 1, 1, 5))):
                    self.proposed += 1
                    replica.propose(f"p{self.proposed}", self.chance.choice((1, 10, 300)))
                self.checkers.after_event(replica)
                self._follow_up(replica)
                if self.chance.random() < self.weather.trims:
                    self._trim(replica.node)
        self._world_after_ms(self._exponential(self.weather.propose_ms_mean), self._propose)

    def _ask_read(self) -> None:
        """Have a client ask one of those that believe to lead; a paused one takes it later."""
        mean_ms = LEASED_READ_MS_MEAN if self.weather.settings.lease_ms else READ_MS_MEAN
        self._world_after_ms(self.readers.expovariate(1 / mean_ms), self._ask_read)
        leaders = [one for one in self.replicas.values() if one.is_up and one.group.is_leader]
        if leaders:
            replica = self.readers.choice(leaders)
            floor = len(self.checkers.committed)
            self._after_ms(replica.node, 0, lambda: self._read(replica, floor))

    def _read(self, replica: Replica, floor: int) -> None:
        group = replica.group
        if not group.is_leader:
            return
        if group.holds_lease(self.now_ms):
            self.reads_leased += 1
            self.checkers.read(replica, floor)
        else:
            asked = Read(floor, self.now_ms, group.term)
            self.reads.setdefault(replica.node, []).append(asked)

    def _answer_reads(self, replica: Replica) -> None:
        """Answer what is confirmed; who leads no more answers nothing."""
        group = replica.group
        waiting = []
        for read in self.reads.pop(replica.node):
            if not group.is_leader or group.term != read.term:
                continue
            if group.may_read(read.asked_ms):
                self.reads_confirmed += 1
                self.checkers.read(replica, read.floor)
            else:
                waiting.append(read)
        if waiting:
            self.reads[replica.node] = waiting

    # -- Faults ---------------------------------------------------------------------------------

    def _trouble(self) -> None:
        if self.is_healed:
            return
        node = self.chance.choice(self.nodes)
        leaders = [one.node for one in self.replicas.values() if one.is_up and one.group.is_leader]
        if leaders and self.chance.random() < 0.5:
            node = self.chance.choice(leaders)
        trouble = self.chance.choice(
            (
                *(self._crash, self._cut_off, self._split, self._join, self._join),
                *(self._pause, self._stall, self._trim, self._rivals, self._rivals),
            )
        )
        if self.say is not None:
            self.say(f"{self.now_us / 1000:10.3f} ## {trouble.__name__} {node}")
        trouble(node)
        self._world_after_ms(self._exponential(self.weather.fault_ms_mean), self._trouble)

    def _crash(self, node: MemberId, *, is_final: bool = False) -> None:
        replica = self.replicas[node]
        if not replica.is_up:
            return
        committed = replica.group.committed_index
        kept = self.chance.choice((0, committed, self.chance.randint(0, committed)))
        replica.committed_kept = Index(max(kept, replica.committed_kept))
        self.lives[node] += 1
        self.reads.pop(node, None)
        replica.crash(self.chance.choice((0, 0, 1, 2, 1000)))
        if not is_final:
            self._world_after_ms(self._exponential(300), lambda: self._restart(node))

    def _restart(self, node: MemberId) -> None:
        is_wanted = not self.is_healed or node in self.healed or self.chance.random() < 0.5
        if is_wanted and not self.replicas[node].is_up:
            self._start(node)
            self._beat(node)

    def _cut_off(self, node: MemberId) -> None:
        """Block a node's links, in one or both directions."""
        others = [other for other in self.nodes if other != node]
        direction = self.chance.choice(("to", "from", "both"))
        for other in self.chance.sample(others, self.chance.randint(1, len(others))):
            if direction != "from":
                self.blocked.add((other, node))
            if direction != "to":
                self.blocked.add((node, other))

    def _split(self, _node: MemberId) -> None:
        """Divide the nodes into two parts that do not hear each other."""
        part = set(self.chance.sample(self.nodes, self.chance.randint(1, len(self.nodes) - 1)))
        self.blocked = {
            (one, other)
            for one in self.nodes
            for other in self.nodes
            if (one in part) != (other in part)
        }

    def _join(self, _node: MemberId) -> None:
        self.blocked.clear()

    def _pause(self, node: MemberId) -> None:
        """Stop a process for a while; then everything arrives at once."""
        self.paused_until_us[node] = self.now_us + int(self._exponential(400) * 1000)

    def _stall(self, node: MemberId) -> None:
        """Let a disk hang."""
        self.stalled_until_us[node] = self.now_us + int(self._exponential(400) * 1000)

    def _trim(self, node: MemberId) -> None:
        """Forget a prefix that every replica is known to have, or one that some may yet need."""
        replica = self.replicas[node]
        if not replica.is_up:
            return
        ups = [one.group.committed_index for one in self.replicas.values() if one.is_up]
        downs = [one.committed_kept for one in self.replicas.values() if not one.is_up]
        first_index = Index(min(ups + downs) + 1)
        if self.chance.random() < 0.7:
            all_of_it = replica.group.committed_index + 1
            first_index = Index(self.chance.choice((all_of_it, self.chance.randint(1, all_of_it))))
        if first_index > replica.log.first_index:
            replica.log.trim(first_index)
            is_there = first_index <= replica.disk.log.last_index + 1
            if is_there and self.chance.random() < 0.5:  # and a checkpoint
                replica.disk.log.trim(first_index)

    def _rivals(self, _node: MemberId) -> None:
        """Let some nodes stand at the same time."""
        for node in self.chance.sample(self.nodes, self.chance.randint(1, len(self.nodes))):
            replica = self.replicas[node]
            if replica.is_up and self.paused_until_us.get(node, 0) <= self.now_us:
                replica.campaign(self.now_ms)
                self.checkers.after_event(replica)
                self._follow_up(replica)

    # -- The end --------------------------------------------------------------------------------

    def _heal(self) -> None:
        """End all faults for good, of all nodes or of a bare majority; that must make progress.

        The others stay away, or cannot hear, or cannot be heard: none of that may disturb.
        """
        self.is_healed = True
        self._heap = [event for event in self._heap if event[3] != ANY_LIFE]
        heapq.heapify(self._heap)
        self.blocked.clear()
        self.paused_until_us.clear()
        self.stalled_until_us.clear()
        count = len(self.nodes)
        bare = self.chance.sample(self.nodes, quorum_size(count))
        self.healed = set(self.chance.choice((self.nodes, bare)))
        for node in self.nodes:
            if node in self.healed or self.chance.random() < 0.7:
                self._restart(node)
            elif self.replicas[node].is_up:
                self._crash(node, is_final=True)
        for outsider in set(self.nodes) - self.healed:
            is_deaf = self.chance.random() < 0.5
            links = {(other, outsider) if is_deaf else (outsider, other) for other in self.nodes}
            self.blocked |= links
        self._world_after_ms(HEARTBEAT_MS, self._watch)

    def _watch(self) -> None:
        self._world_after_ms(HEARTBEAT_MS, self._watch)

    def _is_settled(self) -> bool:
        """Ask for one more entry, and say whether all replicas have everything, committed."""
        replicas = [self.replicas[node] for node in self.nodes if node in self.healed]
        groups = [replica.group for replica in replicas]
        established = [replica for replica in replicas if replica.group.is_established]
        if established and not self.is_asked:
            self.is_asked = True
            established[0].propose("the last", 1)
            self._follow_up(established[0])
        if not self.is_asked:
            return False
        logs = [log for replica in replicas for log in (replica.disk.log, replica.log)]
        ends = {log.last_index for log in logs} | {group.committed_index for group in groups}
        following = {group.leader for group in groups}
        return len(ends) == 1 and len(established) == 1 and len(following) == 1


def to_frame(message: Message) -> Frame:
    """Encode as the links will: heartbeats and their answers as rows of a numbered frame."""
    match message:
        case Heartbeat():
            row = (GROUP, message.term, message.committed_index)
            return Frame("beats", message.round, codec.pack_heartbeats([row]))
        case HeartbeatAnswer():
            data = codec.pack_heartbeat_answers([(GROUP, message.term)])
            return Frame("answers", message.round, data)
        case _:
            return Frame("message", 0, codec.encode(message))


def from_frame(frame: Frame) -> Message:
    """Decode what `to_frame` made."""
    match frame.kind:
        case "beats":
            ((_, term, committed),) = codec.unpack_heartbeats(frame.data)
            return Heartbeat(term, frame.round, committed)
        case "answers":
            ((_, term),) = codec.unpack_heartbeat_answers(frame.data)
            return HeartbeatAnswer(term, frame.round)
        case _:
            return codec.decode(frame.data)


def run_seed(seed: int, say: Callable[[str], None] | None = None) -> Cluster:
    """Run one seed; a failure names the one command that replays it."""
    cluster = Cluster(seed, say)
    try:
        cluster.run()
    except AssertionError as error:
        raise ViolationError(
            f"{error or type(error).__name__} (event {cluster.event_count}, {cluster.now_ms} ms)"
            f"\nreplay: python -m tests.simulation.raft_cluster --seed {seed} --trace"
        ) from error
    return cluster


def main(arguments: Iterable[str]) -> int:
    """Hunt from the command line."""
    return hunt(arguments, run_seed, __doc__ or "")


def hunt(
    arguments: Iterable[str],
    run: Callable[[int, Callable[[str], None] | None], Cluster],
    about: str,
) -> int:
    """Run the seeds that the command line names."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args(list(arguments))
    started_s = time.monotonic()
    event_count = 0
    for done, seed in enumerate(range(options.seed, options.seed + options.count), 1):
        event_count += run(seed, print if options.trace else None).event_count
        if done % PROGRESS_SEEDS == 0 or done == options.count:
            elapsed_s = time.monotonic() - started_s
            print(f"{done} seeds, {event_count} events, {elapsed_s:.1f} s: good", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
