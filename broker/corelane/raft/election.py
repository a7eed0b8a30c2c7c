"""The rules of elections as calculations: roles, the up-to-date check, rounds, delays."""

from enum import Enum, auto
from typing import Final

from corelane.model.ids import Index, MemberId, Term
from corelane.raft.config import RaftSettings
from corelane.raft.log_view import LogView
from corelane.raft.membership import Configuration
from corelane.raft.quorum import RoundResult


class Role(Enum):
    """What a replica is in its current term."""

    FOLLOWER = auto()
    PRE_CANDIDATE = auto()
    CANDIDATE = auto()
    LEADER = auto()


TRANSITIONS: Final = {
    Role.FOLLOWER: {Role.FOLLOWER, Role.PRE_CANDIDATE},
    Role.PRE_CANDIDATE: {Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE},
    Role.CANDIDATE: {Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER},
    Role.LEADER: {Role.FOLLOWER},
}
"""From each role, the roles that may come next (figure 4, with the pre-vote before it)."""


class Round:
    """One round of voting. A group has at most one; its id is in every request and answer.

    Two rounds of one candidate at a time once left a group without a leader for ten minutes
    (redpanda issue 21345).
    """

    __slots__ = ("began_ms", "configuration", "granted", "number", "rejected")

    def __init__(self, number: int, configuration: Configuration, began_ms: int) -> None:
        self.number = number
        self.configuration = configuration
        self.began_ms = began_ms
        self.granted: set[MemberId] = set()
        self.rejected: set[MemberId] = set()

    @property
    def is_under_way(self) -> bool:
        """Whether all that is missing are answers: nobody has said no."""
        return not self.rejected

    def silent(self) -> list[MemberId]:
        """Return the voters that have not answered."""
        voters = [each for each in self.configuration.members if self.configuration.is_voter(each)]
        return [each for each in voters if each not in self.granted and each not in self.rejected]

    def count(self, voter: MemberId, granted: bool) -> RoundResult:
        """Count one answer; the first of a voter stands."""
        assert self.configuration.is_voter(voter)
        if voter not in self.granted and voter not in self.rejected:
            (self.granted if granted else self.rejected).add(voter)
        return self.configuration.result(self.granted, self.rejected)


def is_up_to_date(last_index: Index, last_term: Term, log: LogView) -> bool:
    """Say whether a candidate's log is at least as up-to-date as *log* (section 5.4.1)."""
    if last_term != log.last_term:
        return last_term > log.last_term
    return last_index >= log.last_index


def election_delay_ms(settings: RaftSettings, rank: int, random_ms: int) -> int:
    """Return how long this voter waits for its leader before it asks for votes."""
    assert 0 <= random_ms <= settings.election_jitter_ms
    return settings.election_timeout_ms + rank * settings.election_rank_ms + random_ms


def retry_delay_ms(settings: RaftSettings, rank: int, rounds_failed: int, random_ms: int) -> int:
    """Return how long a round may last, and so when the next one follows a failed one."""
    assert 0 <= random_ms <= settings.election_jitter_ms
    doubled = settings.round_timeout_ms << min(rounds_failed, 16)
    base = min(doubled, settings.election_timeout_ms)
    return base + rank * settings.election_rank_ms + random_ms
