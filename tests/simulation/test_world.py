"""The broker in simulation: seeds that must pass, and planted bugs that must be found.

A seed that once failed stays in seeds.txt with the bug it found.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corelane.api import produce_append
from corelane.api.produce_append import RowAppend
from corelane.cluster.commands import AddPartitions, AlterBrokerConfig, AlterTopicConfig, Command
from corelane.cluster.metadata import Cluster
from corelane.model.ids import Index, Offset
from corelane.producers.sequences import ACCEPT, ProducerTable
from corelane.shard import opening, retention
from corelane.shard.controller import Applied, Controller
from corelane.shard.groups import Groups
from corelane.storage import checkpoint
from corelane.storage import retention as storage_retention
from corelane.storage.checkpoint import GroupImage
from corelane.storage.effects import DiskDone, WalWrite
from corelane.storage.group_log import GroupLog
from corelane.wire.recompress import Recompressed, recompress
from corelane_native import crc32c
from tests.simulation.sim_disk import Queue, SimDisk
from tests.simulation.world import run_seed

SEEDS_PER_RUN = 10
HUNT_SEEDS_MAX = 60


def known_seeds() -> list[int]:
    """Return the seeds that found bugs."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("trims", "alters"), [(False, False), (True, False), (True, True)], ids=["", "trims", "alters"]
)
@pytest.mark.parametrize("seed", known_seeds())
def test_a_seed_that_found_a_bug_stays_good(seed: int, *, trims: bool, alters: bool) -> None:
    """Most were found before there were trims, and before topics were altered."""
    run_seed(seed, trims=trims, alters=alters)


@pytest.mark.parametrize("first", range(100, 100 + SEEDS_PER_RUN, 10))
def test_ten_seeds(first: int) -> None:
    for seed in range(first, first + 10):
        run_seed(seed)


def test_the_same_seed_gives_the_same_run() -> None:
    traces = [run_seed(4).simulator.trace for _ in range(2)]
    assert traces[0] == traces[1]


def answer_early(patch: pytest.MonkeyPatch) -> None:
    """Answer a produce when its batch was appended, not when it is durable."""
    append = RowAppend._append

    def early(self: RowAppend, *arguments: Any, **more: Any) -> None:
        append(self, *arguments, **more)
        for waits in (self.partition.commit_waits, self.partition.sync_waits):
            if waits and waits[-1][1] is self:
                waits.pop()
                self.settled(is_lost=False)

    patch.setattr(RowAppend, "_append", early)


def never_sync(patch: pytest.MonkeyPatch) -> None:
    """Say that a WAL write is durable while the disk may still lose it."""
    complete = SimDisk.complete

    def unsynced(self: SimDisk, queue: Queue) -> DiskDone:
        effect = self.queues[queue][0]
        if isinstance(effect, WalWrite):
            self._step()
            self.queues[queue].popleft()
            self._perform(effect)
            return DiskDone(effect.job, 0)
        return complete(self, queue)

    patch.setattr(SimDisk, "complete", unsynced)


def forget_producers(patch: pytest.MonkeyPatch) -> None:
    """Do not fold the recovered tail into the producers' table."""
    patch.setattr(opening, "refold", lambda *_arguments: None)


def take_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Append whatever an idempotent producer sends."""
    patch.setattr(ProducerTable, "check", lambda *_arguments: ACCEPT)


def show_uncommitted(patch: pytest.MonkeyPatch) -> None:
    """Let readers see what was only appended."""
    load = GroupLog.load

    def visible(self: GroupLog, index: Index, entry: object) -> None:
        load(self, index, entry)  # type: ignore[arg-type]
        self.committed_offset = self.next_offset

    patch.setattr(GroupLog, "load", visible)


def keep_too_little(patch: pytest.MonkeyPatch) -> None:
    """Trim by size until less is left than the topic keeps."""
    patch.setattr(retention, "start_by_size", lambda log, _bytes_min: log.committed_offset)


def take_the_young(patch: pytest.MonkeyPatch) -> None:
    """Trim by age what is not old enough."""
    start_by_time = storage_retention.start_by_time
    patch.setattr(
        retention, "start_by_time", lambda log, before_ms: start_by_time(log, before_ms + 100)
    )


def forget_the_start(patch: pytest.MonkeyPatch) -> None:
    """Let a checkpoint name the start of the first segment for the log's."""
    encode_image = checkpoint.encode_image

    def forgetful(image: GroupImage) -> bytes:
        segments = image.segments
        start = Offset(segments[0].base_offset) if segments else image.state.start_offset
        return encode_image(replace(image, state=replace(image.state, start_offset=start)))

    patch.setattr(checkpoint, "encode_image", forgetful)


def alter_early(patch: pytest.MonkeyPatch) -> None:
    """Answer an alteration before it is committed."""
    propose = Controller.propose

    def early(self: Controller, command: Command, applied: Applied) -> None:
        if isinstance(command, AlterTopicConfig | AlterBrokerConfig | AddPartitions):
            propose(self, command, lambda _changes: None)
            applied(())
        else:
            propose(self, command, applied)

    patch.setattr(Controller, "propose", early)


def forget_settings(patch: pytest.MonkeyPatch) -> None:
    """Leave the configurations of topics out of what a checkpoint has of the cluster."""
    encode = Cluster.encode

    def forgetful(self: Cluster) -> bytes:
        topics = self.topics
        self.topics = {name: replace(topic, configs={}) for name, topic in topics.items()}
        blob = encode(self)
        self.topics = topics
        return blob

    patch.setattr(Cluster, "encode", forgetful)


def show_the_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """Describe what the last checkpoint has, before the log is read."""
    patch.setattr(Groups, "is_established", property(lambda _self: True))


def strip_producers(patch: pytest.MonkeyPatch) -> None:
    """Lose the producer of a batch that is stored in another codec."""

    def stripped(*arguments: Any, **more: Any) -> Any:
        made = recompress(*arguments, **more)
        if not isinstance(made, Recompressed):
            return made
        batch = bytearray(made.batch)
        struct.pack_into(">q", batch, 43, -1)
        struct.pack_into(">I", batch, 17, crc32c(bytes(batch[21:])))
        return Recompressed(bytes(batch), made.max_timestamp)

    patch.setattr(produce_append, "recompress", stripped)


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "answer early": answer_early,
    "never sync": never_sync,
    "forget producers": forget_producers,
    "take duplicates": take_duplicates,
    "show uncommitted": show_uncommitted,
    "keep too little": keep_too_little,
    "take the young": take_the_young,
    "forget the start": forget_the_start,
    "alter early": alter_early,
    "forget settings": forget_settings,
    "show the checkpoint": show_the_checkpoint,
    "strip producers": strip_producers,
}
FIRST_SEEDS = {
    "show uncommitted": 14,
    "forget the start": 37,
    "show the checkpoint": 7,
    "strip producers": 15,
}
"""Where to begin: shortly before the first seed that finds it, as those before take a while."""


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    first = FIRST_SEEDS.get(name, 1)
    for seed in range(first, HUNT_SEEDS_MAX):
        try:
            run_seed(seed)
        except AssertionError:
            return
    pytest.fail(f"{HUNT_SEEDS_MAX} seeds did not find: {name}")
