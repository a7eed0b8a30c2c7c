"""The commands of the raft scripts: a cluster in memory where nothing happens by itself.

    cluster N [setting=value ..]     make N stopped nodes, 1 to N, with empty disks
    node N [log=1,1,2] [term=T] [vote=V] [committed=C]   what its disk holds
    start [N]                        start one node or all of them
    wait ms=M | tick N [ms=M]        let time pass; then let a node look at the clock
    campaign N                       as if its election timer had run out
    write N | written N | persist N  begin a WAL write, complete the oldest one, both
    deliver | drop [from=] [to=] [kind=] [count=]   the messages on their way now, oldest first
    propose N [count=] [bytes=]      append entries at the leader
    heartbeat N                      what the frame of every 100 ms says of this group
    settle                           persist and deliver until all is quiet; prints the status
    trim N first=I                   forget the entries before I, as retention does
    crash N | status | messages

The status calls a leader that may serve "established".

Messages print as `1 -> 2 Kind(..)`, effects under the node that has them. Jitter is 0 and rounds
count from 0, so that an answer can be read.
"""

from collections.abc import Callable

from corelane.model.ids import Index, MemberId, Term
from corelane.model.record import record
from corelane.raft.config import RaftConfig, RaftSettings
from corelane.raft.effects import Effect, Send
from corelane.raft.messages import Heartbeat, Message
from tests.simulation.raft_replica import GROUP, Disk, Entry, Replica, VoteNote


class NoJitter:
    """Always the smallest number."""

    def randrange(self, stop: int, /) -> int:
        assert stop > 0
        return 0


@record
class Flying:
    """A message on its way."""

    sender: MemberId
    to: MemberId
    message: Message
    entries: list[Entry]


class Script:
    """A cluster, a clock that stands still, and the lines printed by the present command."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.round = 0
        self.replicas: dict[MemberId, Replica] = {}
        self.flying: list[Flying] = []
        self.lines: list[str] = []
        self.proposed = 0

    def handle(self, command: str, arguments: list[str]) -> str:
        """Run one command and return what it printed."""
        self.lines = []
        words = [word for word in arguments if "=" not in word]
        options = dict(word.split("=", 1) for word in arguments if "=" in word)
        commands: dict[str, Callable[[list[str], dict[str, str]], None]] = {
            "cluster": self._cluster,
            "node": self._node,
            "start": self._start,
            "wait": self._wait,
            "tick": self._tick,
            "campaign": self._campaign,
            "write": self._write,
            "written": self._written,
            "persist": self._persist,
            "deliver": self._deliver,
            "drop": self._drop,
            "propose": self._propose,
            "heartbeat": self._heartbeat,
            "settle": self._settle,
            "trim": self._trim,
            "crash": self._crash,
            "status": self._status,
            "messages": self._messages,
        }
        commands[command](words, options)
        return "\n".join(self.lines)

    # -- Watcher and transmitter ----------------------------------------------------------------

    def performed(self, replica: Replica, effect: Effect) -> None:
        if not isinstance(effect, Send):
            self.lines.append(f"{replica.node}: {effect}")

    def appended(self, replica: Replica, index: Index, entry: Entry) -> None:
        """Scripts see the effect, not the entry."""

    def transmit(
        self, sender: MemberId, to: MemberId, message: Message, entries: list[Entry]
    ) -> None:
        self.lines.append(f"{sender} -> {to} {message}")
        self.flying.append(Flying(sender, to, message, entries))

    # -- Commands -------------------------------------------------------------------------------

    def _cluster(self, words: list[str], options: dict[str, str]) -> None:
        nodes = tuple(MemberId(node) for node in range(1, int(words[0]) + 1))
        settings = RaftSettings(**{name: int(value) for name, value in options.items()})
        self.replicas = {}
        self.flying = []
        for node in nodes:
            config = RaftConfig(GROUP, node, nodes, settings)
            self.replicas[node] = Replica(config, NoJitter(), self.transmit, self)

    def _node(self, words: list[str], options: dict[str, str]) -> None:
        replica = self._replica(words)
        terms = [Term(int(term)) for term in options.get("log", "").split(",") if term]
        entries = [Entry(term, f"{term}.{index}") for index, term in enumerate(terms, 1)]
        term = Term(int(options.get("term", terms[-1] if terms else 0)))
        disk = Disk()
        disk.records = [*entries, VoteNote(term, MemberId(int(options.get("vote", -1))))]
        disk.sync(len(disk.records))
        replica.disk = disk
        replica.committed_kept = Index(int(options.get("committed", 0)))

    def _start(self, words: list[str], options: dict[str, str]) -> None:
        for replica in [self._replica(words)] if words else self.replicas.values():
            replica.start(self.now_ms)

    def _wait(self, words: list[str], options: dict[str, str]) -> None:
        self.now_ms += int(options["ms"])

    def _tick(self, words: list[str], options: dict[str, str]) -> None:
        self.now_ms += int(options.get("ms", 0))
        self._replica(words).tick(self.now_ms)

    def _campaign(self, words: list[str], options: dict[str, str]) -> None:
        self._replica(words).campaign(self.now_ms)

    def _write(self, words: list[str], options: dict[str, str]) -> None:
        if self._replica(words).start_write() is None:
            self.lines.append("nothing to write")

    def _written(self, words: list[str], options: dict[str, str]) -> None:
        self._replica(words).finish_write(self.now_ms)

    def _persist(self, words: list[str], options: dict[str, str]) -> None:
        replica = self._replica(words)
        replica.start_write()
        while replica.writes:
            replica.finish_write(self.now_ms)

    def _take(self, options: dict[str, str]) -> list[Flying]:
        def fits(flying: Flying) -> bool:
            seen = {
                "from": str(flying.sender),
                "to": str(flying.to),
                "kind": type(flying.message).__name__,
            }
            return all(seen[key] == value for key, value in options.items() if key != "count")

        count = int(options.get("count", len(self.flying)))
        taken = [flying for flying in self.flying if fits(flying)][:count]
        self.flying = [
            flying for flying in self.flying if not any(flying is other for other in taken)
        ]
        return taken

    def _deliver(self, words: list[str], options: dict[str, str]) -> None:
        taken = self._take(options)
        if not taken:
            self.lines.append("no message")
        for flying in taken:
            replica = self.replicas[flying.to]
            if replica.is_up:
                replica.receive(self.now_ms, flying.sender, flying.message, flying.entries)

    def _drop(self, words: list[str], options: dict[str, str]) -> None:
        self.lines = [f"{one.sender} -> {one.to} {one.message}" for one in self._take(options)]

    def _propose(self, words: list[str], options: dict[str, str]) -> None:
        for _ in range(int(options.get("count", 1))):
            self.proposed += 1
            size_bytes = int(options.get("bytes", 1))
            self._replica(words).propose(f"p{self.proposed}", size_bytes)

    def _heartbeat(self, words: list[str], options: dict[str, str]) -> None:
        leader = self._replica(words)
        self.round += 1
        for node in self.replicas:
            if node != leader.node:
                beat: Heartbeat = leader.group.heartbeat(node, self.round)
                self.transmit(leader.node, node, beat, [])

    def _settle(self, words: list[str], options: dict[str, str]) -> None:
        for _ in range(1000):
            if not self.flying and not any(self._busy()):
                break
            for replica in self._busy():
                self._persist([str(replica.node)], {})
            if self.flying:
                self._deliver([], {})
        else:
            self.lines.append("never quiet")
        self.lines = []
        self._status([], {})

    def _busy(self) -> list[Replica]:
        return [
            replica
            for replica in self.replicas.values()
            if replica.writes or len(replica.disk.records) > replica.disk.durable_count
        ]

    def _trim(self, words: list[str], options: dict[str, str]) -> None:
        self._replica(words).log.trim(Index(int(options["first"])))

    def _crash(self, words: list[str], options: dict[str, str]) -> None:
        self._replica(words).crash(survivors=0)

    def _status(self, words: list[str], options: dict[str, str]) -> None:
        for node, replica in self.replicas.items():
            if not replica.is_up:
                self.lines.append(f"{node} down")
                continue
            group = replica.group
            terms = ",".join(str(entry.term) for entry in replica.log.entries())
            trimmed = f"{replica.log.first_index}:" if replica.log.first_index > 1 else ""
            role = "established" if group.is_established else group.role.name.lower()
            self.lines.append(
                f"{node} {role} term={group.term} vote={group.voted_for}"
                f" leader={group.leader} log={trimmed}{terms} durable={group.durable_index}"
                f" committed={group.committed_index}"
            )

    def _messages(self, words: list[str], options: dict[str, str]) -> None:
        self.lines = [f"{one.sender} -> {one.to} {one.message}" for one in self.flying]

    def _replica(self, words: list[str]) -> Replica:
        return self.replicas[MemberId(int(words[0]))]
