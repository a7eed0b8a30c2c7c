"""What the admin port shows and does: health, readiness, metrics, the cores, and moves."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import trio

from corelane.model.ids import CoreId, NodeId, core_broker_id, node_broker_id
from corelane.model.record import record
from corelane.runtime.admin import Page, Request, Route, Routes, text
from corelane.runtime.advertise import cluster_id_text
from corelane.runtime.cores import Core, CoreState
from corelane.runtime.messages import Operated
from corelane.runtime.scrape import Scraper

MOVE_S_MAX: Final = 55.0
"""A group moves once what its core holds of it is on disk; the command line waits a minute."""
ACT_S_MAX: Final = 10.0
"""What is done with a node is decided by one entry of the controller's log."""
_JSON: Final = "application/json"

_STATUS_OF_ERROR: Final = {
    "": 200,
    "INVALID_REQUEST": 400,
    "UNKNOWN_TOPIC_OR_PARTITION": 404,
    "BROKER_ID_NOT_REGISTERED": 404,
    "COORDINATOR_NOT_AVAILABLE": 503,
    "REQUEST_TIMED_OUT": 504,
}


class Move(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/move."""

    topic: str
    partition: int
    core: int


class NodeAction(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/nodes."""

    node: int
    action: str


class Rebalance(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/rebalance."""

    action: str


@record
class NodeFacts:
    """What stays the same while a node runs."""

    node_id: int
    cluster_uuid: str
    advertise: str
    """core or node."""
    directory: Path
    listeners: list[dict[str, object]]
    """As ports.json has them, with what is advertised."""


class NodeView(Protocol):
    """What the pages need of the node."""

    is_draining: bool

    @property
    def cores(self) -> Sequence[Core]:
        """Return the cores that serve clients."""

    @property
    def retired(self) -> Sequence[Core]:
        """Return those of an earlier start that hand over what they have."""

    def all_cores(self) -> Sequence[Core]:
        """Return both."""

    def refused(self) -> Mapping[str, int]:
        """Return how many connections no core could take, by the name of the listener."""

    async def operate(
        self, number: int, verb: str, arguments: dict[str, str], wait_s_max: float
    ) -> Operated | None:
        """Have a core do something; None when it does not answer in time."""


class AdminPages:
    """Makes the pages of one node."""

    def __init__(self, node: NodeView, facts: NodeFacts) -> None:
        self._node = node
        self._facts = facts
        self._scraper = Scraper(node)
        self._exporter: Any = None
        self._began_s = time.monotonic()

    def routes(self) -> Routes:
        """Return what is served."""
        return {
            ("GET", "/health"): Route(self._health),
            ("GET", "/healthz"): Route(self._healthz),
            ("GET", "/readyz"): Route(self._readyz),
            ("GET", "/metrics"): Route(self._metrics),
            ("GET", "/v1/cluster"): Route(self._cluster),
            ("POST", "/v1/move"): Route(self._move, MOVE_S_MAX + 5.0),
            ("GET", "/v1/nodes"): Route(self._nodes, ACT_S_MAX + 5.0),
            ("POST", "/v1/nodes"): Route(self._act, ACT_S_MAX + 5.0),
            ("POST", "/v1/rebalance"): Route(self._rebalance, ACT_S_MAX + 5.0),
        }

    async def _metrics(self, request: Request) -> Page:
        if self._exporter is None:
            # prometheus_client takes longer to import than a core to recover.
            self._exporter = await trio.to_thread.run_sync(self._load_exporter)
        return Page(200, self._exporter.content_type, await self._exporter.text())

    def _load_exporter(self) -> Any:
        import importlib.metadata

        from corelane.runtime.exporter import Exporter

        version = importlib.metadata.version("corelane")
        return Exporter(self._scraper, self._facts.directory, version, self._began_s)

    async def _healthz(self, request: Request) -> Page:
        return _verdict("ok", self._cores_away())

    async def _readyz(self, request: Request) -> Page:
        problems = self._cores_away()
        if self._node.is_draining:
            problems.append("the node is stopping")
        for core in self._node.cores:
            beat = None if core.life is None else core.life.heartbeat
            number = core.plan.core
            if beat is not None and beat.groups_offline:
                offline = _counted(beat.groups_offline, "group is", "groups are")
                problems.append(f"core {number}: {offline} offline, with damaged files")
            if beat is not None and beat.groups_opening:
                opening = _counted(beat.groups_opening, "group has", "groups have")
                problems.append(f"core {number}: {opening} no leader")
        return _verdict("ready", problems)

    def _cores_away(self) -> list[str]:
        return [
            f"core {core.plan.core} does not serve: it is {core.state.value}"
            for core in self._node.cores
            if core.state is not CoreState.UP
        ]

    async def _health(self, request: Request) -> Page:
        node = self._node
        lives = [core.life for core in node.cores if core.life is not None]
        offline = sum(life.heartbeat.groups_offline for life in lives)
        is_healthy = offline == 0 and not self._cores_away()
        body = {
            "status": "ok" if is_healthy else "degraded",
            "node_id": self._facts.node_id,
            "cluster_uuid": self._facts.cluster_uuid,
            "groups_offline": offline,
            "cores": [_core_health(core) for core in node.cores],
        }
        return _json(200 if is_healthy else 503, body)

    async def _cluster(self, request: Request) -> Page:
        node, facts = self._node, self._facts
        numbers = await self._scraper.pull()
        body = {
            "cluster_id": cluster_id_text(facts.cluster_uuid),
            "node_id": facts.node_id,
            "advertise": facts.advertise,
            "listeners": facts.listeners,
            "cores": [self._core(core, numbers.get(core.plan.core, {})) for core in node.cores],
            "retired_cores": [core.plan.core for core in node.retired],
        }
        return _json(200, body)

    def _core(self, core: Core, numbers: dict[str, float]) -> dict[str, object]:
        node, life = NodeId(self._facts.node_id), core.life
        is_node = self._facts.advertise == "node"
        number = CoreId(core.plan.core)
        misrouted = sum(v for key, v in numbers.items() if key.startswith("misrouted/"))
        return {
            "core": number,
            "broker_id": node_broker_id(node) if is_node else core_broker_id(node, number),
            "port": core.plan.port,
            "pid": life.pid if life else None,
            "cpu": life.cpu if life else -1,
            "state": "serving" if core.state is CoreState.UP else core.state.value,
            "connections": life.connections if life else 0,
            "partitions_led": round(numbers.get("partitions_led", 0)),
            "misrouted": round(misrouted),
            "loop_lag_ms": float(life.heartbeat.loop_lag_ms) if life else 0.0,
            "damaged": list(life.heartbeat.damaged) if life else [],
            "restarts": core.restarts,
            "is_stale": not self._scraper.of(core).is_fresh,
        }

    async def _move(self, request: Request) -> Page:
        move = _body(request, Move, "a move")
        if not isinstance(move, Move):
            return move
        where = {"topic": move.topic, "partition": str(move.partition), "core": str(move.core)}
        return await self._operate("move", where, MOVE_S_MAX)

    async def _act(self, request: Request) -> Page:
        wish = _body(request, NodeAction, "an action on a node")
        if not isinstance(wish, NodeAction):
            return wish
        wanted = {"node": str(wish.node), "action": wish.action}
        return await self._operate("node", wanted, ACT_S_MAX)

    async def _rebalance(self, request: Request) -> Page:
        wish = _body(request, Rebalance, "an action on all nodes")
        if not isinstance(wish, Rebalance):
            return wish
        return await self._operate("rebalance", {"action": wish.action}, ACT_S_MAX)

    async def _nodes(self, request: Request) -> Page:
        answer = await self._node.operate(0, "nodes", {}, ACT_S_MAX)
        if answer is None:
            return _json(504, {"error": "REQUEST_TIMED_OUT", "sentence": "core 0 does not answer"})
        rows = [
            {"node": int(name), **dict(_word(word) for word in value.split())}
            for name, value in answer.values.items()
            if name.isdecimal()
        ]
        stuck = {
            name.removeprefix("stuck "): why
            for name, why in answer.values.items()
            if name.startswith("stuck ")
        }
        return _json(200, {"nodes": rows, "stuck": stuck})

    async def _operate(self, verb: str, wanted: dict[str, str], wait_s_max: float) -> Page:
        answer = await self._node.operate(0, verb, wanted, wait_s_max)
        if answer is None:
            said = "core 0 did not say what became of it: look with `corelane cluster info`"
            answer = Operated(0, "REQUEST_TIMED_OUT", said, {})
        return _operated(answer)


Body = TypeVar("Body")


def _body(request: Request, kind: type[Body], what: str) -> Body | Page:
    """Return what was posted, or the answer to what cannot be that."""
    # A page of some web site can have a browser post here, but not with this type.
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != _JSON:
        return text(415, f"Send the body as {_JSON}.\n")
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.DecodeError as fault:
        said = f"the body is not {what}: {fault}"
        return _operated(Operated(0, "INVALID_REQUEST", said, {}))


def _word(word: str) -> tuple[str, bool]:
    name, _, value = word.partition("=")
    return name, value == "1"


def _operated(answer: Operated) -> Page:
    status = _STATUS_OF_ERROR.get(answer.error, 409)
    body: dict[str, object] = {"error": answer.error, "sentence": answer.sentence, **answer.values}
    return _json(status, body)


def _verdict(word: str, problems: list[str]) -> Page:
    return _json(503, {"problems": problems}) if problems else text(200, f"{word}\n")


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _json(status: int, body: Mapping[str, object]) -> Page:
    return Page(status, _JSON, (json.dumps(body, indent=2) + "\n").encode())


def _core_health(core: Core) -> dict[str, object]:
    life = core.life
    ready_s = None if life is None else life.ready_s
    return {
        "core": core.plan.core,
        "state": core.state.value,
        "port": core.plan.port,
        "cpu": life.cpu if life else -1,
        "pid": life.pid if life else None,
        "restarts": core.restarts,
        "connections": life.connections if life else 0,
        "damaged": list(life.heartbeat.damaged) if life else [],
        "up_s": None if ready_s is None else round(trio.current_time() - ready_s, 3),
    }
