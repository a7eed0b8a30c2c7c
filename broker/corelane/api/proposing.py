"""What handlers that change the cluster share: they propose a command and hear its fate."""

from collections.abc import Callable, Sequence

from corelane.cluster.changes import Change, Refused
from corelane.cluster.commands import Command
from corelane.model.errors import ErrorCode
from corelane.shard.shard import Shard

Told = Callable[[int, str], None]
"""Hears the error (0: it is done, durably) and a sentence."""

NOT_READY = "the controller's group has no leader yet: retry"


def propose(shard: Shard, command: Command, told: Told) -> None:
    """Propose *command*; *told* hears what became of it, now or later."""
    groups = shard.groups
    if not groups.takes_commands:
        told(ErrorCode.NOT_CONTROLLER, NOT_READY)
        return

    def applied(changes: Sequence[Change] | None) -> None:
        if changes is None:
            told(*fault_of_loss(shard))
            return
        refused = next((change for change in changes if isinstance(change, Refused)), None)
        told(*((0, "") if refused is None else (refused.error, refused.sentence)))

    groups.propose(command, applied)


def fault_of_loss(shard: Shard) -> tuple[ErrorCode, str]:
    """Return why a command was not taken, and whether to try again."""
    if shard.groups.controller.serves:
        # KAFKA_STORAGE_ERROR is retriable at every client, and says what it is about.
        return ErrorCode.KAFKA_STORAGE_ERROR, "the controller's log has no room now: retry"
    return ErrorCode.NOT_CONTROLLER, "the controller changed: retry"
