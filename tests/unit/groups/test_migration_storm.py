"""Clients of both protocols against one name, from a seed: the group goes up and down under them.

Classic ones (eager or cooperative, one kind a storm) and new ones start, crash, leave, come back by
the other protocol; answers are lost; the coordinator dies before or after its batch is committed.
Whatever happens, no two members that the group knows read one partition, the log says the state,
and left in peace everybody who lives has a share and all is read once.

    MIGRATION_STORM_SEEDS=1000 python -m pytest tests/unit/groups/test_migration_storm.py
"""

import os
import random
from collections.abc import Iterable

import pytest

from corelane.groups.classic_group import State
from corelane.groups.consumer_requests import ConsumerHeartbeatAnswer
from corelane.groups.coordinator import GroupRecord
from corelane.groups.requests import (
    Answer,
    Beat,
    ConsumerBeat,
    Identity,
    Join,
    Joined,
    Leave,
    Request,
    Simple,
    Sync,
    Synced,
)
from corelane.model.errors import ErrorCode
from corelane.shard import group_host
from tests.unit.groups.classic_bench import GROUP, REBALANCE_MS, SESSION_MS, Bench
from tests.unit.groups.consumer_bytes import Place, assigned, assignment, subscription
from tests.unit.groups.consumer_world import heartbeat, joining, topic_id

SEEDS = int(os.environ.get("MIGRATION_STORM_SEEDS", "5"))
STEPS = 300
PARTITIONS = 6
ALL = frozenset(("t", number) for number in range(PARTITIONS))


def folded(records: Iterable[GroupRecord]) -> dict[bytes, bytes]:
    """Return the latest value of each key, as their bytes."""
    found: dict[bytes, bytes] = {}
    for each in records:
        key, value = group_host.encode(each)
        assert group_host.decode(key, value) == each
        found.pop(key, None)
        if value is not None:
            found[key] = value
    return found


class Client:
    """What clients of both protocols have in common."""

    def __init__(self, storm: "Storm", name: str, instance: str | None) -> None:
        self.storm = storm
        self.name = name
        self.instance = instance
        self.member_id = ""
        self.epoch = 0
        self.owned: frozenset[Place] = frozenset()
        self.is_out = False
        """It was thrown out since it was last told what to read, and may not know yet."""

    def step(self) -> None:
        """Do the next thing."""
        raise NotImplementedError

    def leave(self) -> None:
        """Say good-bye."""
        raise NotImplementedError

    def lost(self) -> None:
        """Hear that the coordinator is another one."""


class Classic(Client):
    """A client of the classic protocol, eager or cooperative, with the assignor of clients."""

    joined: Joined | None = None
    join_token = 0
    sync_token = 0

    def step(self) -> None:
        answers = self.storm.bench.answers
        if self.join_token:
            if self.join_token in answers:
                token, self.join_token = self.join_token, 0
                self._was_joined(answers[token])
        elif self.sync_token:
            if self.sync_token in answers:
                token, self.sync_token = self.sync_token, 0
                self._was_synced(answers[token])
        elif self.joined is None:
            self._join()
        else:
            self._beat(self.joined)

    def _join(self) -> None:
        storm = self.storm
        if not storm.is_cooperative:
            self.owned = frozenset()
        said = subscription("t", owned=self.owned, version=storm.dice.choice((1, 2, 3)))
        name = "cooperative-sticky" if storm.is_cooperative else "range"
        version = storm.dice.choice((3, 4, 9))
        wish = Join(
            GROUP, self.member_id, storm.new_id(), self.instance, "c", "/h", SESSION_MS,
            REBALANCE_MS, "consumer", ((name, said),), version >= 4, version >= 9,
        )  # fmt: skip
        self.join_token = storm.ask(wish)

    def _was_joined(self, answer: Answer) -> None:
        assert isinstance(answer, Joined)
        if answer.error is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
        elif answer.error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.joined = None
        elif answer.error is not ErrorCode.NONE:
            self.forget()
        else:
            self.member_id, self.joined = answer.member_id, answer
            self.epoch = answer.generation_id
            assigns = bool(answer.members) and not answer.skip_assignment
            shares = self._shares(answer) if assigns else {}
            wish = Sync(self._me(), None, None, tuple(shares.items()))
            self.sync_token = self.storm.ask(wish)

    def _shares(self, answer: Joined) -> dict[str, bytes]:
        """Assign as clients do: nobody gets what another one has yet to give back."""
        rows = sorted(answer.members)
        has = {member: _owned(said) for member, _instance, said in rows}
        shares: dict[str, list[Place]] = {member: [] for member in has}
        for number, place in enumerate(sorted(ALL)):
            taker = rows[number % len(rows)][0]
            if all(place not in had for member, had in has.items() if member != taker):
                shares[taker].append(place)
        return {member: assignment(share) for member, share in shares.items()}

    def _was_synced(self, answer: Answer) -> None:
        assert isinstance(answer, Synced)
        if answer.error is ErrorCode.NONE:
            given = frozenset(assigned(answer.assignment))
            gives_back = self.owned - given
            self.owned, self.is_out = given, False
            if gives_back:
                self.joined = None  # a cooperative member joins again then
        elif answer.error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.joined = None
        else:
            self.forget()

    def _beat(self, joined: Joined) -> None:
        token = self.storm.ask(Beat(self._me()))
        answer = self.storm.bench.answers.get(token)
        if answer is None:
            return
        assert isinstance(answer, Simple)
        if answer.error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.joined = None
        elif answer.error is not ErrorCode.NONE:
            self.forget()
        elif self.storm.dice.random() < 0.3:
            error = self.storm.bench.commit(self.storm.bench.tokens, joined)
            assert self.instance is not None or error in {
                ErrorCode.NONE,
                ErrorCode.REBALANCE_IN_PROGRESS,
            }

    def _me(self) -> Identity:
        return Identity(GROUP, self.epoch, self.member_id, self.instance)

    def forget(self) -> None:
        """Be nobody again."""
        self.member_id, self.joined, self.owned, self.epoch = "", None, frozenset(), 0
        self.join_token = self.sync_token = 0

    def leave(self) -> None:
        if self.member_id:
            self.storm.ask(Leave(GROUP, ((self.member_id, self.instance),)))
        self.forget()

    def lost(self) -> None:
        if self.join_token or self.sync_token:
            self.joined = None  # what was asked is never answered: ask again
        self.join_token = self.sync_token = 0


def _owned(said: bytes) -> set[Place]:
    """Return what a subscription of `Classic` says is owned: an assignment has the same form."""
    at = 2 + 4 + 2 + 1 + 4
    end = len(said) - {1: 0, 2: 4, 3: 10}[said[1]]
    return assigned(said[:2] + said[at:end] + b"\xff" * 4)


class New(Client):
    """A client of the new protocol: it gives back before it takes, and says what it has."""

    def __init__(self, storm: "Storm", name: str, instance: str | None) -> None:
        super().__init__(storm, name, instance)
        self.member_id = storm.new_id()
        self.wanted: frozenset[Place] = frozenset()

    def step(self) -> None:
        storm = self.storm
        if not (self.owned - self.wanted and storm.dice.random() < 0.4):
            self.owned = self.wanted
        owned = frozenset((topic_id(name), number) for name, number in self.owned)
        if self.epoch == 0:
            wish = joining(self.member_id, "t", instance_id=self.instance)
        else:
            wish = heartbeat(
                self.member_id, self.epoch, instance_id=self.instance, owned=owned,
                topic_names=("t",), rebalance_timeout_ms=REBALANCE_MS,
            )  # fmt: skip
        answer = storm.bench.answers.get(storm.ask(ConsumerBeat(GROUP, wish)))
        if answer is None:
            return
        assert isinstance(answer, ConsumerHeartbeatAnswer)
        if answer.error is ErrorCode.NONE:
            self.epoch = answer.member_epoch
            assert answer.assignment is not None, "it says everything each time"
            self.wanted = frozenset(("t", number) for _topic, number in answer.assignment)
            self.is_out = False
        else:
            assert answer.error in {
                ErrorCode.UNKNOWN_MEMBER_ID,
                ErrorCode.FENCED_MEMBER_EPOCH,
                ErrorCode.GROUP_ID_NOT_FOUND,
                ErrorCode.UNRELEASED_INSTANCE_ID,
                ErrorCode.FENCED_INSTANCE_ID,
            }, answer.message
            self.forget()

    def forget(self) -> None:
        self.epoch, self.owned, self.wanted = 0, frozenset(), frozenset()

    def leave(self) -> None:
        if self.epoch > 0:
            away = self.instance is not None and self.storm.dice.random() < 0.7
            epoch = -2 if away else -1
            wish = heartbeat(self.member_id, epoch, instance_id=self.instance)
            self.storm.ask(ConsumerBeat(GROUP, wish))
        self.forget()


class Storm:
    """A coordinator, its clients, and the dice."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.is_cooperative = self.dice.random() < 0.5
        self.bench = Bench(delay_ms=self.dice.choice((0, 3_000)))
        self.bench.topics.set("t", PARTITIONS)
        self.clients: list[Client] = []
        self.made = 0
        self.checked = 0
        self.seen: set[str] = set()
        self.is_calm = False

    def new_id(self) -> str:
        self.made += 1
        return f"m{self.made}"

    def ask(self, wish: Request) -> int:
        """Ask; the coordinator may die before its batch is committed, and the answers with it."""
        bench = self.bench
        before, known = len(bench.log), set(bench.answers)
        token = bench.ask(wish)
        if not self.is_calm and self.dice.random() < 0.01:
            del bench.log[before:]
            for each in set(bench.answers) - known:
                del bench.answers[each]
            self.lose_coordinator()
        elif not self.is_calm and self.dice.random() < 0.02 and token in bench.answers:
            del bench.answers[token]  # only its answer is lost
        return token

    def lose_coordinator(self) -> None:
        self.seen.add("lost")
        self.bench.restart()
        for each in self.clients:
            each.lost()

    def step(self) -> None:
        dice = self.dice.random()
        if dice < 0.02:
            self.lose_coordinator()
        elif dice < 0.06:
            self.start()
        elif dice < 0.09 and self.clients:
            self.stop(self.dice.choice(self.clients))
        elif self.clients:
            client = self.dice.choice(self.clients)
            client.step()
            if isinstance(client, Classic) and self.dice.random() < 0.02:
                client.lost()  # it loses patience
        if dice > 0.7:
            self.bench.pass_ms(self.dice.choice((10, 100, 1_000, 9_000)))

    def start(self) -> None:
        if len(self.clients) >= 6:
            return
        used = {each.instance for each in self.clients}
        free = [name for name in ("i1", "i2") if name not in used]
        instance = free[0] if free and self.dice.random() < 0.4 else None
        kind = Classic if self.dice.random() < 0.5 else New
        self.clients.append(kind(self, f"c{self.made}", instance))

    def stop(self, client: Client) -> None:
        self.clients.remove(client)
        if self.dice.random() < 0.6:
            client.leave()
        if self.dice.random() < 0.5:  # it comes back, by the other protocol
            kind = New if isinstance(client, Classic) else Classic
            self.clients.append(kind(self, client.name, client.instance))

    def check(self) -> None:
        """What must hold at any time."""
        self.checked += 1
        if self.checked % 20 == 0:
            self.check_log()
        taken: dict[Place, str] = {}
        for client in self.clients:
            if self.stands(client):
                for place in client.owned:
                    other = taken.setdefault(place, client.name)
                    assert other == client.name, f"{place} is read by {other} and {client.name}"

    def check_log(self) -> None:
        """The state is what the log says; and a log of what lives is one that says the same."""
        live = [*self.bench.coordinator.live_records()]
        assert folded(live) == folded(self.bench.log)
        self.bench.log = live

    def stands(self, client: Client) -> bool:
        """Whether the group knows a client as it is; others will hear that they are out."""
        coordinator = self.bench.coordinator
        group = coordinator.groups.get(GROUP)
        if group is not None:
            self.seen.add(f"classic {group.state.value}")
            client.is_out |= client.member_id not in group.members
            return not client.is_out and client.epoch == group.generation_id
        found = coordinator.consumers.get(GROUP)
        client.is_out |= found is None or client.member_id not in found.state.members
        if found is None or client.is_out:
            return False
        current = found.state.current(client.member_id)
        if client.epoch != current.member_epoch:
            return False
        kinds = {each.classic is None for each in found.state.members.values()}
        self.seen |= {"mixed"} if len(kinds) == 2 else {"new"} if kinds == {True} else {"waiting"}
        self.seen.add(current.state.name)
        numbers = {number for _topic, number in current.assigned | current.revoking}
        assert {number for _name, number in client.owned} <= numbers
        return True

    def settle(self, rounds: int = 120) -> None:
        """Left in peace, everybody who lives has a share of one group, and all is read once."""
        self.is_calm = True
        for client in self.clients:
            client.lost()
        self.bench.pass_ms(60_000)
        for _ in range(rounds):
            for client in self.clients:
                client.step()
            self.bench.pass_ms(1_000)
            self.check()
        if not self.clients:
            return
        read = [place for client in self.clients for place in client.owned]
        assert sorted(read) == sorted(ALL)
        assert all(self.stands(client) for client in self.clients)
        group = self.bench.coordinator.groups.get(GROUP)
        assert (group is not None) == all(isinstance(each, Classic) for each in self.clients)
        assert group is None or group.state is State.STABLE


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_group_of_both_protocols_in_a_storm(seed: int) -> None:
    storm = Storm(seed)
    try:
        for _ in range(STEPS):
            storm.step()
            storm.check()
        storm.settle()
    except AssertionError as fault:
        fault.add_note(f"seed {seed}")
        raise


def test_the_storm_goes_through_everything() -> None:
    """Or the rest of this file says little."""
    seen = set()
    for seed in range(4):
        storm = Storm(seed)
        for _ in range(STEPS):
            storm.step()
            storm.check()
        seen |= storm.seen
    assert seen >= {"lost", "mixed", "new"}
    assert seen >= {"STABLE", "UNREVOKED_PARTITIONS", "UNRELEASED_PARTITIONS"}
    assert seen >= {f"classic {state.value}" for state in State if state is not State.EMPTY}
