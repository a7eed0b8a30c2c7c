"""The frame cutter that serves the links between the cores of a node cuts these frames as well.

Method: every kind of frame, with the largest number, through a real `Net` over a pair of pipes.
"""

import os

from corelane.shard.peers.frames import Kind, decode, encode
from corelane_native import FRAME, Arena, Net, bytes_at
from tests.unit.shard.peers.samples import BODIES

NUMBER_MAX = (1 << 32) - 1


def test_frames_between_nodes_are_cut_like_those_between_cores() -> None:
    read_fd, their_write_fd = os.pipe()
    their_read_fd, write_fd = os.pipe()
    net = Net(1, 1 << 20, 8 << 20, Arena(1 << 20))
    net.add_link(read_fd, write_fd)
    try:
        os.write(
            their_write_fd,
            b"".join(encode(kind, NUMBER_MAX, body) for kind, body in BODIES.items()),
        )
        found = {}
        for event in net.poll(1_000_000):
            assert event[0] == FRAME
            _, _, address, size_bytes, kind, flags, number = event
            frame = decode(bytes_at(address, size_bytes), 1 << 20)
            assert (frame.kind, flags, frame.number) == (kind, 0, number & NUMBER_MAX)
            found[frame.kind] = bytes(frame.body)
        assert found == BODIES
        assert frame.kind is [*Kind][-1], "in their order"
    finally:
        os.close(their_write_fd)
        os.close(their_read_fd)
