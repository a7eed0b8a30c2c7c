"""Reads that must miss nothing: who leads makes sure that it still does before it answers.

A leader that was cut off learns that another leads only when nobody has answered it for a while
(check-quorum). Until then what it says of the log's end, or of a group's offsets, may be old.

Invariants:
Q1. A read is answered from what was committed when it came, or more: a majority followed in a round
    of heartbeats that was sent later (thesis section 6.4), or holds to a lease (6.4.1).
Q2. All who wait for one core share its rounds; there is none for who reads alone.
"""

# performance-critical: see STYLE.md

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from corelane.model.config import Config
from corelane.model.ids import GroupId, Term
from corelane.model.record import record
from corelane.raft.config import DEFAULT_SETTINGS, RaftSettings
from corelane.shard.member import Member

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

LEASE: Final = "lease"
LEADER: Final = "leader"
LEASED: Final = RaftSettings(lease_ms=DEFAULT_SETTINGS.election_timeout_ms * 8 // 10)
"""A tenth for clocks that run apart, a tenth for what was rounded off."""

Done = Callable[[bool], None]
"""Hears whether the read may be answered now; False: somebody else leads, or nobody."""


def settings_of(config: Config) -> RaftSettings:
    """Return what all raft groups of a core go by."""
    return LEASED if config.fetch.consistency == LEASE else DEFAULT_SETTINGS


@record
class _Read:
    """A read that waits for a round."""

    member: Member
    term: Term
    asked_ms: int
    done: Done


class Reads:
    """The reads of one core that wait for their leader to be confirmed."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._waiting: dict[GroupId, list[_Read]] = {}

    def when_current(self, member: Member, done: Done) -> None:
        """Call *done* as soon as what *member* has is all there is; perhaps before this returns.

        The time of a step is taken after its requests have come, and nothing changes while it
        runs: a lease that holds then is as good as one looked at after the answer was built.
        """
        now_ms = self._shard.now_ms
        peering = self._groups.peering
        if not member.serves:
            done(False)
            return
        is_alone = len(member.raft.configuration.members) == 1
        consistency = self._shard.config.config.fetch.consistency
        if is_alone or peering is None or consistency == LEADER or member.raft.holds_lease(now_ms):
            done(True)
            return
        read = _Read(member, member.raft.term, now_ms, done)
        self._waiting.setdefault(member.group, []).append(read)
        peering.hurry(member)

    def turn(self) -> None:
        """Answer who need not wait any more; once a turn, after its events."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        for group, reads in waiting.items():
            open_reads = [read for read in reads if not _ended(read)]
            if open_reads:
                # Others may have come meanwhile.
                self._waiting[group] = open_reads + self._waiting.get(group, [])


def _ended(read: _Read) -> bool:
    member = read.member
    if not member.serves or member.raft.term != read.term:
        read.done(False)
        return True
    if member.raft.may_read(read.asked_ms):
        read.done(True)
        return True
    return False
