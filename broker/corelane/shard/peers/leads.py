"""Who leads which group, and where its replicas are: soft state, merged from what leaders say.

    LEADS  u32 rows | rows: u64 group, u32 term, u32 revision, u32 node, u16 core, u8 members in
           sync, u8 0 | u32 node of each member in sync

Invariants:
S1. Of two rows for a group the one of the higher (term, revision) stays, in whatever order and
    however often they come. A leader raises the revision with each row of one term.
S2. A deleted group is forgotten, and a row that comes after its deletion is not believed: group
    ids are never used again.
S3. The table has at most `NODE_GROUPS_MAX` rows; beyond, new groups are not taken in. A client
    that asks for one of those is sent to a replica, which knows its leader.
"""

import struct
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from corelane.model import limits
from corelane.model.ids import CoreId, GroupId, NodeId, Term
from corelane.model.record import record
from corelane.raft.codec import TERM_MAX
from corelane.shard.peers.frames import check, unpack
from corelane.shard.peers.hello import PeerId

_COUNT: Final = struct.Struct("<I")
_ROW: Final = struct.Struct("<QIIIHBB")
_NODE: Final = struct.Struct("<I")
_ROW_BYTES_MAX: Final = _ROW.size + 2 * limits.REPLICAS_MAX * _NODE.size
_ROWS_MAX: Final = limits.PEER_LEADS_FRAME_BYTES // _ROW.size


@record
class Lead:
    """One leader's word: it leads *group* in *term*, and these nodes are in sync with it."""

    group: GroupId
    term: Term
    revision: int
    node: NodeId
    core: CoreId
    in_sync: tuple[NodeId, ...]

    @property
    def at(self) -> PeerId:
        """Return where the leader is."""
        return self.node, self.core

    @property
    def age(self) -> tuple[int, int]:
        """Return what orders the rows of a group (S1)."""
        return self.term, self.revision


def encode(leads: Iterable[Lead]) -> bytes:
    """Return the body of LEADS."""
    parts: list[bytes] = []
    for lead in leads:
        word = (lead.group, lead.term, lead.revision, lead.node, lead.core)
        nodes = b"".join([_NODE.pack(node) for node in lead.in_sync])
        parts.append(_ROW.pack(*word, len(lead.in_sync), 0) + nodes)
    return _COUNT.pack(len(parts)) + b"".join(parts)


def decode(body: memoryview) -> list[Lead]:
    """Return the rows of a frame; FrameError for what cannot be."""
    (count,) = unpack(_COUNT, body, "A table of leaders")
    check(count <= _ROWS_MAX, f"A table of {count} leaders.")
    at = _COUNT.size
    leads: list[Lead] = []
    for _ in range(count):
        check(len(body) - at >= _ROW.size, "A table of leaders is cut short.")
        group, term, revision, node, core, size, zero = _ROW.unpack_from(body, at)
        at += _ROW.size
        end = at + size * _NODE.size
        check(len(body) >= end, "A table of leaders is cut short.")
        check(0 < term <= TERM_MAX, f"Group {group} has the impossible term {term}.")
        check(0 < node <= limits.NODE_ID_MAX, f"Group {group} is led by node {node}.")
        check(core < limits.CORES_MAX, f"Group {group} is led by core {core}.")
        check(size <= 2 * limits.REPLICAS_MAX, f"Group {group} has {size} members in sync.")
        check(zero == 0, "A leader has something in a field that is 0.")
        in_sync = tuple([NodeId(each) for (each,) in _NODE.iter_unpack(body[at:end])])
        check(len(set(in_sync)) == size, f"A member of group {group} is in sync twice.")
        at = end
        word = (GroupId(group), Term(term), revision, NodeId(node), CoreId(core))
        leads.append(Lead(*word, in_sync))
    check(at == len(body), "A table of leaders has another length.")
    return leads


class Leads:
    """The table, and for each listener what it has not been told yet."""

    __slots__ = ("_by_group", "_homes", "_untold", "_was_deleted", "refused")

    def __init__(self, was_deleted: Callable[[GroupId], bool]) -> None:
        """*was_deleted* says whether a group existed and does no more (S2)."""
        self._by_group: dict[GroupId, Lead] = {}
        self._untold: dict[PeerId, dict[GroupId, None]] = {}
        self._homes: dict[GroupId, dict[NodeId, CoreId]] = {}
        self._was_deleted = was_deleted
        self.refused = 0
        """Rows not taken in: of deleted groups, or for want of room."""

    def __len__(self) -> int:
        return len(self._by_group) + len(self._homes) + sum(map(len, self._untold.values()))

    def of(self, group: GroupId) -> Lead | None:
        """Return who leads a group, as far as it was heard."""
        return self._by_group.get(group)

    def home(self, group: GroupId, node: NodeId) -> CoreId | None:
        """Return the core of *node* that was last known to have the group's replica."""
        homes = self._homes.get(group)
        return None if homes is None else homes.get(node)

    def take(self, leads: Iterable[Lead], heard_from: PeerId | None = None) -> list[GroupId]:
        """Merge rows; return the groups that have changed. None: this node's own word.

        Only this node's own rows are told to others: every node speaks for itself.
        """
        changed: list[GroupId] = []
        for lead in leads:
            known = self._by_group.get(lead.group)
            if known is not None:
                if known.age >= lead.age:
                    continue
            elif self._was_deleted(lead.group) or len(self._by_group) >= limits.NODE_GROUPS_MAX:
                self.refused += 1
                continue
            self._by_group[lead.group] = lead
            self.found(lead.group, lead.node, lead.core)
            changed.append(lead.group)
        for untold in self._untold.values() if heard_from is None else ():
            untold.update(dict.fromkeys(changed))
        return changed

    def found(self, group: GroupId, node: NodeId, core: CoreId) -> None:
        """A message of the group came from that core: answers and messages go there."""
        homes = self._homes.get(group)
        if homes is None:
            if len(self._homes) >= limits.NODE_GROUPS_MAX or self._was_deleted(group):
                return
            homes = self._homes[group] = {}
        elif len(homes) >= 2 * limits.REPLICAS_MAX and node not in homes:
            homes.clear()  # of members long gone; the others are learned again
        homes[node] = core

    def deleted(self, groups: Iterable[GroupId]) -> None:
        """Forget groups (S2)."""
        for group in groups:
            self._by_group.pop(group, None)
            self._homes.pop(group, None)
            for untold in self._untold.values():
                untold.pop(group, None)

    def listen(self, peer: PeerId, own: NodeId) -> None:
        """Tell *peer* the whole of what *own* leads, then what changes: its session is new."""
        table = self._by_group
        self._untold[peer] = dict.fromkeys([each for each in table if table[each].node == own])

    def leave(self, peer: PeerId) -> None:
        """Tell *peer* nothing more: its session has ended."""
        self._untold.pop(peer, None)

    def next_frame(self, peer: PeerId) -> bytes | None:
        """Return the body of the next LEADS frame for *peer*, or None when it knows everything."""
        untold = self._untold.get(peer)
        if not untold:
            return None
        count = limits.PEER_LEADS_FRAME_BYTES // _ROW_BYTES_MAX
        groups = [*islice(untold, count)]
        for group in groups:
            del untold[group]
        return encode([self._by_group[group] for group in groups])
