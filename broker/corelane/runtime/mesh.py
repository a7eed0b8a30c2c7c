"""The pipes between the cores of a node: two for each pair, new ones for each new life.

Invariant M1: a pipe's ends are held by the two processes it joins, and by nobody else once it was
handed out: so each of them sees the other's end at once.
Invariant M2: two lives are joined once: pipes are never used again, and never made anew for both.
"""

import fcntl
import logging
import os
from collections.abc import Iterable
from typing import Final

from corelane.runtime import failures
from corelane.runtime.cores import Core
from corelane.runtime.failures import StartError
from corelane.runtime.messages import Link

PIPE_BYTES_MAX: Final = 1 << 20
"""A large frame costs half the CPU time it does with the usual 64 KiB (bench/micro/hop.py)."""
PIPES_BYTES_MAX: Final = 48 << 20
"""All together: past the per-user limit (64 MiB, pipe(7)) new pipes would shrink to 8 KiB."""

_log = logging.getLogger(__name__)


def pipe_bytes(core_count: int) -> int:
    """Return how large the pipes of so many cores are to be: a power of two, as the kernel's are.

    It rounds up what is none: then all together could be beyond the limit.
    """
    assert core_count > 0
    pipe_count = max(1, core_count * (core_count - 1))
    return 1 << (min(PIPE_BYTES_MAX, PIPES_BYTES_MAX // pipe_count).bit_length() - 1)


class Mesh:
    """Joins each new life of a core with the cores that live."""

    def __init__(self, core_count: int) -> None:
        self._pipe_bytes = pipe_bytes(core_count)
        self._joined: dict[tuple[int, int], tuple[int, int]] = {}
        """The numbers of the lives, by the cores' numbers, the lower one first."""
        self._is_told = False

    def join(self, new: Core, others: Iterable[Core]) -> None:
        """Give the new life of a core, and all others that live, the pipes between them."""
        for other in others:
            if other is not new and _lives(other):
                self._join(*sorted((new, other), key=lambda core: core.plan.core))

    def _join(self, one: Core, two: Core) -> None:
        assert one.life is not None
        assert two.life is not None
        pair = (one.plan.core, two.plan.core)
        lives = (one.life.boot, two.life.boot)
        if self._joined.get(pair) == lives:
            return
        self._joined[pair] = lives
        from_two, to_one = self._pipe()
        from_one, to_two = self._pipe()
        one.life.outbox.put(_link_to(two), [from_two, to_two])
        two.life.outbox.put(_link_to(one), [from_one, to_one])

    def _pipe(self) -> tuple[int, int]:
        """Return both ends of a new pipe; close-on-exec, as all of Python's are (PEP 446)."""
        try:
            ends = os.pipe()
        except OSError as error:
            raise StartError(
                "cannot connect the cores of this node",
                f"the system refuses a pipe: {error.strerror}",
                "Raise the limit of open files (ulimit -n), or start fewer cores.",
                failures.EXIT_SYSTEM,
            ) from error
        self._enlarge(ends[1])
        return ends

    def _enlarge(self, end: int) -> None:
        try:
            if fcntl.fcntl(end, fcntl.F_GETPIPE_SZ) < self._pipe_bytes:
                fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, self._pipe_bytes)
        except OSError as error:
            if not self._is_told:
                self._is_told = True
                _log.warning(
                    "pipes between cores keep their usual size (%s): forwarded requests cost more; "
                    "see fs.pipe-max-size and fs.pipe-user-pages-soft",
                    error.strerror,
                )


def _lives(core: Core) -> bool:
    return core.life is not None and not core.life.reaped.is_set()


def _link_to(core: Core) -> Link:
    assert core.life is not None
    return Link(core.plan.core, core.life.boot, core.plan.is_retired)
