"""Storms over three nodes with transactions: coordinators, leaders and producers die at any step.

`python -m tests.simulation.transaction_storm --seed N --count M`. Readers of committed records look
at any time; nobody may see a record whose commit was not asked for, nor half of a transaction in
the end, nor may anything stay open (multiraft.md D and E).
"""

import argparse

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
from tests.simulation.storm_tellers import (
    COORDINATORS,
    PARTITIONS,
    TIMEOUT_MS,
    TOPIC,
    Fate,
    Groups,
    Ledger,
    Teller,
)
from tests.unit.api.txn import Fetch as OffsetFetch
from tests.unit.api.txn import FetchTopic

NAMES = ("ann", "bob", "cid", "dot")
STEPS = 400
FETCH = 12
READ_COMMITTED = 1
HEAL_MS = 14_000


class TransactionStorm:
    """One storm; its weather is that of `cluster_storm`."""

    def __init__(self, seed: int, steps: int = STEPS) -> None:
        self._steps = steps
        self.weather = Storm(seed)
        self.cluster: Cluster = self.weather.cluster
        self.chance = self.cluster.chance
        self.ledger = Ledger()
        self.groups = Groups(self.cluster)
        self.tellers: list[Teller] = []
        self.reads = 0

    def run(self) -> str:
        """Rage, heal, compare; return a line about it."""
        cluster, chance = self.cluster, self.chance
        cluster.form()
        node = cluster.nodes[chance.choice(NODES)]
        cluster.create_topic(node, TOPIC, PARTITIONS)
        cluster.create_topic(node, TRANSACTIONS_TOPIC, COORDINATORS)
        cluster.create_topic(node, OFFSETS_TOPIC, COORDINATORS)
        for _ in range(self._steps):
            for _ in range(chance.choice((1, 3, 10))):
                cluster.go(chance.choice((1, 5, 20, 60)))
                self._serve()
            self._strike(chance.random())
        self._heal()
        seen = self._compare()
        committed = sum(fate is Fate.COMMITTED for fate in self.ledger.fates.values())
        return (
            f"{len(self.ledger.fates)} transactions, {committed} known to be committed,"
            f" {len(seen)} seen, {self.reads} reads, errors {sum(self.ledger.errors.values())}"
        )

    def _serve(self) -> None:
        for teller in self.tellers:
            teller.turn()
        self.tellers = [teller for teller in self.tellers if not teller.is_over]
        living = {teller.name for teller in self.tellers}
        for name in NAMES:
            if name not in living:
                self.tellers.append(Teller(self.cluster, self.ledger, name, self.groups))

    def _strike(self, dice: float) -> None:
        chance, cluster = self.chance, self.cluster
        if dice < 0.04:  # thought dead: another life begins, and this one may go on
            teller = chance.choice(self.tellers)
            self.tellers.append(Teller(cluster, self.ledger, teller.name, self.groups))
            if chance.random() < 0.5:
                self.tellers.remove(teller)
        elif dice < 0.10:
            self._look()
        elif dice < 0.16:
            self._check_coordinators()
        elif dice < 0.60:
            self.weather.strike_nodes(chance.random(), chance.sample(NODES, 2))

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
            for _offset, value in self._committed(node, number):
                transaction = _number_of(value)
                fate = self.ledger.fates[transaction]
                assert fate is not Fate.OPEN, f"{value!r} is read, but was never to be committed"

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
        self.cluster.go(HEAL_MS + 2 * TIMEOUT_MS)

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
            for _offset, value in truth(records):
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
            (node,) = self.cluster.leaders(self.groups.offsets(name))
            topic = FetchTopic(name=TOPIC, partition_indexes=[0])
            request = OffsetFetch(group_id=name, topics=[topic], require_stable=True)
            answer = self.cluster.call(node, request, 7, conn=self.groups.conn())
            row = answer.topics[0].partitions[0]
            assert row.error_code == 0, f"the offsets of {name} are not stable: {row.error_code}"
            known = [number for number in numbers if number in seen]
            last = max(known, default=-1)
            assert row.committed_offset == last, (
                f"{name} has read to {row.committed_offset}, its last transaction is {last}"
            )


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
    for seed in range(options.seed, options.seed + options.count):
        try:
            print(f"seed {seed}: {TransactionStorm(seed, options.steps).run()}", flush=True)
        except Exception:
            command = "python -m tests.simulation.transaction_storm"
            print(f"{command} --seed {seed} --count 1 --steps {options.steps}", flush=True)
            raise


if __name__ == "__main__":
    main()
