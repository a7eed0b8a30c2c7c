"""Tables of what heartbeat frames list: told in one pass, asked for one group at a time.

No group has an object, a timer or a task here. A frame that says what the last one said, as most
do, is compared with it as bytes and moves one time for all of its groups.

Invariants:
H1. A group is seen at the time of a frame only if that frame listed it, in that very term and by
    that very member.
H2. What a frame no longer lists keeps the time of the last one that did, for `_KEPT_MS`; nothing
    older can matter to anybody's patience.
"""

# performance-critical: see STYLE.md

from typing import Final

from corelane.model import limits
from corelane.model.ids import GroupId, Index, Term
from corelane.raft import codec
from corelane.raft.codec import HeartbeatRow
from corelane.shard.peers.beats import Incarnations, encode_incarnations

NEVER_MS: Final = -(1 << 62)
"""Before anybody's time began."""
_KEPT_MS: Final = 2 * limits.ELECTION_TIMEOUT_MS_MAX


class Roll:
    """Which groups one peer's frames listed, as `beats.mark`, and when last."""

    __slots__ = ("_left", "_left_ms", "at_ms", "losses", "marks")

    def __init__(self) -> None:
        self.marks: dict[GroupId, int] = {}
        self.at_ms = NEVER_MS
        self.losses = 0
        """Counts frames that did not list, or listed otherwise, what the one before them did."""
        self._left: dict[GroupId, tuple[int, int]] = {}
        self._left_ms = NEVER_MS

    def __len__(self) -> int:
        return len(self.marks) + len(self._left)

    def again(self, at_ms: int) -> None:
        """Take in a frame that lists what the last one did."""
        assert at_ms >= self.at_ms
        if self._left and at_ms - self._left_ms > _KEPT_MS:
            self._left = {}
        self.at_ms = at_ms

    def take(self, at_ms: int, marks: dict[GroupId, int]) -> None:
        """Take in a frame that lists *marks*, which is kept."""
        assert at_ms >= self.at_ms
        left, before_ms = self._left, self.at_ms
        if left:
            oldest_ms = at_ms - _KEPT_MS
            left = {group: seen for group, seen in left.items() if seen[1] >= oldest_ms}
        lost = self.marks.items() - marks.items()
        for group, former in lost:
            left[group] = (former, before_ms)
            self._left_ms = before_ms
        self.losses += bool(lost)
        if len(left) > limits.PEER_BEAT_ROWS_MAX:
            left = {}  # more groups than a core can have: forgotten, they are not refreshed
        self._left = left
        self.marks = marks
        self.at_ms = at_ms

    def seen_ms(self, group: GroupId, wanted: int) -> int:
        """Return when *group* was last listed with that mark, or NEVER_MS (H1)."""
        if self.marks.get(group) == wanted:
            return self.at_ms
        left = self._left.get(group)
        return left[1] if left is not None and left[0] == wanted else NEVER_MS

    def clear(self) -> None:
        """Forget everything: the life that said it is over."""
        self.marks = {}
        self._left = {}
        self.losses += 1


class Led:
    """The rows this core beats to one peer: groups that it leads and that have a member there."""

    __slots__ = ("_incarnations", "_packed", "_rows")

    def __init__(self) -> None:
        self._rows: dict[GroupId, HeartbeatRow] = {}
        self._incarnations: Incarnations = {}
        self._packed: tuple[bytes, bytes] | None = (b"", b"")

    def __len__(self) -> int:
        return len(self._rows)

    def put(
        self, group: GroupId, term: Term, committed: Index, incarnations: tuple[int, int] = (0, 0)
    ) -> None:
        """List a group from the next frame on; *incarnations*: the leader's, the member's."""
        assert len(self._rows) < limits.PEER_BEAT_ROWS_MAX
        self._rows[group] = (group, term, committed)
        if incarnations != (0, 0):
            self._incarnations[group] = incarnations
        elif self._incarnations:
            self._incarnations.pop(group, None)
        self._packed = None

    def drop(self, group: GroupId) -> None:
        """List a group no more: it is led no more, or has no member there."""
        if self._rows.pop(group, None) is not None:
            self._incarnations.pop(group, None)
            self._packed = None

    def packed(self) -> tuple[bytes, bytes]:
        """Return rows and incarnations as bytes; made again only when something changed."""
        if self._packed is None:
            rows = codec.pack_heartbeats(self._rows.values())
            self._packed = (rows, encode_incarnations(self._incarnations))
        return self._packed


class Terms:
    """The durable term of every raft group that has a member on this core.

    In one term there is one leader: a member in the term of a heartbeat follows its sender.
    """

    __slots__ = ("asking", "by_group", "generation", "incarnations")

    def __init__(self) -> None:
        self.by_group: dict[GroupId, Term] = {}
        self.incarnations: dict[GroupId, int] = {}
        """Of the own member, where it is not the first."""
        self.asking: set[GroupId] = set()
        """Those whose raft knows no leader, or asks for another one: each row is news to them."""
        self.generation = 0
        """Counts changes, so that an answer may be given again while there was none."""

    def put(self, group: GroupId, term: Term, incarnation: int = 0) -> None:
        """A term has become durable here; a group that is new here asks for its leader."""
        if group not in self.by_group:
            self.asking.add(group)
        self.by_group[group] = term
        if incarnation:
            self.incarnations[group] = incarnation
        elif self.incarnations:
            self.incarnations.pop(group, None)
        self.generation += 1

    def drop(self, group: GroupId) -> None:
        """The member is gone from this core: deleted, damaged, or at a sibling now."""
        if self.by_group.pop(group, None) is not None:
            self.incarnations.pop(group, None)
            self.asking.discard(group)
            self.generation += 1

    def follows(self, group: GroupId) -> None:
        """Its raft follows a leader: rows that only repeat themselves need not reach it."""
        self.asking.discard(group)

    def asks(self, group: GroupId) -> None:
        """Its raft has no leader, or would like another one."""
        if group in self.by_group and group not in self.asking:
            self.asking.add(group)
            self.generation += 1
