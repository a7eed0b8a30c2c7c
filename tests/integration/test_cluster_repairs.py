"""Three real nodes of which one has a rotten disk: it is repaired while the others serve.

Method: a node is killed, bits are flipped in a segment and in the write-ahead log, it starts again.
"""

import time
import urllib.request
from pathlib import Path

from corelane.model.ids import GroupId, RecordKind
from corelane.storage.disk import OsDisk
from corelane.storage.recovery import newest_checkpoint
from tests.integration.broker import Broker
from tests.integration.cluster import Cluster, cluster
from tests.integration.test_cluster import Sender, read_all
from tests.simulation.cluster_rot import wal_payloads

PARTITIONS = 2
RECORDS = 3_000
DEADLINE_S = 60.0
SETTINGS: dict[str, object] = {
    "corelane.cores": 1,
    "log.segment.bytes": 1 << 20,
    "corelane.checkpoint.interval.ms": 1_000,
    "corelane.scrub.bytes.per.second": 64 << 20,
}


def repairs_of(node: Broker) -> int:
    """Return how many replicas of a node have all again that they had lost.

    While it lives and does not answer it is not known, and so not more than none: it may be busy.
    """
    url = f"http://127.0.0.1:{node.ports['admin']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        said = f"the node on {node.directory} has ended: {error}\n{node.log_text()}"
        assert node.process.poll() is None, said
        return 0
    found = [line for line in lines if line.startswith("corelane_repairs_total")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)


def flip(path: Path, position: int) -> None:
    """Flip a bit of a file."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 4]))


def rot_log(core: Path) -> None:
    """Flip a bit of a batch that a restart needs, in the write-ahead log."""
    disk = OsDisk(core)
    start = newest_checkpoint(disk)
    flushed = {image.descriptor.group: image.state.flushed_index for image in start.groups}
    places = [
        each
        for each in wal_payloads(disk)
        if each.kind == RecordKind.BATCH
        and each.lsn >= start.replay_lsn
        and each.index > flushed.get(GroupId(each.group), 0)
    ]
    assert places, "everything is in segments"
    place = places[len(places) // 2]
    flip(core / place.path, place.position + place.size_bytes // 2)


def wait_for_segments(core: Path) -> None:
    """Wait until a checkpoint knows segments of every partition: else a restart makes them anew."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        images = [each for each in newest_checkpoint(OsDisk(core)).groups if each.descriptor.group]
        filled = [each for each in images if any(row.log_frontier for row in each.segments)]
        if len(filled) == PARTITIONS:
            return
        assert time.monotonic() < deadline_s, images
        time.sleep(0.1)


def rot_segment(core: Path, topic: str) -> None:
    """Flip a bit of a batch in the oldest segment of a partition."""
    files = sorted((core / "partitions").glob(f"{topic}-*/*.log"))
    assert files
    flip(files[0], files[0].stat().st_size // 2)


def wait_in_sync(nodes: Cluster, topic: str) -> None:
    """Wait until every partition has all three nodes in sync."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        rows = nodes.partitions(topic)
        in_sync = {number: {each // 1000 for each in row.isrs} for number, row in rows.items()}
        if all(each == {1, 2, 3} for each in in_sync.values()):
            return
        assert time.monotonic() < deadline_s, in_sync
        time.sleep(0.1)


def test_a_rotten_node_is_repaired_while_the_others_serve(tmp_path: Path) -> None:
    with cluster(tmp_path, settings=SETTINGS) as nodes:
        nodes.create_topic("t", PARTITIONS)
        wait_in_sync(nodes, "t")
        sender = Sender(nodes.bootstrap)
        sender.send("t", RECORDS, padding=1_000)
        sender.finish()
        wait_for_segments(tmp_path / "node-2" / "core-00")
        for _ in range(10):  # each a write of its own: damage in the last one is a torn write
            sender.send("t", 20, padding=1_000)
            sender.finish()
        nodes.kill(2)
        sender.send("t", 100, padding=1_000)
        core = tmp_path / "node-2" / "core-00"
        rot_segment(core, "t")
        rot_log(core)
        node = nodes.start(2)
        node.wait_ready()
        deadline_s = time.monotonic() + DEADLINE_S
        while repairs_of(node) < 2:
            sender.send("t", 10, padding=1_000)
            assert time.monotonic() < deadline_s, f"not repaired:\n{node.log_text()}"
            time.sleep(0.1)
        sender.finish()
        assert not sender.errors
        wait_in_sync(nodes, "t")
        expected = sorted(sender.acknowledged)
        assert sorted(read_all(nodes.bootstrap, "t", PARTITIONS)) == expected
        nodes.kill(1)  # now every record that is read rests on the repaired node or on node 3
        nodes.wait_led("t", {2, 3})
        assert sorted(read_all(nodes.bootstrap, "t", PARTITIONS)) == expected
