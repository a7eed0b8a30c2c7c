"""Storms over three nodes: deaths, pauses, cut networks, hand-overs and trims under load.

`python -m tests.simulation.cluster_storm --seed N --count M`. Checked after every step: one leader
per group and term, and that nobody commits another entry where one was committed. At the end it
heals: every group must be led, all replicas be equal, every acknowledged record be there.
"""

import argparse

from corelane.model.ids import MemberId, Offset
from corelane.model.record import record
from corelane.raft.events import TransferLeadership
from corelane.shard.member import Member
from corelane.shard.partition import Partition
from corelane.wire.batch import whole_batches
from corelane.wire.compiler import Message
from corelane.wire.records import Producer
from tests.simulation import storm_commits
from tests.simulation.cluster import NODES, Cluster, SimNode
from tests.simulation.storm_commits import Commits
from tests.simulation.storm_transactions import COORDINATORS, Transactions
from tests.unit.api.world import batch_of, produce_request

PARTITIONS = 4
STEPS = 400
SEGMENT_BYTES = 4_096
RECORD_BYTES = 900
FIRST_ID = 1 << 40
"""Of the producers of single records: far from the ids that the cluster gives to others."""
PRODUCE = 9
FETCH = 12
HEAL_MS = 14_000
FIRST_OF_TRANSACTIONS = PARTITIONS + 1 + storm_commits.PARTITIONS
"""The first raft group of their coordinators' partitions."""


@record
class Pending:
    """A produce request under way."""

    node: SimNode
    boot: int
    conn: int
    partition: int
    value: bytes
    number: int
    """Also of its producer: each record has one of its own."""


class Storm:
    """One storm."""

    numbers: tuple[int, ...] = NODES
    steps = STEPS

    def __init__(self, seed: int, settings: str = "") -> None:
        self.cluster = Cluster(seed, self.check, settings, numbers=self.numbers)
        self.chance = self.cluster.chance
        self.led: dict[tuple[int, int], int] = {}
        self.committed: dict[tuple[int, int], int] = {}
        self.highest: dict[int, tuple[int, int]] = {}
        """Of each group: the newest term that was led, and how much was ever committed."""
        self.commits: dict[tuple[int, int, int, int, int], int] = {}
        self.commits_of_groups = Commits(self.cluster, PARTITIONS + 1)
        self.transactions = Transactions(self.cluster, PARTITIONS, FIRST_OF_TRANSACTIONS)
        self.pending: list[Pending] = []
        self.acknowledged: list[tuple[int, bytes, int]] = []
        """Partition, value and offset."""
        self.count = self.conns = 0

    def check(self) -> None:
        """Look at all members (multiraft.md E)."""
        for node in self.cluster.up():
            for group, member in node.members.items():
                self.look(node, group, member)

    def look(self, node: SimNode, group: int, member: Member) -> None:
        """Look at one member."""
        raft, log = member.raft, member.log
        if raft.is_leader:
            leader = self.led.setdefault((group, raft.term), node.number)
            assert leader == node.number, f"two leaders of group {group} in {raft.term}"
        index = log.committed_index
        term, committed = self.highest.get(group, (0, 0))
        term = max(term, raft.term if raft.is_leader else 0)
        if member.serves and raft.term == term:
            assert index >= committed, f"group {group} is served without all of it"
        self.highest[group] = (term, max(index, committed))
        known = max(raft.durable_index, log.first_index - 1)
        assert index <= known, "committed before it is durable here"
        life = (node.number, node.boot, log.descriptor.incarnation)
        key = (*life, group, log.renewed_lsn)  # repairs go back
        assert index >= self.commits.get(key, 0), "a commit went back"
        self.commits[key] = index
        if isinstance(member, Partition):
            self.transactions.check(node, group, member)
        if index >= log.first_index:
            term = self.committed.setdefault((group, index), log.term_at(index))
            assert term == log.term_at(index), f"group {group} committed {index} twice"

    def run(self) -> str:
        """Rage, heal, compare; return a line about it."""
        cluster = self.cluster
        cluster.form()
        node = cluster.nodes[self.chance.choice(self.numbers)]
        cluster.create_topic(node, "t", PARTITIONS, segment_bytes=SEGMENT_BYTES)
        self.commits_of_groups = Commits(cluster, PARTITIONS + 1)
        self.commits_of_groups.create(node)
        self.transactions = Transactions(cluster, PARTITIONS, FIRST_OF_TRANSACTIONS)
        self.transactions.create(node)
        for _ in range(self.steps):
            cluster.go(self.chance.choice((1, 5, 20, 100, 300)))
            self._strike(self.chance.random())
            self._collect()
        self._heal()
        self._compare()
        terms = max(term for _group, term in self.led)
        installed = sum(
            member.log.life for node in cluster.up() for member in node.members.values()
        )
        return (
            f"{len(self.acknowledged)} acknowledged, "
            f"{sum(self.commits_of_groups.acknowledged.values())} commits, "
            f"{self.transactions.told_count} of {len(self.transactions.fates)} transactions "
            f"committed, highest term {terms}, "
            f"{installed} logs begun anew"
        )

    def _strike(self, dice: float) -> None:
        pair = self.chance.sample(self.numbers, 2)
        if dice < 0.30:
            self.strike_nodes(dice, pair)
        elif dice < 0.36:
            self._trim(self.chance.randrange(PARTITIONS))
        elif dice < 0.50:
            self.commits_of_groups.send()
        else:
            self._produce(self.chance.randrange(PARTITIONS))

    def strike_nodes(self, dice: float, pair: list[int]) -> None:
        """Do something to the nodes, or what is between a pair; nothing from 0.3 on."""
        cluster, chance = self.cluster, self.chance
        up = cluster.up()
        if dice < 0.04 and len(up) == len(self.numbers):
            cluster.kill(chance.choice(up).number)
        elif dice < 0.12:
            for number in self.numbers:
                if not cluster.nodes[number].is_up:
                    cluster.revive(number)
                    break
        elif dice < 0.15:
            cluster.cut.add((pair[0], pair[1]))
        elif dice < 0.17:
            cluster.cut |= {(pair[0], pair[1]), (pair[1], pair[0])}
        elif dice < 0.25:
            cluster.cut.clear()
        elif dice < 0.27:
            chance.choice(up).paused_until_ms = cluster.now_ms + chance.choice((200, 1_500, 4_000))
        elif dice < 0.30:
            self._hand_over(chance.choice(up), pair)

    def hand_over(self, node: SimNode, others: list[int], group: int) -> None:
        """Have a leader give one group to another node."""
        member = node.members[group]
        target = MemberId(self.chance.choice(others))
        member.step(node.shard.now_ms, TransferLeadership(target))

    def _hand_over(self, node: SimNode, pair: list[int]) -> None:
        led = [member for member in node.members.values() if member.raft.is_leader]
        if led:
            target = pair[0] if pair[0] != node.number else pair[1]
            member = self.chance.choice(led)
            member.step(node.shard.now_ms, TransferLeadership(MemberId(target)))

    def _trim(self, partition: int) -> None:
        """Delete records: who is away may need a snapshot later."""
        for node in self.cluster.leaders(partition + 1)[:1]:
            member = node.members[partition + 1]
            assert isinstance(member, Partition)
            start = member.log.committed_offset
            if start > max(member.log.start_offset, member.trim_offset):
                member.propose_start(start)
        for node in self.cluster.up():
            replica = node.members.get(partition + 1)
            if replica is not None and self.chance.random() < 0.7:
                replica.log.want_flush()  # as a checkpoint does

    def _produce(self, partition: int) -> None:
        for node in self.cluster.leaders(partition + 1)[:1]:
            self.count += 1
            self._send(node, partition, self.count)

    def _send(self, node: SimNode, partition: int, number: int) -> None:
        value = (b"<%d>" % number).ljust(RECORD_BYTES, b".")
        batch = batch_of(value=value, producer=Producer(FIRST_ID + number, 0, 0))
        message = produce_request("t", batch, partition=partition)
        self.conns += 1
        conn = 100 + self.conns
        node.ask(message, PRODUCE, conn)
        self.pending.append(Pending(node, node.boot, conn, partition, value, number))

    def _collect(self) -> None:
        self.commits_of_groups.collect()
        self.transactions.step()
        waiting, self.pending = self.pending, []
        for each in waiting:
            answer = each.node.receive(0, PRODUCE, each.conn) if each.node.is_up else None
            if each.node.boot != each.boot or not each.node.is_up:
                self._again(each)  # nobody knows what became of it
                continue
            if answer is None:
                self.pending.append(each)
            elif answer[1].responses[0].partition_responses[0].error_code == 0:
                row = answer[1].responses[0].partition_responses[0]
                self.acknowledged.append((each.partition, each.value, row.base_offset))
            else:
                self._again(each)

    def _again(self, former: Pending) -> None:
        """Send a record again, as producers do: it must be there once."""
        for node in self.cluster.leaders(former.partition + 1)[:1]:
            self._send(node, former.partition, former.number)

    def _heal(self) -> None:
        self.calm()
        self.cluster.go(HEAL_MS)

    def calm(self) -> None:
        """Let every node live, and speak with all others."""
        cluster = self.cluster
        cluster.cut.clear()
        for node in cluster.nodes.values():
            node.paused_until_ms = 0
            if not node.is_up:
                cluster.revive(node.number)

    def _compare(self) -> None:
        cluster = self.cluster
        for group in range(FIRST_OF_TRANSACTIONS + COORDINATORS):
            assert len(cluster.leaders(group)) == 1, f"group {group} has no leader"
            members = [node.members[group] for node in self.homes(group)]
            ends = {(member.log.last_index, member.log.committed_index) for member in members}
            assert len(ends) == 1, f"replicas of group {group} end at {ends}"
        self.commits_of_groups.compare()
        self.transactions.compare()
        folds = {node.shard.groups.cluster.encode() for node in cluster.nodes.values()}
        assert len(folds) == 1, "nodes know different clusters"
        for partition in range(PARTITIONS):
            records = self.read("t", partition + 1, partition)
            start = cluster.leaders(partition + 1)[0].members[partition + 1].log.start_offset
            for at, value, offset in self.acknowledged:
                if at == partition and offset >= start:
                    assert value in records, f"{value!r} of partition {at} is lost"
                    assert records.count(value) == 1, f"{value!r} of partition {at} is doubled"

    def homes(self, group: int) -> list[SimNode]:
        """Return the nodes that should have a group: all of three."""
        del group
        return [*self.cluster.nodes.values()]

    def read(self, topic: str, group: int, partition: int) -> bytes:
        """Return all that a partition has; one answer ends where a segment does."""
        node = self.cluster.leaders(group)[0]
        at, found, high_watermark = node.members[group].log.start_offset, b"", 1 << 62
        while at < high_watermark:
            request = node.fetch_request(
                topic, at, partition=partition, partition_max_bytes=1 << 22
            )
            answer: Message = self.cluster.call(node, request, FETCH, conn=3)
            row = answer.responses[0].partitions[0]
            assert row.error_code == 0
            high_watermark = row.high_watermark
            assert row.records or at == high_watermark, f"nothing at {at} of partition {partition}"
            records = bytes(row.records or b"")
            for _position, batch in whole_batches(records, len(records)):
                at = Offset(batch.base_offset + batch.record_count)
            found += records
        return found


def main(kind: type[Storm] = Storm, name: str = "cluster_storm") -> None:
    """Run storms from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.count):
        try:
            print(f"seed {seed}: {kind(seed).run()}", flush=True)
        except Exception:
            print(f"python -m tests.simulation.{name} --seed {seed} --count 1", flush=True)
            raise


if __name__ == "__main__":
    main()
