"""Asks a node's admin port (HTTP, JSON) what Kafka's protocol has no words for."""

import http.client
import json
import socket
from typing import Any, Final

from corelane.model.record import record
from corelane_cli import exits
from corelane_cli.catalogue import next_step
from corelane_cli.exits import CommandError
from corelane_client.address import Address, AddressError, parse_bootstrap

PORT_DEFAULT: Final = 9644
TIMEOUT_S: Final = 5.0
MOVE_TIMEOUT_S: Final = 60.0
"""A group moves once what its core holds of it is on disk."""
ACT_TIMEOUT_S: Final = 15.0
"""What is asked of core 0, which may wait for the controller."""
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


@record
class Reply:
    """What came back; `value` is None where the body is not JSON."""

    status: int
    value: Any
    text: str


def address_of(named: str | None, bootstrap: str) -> Address:
    """Return the admin port: as *named*, or where the first bootstrap host has it by default."""
    try:
        if named is None:
            return Address(parse_bootstrap(bootstrap)[0].host, PORT_DEFAULT)
        found = parse_bootstrap(named if named.rpartition("]")[2].count(":") else f"{named}:9644")
    except AddressError as error:
        next_step = "Name the admin port: --admin HOST:PORT."
        raise CommandError(exits.USAGE, str(error), next_step) from error
    return found[0]


def ask(address: Address, path: str, body: Any = None, timeout_s: float = TIMEOUT_S) -> Reply:
    """GET *path*, or POST *body* to it as JSON. Raises CommandError when nobody answers."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    try:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        connection.request("GET" if data is None else "POST", path, data, headers)
        response = connection.getresponse()
        raw = response.read(ANSWER_BYTES_MAX)
    except TimeoutError as error:
        why = f"it did not answer within {timeout_s:.0f} s"
        raise _unreachable(address, why, exits.TIMED_OUT) from error
    except (ConnectionError, socket.gaierror, OSError) as error:
        raise _unreachable(address, (error.strerror or str(error)).lower()) from error
    except http.client.HTTPException as error:
        raise _unreachable(address, "it does not speak HTTP; is it a Kafka port?") from error
    finally:
        connection.close()
    text = raw.decode(errors="replace").strip()
    try:
        return Reply(response.status, json.loads(text), text)
    except ValueError:
        return Reply(response.status, None, text)


def ask_cluster(address: Address, cluster_id: str | None) -> dict[str, Any]:
    """Return what the node says of its cores. Raises CommandError.

    *cluster_id* is what Kafka's protocol says: an admin port of another cluster is refused.
    """
    reply = ask(address, "/v1/cluster")
    if reply.status != 200 or not isinstance(reply.value, dict):
        raise CommandError(
            exits.FAILED,
            f"the admin port {address} does not tell of cores (it answers {reply.status})",
            "Use a broker of this version of corelane.",
        )
    found: dict[str, Any] = reply.value
    other = found.get("cluster_id")
    if cluster_id is not None and other is not None and other != cluster_id:
        raise CommandError(
            exits.FAILED,
            f"the admin port {address} is one of cluster {other}, the brokers are {cluster_id}",
            "Name the admin port of the same node: --admin HOST:PORT.",
        )
    return found


def ask_nodes(address: Address) -> dict[str, Any]:
    """Return what the nodes of the cluster are said to be, and why some go nowhere.

    Raises CommandError.
    """
    reply = ask(address, "/v1/nodes", timeout_s=ACT_TIMEOUT_S)
    value = reply.value if isinstance(reply.value, dict) else {}
    if reply.status != 200 or "nodes" not in value:
        raise refusal(reply, "the nodes")
    return {"nodes": value["nodes"], "stuck": value.get("stuck", {})}


def refusal(reply: Reply, what: str) -> CommandError:
    """Return the error that *reply* tells."""
    value = reply.value if isinstance(reply.value, dict) else {}
    said = value.get("sentence") or value.get("message") or reply.text or f"HTTP {reply.status}"
    word = value.get("error")
    word = word if isinstance(word, str) else ""
    return CommandError(exits.REFUSED, f"{what}: {said}", next_step(word), word)


def _unreachable(address: Address, why: str, exit_code: int = exits.CANNOT_CONNECT) -> CommandError:
    return CommandError(
        exit_code,
        f"cannot ask the admin port {address}: {why}",
        "Name the node's admin port (corelane.admin.port): --admin HOST:PORT.",
    )
