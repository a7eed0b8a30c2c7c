"""A replica that has lost some of what it had promised: what it may do until it has that again.

Disks rot. A replica whose log lost entries that it had acknowledged, or whose term and vote may be
older than what it said, is not the replica that the others count on: to vote for a candidate
without those entries, or twice in a term, would undo what is committed (Alagappan et al.,
"Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018). It keeps its place among the
voters, and these rules:

L1  It does not lead and does not stand before its loss is made good.
L2  Votes are known, entries are lost: it votes for logs only that are at least as up-to-date as its
    own was. It is made good when its log, durably, is again.
L3  Votes may be lost: it says nothing and takes nothing before each other member has told its term.
    Whoever it ever voted for had that term on disk before it asked, so the highest of them is the
    newest it can have promised anything in. It goes to the next term, where it has promised
    nothing, and votes in none until its loss is made good.
L4  In the case of L3 that is when an entry of a leader elected after it (without its vote, so by
    replicas that have forgotten nothing) is committed here: all that was committed before is then
    here too (section 5.4.3, Leader Completeness).
L5  A leader that counts on what was lost is told, until it has begun with this follower anew.
"""

from collections.abc import Iterable

from corelane.model.ids import Index, MemberId, Term
from corelane.model.record import record


@record
class Loss:
    """What storage knows of a loss; it stays there until the loss is made good."""

    last_index: Index
    """The end of the log as it was, as far as that is known."""
    last_term: Term
    are_votes_lost: bool
    others: tuple[MemberId, ...] = ()
    """Members to be asked besides those of the log's configuration, which may be older."""


class Recollection:
    """How far a replica is with making good its loss."""

    __slots__ = ("_loss", "_terms", "round")

    def __init__(self, loss: Loss, round_number: int) -> None:
        self._loss = loss
        self._terms: dict[MemberId, Term] | None = {} if loss.are_votes_lost else None
        self.round = round_number
        """In the questions of this life, so that answers to an earlier one do not count."""

    @property
    def is_asking(self) -> bool:
        """Whether terms are yet to be told (L3)."""
        return self._terms is not None

    @property
    def are_votes_lost(self) -> bool:
        """Whether nothing is known of what was promised."""
        return self._loss.are_votes_lost

    def admits(self, last_index: Index, last_term: Term) -> bool:
        """Whether a candidate may get this replica's vote, as far as the loss goes (L2, L3)."""
        lost = self._loss
        return not lost.are_votes_lost and self.covers(last_index, last_term)

    def covers(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log that ends so is at least as up-to-date as the own one was."""
        return (last_term, last_index) >= (self._loss.last_term, self._loss.last_index)

    def silent(self, members: Iterable[MemberId], own: MemberId) -> list[MemberId]:
        """Return who has not told its term yet."""
        assert self._terms is not None
        asked = dict.fromkeys((*members, *self._loss.others))
        return [each for each in asked if each != own and each not in self._terms]

    def told(self, sender: MemberId, term: Term) -> None:
        """Take in a member's term, of now."""
        assert self._terms is not None
        self._terms[sender] = max(term, self._terms.get(sender, term))

    def all_told(self, own_term: Term) -> Term:
        """Everybody has told: return the first term in which nothing can have been promised."""
        assert self._terms is not None
        newest = max(own_term, *self._terms.values())
        self._terms = None
        return Term(newest + 1)
