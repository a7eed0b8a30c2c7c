"""Transactions where everything is lost, late, twice or dead: one fate each, and nothing is left.

At the end every record has one fate, the same in all partitions, and the one that its producer was
told. The world checks on its way that decisions stand and are durable before any marker, that what
is stable never goes back, and that every state is what its log gives. A failure names the seed.
"""

import pytest

from corelane.model import limits
from tests.unit.producers.transaction_nodes import Value
from tests.unit.producers.transaction_world import World


def check_fates(world: World) -> dict[int, bool]:
    """Return what became of each transaction: one thing, in all partitions alike."""
    fates: dict[int, bool] = {}
    for partition in world.partitions:
        open_by: dict[int, list[Value]] = {}
        ended: set[int] = set()
        values = [entry.value for entry in partition.entries if entry.value is not None]
        assert len(values) == len(set(values)), "nothing is written twice"
        for entry in partition.entries:
            if entry.value is not None:
                assert entry.value[0] not in ended, "nothing joins a transaction that is over"
                open_by.setdefault(entry.producer_id, []).append(entry.value)
                continue
            group = open_by.pop(entry.producer_id, None)
            if group is None:
                continue  # a marker that came again, or nothing of it was ever written here
            (transaction,) = {value[0] for value in group}
            ended.add(transaction)
            fate = fates.setdefault(transaction, entry.is_commit)
            assert fate == entry.is_commit, f"transaction {transaction} is torn"
        assert not open_by, "nothing is open for ever"
        seen = [value for value in values if fates[value[0]]]
        assert partition.seen == seen, "readers saw what was committed, in order, once"
    return fates


def check(world: World) -> dict[int, bool]:
    fates = check_fates(world)
    everything = {e.value for partition in world.partitions for e in partition.entries}
    for transaction, fate in fates.items():
        assert not fate or transaction in world.asked_commit
        assert fate or transaction not in world.told_commit
    for value in world.acknowledged:
        if value[0] in world.told_commit:
            assert value in everything, "what was acknowledged and committed is there"
    for node in world.coordinators:
        node.check_replay()
        assert node.live.undelivered_count == 0
        assert len(node.live) == 0, "unused ids are forgotten in the end"
    assert world.has_relics or not world.pushed_count, "where all markers arrive, no push is needed"
    return fates


@pytest.mark.parametrize("epoch_max", [limits.PRODUCER_EPOCH_MAX, 3])
def test_every_transaction_has_one_fate_whatever_is_lost_late_twice_or_dead(
    epoch_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so few epochs that producer ids change all the time, too."""
    monkeypatch.setattr(limits, "PRODUCER_EPOCH_MAX", epoch_max)
    fates: list[bool] = []
    for seed in range(12):
        world = World(seed)
        try:
            world.run()
            fates += check(world).values()
        except BaseException:
            print(f"seed {seed} with {epoch_max} epochs")
            raise
    assert fates.count(True) > 100
    assert fates.count(False) > 100


def test_relics_that_no_coordinator_knows_of_hold_up_no_reader_for_ever() -> None:
    """Anomaly 15 (KIP-664): the partition asks, the coordinator fences and says abort."""
    pushed_count = 0
    for seed in range(6):
        world = World(seed, has_relics=True)
        try:
            world.run()
            fates = check(world)
        except BaseException:
            print(f"seed {seed}")
            raise
        assert not any(fate for transaction, fate in fates.items() if transaction < 0)
        pushed_count += world.pushed_count
        assert any(transaction < 0 for transaction in fates)
    assert pushed_count > 0
