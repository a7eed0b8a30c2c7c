"""The levels of Kafka's features (KIP-584): what every node knows, or less, if an operator says so.

A feature that nobody chose a level of is at the highest that all nodes know, so that a cluster of
one version has all of it. A chosen level stays: nodes that know more do not raise it, and one that
knows less lowers what clients are told.
"""

from collections.abc import Collection, Iterable
from typing import Final

from corelane.cluster.binary import Reader, Writer
from corelane.cluster.changes import FeaturesChanged, Refused
from corelane.cluster.commands import NodeRegistered, SetFeatures
from corelane.model import limits
from corelane.model.errors import ErrorCode
from corelane.model.features import GROUP, GROUP_VERSION, TRANSACTION

FEATURES: Final = (GROUP, TRANSACTION)


class Features:
    """What was chosen; a part of the cluster's fold."""

    __slots__ = ("chosen",)

    def __init__(self) -> None:
        self.chosen: dict[str, int] = {}

    def level(self, name: str, nodes: Iterable[NodeRegistered]) -> int:
        """Return the finalized level of a feature; 0: it is off."""
        known = known_level(name, nodes)
        return min(known, self.chosen.get(name, known))

    def choose(
        self, command: SetFeatures, nodes: Collection[NodeRegistered]
    ) -> FeaturesChanged | Refused:
        """Fold a choice; a node that knows less may have joined meanwhile."""
        for name, level in command.levels.items():
            if name not in FEATURES or level > known_level(name, nodes):
                said = f"A node does not know {name} {level}: look again."
                return Refused(ErrorCode.FEATURE_UPDATE_FAILED, said)
        self.chosen |= command.levels
        return FeaturesChanged()

    def write(self, out: Writer) -> None:
        """Write them in order."""
        out.uint(len(self.chosen))
        for name in sorted(self.chosen):
            out.text(name)
            out.uint(self.chosen[name])

    def read(self, reader: Reader) -> None:
        """Read what `write` wrote."""
        for _ in range(reader.count(len(FEATURES))):
            name = reader.text(limits.CONFIG_NAME_BYTES_MAX)
            if name not in FEATURES or name in self.chosen:
                raise reader.fault(f"has the feature {name} twice, or does not know it")
            self.chosen[name] = reader.uint(limits.INT16_MAX)


def known_level(name: str, nodes: Iterable[NodeRegistered]) -> int:
    """Return the highest level that every node knows."""
    if name == GROUP:
        return GROUP_VERSION  # every version that can be in a cluster knows it
    return min((node.transaction_version for node in nodes), default=0)
