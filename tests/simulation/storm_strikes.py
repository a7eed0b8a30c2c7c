"""Blows that are aimed: at whoever has just been asked something, or is to be asked next.

Each step of a teller (join, sync, heartbeat, init, add, produce, add offsets, commit offset, end),
as it is asked and as it is answered, and each decision whose markers are on their way, may be the
moment; a coordinator, a partition's leader or the client itself may be the victim. What was struck
is counted.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from corelane.model.record import record
from corelane.shard.transaction_host import TransactionHost
from tests.simulation.cluster import NODES, SimNode
from tests.simulation.cluster_storm import Storm
from tests.simulation.storm_tellers import PARTITIONS, Groups, Teller

DELAYS_MS: Final = (0, 0, 1, 2, 4, 8, 30)
LASTS_MS: Final = (100, 300, 300, 1_500, 4_000)
"""How long a node is away, stands still or is cut off."""
TWICE: Final = 0.2
"""How often a blow falls while the one before lasts."""
VICTIMS: Final = ("coordinator", "partition", "group", "client")
BLOWS: Final = ("kill", "kill", "pause", "cut", "hand over")


@record
class Plan:
    """A blow that falls in a moment."""

    at_ms: int
    step: str
    victim: str
    group: int
    """The raft group whose leader is meant."""
    teller: Teller | None


class Strikes:
    """What a storm aims at."""

    def __init__(self, weather: Storm, groups: Groups, rate: float) -> None:
        self._weather = weather
        self._cluster = weather.cluster
        self._chance = weather.chance
        self._groups = groups
        self._rate = rate
        self._plans: list[Plan] = []
        self._ends: list[tuple[int, Callable[[], None]]] = []
        self._decisions: set[tuple[str, int]] = set()
        self.counts: Counter[tuple[str, str]] = Counter()

    def moment(self, teller: Teller, step: str) -> None:
        """A teller has asked or heard something."""
        if self._chance.random() >= self._rate:
            return
        victim = self._chance.choice(VICTIMS)
        match victim:
            case "coordinator":
                group = self._groups.coordinator(teller.name)
            case "partition":
                group = self._groups.partition(self._chance.randrange(PARTITIONS))
            case _:
                group = self._groups.offsets(teller.member.name)
        self._plan(step, victim, group, teller)

    def delivering(self, hosts: list[TransactionHost]) -> None:
        """Look for decisions whose markers are on their way."""
        for host in hosts:
            if host.coordinator.undelivered_count == 0:
                continue
            work = next(host.coordinator.undelivered())
            decision = (work.transactional_id, work.started_ms)
            if decision in self._decisions:
                continue
            self._decisions.add(decision)
            if self._chance.random() >= self._rate:
                continue
            if self._chance.random() < 0.5:
                self._plan("markers", "coordinator", int(host.partition.group), None)
                continue
            topic, number = self._chance.choice(work.partitions)
            self._plan("markers", "partition", self._groups.of(topic, number), None)

    def _plan(self, step: str, victim: str, group: int, teller: Teller | None) -> None:
        at_ms = self._cluster.now_ms + self._chance.choice(DELAYS_MS)
        self._plans.append(Plan(at_ms, step, victim, group, teller))

    def fall(self) -> None:
        """Let the blows fall whose time has come, and those end that lasted long enough."""
        now_ms = self._cluster.now_ms
        for at_ms, ends in [*self._ends]:
            if at_ms <= now_ms:
                self._ends.remove((at_ms, ends))
                ends()
        due = [plan for plan in self._plans if plan.at_ms <= now_ms]
        self._plans = [plan for plan in self._plans if plan.at_ms > now_ms]
        for plan in due:
            if plan.victim == "client":
                assert plan.teller is not None
                plan.teller.is_over = True
                self.counts[plan.step, plan.victim] += 1
            elif not self._ends or self._chance.random() < TWICE:
                for node in self._cluster.leaders(plan.group)[:1]:
                    self._strike(node, plan)

    def _strike(self, node: SimNode, plan: Plan) -> None:
        cluster, chance = self._cluster, self._chance
        others = [number for number in NODES if number != node.number]
        lasts_ms = chance.choice(LASTS_MS)
        match chance.choice(BLOWS):
            case "kill":
                if len(cluster.up()) < len(NODES):
                    return
                cluster.kill(node.number)
                self._later(lasts_ms, partial(self._revive, node, node.boot))
            case "pause":
                node.paused_until_ms = cluster.now_ms + lasts_ms
                self._later(lasts_ms, _nothing)
            case "cut":
                ways = {(node.number, other) for other in others}
                if chance.random() < 0.5:
                    ways |= {(other, node.number) for other in others}
                cluster.cut |= ways
                self._later(lasts_ms, partial(cluster.cut.difference_update, ways))
            case _:
                self._weather.hand_over(node, others, plan.group)
        self.counts[plan.step, plan.victim] += 1

    def _later(self, ms: int, ends: Callable[[], None]) -> None:
        self._ends.append((self._cluster.now_ms + ms, ends))

    def _revive(self, node: SimNode, boot: int) -> None:
        if not node.is_up and node.boot == boot:
            self._cluster.revive(node.number)


def _nothing() -> None:
    """A pause ends by itself."""
