"""A raw producer that watches every partition: how long was each without an acknowledgement?

`python -m bench.macro.gaps host:port,host:port --topic t --seconds 20` sends one small record to
each partition every 100 ms with acks=all, goes to another leader as soon as it hears of
one, and prints each gap between two acknowledgements of a partition as a line: `gap`, partition,
when it began (seconds of the monotonic clock), how long it was, or is so far. It speaks to any
Kafka broker, so real Kafka is measured by the very same client; `bench/macro/deaths.py` has two
more clients.
"""

import argparse
import struct
import time

import trio

from bench.macro import raw
from tests.conformance.probe import Address, parse_address

TICK_S = 0.01
EVERY_S = 0.1
"""Between two records of a partition: gaps are known to that."""
ROWS_MAX = 20
"""Partitions in one request: one of them that waits for an election holds up so many."""
METADATA_EVERY_S = 0.02
DIAL_S_MAX = 0.3
ANSWER_S_MAX = 1.0
"""A broker that has not answered for so long is left: it may hang. Clients wait longer."""
REQUEST_TIMEOUT_MS = 30_000
GAP_S_MIN = 0.25
"""Shorter ones are not told."""
TELL_EVERY_S = 0.5
OPEN_S_MIN = 1.0
"""Gaps that are open for so long are told again and again, as long as they have become."""


class Watched:
    """One partition while it is produced to."""

    def __init__(self, index: int, now_s: float) -> None:
        self.index = index
        self.leader: Address | None = None
        self.is_asked = False
        self.acknowledged = 0
        self.last_s = now_s

    def settled(self, now_s: float, *, is_good: bool) -> None:
        """Take note of an answer."""
        self.is_asked = False
        if not is_good:
            self.leader = None
            return
        if self.acknowledged:
            self.tell(now_s)
        self.acknowledged += 1
        self.last_s = now_s

    def tell(self, now_s: float, gap_s_min: float = GAP_S_MIN) -> None:
        """Print the gap up to now, if it is one."""
        if now_s - self.last_s >= gap_s_min:
            print(f"gap {self.index} {self.last_s:.3f} {now_s - self.last_s:.3f}", flush=True)


def tell_open(partitions: list[Watched]) -> None:
    """Tell of the gaps that have not ended."""
    now_s = time.monotonic()
    for each in partitions:
        if each.acknowledged:
            each.tell(now_s, OPEN_S_MIN)


class Gaps:
    """The run."""

    def __init__(self, seeds: list[Address], topic: str, count: int) -> None:
        self.seeds = seeds
        self.topic = topic
        now_s = time.monotonic()
        self.partitions = [Watched(index, now_s) for index in range(count)]
        self._outboxes: dict[tuple[str, int], trio.MemorySendChannel[list[Watched]]] = {}
        self._record = raw.batch([b"x" * 100], int(time.time() * 1000))

    async def run(self, seconds: float) -> None:
        """Produce for so long, and tell what is open at the end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._learn)
            nursery.start_soon(self._tell_open)
            nursery.start_soon(self._tick, nursery)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()
        now_s = time.monotonic()
        for each in self.partitions:
            each.tell(now_s)

    async def _tell_open(self) -> None:
        while True:
            await trio.sleep(TELL_EVERY_S)
            tell_open(self.partitions)

    async def _learn(self) -> None:
        """Ask one broker after the other who leads, while any leader is unknown."""
        body = struct.pack(">i", 1) + raw.text(self.topic)
        frame = raw.request(raw.METADATA, 1, body)
        turn = 0
        while True:
            if any(each.leader is None for each in self.partitions):
                turn += 1
                found: dict[int, Address] = {}
                with trio.move_on_after(DIAL_S_MAX):
                    try:
                        found = raw.leaders(await _ask(self.seeds[turn % len(self.seeds)], frame))
                    except (OSError, EOFError, trio.BrokenResourceError):
                        found = {}
                for each in self.partitions:
                    if each.leader is None:
                        each.leader = found.get(each.index)
            await trio.sleep(METADATA_EVERY_S)

    async def _tick(self, nursery: trio.Nursery) -> None:
        while True:
            due: dict[tuple[str, int], list[Watched]] = {}
            for each in self.partitions:
                if each.leader is not None and not each.is_asked:
                    due.setdefault((each.leader.host, each.leader.port), []).append(each)
            for leader, rows in due.items():
                outbox = self._outboxes.get(leader)
                if outbox is None:
                    outbox, inbox = trio.open_memory_channel[list[Watched]](10_000)
                    self._outboxes[leader] = outbox
                    nursery.start_soon(self._speak, leader, inbox)
                for first in range(0, len(rows), ROWS_MAX):
                    share = rows[first : first + ROWS_MAX]
                    for each in share:
                        each.is_asked = True
                    outbox.send_nowait(share)
            await trio.sleep(EVERY_S)

    async def _speak(
        self, leader: tuple[str, int], inbox: trio.MemoryReceiveChannel[list[Watched]]
    ) -> None:
        """Serve one broker until its connection breaks."""
        waiting: list[list[Watched]] = []
        try:
            with trio.fail_after(DIAL_S_MAX):
                stream = await trio.open_tcp_stream(*leader)
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, stream, waiting)
                async for share in inbox:
                    waiting.append(share)
                    await stream.send_all(self._request(share))
        except* (OSError, EOFError, trio.TooSlowError, trio.BrokenResourceError):
            pass
        finally:
            self._outboxes.pop(leader, None)
            now_s = time.monotonic()
            while True:
                try:
                    waiting.append(inbox.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            for share in waiting:
                for each in share:
                    each.settled(now_s, is_good=False)

    async def _listen(self, stream: trio.SocketStream, waiting: list[list[Watched]]) -> None:
        while True:
            while not waiting:
                await trio.sleep(TICK_S)
            with trio.fail_after(ANSWER_S_MAX):
                answer = await _receive(stream)
            now_s = time.monotonic()
            share = {each.index: each for each in waiting.pop(0)}
            for index, code in raw.produced(answer, self.topic):
                share.pop(index).settled(now_s, is_good=code == 0)
            assert not share, "every partition is answered for"

    def _request(self, share: list[Watched]) -> bytes:
        rows = b"".join(
            struct.pack(">ii", each.index, len(self._record)) + self._record for each in share
        )
        head = struct.pack(">hhii", -1, -1, REQUEST_TIMEOUT_MS, 1) + raw.text(self.topic)
        return raw.request(raw.PRODUCE, 7, head + struct.pack(">i", len(share)) + rows)


async def _receive(stream: trio.SocketStream) -> bytes:
    (size_bytes,) = struct.unpack(">i", await _exactly(stream, 4))
    return (await _exactly(stream, size_bytes))[4:]


async def _exactly(stream: trio.SocketStream, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        piece = await stream.receive_some(size_bytes - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


async def _ask(address: Address, frame: bytes) -> bytes:
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        await stream.send_all(frame)
        return await _receive(stream)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("brokers", help="host:port,…")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    seeds = [parse_address(each) for each in options.brokers.split(",")]
    gaps = Gaps(seeds, options.topic, options.partitions)
    trio.run(gaps.run, options.seconds)


if __name__ == "__main__":
    main()
