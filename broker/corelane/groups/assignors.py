"""The table of server-side assignors, and what they are given (KIP-848).

An assignor is a function: the same members and topics give the same assignment, on every node.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from corelane.groups import assignors_range, assignors_uniform
from corelane.groups.assignors_spec import MemberSpec
from corelane.groups.consumer_records import Partitions
from corelane.model.ids import TopicId

Assign = Callable[[Sequence[MemberSpec], Mapping[TopicId, int]], dict[str, Partitions]]
"""(members, partition counts of every topic that a member is subscribed to and that exists) ->
what each member is to have: every partition of every topic that somebody is subscribed to, once."""

ASSIGNORS: Final[dict[str, Assign]] = {
    "uniform": assignors_uniform.assign,
    "range": assignors_range.assign,
}
"""By the name on the wire; the first is the default, as in Kafka."""
