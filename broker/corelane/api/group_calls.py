"""What requests of coordinators share: to find it, to ask it, and to be passed on."""

from collections.abc import Callable

from corelane.api.gather import Gathered, count_misrouted, frame_of, owner_of
from corelane.groups.requests import Answer, Request
from corelane.model.errors import ErrorCode
from corelane.model.ids import CoreId
from corelane.model.internal_topics import OFFSETS_TOPIC
from corelane.shard.call import Call
from corelane.shard.group_host import GroupHost
from corelane.shard.key_hash import partition_number
from corelane.shard.shard import Shard
from corelane.wire.compiler import Message

Handle = Callable[[Shard, Call], None]


def host_of(shard: Shard, group: str) -> GroupHost | ErrorCode:
    """Return the coordinator of a group, or why it is not here."""
    topic = shard.groups.topics.get(OFFSETS_TOPIC.encode())
    if topic is None:
        return ErrorCode.NOT_COORDINATOR
    partition = topic.partition(partition_number(group, len(topic.partitions)))
    if partition is None or not partition.serves:
        return ErrorCode.NOT_COORDINATOR
    host = shard.groups.hosts.groups.get(partition.group)
    return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if host is None else host


def ask(
    shard: Shard,
    call: Call,
    group: str,
    request: Request,
    told: Callable[[Answer | ErrorCode], Message],
) -> None:
    """Have a group's coordinator decide, and the client answered with what *told* makes of it."""
    host = host_of(shard, group)
    if isinstance(host, ErrorCode):
        call.answer(told(host))
        return
    if shard.store.is_full:
        call.answer(told(ErrorCode.COORDINATOR_NOT_AVAILABLE))
        return

    def done(answer: Answer | None) -> None:
        if not call.slot.connection.is_closed:
            call.answer(told(ErrorCode.NOT_COORDINATOR if answer is None else answer))

    host.ask(request, done)


def core_of(shard: Shard, key: str, kept_in: str = OFFSETS_TOPIC) -> CoreId:
    """Return the core of this node that coordinates a key, or may say who does."""
    topic = shard.groups.topics.get(kept_in.encode())
    number = 0 if topic is None else partition_number(key, len(topic.partitions))
    owner = owner_of(shard, topic, number)
    return shard.config.core if owner is None else owner


def routed(
    handle: Handle, key_of: Callable[[Message], str], kept_in: str = OFFSETS_TOPIC
) -> Handle:
    """Return what answers a request of one key through a door of the whole node."""

    def gather(shard: Shard, call: Call) -> None:
        core = core_of(shard, key_of(call.decode()), kept_in)
        count_misrouted(shard, call, [core])
        if core == shard.config.core:
            handle(shard, call)
        else:
            shard.forwarding.whole(call, core)

    return gather


def split_by_key(
    handle: Handle,
    field: str,
    result: str,
    key_of: Callable[[object], str],
    kept_in: str = OFFSETS_TOPIC,
) -> Handle:
    """Return the same for a request whose *field* lists groups and its answer's *result* rows."""

    def gather(shard: Shard, call: Call) -> None:
        request = call.decode()
        shares: dict[CoreId, list[object]] = {}
        for row in getattr(request, field):
            shares.setdefault(core_of(shard, key_of(row), kept_in), []).append(row)
        count_misrouted(shard, call, shares)
        if set(shares) <= {shard.config.core}:
            handle(shard, call)
            return
        gathered = Gathered(shard, call, lambda each: _merge(each, result))
        for core, rows in shares.items():
            fields = {name: getattr(request, name) for name in request.__slots__}
            gathered.send(core, frame_of(call, type(request)(**fields | {field: rows})))
        gathered.sent()

    return gather


def of_all_cores(result: str) -> Handle:
    """Return what asks every core of the node, and joins the rows of their answers."""

    def gather(shard: Shard, call: Call) -> None:
        frame = frame_of(call, call.decode())
        gathered = Gathered(shard, call, lambda each: _merge(each, result))
        for core in range(shard.config.core_count):
            gathered.send(CoreId(core), frame)
        gathered.sent()

    return gather


def _merge(gathered: Gathered, result: str) -> None:
    """Answer with the rows of all; of a core that is away the client hears by its absence."""
    answers = [each for each in gathered.answers.values() if each is not None]
    if not answers:
        gathered.shard.forwarding.close(gathered.call)
        return
    rows = [row for each in answers for row in getattr(each, result)]
    first = answers[0]
    fields = {name: getattr(first, name) for name in first.__slots__}
    gathered.call.answer(type(first)(**fields | {result: rows}))
