"""Accepts a loss, on a person's explicit order: cuts what is damaged, and keeps a copy of it.

The log is cut at its first unreadable record; a group of which one record is damaged loses the
entries from that one on, and no other group loses anything. Every file is copied below
`repair-<n>/` before its first change. May be run again after a crash. Where the log is cut, no
replica can prove any more what it acknowledged or whom it voted for: each one that has peers is
marked so, and leads and votes for nothing until it has all again (raft/loss.py). That holds for
what a checkpoint or what is left of the log names. A partition whose making was cut off too is made
anew by the controller, as one that never said anything: the report says so (MADE_ANEW).

Where a majority of a group's replicas is damaged, all of them wait for ever, as none can show what
was acknowledged. Then a person may give that up, too (*accepts_loss*).
"""

from dataclasses import replace
from typing import Final

from corelane.model.ids import CONTROLLER_GROUP, NO_MEMBER, GroupId, Index, Lsn, RecordKind, Term
from corelane.model.record import record
from corelane.raft.loss import Loss
from corelane.storage import checkpoint
from corelane.storage.checkpoint import Checkpoint, GroupImage
from corelane.storage.disk import Disk
from corelane.storage.dump import Inspector, checkpoints
from corelane.storage.layout import (
    BLOCK_BYTES,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    WalRecord,
    is_entry,
)
from corelane.storage.recovery import (
    WAL_DIRECTORY,
    GroupBuilder,
    newest_checkpoint,
    remainder_damage,
)
from corelane.storage.rehearsal import Rehearsal
from corelane.storage.wal_scan import CorruptWalError, FileHead, file_heads, read_file
from corelane_native import crc32c

SOMEBODY: Final = 2**31 - 1
"""Who a lost vote may have been for: in that term nobody else gets it."""

EVERYTHING: Final = Loss(Index(0), Term(0), are_votes_lost=True)

EMPTY_LOG: Final = f"{WAL_DIRECTORY}/00000001.wal"

TOPICS_MAY_GO: Final = (
    "the controller's log is cut too: what topics it does not name any more is removed, records "
    "and all, at the next start; copy the core's directory before if they matter"
)

MADE_ANEW: Final = (
    "partitions that were made after the last checkpoint may not be named any more: if this node "
    "has peers, and such partitions may be, have it begin anew instead (`corelane cluster "
    "replace-disk`)"
)

TERMS_SKIPPED: Final = 1_000
"""Terms that a replica may have voted in and does not know of: fewer than that, surely."""

_VOTE_BYTES: Final = 8
_REPAIRS_MAX: Final = 10_000


@record
class RepairReport:
    """What was done; *directory* is empty if nothing had to be."""

    directory: str
    cut: list[str]
    copied: list[str]
    problems_left: list[str]
    given_up: list[str]
    """Replicas that count again as they are, whatever they had acknowledged."""


class Copies:
    """The directory that keeps what is changed."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.directory = ""
        self.paths: list[str] = []

    def keep(self, path: str) -> None:
        """Copy a file, once."""
        if path in self.paths:
            return
        if not self.directory:
            numbers = (n for n in range(1, _REPAIRS_MAX) if not self.disk.names(f"repair-{n}"))
            self.directory = f"repair-{next(numbers)}"
            self.disk.make_directory(self.directory)
        data = self.disk.read(path, 0, self.disk.size_bytes(path))
        copy = f"{self.directory}/{path.replace('/', '-')}"
        self.disk.make_zeroed(copy, len(data))
        self.disk.overwrite(copy, 0, data)
        self.paths.append(path)


class Mender(Inspector):
    """A replay that turns what cannot follow a group's last good entry into truncations.

    A record keeps its place, size and lsn, so that nothing else in the log moves.
    """

    def __init__(self, start: Checkpoint, copies: Copies, groups: set[GroupId]) -> None:
        super().__init__(copies.disk, start)
        self.copies = copies
        self.groups = groups
        self.cuts: list[str] = []

    def _damaged(self, found: WalRecord, path: str) -> None:
        if found.lsn < self.next_lsn or found.group not in self.groups:
            return
        if found.kind == RecordKind.VOTE and found.payload_bytes == _VOTE_BYTES:
            self._rewrite(found, RecordKind.VOTE, found.index, SOMEBODY.to_bytes(8, "little"))
        elif is_entry(found.kind):
            self._cut(found, self.builders[found.group])

    def _apply(self, found: WalRecord, data: bytes) -> None:
        builder = self.builders.get(found.group)
        is_ours = found.group in self.groups and builder is not None and is_entry(found.kind)
        if is_ours and builder is not None and found.index > builder.last_index + 1:
            self._cut(found, builder)
        else:
            super()._apply(found, data)

    def _cut(self, found: WalRecord, builder: GroupBuilder) -> None:
        path = self.live[-1].path
        payload = self.disk.read(path, found.payload_at, found.payload_bytes)
        self._rewrite(found, RecordKind.TRUNCATE, builder.last_index + 1, payload)
        self.cuts.append(f"entry {found.index} of {builder.image.descriptor.directory}")

    def _rewrite(self, found: WalRecord, kind: RecordKind, index: int, payload: bytes) -> None:
        head = RECORD_HEADER.pack(
            0, len(payload), found.generation, found.term, found.lsn, found.durable_upto,
            found.group, index, found.next_offset, kind,
        )  # fmt: skip
        data = head[4:] + payload
        path = self.live[-1].path
        self.copies.keep(path)
        self.disk.overwrite(
            path, found.payload_at - RECORD_HEADER_BYTES, crc32c(data).to_bytes(4, "little") + data
        )


def rehearse(disk: Disk, *, accepts_loss: bool = False) -> RepairReport:
    """Return what `repair` would do, and change nothing."""
    return repair(Rehearsal(disk), accepts_loss=accepts_loss)


def repair(disk: Disk, *, accepts_loss: bool = False) -> RepairReport:
    """Make a core directory start again, losing what is damaged; nothing may run on it.

    *accepts_loss*: its replicas need not have all again that they had acknowledged. Raises
    LayoutError where neither checkpoint can be read: then only a backup helps.
    """
    copies = Copies(disk)
    cut: list[str] = []
    found = newest_checkpoint(disk)
    inspector = Inspector(disk, found)
    try:
        inspector.run(file_heads(disk, WAL_DIRECTORY))
    except CorruptWalError:
        whole = {group: each.image.damage for group, each in inspector.builders.items()}
        found = _mark(copies, found, inspector, whole)
        cut += [*_cut_log(copies, found), TOPICS_MAY_GO]
        if any(_is_replicated(image) for image in found.groups):
            cut.append(MADE_ANEW)
    start = _without_claims(found)
    read = _check(disk, start)
    damaged = _damaged(read)
    if damaged:
        start = _without_claims(_mark(copies, found, read, damaged))
        mender = Mender(start, copies, set(damaged))
        mender.run(file_heads(disk, WAL_DIRECTORY))
        cut += mender.cuts
        if CONTROLLER_GROUP in damaged and TOPICS_MAY_GO not in cut:
            cut.append(TOPICS_MAY_GO)
    had_damage = any(image.damage for image in found.groups)
    left = _damaged(_check(disk, start))
    if cut or damaged or had_damage or any(slot.error for slot in checkpoints(disk)):
        _write_checkpoint(copies, start, left, set(damaged))
    given_up = _accept_loss(copies) if accepts_loss else []
    return RepairReport(copies.directory, cut, copies.paths, list(left.values()), given_up)


def _accept_loss(copies: Copies) -> list[str]:
    """Let replicas that have lost something lead and vote again as they are; return their names.

    They go on in a term that is far from all in which they can have voted, so that no term gets
    two leaders. What they lost is lost if no other replica has it.
    """
    found = newest_checkpoint(copies.disk)
    groups, names = [], []
    for builder in _check(copies.disk, found).builders.values():
        image = builder.image  # also of those that went back after the checkpoint
        if image.loss is not None and not builder.damage:
            term = Term(max(builder.term, image.loss.last_term) + TERMS_SKIPPED)
            state = replace(image.state, term=term, voted_for=NO_MEMBER)
            image = replace(image, state=state, loss=None)
            names.append(f"{image.descriptor.directory} after entry {builder.last_index}")
        groups.append(image)
    if names:
        damage = {image.descriptor.group: image.damage for image in groups}
        _write_checkpoint(copies, replace(found, groups=groups), damage, set())
    return names


def _mark(
    copies: Copies, found: Checkpoint, read: Inspector, lossy: dict[GroupId, str]
) -> Checkpoint:
    """Say of replicas, before the log is changed, that they will have lost what they promised.

    Before: a repair that dies in between finds nothing wrong with the log when it is run again.
    They are taken as the log has them so far: some were made, or began anew, after the checkpoint.
    *lossy*: which, and what is damaged of each so far.
    """
    groups = [each.image for each in read.builders.values()]
    kept = {image.descriptor.group: image.damage for image in groups} | lossy
    return _write_checkpoint(copies, replace(found, groups=groups), kept, {*lossy})


def _check(disk: Disk, start: Checkpoint) -> Inspector:
    inspector = Inspector(disk, start)
    inspector.run(file_heads(disk, WAL_DIRECTORY))
    return inspector


def _damaged(inspector: Inspector) -> dict[GroupId, str]:
    found = {}
    for group, builder in inspector.builders.items():
        damage = builder.damage or builder.gap or remainder_damage(builder)
        if damage:
            found[group] = f"{builder.image.descriptor.directory}: {damage}"
    return found


def _without_claims(found: Checkpoint) -> Checkpoint:
    groups = [replace(image, damage="") for image in found.groups]
    nothing = Lsn(found.replay_lsn - 1)  # of what follows needs to be there
    return Checkpoint(found.sequence, found.replay_lsn, nothing, found.generation, groups)


def _cut_log(copies: Copies, start: Checkpoint) -> list[str]:
    """Cut the log where it stops being readable; whole files behind that go."""
    disk = copies.disk
    heads = file_heads(disk, WAL_DIRECTORY)
    inspector = Inspector(disk, start)
    try:
        inspector.run(heads)
    except CorruptWalError as fault:
        cut = [str(fault)]
    live = {head.path for head in inspector.live}
    if inspector.live:
        _zero(copies, inspector.live[-1], inspector.end)
    for head in heads:
        if head.path not in live:
            if any(read_file(disk, head)):
                copies.keep(head.path)
            disk.remove([head.path])
    if not live:  # a core that has segments but no log at all does not start
        disk.make_zeroed(EMPTY_LOG, BLOCK_BYTES)
    return cut


def _zero(copies: Copies, head: FileHead, position: int) -> None:
    rest = head.size_bytes - position
    if any(copies.disk.read(head.path, position, rest)):
        copies.keep(head.path)
        copies.disk.overwrite(head.path, position, bytes(rest))


def _is_replicated(image: GroupImage) -> bool:
    return len(image.descriptor.voters) != 1 or bool(image.state.configurations)


def _write_checkpoint(
    copies: Copies, start: Checkpoint, left: dict[GroupId, str], lossy: set[GroupId]
) -> Checkpoint:
    """Write a checkpoint with what is *left* of damage, and losses; return it."""
    disk = copies.disk
    sequence = start.sequence + 1
    groups = []
    for image in start.groups:
        loss = image.loss
        if image.descriptor.group in lossy and _is_replicated(image):
            loss = EVERYTHING  # what it had promised its peers it does not know any more
        damage = left.get(image.descriptor.group, "")
        groups.append(replace(image, damage=damage, loss=loss))
    rows = [checkpoint.encode_image(image) for image in groups]
    data = checkpoint.encode(sequence, start.replay_lsn, start.durable_lsn, start.generation, rows)
    for slot in checkpoint.SLOTS:
        if disk.read(slot, 0, 1):
            copies.keep(slot)
    slot = checkpoint.SLOTS[sequence % len(checkpoint.SLOTS)]
    disk.make_zeroed(slot, len(data))
    disk.overwrite(slot, 0, data)
    return replace(start, sequence=sequence, groups=groups)
