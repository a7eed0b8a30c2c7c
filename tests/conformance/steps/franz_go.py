"""franz-go, the Go client that uses the newest versions a broker offers."""

from collections.abc import Callable

from tests.conformance import tools
from tests.conformance.probe import Address
from tests.conformance.steps.step import Step, output

CLIENT = "franz-go 1.22.2"
NAMES = {
    "topics": "create, list, describe, delete topics",
    "plain": "produce to partitions and consume them, not idempotent",
    "idempotent": "produce to partitions and consume them, idempotent",
    "leader-acks": "acks=1",
    "codecs": "every codec",
    "offsets": "offsets of the start, the end, a time",
    "group": "consume in a group, one member after the other",
    "tail": "wait at the end for a record",
    "transactions": "transactions committed and aborted, an epoch for each (KIP-890)",
    "transform": "consume, transform and produce exactly once in a group",
}


def steps() -> list[Step]:
    """Return what franz-go is asked to do, in order."""
    return [Step(CLIENT, name, _run(step)) for step, name in NAMES.items()]


def _run(step: str) -> Callable[[Address], None]:
    def run(bootstrap: Address) -> None:
        output([str(tools.franz_go()), str(bootstrap), step])

    return run
