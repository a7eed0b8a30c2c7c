"""Takes one member one step towards its target assignment (KIP-848, "Reconciliation").

    STABLE ──target moved──▶ UNREVOKED_PARTITIONS   keeps its epoch, is told to give back
       ▲                          │ says it owns none of them any more
       │                          ▼
       └────── target epoch; UNRELEASED_PARTITIONS while others still hold some of the target

A partition goes to a member only when no other has it, and leaves a member only when that member
has said so, or is gone: so it never has two owners. Decides only; nothing here can act.
"""

from collections.abc import Callable

from corelane.groups.consumer_records import (
    NOTHING,
    CurrentAssignment,
    MemberState,
    Partition,
    Partitions,
)
from corelane.model.record import record


@record
class Goal:
    """Where a member is to go, and what it said it has."""

    epoch: int
    target: Partitions
    owned: Partitions | None
    """What the heartbeat says the client owns; None if it says nothing."""


def next_assignment(
    current: CurrentAssignment, goal: Goal, held_by_another: Callable[[Partition], bool]
) -> CurrentAssignment:
    """Return what the member has from now on; an equal value if it can do nothing yet."""
    if current.state is MemberState.STABLE and current.member_epoch == goal.epoch:
        return current
    if current.state is MemberState.UNREVOKED_PARTITIONS and _owns(goal.owned, current.revoking):
        return current
    kept = current.assigned & goal.target
    revoking = current.assigned - kept
    if revoking and _owns(goal.owned, revoking):
        # The epoch stays: by KIP-848 a member is at an epoch only when it has nothing of before.
        return CurrentAssignment(
            current.member_epoch,
            current.previous_epoch,
            MemberState.UNREVOKED_PARTITIONS,
            kept,
            revoking,
        )
    missing = goal.target - kept
    free = frozenset(partition for partition in missing if not held_by_another(partition))
    moved = current.member_epoch != goal.epoch
    return CurrentAssignment(
        goal.epoch,
        current.member_epoch if moved else current.previous_epoch,
        MemberState.STABLE if free == missing else MemberState.UNRELEASED_PARTITIONS,
        kept | free,
        NOTHING,
    )


def _owns(owned: Partitions | None, revoked: Partitions) -> bool:
    """Whether the client may still have any of *revoked*; a client that says nothing may."""
    return owned is None or not owned.isdisjoint(revoked)
