"""What `corelane cluster drain`, `decommission` and `replace-disk` do."""

from typing import Any, Final

import click

from corelane_cli import exits
from corelane_cli.admin_port import ACT_TIMEOUT_S, address_of, ask, ask_nodes, refusal
from corelane_cli.cluster_actions import look
from corelane_cli.cluster_wish import Wish, wait_until
from corelane_cli.exits import CommandError
from corelane_cli.output import counted, show_json
from corelane_cli.progress import Progress
from corelane_client.address import Address
from corelane_client.pool import Topic

LOOK_S: Final = 0.3
BROKERS_PER_NODE: Final = 1_000


def act(node: int, wish: Wish) -> None:
    """Have it done, wait until nothing more is to be done for it, and say so."""
    address = address_of(wish.admin, wish.bootstrap)
    _ask(address, node, wish.action)
    is_over, left = True, 0
    if wish.wait and wish.action == "drain":
        is_over, left = _wait(wish, lambda topics: _led(topics, node))
    elif wish.wait and wish.action == "decommission":
        is_over, left = _wait(wish, lambda topics: _remaining(address, topics, node))
    if not is_over:
        raise CommandError(
            exits.TIMED_OUT,
            f"node {node}: {counted(left, 'partition')} left after {wish.timeout_s:.0f} s"
            f"{_why(address, node)}",
            "It goes on by itself; look with `corelane cluster reassignments` and `cluster info`.",
        )
    if wish.output_format == "json":
        show_json({"node": node, "action": wish.action, "done": wish.wait, "left": left})
        return
    click.echo(_SAID[wish.action].format(node=node))
    if left and wish.action == "drain":
        click.echo(f"{counted(left, 'partition')} with one replica stay with it: nobody else could")


_SAID: Final = {
    "drain": "node {node} is drained: it leads nothing until `--undo`, or its restart",
    "undrain": "node {node} may lead again; what it is preferred for comes home by itself",
    "decommission": "node {node} has left the cluster: stop it",
    "recommission": "node {node} stays; what it has keeps its place",
    "replace-disk": "node {node} may come back with an empty data directory; its replicas are made"
    " anew: see `corelane cluster reassignments`",
    "forget": "node {node} is forgotten",
}


def _ask(address: Address, node: int, action: str) -> None:
    body = {"node": node, "action": action}
    reply = ask(address, "/v1/nodes", body, ACT_TIMEOUT_S)
    if reply.status != 200:
        raise refusal(reply, f"node {node}")


def _wait(wish: Wish, count: Any) -> tuple[bool, int]:
    """Look until *count* says that nothing is left that could go; return that, and what stays."""
    progress: Progress | None = None
    total = moving = staying = 0

    def is_done() -> bool:
        nonlocal progress, total, moving, staying
        _found, topics = look(wish.bootstrap)
        moving, staying = count(topics)
        if progress is None:
            total = moving
            is_wanted = wish.output_format == "text"
            progress = Progress(max(total, 1), is_wanted=is_wanted, unit="partitions")
        progress.show(max(total - moving, 0))
        return not moving

    try:
        if wait_until(is_done, wish.timeout_s, LOOK_S):
            return True, staying
        return False, moving
    finally:
        if progress is not None:
            progress.finish()


def _led(topics: list[Topic], node: int) -> tuple[int, int]:
    """Count the partitions that a node leads: those that others could, and those they could not."""
    led = [
        len(each.replicas)
        for topic in topics
        for each in topic.partitions.values()
        if each.leader // BROKERS_PER_NODE == node
    ]
    return sum(count > 1 for count in led), led.count(1)


def _remaining(address: Address, topics: list[Topic], node: int) -> tuple[int, int]:
    """Count the replicas that a node has still; one more as long as it is part of the cluster."""
    here = sum(
        any(broker // BROKERS_PER_NODE == node for broker in each.replicas)
        for topic in topics
        for each in topic.partitions.values()
    )
    is_known = any(row["node"] == node for row in ask_nodes(address)["nodes"])
    return here + is_known, 0


def _why(address: Address, node: int) -> str:
    why = ask_nodes(address)["stuck"].get(str(node))
    return f": {why}" if why else ""
