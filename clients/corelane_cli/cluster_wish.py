"""What operators ask of nodes on the command line, and the wait until it has come about."""

import time
from collections.abc import Callable

from corelane.model.record import record


@record
class Wish:
    """What the command line asks for."""

    action: str
    bootstrap: str
    admin: str | None
    output_format: str
    wait: bool
    timeout_s: float


def wait_until(is_done: Callable[[], bool], timeout_s: float, look_s: float) -> bool:
    """Look every *look_s* until it is done, or time is up; say whether it is."""
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(look_s)
    return True
