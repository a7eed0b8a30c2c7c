"""The coordinator dies at each step of a migration, in each way: before its batch is committed,
after it and unheard, or just after it has answered.

A group of two classic members gets one of the new protocol, goes over to it, and comes back. After
each death no two members that the group knows read one partition, and left in peace all is read.

    MIGRATION_DEATHS=1 python -m pytest tests/unit/groups/test_migration_deaths.py   every step
"""

import os
from enum import Enum
from typing import Final

import pytest

from corelane.groups.requests import Request
from tests.unit.groups.test_migration_storm import Classic, Client, New, Storm

STRIDE: Final = 1 if os.environ.get("MIGRATION_DEATHS") else 5
ROUNDS: Final = 8
"""Each member does so many things between two changes: enough to have a share, in peace."""


class Death(Enum):
    """When it dies, as its clients and its log see it."""

    UNCOMMITTED = "nothing of the batch is in the log, nobody is answered"
    UNHEARD = "the batch is in the log, nobody is answered"
    ANSWERED = "the batch is in the log, and answered"


class Script(Storm):
    """Two that roll up and down, and a coordinator that dies at one request."""

    def __init__(self, is_cooperative: bool, death: Death, at: int) -> None:
        super().__init__(0)
        self.is_cooperative = is_cooperative
        self.is_calm = True  # nothing but that one death
        self.asked = 0
        self.steps = 0
        """Requests of the migration itself."""
        self._death = death
        self._at = at

    def ask(self, wish: Request) -> int:
        bench = self.bench
        before, known = len(bench.log), set(bench.answers)
        token = super().ask(wish)
        self.asked += 1
        if self.asked == self._at:
            if self._death is Death.UNCOMMITTED:
                del bench.log[before:]
            if self._death is not Death.ANSWERED:
                for each in set(bench.answers) - known:
                    del bench.answers[each]
            self.lose_coordinator()
        return token

    def play(self) -> None:
        """Go up and down, and see that all is well at each step and in the end."""
        first, second = self.begin(Classic), self.begin(Classic)
        self.some()
        third = self.begin(New)
        self.some()
        self.end(first)
        self.some()
        self.end(second)
        self.some()
        fourth = self.begin(Classic)
        self.some()
        self.end(third)
        self.some()
        self.steps = self.asked
        self.settle(12)
        assert self.clients == [fourth]

    def begin(self, kind: type[Client]) -> Client:
        client = kind(self, f"c{self.made}", None)
        self.clients.append(client)
        return client

    def end(self, client: Client) -> None:
        self.clients.remove(client)
        client.leave()

    def some(self) -> None:
        for _ in range(ROUNDS):
            for client in self.clients:
                client.step()
                self.check()
            self.bench.pass_ms(500)
            self.check()
        self.check_log()


def steps(is_cooperative: bool) -> int:
    """Return how many requests the migration takes."""
    script = Script(is_cooperative, Death.ANSWERED, -1)
    script.play()
    assert {"mixed", "new", "classic Stable"} <= script.seen
    return script.steps


@pytest.mark.parametrize("is_cooperative", [False, True])
@pytest.mark.parametrize("death", list(Death))
def test_a_coordinator_may_die_at_each_step_of_a_migration(
    death: Death, is_cooperative: bool
) -> None:
    count = steps(is_cooperative)
    offset = list(Death).index(death)
    for at in range(1 + offset % STRIDE, count + 1, STRIDE):
        script = Script(is_cooperative, death, at)
        try:
            script.play()
        except AssertionError as fault:
            fault.add_note(f"died at request {at}: {death.value}")
            raise
