"""Members of a classic group in a storm of transactions: they join, sync, and say who owns what.

What must hold (multiraft.md E, groups): in one generation no partition has two owners, and a
member that asks again is told the same.
"""

from collections.abc import Generator
from typing import Final

from corelane.model.errors import ErrorCode
from corelane.model.record import record
from corelane.wire.compiler import Message, message_type

SESSION_MS: Final = 2_000
PARTITIONS: Final = 4
"""Of what the members share among themselves; no records are in it."""

Join = message_type("JoinGroupRequest")
Protocol = message_type("JoinGroupRequest.JoinGroupRequestProtocol")
Sync = message_type("SyncGroupRequest")
Assignment = message_type("SyncGroupRequest.SyncGroupRequestAssignment")
Beat = message_type("HeartbeatRequest")

GROUP_ERRORS: Final = frozenset(
    {
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.MEMBER_ID_REQUIRED,
    }
)
"""What a member hears that has to join again."""


@record
class Asked:
    """A request that is due: to which raft group's leader, and as what."""

    step: str
    group: int
    message: Message
    version: int
    heard: frozenset[ErrorCode] = frozenset()
    """The errors that are answers, too."""


Steps = Generator[Asked, tuple[ErrorCode, Message], None]
"""Yields what to ask, gets what was answered."""


class Owners:
    """Who was told to own what."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int, str], bytes] = {}
        self._owners: dict[tuple[str, int, int], str] = {}

    def told(self, group: str, generation: int, member: str, assignment: bytes) -> None:
        """Hold an assignment against all others of its generation."""
        before = self._told.setdefault((group, generation, member), assignment)
        assert before == assignment, f"{member} was told {before!r}, and now {assignment!r}"
        for partition in assignment:
            owner = self._owners.setdefault((group, generation, partition), member)
            assert owner == member, f"{owner} and {member} own {partition} in {generation}"


class Membership:
    """One life of a member."""

    def __init__(self, name: str, owners: Owners) -> None:
        self.name = name
        self.generation = -1
        self.member_id = ""
        self._owners = owners

    def left(self, error: ErrorCode) -> None:
        """Join again next time."""
        self.generation = -1
        if error is ErrorCode.UNKNOWN_MEMBER_ID:
            self.member_id = ""

    def settle(self, group: int) -> Steps:
        """Be a member of the generation of the moment; *group* coordinates."""
        while True:
            if self.generation >= 0:
                beat = Beat(
                    group_id=self.name, generation_id=self.generation, member_id=self.member_id
                )
                error, _answer = yield Asked("heartbeat", group, beat, 4, GROUP_ERRORS)
                if error is ErrorCode.NONE:
                    return
                self.left(error)
            error, answer = yield Asked("join", group, self._join(), 9, GROUP_ERRORS)
            if error is not ErrorCode.NONE:
                self.left(error)
                if error is ErrorCode.MEMBER_ID_REQUIRED:
                    self.member_id = answer.member_id
                continue
            self.member_id = answer.member_id
            error, told = yield Asked("sync", group, self._sync(answer), 5, GROUP_ERRORS)
            if error is ErrorCode.NONE:
                self.generation = answer.generation_id
                assignment = bytes(told.assignment)
                self._owners.told(self.name, self.generation, self.member_id, assignment)
                return
            self.left(error)

    def _join(self) -> Message:
        return Join(
            group_id=self.name,
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=SESSION_MS,
            member_id=self.member_id,
            protocol_type="consumer",
            protocols=[Protocol(name="range", metadata=b"")],
        )

    def _sync(self, joined: Message) -> Message:
        members = sorted(each.member_id for each in joined.members)
        rows = [
            Assignment(member_id=member, assignment=bytes(range(at, PARTITIONS, len(members))))
            for at, member in enumerate(members)
        ]
        return Sync(
            group_id=self.name,
            generation_id=joined.generation_id,
            member_id=joined.member_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=rows,
        )
