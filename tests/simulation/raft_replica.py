"""One replica of one group with a simulated WAL: the smallest honest driver of a `RaftGroup`.

It does what the shard does, in the same order, in memory: performs effects, writes the WAL in
group commits, reports their completion, and rebuilds the group from the WAL after a crash.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, assert_never

from corelane.model.ids import NO_MEMBER, NO_TERM, GroupId, Index, MemberId, Term
from corelane.model.record import record
from corelane.raft.config import HardState, Jitter, RaftConfig
from corelane.raft.core import RaftGroup
from corelane.raft.effects import (
    AppendConfiguration,
    AppendEntries,
    BecameCandidate,
    BecameFollower,
    BecameLeader,
    ChangeRefused,
    Committed,
    Effect,
    InstallSnapshot,
    MadeGood,
    PersistVote,
    Send,
    SendSnapshot,
    TransferEnded,
    Truncate,
)
from corelane.raft.events import Campaign, Event, Received, Tick, VotePersisted
from corelane.raft.loss import Loss
from corelane.raft.membership import Configuration
from corelane.raft.messages import Append, Message, Snapshot

GROUP = GroupId(7)
NEW_LEADER = "lead"


@record
class Entry:
    """A log entry; the payload is what replicas must agree on."""

    term: Term
    payload: str
    size_bytes: int = 1
    configuration: Configuration | None = None


class MemoryLog:
    """A log view over a list; entries below `first_index` are gone, as after a trim."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.first_index = Index(1)
        self._before_first = NO_TERM
        self._entries = list(entries)
        self.base: Configuration | None = None  # of the entries that are gone

    @property
    def last_index(self) -> Index:
        return Index(self.first_index - 1 + len(self._entries))

    @property
    def last_term(self) -> Term:
        return self.term_at(self.last_index)

    def term_at(self, index: Index, /) -> Term:
        if index == self.first_index - 1:
            return self._before_first
        return self.entry_at(index).term

    def entry_at(self, index: Index) -> Entry:
        assert self.first_index <= index <= self.last_index
        return self._entries[index - self.first_index]

    def span(self, first_index: Index, bytes_max: int, /) -> tuple[Index, int]:
        last_index = first_index
        size_bytes = self.entry_at(first_index).size_bytes
        while last_index < self.last_index:
            more = self.entry_at(Index(last_index + 1)).size_bytes
            if size_bytes + more > bytes_max:
                break
            size_bytes += more
            last_index = Index(last_index + 1)
        return last_index, size_bytes

    def configurations(
        self, first_index: Index, last_index: Index, /
    ) -> list[tuple[Index, Configuration]]:
        found = []
        for number in range(max(first_index, self.first_index), last_index + 1):
            configuration = self.entry_at(Index(number)).configuration
            if configuration is not None:
                found.append((Index(number), configuration))
        return found

    def append(self, entry: Entry) -> Index:
        assert entry.term >= self.last_term
        self._entries.append(entry)
        return self.last_index

    def truncate(self, from_index: Index) -> None:
        assert self.first_index <= from_index <= self.last_index
        del self._entries[from_index - self.first_index :]

    def trim(self, first_index: Index) -> None:
        """Forget the entries before *first_index*."""
        assert first_index <= self.last_index + 1
        before = self.term_at(Index(first_index - 1))
        for _index, configuration in self.configurations(self.first_index, Index(first_index - 1)):
            self.base = configuration
        del self._entries[: first_index - self.first_index]
        self._before_first, self.first_index = before, first_index

    def begin_anew(self, last_index: Index, entry: Entry) -> None:
        """Hold nothing but what a snapshot says: *entry* has the term and the configuration."""
        self._entries.clear()
        self.first_index, self._before_first = Index(last_index + 1), entry.term
        self.base = entry.configuration

    def entries(self) -> list[Entry]:
        return list(self._entries)

    def copy(self) -> "MemoryLog":
        """Return a log of its own with the same entries."""
        log = MemoryLog(self._entries)
        log.first_index, log._before_first = self.first_index, self._before_first
        log.base = self.base
        return log


@record
class VoteNote:
    """A VOTE record of the WAL."""

    term: Term
    voted_for: MemberId


@record
class TruncateNote:
    """A TRUNCATE record of the WAL."""

    from_index: Index


@record
class InstallNote:
    """An INSTALL record of the WAL."""

    last_index: Index
    entry: Entry


WalRecord = Entry | VoteNote | TruncateNote | InstallNote


class Disk:
    """A WAL of one group: what is in it, how much of that is durable, and what that amounts to."""

    def __init__(self) -> None:
        self.records: list[WalRecord] = []
        self.durable_count = 0
        self.vote = VoteNote(NO_TERM, NO_MEMBER)
        self.log = MemoryLog()

    def sync(self, count: int) -> None:
        """Make the first *count* records durable."""
        assert self.durable_count <= count <= len(self.records)
        for note in self.records[self.durable_count : count]:
            match note:
                case Entry():
                    self.log.append(note)
                case TruncateNote():
                    self.log.truncate(note.from_index)
                case VoteNote():
                    self.vote = note
                case InstallNote():
                    self.log.begin_anew(note.last_index, note.entry)
                case _:
                    assert_never(note)
        self.durable_count = count

    def crash(self, survivors: int) -> None:
        """Lose all but the durable records and the next *survivors*: a write may have landed."""
        self.sync(min(self.durable_count + survivors, len(self.records)))
        del self.records[self.durable_count :]


@record
class Write:
    """One WAL write on its way: what to report to the group when it is durable."""

    count: int
    votes: list[VoteNote]
    last_index: Index
    truncations: int


class Watcher(Protocol):
    """Who looks on: the simulation's checkers, or the printer of a script."""

    def performed(self, replica: "Replica", effect: Effect) -> None:
        """See an effect, right before it is performed."""

    def appended(self, replica: "Replica", index: Index, entry: Entry) -> None:
        """See an entry that was put into a log."""


class Replica:
    """A node with its one group. `transmit(sender, to, message, entries)` carries messages."""

    def __init__(
        self,
        config: RaftConfig,
        jitter: Jitter,
        transmit: Callable[[MemberId, MemberId, Message, list[Entry]], None],
        watcher: Watcher,
    ) -> None:
        self.node = config.self_id
        self.config = config
        self.jitter = jitter
        self.transmit = transmit
        self.watcher = watcher
        self.disk = Disk()
        self.log = MemoryLog()
        self.writes: deque[Write] = deque()
        self.committed_kept = Index(0)
        self.loss: Loss | None = None
        self.lost: list[tuple[Index, Entry]] = []
        """Entries that were durable here once, and rotted."""
        self._group: RaftGroup | None = None
        self._votes_unwritten: list[VoteNote] = []
        self._is_unwritten = False
        self._received: dict[int, list[Entry]] = {}

    @property
    def is_up(self) -> bool:
        return self._group is not None

    @property
    def group(self) -> RaftGroup:
        assert self._group is not None, "the node is down"
        return self._group

    def start(self, now_ms: int) -> None:
        """Start from what is durable, as recovery would."""
        assert not self.is_up
        self.log = self.disk.log.copy()
        vote = self.disk.vote
        hard = HardState(vote.term, vote.voted_for, self.committed_kept, self.loss)
        config, base = self.config, self.log.base
        if base is not None:
            config = replace(
                config, voters=base.voters, outgoing=base.outgoing, learners=base.learners
            )
        self._group = RaftGroup(config, hard, self.log, self.jitter, now_ms)

    def crash(self, survivors: int) -> None:
        """Lose everything that is not durable."""
        self.disk.crash(survivors)
        if self._group is not None and self._group.recollection is None and not survivors % 2:
            self.loss = None  # that it was made good was known to a checkpoint, too
        self._group = None
        self.writes.clear()
        self._votes_unwritten.clear()
        self._is_unwritten = False

    def tick(self, now_ms: int) -> None:
        self._step(now_ms, Tick())

    def campaign(self, now_ms: int) -> None:
        self._step(now_ms, Campaign())

    def receive(
        self, now_ms: int, sender: MemberId, message: Message, entries: Sequence[Entry] = ()
    ) -> None:
        """Take in a message and the payloads beside it."""
        self._received = {id(message): list(entries)}
        self._step(now_ms, Received(sender, message))

    def propose(self, payload: str, size_bytes: int) -> Index:
        """Append an entry of this leader's term."""
        entry = Entry(self.group.term, payload, size_bytes)
        index = self._append(entry)
        self._perform(self.group.appended(index))
        return index

    def _append_configuration(self, configuration: Configuration) -> None:
        entry = Entry(self.group.term, f"members {configuration}", 1, configuration)
        index = self._append(entry)
        self._perform(self.group.configuration_appended(index, configuration))

    def log_configuration(self) -> Configuration:
        """Return the latest configuration in the log, by looking at all of it."""
        config, log = self.config, self.log
        found = log.base or Configuration(config.voters, config.outgoing, config.learners)
        for _index, later in log.configurations(log.first_index, log.last_index):
            found = later
        return found

    def event(self, now_ms: int, event: Event) -> None:
        """Take in an event that is no message: a transfer, a change, a death."""
        self._step(now_ms, event)

    def start_write(self) -> Write | None:
        """Begin one group commit with everything not yet written; None when there is nothing."""
        if not self._is_unwritten:
            return None
        self._is_unwritten = False
        votes, self._votes_unwritten = self._votes_unwritten, []
        count = len(self.disk.records)
        write = Write(count, votes, self.log.last_index, self.group.truncations)
        self.writes.append(write)
        return write

    def finish_write(self, now_ms: int) -> None:
        """Complete the oldest write and tell the group, in WAL order."""
        write = self.writes.popleft()
        self.disk.sync(write.count)
        for vote in write.votes:
            self._step(now_ms, VotePersisted(vote.term, vote.voted_for))
        self._perform(self.group.persisted(write.last_index, write.truncations))

    def _step(self, now_ms: int, event: Event) -> None:
        self._perform(self.group.step(now_ms, event))

    def _perform(self, effects: Sequence[Effect]) -> None:
        new_leader: BecameLeader | None = None
        for effect in effects:
            self.watcher.performed(self, effect)
            match effect:
                case Send():
                    self._send(effect)
                case AppendEntries():
                    self._append_received(effect)
                case Truncate():
                    self.log.truncate(effect.from_index)
                    self._write(TruncateNote(effect.from_index))
                case PersistVote():
                    note = VoteNote(effect.term, effect.voted_for)
                    self._votes_unwritten.append(note)
                    self._write(note)
                case BecameLeader():
                    new_leader = effect
                case AppendConfiguration():
                    self._append_configuration(effect.configuration)
                case SendSnapshot():
                    self._send_snapshot(effect)
                case InstallSnapshot():
                    self._install(effect.message)
                case (
                    Committed()
                    | MadeGood()
                    | BecameFollower()
                    | BecameCandidate()
                    | ChangeRefused()
                    | TransferEnded()
                ):
                    pass
                case _:
                    assert_never(effect)
        if new_leader is not None:
            self.propose(f"{NEW_LEADER}{new_leader.term}", 1)

    def _send(self, effect: Send) -> None:
        entries: list[Entry] = []
        message = effect.message
        if isinstance(message, Append):
            indexes = range(message.prev_index + 1, message.last_index + 1)
            entries = [self.log.entry_at(Index(index)) for index in indexes]
        self.transmit(self.node, effect.to, message, entries)

    def _send_snapshot(self, effect: SendSnapshot) -> None:
        """Send what the log begins behind; the bytes beside it are an entry of that place."""
        log = self.log
        last_index = Index(log.first_index - 1)
        term = log.term_at(last_index)
        message = Snapshot(effect.term, effect.round, last_index, term)
        beside = [Entry(term, "snapshot", 1, log.base)]
        self.watcher.performed(self, Send(effect.to, message))
        self.transmit(self.node, effect.to, message, beside)

    def _install(self, message: Snapshot) -> None:
        (entry,) = self._received[id(message)]
        self.log.begin_anew(message.last_index, entry)
        self._write(InstallNote(message.last_index, entry))
        config = self.config
        beginning = Configuration(config.voters, config.outgoing, config.learners)
        self.group.installed(entry.configuration or beginning)

    def _append_received(self, effect: AppendEntries) -> None:
        entries = self._received[id(effect.message)]
        assert len(entries) == effect.message.last_index - effect.message.prev_index
        for entry in entries[effect.first_index - effect.message.prev_index - 1 :]:
            self._append(entry)

    def _append(self, entry: Entry) -> Index:
        index = self.log.append(entry)
        self._write(entry)
        self.watcher.appended(self, index, entry)
        return index

    def _write(self, note: WalRecord) -> None:
        self.disk.records.append(note)
        self._is_unwritten = True
