"""A replica alone on a bench: its peers are played by hand, its disk syncs on demand."""

from collections.abc import Sequence
from typing import TypeVar

from corelane.model.ids import NO_MEMBER, GroupId, Index, MemberId, Term
from corelane.raft.config import HardState, RaftConfig, RaftSettings
from corelane.raft.core import RaftGroup
from corelane.raft.effects import AppendEntries, Effect, PersistVote, Send, Truncate
from corelane.raft.election import Role
from corelane.raft.events import Campaign, Received, Tick, VotePersisted
from corelane.raft.messages import Append, Message, PreVote, PreVoteAnswer, Vote, VoteAnswer
from tests.simulation.raft_replica import Entry, MemoryLog
from tests.unit.raft.script import NoJitter

M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=Effect)

ME, SECOND, THIRD, FOURTH, FIFTH = (MemberId(node) for node in range(1, 6))


def append_of(term: int, prev: tuple[int, int], *terms: int, committed: int = 0) -> Append:
    """Make an append of entries with *terms* behind the entry *prev* = (index, term)."""
    index, prev_term = prev
    runs = tuple(
        (Index(at), Term(one))
        for at, one in enumerate(terms, index + 1)
        if at == index + 1 or one != terms[at - index - 2]
    )
    end = Index(index + len(terms))
    return Append(Term(term), 0, Index(index), Term(prev_term), end, runs, Index(committed))


def terms(log: MemoryLog) -> list[int]:
    return [entry.term for entry in log.entries()]


class Bench:
    """A replica under test; what it sends and asks for is kept until it is looked at."""

    def __init__(
        self,
        voters: int = 3,
        terms: Sequence[int] = (),
        term: int = 0,
        voted_for: MemberId = NO_MEMBER,
        committed: int = 0,
        lease_ms: int = 0,
    ) -> None:
        entries = [Entry(Term(one), f"{one}.{index}") for index, one in enumerate(terms, 1)]
        self.log = MemoryLog(entries)
        nodes = tuple(MemberId(node) for node in range(1, voters + 1))
        settings = RaftSettings(lease_ms=lease_ms)
        config = RaftConfig(GroupId(1), ME, nodes, settings)
        hard = HardState(Term(term), voted_for, Index(committed))
        self.now_ms = 0
        self.group = RaftGroup(config, hard, self.log, NoJitter(), self.now_ms)
        self.seen: list[Effect] = []

    def do(self, effects: Sequence[Effect]) -> None:
        """Perform what changes the log; keep everything for the checks."""
        self.seen.extend(effects)
        for effect in effects:
            match effect:
                case Truncate():
                    self.log.truncate(effect.from_index)
                case AppendEntries():
                    for index in range(effect.first_index, effect.message.last_index + 1):
                        runs = effect.message.runs
                        term = [one for first, one in runs if first <= index][-1]
                        self.log.append(Entry(term, f"{term}.{index}"))
                case _:
                    pass

    def receive(self, sender: MemberId, message: Message) -> None:
        self.do(self.group.step(self.now_ms, Received(sender, message)))

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.do(self.group.step(self.now_ms, Tick()))

    def sync_vote(self) -> None:
        asked = [effect for effect in self.seen if isinstance(effect, PersistVote)][-1]
        self.do(self.group.step(self.now_ms, VotePersisted(asked.term, asked.voted_for)))

    def sync_log(self) -> None:
        self.do(self.group.persisted(self.log.last_index, self.group.truncations))

    def append(self, count: int = 1) -> None:
        """Append entries as the leader."""
        for _ in range(count):
            index = self.log.append(Entry(self.group.term, "new"))
            self.do(self.group.appended(index))

    def stand(self) -> None:
        """Become a candidate whose own vote is durable."""
        self.do(self.group.step(self.now_ms, Campaign()))
        for request in self.sent(PreVote)[:1]:
            self._grant(Role.PRE_CANDIDATE, PreVoteAnswer(self.group.term, request.round, True))
        self.sync_vote()

    def lead(self) -> None:
        """Become leader, with the entry of its own term appended and not yet durable."""
        self.stand()
        for request in self.sent(Vote)[:1]:
            self._grant(Role.CANDIDATE, VoteAnswer(self.group.term, request.round, True))
        assert self.group.is_leader
        self.append()

    def _grant(self, role: Role, grant: PreVoteAnswer | VoteAnswer) -> None:
        for voter in self.group._others():
            if self.group.role is role:
                self.receive(voter, grant)

    def sent(self, kind: type[M], to: MemberId | None = None) -> list[M]:
        """Return the messages of one kind (to one peer) sent since the last look."""
        found: list[M] = []
        others: list[Effect] = []
        for one in self.seen:
            if isinstance(one, Send) and isinstance(one.message, kind) and to in (None, one.to):
                found.append(one.message)
            else:
                others.append(one)
        self.seen = others
        return found

    def asked(self, kind: type[E]) -> list[E]:
        """Return the other effects of one kind so far."""
        return [one for one in self.seen if isinstance(one, kind)]
