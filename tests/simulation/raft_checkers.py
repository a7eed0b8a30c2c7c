"""What must hold of a raft group at every moment, whatever happens to it.

The checkers look on from outside (`Watcher`): they see every effect, every entry that enters a
log, and what is durable on every disk. They share nothing with the code they judge.
"""

from collections.abc import Mapping, Sequence

from corelane.model.ids import NO_TERM, Index, MemberId, Term
from corelane.raft.effects import (
    BecameLeader,
    Committed,
    Effect,
    InstallSnapshot,
    PersistVote,
    Send,
    Truncate,
)
from corelane.raft.messages import (
    Appended,
    Heartbeat,
    PreVote,
    PreVoteAnswer,
    Snapshot,
    Vote,
    VoteAnswer,
)
from tests.simulation.raft_replica import Entry, Replica


class ViolationError(AssertionError):
    """An invariant does not hold."""


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise ViolationError(what)


class Checkers:
    """All invariants of one cluster. `replicas` is filled by the owner."""

    def __init__(self) -> None:
        self.replicas: dict[MemberId, Replica] = {}
        self.leaders: dict[Term, MemberId] = {}
        self.votes: dict[tuple[Term, MemberId], MemberId] = {}
        self.spoken_terms: dict[MemberId, Term] = {}
        self.entries: dict[tuple[Index, Term], tuple[str, Term]] = {}
        self.committed: list[tuple[Entry, Term]] = []
        self.calm: set[MemberId] = set()
        self.installed = 0
        self._reconfigured: set[MemberId] = set()
        self._last_seen: dict[MemberId, tuple[Term, Index]] = {}

    # -- What the watcher sees ------------------------------------------------------------------

    def appended(self, replica: Replica, index: Index, entry: Entry) -> None:
        """Log matching: (index, term) names one payload and one entry before it, everywhere."""
        if entry.configuration is not None:
            self._reconfigured.add(replica.node)
        previous = replica.log.term_at(Index(index - 1))
        found = self.entries.setdefault((index, entry.term), (entry.payload, previous))
        _check(
            found == (entry.payload, previous),
            f"log matching: {replica.node} has ({entry.payload}, after {previous}) at {index}"
            f" in term {entry.term}, another has {found}",
        )

    def performed(self, replica: Replica, effect: Effect) -> None:
        match effect:
            case Send():
                self._sent(replica, effect)
            case Committed():
                self._committed(replica, effect.index)
            case BecameLeader():
                self._became_leader(replica, effect.term)
            case InstallSnapshot():
                self._installs(replica, effect.message)
            case Truncate():
                self._truncated(replica, effect.from_index)
            case PersistVote():
                asked = (effect.term, effect.voted_for)
                _check(asked[0] >= replica.disk.vote.term, f"{replica.node} goes back to {asked}")
            case _:
                pass

    def _sent(self, replica: Replica, send: Send) -> None:
        """Nothing is said in a term, no vote and no acknowledgement given, that a crash forgets."""
        message = send.message
        if isinstance(message, PreVote | PreVoteAnswer):
            is_restless = replica.node in self.calm and isinstance(message, PreVote)
            _check(not is_restless, f"{replica.node} stands, and its leader is there")
            return
        node, disk = replica.node, replica.disk
        if message.term != disk.vote.term:
            raise ViolationError(f"{node} speaks, {disk.vote} is durable: {message}")
        if isinstance(message, VoteAnswer | Vote | Appended):
            spoken = self.spoken_terms.get(node, NO_TERM)
            _check(message.term >= spoken, f"{node} spoke in term {spoken}, and now: {message}")
        self.spoken_terms[node] = max(self.spoken_terms.get(node, NO_TERM), message.term)
        match message:
            case Vote():
                self._voted(replica, message.term, node)
            case VoteAnswer() if message.granted:
                self._voted(replica, message.term, send.to)
            case Appended():
                durable = disk.log.last_index
                _check(
                    message.match_index <= durable,
                    f"{node} acknowledges {message.match_index}, durable is {durable}",
                )
            case Heartbeat():
                _check(self.leaders.get(message.term) == node, f"{node} beats without leading")
            case _:
                pass

    def _voted(self, replica: Replica, term: Term, candidate: MemberId) -> None:
        vote = replica.disk.vote
        _check(vote.voted_for == candidate, f"{replica.node}: vote for {candidate} is not durable")
        voted = self.votes.setdefault((term, replica.node), candidate)
        _check(
            voted == candidate,
            f"{replica.node} votes twice in term {term}: {voted} and {candidate}",
        )

    def _became_leader(self, replica: Replica, term: Term) -> None:
        """Election safety, and leader completeness (figure 3)."""
        leader = self.leaders.setdefault(term, replica.node)
        _check(leader == replica.node, f"two leaders in term {term}: {leader}, {replica.node}")
        voters = [node for node in self.replicas if self.votes.get((term, node)) == leader]
        _check(
            _is_quorum(replica, voters),
            f"{leader} leads term {term} with the votes of {voters}",
        )
        log = replica.log
        for index, (entry, commit_term) in enumerate(self.committed, 1):
            if commit_term >= term:
                continue
            _check(
                index < log.first_index
                or (log.last_index >= index and log.entry_at(Index(index)) == entry),
                f"leader {replica.node} of term {term} lacks {entry} at {index}, committed in"
                f" term {commit_term}",
            )

    def _truncated(self, replica: Replica, from_index: Index) -> None:
        committed = replica.group.committed_index
        _check(from_index > committed, f"{replica.node} cuts {from_index}, {committed} committed")
        self._reconfigured.add(replica.node)

    def _installs(self, replica: Replica, snapshot: Snapshot) -> None:
        """A snapshot is of what is committed, and nothing committed here is missing from it."""
        index, node = snapshot.last_index, replica.node
        _check(index <= len(self.committed), f"{node} begins anew behind {index}, not committed")
        term = self.committed[index - 1][0].term
        _check(term == snapshot.last_term, f"{node} begins anew behind {index} of another term")
        committed = replica.group.committed_index
        _check(index > committed, f"{node} begins anew at {index}, {committed} committed")
        self.installed += 1
        self._reconfigured.add(node)

    def _committed(self, replica: Replica, index: Index) -> None:
        """State machine safety; and what is committed is durable on a quorum, and here."""
        node, durable = replica.node, replica.disk.log
        _check(index <= durable.last_index, f"{node} commits {index}, which is not durable here")
        known = self._last_seen.get(node, (NO_TERM, Index(0)))[1]
        _check(durable.first_index - 1 <= len(self.committed), f"{node} lost what nobody committed")
        for position in range(max(known + 1, durable.first_index), index + 1):
            entry = durable.entry_at(Index(position))
            if position <= len(self.committed):
                other = self.committed[position - 1][0]
                _check(other == entry, f"{node} commits {entry} at {position}, before {other}")
                continue
            owners = [one.node for one in self.replicas.values() if _holds(one, position, entry)]
            _check(
                _is_quorum(replica, owners),
                f"{node} commits {entry} at {position}, durable only on {owners}",
            )
            self.committed.append((entry, replica.group.term))
            if position == index:
                self._counted(replica, entry)

    def _counted(self, replica: Replica, last: Entry) -> None:
        """Who is first to know is the leader, and counted an entry of its own term (5.4.2)."""
        group = replica.group
        # It may have stepped down in the same call: it left, or handed over.
        leads = self.leaders.get(group.term) == replica.node
        _check(leads, f"{replica.node} commits {last} before any leader")
        _check(last.term == group.term, f"{replica.node} commits {last} in {group.term} by count")

    # -- After every event ----------------------------------------------------------------------

    def after_event(self, replica: Replica) -> None:
        """Check the replica that was touched against itself."""
        node = replica.node
        if not replica.is_up:
            return
        group = replica.group
        durable = replica.disk.log.last_index
        term, committed = self._last_seen.get(node, (NO_TERM, Index(0)))
        if group.term < term:
            raise ViolationError(f"the term of {node} goes back from {term} to {group.term}")
        if not committed <= group.committed_index <= group.durable_index <= durable:
            raise ViolationError(
                f"{node}: {committed} was committed, now {group.committed_index};"
                f" {group.durable_index} is believed durable, {durable} is"
            )
        self._last_seen[node] = (group.term, group.committed_index)
        if node in self._reconfigured:
            self._reconfigured.discard(node)
            self._goes_by_its_log(replica)

    def _goes_by_its_log(self, replica: Replica) -> None:
        """The latest configuration in a log is in force, also after the log was cut (section 6)."""
        latest, own = replica.log_configuration(), replica.group.configuration
        _check(own == latest, f"{replica.node} goes by {own}, its log by {latest}")

    def read(self, replica: Replica, floor: int) -> None:
        """A read shows all that was committed when it was asked for (thesis section 6.4)."""
        shown = replica.group.committed_index
        _check(shown >= floor, f"{replica.node} reads up to {shown}: {floor} was committed before")

    def after_start(self, replica: Replica) -> None:
        """A replica that comes back has not forgotten what it said (term and vote)."""
        node, group = replica.node, replica.group
        self._last_seen[node] = (group.term, group.committed_index)
        if replica.loss is not None:
            return  # what it forgot it must not speak of; `_sent` and `MadeGood` look at that
        spoken = self.spoken_terms.get(node, NO_TERM)
        _check(group.term >= spoken, f"{node} spoke in term {spoken}, is back in {group.term}")
        voted = self.votes.get((group.term, node), group.voted_for)
        _check(voted == group.voted_for, f"{node} forgot its vote for {voted} in {group.term}")

    def converged(self, replicas: Mapping[MemberId, Replica]) -> None:
        """At the end: the healed have one leader, equal logs, and everything committed."""
        leaders = [one.node for one in replicas.values() if one.group.is_established]
        _check(len(leaders) == 1, f"after healing {leaders} lead")
        logs = [one.disk.log for one in replicas.values()]
        first_index = max(log.first_index for log in logs)
        tails = [log.entries()[first_index - log.first_index :] for log in logs]
        _check(all(tail == tails[0] for tail in tails), "after healing the logs differ")
        ends = {node: one.group.committed_index for node, one in replicas.items()}
        _check(set(ends.values()) == {logs[0].last_index}, f"not all is committed: {ends}")


def _is_quorum(replica: Replica, members: Sequence[MemberId]) -> bool:
    """Count by the latest configuration in the log; both halves where there are two."""
    now = replica.log_configuration()
    halves = [half for half in (now.voters, now.outgoing) if half]
    return all(2 * len(set(half) & set(members)) > len(half) for half in halves)


def _holds(replica: Replica, index: int, entry: Entry) -> bool:
    log = replica.disk.log
    if (index, entry) in replica.lost:
        return True  # it was, and is yet to be had again
    if index < log.first_index:
        return True  # it was committed, or it would not have been trimmed
    return log.last_index >= index and log.entry_at(Index(index)) == entry
