"""Groups on their way from one core of the node to another: planned on core 0, done by the two.

A move, seen by clients as a change of leader:
1. Core 0 tells the source (MOVE). The source appends nothing more; what is on its way becomes
   durable and is answered.
2. The source writes all whole blocks, and sends the rest with the group's state (PARCEL).
3. The target links the segment files into its own directory and puts it all into its log; once that
   is durable it owns the group at the next revision, and says so to everybody (TAKEN).
4. The source forgets the group; core 0 makes the target its home, where it is opened and led.

Invariants:
V1. A source gives its group up only when the target's copy is durable, and serves it again only
    when it is known that the target has none: of a target that died meanwhile, its next HELLO says.
V2. Nothing is appended to a group between step 1 and its end.
V3. While it is not known whether a target has a group of a source that died, the group is *frozen*:
    core 0 names no home for it, so the source's next life does not open it. The target is asked,
    and answers when nothing of the source's former life can come any more.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from corelane.cluster.binary import Reader, Writer
from corelane.cluster.placement import place_core
from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, Index
from corelane.model.record import record
from corelane.raft.events import TransferLeadership
from corelane.shard.effects import Emptied
from corelane.shard.links import Kind, Link
from corelane.shard.partition import Partition
from corelane.shard.siblings import Home
from corelane.storage.group_log import GroupLog
from corelane.storage.parcel import Parcel

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

UNDER_WAY_MAX: Final = 16
"""Moves at a time: each makes a partition unavailable for two group commits and a sync."""
CHECK_MS: Final = 2 * limits.TICK_MS
"""How often a source looks whether everything is answered, beside every commit."""

Told = Callable[[str], None]
"""Hears why a move failed, or "" when it is done."""


@record
class Wish:
    """A move that core 0 has planned."""

    group: GroupId
    target: CoreId
    told: Told


RETRY_MS: Final = 5 * limits.TICK_MS
"""How often to look whether a group that is to leave is served yet."""


EMPTY_AGAIN_MS: Final = 5_000
"""When a group of a retired core that could not be moved is to be moved again."""
HAND_OVER_MS_MAX: Final = 2_000
"""How long a leader that moves looks for another one, and a follower for the end of its tail."""


class Leaving:
    """A group that this core hands over."""

    __slots__ = (
        "began_ms",
        "is_done",
        "is_exporting",
        "moves",
        "partition",
        "sent_over",
        "target",
    )

    def __init__(self, moves: "Moves", partition: Partition, target: CoreId) -> None:
        self.moves = moves
        self.partition = partition
        self.target = target
        self.began_ms = moves.now_ms
        self.is_exporting = False
        self.sent_over: Link | None = None  # the way to that life of the target that got it
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Look whether everything is committed, and again later if it is not."""
        self.moves.look(self)
        if not self.is_exporting and not self.is_done:
            self.moves.look_later(self, now_ms + CHECK_MS)


class _Retry:
    """A group that is to leave and is not served yet."""

    __slots__ = ("group", "is_done", "moves", "target")

    def __init__(self, moves: "Moves", group: GroupId, target: CoreId) -> None:
        self.moves = moves
        self.group = group
        self.target = target
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Try again."""
        del now_ms
        self.is_done = True
        self.moves.leave(self.group, self.target)


class _Remnant:
    """A group of a retired core that could not be moved yet."""

    __slots__ = ("group", "is_done", "moves")

    def __init__(self, moves: "Moves", group: GroupId) -> None:
        self.moves = moves
        self.group = group
        self.is_done = False

    def expire(self, now_ms: int) -> None:
        """Try again."""
        del now_ms
        self.is_done = True
        self.moves.empty(self.group)


def _may_leave(partition: Partition) -> bool:
    if partition.is_replicated:
        return not partition.is_damaged and not partition.is_dropped
    return partition.serves


class Moves:
    """All moves this core takes part in."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._leaving: dict[GroupId, Leaving] = {}
        self._planned: deque[Wish] = deque()
        self._under_way: dict[GroupId, Wish] = {}
        self.frozen: set[GroupId] = set()
        self._asked: list[tuple[GroupId, CoreId, int]] = []
        """Of the questions (ASK_TAKEN) that came too early: group, its source, that one's life."""
        self._is_emptied = False

    @property
    def is_busy(self) -> bool:
        """Whether a move is planned or under way (core 0)."""
        return bool(self._planned or self._under_way)

    @property
    def now_ms(self) -> int:
        """Return the time of this turn."""
        return self._shard.now_ms

    # --- planning, on core 0 ---

    def plan(self) -> None:
        """Empty retired cores; when there are more cores than before, even the groups out.

        Otherwise a start moves nothing: an operator may have put a group where it is.
        """
        siblings = self._groups.siblings
        core_count = self._shard.config.core_count
        loads = siblings.loads()
        share = -(-len(siblings.homes) // core_count)
        for group, home in sorted(siblings.homes.items()):
            told: Told = _nobody
            if home.core >= core_count:
                target = place_core(group, loads)
                told = partial(self._emptied, group)
            elif self._groups.is_resized and loads[home.core] > share:
                target = CoreId(loads.index(min(loads)))
                loads[home.core] -= 1
            else:
                continue
            loads[target] += 1
            self.want(group, target, told)

    def empty(self, group: GroupId) -> None:
        """Move a group that is on a retired core, still, to one that serves (core 0)."""
        siblings = self._groups.siblings
        home = siblings.homes.get(group)
        if home is not None and home.core >= self._shard.config.core_count:
            target = place_core(group, siblings.loads())
            self.want(group, target, partial(self._emptied, group))

    def _emptied(self, group: GroupId, why: str) -> None:
        """Try it again if it failed: a retired core stays until it owns nothing."""
        if why:
            at_ms = self._shard.now_ms + EMPTY_AGAIN_MS
            self._shard.deadlines.add(at_ms, _Remnant(self, group))

    def want(self, group: GroupId, target: CoreId, told: Told) -> None:
        """Have a group moved; *told* hears the outcome."""
        self._planned.append(Wish(group, target, told))
        self._begin()

    def _begin(self) -> None:
        siblings = self._groups.siblings
        waiting: list[Wish] = []
        while self._planned and len(self._under_way) < UNDER_WAY_MAX:
            wish = self._planned.popleft()
            home = siblings.homes.get(wish.group)
            if home is None:
                wish.told("the partition was deleted")
            elif home.core == wish.target:
                wish.told("")
            elif wish.group in self._under_way:
                wish.told("the partition is being moved already")
            elif not self._order(wish, home.core):
                waiting.append(wish)  # a core is away, and comes back in a moment
        self._planned.extend(waiting)

    def _order(self, wish: Wish, source: CoreId) -> bool:
        """Tell the source; return whether it, and the target, can be reached."""
        siblings, own = self._groups.siblings, self._shard.config.core
        if any(core != own and siblings.links.to(core) is None for core in (source, wish.target)):
            return False
        self._under_way[wish.group] = wish
        if source == own:
            self.leave(wish.group, wish.target)
        else:
            link = siblings.links.to(source)
            assert link is not None
            link.send(Kind.MOVE, 0, _numbers(wish.group, wish.target))
        return True

    def _ended(self, group: GroupId, why: str) -> None:
        wish = self._under_way.pop(group, None)
        if group in self.frozen:
            self.frozen.discard(group)
            self._groups.siblings.confirm(group)
        if wish is not None:
            wish.told(why)
        self._begin()

    # --- frames ---

    def link_frame(self, link: Link, kind: Kind, number: int, body: bytes) -> None:
        """Act on a frame of a move."""
        del number
        reader = Reader(body)
        group = GroupId(reader.uint())
        if kind == Kind.MOVE:
            self.leave(group, CoreId(reader.uint(limits.CORES_MAX)))
        elif kind == Kind.ASK_TAKEN:
            self._asked.append((group, CoreId(reader.uint(limits.CORES_MAX)), reader.uint()))
            self._answer_asked()
        elif kind == Kind.PARCEL:
            self._take(link, group, reader)
        else:
            self._taken(link.core, group, reader)

    # --- the source ---

    def leave(self, group: GroupId, target: CoreId) -> None:
        """Begin to hand a group over, as soon as it is served here."""
        partition = self._groups.members.get(group)
        if group in self._leaving:
            return
        if not isinstance(partition, Partition) or not _may_leave(partition):
            is_damaged = partition is not None and partition.is_damaged
            if group in self._shard.store.groups and not is_damaged:
                # It is being opened, as after a start; its tail commits when it leads.
                self._shard.deadlines.add(
                    self._shard.now_ms + RETRY_MS, _Retry(self, group, target)
                )
            else:
                self._tell_controller(group, 0, "the partition is not served by its core")
            return
        leaving = Leaving(self, partition, target)
        self._leaving[group] = leaving
        partition.leave(partial(self.look, leaving))
        leaving.expire(self._shard.now_ms)

    def look(self, leaving: Leaving) -> None:
        """Go on when everything that was appended is committed."""
        partition = leaving.partition
        is_over = leaving.is_done or self._leaving.get(partition.group) is not leaving
        if is_over or leaving.is_exporting:
            return
        log = partition.log
        is_quiet = log.committed_index == log.last_index and not partition.has_waits
        if partition.is_replicated and not self._has_handed_over(leaving, is_quiet=is_quiet):
            return
        if is_quiet:
            leaving.is_exporting = True
            self._shard.store.export_group(log, partial(self._exported, leaving))

    def _has_handed_over(self, leaving: Leaving, *, is_quiet: bool) -> bool:
        """Let another replica lead while this one moves; one with an open tail waits for that.

        It takes no entries meanwhile (`Peering.bring`), so its tail is committed soon, or cut by a
        leader that has another one: then it must go on following first.
        """
        now_ms, partition = self._shard.now_ms, leaving.partition
        raft = partition.raft
        is_late = now_ms - leaving.began_ms > HAND_OVER_MS_MAX
        if not raft.is_leader:
            if is_late and not is_quiet:
                self._resume(leaving, "it has entries of which nobody knows if they are committed")
            return is_quiet
        if is_quiet and is_late:
            partition.perform(raft.step_down())  # nobody can take over: all wait for this one
            return True
        if not raft.is_transferring:
            others = [each for each in raft.configuration.voters if each != raft.self_id]
            ready = [each for each in others if raft.is_caught_up(each)]
            if ready:
                partition.step(now_ms, TransferLeadership(ready[0]))
        return False

    def look_later(self, leaving: Leaving, at_ms: int) -> None:
        """Look again at a time."""
        self._shard.deadlines.add(at_ms, leaving)

    def _exported(self, leaving: Leaving, parcel: Parcel | None) -> None:
        """Send what the segments do not hold to the target."""
        partition = leaving.partition
        if self._leaving.get(partition.group) is not leaving or partition.is_dropped:
            return
        link = self._groups.siblings.links.to(leaving.target)
        if parcel is None or link is None:
            self._resume(leaving, "its files cannot be written, or the other core is away")
            return
        out = Writer()
        out.uint(partition.group)
        out.uint(partition.log.descriptor.revision + 1)
        out.uint(partition.raft.committed_index)
        out.blob(partition.kept.encode())
        out.blob(parcel.encode())
        leaving.sent_over = link
        link.send(Kind.PARCEL, 0, bytes(out.data))

    def _taken(self, core: CoreId, group: GroupId, reader: Reader) -> None:
        """The target has the group, or says why not; core 0 hears it too."""
        revision = reader.uint()
        why = reader.text(limits.CONFIG_VALUE_BYTES_MAX)
        leaving = self._leaving.get(group)
        if leaving is not None and leaving.target == core:
            if why:
                self._resume(leaving, why)
            else:
                self._gone(leaving)
        if self._groups.siblings.is_controller:
            if why:
                self._ended(group, why)
            else:
                self.arrived(core, group, revision)

    def arrived(self, core: CoreId, group: GroupId, revision: int) -> None:
        """Make the core that has a group now its home (core 0)."""
        self._groups.siblings.moved(group, Home(core, revision))
        self._ended(group, "")

    def _gone(self, leaving: Leaving) -> None:
        leaving.is_done = True
        del self._leaving[leaving.partition.group]
        if not leaving.partition.is_dropped:
            self._groups.release(leaving.partition)

    def _resume(self, leaving: Leaving, why: str) -> None:
        """Serve the group again: nobody took it (V1)."""
        leaving.is_done = True
        group = leaving.partition.group
        del self._leaving[group]
        if not leaving.partition.is_dropped:
            self._shard.store.keep_group(leaving.partition.log)
            leaving.partition.stay()
            if leaving.partition.serves:
                self._groups.siblings.led(group, leaving.partition.raft.term)
        self._tell_controller(group, 0, why)

    def sibling_gone(self, core: CoreId) -> None:
        """A sibling died: what was not sent to it yet stays; what was, waits for its return."""
        for leaving in [*self._leaving.values()]:
            if leaving.target == core and leaving.sent_over is None:
                self._resume(leaving, "the other core died")
        for group in self._under_way:
            home = self._groups.siblings.homes.get(group)
            if home is not None and home.core == core:
                self.frozen.add(group)

    def sibling_up(self, link: Link) -> None:
        """A sibling's new life can be reached: ask it, or about it, what became of moves (V3)."""
        siblings = self._groups.siblings
        for group in [*self.frozen]:
            wish, home = self._under_way[group], siblings.homes.get(group)
            if home is None:
                self._ended(group, "the partition was deleted")
                continue
            source = siblings.links.to(home.core)
            if source is None or link.core not in {home.core, wish.target}:
                continue
            if wish.target == self._shard.config.core:
                self._asked.append((group, home.core, source.boot))
            elif (target := siblings.links.to(wish.target)) is not None:
                target.send(Kind.ASK_TAKEN, 0, _numbers(group, home.core, source.boot))
        self._answer_asked()

    def _answer_asked(self) -> None:
        """Answer the questions about groups that nothing more is on its way of."""
        siblings, store = self._groups.siblings, self._shard.store
        waiting: list[tuple[GroupId, CoreId, int]] = []
        for group, source, boot in self._asked:
            link = siblings.links.to(source)
            if link is None or link.boot < boot or group in store.moving.imports:
                waiting.append((group, source, boot))
            elif (log := store.groups.get(group)) is not None:
                self._answer(source, group, log.descriptor.revision, "")
            else:
                self._answer(source, group, 0, "the core that had it died")
        self._asked = waiting

    def sibling_back(self, link: Link, owned: dict[GroupId, int]) -> None:
        """A sibling lives again and says what it owns: decide what was left open (V1).

        What was sent to this very life may have crossed its HELLO: its TAKEN will tell.
        """
        for leaving in [*self._leaving.values()]:
            if leaving.target != link.core or leaving.sent_over in {None, link}:
                continue
            group = leaving.partition.group
            if owned.get(group, 0) > leaving.partition.log.descriptor.revision:
                self._gone(leaving)
                self._tell_controller(group, owned[group], "")
            else:
                self._resume(leaving, "the other core died")
        if self._groups.siblings.is_controller:
            self._begin()

    def forget(self, groups: Iterable[GroupId]) -> None:
        """The topic is deleted: nothing of it goes anywhere."""
        for group in groups:
            leaving = self._leaving.pop(group, None)
            if leaving is not None:
                leaving.is_done = True
            if self._groups.siblings.is_controller:
                self._ended(group, "the partition was deleted")

    # --- the target ---

    def _take(self, link: Link, group: GroupId, reader: Reader) -> None:
        """Own the group in a parcel from now on, if the disk lets us."""
        revision = reader.uint()
        fold = (Index(reader.uint()), reader.blob(limits.INT32_MAX))
        parcel = Parcel.decode(reader.blob(limits.INT32_MAX))
        source = link.core

        def imported(log: GroupLog | None, why: str) -> None:
            if log is not None:
                self._groups.took(group, fold)
            self._answer(source, group, revision, why)
            self._answer_asked()

        if group in self._shard.store.groups:
            self._answer(source, group, 0, "the core has a group of that number")
        else:
            self._shard.store.import_group(parcel, revision, fold, source, imported)

    def _answer(self, source: CoreId, group: GroupId, revision: int, why: str) -> None:
        siblings, own = self._groups.siblings, self._shard.config.core
        body = _numbers(group, revision) + _text(why)
        for core in {source, CoreId(0)}:
            link = siblings.links.to(core)
            if core != own and link is not None:
                link.send(Kind.TAKEN, 0, body)
        if siblings.is_controller:
            if why:
                self._ended(group, why)
            else:
                self.arrived(own, group, revision)

    def _tell_controller(self, group: GroupId, revision: int, why: str) -> None:
        """Tell core 0 how a move ended for its source."""
        siblings = self._groups.siblings
        if siblings.is_controller:
            self._ended(group, why)  # of one that was taken its new core's HELLO tells
            return
        link = siblings.links.to(CoreId(0))
        if link is not None and why:
            link.send(Kind.TAKEN, 0, _numbers(group, revision) + _text(why))

    # --- leaving for good ---

    def look_for_end(self) -> None:
        """A retired core that owns nothing any more says so, once."""
        shard, groups = self._shard, self._groups
        if shard.config.core < shard.config.core_count or self._is_emptied:
            return
        if groups.is_reconciled and not groups.owned() and shard.store.is_idle:
            self._is_emptied = True
            shard.effects.append(Emptied())


def _numbers(*values: int) -> bytes:
    out = Writer()
    for value in values:
        out.uint(value)
    return bytes(out.data)


def _text(value: str) -> bytes:
    out = Writer()
    out.text(value)
    return bytes(out.data)


def _nobody(why: str) -> None:
    """Nobody waits for this move: the next start plans it again."""
    del why
