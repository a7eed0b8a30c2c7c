"""Storms over three nodes whose disks rot: sectors of one replica at a time go bad.

`python -m tests.simulation.cluster_rot --seed N --count M`. As `cluster_storm`, and besides: while
a node is down, or while it serves, bits flip in what its disk has of a replica, in the write-ahead
log or in a segment. Nothing acknowledged may be lost, and at the end every replica is whole again.
"""

import argparse
import random

from corelane.model.ids import Lsn, RecordKind
from corelane.model.record import record
from corelane.storage.disk import Disk
from corelane.storage.dump import Inspector
from corelane.storage.recovery import WAL_DIRECTORY, newest_checkpoint
from corelane.storage.wal_scan import CorruptWalError, file_heads, read_file, record_at
from corelane.wire.batch import whole_batches
from corelane_native import crc32c
from tests.simulation.cluster import SimNode
from tests.simulation.cluster_storm import Storm
from tests.simulation.sim_disk import SimDisk

ROT = 0.7
"""How often a node that comes back has a bad sector."""
ROT_LIVE = 0.05
REVIVED_DICE = 0.12
"""Below it a storm's strike may bring a node back."""
KINDS = (
    *(RecordKind.BATCH, RecordKind.VOTE, RecordKind.CONFIG, RecordKind.TRIM, RecordKind.COMMAND),
    *(RecordKind.TAIL, RecordKind.INSTALL, RecordKind.RENEW),
)


@record
class Place:
    """A record of the write-ahead log, and where its payload is."""

    path: str
    position: int
    size_bytes: int
    group: int
    kind: int
    lsn: Lsn
    index: int


def wal_payloads(disk: Disk) -> list[Place]:
    """Return the payloads of the log's records, those of the last one of each file aside."""
    found: list[Place] = []
    for head in file_heads(disk, WAL_DIRECTORY):
        data, at, lsn = read_file(disk, head), 0, Lsn(head.first_lsn)
        of_file: list[Place] = []
        while lsn and (each := record_at(data, at, head.generation, lsn)) is not None:
            of_file.append(
                Place(
                    head.path,
                    each.payload_at,
                    each.payload_bytes,
                    each.group,
                    each.kind,
                    lsn,
                    each.index,
                )
            )
            at, lsn = each.end, Lsn(lsn + 1)
        found += of_file[:-1]
    return [each for each in found if each.size_bytes]


class RotStorm(Storm):
    """One storm."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.rng = random.Random(seed)
        self.flips_in_logs = self.flips_in_segments = self.repaired = 0
        self._done: dict[tuple[int, int], int] = {}
        self._rotten: tuple[SimNode, str] | None = None  # a file that is not known to be

    def _strike(self, dice: float) -> None:
        down = [node for node in self.cluster.nodes.values() if not node.is_up]
        if len(down) == 1 and dice < REVIVED_DICE and self._are_whole(self.cluster.up()):
            if self.rng.random() < ROT:
                self._rot_log(down[0].disk)
        elif not down and self._are_whole(self.cluster.up()) and self.rng.random() < ROT_LIVE:
            self._rot_segment(self.rng.choice(self.cluster.up()))
        super()._strike(dice)
        for node in self.cluster.up():
            self._done[node.number, node.boot] = node.shard.counts.repairs_done
        self.repaired = sum(self._done.values())

    def _are_whole(self, nodes: list[SimNode]) -> bool:
        """Whether no replica of these lacks something that it had."""
        if self._rotten is not None:
            node, path = self._rotten
            if not node.is_up or path in node.disk.files:
                return False
            self._rotten = None
        for node in nodes:
            if node.shard.groups.repairs.open:
                return False
            if any(log.loss is not None for log in node.shard.store.groups.values()):
                return False
        return True

    def _rot_log(self, disk: SimDisk) -> None:
        """Flip a bit of what a record of the write-ahead log says of a replica."""
        found = wal_payloads(disk)
        # A founder that does not know any more who joined it cannot ask them: it is offline.
        known = [each.lsn for each in found if (each.group, each.kind) == (0, RecordKind.CONFIG)]
        places = [
            each
            for each in found
            if each.kind in KINDS and (each.group or (known and each.lsn > known[-1]))
        ]
        if places:
            place = self.rng.choice(places[-40:])
            position = place.position + self.rng.randrange(place.size_bytes)
            disk.flip(place.path, position)
            try:
                Inspector(disk, newest_checkpoint(disk)).run(file_heads(disk, WAL_DIRECTORY))
            except CorruptWalError:  # the core would not start: nobody knows whose record it is
                disk.flip(place.path, position)
                return
            self.flips_in_logs += 1

    def _rot_segment(self, node: SimNode) -> None:
        """Flip a bit of a batch that is only read when somebody asks for it."""
        segments = [
            segment
            for member in node.members.values()
            for segment in member.log.segments.items
            if segment.log.frontier and segment in node.members[member.group].log.segments.items
        ]
        if segments:
            segment = self.rng.choice(segments)
            path = segment.path(segment.log)
            node.disk.flip(path, self.rng.randrange(segment.log.frontier), self.rng.randrange(8))
            self._rotten = (node, path)
            self.flips_in_segments += 1

    def _heal(self) -> None:
        super()._heal()
        for _ in range(100):
            if self._is_all_whole():
                return
            self.cluster.go(1_000)
        left = [
            (node.number, group, repair.why, repair.is_begun, node.members[group].raft.leader)
            for node in self.cluster.up()
            for group, repair in node.shard.groups.repairs.open.items()
        ]
        losses = [
            (node.number, group, log.loss, node.members.get(group))
            for node in self.cluster.up()
            for group, log in node.shard.store.groups.items()
            if log.loss is not None
        ]
        raise AssertionError(f"not repaired: {left}, {losses} and {self._rotten}")

    def _is_all_whole(self) -> bool:
        if self._rotten is not None:
            node, path = self._rotten
            if path in node.disk.files and not is_whole(node.disk.read(path, 0, 1 << 30)):
                return False
            self._rotten = None
        return self._are_whole(self.cluster.up())

    def run(self) -> str:
        said = super().run()
        flips = f"{self.flips_in_logs} bits in logs, {self.flips_in_segments} in segments"
        return f"{said}, {flips}, {self.repaired} repaired"


def is_whole(data: bytes) -> bool:
    """Whether a `.log` file's batches, all but one that is cut, have their checksums."""
    return all(
        crc32c(data[at + 21 : at + head.size_bytes]) == int.from_bytes(data[at + 17 : at + 21])
        for at, head in whole_batches(data, len(data))
    )


def main() -> None:
    """Run storms from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.count):
        try:
            print(f"seed {seed}: {RotStorm(seed).run()}", flush=True)
        except Exception:
            print(f"python -m tests.simulation.cluster_rot --seed {seed} --count 1", flush=True)
            raise


if __name__ == "__main__":
    main()
