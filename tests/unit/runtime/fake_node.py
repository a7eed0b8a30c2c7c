"""A node as the admin port sees it, with cores that answer what a test says."""

from collections.abc import Mapping, Sequence

import trio

from corelane.runtime.cores import CoreState
from corelane.runtime.messages import Heartbeat, Operated


class FakePlan:
    def __init__(self, core: int) -> None:
        self.core = core
        self.port = 19092 + core


class FakeLife:
    def __init__(self, boot: int) -> None:
        self.boot = boot
        self.pid = 100 + boot
        self.cpu = 3
        self.ready_s = 0.0
        self.connections = 2
        self.heartbeat = Heartbeat(2, 7, 0)


class FakeCore:
    """A core as the supervisor sees it; `values` None: it does not answer."""

    def __init__(self, core: int, values: dict[str, float] | None) -> None:
        self.plan = FakePlan(core)
        self.life: FakeLife | None = FakeLife(1)
        self.state = CoreState.UP
        self.restarts = 0
        self.values = values
        self.asked = 0

    async def stats(self, wait_s_max: float) -> dict[str, float] | None:
        self.asked += 1
        if self.state is not CoreState.UP:
            return None
        if self.values is None:
            await trio.sleep(wait_s_max)
            return None
        await trio.lowlevel.checkpoint()
        return dict(self.values)


class FakeNode:
    def __init__(self, *cores: FakeCore) -> None:
        self.cores = list(cores)
        self.retired: list[FakeCore] = []
        self.is_draining = False
        self.answer: Operated | None = Operated(0, "", "", {})
        self.operated: list[tuple[int, str, dict[str, str]]] = []

    def all_cores(self) -> Sequence[FakeCore]:
        return [*self.cores, *self.retired]

    def refused(self) -> Mapping[str, int]:
        return {"INSIDE": 4}

    async def operate(
        self, number: int, verb: str, arguments: dict[str, str], wait_s_max: float
    ) -> Operated | None:
        self.operated.append((number, verb, arguments))
        await trio.lowlevel.checkpoint()
        return self.answer
