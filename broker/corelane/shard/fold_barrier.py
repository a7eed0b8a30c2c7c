"""Whether something is missing from the controller's fold here, or has not come here yet.

A topic that a transaction names and that the fold does not have may have been deleted; but this
node may also lag, and to take a topic for deleted that is there would lose what its partitions
were promised. So core 0 has a command decided that changes nothing: what was decided before it is
in the fold here when that is.

Invariant Q1. *done(True)* is called only when the fold of this core has every command that was
committed when `Barrier.pass_through` was called.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from corelane.cluster.binary import Reader, Writer
from corelane.cluster.changes import Change, Refused
from corelane.model.ids import CoreId
from corelane.shard.inquiries import Question, Reply

if TYPE_CHECKING:
    from corelane.shard.groups import Groups
    from corelane.shard.shard import Shard

Done = Callable[[bool], None]


class Barrier:
    """One core's; several that wait at the same time share a command."""

    def __init__(self, shard: "Shard", groups: "Groups") -> None:
        self._shard = shard
        self._groups = groups
        self._waiting: list[Done] = []
        self._is_asking = False
        groups.asking.answerers[Question.BARRIER] = self._asked

    def pass_through(self, done: Done) -> None:
        """Have *done* hear, later, whether the fold is up to date with what is now."""
        self._waiting.append(done)
        if not self._is_asking:
            self._ask()

    def _ask(self) -> None:
        """Ask for those that wait now; who comes later waits for the next one (Q1)."""
        waiting, self._waiting = self._waiting, []
        self._is_asking = True

        def told(answer: bytes | None) -> None:
            self._is_asking = False
            is_passed = False
            if answer is not None:
                # Core 0 told of what it applied before it answered, over the same link.
                index = Reader(answer).uint()
                is_passed = 0 < index <= self._groups.cluster.applied_index
            for done in waiting:
                done(is_passed)
            if self._waiting and not self._is_asking:
                self._ask()

        at = (self._shard.config.node, CoreId(0))
        self._groups.asking.ask(at, Question.BARRIER, b"", told)

    def _asked(self, body: bytes, reply: Reply) -> None:
        """Have the controller decide something, on core 0; answer 0 where it does not."""
        del body
        groups = self._groups

        def applied(changes: Sequence[Change] | None) -> None:
            is_lost = changes is None or any(isinstance(each, Refused) for each in changes)
            out = Writer()
            out.uint(0 if is_lost else groups.cluster.applied_index)
            reply(bytes(out.data))

        if groups.siblings.is_controller and groups.takes_commands:
            groups.registration.say_again(applied)
        else:
            applied(None)
