"""What is wrong between nodes is said in a sentence, and costs nobody else anything.

Real processes: the directory of another cluster, peers of another version, half a frame, a
replica whose log is longer and older. `test_cluster.py` has seeds that cannot be reached and a
node id that is taken twice; clocks that jump are in `tests/simulation/test_clocks.py`.
"""

import os
import signal
import socket
import uuid
from pathlib import Path

from corelane.model.ids import CoreId, NodeId
from corelane.runtime import introductions
from corelane.runtime.introductions import Introduction
from corelane.shard.peers import hello
from corelane.shard.peers.frames import LENGTH_BYTES, Channel, Kind, decode, encode
from corelane.shard.peers.hello import Greeting, Refused
from tests.conformance.probe import read_exactly
from tests.integration import raw_kafka
from tests.integration.broker import launch
from tests.integration.cluster import Cluster, cluster
from tests.integration.test_cluster import RECORDS, Sender, read_all

FRAME_BYTES_MAX = 1_000


def check_still_serves(nodes: Cluster, topic: str) -> None:
    """A topic can be made and written to."""
    nodes.create_topic(topic, 1, len(nodes.nodes))
    sender = Sender(nodes.bootstrap)
    sender.send(topic, 10)
    sender.finish()
    assert not sender.errors


def cluster_of(nodes: Cluster) -> bytes:
    """Return the cluster's id, as node 1 says it to whoever asks."""
    with dialed(nodes) as connection:
        own = Introduction(introductions.VERSION, 9, "nonce", "", "127.0.0.1", 1)
        connection.sendall(introductions.encode(own))
        head = read_exactly(connection, 12)
        told = read_exactly(connection, int.from_bytes(head[4:8], "big"))
    assert b'"node":1' in told
    return uuid.UUID(told.split(b'"cluster_uuid":"')[1][:36].decode()).bytes


def logged_bytes(nodes: Cluster, number: int) -> int:
    """Return how much a node has written to its log."""
    rows = nodes.nodes[number].page("/metrics").decode().splitlines()
    found = [row for row in rows if row.startswith("corelane_wal_written_bytes_total")]
    return sum(int(float(row.split()[-1])) for row in found)


def dialed(nodes: Cluster) -> socket.socket:
    return socket.create_connection(("127.0.0.1", nodes.peer_ports[0]), timeout=10)


def greeting(cluster_id: bytes, version: int = hello.VERSION_MIN) -> Greeting:
    """Return what core 0 of a node 2 would say to core 0 of node 1: it probes."""
    speaker = (NodeId(2), CoreId(0), 1, 1_000)
    listener = (NodeId(1), CoreId(0), Channel.PROBE)
    return Greeting(cluster_id, *speaker, *listener, "127.0.0.1", 1, version, version)


def refusal_of(nodes: Cluster, said: Greeting) -> hello.Refusal:
    """Greet node 1 and return why it does not want to speak."""
    with dialed(nodes) as connection:
        connection.sendall(encode(Kind.HELLO, 0, hello.encode_greeting(said)))
        size = int.from_bytes(read_exactly(connection, LENGTH_BYTES), "big")
        frame = decode(read_exactly(connection, size), FRAME_BYTES_MAX)
    assert frame.kind is Kind.REFUSE
    return hello.decode_refusal(frame.body)


def test_a_directory_of_another_cluster_is_refused_and_left_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with cluster(tmp_path / "a", 1) as ours, cluster(tmp_path / "b", 1) as theirs:
        check_still_serves(theirs, "theirs")
        theirs.kill(1)
        directory = theirs.directory / "node-1"
        before = (directory / "cluster.toml").read_bytes()
        settings: dict[str, object] = {
            "node.id": 1,
            "corelane.peer.port": theirs.peer_ports[0],
            "corelane.seeds": ours.seeds,
        }
        lost = launch(directory, settings)
        try:
            assert lost.process.wait(20) != 0
            text = lost.log_text()
            assert "its directory belongs to cluster" in text
            assert "Correct --seeds, or choose another directory with --data-dir" in text
            assert "Traceback" not in text
        finally:
            lost.kill()
        assert (directory / "cluster.toml").read_bytes() == before
        theirs.start(1).wait_ready()
        assert len(read_all(theirs.bootstrap, "theirs", 1)) == 10, "nothing is lost"
        check_still_serves(ours, "ours")


def test_peers_of_another_version_or_cluster_are_told_why_and_so_is_the_log(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as nodes:
        own = cluster_of(nodes)
        refusal = refusal_of(nodes, greeting(own, version=77))
        assert refusal.code is Refused.NO_COMMON_VERSION
        assert refusal.sentence == "Node 2 speaks versions 77 to 77, node 1 1 to 1."
        nodes.nodes[1].wait_for_line(refusal.sentence)
        refusal = refusal_of(nodes, greeting(bytes(16)))
        assert refusal.code is Refused.WRONG_CLUSTER
        assert refusal.sentence == f"Node 2 is of cluster {bytes(16).hex()}, not {own.hex()}."
        nodes.nodes[1].wait_for_line(refusal.sentence)
        with dialed(nodes) as connection:
            other = Introduction(77, 2, "nonce", "", "127.0.0.1", 1)
            connection.sendall(introductions.encode(other))
            assert not connection.recv(1)
        nodes.nodes[1].wait_for_line("It speaks version 77, this node 1.")
        check_still_serves(nodes, "t")


def test_half_a_frame_is_half_a_frame(tmp_path: Path) -> None:
    """Cut anywhere: in the length, the greeting, an introduction; or never ending."""
    with cluster(tmp_path, 1) as nodes:
        own = cluster_of(nodes)
        frame = encode(Kind.HELLO, 0, hello.encode_greeting(greeting(own)))
        me = Introduction(introductions.VERSION, 9, "nonce", "", "127.0.0.1", 1)
        for whole in (frame, introductions.encode(me)):
            for size in (1, LENGTH_BYTES, LENGTH_BYTES + 1, len(whole) // 2, len(whole) - 1):
                with dialed(nodes) as connection:
                    connection.sendall(whole[:size])
        waiting = [dialed(nodes) for _ in range(20)]
        for each in waiting:
            each.sendall(frame[: len(frame) // 2])
        nodes.nodes[1].wait_for_line("The connection ended in the middle of a message.")
        check_still_serves(nodes, "t")
        for each in waiting:
            with each:
                assert not each.recv(1), "who never ends its greeting is not waited for"
        assert "Traceback" not in nodes.nodes[1].log_text()


def test_a_longer_but_older_log_gives_way(tmp_path: Path) -> None:
    """A leader that was cut off from its quorum has records that nobody acknowledged."""
    with cluster(tmp_path) as nodes:
        nodes.create_topic("t", 1)
        leader = nodes.wait_led("t", {1, 2, 3})[0]
        others = [number for number in (1, 2, 3) if number != leader]
        sender = Sender(nodes.bootstrap)
        sender.send("t", RECORDS)
        sender.finish()
        before = logged_bytes(nodes, leader)
        # Written to its log at once, and longer than all that will be acknowledged later.
        address = ("127.0.0.1", nodes.ports[len(nodes.peer_ports) + leader - 1])
        batch = raw_kafka.record_batch([b"older"] * 500)
        body = raw_kafka.produce("t", 0, batch)
        frame = raw_kafka.frame(raw_kafka.PRODUCE, raw_kafka.PRODUCE_VERSION, 1, body)
        with socket.create_connection(address, timeout=10) as connection:
            for number in others:
                for pid in nodes.nodes[number].descendants():
                    os.kill(pid, signal.SIGSTOP)
            connection.sendall(frame * 20)
            nodes.nodes[leader].wait_for_line("waiting for a majority: of the nodes 1, 2 and 3")
        assert logged_bytes(nodes, leader) > before + 20 * len(batch)
        for number in others:
            nodes.kill(number)
        nodes.kill(leader)
        for number in others:
            nodes.start(number)
        nodes.wait_led("t", set(others))
        sender.send("t", RECORDS)
        sender.finish()
        assert not sender.errors
        nodes.start(leader).wait_ready()
        nodes.wait_in_sync("t")
        nodes.kill(others[0])
        nodes.wait_led("t", {leader, others[1]})
        assert sorted(read_all(nodes.bootstrap, "t", 1)) == sorted(sender.acknowledged)
