"""What `corelane cluster rebalance` does."""

from typing import Any, Final

import click

from corelane_cli import exits
from corelane_cli.admin_port import ACT_TIMEOUT_S, address_of, ask, ask_nodes, refusal
from corelane_cli.cluster_wish import Wish, wait_until
from corelane_cli.exits import CommandError
from corelane_cli.output import counted, show_json

LOOK_S: Final = 0.5


def act(wish: Wish) -> None:
    """Show what would be moved, or have it moved and wait until every node has its share."""
    address = address_of(wish.admin, wish.bootstrap)
    reply = ask(address, "/v1/rebalance", {"action": wish.action}, ACT_TIMEOUT_S)
    if reply.status != 200:
        raise refusal(reply, "rebalancing")
    if wish.action == "plan":
        _show_plan(wish, reply.value)
        return
    if wish.action == "start" and wish.wait:
        _wait(wish, lambda: ask_nodes(address))
    is_done = wish.action == "start" and wish.wait
    if wish.output_format == "json":
        show_json({"action": wish.action, "done": is_done})
    elif wish.action == "cancel":
        click.echo("no more replicas are moved; those on their way go on")
    elif is_done:
        click.echo("every node has its share of replicas")
    else:
        click.echo("replicas are being moved: see `corelane cluster reassignments`")


def _show_plan(wish: Wish, told: dict[str, Any]) -> None:
    moves = []
    for name in sorted(name for name in told if name.startswith("move ")):
        topic, number, before, after = told[name].split()
        nodes = [[int(node) for node in each.split(",")] for each in (before, after)]
        moves.append({"topic": topic, "partition": int(number), "from": nodes[0], "to": nodes[1]})
    count = int(told["moves"])
    if wish.output_format == "json":
        show_json({"moves": moves, "count": count, "waits_for": told["waits"]})
        return
    if not count:
        click.echo("every node has its share of replicas: nothing to move")
    for move in moves:
        before, after = (",".join(map(str, move[way])) for way in ("from", "to"))
        click.echo(f"{move['topic']}-{move['partition']}: nodes {before} -> {after}")
    if count > len(moves):
        click.echo(f"and {counted(count - len(moves), 'partition')} more")
    if told["waits"]:
        click.echo(f"it would wait: {told['waits']}")


def _wait(wish: Wish, look: Any) -> None:
    """Look until no node is being brought to its share any more."""
    found: dict[str, Any] = {}
    filling: list[int] = []

    def is_done() -> bool:
        found.update(look())
        filling[:] = [row["node"] for row in found["nodes"] if row["filling"]]
        return not filling

    if wait_until(is_done, wish.timeout_s, LOOK_S):
        return
    why = next((found["stuck"][str(n)] for n in filling if str(n) in found["stuck"]), "")
    raise CommandError(
        exits.TIMED_OUT,
        f"not every node has its share after {wish.timeout_s:.0f} s{': ' if why else ''}{why}",
        "It goes on by itself; look with `corelane cluster reassignments`.",
    )
