"""What `corelane cluster health` does."""

import time
from typing import Any, Final

import click

from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.admin_port import address_of, ask, ask_cluster
from corelane_cli.cluster_actions import look
from corelane_cli.exits import CommandError
from corelane_cli.output import counted, show_json

_WATCH_INTERVAL_S: Final = 1.0
_NAMED_MAX: Final = 20
"""So many partitions are named, so that a whole cluster's does not fill the screen."""


@record
class Wish:
    """What the command line asks for."""

    bootstrap: str
    admin: str | None
    output_format: str
    watch: bool
    exit_when_healthy: bool


def health(wish: Wish) -> int:
    """Print what is wrong and return the exit code; watching, print it whenever it changes."""
    before: dict[str, Any] | None = None
    while True:
        found = _look_again(wish) if wish.watch else _look(wish)
        if found != before:
            _print(found, wish.output_format)
        before = found
        if not wish.watch or (found["healthy"] and wish.exit_when_healthy):
            return exits.OK if found["healthy"] else exits.UNHEALTHY
        time.sleep(_WATCH_INTERVAL_S)


def _look_again(wish: Wish) -> dict[str, Any]:
    """Look as `_look` does; a broker that does not answer is one more thing that is wrong."""
    try:
        return _look(wish)
    except CommandError as error:
        if error.exit_code == exits.USAGE:
            raise
        return _report([error.message], None, None)


def _look(wish: Wish) -> dict[str, Any]:
    found, topics = look(wish.bootstrap)
    known = {broker.broker_id for broker in found.brokers}
    leaderless = [
        f"{topic.name}-{number}"
        for topic in topics
        for number, each in topic.partitions.items()
        if each.leader not in known
    ]
    problems: list[str] = []
    if leaderless:
        rest = len(leaderless) - _NAMED_MAX
        names = ", ".join(leaderless[:_NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")
        noun = "partition has" if len(leaderless) == 1 else "partitions have"
        problems.append(f"{len(leaderless)} {noun} no leader: {names}")
    try:
        problems += _node_problems(wish, found.cluster_id)
        is_asked = True
    except CommandError as error:
        is_asked = False
        if wish.admin is not None:  # it was named, so it is to answer
            problems.append(error.message)
    return _report(problems, len(known), is_asked)


def _node_problems(wish: Wish, cluster_id: str | None) -> list[str]:
    """Return what the node itself says is wrong. Raises CommandError when it says nothing."""
    address = address_of(wish.admin, wish.bootstrap)
    cores = ask_cluster(address, cluster_id).get("cores", [])
    problems = [
        f"core {core.get('core')} does not serve: it is {core['state']}"
        for core in cores
        if core.get("state", "serving") != "serving"
    ]
    problems += [
        f"core {core.get('core')}: {said}" for core in cores for said in core.get("damaged", [])
    ]
    ready = ask(address, "/readyz")
    if ready.status != 200:
        told = ready.value.get("problems") if isinstance(ready.value, dict) else None
        problems += told or [ready.text or f"the node is not ready (HTTP {ready.status})"]
    return list(dict.fromkeys(problems))


def _report(problems: list[str], brokers: int | None, is_asked: bool | None) -> dict[str, Any]:
    return {
        "healthy": not problems,
        "problems": problems,
        "brokers": brokers,
        "cores_asked": is_asked,
    }


def _print(found: dict[str, Any], output_format: str) -> None:
    if output_format == "json":
        show_json(found)
        return
    brokers = "" if found["brokers"] is None else f", {counted(found['brokers'], 'broker')}"
    click.echo(("healthy" if found["healthy"] else "UNHEALTHY") + brokers)
    for problem in found["problems"]:
        click.echo(f"  {problem}")
