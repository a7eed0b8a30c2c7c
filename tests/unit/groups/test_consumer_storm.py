"""Members of every temper against one group, from a seed: whatever happens, no partition has two
owners, the log says the state, epochs do not go back, and in quiet everybody comes to the target.

Members join, are slow to give back, crash, leave, come back under another id, change their topics;
topics come, grow and go; answers are lost; the coordinator dies before or after its batch is
committed and another one starts from the log, from the log's bytes, or from a compacted log.

    CONSUMER_STORM_SEEDS=1000 python -m pytest tests/unit/groups/test_consumer_storm.py
"""

import os
import random
from typing import Any

import pytest

from corelane.groups.consumer_group import ConsumerGroup
from corelane.groups.consumer_records import NOTHING, ConsumerGroupRecord, Partitions
from corelane.groups.consumer_requests import (
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatAnswer,
)
from corelane.groups.consumer_state import ConsumerState
from corelane.model.errors import ErrorCode
from corelane.shard.consumer_group_records import decode, encode
from tests.unit.groups.consumer_world import GROUP, World, durable, heartbeat, joining, replayed

SEEDS = int(os.environ.get("CONSUMER_STORM_SEEDS", "12"))
STEPS = 250
NAMES = ("t1", "t2", "u1", "u2")
REGEXES = ("t.", "u.*", ".*", "[tu]1", "nothing")
REJOIN = {
    ErrorCode.UNKNOWN_MEMBER_ID,
    ErrorCode.FENCED_MEMBER_EPOCH,
    ErrorCode.GROUP_ID_NOT_FOUND,
}
SETTINGS = ConsumerGroupSettings(session_timeout_ms=30_000, size_max=8)


class Client:
    """A consumer as Java's: it gives back before it takes, and says what it owns."""

    def __init__(self, storm: "Storm", instance_id: str | None, member_id: str) -> None:
        self.dice = storm.dice
        self.instance_id = instance_id
        self.member_id = member_id
        self.epoch = 0
        self.owned: Partitions = NOTHING
        self.wanted: Partitions = NOTHING
        """What the group said last."""
        self.names: tuple[str, ...] | None = None
        self.regex: str | None = None
        self.choose()
        self.says_all = True

    def choose(self) -> None:
        """Choose other topics."""
        names = tuple(name for name in NAMES if self.dice.random() < 0.5)
        by_regex = self.dice.random() < 0.3
        self.names = None if by_regex and self.dice.random() < 0.5 else names
        self.regex = self.dice.choice(REGEXES) if by_regex else ""
        self.says_all = True

    def work(self, *, slow: bool) -> None:
        """Do what the group said: give back first, then take."""
        if self.owned - self.wanted and slow:
            return
        self.owned &= self.wanted
        self.owned |= self.wanted

    def fenced(self) -> None:
        self.epoch = 0
        self.owned = self.wanted = NOTHING
        self.says_all = True

    def heard(self, answer: ConsumerHeartbeatAnswer) -> None:
        assert answer.member_id == self.member_id
        self.epoch = answer.member_epoch
        if answer.assignment is not None:
            self.wanted = answer.assignment
        self.says_all = False


class Storm:
    """A world, its clients, and the dice."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.world = World({name: self.dice.randint(1, 5) for name in NAMES}, SETTINGS)
        self.clients: list[Client] = []
        self.made = 0
        self.epochs: dict[str, int] = {}
        self.group_epoch = 0
        self.checked = 0

    def new_id(self) -> str:
        self.made += 1
        return f"m{self.made}"

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
            self.check()

    def step(self) -> None:
        choice = self.dice.random()
        if choice < 0.55 and self.clients:
            self.beat(self.dice.choice(self.clients), slow=self.dice.random() < 0.4)
        elif choice < 0.65:
            self.world.wait(self.dice.choice([100, 3_000, 9_000, 21_000]))
        elif choice < 0.75:
            self.start()
        elif choice < 0.80 and self.clients:
            self.stop(self.dice.choice(self.clients))
        elif choice < 0.85 and self.clients:
            self.dice.choice(self.clients).choose()
        elif choice < 0.93:
            self.change_topics()
        else:
            self.fail_over()

    def start(self) -> None:
        if len(self.clients) < 9:
            used = {client.instance_id for client in self.clients}
            instances = [name for name in ("i1", "i2", "i3") if name not in used]
            instance_id = instances[0] if instances and self.dice.random() < 0.4 else None
            self.clients.append(Client(self, instance_id, self.new_id()))

    def stop(self, client: Client) -> None:
        """Let a client crash, or leave."""
        self.clients.remove(client)
        if self.dice.random() < 0.6 and client.epoch > 0:
            static = client.instance_id is not None and self.dice.random() < 0.7
            goodbye = heartbeat(
                client.member_id, -2 if static else -1, instance_id=client.instance_id
            )
            answer = self.world.say(goodbye)
            assert answer.error in REJOIN | {ErrorCode.NONE, ErrorCode.FENCED_INSTANCE_ID}
            if static and answer.error is ErrorCode.NONE and self.dice.random() < 0.7:
                back = Client(self, client.instance_id, self.new_id())
                back.names, back.regex = client.names, client.regex
                self.clients.append(back)

    def change_topics(self) -> None:
        topics = self.world.topics
        name = self.dice.choice([*NAMES, "t3"])
        count = topics.counts().get(name, 0)
        if count and self.dice.random() < 0.3:
            topics.delete(name)
        else:
            topics.set(name, count + self.dice.randint(1, 2))

    def beat(self, client: Client, *, slow: bool = False, lossy: bool = True) -> None:
        client.work(slow=slow)
        request = self.request_of(client)
        before = len(self.world.log)
        answer = self.world.say(request)
        fate = self.dice.random() if lossy else 1
        if fate < 0.02:
            # The coordinator dies before the batch is committed: neither it nor the answer is.
            del self.world.log[before:]
            self.fail_over()
            client.says_all = True
        elif fate < 0.08:
            client.says_all = True  # the answer is lost, so it will say everything again
        elif answer.error is ErrorCode.NONE:
            client.heard(answer)
        else:
            self.refused(client, answer)

    def request_of(self, client: Client) -> ConsumerHeartbeat:
        timeout_ms = self.dice.choice([12_000, 60_000])
        all_of_it: dict[str, Any] = {
            "topic_names": client.names,
            "topic_regex": client.regex,
            "rebalance_timeout_ms": timeout_ms,
        }
        said: dict[str, Any] = {"instance_id": client.instance_id}
        if client.epoch == 0:
            return joining(client.member_id, **(said | all_of_it))
        if client.says_all:
            said |= all_of_it | {"topic_names": client.names or (), "owned": client.owned}
        elif self.dice.random() < 0.7:
            said["owned"] = client.owned
        return heartbeat(client.member_id, client.epoch, **said)

    def refused(self, client: Client, answer: ConsumerHeartbeatAnswer) -> None:
        if answer.error in REJOIN:
            client.fenced()
            return
        assert answer.error in {
            ErrorCode.GROUP_MAX_SIZE_REACHED,
            ErrorCode.UNRELEASED_INSTANCE_ID,
            ErrorCode.FENCED_INSTANCE_ID,
        }, answer.message
        if answer.error is ErrorCode.FENCED_INSTANCE_ID:
            self.clients.remove(client)

    def fail_over(self) -> None:
        """Start another coordinator from what the log says, in one of three ways."""
        world = self.world
        way = self.dice.randrange(3)
        if way == 0:
            world.log = list(replayed(world.log).live_records())
        elif way == 1:
            world.log = compacted(world.log, self.dice.randint(0, len(world.log)))
        before = durable(replayed(world.log))
        world.fail_over()
        assert durable(world.state) == before
        for member_id in set(self.epochs) - set(world.state.members):
            del self.epochs[member_id]
        # what was not committed may be taken back, so these may go back, here and only here
        self.group_epoch = world.state.epoch
        self.epochs = {member_id: world.epoch(member_id) for member_id in world.state.members}

    # What is always true.

    def check(self) -> None:
        world = self.world
        state = world.state
        check_owners(state)
        assert state.group_id == GROUP
        assert state.epoch >= self.group_epoch
        self.group_epoch = state.epoch
        assert state.assignment_epoch <= state.epoch
        for member_id in state.members:
            epoch = world.epoch(member_id)
            assert epoch <= state.assignment_epoch
            assert epoch >= self.epochs.get(member_id, epoch) or epoch == -2
            self.epochs[member_id] = epoch
        self.check_clients()
        self.checked += 1
        if self.checked % 10 == 0:
            assert durable(replayed(world.log)) == durable(state)
            assert durable(replayed(list(state.live_records()))) == durable(state)
            assert durable(replayed(reread(world.log))) == durable(state)

    def check_clients(self) -> None:
        """What a client has that was not thrown out, the group knows it has."""
        state = self.world.state
        taken: dict[object, str] = {}
        for client in self.clients:
            current = state.currents.get(client.member_id)
            if client.epoch == 0 or current is None or client.member_id not in state.members:
                continue
            assert client.owned <= current.assigned | current.revoking
            for partition in client.owned:
                assert taken.setdefault(partition, client.member_id) == client.member_id

    # What comes when it is quiet.

    def settle(self) -> None:
        for _ in range(40):
            self.world.wait(4_000)
            for client in list(self.clients):
                self.beat(client, lossy=False)
                self.check()
        state = self.world.state
        if not state.members:
            return
        assert self.world.group.state_name == "Stable"
        wanted = self.world.topics.partitions(*state.all_names())
        assert frozenset().union(*state.targets.values()) == wanted
        for client in self.clients:
            if client.epoch:
                assert client.owned == state.targets[client.member_id]
        quiet = len(self.world.log)
        for client in list(self.clients):
            if client.epoch:
                client.says_all = False
                self.world.say(heartbeat(client.member_id, client.epoch))
        assert len(self.world.log) == quiet, "a quiet group still writes"


def check_owners(state: ConsumerState) -> None:
    """No partition is with two members, and the table of owners says who it is with (C2)."""
    owners = {}
    for member_id, current in state.currents.items():
        assert not current.assigned & current.revoking
        for partition in current.assigned | current.revoking:
            assert partition not in owners, f"{partition} is with two members"
            owners[partition] = member_id
    assert owners == state.owners
    assert state.currents.keys() <= state.members.keys()
    assert state.targets.keys() <= state.members.keys()
    given = [partition for target in state.targets.values() for partition in target]
    assert len(given) == len(set(given))


def compacted(log: list[ConsumerGroupRecord], end: int) -> list[ConsumerGroupRecord]:
    """Return *log* with only the last record of each key before *end*, as a cleaner leaves it."""
    last = {encode(record)[0]: place for place, record in enumerate(log[:end])}
    kept = set(last.values())
    return [record for place, record in enumerate(log) if place >= end or place in kept]


def reread(log: list[ConsumerGroupRecord]) -> list[ConsumerGroupRecord]:
    """Return *log* after a way through its bytes."""
    found = []
    for record in log:
        read = decode(*encode(record))
        assert read is not None
        found.append(read)
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_group_in_a_storm(seed: int) -> None:
    storm = Storm(seed)
    try:
        storm.run()
        storm.settle()
    except AssertionError as fault:
        fault.add_note(f"seed {seed}, after {storm.checked} checks")
        raise
    assert storm.checked >= STEPS


def test_the_storm_reaches_every_state() -> None:
    """Or the rest of this file says little."""
    seen = set()
    for seed in range(8):
        storm = Storm(seed)
        for _ in range(STEPS):
            storm.step()
            seen.add(storm.world.group.state_name)
            seen |= {current.state.name for current in storm.world.state.currents.values()}
            seen |= {"left" for m in storm.world.state.members if storm.world.epoch(m) == -2}
    assert seen >= {"Empty", "Stable", "Reconciling", "Assigning", "left"}
    assert seen >= {"STABLE", "UNREVOKED_PARTITIONS", "UNRELEASED_PARTITIONS"}


def test_two_coordinators_with_the_same_input_say_the_same() -> None:
    """The core is a function: nothing depends on the order of sets or on chance."""
    logs = []
    for _ in range(2):
        storm = Storm(7)
        storm.run()
        logs.append([encode(record) for record in storm.world.log])
    assert logs[0] == logs[1]
    assert isinstance(storm.world.group, ConsumerGroup)
