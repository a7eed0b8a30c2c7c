"""The table of bugs that are planted on purpose, each with the suite that has to find it.

A bug is planted in one process by replacing a function or a constant (`Mutant`), or a line of a
function's source (`Rewrite`). Mutants that other tests know, too, are taken from there by name.
"""

import inspect
import textwrap
from collections.abc import Iterable
from typing import Any, Final, assert_never

from corelane.cluster import metadata
from corelane.model.record import record
from corelane.producers import sequences
from corelane.producers.open_transactions import OpenTransactions
from corelane.producers.sequences import ProducerTable
from corelane.producers.transactions.coordinator import TransactionCoordinator
from corelane.raft.core import RaftGroup
from corelane.raft.loss import Recollection
from corelane.raft.state import GroupState
from corelane.raft.voting import Voting
from corelane.shard import council
from corelane.shard.host import Host
from corelane.shard.latest import LatestByKey
from corelane.shard.marker_delivery import Delivery
from corelane.shard.member import Member
from corelane.shard.partition import Partition
from corelane.shard.peers.peers import Peers
from tests.simulation.raft_change_mutants import CHANGES
from tests.simulation.raft_mutants import SCRIPTED, SIMULATED, Mutant
from tests.simulation.sim_disk import SimDisk
from tests.simulation.suites import (
    CLUSTER,
    CLUSTER_TESTS,
    CORES,
    COUNCIL_TESTS,
    CRASHES,
    FLEET,
    LOSSES,
    MEMBERS,
    POWER,
    PRODUCER_TESTS,
    RAFT,
    RAFT_TESTS,
    READ_TESTS,
    REASSIGNMENT_TESTS,
    SESSION_TESTS,
    STORAGE_TESTS,
    TRANSACTION_STORM,
    TRANSACTION_TESTS,
    TRANSACTIONS,
    WORLD,
    Suite,
)
from tests.unit.shard.peers.mutants import MUTANTS as SESSION_MUTANTS
from tests.unit.storage import test_mutants as storage_mutants

BUGS: Final = {
    1: "vote before its term is durable",
    2: "append acknowledged before durable",
    3: "own copy counted before durable",
    4: "entry of an older term committed by count",
    5: "no own-term entry",
    6: "term not raised on a higher one",
    7: "longest-log check skipped",
    8: "majority off by one for even groups",
    9: "election timer not reset by a rejected append",
    10: "two rounds at once",
    11: "pre-vote granted while a leader is heard",
    12: "configuration not restored on truncation",
    13: "member id reused",
    14: "snapshot above commit",
    15: "torn tail cut below durable_upto",
    16: "recycled record accepted",
    17: "transfer without stepping down first",
    18: "lease kept after a pause",
    19: "high watermark shown past the own durable end",
    20: "dedupe window of four",
    21: "sequence overlay kept after truncation",
    22: "segment written before commit",
    23: "heartbeat refreshing a group it does not list",
    24: "duplicate frame applied twice",
    25: "a replica that has forgotten acts as if it had not",
    26: "a decision about a transaction is not the last word",
    27: "a fenced producer writes on",
    28: "a reader sees what is not decided",
    29: "marker not sent again",
    30: "last stable offset too early",
    31: "aborted transactions lost on restart",
    32: "decision answered before it is committed",
    33: "staged offsets visible before the commit",
}


@record
class Rewrite:
    """One bug as another line: *old* stands once in the source of what is replaced."""

    name: str
    owner: Any
    attribute: str
    old: str
    new: str


Plant = Mutant | Rewrite

LEASES: Final = (
    Rewrite(
        "a lease counts from when its answers came",
        RaftGroup,
        "_on_heartbeat_answer",
        "max(progress.confirmed_ms, answer.round)",
        "self._now_ms",
    ),
    Rewrite(
        "a lease outlives the voter's word",
        GroupState,
        "__init__",
        "now_ms if self._settings.lease_ms else NOT_HEARD_MS",
        "NOT_HEARD_MS",
    ),
)

FORGETFUL: Final = (
    Rewrite(
        "it votes before its loss is made good",
        Recollection,
        "admits",
        "not lost.are_votes_lost and self.covers(last_index, last_term)",
        "lost.last_index >= 0",
    ),
    Rewrite(
        "its loss is made good by any log",
        Recollection,
        "covers",
        "(last_term, last_index) >= (self._loss.last_term, self._loss.last_index)",
        "last_index >= 0",
    ),
    Rewrite(
        "it votes again in the newest term that it can have voted in",
        Recollection,
        "all_told",
        "Term(newest + 1)",
        "own_term",
    ),
)
UNDECIDED: Final = (
    Rewrite(
        "one marker stands for all",
        TransactionCoordinator,
        "marked",
        "if not left:",
        "if partitions:",
    ),
    Rewrite(
        "a marker that comes again ends the next transaction",
        OpenTransactions,
        "check_marker",
        "is_later or self.verification.is_another(producer_id, request.started_ms)",
        "False",
    ),
)
UNFENCED: Final = (
    Rewrite(
        "a partition takes any epoch",
        OpenTransactions,
        "check_epoch",
        "epoch >= standing.epoch",
        "epoch >= 0",
    ),
    Rewrite(
        "nobody asks the coordinator whether there is a transaction",
        OpenTransactions,
        "check_batch",
        "not self.verification.is_verified(producer_id, epoch)",
        "False",
    ),
)
UNSTABLE: Final = (
    Rewrite(
        "open transactions are readable",
        OpenTransactions,
        "last_stable_offset",
        "min(max(standing.first_offset, self.start_offset), high_watermark)",
        "high_watermark",
    ),
    Rewrite(
        "readers are not told what was aborted",
        OpenTransactions,
        "_abort",
        "if last_offset >= self.start_offset",
        "if last_offset < self.start_offset",
    ),
)


TRANSACTIONAL: Final = (
    (
        29,
        Rewrite(
            "a marker that failed is forgotten", Delivery, "_later", "if rows and", "if False and"
        ),
    ),
    (
        29,
        Rewrite(
            "a new coordinator does not carry decisions on",
            TransactionCoordinator,
            "loaded",
            "self._carry_on(name, transaction, wall_ms)",
            "pass",
        ),
    ),
    (
        30,
        Rewrite(
            "it includes the first open record",
            OpenTransactions,
            "last_stable_offset",
            "max(standing.first_offset, ",
            "max(standing.first_offset + 1, ",
        ),
    ),
    (
        31,
        Rewrite(
            "a checkpoint's are not read again",
            OpenTransactions,
            "_load",
            "self._aborted.append(",
            "str(",
        ),
    ),
    (
        32,
        Rewrite(
            "answers leave at once",
            Host,
            "_when_committed",
            "self.partition.raft.committed_index >= self._appended_index",
            "True",
        ),
    ),
    (
        33,
        Rewrite(
            "what is staged counts at once",
            LatestByKey,
            "apply",
            "known.changes.extend(_changes(batch))",
            "[self._put(*each) for each in _changes(batch)]",
        ),
    ),
)
"""What the storms of transactions have to find (multiraft.md D and E)."""


@record
class Row:
    """One planted bug and who has to find it."""

    number: int
    plant: Plant
    suite: Suite


def place(plant: Plant) -> str:
    """Return where a bug is planted, as a person would write it."""
    owner: str = getattr(plant.owner, "__qualname__", "") or plant.owner.__name__
    return f"{owner.removeprefix('corelane.')}.{plant.attribute}"


def replacement(plant: Plant) -> Any:
    """Return what takes the place of the right thing; asserts that there is such a place."""
    assert hasattr(plant.owner, plant.attribute), f"{place(plant)} is no more"
    match plant:
        case Mutant():
            return plant.replacement
        case Rewrite():
            return _rewritten(plant)
        case _:
            assert_never(plant)


def _rewritten(plant: Rewrite) -> Any:
    right = inspect.getattr_static(plant.owner, plant.attribute)
    function: Any = right.fget if isinstance(right, property) else right
    source = textwrap.dedent(inspect.getsource(function))
    count = source.count(plant.old)
    assert count == 1, f"{plant.old!r} stands {count} times in {place(plant)}"
    found: dict[str, Any] = {}
    code = compile(source.replace(plant.old, plant.new), place(plant), "exec")
    exec(code, function.__globals__, found)  # noqa: S102 our own source but for one line
    return found[plant.attribute]


def _kept(self: ProducerTable, from_index: int) -> None:
    """Go on as if the log had lost nothing."""
    self._tail.clear()
    self._appended_index = from_index - 1  # type: ignore[assignment]


def _named(mutants: Iterable[Any], *names: str) -> list[Mutant]:
    known = {each.name: each for each in mutants}
    found = [known[name] for name in names]
    return [Mutant(each.name, each.owner, each.attribute, each.replacement) for each in found]


def _rows(number: int, suite: Suite, plants: Iterable[Plant]) -> list[Row]:
    return [Row(number, plant, suite) for plant in plants]


def _numbered(suite: Suite, mutants: Iterable[Mutant]) -> list[Row]:
    """Take the mutants whose names say which of the bugs they are."""
    found = []
    for mutant in mutants:
        _, bracket, number = mutant.name.rstrip(")").rpartition(" (")
        if bracket and number.isdecimal():
            found.append(Row(int(number), mutant, suite))
    return found


_CRASHED = storage_mutants.CRASHED
_TOLD = [mutant for mutant, _story in storage_mutants.TOLD]

ROWS: Final = sorted(
    [
        *_numbered(RAFT, SIMULATED),
        *_numbered(RAFT_TESTS, SCRIPTED),
        *_numbered(MEMBERS, CHANGES),
        *_numbered(RAFT_TESTS, CHANGES),
        *_rows(
            1,
            RAFT,
            _named(
                SIMULATED,
                "votes asked for before the own is durable",
                "granted vote never persisted",
            ),
        ),
        *_rows(1, CRASHES, _named(_CRASHED, "votes are not replayed")),
        *_rows(
            2, CRASHES, _named(_CRASHED, "entries of the next write are reported with this one")
        ),
        Row(2, Mutant("a write is durable when it begins", SimDisk, "wal_is_synced", False), CORES),
        *_rows(2, RAFT, _named(SIMULATED, "whole log acknowledged")),
        Row(
            5,
            Rewrite(
                "nothing is appended by a new leader",
                Member,
                "_lead",
                'self.append_control(RecordKind.NEW_LEADER, b"")',
                "pass",
            ),
            CLUSTER_TESTS,
        ),
        Row(
            5,
            Rewrite(
                "served before the own term's entry is committed",
                Partition,
                "serves",
                "self.raft.is_established",
                "self.raft.is_leader",
            ),
            CLUSTER,
        ),
        *_rows(2, POWER, _named(SIMULATED, "append acknowledged before durable (2)")),
        *_rows(2, FLEET, _named(SIMULATED, "append acknowledged before durable (2)")),
        *_rows(3, POWER, _named(SIMULATED, "own copy counted early (3)")),
        *_rows(7, POWER, _named(SIMULATED, "longest-log check skipped (7)")),
        *_rows(10, RAFT_TESTS, _named(SCRIPTED, "campaign while the vote is not durable")),
        *_rows(13, SESSION_TESTS, _named(SESSION_MUTANTS, "a member of any incarnation counts")),
        Row(
            13,
            Rewrite(
                "an empty directory goes on under the id of the lost one",
                council,
                "member_of_directory",
                'int.from_bytes(digest[:4], "big") >> 1 or 1',
                "1",
            ),
            COUNCIL_TESTS,
        ),
        Row(
            13,
            Rewrite(
                "a replica that comes back is the member that left",
                metadata,
                "asked",
                "member_id(each.node, index)",
                "member_id(each.node, 0)",
            ),
            REASSIGNMENT_TESTS,
        ),
        Row(
            14,
            Rewrite(
                "the fold of a snapshot has what is not committed",
                ProducerTable,
                "encode",
                "producer.batches[: producer.committed_count]",
                "producer.batches",
            ),
            PRODUCER_TESTS,
        ),
        *_rows(15, STORAGE_TESTS, _named(_TOLD, "claims are ignored", "headers are believed")),
        *_rows(16, STORAGE_TESTS, _named(_TOLD, "the scan ignores generations")),
        Row(
            17,
            Rewrite(
                "the gate opens again while the other stands",
                Voting,
                "_hand_over_if_ready",
                "self._step_down()",
                "leadership.transfer_to = None",
            ),
            RAFT_TESTS,
        ),
        *_rows(18, RAFT_TESTS, LEASES),
        Row(
            18,
            Rewrite(
                "what was sent before a pause counts as sent at its end",
                Peers,
                "lease_from_ms",
                "sent_ms if sent_ms >= self.watch.resumed_ms else NEVER_MS",
                "self.follower_heard_ms(group, term, node, incarnation)",
            ),
            READ_TESTS,
        ),
        *_rows(19, CLUSTER, _named(SIMULATED, "high watermark beyond own disk (19)")),
        Row(20, Mutant("four batches are remembered", sequences, "_WINDOW", 4), PRODUCER_TESTS),
        Row(20, Mutant("four batches are remembered", sequences, "_WINDOW", 4), WORLD),
        Row(
            21,
            Mutant("truncated batches count", ProducerTable, "truncated", _kept),
            PRODUCER_TESTS,
        ),
        Row(21, Mutant("truncated batches count", ProducerTable, "truncated", _kept), CLUSTER),
        *_rows(22, CRASHES, _named(_CRASHED, "uncommitted entries are flushed")),
        *_rows(
            23,
            SESSION_TESTS,
            _named(SESSION_MUTANTS, "a heartbeat refreshes a group that it does not list"),
        ),
        *_rows(24, SESSION_TESTS, _named(SESSION_MUTANTS, "a repeated frame is taken twice")),
        *_rows(24, RAFT, _named(SIMULATED, "truncation without conflict")),
        *_rows(25, LOSSES, FORGETFUL),
        *_rows(26, TRANSACTIONS, UNDECIDED),
        *_rows(27, TRANSACTION_TESTS, UNFENCED),
        *_rows(27, TRANSACTIONS, UNFENCED[1:]),
        *_rows(28, TRANSACTIONS, UNSTABLE),
        *(Row(number, plant, TRANSACTION_STORM) for number, plant in TRANSACTIONAL),
    ],
    key=lambda row: row.number,
)
