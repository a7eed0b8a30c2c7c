"""The greeting of two cores: who each is, and whether they may speak with each other.

HELLO and WELCOME have the same body, which stays as it is in every version of the protocol, for
it is read before a version is agreed on:

    "CLPR" | u16 lowest, u16 highest version | 16 cluster | u32 node | u16 core | u16 cores of the
    node | u64 boot epoch | u32 node and u16 core spoken to | u8 channel | u8 0 | u16 port |
    u16 size of the host's name | host

A boot epoch counts the lives of a core: a later life has a greater one (the wall clock's
milliseconds at its start, or one more than the last, whichever is greater).

Of two cores the one of the lower node dials. So there are never two connections for one purpose;
a second one replaces the first, which its dialer has given up.
"""

import struct
from enum import IntEnum
from typing import Final

from corelane.model import limits
from corelane.model.ids import CoreId, NodeId
from corelane.model.record import record
from corelane.shard.peers.frames import Channel, FrameError, check, unpack

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1
CLUSTER_BYTES: Final = 16
_MAGIC: Final = b"CLPR"
_GREETING: Final = struct.Struct("<4sHH16sIHHQIHBBHH")
_REFUSAL: Final = struct.Struct("<HHQ")  # code, size of the sentence, boot epoch

PeerId = tuple[NodeId, CoreId]
"""A core of another node, whatever its life."""


class Refused(IntEnum):
    """Why two cores do not speak with each other."""

    MALFORMED = 1
    WRONG_CLUSTER = 2
    OWN_NODE = 3
    """Two machines have one node id, or this one dialed itself."""
    NO_COMMON_VERSION = 4
    WRONG_NODE = 5
    """Another node answers at that address."""
    NO_SUCH_CORE = 6
    WRONG_SIDE = 7
    """The lower node dials."""
    FORMER_LIFE = 8
    """A later life of that core was heard already."""
    CORE_AWAY = 9
    """Said by a supervisor: that core's life of this boot epoch has ended, the next is not up."""
    TOO_MANY = 10


@record
class Greeting:
    """HELLO or WELCOME."""

    cluster: bytes
    node: NodeId
    core: CoreId
    core_count: int
    boot: int
    to_node: NodeId
    to_core: CoreId
    channel: Channel
    host: str
    """With `port`: where this node is dialed by its peers."""
    port: int
    version_min: int = VERSION_MIN
    version_max: int = VERSION_MAX

    @property
    def peer(self) -> PeerId:
        """Return who speaks."""
        return self.node, self.core


@record
class Refusal:
    """REFUSE: a code to act on, and one sentence for a person."""

    code: Refused
    sentence: str
    boot: int = 0


@record
class Identity:
    """This core, as it introduces itself."""

    cluster: bytes
    node: NodeId
    core: CoreId
    core_count: int
    boot: int
    host: str
    port: int
    version_min: int = VERSION_MIN
    version_max: int = VERSION_MAX

    def greet(self, peer: PeerId, channel: Channel) -> Greeting:
        """Return what this core says to *peer*."""
        return Greeting(
            self.cluster,
            self.node,
            self.core,
            self.core_count,
            self.boot,
            *peer,
            channel,
            self.host,
            self.port,
            self.version_min,
            self.version_max,
        )


def encode_greeting(greeting: Greeting) -> bytes:
    """Return the body of HELLO or WELCOME."""
    host = greeting.host.encode()
    assert len(greeting.cluster) == CLUSTER_BYTES
    assert len(host) <= limits.HOST_CHARACTERS_MAX
    versions = (greeting.version_min, greeting.version_max)
    speaker = (greeting.node, greeting.core, greeting.core_count, greeting.boot)
    listener = (greeting.to_node, greeting.to_core, greeting.channel, 0)
    address = (greeting.port, len(host))
    return _GREETING.pack(_MAGIC, *versions, greeting.cluster, *speaker, *listener, *address) + host


def decode_greeting(body: memoryview) -> Greeting:
    """Return the greeting that *body* is; FrameError otherwise."""
    check(len(body) >= _GREETING.size, "A greeting is cut short.")
    magic, lowest, highest, cluster, *numbers = _GREETING.unpack_from(body)
    node, core, core_count, boot, to_node, to_core, channel, zero, port, size = numbers
    check(magic == _MAGIC, "This is no core of a Corelane cluster.")
    check(0 < lowest <= highest, "A greeting has impossible versions.")
    check(0 < node <= limits.NODE_ID_MAX, f"A greeting has the impossible node id {node}.")
    check(0 < to_node <= limits.NODE_ID_MAX, f"A greeting is for the impossible node {to_node}.")
    check(0 < core_count <= limits.CORES_MAX, "A greeting has an impossible number of cores.")
    # Also from one that its node has no more: it hands over what it has (`ShardConfig.retired`).
    check(core < limits.CORES_MAX, f"A greeting has the impossible core {core}.")
    check(boot > 0, "A greeting has no boot epoch.")
    check(zero == 0, "A greeting has something in a field that is 0.")
    check(channel in {each.value for each in Channel}, f"There is no channel {channel}.")
    check(len(body) == _GREETING.size + size, "A greeting has another length than it says.")
    check(0 < size <= limits.HOST_CHARACTERS_MAX, "A host's name is empty or too long.")
    check(port > 0, "A greeting has no port.")
    try:
        host = bytes(body[_GREETING.size :]).decode()
    except UnicodeDecodeError:
        raise FrameError("A host's name is not UTF-8.") from None
    speaker = (NodeId(node), CoreId(core), core_count, boot)
    listener = (NodeId(to_node), CoreId(to_core), Channel(channel))
    return Greeting(cluster, *speaker, *listener, host, port, lowest, highest)


def encode_refusal(refusal: Refusal) -> bytes:
    """Return the body of REFUSE."""
    sentence = refusal.sentence[: limits.PEER_REFUSAL_CHARACTERS_MAX].encode()
    return _REFUSAL.pack(refusal.code, len(sentence), refusal.boot) + sentence


def decode_refusal(body: memoryview) -> Refusal:
    """Return the refusal that *body* is; FrameError otherwise."""
    code, size, boot = unpack(_REFUSAL, body, "A refusal")
    check(len(body) == _REFUSAL.size + size, "A refusal has another length than it says.")
    try:
        sentence = bytes(body[_REFUSAL.size :]).decode()
        known = Refused(code)
    except ValueError:
        raise FrameError(f"A refusal of code {code} cannot be read.") from None
    check(len(sentence) <= limits.PEER_REFUSAL_CHARACTERS_MAX, "A refusal is too long.")
    check(sentence.isprintable(), "A refusal has characters that no log should have.")
    return Refusal(known, sentence, boot)


def dials(own: NodeId, other: NodeId) -> bool:
    """Say whether a core of *own* dials one of *other*, and not the other way round."""
    return own < other


def judge_hello(own: Identity, hello: Greeting) -> Refusal | None:
    """Return why this core does not speak with who dialed it, or None."""
    fault = _judge(own, hello)
    if fault is not None:
        return fault
    if (hello.to_node, hello.to_core) != (own.node, own.core):
        node, core = hello.to_node, hello.to_core
        if hello.to_node != own.node:
            return Refusal(Refused.WRONG_NODE, f"This is node {own.node}, not node {node}.")
        return Refusal(Refused.NO_SUCH_CORE, f"Node {own.node} has no core {core} here.")
    if hello.channel is not Channel.PROBE and not dials(hello.node, own.node):
        sentence = f"Node {own.node} dials node {hello.node}, not the other way round."
        return Refusal(Refused.WRONG_SIDE, sentence)
    return None


def judge_welcome(own: Identity, peer: PeerId, welcome: Greeting) -> Refusal | None:
    """Return why this core does not speak with whom it dialed as *peer*, or None."""
    fault = _judge(own, welcome)
    if fault is not None:
        return fault
    if welcome.peer != peer or (welcome.to_node, welcome.to_core) != (own.node, own.core):
        sentence = f"Core {welcome.core} of node {welcome.node} answers for {peer[1]} of {peer[0]}."
        return Refusal(Refused.WRONG_NODE, sentence)
    return None


def _judge(own: Identity, other: Greeting) -> Refusal | None:
    if other.cluster != own.cluster:
        sentence = (
            f"Node {other.node} is of cluster {other.cluster.hex()}, not {own.cluster.hex()}."
        )
        return Refusal(Refused.WRONG_CLUSTER, sentence)
    if other.node == own.node:
        return Refusal(Refused.OWN_NODE, f"Two machines call themselves node {own.node}.")
    if other.version_max < own.version_min or own.version_max < other.version_min:
        theirs = f"{other.version_min} to {other.version_max}"
        ours = f"{own.version_min} to {own.version_max}"
        sentence = f"Node {other.node} speaks versions {theirs}, node {own.node} {ours}."
        return Refusal(Refused.NO_COMMON_VERSION, sentence)
    return None


def version_between(own: Identity, other: Greeting) -> int:
    """Return the version both speak: the highest of the lower ones."""
    version = min(own.version_max, other.version_max)
    assert version >= max(own.version_min, other.version_min)
    return version
