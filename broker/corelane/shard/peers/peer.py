"""One peer core: its session, its connections, and where it is dialed."""

from corelane.shard.peers import hello
from corelane.shard.peers.data_link import DataLink
from corelane.shard.peers.events import Verdict
from corelane.shard.peers.frames import Channel, Chunks
from corelane.shard.peers.hello import Identity, PeerId, Refusal, Refused
from corelane.shard.peers.line import Line
from corelane.shard.peers.session import Session


class Peer:
    """One peer core: its session, its lines, and where it is dialed."""

    __slots__ = (
        "address",
        "data",
        "dials",
        "is_known",
        "lines",
        "logged",
        "peer",
        "session",
        "verdict",
    )

    def __init__(self, peer: PeerId, now_ms: int, own: Identity, chunks: Chunks) -> None:
        self.peer = peer
        self.dials = hello.dials(own.node, peer[0])
        self.address: tuple[str, int] | None = None
        self.is_known = False
        self.session = Session(peer, own.boot)
        self.lines = {channel: Line(channel, now_ms) for channel in Channel}
        self.data = DataLink(self.lines[Channel.DATA], chunks)
        self.verdict: Verdict = self.session.verdict(now_ms, now_ms)
        self.logged: Refused | None = None
        """The refusal that was logged last: it is said once."""

    def judge_life(self, boot: int) -> Refusal | None:
        """Refuse a life that is known to be over."""
        session = self.session
        if boot >= session.boot and boot > session.ended_boot:
            return None
        latest = max(session.boot, session.ended_boot)
        sentence = f"Life {boot} is over: life {latest} was heard of."
        return Refusal(Refused.FORMER_LIFE, sentence, latest)

    def is_beat_due(self, number: int, now_ms: int) -> bool:
        """Whether the heartbeat of that round, or one more, is to be sent to it now."""
        return self.session.beaten != number or now_ms >= self.session.extra_at_ms

    def beats(self, number: int, now_ms: int) -> bool:
        """Whether that heartbeat is due, and there is a session to send it over."""
        return self.session.is_open and self.is_beat_due(number, now_ms)

    def is_due(self, line: Line, now_ms: int) -> bool:
        """Whether this line is to be dialed now."""
        if not line.is_idle or now_ms < line.dial_at_ms:
            return False
        if self.address is None or not self.is_known:
            return False
        if self.dials:
            return line.channel is not Channel.PROBE
        # The other side dials; one that was never met, or fell silent, is told and looked for.
        return line.channel is Channel.PROBE and not self.session.is_open
