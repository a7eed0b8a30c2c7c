"""Many clients that join, crash, leave and commit at random, and a coordinator that is lost."""

import random

import pytest

from corelane.groups.classic_group import State
from corelane.groups.coordinator import GroupRecord
from corelane.groups.records import GenerationRecord, OffsetRecord
from corelane.groups.requests import Beat, Identity, Joined, Simple, Sync, Synced
from corelane.model.errors import ErrorCode
from corelane.shard import group_host
from tests.unit.groups.classic_bench import GROUP, Bench

STEPS = 400
PARTITIONS = 6


class Client:
    """A consumer as clients are: it does what it is told, or crashes."""

    def __init__(self, bench: Bench, chance: random.Random, instance: str | None) -> None:
        self.bench = bench
        self.chance = chance
        self.instance = instance
        self.member_id = ""
        self.joined: Joined | None = None
        self.assignment: set[int] = set()
        self.join_token = self.sync_token = 0
        self.is_alive = True

    def step(self) -> None:
        """Do the next thing."""
        answers = self.bench.answers
        if self.join_token:
            if self.join_token in answers:
                token, self.join_token = self.join_token, 0
                self._was_joined(self.bench.joined(token))
        elif self.sync_token:
            if self.sync_token in answers:
                token, self.sync_token = self.sync_token, 0
                self._was_synced(self.bench.synced(token))
        elif self.joined is None:
            self.join()
        else:
            self._beat(self.joined)

    def join(self) -> None:
        self.assignment = set()
        protocols = (("range", self.chance.choice((b"a", b"a", b"b"))),)
        version = self.chance.choice((3, 4, 9))
        self.join_token = self.bench.join(
            self.member_id, instance=self.instance, protocols=protocols, version=version
        )

    def _was_joined(self, answer: Joined) -> None:
        if answer.error is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
            return
        if answer.error is not ErrorCode.NONE:
            self.forget()
            return
        self.member_id, self.joined = answer.member_id, answer
        assignments: dict[str, bytes] = {}
        for number in range(PARTITIONS if answer.members and not answer.skip_assignment else 0):
            owner = answer.members[number % len(answer.members)][0]
            assignments[owner] = assignments.get(owner, b"") + bytes((number,))
        identity = Identity(GROUP, answer.generation_id, self.member_id, self.instance)
        self.sync_token = self.bench.ask(Sync(identity, None, None, tuple(assignments.items())))

    def _was_synced(self, answer: Synced) -> None:
        if answer.error is ErrorCode.NONE:
            self.assignment = set(answer.assignment)
        elif answer.error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.joined = None
        else:
            self.forget()

    def _beat(self, joined: Joined) -> None:
        identity = Identity(GROUP, joined.generation_id, self.member_id, self.instance)
        answer = self.bench.answers[self.bench.ask(Beat(identity))]
        assert isinstance(answer, Simple)
        if answer.error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.join()
        elif answer.error is not ErrorCode.NONE:
            self.forget()
        elif self.chance.random() < 0.3:
            self.bench.commit(self.bench.tokens, joined, place=("t", self.chance.randrange(3)))

    def forget(self) -> None:
        """Be nobody again."""
        self.member_id, self.joined, self.assignment = "", None, set()
        self.join_token = self.sync_token = 0

    def coordinator_lost(self) -> None:
        """What was asked is never answered: ask again."""
        self.join_token = self.sync_token = 0
        if self.joined is not None and not self.assignment:
            self.joined = None


def durable(bench: Bench) -> dict[object, object]:
    """Return what a restart would find."""
    found: dict[object, object] = {}
    for each in bench.log:
        match each:
            case OffsetRecord():
                found[each.group, each.topic, each.partition] = each.value
            case GenerationRecord():
                found[each.group] = each.value
    return {key: value for key, value in found.items() if value is not None}


def live(bench: Bench) -> dict[object, object]:
    """Return the same, as the coordinator has it."""
    found: dict[object, object] = {}
    for each in bench.coordinator.live_records():
        match each:
            case OffsetRecord():
                found[each.group, each.topic, each.partition] = each.value
            case GenerationRecord():
                found[each.group] = each.value
    return found


def recoded(log: list[GroupRecord]) -> list[GroupRecord]:
    """Return a log as it comes back from its bytes."""
    found = [group_host.decode(*group_host.encode(each)) for each in log]
    assert found == log
    return [each for each in found if each is not None]


@pytest.mark.parametrize("seed", range(30))
def test_a_group_survives_its_members_and_its_coordinators(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(delay_ms=chance.choice((0, 3_000)))
    clients = [
        Client(bench, chance, f"i{number}" if chance.random() < 0.3 else None)
        for number in range(chance.randint(1, 6))
    ]
    generation = 0
    for _ in range(STEPS):
        dice = chance.random()
        client = chance.choice(clients)
        if dice < 0.02:
            bench.restart()
            for each in clients:
                each.coordinator_lost()
        elif dice < 0.05:
            client.is_alive = not client.is_alive
            client.forget()
        elif dice < 0.07 and client.member_id and client.joined is not None:
            bench.leave((client.member_id, client.instance))
            client.forget()
        elif client.is_alive:
            client.step()
        if dice > 0.6:
            bench.pass_ms(chance.choice((10, 100, 1_000, 9_000)))
        check(bench, clients, seed)
        group = bench.coordinator.groups.get(GROUP)
        if group is not None and group.stored_value is not None:
            stored = group.stored_value.generation_id
            assert stored >= generation, f"seed {seed}: the generation went back"
            generation = stored
    settle(bench, clients, seed)


def check(bench: Bench, clients: list[Client], seed: int) -> None:
    """What must hold at any time."""
    bench.log = recoded(bench.log)
    assert live(bench) == durable(bench), f"seed {seed}"
    by_generation: dict[int, set[int]] = {}
    for client in clients:
        if client.joined is None or not client.assignment:
            continue
        owned = by_generation.setdefault(client.joined.generation_id, set())
        assert not owned & client.assignment, f"seed {seed}: two members read one partition"
        owned |= client.assignment
    group = bench.coordinator.groups.get(GROUP)
    if group is not None and group.state in {State.STABLE, State.COMPLETING}:
        assert group.leader in group.members, "C2"


def settle(bench: Bench, clients: list[Client], seed: int) -> None:
    """Left in peace, everybody who lives is in one generation, and all is read."""
    for _ in range(200):
        for client in clients:
            if client.is_alive:
                client.step()
        bench.pass_ms(1_000)
    alive = [client for client in clients if client.is_alive]
    if not alive:
        return
    generations = {client.joined.generation_id for client in alive if client.joined is not None}
    assert len(generations) == 1, f"seed {seed}: {generations}"
    group = bench.coordinator.groups[GROUP]
    assert group.state is State.STABLE
    assert set(group.members) == {client.member_id for client in alive}, f"seed {seed}"
    read = [number for client in alive for number in client.assignment]
    assert sorted(read) == [*range(PARTITIONS)], f"seed {seed}: {read}"
