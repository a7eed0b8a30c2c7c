"""What the cores of a node tell each other: the cluster's fold, who owns which group, who leads it.

Core 0 has the controller's log. It sends the fold to its siblings and decides which core is the
*home* of a group; who leads what every core tells every other. All of it is soft state: a link
that comes up again carries the whole of it (HELLO, SNAPSHOT, HOMES), so nothing is re-sent one by
one.

Invariants:
N1. Core 0 gives out homes only after it heard from every core of the node which groups that core
    owns: a group that exists is never made a second time, empty (`is_settled`).
N2. Of two cores that own a group after a crash, the one with the higher revision is its home; the
    other discards its copy, which the move left behind (storage/FORMAT.md).
N3. A core opens a group only when HOMES says that it is its home, and after the fold named it.
N4. A HELLO is final: it is sent only when no group is being taken over, so that who hears it knows
    what the sender owns and will own.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, assert_never

from corelane.cluster.binary import Reader, Writer
from corelane.cluster.commands import decode as decode_command
from corelane.cluster.difference import difference
from corelane.cluster.metadata import Cluster
from corelane.cluster.placement import place_core
from corelane.model import limits
from corelane.model.ids import CONTROLLER_GROUP, CoreId, GroupId, Index, Term
from corelane.model.record import record
from corelane.shard.events import LinkDown, LinkFrame, LinkUp
from corelane.shard.links import HEAD_BYTES, Kind, Link, Links
from corelane_native import bytes_at

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

CONTROLLER_CORE: Final = CoreId(0)
_FLAG_WHOLE: Final = 1
"""HOMES: this is the whole table, not a change to it."""


@record
class Home:
    """The core that owns a group, and how often the group has moved until it was there."""

    core: CoreId
    revision: int


class Siblings:
    """One core's view of its node."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self.links = Links(shard)
        self.homes: dict[GroupId, Home] = {}
        self.leads: dict[GroupId, tuple[CoreId, Term]] = {}
        """What siblings lead; of this core, its members say it."""
        self.is_settled = False
        self._reports: dict[CoreId, dict[GroupId, int]] = {}
        config = shard.config
        self._expected = {*map(CoreId, range(config.core_count)), *config.retired}
        self._loads = [0] * config.core_count
        self._led: list[tuple[GroupId, Term]] = []
        self._is_asking_ids = False
        self._to_greet: list[Link] = []

    @property
    def is_controller(self) -> bool:
        """Whether the controller's log is this core's."""
        return self._shard.config.core == CONTROLLER_CORE

    # --- events ---

    def link_up(self, event: LinkUp) -> None:
        """Tell a sibling's new life everything it has to know of this core."""
        link = self.links.up(event.conn, event.core, event.boot, is_retired=event.is_retired)
        self._to_greet.append(link)
        self._greet()
        self._groups.moves.sibling_up(link)
        if self.is_controller:
            if self._groups.is_established:
                link.send(Kind.SNAPSHOT, 0, self._groups.cluster.encode())
            if self.is_settled:
                self._send_homes(link)
        elif event.core == CONTROLLER_CORE:
            self._is_asking_ids = False
            self._groups.id_blocks.lost()

    def _greet(self) -> None:
        """Say HELLO where it is due, unless that may change in a moment (N4)."""
        if self._shard.store.moving.imports:
            return
        greeted, self._to_greet = self._to_greet, []
        for link in greeted:
            out = Writer()
            _write_pairs(out, self._groups.owned().items())
            _write_pairs(out, self._groups.led())
            link.send(Kind.HELLO, 0, bytes(out.data))

    def link_down(self, event: LinkDown) -> None:
        """Take note of a sibling's death."""
        link = self.links.down(event.conn)
        if link is None:
            return
        self._reports.pop(link.core, None)
        self._groups.moves.sibling_gone(link.core)
        self._groups.asking.lost((self._shard.config.node, link.core))
        if link.core == CONTROLLER_CORE and not self.is_controller:
            self._is_asking_ids = False

    def link_frame(self, frame: LinkFrame) -> None:
        """Act on what a sibling says."""
        link = self.links.of(frame.conn)
        if link is None:
            return
        kind = Kind(frame.kind)
        match kind:
            case Kind.FORWARD:
                self._shard.visit(link, frame)
            case Kind.ANSWER:
                link.answered(frame)
            case Kind.CANCEL:
                link.hurry(frame.number)
            case Kind.CLOSE:
                origin = int.from_bytes(_body(frame), "big", signed=True)
                self._shard.refuse_forwarded(origin)
            case Kind.HELLO:
                self._hello(link, Reader(_body(frame)))
            case Kind.SNAPSHOT:
                self._snapshot(Cluster.decode(_body(frame)))
            case Kind.COMMAND:
                self._command(Reader(_body(frame)))
            case Kind.HOMES:
                self._take_homes(Reader(_body(frame)), is_whole=bool(frame.flags & _FLAG_WHOLE))
            case Kind.LEADS:
                self._take_leads(link.core, Reader(_body(frame)))
            case Kind.ASK_IDS if self.is_controller:
                self._groups.registration.propose_producer_ids(link.core)
            case Kind.ASK_IDS:  # it is refused
                self._is_asking_ids = False
                self._groups.id_blocks.refused()
            case Kind.PROPOSE:
                if self.is_controller:
                    self._groups.propose(decode_command(_body(frame)), _ignored)
            case Kind.RAFT:
                if self._groups.peering is not None:
                    self._groups.peering.passed(_body(frame))
            case Kind.ASK:
                self._groups.asking.asked(link, frame.number, _body(frame))
            case Kind.TOLD:
                self._groups.asking.told(link.core, frame.number, _body(frame))
            case Kind.MOVE | Kind.PARCEL | Kind.TAKEN | Kind.ASK_TAKEN:
                self._groups.moves.link_frame(link, kind, frame.number, _body(frame))
            case _:
                assert_never(kind)

    # --- the fold ---

    def established(self) -> None:
        """The controller's log is known to this core: pass the whole fold on."""
        blob = self._groups.cluster.encode()
        for link in self.links.all():
            link.send(Kind.SNAPSHOT, 0, blob)
        self._settle()

    def applied(self, index: Index, payload: bytes) -> None:
        """Pass a command on that core 0 has just applied."""
        links = self.links.all()
        if links:
            out = Writer()
            out.uint(index)
            body = bytes(out.data) + payload
            for link in links:
                link.send(Kind.COMMAND, 0, body)

    def _snapshot(self, cluster: Cluster) -> None:
        """Take over the fold, as the difference to the one known before."""
        assert not self.is_controller, "only core 0 has the log"
        groups = self._groups
        former = groups.cluster
        assert cluster.applied_index >= former.applied_index, "what is committed stays"
        groups.mirrored(cluster, difference(former, cluster))

    def _command(self, reader: Reader) -> None:
        groups = self._groups
        index = Index(reader.uint())
        payload = reader.rest()
        if not groups.is_established or index <= groups.cluster.applied_index:
            return  # the SNAPSHOT that follows, or came before, has it
        for change in groups.cluster.apply(index, decode_command(payload)):
            groups.changed(change)

    # --- homes ---

    def home_of(self, group: GroupId) -> CoreId | None:
        """Return which core owns a group; None: not known yet."""
        home = self.homes.get(group)
        return None if home is None else home.core

    def created(self, new: Mapping[GroupId, int]) -> None:
        """Give new groups a home (core 0): the core that was asked for, where there is such a one.

        They are in nobody's log yet: no report is needed.
        """
        assert self.is_controller
        given = {group: self._place(group, core) for group, core in new.items()}
        self.homes |= given
        if self.is_settled:
            self._broadcast_homes(given)

    def deleted(self, gone: Iterable[GroupId]) -> None:
        """Forget groups of a deleted topic, or that have no replica on this node any more."""
        for group in gone:
            home = self.homes.pop(group, None)
            if home is not None and home.core < len(self._loads):
                self._loads[home.core] -= 1
            self.leads.pop(group, None)

    def moved(self, group: GroupId, home: Home) -> None:
        """A group was taken over by another core (core 0)."""
        assert self.is_controller
        former = self.homes.get(group)
        if former is None or former.revision >= home.revision:
            return
        self._count(former, -1)
        self._count(home, 1)
        self.homes[group] = home
        self._groups.lead_changed(group)
        self._broadcast_homes({group: home})
        self._groups.rehomed([group])

    def pass_on(self, group: GroupId, body: bytes) -> bool:
        """Hand a message for a group's member to the core that has it; False: none is known."""
        home = self.homes.get(group)
        link = None if home is None else self.links.to(home.core)
        if link is None:
            return False
        link.send(Kind.RAFT, 0, body)
        return True

    def confirm(self, group: GroupId) -> None:
        """A group stays where it is although it was to move: tell those who could not know."""
        home = self.homes.get(group)
        if home is not None:
            self._broadcast_homes({group: home})

    def loads(self) -> list[int]:
        """Return how many groups each serving core is the home of."""
        return list(self._loads)

    def _count(self, home: Home, by: int) -> None:
        if home.core < len(self._loads):
            self._loads[home.core] += by

    def _place(self, group: GroupId, core: int) -> Home:
        is_there = core < len(self._loads)
        home = Home(CoreId(core) if is_there else place_core(group, self._loads), 1)
        self._count(home, 1)
        return home

    def _hello(self, link: Link, reader: Reader) -> None:
        owned = {GroupId(group): revision for group, revision in _read_pairs(reader)}
        leads = _read_pairs(reader)
        reader.end()
        for group, term in leads:
            self._led_by(link.core, GroupId(group), Term(term))
        self._groups.moves.sibling_back(link, owned)
        if not self.is_controller:
            return
        self._reports[link.core] = owned
        if not self.is_settled:
            self._settle()
            return
        for group, revision in owned.items():
            home = self.homes.get(group)
            if home is not None and home.revision < revision:
                # A move that ended while nobody could be told.
                self._groups.moves.arrived(link.core, group, revision)

    def _settle(self) -> None:
        """Decide every group's home once everybody has reported (N1, N2)."""
        groups = self._groups
        if self.is_settled or not groups.is_established:
            return
        reports = self._reports | {self._shard.config.core: groups.owned()}
        if not self._expected <= reports.keys():
            return
        found: dict[GroupId, Home] = {}
        for core in sorted(reports):
            for group, revision in reports[core].items():
                if group not in found or found[group].revision < revision:
                    found[group] = Home(core, revision)
        self._loads = [0] * len(self._loads)
        wanted = [group for group, _member in groups.residence.on_node()]
        self.homes = {group: found[group] for group in wanted if group in found}
        for home in self.homes.values():
            self._count(home, 1)
        for group in wanted:
            if group not in self.homes:
                self.homes[group] = self._place(group, groups.residence.core_wanted(group))
        self.is_settled = True
        for link in self.links.all():
            self._send_homes(link)
        groups.settled()
        groups.moves.plan()

    def retired_gone(self, core: CoreId) -> None:
        """A retired core's directory is removed: nothing is to be expected of it."""
        self._expected.discard(core)
        if self.is_controller:
            self._settle()

    def _send_homes(self, link: Link) -> None:
        frozen = self._groups.moves.frozen
        homes = {group: home for group, home in self.homes.items() if group not in frozen}
        link.send(Kind.HOMES, 0, _encode_homes(homes), _FLAG_WHOLE)

    def _broadcast_homes(self, homes: dict[GroupId, Home]) -> None:
        links = self.links.all()
        if links:
            body = _encode_homes(homes)
            for link in links:
                link.send(Kind.HOMES, 0, body)

    def _take_homes(self, reader: Reader, *, is_whole: bool) -> None:
        assert not self.is_controller
        homes: dict[GroupId, Home] = {}
        for _ in range(reader.count(limits.NODE_GROUPS_MAX)):
            group = GroupId(reader.uint())
            core = CoreId(reader.uint(limits.CORES_MAX))
            homes[group] = Home(core, reader.uint())
        reader.end()
        self.homes = homes if is_whole else self.homes | homes
        for group in homes:
            self._groups.lead_changed(group)
        if not self.is_settled:
            if is_whole:
                self.is_settled = True
                self._groups.settled()
            return
        self._groups.rehomed(homes)

    # --- who leads ---

    def lead_of(self, group: GroupId) -> tuple[CoreId, Term] | None:
        """Return which sibling leads a group, and its term; None: nobody does, or this core."""
        return self.leads.get(group)

    def led(self, group: GroupId, term: Term) -> None:
        """This core leads a group from now on; siblings hear of it at the end of the turn."""
        self._led.append((group, term))
        self.leads.pop(group, None)
        self._groups.lead_changed(group)

    def flush(self) -> None:
        """Tell the siblings what changed in this turn; once per turn."""
        if self._to_greet:
            self._greet()
        if not self._led:
            return
        led, self._led = self._led, []
        links = self.links.all()
        if links:
            out = Writer()
            _write_pairs(out, led)
            for link in links:
                link.send(Kind.LEADS, 0, bytes(out.data))

    def _take_leads(self, core: CoreId, reader: Reader) -> None:
        for group, term in _read_pairs(reader):
            self._led_by(core, GroupId(group), Term(term))
        reader.end()

    def _led_by(self, core: CoreId, group: GroupId, term: Term) -> None:
        known = self.leads.get(group)
        if known is None or known[1] <= term:
            self.leads[group] = (core, term)
            self._groups.lead_changed(group)

    # --- producer ids ---

    def ask_for_ids(self) -> None:
        """Ask core 0 for a block of producer ids; it comes as a command of the log."""
        link = self.links.to(CONTROLLER_CORE)
        if link is not None and not self._is_asking_ids:
            self._is_asking_ids = True
            link.send(Kind.ASK_IDS, 0)

    def ids_refused(self, core: CoreId) -> None:
        """Tell the core that asked that its block was not granted (core 0)."""
        link = self.links.to(core)
        if core == self._shard.config.core:
            self._groups.id_blocks.refused()
        elif link is not None:
            link.send(Kind.ASK_IDS, 0)

    def ids_came(self) -> None:
        """The block asked for is here."""
        self._is_asking_ids = False


def _ignored(changes: object) -> None:
    """Who proposed it looks at the fold."""


def _body(frame: LinkFrame) -> bytes:
    return bytes_at(frame.address + HEAD_BYTES, frame.size_bytes - HEAD_BYTES)


def _write_pairs(out: Writer, pairs: Iterable[tuple[int, int]]) -> None:
    rows = list(pairs)
    out.uint(len(rows))
    for first, second in rows:
        out.uint(first)
        out.uint(second)


def _read_pairs(reader: Reader) -> list[tuple[int, int]]:
    count = reader.count(limits.NODE_GROUPS_MAX)
    return [(reader.uint(), reader.uint()) for _ in range(count)]


def _encode_homes(homes: dict[GroupId, Home]) -> bytes:
    out = Writer()
    out.uint(len(homes))
    for group, home in homes.items():
        assert group != CONTROLLER_GROUP
        out.uint(group)
        out.uint(home.core)
        out.uint(home.revision)
    return bytes(out.data)
