"""One thing a client is asked to do, and how it is run and judged."""

import subprocess
import time
from collections.abc import Callable

from corelane.model.record import record
from tests.conformance.probe import Address

STEP_S_MAX = 120
EXCERPT_CHARACTERS = 2_000


@record
class Step:
    """What a client does. `run` raises StepError when the broker did not do its part."""

    client: str
    name: str
    run: Callable[[Address], None]


class StepError(Exception):
    """A client's complaint, or a result that is wrong."""


def output(command: list[str], stdin: str = "") -> str:
    """Run *command* and return what it prints; raises StepError unless it ends well."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=STEP_S_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        message = f"no end within {STEP_S_MAX} s: {' '.join(command)}\n{_excerpt(error.stderr)}"
        raise StepError(message) from None
    if done.returncode != 0:
        message = f"status {done.returncode}: {' '.join(command)}\n"
        raise StepError(message + done.stdout[-EXCERPT_CHARACTERS:] + _excerpt(done.stderr))
    return done.stdout


def expect(actual: object, expected: object, what: str) -> None:
    """Raise StepError unless *actual* is *expected*."""
    if actual != expected:
        message = f"{what}: got {actual!r:.{EXCERPT_CHARACTERS}}, not {expected!r:.200}"
        raise StepError(message)


def new_topic(name: str) -> str:
    """Return a name that was never used on any broker."""
    return f"interop-{name}-{time.time_ns()}"


def _excerpt(text: str | bytes | None) -> str:
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return (text or "")[-EXCERPT_CHARACTERS:]
