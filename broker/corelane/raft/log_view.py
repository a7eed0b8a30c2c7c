"""What a raft group must be able to ask about its log; the shard's partition log answers."""

from collections.abc import Sequence
from typing import Protocol

from corelane.model.ids import Index, Term
from corelane.raft.membership import Configuration


class LogView(Protocol):
    """The log of one group, as (index, term) and sizes; payloads are none of raft's business.

    It shows what was appended, durable or not, from the moment the effect (or the leader's own
    append) was performed. Terms never decrease with the index, which the searches rely on.
    """

    @property
    def first_index(self) -> Index:
        """The first entry that is still here; `last_index + 1` when there is none."""

    @property
    def last_index(self) -> Index:
        """The last entry; 0 when there never was one."""

    @property
    def last_term(self) -> Term:
        """The term of the last entry; 0 when there never was one."""

    def term_at(self, index: Index, /) -> Term:
        """Return the term of an entry, for *index* in [first_index - 1, last_index]; 0 at 0."""

    def span(self, first_index: Index, bytes_max: int, /) -> tuple[Index, int]:
        """Return (last index, bytes) of the longest run from *first_index* within *bytes_max*.

        At least one entry, even when that alone is larger. *first_index* is in the log.
        """

    def configurations(
        self, first_index: Index, last_index: Index, /
    ) -> Sequence[tuple[Index, Configuration]]:
        """Return the CONFIG entries from *first_index* to *last_index*, in order.

        Called for every message with entries: to have none must cost nothing.
        """


def first_above(log: LogView, term: Term, low: Index, high: Index) -> Index:
    """Return the first index in [low, high] whose term is above *term*; `high + 1` if none is.

    Borrows *log*; at most log2(high - low) look-ups.
    """
    assert low <= high + 1
    end = high + 1
    while low < end:
        middle = Index((low + end) // 2)
        if log.term_at(middle) > term:
            end = middle
        else:
            low = Index(middle + 1)
    return low
