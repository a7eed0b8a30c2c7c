"""Two cores of one node on one simulated disk, between which groups move, as the shard does it.

The shard's part of the protocol, without its links: nothing is appended to a group on its way; of
two cores that have it the one at the higher revision keeps it; a core that died is told what is
whose only when the imports that the other one has under way are over.
"""

import random
from collections.abc import Callable
from functools import partial

from corelane.model.ids import CoreId, GroupId
from corelane.storage.dump import verify
from corelane.storage.group_log import GroupLog
from corelane.storage.parcel import Parcel
from tests.simulation.sim_disk import SimDisk
from tests.simulation.sim_tree import Tree
from tests.unit.storage.machine import SMALL, Held, Machine, Profile, SimDriver
from tests.unit.storage.model import GroupModel

TURNS_MAX = 5000


class Move:
    """A group on its way; what one core tells the other arrives in a later turn."""

    def __init__(self, pair: "Pair", group: GroupId, source: int) -> None:
        self.pair = pair
        self.group = group
        self.source = source
        self.is_over = False
        self.why = ""
        self.message: Callable[[], None] | None = None

    @property
    def log(self) -> GroupLog:
        """The source's."""
        return self.pair.machines[self.source].store.groups[self.group]

    def exported(self, parcel: Parcel | None) -> None:
        if self.is_over:
            return
        if parcel is None:
            self.taken("not packed")
            return
        self.message = partial(self._take, parcel)

    def _take(self, parcel: Parcel) -> None:
        source = self.pair.machines[self.source]
        target = self.pair.machines[1 - self.source]
        model = source.groups[self.group]
        target.take(parcel, CoreId(self.source), model, self.taken)

    def taken(self, why: str) -> None:
        """The import is over: *why* it failed, or ""."""
        self.message = partial(self._end, why)

    def deliver(self) -> None:
        """Let what is on its way arrive."""
        if not self.pair.machines[self.source].has_room():
            return  # a MOVED record that waits for room is another story
        message, self.message = self.message, None
        if message is not None and not self.is_over:
            message()

    def _end(self, why: str) -> None:
        self.is_over = True
        self.why = why
        if why:
            self.pair.machines[self.source].store.keep_group(self.log)
        else:
            self.pair.machines[self.source].release(self.log)


class Pair:
    """Two cores over several lives."""

    def __init__(self, profile: Profile = SMALL, seed: int = 0) -> None:
        self.profile = profile
        self.seed = seed
        self.tree = Tree(random.Random(seed))
        self.tree.corrupts = True
        self.disks = [SimDisk(seed + core, self.tree, f"core-{core:02d}") for core in range(2)]
        self.helds = [Held(), Held()]
        self.helds[1].group_last = 1000
        self.moves: list[Move] = []
        self.promised: dict[GroupId, tuple[int, bytes]] = {}
        self.dropped: set[GroupId] = set()
        self.machines: list[Machine] = []
        self.rng = random.Random(seed)

    def start(self) -> None:
        """Begin the first life of both."""
        for core in range(2):
            self.machines.append(self.recover(core))
            self.machines[core].boot()

    def recover(self, core: int) -> Machine:
        """Return a machine that has just recovered; nothing is compared yet."""
        driver = SimDriver(self.disks[core], self.seed + core)
        return Machine(driver, self.profile, self.helds[core], self.seed + core)

    # --- living ---

    def turn(self, *, everything: bool = False) -> None:
        """One turn of each."""
        earlier: set[GroupId] = set()  # what one core tells the other arrives in order
        for move in self.moves:
            if move.group not in earlier and (everything or self.rng.random() < 0.5):
                move.deliver()
            if not move.is_over:
                earlier.add(move.group)
        for machine in self.machines:
            machine.turn(everything=everything)
            machine.commit_all()
        self.promise()

    def promise(self) -> None:
        """Take note of what is committed: it must be there for ever."""
        for machine in self.machines:
            for group, log in machine.store.groups.items():
                index = log.committed_index
                is_news = index > self.promised.get(group, (0, b""))[0]
                if is_news and group not in self.dropped:
                    self.promised[group] = (index, machine.groups[group].fold(index))

    def settle(self, until: Callable[[], bool]) -> None:
        """Turn until something is so."""
        for _ in range(TURNS_MAX):
            if until():
                return
            self.turn(everything=True)
        raise AssertionError("it never comes to that")

    def begin_move(self, log: GroupLog, source: int) -> Move:
        """Begin to move a group all of which is committed."""
        move = Move(self, log.group, source)
        self.moves.append(move)
        self.machines[source].export(log, move.exported)
        return move

    def move(self, log: GroupLog, source: int) -> Move:
        """Move a group, and wait for the end of it."""
        self.settle(lambda: log.committed_index == log.last_index)
        move = self.begin_move(log, source)
        self.settle(lambda: move.is_over)
        return move

    @property
    def imports(self) -> int:
        """How many are under way."""
        return sum(len(machine.store.moving.imports) for machine in self.machines)

    # --- crashes ---

    def power_cut(self) -> None:
        """Cut the power of both."""
        self.disks[0].crash(power=False)
        self.disks[1].crash(power=True)

    def restart(self, dead: list[int], *, imports_first: bool = False) -> None:
        """Recover the dead ones, and have everybody agree on what is whose."""
        for move in self.moves:
            move.is_over = True  # what is not is decided here
        if imports_first:
            self.end_imports(dead)
        for core in dead:
            self.machines[core] = self.recover(core)
        self.agree(dead)

    def end_imports(self, dead: list[int]) -> None:
        """Let those that live end what they have begun."""
        for core, machine in enumerate(self.machines):
            for _ in range(TURNS_MAX):
                if core in dead or not machine.store.moving.imports:
                    break
                machine.turn(everything=True)
            assert core in dead or not machine.store.moving.imports

    def agree(self, dead: list[int]) -> None:
        """Compare what was recovered, and leave every group with one core."""
        self.end_imports(dead)  # before who died is told what is whose
        for core in dead:
            self.machines[core].boot()
        owners = self._owners()
        for group, (index, fold) in self.promised.items():
            assert group in owners, f"nobody has group {group}"
            keeper = max(owners[group], key=lambda core: self._revision(group, core))
            model = self.machines[keeper].groups[group]
            assert model.last_index >= index, f"group {group} ends at {model.last_index}"
            assert model.fold(index) == fold, f"group {group} is not what it was"
        for group, cores in owners.items():
            self._decide(group, cores)
        self.moves = []

    def _decide(self, group: GroupId, cores: list[int]) -> None:
        if group in self.dropped:  # and found again, or left over where it came from
            for core in cores:
                self.machines[core].drop(self.machines[core].store.groups[group])
            return
        revisions = [self._revision(group, core) for core in cores]
        assert len(set(revisions)) == len(revisions), f"group {group} is owned twice"
        keeper = cores[revisions.index(max(revisions))]
        kept = self.machines[keeper].store.groups[group]
        if kept.is_leaving:
            self.machines[keeper].store.keep_group(kept)
        for core in cores:
            if core != keeper:
                machine = self.machines[core]
                model = machine.groups[group]
                last = model.last_index
                assert model.fold(last) == self._model(group, keeper).fold(last)
                while not machine.has_room():  # a live one's log may be full just now
                    machine.turn(everything=True)
                machine.release(machine.store.groups[group])

    def _model(self, group: GroupId, core: int) -> GroupModel:
        return self.machines[core].groups[group]

    def _revision(self, group: GroupId, core: int) -> int:
        return self.machines[core].store.groups[group].descriptor.revision

    def _owners(self) -> dict[GroupId, list[int]]:
        found: dict[GroupId, list[int]] = {}
        for core, machine in enumerate(self.machines):
            for group in machine.store.groups:
                found.setdefault(group, []).append(core)
        return found

    def check(self) -> None:
        """Nothing is owned twice, everything can be read, and nobody's files are left."""
        self.settle(lambda: all(move.is_over for move in self.moves))
        for group, cores in self._owners().items():
            assert len(cores) == 1, f"group {group} is owned by {cores}"
        for machine in self.machines:
            machine.read_everything()
            machine.check_arena()
            directories = {log.descriptor.directory for log in machine.store.groups.values()}
            found = {f"partitions/{name}" for name in machine.driver.disk.names("partitions")}
            assert found <= directories, found - directories
            assert verify(machine.driver.disk).problems == []
