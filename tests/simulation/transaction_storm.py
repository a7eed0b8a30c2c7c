"""Storms over three nodes with transactions: coordinators, leaders and producers die at any step.

`python -m tests.simulation.transaction_storm --seed N --count M`. Blows are aimed at whoever is at
a step (`storm_strikes.py`), beside the weather of `cluster_storm`; a seed decides which kinds of
trouble there are at all. Readers of committed records and offsets look at any time; nobody may see
what nobody asked to commit, nor half of a transaction in the end, nor may anything stay open or go
away again (multiraft.md D and E). Nodes rest where nothing is due, and time leaps.
"""

import argparse
import time
from collections import Counter

from corelane.model.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from corelane.producers.transactions.coordinator import TransactionCoordinator
from corelane.producers.transactions.records import STATE_NAMES
from corelane.shard import transaction_records
from corelane.shard.partition import Partition
from corelane.shard.transaction_host import TransactionHost
from corelane.wire.compiler import Message
from corelane.wire.records import batch_records, split_batches
from tests.simulation.cluster import NODES, Cluster, SimNode
from tests.simulation.cluster_storm import Storm
from tests.simulation.fleet_checks import watching
from tests.simulation.fleet_core import TOUCHED
from tests.simulation.storm_strikes import Strikes
from tests.simulation.storm_tellers import (
    COORDINATORS,
    NAMES,
    PARTITIONS,
    TOPIC,
    Fate,
    Groups,
    Ledger,
    Teller,
    group_of,
    index_of,
)
from tests.unit.api.txn import Fetch as OffsetFetch
from tests.unit.api.txn import FetchTopic

STEPS = 100
FETCH = 12
OFFSET_FETCH = 7
READ_COMMITTED = 1
HEAL_MS = 30_000
CLOSED_LOOKS = 3
SWEEP = 50
SETTINGS = """
group.initial.rebalance.delay.ms = 0
group.min.session.timeout.ms = 500
corelane.checkpoint.interval.ms = {}
"""


class Weather(Storm):
    """The weather of `cluster_storm`; after a step the members that did something are looked at."""

    def __init__(self, seed: int, settings: str) -> None:
        super().__init__(seed, settings)
        self._checks = 0

    def check(self) -> None:
        self._checks += 1
        if self._checks % SWEEP == 0:
            super().check()
        else:
            up = self.cluster.up()
            for member in {id(each): each for each in TOUCHED}.values():
                for node in up:
                    if node.shard.groups.members.get(member.group) is member:
                        self.look(node, int(member.group), member)
        TOUCHED.clear()


class TransactionStorm:
    """One storm."""

    def __init__(self, seed: int, steps: int = STEPS) -> None:
        self._steps = steps
        # Some trouble is absent in a seed, so that other is seen alone.
        self.weather = Weather(seed, SETTINGS.format((1_000, 60_000)[seed % 2]))
        self.cluster: Cluster = self.weather.cluster
        self.chance = self.cluster.chance
        self.weather_share = self.chance.choice((0, 0, 0.2, 0.4))
        self.has_zombies = self.chance.random() < 0.7
        self.names = NAMES[: self.chance.choice((2, 3, 4, 4))]
        self.ledger = Ledger()
        self.groups = Groups(self.cluster)
        self.strikes = Strikes(self.weather, self.groups, self.chance.choice((0.01, 0.03, 0.1)))
        self.tellers: list[Teller] = []
        self.reads = self.blows = 0
        self._seen: dict[tuple[int, int], bytes] = {}
        """What readers were given: by partition and offset."""

    def run(self) -> str:
        """Rage, heal, compare; return a line about it."""
        with watching():
            self._form()
            for _ in range(self._steps):
                for _ in range(self.chance.choice((5, 10, 20))):
                    self.cluster.go(self.chance.choice((1, 2, 4, 10)))
                    self._serve()
                self._strike(self.chance.random())
            self._heal()
            seen = self._compare()
        committed = sum(fate is Fate.COMMITTED for fate in self.ledger.fates.values())
        return (
            f"{len(self.ledger.fates)} transactions, {committed} known to be committed,"
            f" {len(seen)} seen, {self.reads} reads, {self.strikes.counts.total()} aimed blows,"
            f" errors {sum(self.ledger.errors.values())}"
        )

    def _form(self) -> None:
        cluster = self.cluster
        for each in cluster.nodes.values():
            each.rests = True
        cluster.form()
        node = cluster.nodes[self.chance.choice(NODES)]
        cluster.create_topic(node, TOPIC, PARTITIONS)
        cluster.create_topic(node, TRANSACTIONS_TOPIC, COORDINATORS)
        cluster.create_topic(node, OFFSETS_TOPIC, COORDINATORS)

    def _serve(self) -> None:
        for teller in self.tellers:
            teller.turn()
        self.strikes.delivering(self._hosts())
        self.strikes.fall()
        self.tellers = [teller for teller in self.tellers if not teller.is_over]
        living = {teller.name for teller in self.tellers}
        for name in self.names:
            if name not in living:
                self.tellers.append(self._teller(name))

    def _teller(self, name: str) -> Teller:
        return Teller(self.cluster, self.ledger, name, self.groups, self.strikes.moment)

    def _strike(self, dice: float) -> None:
        chance = self.chance
        if dice < 0.04 and self.has_zombies and self.tellers:
            # Thought dead: another life begins, and this one may go on.
            teller = chance.choice(self.tellers)
            self.tellers.append(self._teller(teller.name))
            if chance.random() < 0.5:
                self.tellers.remove(teller)
        elif dice < 0.20:
            self._look()
        elif dice < 0.26:
            self._look_at_offsets()
        elif dice < 0.32:
            self._check_coordinators()
        elif dice < 0.32 + self.weather_share:
            before = self._state()
            self.weather.strike_nodes(chance.random(), chance.sample(NODES, 2))
            self.blows += before != self._state()

    def _state(self) -> object:
        nodes = self.cluster.nodes.values()
        return [(node.is_up, node.paused_until_ms) for node in nodes], {*self.cluster.cut}

    # --- readers ---

    def _look(self) -> None:
        """Read committed records of a partition, at whoever leads it."""
        number = self.chance.randrange(PARTITIONS)
        for node in self.cluster.leaders(self.groups.partition(number))[:1]:
            if node.paused_until_ms > self.cluster.now_ms:
                return
            member = node.members[self.groups.partition(number)]
            assert isinstance(member, Partition)
            self.reads += 1
            stable = member.last_stable_offset
            assert stable <= member.log.committed_offset
            for offset, value in self._committed(node, number):
                transaction = _number_of(value)
                fate = self.ledger.fates[transaction]
                assert fate is not Fate.OPEN, f"{value!r} is read, but was never to be committed"
                before = self._seen.setdefault((number, offset), value)
                assert before == value, f"{before!r} was read where {value!r} is"

    def _look_at_offsets(self) -> None:
        """Ask for a teller's offset, at whoever coordinates its group."""
        name = self.chance.choice(self.names)
        for node in self.cluster.leaders(self.groups.offsets(group_of(name)))[:1]:
            if node.paused_until_ms > self.cluster.now_ms:
                return
            request, conn = _offset_request(name, is_stable=False), self.groups.conn()
            node.ask(request, OFFSET_FETCH, conn)
            for _ in range(20):
                node.turn()
                answer = node.receive(9, OFFSET_FETCH, conn)
                if answer is None:
                    continue
                self.reads += 1
                row = answer[1].topics[0].partitions[0]
                if not row.error_code and row.committed_offset >= 0:
                    fate = self.ledger.fates[row.committed_offset]
                    assert fate is not Fate.OPEN, f"{name} is at {row.committed_offset} too early"
                return

    def _committed(self, node: SimNode, number: int) -> list[tuple[int, bytes]]:
        """Return the committed records of a partition, as a client sees them."""
        conn = self.groups.conn()
        at = 0
        found: list[tuple[int, bytes]] = []
        while True:
            request = node.fetch_request(
                TOPIC, at, partition=number, isolation_level=READ_COMMITTED, max_wait_ms=0
            )
            node.ask(request, FETCH, conn)
            answer = None
            for _ in range(200):
                node.turn()  # nobody else moves: what is read is of one moment
                answer = node.receive(1, FETCH, conn)
                if answer is not None:
                    break
            if answer is None:
                return found
            row: Message = answer[1].responses[0].partitions[0]
            if row.error_code:
                return found
            records, at = _visible(row, at)
            found += records
            if at >= row.last_stable_offset:
                return found

    # --- coordinators ---

    def _check_coordinators(self) -> None:
        """A coordinator's state is what its log says (T1)."""
        for host in self._hosts():
            partition = host.partition
            if partition.log.committed_offset != partition.log.next_offset:
                continue
            latest = partition.latest
            assert latest is not None
            again = TransactionCoordinator(host.coordinator.settings)
            for key, value in latest.items.items():
                again.replay(transaction_records.decode(key, value))
            assert again._transactions == host.coordinator._transactions, "T1"

    def _hosts(self) -> list[TransactionHost]:
        return [
            host
            for node in self.cluster.up()
            for host in node.shard.groups.hosts.transactions.values()
            if host.serves
        ]

    # --- the end ---

    def _heal(self) -> None:
        self.tellers = []  # all clients die
        self.weather.calm()
        self._wait()
        if self.chance.random() < 0.5:
            for number in NODES:  # what was checkpointed, and what the log says, is all there is
                self.cluster.kill(number)
            for number in NODES:
                self.cluster.revive(number)
            self._wait()

    def _wait(self) -> None:
        """Until nothing has been open for a while: what clients had sent may still take effect."""
        end_ms = self.cluster.now_ms + HEAL_MS
        closed_count = 0
        while closed_count < CLOSED_LOOKS and self.cluster.now_ms < end_ms:
            self.cluster.go(500)
            closed_count = 0 if self._is_open() else closed_count + 1

    def _is_open(self) -> bool:
        """Whether something may still come: a leader, an end, a marker."""
        numbers = range(PARTITIONS)
        groups = [self.groups.partition(number) for number in numbers]
        for number in range(COORDINATORS):
            groups += [self.groups.of(OFFSETS_TOPIC, number)]
            groups += [self.groups.of(TRANSACTIONS_TOPIC, number)]
        if len(self._hosts()) < COORDINATORS:
            return True
        for group in groups:
            leaders = self.cluster.leaders(group)
            if len(leaders) != 1:
                return True
            member = leaders[0].members[group]
            assert isinstance(member, Partition)
            if member.last_stable_offset != member.log.next_offset:
                return True
        return any(
            known.is_ongoing or known.is_prepared
            for host in self._hosts()
            for known in host.coordinator._transactions.values()
        )

    def _compare(self) -> set[int]:
        cluster = self.cluster
        self._check_coordinators()
        for host in self._hosts():
            for name, known in host.coordinator._transactions.items():
                is_open = known.is_ongoing or known.is_prepared
                assert not is_open, f"{name} is {STATE_NAMES[known.state]} for ever"
        seen: dict[int, list[bytes]] = {}
        for number in range(PARTITIONS):
            (node,) = cluster.leaders(self.groups.partition(number))
            member = node.members[self.groups.partition(number)]
            assert isinstance(member, Partition)
            assert member.last_stable_offset == member.log.committed_offset, (
                f"partition {number} is blocked at {member.last_stable_offset}"
            )
            records = self.weather.read(TOPIC, self.groups.partition(number), number)
            there = dict(truth(records))
            found = dict(self._committed(node, number))
            assert found == there, f"readers of partition {number} see {found}, not {there}"
            for (partition, offset), value in self._seen.items():
                if partition == number:
                    assert there.get(offset) == value, f"{value!r} was read and is gone"
            for value in there.values():
                seen.setdefault(_number_of(value), []).append(value)
        for number, fate in self.ledger.fates.items():
            values = sorted(seen.get(number, []))
            both = sorted((b"<%d:debit>" % number, b"<%d:credit>" % number))
            assert values in ([], both), f"of transaction {number} there is {values}"
            if fate is Fate.COMMITTED:
                assert values, f"transaction {number} is lost"
            if fate is Fate.OPEN:
                assert not values, f"transaction {number} was never to be committed"
        self._compare_offsets(set(seen))
        return set(seen)

    def _compare_offsets(self, seen: set[int]) -> None:
        """Offsets of a group are those of a transaction that is there as a whole."""
        for name, numbers in self.ledger.offsets.items():
            (node,) = self.cluster.leaders(self.groups.offsets(group_of(name)))
            request = _offset_request(name, is_stable=True)
            answer = self.cluster.call(node, request, OFFSET_FETCH, conn=self.groups.conn())
            row = answer.topics[0].partitions[0]
            assert row.error_code == 0, f"the offsets of {name} are not stable: {row.error_code}"
            known = [number for number in numbers if number in seen]
            last = max(known, default=-1)
            assert row.committed_offset == last, (
                f"{name} has read to {row.committed_offset}, its last transaction is {last}"
            )


def _offset_request(name: str, *, is_stable: bool) -> Message:
    topic = FetchTopic(name=TOPIC, partition_indexes=[index_of(name)])
    return OffsetFetch(group_id=group_of(name), topics=[topic], require_stable=is_stable)


def truth(records: bytes) -> list[tuple[int, bytes]]:
    """Return what a partition's markers, in the order of the log, say is committed."""
    open_records: dict[int, list[tuple[int, bytes]]] = {}
    found: list[tuple[int, bytes]] = []
    for batch in split_batches(records):
        made = batch_records(batch, TOPIC, 0)
        if batch.is_control:
            ended = open_records.pop(batch.producer.producer_id, [])
            found += ended if (made[0].key or b"")[3] else []
        elif batch.is_transactional:
            rows = open_records.setdefault(batch.producer.producer_id, [])
            rows += [(each.offset, each.value or b"") for each in made]
    assert not open_records, f"records of producers {[*open_records]} have no marker"
    return sorted(found)


def _visible(row: Message, at: int) -> tuple[list[tuple[int, bytes]], int]:
    """Return what a reader of committed records gives to its user, and where it goes on."""
    aborted = sorted(
        ((each.first_offset, each.producer_id) for each in row.aborted_transactions or ()),
        reverse=True,
    )
    ignored: set[int] = set()
    found: list[tuple[int, bytes]] = []
    for batch in split_batches(bytes(row.records or b"")):
        while aborted and aborted[-1][0] <= batch.last_offset:
            ignored.add(aborted.pop()[1])
        at = batch.last_offset + 1
        producer_id = batch.producer.producer_id
        if batch.is_control:
            ignored.discard(producer_id)
        elif not (batch.is_transactional and producer_id in ignored):
            records = batch_records(batch, TOPIC, 0)
            found.extend((each.offset, each.value or b"") for each in records)
    return found, at


def _number_of(value: bytes) -> int:
    return int(value[1 : value.index(b":")])


def main() -> None:
    """Run storms from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    struck: Counter[tuple[str, str]] = Counter()
    for seed in range(options.seed, options.seed + options.count):
        began_s = time.process_time()
        storm = TransactionStorm(seed, options.steps)
        try:
            said = storm.run()
        except Exception:
            command = "python -m tests.simulation.transaction_storm"
            print(f"{command} --seed {seed} --count 1 --steps {options.steps}", flush=True)
            raise
        struck += storm.strikes.counts
        print(f"seed {seed}: {said}, {time.process_time() - began_s:.1f} s", flush=True)
    for (step, victim), count in sorted(struck.items()):
        print(f"{step}: {victim} struck {count} times")


if __name__ == "__main__":
    main()
