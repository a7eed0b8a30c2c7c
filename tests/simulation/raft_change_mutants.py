"""Deliberate bugs around members that change, each of which the simulation must catch."""

from collections.abc import Collection, Mapping

from corelane.model.ids import Index, MemberId
from corelane.raft import membership
from corelane.raft.core import RaftGroup
from corelane.raft.leadership import Leadership
from corelane.raft.membership import Configuration, Membership
from corelane.raft.messages import Append
from corelane.raft.quorum import RoundResult, quorum_value, round_result
from tests.simulation.raft_mutants import Mutant


def _truncated_but_in_force(self: Membership, from_index: Index) -> bool:
    """Cut the list of configurations, and go on with the one that was cut."""
    while self._entries[-1][0] >= from_index:
        self._entries.pop()
    self.index = self._entries[-1][0]
    return False


def _new_half_commits(self: Configuration, values: Mapping[MemberId, int]) -> int:
    return quorum_value([values[voter] for voter in self.voters])


def _new_half_elects(
    self: Configuration, granted: Collection[MemberId], rejected: Collection[MemberId]
) -> RoundResult:
    yes = [voter for voter in self.voters if voter in granted]
    no = [voter for voter in self.voters if voter in rejected]
    return round_result(len(self.voters), yes, no)


def _learners_count(self: Configuration, values: Mapping[MemberId, int]) -> int:
    return quorum_value([values[member] for member in self.members])


def _in_force_when_committed(self: RaftGroup, sender: MemberId, message: Append) -> None:
    """Followers take no notice of configurations in what they append."""
    message.configurations = ()  # type: ignore[misc]
    _ON_APPEND(self, sender, message)


def _never_left(self: RaftGroup, leadership: Leadership) -> None:
    """Nobody ends a joint configuration, and a leader that has left goes on."""
    self.membership.committed(self.committed_index)


def _replaced_at_once(
    current: Configuration, voters: tuple[MemberId, ...], learners: tuple[MemberId, ...]
) -> Configuration:
    """Replace any number of voters by one entry (figure 10 shows what comes of it)."""
    del current
    return Configuration(voters, (), learners)


_ON_APPEND = RaftGroup._on_append

CHANGES = (
    Mutant("configuration not restored (12)", Membership, "truncated", _truncated_but_in_force),
    Mutant("the new half commits alone", Configuration, "quorum_value", _new_half_commits),
    Mutant("the new half elects alone", Configuration, "result", _new_half_elects),
    Mutant("learners count", Configuration, "quorum_value", _learners_count),
    Mutant("configuration ignored by followers", RaftGroup, "_on_append", _in_force_when_committed),
    Mutant("voters replaced at once", membership, "changed", _replaced_at_once),
    Mutant("voters that know nobody", RaftGroup, "members_index", Index(0)),
    Mutant("change never ended", RaftGroup, "_configuration_committed", _never_left),
)
"""Caught by tests/simulation/raft_changes.py, in the number of seeds that the test allows."""
