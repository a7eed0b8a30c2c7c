"""Three replicas of a few groups, each on a disk of its own, beside the truth: what is committed.

What raft does is done here, the short way: one leader for a group at a time, terms that never come
again, an election needs a durable vote of one other replica whose log is no longer or newer, and
an entry of the leader's own term is committed when another replica has it, durably, too. What the
replicas tell each other are the bytes that would travel; they come late, twice, or never.
"""

import random
from collections.abc import Callable
from typing import Final

from corelane.model.ids import GroupId, Index, Lsn, RecordKind
from corelane.storage.dump import verify
from corelane.storage.group_log import GroupLog
from tests.simulation.sim_disk import SimDisk
from tests.unit.storage.machine import SMALL, Held, Machine, Profile, SimDriver
from tests.unit.storage.model import Entry, GroupModel
from tests.unit.storage.ship import ship

COUNT: Final = 3
TURNS_MAX: Final = 3000
NOBODY: Final = -1


class Replica(Machine):
    """A machine that commits nothing by itself."""

    cluster: "Replicas"

    def commit_all(self) -> None:
        """Commit what is durable here and committed by a quorum."""
        for group, log in self.store.groups.items():
            truth, entries = self.cluster.truth[group], self.groups[group].entries
            index = min(len(truth), log.last_index, self.durable[group])
            while index > log.committed_index and entries[index - 1] != truth[index - 1]:
                index -= 1
            self.commit(log, index)


class Replicas:
    """The three over several lives."""

    def __init__(self, profile: Profile = SMALL, seed: int = 0, luck: int = 0) -> None:
        self.profile = profile
        self.seed = seed
        self.rng = random.Random(seed)
        self.disks = [SimDisk(luck * 31 + number) for number in range(COUNT)]
        for disk in self.disks:
            disk.tree.corrupts = True
        self.helds = [Held() for _ in range(COUNT)]
        self.machines: list[Replica] = []
        self.groups = [GroupId(number) for number in range(2)]
        self.truth: dict[GroupId, list[Entry]] = {group: [] for group in self.groups}
        self.leaders: dict[GroupId, int] = dict.fromkeys(self.groups, NOBODY)
        self.term = 0
        self.mail: list[Callable[[], None]] = []
        self.installs = 0
        self.cuts = 0

    def start(self) -> None:
        """Begin the first life of all."""
        for number in range(COUNT):
            self.machines.append(self.recover(number))
            self.boot(number)

    def recover(self, number: int) -> Replica:
        """Return a machine that has just recovered; nothing is compared yet."""
        driver = SimDriver(self.disks[number], self.seed + number)
        machine = Replica(driver, self.profile, self.helds[number], self.seed + number)
        machine.cluster = self
        return machine

    def boot(self, number: int) -> None:
        """Compare what was recovered, and make groups that were lost before they were durable."""
        machine = self.machines[number]
        machine.boot(commit_all=False)
        for group in self.groups:
            if group not in machine.store.groups:
                machine.create(group)

    def log(self, number: int, group: GroupId) -> GroupLog:
        """Return a replica's log."""
        return self.machines[number].store.groups[group]

    # --- turns ---

    def turn(self, *, everything: bool = False) -> None:
        """One turn of each; some of what is on its way arrives."""
        for _ in range(len(self.mail)):
            letter = self.mail.pop(0)
            if everything or self.rng.random() < 0.6:
                letter()
            elif self.rng.random() < 0.7:
                self.mail.append(letter)
            if self.rng.random() < 0.1:
                self.mail.append(letter)  # it comes twice
        del self.mail[20:]
        for machine in self.machines:
            machine.turn(everything=everything)
        for group in self.groups:
            self.commit(group)
        for machine in self.machines:
            machine.commit_all()

    def commit(self, group: GroupId) -> None:
        """Commit what a quorum has."""
        leader = self.leaders[group]
        if leader == NOBODY:
            return
        machine, truth = self.machines[leader], self.truth[group]
        own = machine.groups[group].entries
        matches = [self._match(group, number, own) for number in range(COUNT) if number != leader]
        index = min(max(matches), machine.durable[group])
        if index > len(truth) and own[index - 1].term == self.log(leader, group).term:
            assert own[: len(truth)] == truth, "a leader has all that is committed"
            self.truth[group] = own[:index]

    def _match(self, group: GroupId, number: int, own: list[Entry]) -> int:
        machine = self.machines[number]
        entries = machine.groups[group].entries
        index = min(len(own), len(entries), machine.durable[group])
        while index and entries[index - 1] != own[index - 1]:
            index -= 1
        return index

    def settle(self, until: Callable[[], bool]) -> None:
        """Turn until something is so."""
        for _ in range(TURNS_MAX):
            if until():
                return
            self.turn(everything=True)
        raise AssertionError("it never comes to that")

    # --- raft, the short way ---

    def elect(self, group: GroupId, candidate: int) -> bool:
        """Make a replica leader, if another one may vote for it."""
        voters = [n for n in range(COUNT) if n != candidate and self._may_vote(group, n, candidate)]
        if not voters:
            return False
        pair = [candidate, self.rng.choice(voters)]
        if not all(self.machines[number].has_room() for number in pair):
            return False
        self.term += 1
        self.leaders[group] = NOBODY
        lsns = []
        for number in pair:
            machine = self.machines[number]
            machine.vote(self.log(number, group), self.term, candidate)
            lsns.append((machine, Lsn(machine.store.wal.next_lsn - 1)))
        for machine, lsn in lsns:
            while machine.store.wal.durable_lsn < lsn:
                machine.turn(everything=True)
        machine = self.machines[candidate]
        if not machine.control(self.log(candidate, group), RecordKind.NEW_LEADER, b""):
            return False
        self.leaders[group] = candidate
        return True

    def _may_vote(self, group: GroupId, voter: int, candidate: int) -> bool:
        mine, other = self.log(voter, group), self.log(candidate, group)
        return (mine.last_term, mine.last_index) <= (other.last_term, other.last_index)

    def replicate(self, group: GroupId, target: int, bytes_max: int) -> None:
        """Send what a follower lacks: entries, or where to begin."""
        leader = self.leaders[group]
        if leader in {NOBODY, target}:
            return
        source, log = self.machines[leader], self.log(leader, group)
        own, theirs = source.groups[group].entries, self.machines[target].groups[group].entries
        match = min(len(own), len(theirs))
        while match and own[match - 1] != theirs[match - 1]:
            match -= 1
        if match == len(own):
            return
        term, before = log.term, own[match - 1] if match else None

        def shipped(payload: bytes, entries: list[Entry]) -> None:
            if entries:
                self.mail.append(
                    lambda: self._arrived(group, target, term, before, payload, entries)
                )

        first = Index(match + 1)
        last = log.last_index
        if first >= log.first_index:
            last = log.span(first, bytes_max)[0]
        if not ship(source, log, first, last, bytes_max, shipped):
            self._send_snapshot(group, leader, target)

    def _arrived(
        self,
        group: GroupId,
        target: int,
        term: int,
        before: Entry | None,
        payload: bytes,
        entries: list[Entry],
    ) -> None:
        """Do as a follower does with entries: pass over, cut, append."""
        machine, log = self.machines[target], self.log(target, group)
        mine = machine.groups[group].entries
        if not self._follows(machine, log, term):
            return
        if before is not None and (len(mine) < before.index or mine[before.index - 1] != before):
            return
        first = entries[0].index
        while (
            first <= min(entries[-1].index, len(mine))
            and mine[first - 1] == entries[first - entries[0].index]
        ):
            first += 1
        if first > entries[-1].index:
            return
        if first <= len(mine):
            self.cuts += 1
            machine.truncate(log, first)
        machine.receive(log, payload, entries, first)

    def _follows(self, machine: Machine, log: GroupLog, term: int) -> bool:
        if term < log.term or not machine.has_room():
            return False
        if term > log.term:
            machine.vote(log, term, NOBODY)
        return True

    def _send_snapshot(self, group: GroupId, leader: int, target: int) -> None:
        source, log = self.machines[leader], self.log(leader, group)
        model: GroupModel = source.groups[group].copy(1)
        applied, fold = source._state_of(group)
        if applied > log.committed_index:
            return  # what it has of the fold is newer than what it knows as committed
        is_whole = self.rng.random() < 0.3
        snapshot = source.store.snapshot(log, applied, fold, is_whole=is_whole)
        term = log.term

        def arrived() -> None:
            machine, theirs = self.machines[target], self.log(target, group)
            if not self._follows(machine, theirs, term):
                return
            if theirs.committed_index < snapshot.last_index:
                self.installs += machine.install(theirs, snapshot, model)

        self.mail.append(arrived)

    # --- crashes ---

    def restart(self, number: int) -> None:
        """Go on with a replica whose recovered machine is in `machines`; all compared."""
        self.mail.clear()
        for group, leader in self.leaders.items():
            if leader == number:
                self.leaders[group] = NOBODY
        self.boot(number)
        for group, truth in self.truth.items():
            holders = [m for m in self.machines if m.groups[group].entries[: len(truth)] == truth]
            assert 2 * len(holders) > COUNT, (
                f"of group {group} {len(holders)} have what is committed"
            )

    def check(self) -> None:
        """Everybody gets everything, reads everything, and nobody's files are left."""
        for group in self.groups:
            self.settle(lambda group=group: self._elect_somebody(group))  # type: ignore[misc]
        self.settle(self._are_equal)
        for machine in self.machines:
            for group in self.groups:
                assert machine.groups[group].entries == self.truth[group]
            machine.read_everything()
            machine.check_arena()
            problems = verify(machine.driver.disk).problems
            problems = [each for each in problems if not each.startswith("checkpoint.")]
            assert not problems, problems  # a torn slot is none: the other one counts

    def _elect_somebody(self, group: GroupId) -> bool:
        if self.leaders[group] != NOBODY:
            return True
        return any(self.elect(group, number) for number in range(COUNT))

    def _are_equal(self) -> bool:
        is_equal = True
        is_quiet = not self.mail
        for group in self.groups:
            leader = self.leaders[group]
            last = self.log(leader, group).last_index
            for number in range(COUNT):
                if self.log(number, group).committed_index < last:
                    is_equal = False
                    if is_quiet and not self.machines[leader].reads_open:
                        self.replicate(group, number, 20_000)
        return is_equal
