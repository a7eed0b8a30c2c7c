"""One frame of every kind, as values and as bytes."""

from typing import Final

from corelane.model.ids import CoreId, GroupId, Index, NodeId, Term
from corelane.raft import codec
from corelane.raft.messages import Appended, VoteAnswer
from corelane.shard.peers import beats, hello, leads, messages
from corelane.shard.peers.beats import Answer, Beat, Health
from corelane.shard.peers.frames import Channel, Kind, decode_call, encode, encode_call
from corelane.shard.peers.hello import Greeting, Identity, Refusal, Refused
from corelane.shard.peers.leads import Lead
from corelane.shard.peers.messages import Outgoing

CLUSTER: Final = bytes(range(16))
GREETING: Final = Greeting(
    CLUSTER, NodeId(1), CoreId(2), 4, 1_700_000_000_123, NodeId(3), CoreId(2),
    Channel.SESSION, "node-1", 9192,
)  # fmt: skip
REFUSAL: Final = Refusal(Refused.NO_SUCH_CORE, "Node 3 has no core 7 here.", 5)
ROWS: Final = [(GroupId(7), Term(3), Index(40)), (GroupId(1 << 40), Term(9), Index(0))]
BEAT: Final = Beat(
    11, 77, Health(5, None, 250, 9, is_unfit=True), codec.pack_heartbeats(ROWS),
    beats.encode_incarnations({GroupId(7): (0, 2)}),
)  # fmt: skip
ANSWER: Final = Answer(
    12, 77, codec.pack_heartbeat_answers([(GroupId(7), Term(3))]),
    codec.pack_heartbeat_answers([(GroupId(1 << 40), Term(10))]),
    beats.encode_incarnations({GroupId(7): (2, 0)}),
)  # fmt: skip
ENDED: Final = [(CoreId(3), 1_700_000_000_123)]
LEADS: Final = [
    Lead(GroupId(7), Term(3), 2, NodeId(1), CoreId(2), (NodeId(1), NodeId(3))),
    Lead(GroupId(8), Term(1), 0, NodeId(1), CoreId(0), ()),
]
WORDS: Final = [
    Outgoing(GroupId(7), 1, 3, codec.encode(Appended(Term(3), Index(4), Index(5))), [], 0, [], 0),
    Outgoing(GroupId(8), 1, 1 << 32 | 3, codec.encode(VoteAnswer(Term(3), 6, True)), [], 0, [], 0),
]

BODIES: Final[dict[Kind, bytes]] = {
    Kind.HELLO: hello.encode_greeting(GREETING),
    Kind.WELCOME: hello.encode_greeting(GREETING),
    Kind.REFUSE: hello.encode_refusal(REFUSAL),
    Kind.MESSAGES: messages.encode_first(1000, WORDS),
    Kind.BEAT: beats.encode_beat(BEAT),
    Kind.BEAT_ANSWER: beats.encode_answer(ANSWER),
    Kind.ENDED: beats.encode_ended(ENDED),
    Kind.LEADS: leads.encode(LEADS),
    Kind.CALL: encode_call(7, b"what"),
    Kind.RETURN: encode_call(7, b"that"),
}
FRAMES: Final = {kind: encode(kind, 9, body) for kind, body in BODIES.items()}


def decode_body(kind: Kind, body: memoryview) -> object:
    """Decode a body as the one who receives such a frame does, rows included."""
    match kind:
        case Kind.HELLO | Kind.WELCOME:
            return hello.decode_greeting(body)
        case Kind.REFUSE:
            return hello.decode_refusal(body)
        case Kind.MESSAGES:
            return messages.decode(body)
        case Kind.BEAT:
            beat = beats.decode_beat(body)
            return beat, beats.beat_rows(beat.rows), beats.decode_incarnations(beat.incarnations)
        case Kind.BEAT_ANSWER:
            answer = beats.decode_answer(body)
            rows = beats.answer_rows(answer.followed), beats.answer_rows(answer.higher)
            return answer, rows, beats.decode_incarnations(answer.incarnations)
        case Kind.ENDED:
            return beats.decode_ended(body)
        case Kind.LEADS:
            return leads.decode(body)
        case Kind.CALL | Kind.RETURN:
            return decode_call(body)


def identity(node: int, core: int = 0, boot: int = 100, cores: int = 4) -> Identity:
    """Return who a core of the tests is."""
    return Identity(CLUSTER, NodeId(node), CoreId(core), cores, boot, f"node-{node}", 9192)
