"""The state of one raft group, and the few ways it changes: term, vote, role, timer, effects.

What a group decides is in voting.py (who leads) and core.py (what is in the log); both rest on
this. The numbered invariants are at the head of core.py.
"""

# performance-critical: see STYLE.md

from collections.abc import Sequence
from typing import Final, assert_never

from corelane.model.ids import NO_MEMBER, Index, MemberId, Term
from corelane.raft import config as configuration
from corelane.raft import election
from corelane.raft.config import HardState, Jitter, RaftConfig
from corelane.raft.effects import (
    BecameCandidate,
    BecameFollower,
    BecameLeader,
    Effect,
    PersistVote,
    Send,
)
from corelane.raft.election import Role, Round
from corelane.raft.leadership import Leadership
from corelane.raft.log_view import LogView
from corelane.raft.loss import Recollection
from corelane.raft.membership import Configuration, Membership
from corelane.raft.messages import Message
from corelane.raft.progress import ROUND_LIMIT

NOTHING: Final[tuple[Effect, ...]] = ()
"""The answer of a call that changes nothing for the outside; shared, so it costs nothing."""

NEVER_MS: Final = 1 << 62
"""A deadline that does not come: a lone leader has nobody to hear from."""

NOT_HEARD_MS: Final = -NEVER_MS


RELUCTANT_RANKS: Final = 20
"""How many places behind the last one a replica stands that should not lead: two seconds."""


class GroupState:
    """One replica of one group. Attributes without a leading underscore are for reading."""

    __slots__ = (
        "_config",
        "_contacts",
        "_delay_ms",
        "_effects",
        "_held",
        "_is_transfer",
        "_jitter",
        "_leader_committed",
        "_leader_heard_ms",
        "_leadership",
        "_log",
        "_now_ms",
        "_promised_ms",
        "_round",
        "_round_number",
        "_rounds_failed",
        "_settings",
        "_told",
        "_verified_index",
        "_vote_asked",
        "committed_index",
        "deadline_ms",
        "durable_index",
        "is_vote_durable",
        "leader",
        "may_lead",
        "membership",
        "recollection",
        "role",
        "term",
        "truncations",
        "voted_for",
    )

    def __init__(
        self, config: RaftConfig, hard: HardState, log: LogView, jitter: Jitter, now_ms: int
    ) -> None:
        configuration.check(config)
        self._contacts = config.contacts
        entries = log.configurations(log.first_index, log.last_index)
        self.membership = Membership(
            Configuration(config.voters, config.outgoing, config.learners), entries
        )
        assert hard.term >= log.last_term, "an entry is never durable before its term"
        assert hard.committed_index <= log.last_index
        self._config = config
        self._settings = config.settings
        self._log = log
        self._jitter = jitter
        self._now_ms = now_ms
        self.term = hard.term
        self.voted_for = hard.voted_for
        self.is_vote_durable = True
        self._vote_asked = (hard.term, hard.voted_for)
        self.role = Role.FOLLOWER
        self.leader: MemberId | None = None
        self.may_lead = True
        """False: others go first, as long as there are any (the shard sets it: drain, lag)."""
        self._told: tuple[Role, Term, MemberId | None] = (Role.FOLLOWER, hard.term, None)
        # Only committed entries are ever trimmed from the front of a log.
        self.committed_index = Index(max(hard.committed_index, log.first_index - 1))
        self.durable_index = log.last_index
        self.truncations = 0
        self._verified_index = self.committed_index
        self._leader_committed = self.committed_index
        self._leader_heard_ms = NOT_HEARD_MS
        # A leader's lease may rest on what was said before this life began.
        self._promised_ms = now_ms if self._settings.lease_ms else NOT_HEARD_MS
        self._leadership: Leadership | None = None
        self._round: Round | None = None
        # Answers to a round begun before a crash must not fit one begun after it.
        self._round_number = jitter.randrange(ROUND_LIMIT)
        self.recollection: Recollection | None = None
        if hard.loss is not None:
            self.recollection = Recollection(hard.loss, self._round_number)
        self._rounds_failed = 0
        self._is_transfer = False  # the round is one that the leader asked for
        self._held: dict[tuple[MemberId, type[Message]], Message] = {}
        self._effects: list[Effect] = []
        self._delay_ms = 0
        self.deadline_ms = 0
        self._draw_delay()

    @property
    def is_leader(self) -> bool:
        """True from the election on, before the leader knows what is committed."""
        return self.role is Role.LEADER

    @property
    def configuration(self) -> Configuration:
        """Return the members of the group, by the latest configuration in the log."""
        return self.membership.current

    @property
    def is_asking(self) -> bool:
        """Whether this replica does not know yet which term it is in (loss.py, L3)."""
        return self.recollection is not None and self.recollection.is_asking

    @property
    def self_id(self) -> MemberId:
        """Return which member of the group this replica is."""
        return self._config.self_id

    @property
    def _rank(self) -> int:
        """The place among those that may stand; one that should not stands far behind."""
        rank = self.membership.current.rank(self._config.self_id)
        return rank if self.may_lead else rank + RELUCTANT_RANKS

    def _take_effects(self) -> Sequence[Effect]:
        """Close a call: vote and role go first, whichever way they were changed (R1)."""
        assert self.term >= self._told[1], "terms never go back"
        assert (self._leadership is not None) == (self.role is Role.LEADER)
        told = (self.role, self.term, self.leader)
        if told != self._told:
            self._announce(told)
        if (self.term, self.voted_for) != self._vote_asked:
            self._vote_asked = (self.term, self.voted_for)
            self._effects.insert(0, PersistVote(self.term, self.voted_for))
        effects = self._effects
        if not effects:
            return NOTHING
        self._effects = []
        return effects

    def _announce(self, told: tuple[Role, Term, MemberId | None]) -> None:
        was_follower = self._told[0] in (Role.FOLLOWER, Role.PRE_CANDIDATE)
        is_news = told[1:] != self._told[1:] or not was_follower
        self._told = told
        match self.role:
            case Role.FOLLOWER | Role.PRE_CANDIDATE:
                if is_news:
                    self._effects.insert(0, BecameFollower(self.term, self.leader))
            case Role.CANDIDATE:
                self._effects.insert(0, BecameCandidate(self.term))
            case Role.LEADER:
                self._effects.insert(0, BecameLeader(self.term))
            case _:
                assert_never(self.role)

    # -- Roles, term and timer ------------------------------------------------------------------

    def _enter(self, role: Role) -> None:
        assert role in election.TRANSITIONS[self.role], f"{self.role} to {role}"
        self.role = role
        if role is not Role.LEADER:
            self._leadership = None
        if role is Role.FOLLOWER:
            self._round = None

    def _vote_for(self, term: Term, voted_for: MemberId) -> None:
        """Change term or vote; nothing of the new term leaves until it is durable (R1)."""
        assert term > self.term or (term == self.term and self.voted_for == NO_MEMBER)
        if term > self.term:
            self._held.clear()
            self._verified_index = self.committed_index
            self._leader_committed = self.committed_index
            self._forget_leader()
        self.term = term
        self.voted_for = voted_for
        self.is_vote_durable = False

    def _adopt(self, term: Term) -> None:
        """Rules for all servers: a higher term makes a follower (section 5.1)."""
        was_leader = self.role is Role.LEADER
        self._enter(Role.FOLLOWER)
        self._vote_for(term, NO_MEMBER)
        if was_leader:
            self._draw_delay()

    def _follow(self, leader: MemberId) -> None:
        """Hear the leader of the current term: restart the timer before anything else (R6)."""
        assert self.role is not Role.LEADER, "two leaders in one term"
        if self.leader != leader:
            assert self.leader is None, "two leaders in one term"
            self._enter(Role.FOLLOWER)
            self.leader = leader
            self._rounds_failed = 0
            self._draw_delay()
        self._leader_heard_ms = self._now_ms
        self.deadline_ms = self._now_ms + self._delay_ms

    def _forget_leader(self) -> None:
        """Know no leader any more, and keep the word that was given to the last one."""
        if self.leader is not None and self.role is not Role.LEADER and self._settings.lease_ms:
            self._promised_ms = max(self._promised_ms, self._leader_seen_ms())
        self.leader = None

    def _release(self) -> None:
        """Be free to vote: the leader is dead, or wants to be followed."""
        self.leader = None
        self._leader_heard_ms = self._promised_ms = NOT_HEARD_MS

    def _draw_delay(self) -> None:
        """Draw a fresh election delay and start the timer."""
        random_ms = self._jitter.randrange(self._settings.election_jitter_ms + 1)
        self._delay_ms = election.election_delay_ms(self._settings, self._rank, random_ms)
        self.deadline_ms = self._now_ms + self._delay_ms

    def _hears_leader(self, candidate: MemberId) -> bool:
        """Say whether asking for another leader is out of order: one is there (section 6).

        Not if that very one is who asks: then it leads no more, and holds no lease. What was
        promised to others before it stands.
        """
        if self.role is Role.LEADER:
            return True
        heard_ms = self._promised_ms
        if self.leader is not None and candidate != self.leader:
            heard_ms = max(heard_ms, self._leader_seen_ms())
        return self._now_ms - heard_ms < self._settings.election_timeout_ms

    @property
    def _is_promised(self) -> bool:
        """Whether a leader that is not followed here any more may still rely on its lease."""
        if self._now_ms - self._promised_ms >= self._settings.election_timeout_ms:
            return False
        return self.configuration.members != (self._config.self_id,)

    def _leader_seen_ms(self) -> int:
        """Return when the leader of the term was last heard, here or by who listens for all."""
        assert self.leader is not None
        heard_ms = self._leader_heard_ms
        if self._contacts is None:
            return heard_ms
        group = self._config.group
        return max(heard_ms, self._contacts.leader_heard_ms(group, self.term, self.leader))

    def _answer(self, to: MemberId, message: Message) -> None:
        """Send *message*, or hold it until the term and vote it speaks for are durable (R1).

        One of each kind per peer is held, the newest, so nothing grows while a disk hangs.
        """
        if self.is_vote_durable:
            self._effects.append(Send(to, message))
        else:
            self._held[to, type(message)] = message

    def _others(self) -> list[MemberId]:
        own = self._config.self_id
        return [node for node in self.membership.current.members if node != own]
