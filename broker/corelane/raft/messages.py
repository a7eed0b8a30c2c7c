"""What the replicas of one group say to each other: values, without the sender and the group.

Every request that is answered carries a round id, and its answer repeats it, so that an answer
to an earlier round can never be counted for a later one. `term` is the sender's current term,
except in `PreVote`, where it is the term the sender would stand for.
"""

from corelane.model.ids import Index, Term
from corelane.model.record import record
from corelane.raft.membership import Configuration

TermRun = tuple[Index, Term]
"""(first index, term): from this index on, entries are of this term, until the next run."""


@record
class PreVote:
    """Would you vote for me in `term`? Binds nobody; changes no term (thesis section 9.6)."""

    term: Term
    round: int
    last_index: Index
    last_term: Term


@record
class PreVoteAnswer:
    """`term` is the voter's own, so that a pre-candidate from an older term can catch up."""

    term: Term
    round: int
    granted: bool


@record
class Vote:
    """RequestVote (figure 2). Sent only when the sender's vote for itself is durable.

    `is_transfer`: the leader asked the sender to stand, so that it is heard is no reason to
    refuse ("a special flag", thesis section 4.2.3).
    """

    term: Term
    round: int
    last_index: Index
    last_term: Term
    is_transfer: bool = False


@record
class VoteAnswer:
    """A grant is sent only when the vote is durable."""

    term: Term
    round: int
    granted: bool


@record
class Append:
    """AppendEntries (figure 2): entries `prev_index + 1` to `last_index`, none when equal.

    `runs` gives the terms of the entries; the payloads travel beside this message, in the order
    of the indexes, and the group never sees them. `round` counts how often this leader had to
    back up for this follower: of the refusals in one round only the first says something new.
    """

    term: Term
    round: int
    prev_index: Index
    prev_term: Term
    last_index: Index
    runs: tuple[TermRun, ...]
    committed_index: Index
    configurations: tuple[tuple[Index, Configuration], ...] = ()
    """Those among the entries: the only ones whose meaning is the group's own affair."""


@record
class Appended:
    """The follower's log equals the leader's up to `held_index`, durably up to `match_index`."""

    term: Term
    match_index: Index
    held_index: Index


@record
class AppendRejected:
    """The follower has no entry `prev_index` of the term asked for (or knows a newer term).

    `conflict_term` is the term of its entry there and `conflict_index` the first entry it has of
    that term; 0 and the end of its log + 1 when it is too short (end of section 5.3).
    `has_lost`: what it has acknowledged from `conflict_index` on it has no more (loss.py, L5).
    """

    term: Term
    round: int
    prev_index: Index
    conflict_index: Index
    conflict_term: Term
    has_lost: bool = False


@record
class Heartbeat:
    """One row of the frame between two cores: "I lead this group in `term`".

    `committed_index` is never above what this follower has acknowledged in `term`. `round` says
    when it was sent, by the leader's clock, unless `Contacts` does.
    """

    term: Term
    round: int
    committed_index: Index


@record
class HeartbeatAnswer:
    """The follower follows in `term`; counted by check-quorum."""

    term: Term
    round: int


@record
class Snapshot:
    """InstallSnapshot (figure 13): begin anew behind `last_index`, which is committed.

    What else there is to know (configuration, fold, first offset) travels beside this message,
    and the group sees of it only the configuration. Answered by `Appended`, once it is durable.
    """

    term: Term
    round: int
    last_index: Index
    last_term: Term


@record
class TimeoutNow:
    """Stand at once: you have all I have, and I lead no more (thesis section 3.10)."""

    term: Term


Message = (
    Append
    | Appended
    | Heartbeat
    | HeartbeatAnswer
    | AppendRejected
    | PreVote
    | PreVoteAnswer
    | Vote
    | VoteAnswer
    | TimeoutNow
    | Snapshot
)
