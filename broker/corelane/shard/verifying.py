"""What the leader of a partition asks the coordinators of transactions, and what they say.

A batch that would open a transaction is parked until its coordinator has said that the partition
is part of it (KIP-890); a transaction that has been open for too long is asked about (Percolator's
push). The partition knows a transactional id only while its leader has heard it from a producer:
the log does not name it, so a push may have to go to every coordinator there is.

Invariants:
V1. Every question is told of once, at the latest some seconds later; maybe before `verify` or
    `push` returns. Where nobody can be asked, or no answer came, that is an error as well.
V2. Questions may be repeated and may arrive twice: coordinators take both.
V3. What is told was true when it was told by a coordinator that led: the partition looks at its own
    log again before it acts on it.
"""

from collections.abc import Callable
from typing import Protocol

from corelane.model.errors import ErrorCode
from corelane.model.ids import Term, TopicId
from corelane.model.record import record
from corelane.producers.transactions.requests import PushVerdict
from corelane.producers.transactions.verification import UNKNOWN_START


@record
class Place:
    """A partition that is led here, as coordinators name it."""

    topic: str
    topic_id: TopicId
    number: int


@record
class VerifyTransaction:
    """Is *place* part of the producer's open transaction?"""

    transactional_id: str
    producer_id: int
    epoch: int
    place: Place
    is_added: bool
    """Make it part of it, by an entry, where it is not (clients on transaction.version 2)."""


@record
class Verified:
    """The word of the coordinator."""

    error: ErrorCode
    """NONE: it is, and that is committed. Else as the coordinator says it (TRANSACTION_ABORTABLE
    where it is not, CONCURRENT_TRANSACTIONS, PRODUCER_FENCED, ...), or NOT_COORDINATOR,
    COORDINATOR_LOAD_IN_PROGRESS or COORDINATOR_NOT_AVAILABLE where none could be asked. What
    clients hear of it is the partition's business.
    """
    started_ms: int = UNKNOWN_START
    """Of NONE: which transaction it is."""


@record
class PushTransaction:
    """A transaction has been open at *place* for longer than it may."""

    transactional_id: str | None
    """None: not known here, so all coordinators are asked until one knows the producer id."""
    producer_id: int
    epoch: int
    place: Place


@record
class Pushed:
    """What is to be done about it."""

    verdict: PushVerdict
    """UNKNOWN only when every coordinator there is has said so; WAIT where one did not answer."""
    epoch: int = -1
    """Of ABORT: that of the marker to write."""
    coordinator_term: Term = Term(-1)
    """Of ABORT: that of the coordinator that said it."""


@record
class MarkerToWrite:
    """A decision that has to reach *place*; `markers.write(shard, marker, done)` takes it there.

    `done(error)` is called once: NONE when the marker (or that of an earlier attempt) is committed
    or was never needed; else nothing is known, and the attempt is made again, at whoever leads.
    """

    place: Place
    producer_id: int
    epoch: int
    is_commit: bool
    coordinator_term: Term
    """The coordinator epoch on the wire and in the log."""
    client_version: int = 1
    started_ms: int = UNKNOWN_START
    leader_term: Term = Term(-1)
    """For whom this attempt is: another leader refuses it with FENCED_LEADER_EPOCH, so that one
    that was late cannot end a later transaction. -1: for anybody (an operator's).
    """


class TransactionInquiries(Protocol):
    """Who finds the coordinators, asks them, and waits for what they say (V1)."""

    def verify(self, question: VerifyTransaction, told: Callable[[Verified], None], /) -> None:
        """Ask whether a partition is part of a transaction."""

    def push(self, question: PushTransaction, told: Callable[[Pushed], None], /) -> None:
        """Ask what became of a transaction."""
