"""One classic group: its members, its generation, and what follows from them.

States, as Kafka names them. PREPARING: members are to join again; COMPLETING: all have, and the
leader is to say who reads what; STABLE: everybody knows.

Invariants:
C1. A member waits for at most one answer to a Join and one to a Sync.
C2. In EMPTY there are no members; in COMPLETING and STABLE the leader is one, and all members
    support the protocol.
C3. The generation never goes back.
"""

from collections import Counter
from enum import Enum
from typing import Final

from corelane.groups.records import Generation, StoredMember
from corelane.groups.requests import DescribedMember

NO_TOKEN: Final = -1


class State(Enum):
    """Where a group is; the values are what tools are shown."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


class Member:
    """One member, as it last joined."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "deadline_ms",
        "instance_id",
        "is_new",
        "join_token",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_token",
    )

    def __init__(self, member_id: str, instance_id: str | None) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.client_id = ""
        self.client_host = ""
        self.session_timeout_ms = 0
        self.rebalance_timeout_ms = 0
        self.protocols: tuple[tuple[str, bytes], ...] = ()
        self.assignment = b""
        self.join_token = NO_TOKEN
        self.sync_token = NO_TOKEN
        self.is_new = True
        """It has not had the answer to its first Join."""
        self.deadline_ms = 0
        """When it is taken for dead unless it is heard."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for the group, and so cannot be expected to be heard."""
        return self.join_token != NO_TOKEN or self.sync_token != NO_TOKEN

    def metadata(self, protocol: str | None) -> bytes:
        """Return what it said about a protocol."""
        return next((data for name, data in self.protocols if name == protocol), b"")

    def vote(self, candidates: set[str]) -> str:
        """Return the first of its protocols that all support."""
        return next(name for name, _data in self.protocols if name in candidates)


class ClassicGroup:
    """One group; changed by `rebalancing.py` and `coordinator.py`."""

    __slots__ = (
        "generation_id",
        "group",
        "instances",
        "is_initial",
        "is_joined_lately",
        "join_deadline_ms",
        "join_extended_ms",
        "leader",
        "members",
        "newcomer_ms",
        "pending",
        "prepared_ms",
        "protocol",
        "protocol_type",
        "since_ms",
        "state",
        "stored_value",
        "sync_deadline_ms",
        "wake_ms",
    )

    def __init__(self, group: str) -> None:
        self.group = group
        self.state = State.EMPTY
        self.protocol_type = ""
        self.protocol: str | None = None
        self.generation_id = 0
        self.leader: str | None = None
        self.since_ms = 0
        self.members: dict[str, Member] = {}
        self.instances: dict[str, str] = {}
        """Member id by instance id."""
        self.pending: dict[str, int] = {}
        """Ids that were given out to new members, and until when they count."""
        self.join_deadline_ms = 0
        self.prepared_ms = 0
        """When the present rebalance began."""
        self.newcomer_ms = 0
        """When a member came for the first time."""
        self.is_initial = False
        """The first rebalance of an empty group: it waits for more to come."""
        self.is_joined_lately = False
        self.join_extended_ms = 0
        """How much longer the first rebalance may be drawn out."""
        self.sync_deadline_ms = 0
        self.stored_value: Generation | None = None
        """What the log says of it; None: nothing yet."""
        self.wake_ms = 0
        """When it is looked at next; in the past: it is not."""

    # --- protocols ---

    def supports(self, protocol_type: str, names: set[str]) -> bool:
        """Whether a member with these protocols fits with those that are here."""
        if not protocol_type or not names:
            return False
        if self.state is State.EMPTY:
            return True
        return protocol_type == self.protocol_type and bool(names & self.candidates())

    def candidates(self) -> set[str]:
        """Return the protocols that all members support."""
        count = Counter(name for each in self.members.values() for name, _data in each.protocols)
        return {name for name, supporters in count.items() if supporters == len(self.members)}

    def elected_protocol(self) -> str:
        """Return the protocol that most members like best, of those that all support."""
        candidates = self.candidates()
        votes = Counter(each.vote(candidates) for each in self.members.values())
        best = max(votes.values())
        return min(name for name, count in votes.items() if count == best)

    # --- members ---

    def add(self, member: Member, protocol_type: str) -> None:
        """Take in a member; the first one leads and decides the type."""
        assert member.member_id not in self.members
        if not self.members:
            self.protocol_type = protocol_type
        self.pending.pop(member.member_id, None)
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self.instances[member.instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id

    def remove(self, member_id: str) -> Member:
        """Let a member go; the next one leads if it did."""
        member = self.members.pop(member_id)
        if member.instance_id is not None and self.instances.get(member.instance_id) == member_id:
            del self.instances[member.instance_id]
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)
        return member

    def replace(self, member: Member, member_id: str) -> None:
        """Give a static member, which was started anew, another id."""
        assert member.instance_id is not None
        members = {}
        for known_id, known in self.members.items():  # the order is that of joining
            members[member_id if known is member else known_id] = known
        self.members = members
        if self.leader == member.member_id:
            self.leader = member_id
        member.member_id = member_id
        self.instances[member.instance_id] = member_id

    @property
    def rebalance_timeout_ms(self) -> int:
        """Return how long members may take to join again."""
        return max((each.rebalance_timeout_ms for each in self.members.values()), default=0)

    @property
    def all_joined(self) -> bool:
        """Whether nobody is missing for the next generation."""
        return not self.pending and all(
            each.join_token != NO_TOKEN for each in self.members.values()
        )

    def crowd_settled_ms(self, quiet_ms: int, most_ms: int) -> int:
        """Return until when more members may come where several come at once; else: at once."""
        if sum(each.is_new for each in self.members.values()) < 2:
            return self.prepared_ms
        return min(self.newcomer_ms + quiet_ms, self.prepared_ms + most_ms)

    # --- what lasts ---

    def stored(self) -> Generation:
        """Return the generation as it is kept."""
        members = tuple(
            StoredMember(
                each.member_id, each.instance_id, each.client_id, each.client_host,
                each.rebalance_timeout_ms, each.session_timeout_ms,
                each.metadata(self.protocol), each.assignment,
            )
            for each in self.members.values()
        )  # fmt: skip
        return Generation(
            self.protocol_type, self.generation_id, self.protocol, self.leader, self.since_ms,
            members,
        )  # fmt: skip

    @staticmethod
    def restored(group: str, stored: Generation) -> "ClassicGroup":
        """Return the group as the log has it: stable, or empty."""
        restored = ClassicGroup(group)
        restored.stored_value = stored
        restored.protocol_type = stored.protocol_type
        restored.generation_id = stored.generation_id
        restored.protocol = stored.protocol
        restored.leader = stored.leader
        restored.since_ms = stored.since_ms
        for each in stored.members:
            member = Member(each.member_id, each.instance_id)
            member.client_id, member.client_host = each.client_id, each.client_host
            member.rebalance_timeout_ms = each.rebalance_timeout_ms
            member.session_timeout_ms = each.session_timeout_ms
            member.protocols = ((stored.protocol or "", each.subscription),)
            member.assignment = each.assignment
            member.is_new = False
            restored.members[each.member_id] = member
            if each.instance_id is not None:
                restored.instances[each.instance_id] = each.member_id
        restored.state = State.STABLE if restored.members else State.EMPTY
        return restored

    def described(self) -> tuple[DescribedMember, ...]:
        """Return what tools are shown of the members; subscriptions only of a stable group."""
        is_stable = self.state is State.STABLE
        return tuple(
            DescribedMember(
                each.member_id, each.instance_id, each.client_id, each.client_host,
                each.metadata(self.protocol) if is_stable else b"",
                each.assignment if is_stable else b"",
            )
            for each in self.members.values()
        )  # fmt: skip
