"""How a node with an empty directory comes to its cluster: it founds one, or joins one.

The first of the seeds founds, once a majority of them says that there is no cluster; everybody
else waits until any of them tells of one. So nodes that start together agree, and one that comes
later, or again with an empty disk, finds what is there. Without seeds a node founds at once.
"""

import logging
import os
import uuid
from collections.abc import Sequence
from typing import Final

import trio

from corelane.model.record import record
from corelane.runtime import failures, introductions
from corelane.runtime.failures import StartError
from corelane.runtime.introductions import Introduction, IntroductionError

Seed = tuple[str, int]
"""Host and peer port."""

ASK_EVERY_S: Final = 0.3
SAY_EVERY_S: Final = 30.0

_log = logging.getLogger(__name__)


@record
class Decision:
    """What to do with an empty directory."""

    cluster_uuid: str
    founds: bool


@record
class Conflict:
    """Why this node can neither found nor join."""

    why: str
    next_step: str


@record
class Waiting:
    """What is waited for."""

    sentence: str


def decide(
    own: Introduction, seeds: Sequence[Seed], answers: Sequence[Introduction | str]
) -> Decision | Conflict | Waiting:
    """Decide by what every seed answered: who it is, or why it did not."""
    if not seeds:
        return Decision("", founds=True)
    told = [each for each in answers if isinstance(each, Introduction)]
    others = [each for each in told if each.nonce != own.nonce]
    twin = next((each for each in others if each.node == own.node), None)
    if twin is not None:
        return Conflict(
            f"another node {own.node} answers on {twin.host}:{twin.port}",
            "Give every node an id of its own (--node-id).",
        )
    clusters = {each.cluster_uuid for each in others if each.cluster_uuid}
    if len(clusters) > 1:
        return Conflict(
            f"the seeds belong to different clusters: {', '.join(sorted(clusters))}",
            "Name seeds of one cluster only.",
        )
    if clusters:
        return Decision(clusters.pop(), founds=False)
    first = answers[0]
    is_first = isinstance(first, Introduction) and first.nonce == own.nonce
    majority = len(seeds) // 2 + 1
    if is_first and len(told) >= majority:
        return Decision("", founds=True)
    missing = [
        f"{host}:{port} ({answer})"
        for (host, port), answer in zip(seeds, answers, strict=True)
        if isinstance(answer, str)
    ]
    silent = f"; no answer from {', '.join(missing)}" if missing else ""
    if is_first:
        return Waiting(
            f"waiting for {majority} of {len(seeds)} seeds, to found a cluster with them{silent}"
        )
    return Waiting(
        f"waiting for a cluster to join: {seeds[0][0]}:{seeds[0][1]}, the first of the seeds,"
        f" founds it{silent}"
    )


async def form(own: Introduction, seeds: Sequence[Seed]) -> tuple[Decision, list[Introduction]]:
    """Ask the seeds until there is a decision; raises `StartError` where there can be none."""
    said_s, said = float("-inf"), ""
    while True:
        answers = await ask_all(own, seeds)
        outcome = decide(own, seeds, answers)
        if isinstance(outcome, Decision):
            if outcome.founds:
                outcome = Decision(str(uuid.uuid4()), founds=True)
            return outcome, others_of(own, answers)
        if isinstance(outcome, Conflict):
            raise StartError(
                f"node {own.node} cannot join a cluster",
                outcome.why,
                outcome.next_step,
                failures.EXIT_CONFIG,
            )
        now_s = trio.current_time()
        if outcome.sentence != said or now_s - said_s > SAY_EVERY_S:
            said_s, said = now_s, outcome.sentence
            _log.info("%s", outcome.sentence)
        await trio.sleep(ASK_EVERY_S)


async def ask_all(own: Introduction, seeds: Sequence[Seed]) -> list[Introduction | str]:
    """Ask every seed at once; of one that does not answer, return why."""
    answers: list[Introduction | str] = ["" for _ in seeds]

    async def ask(at: int, host: str, port: int) -> None:
        try:
            answers[at] = await introductions.ask(host, port, own)
        except trio.TooSlowError:
            answers[at] = "it does not answer"
        except OSError as error:
            answers[at] = _reason(error)
        except (IntroductionError, trio.BrokenResourceError) as fault:
            answers[at] = str(fault) or "the connection broke"

    async with trio.open_nursery() as nursery:
        for at, (host, port) in enumerate(seeds):
            nursery.start_soon(ask, at, host, port)
    return answers


def others_of(own: Introduction, answers: Sequence[Introduction | str]) -> list[Introduction]:
    """Return who else answered."""
    told = [each for each in answers if isinstance(each, Introduction)]
    return [each for each in told if each.nonce != own.nonce]


def _reason(error: OSError) -> str:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    if found.errno:
        return os.strerror(found.errno).lower()
    return (found.strerror or "it cannot be reached").lower()
