"""What changed from one fold of the controller's log to a later one; pure.

For a core that gets the fold whole (a sibling's, or a snapshot): it acts on the same changes as
one that saw every command, without those that came and went between the two.
"""

from corelane.cluster.changes import (
    BrokerConfigChanged,
    Change,
    ClusterNamed,
    FeaturesChanged,
    NodeChanged,
    NodeGone,
    NodeStateChanged,
    PartitionsAdded,
    ReplicasChanged,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
)
from corelane.cluster.metadata import Cluster


def difference(before: Cluster, after: Cluster) -> list[Change]:
    """Return the changes that lead from *before* to *after*, deletions first.

    Producer ids that were granted between the two are not among them: whoever still waits asks
    again. *after* must be the later of the two.
    """
    assert after.applied_index >= before.applied_index
    changes: list[Change] = []
    if after.cluster_id is not None and before.cluster_id != after.cluster_id:
        changes.append(ClusterNamed(after.cluster_id))
    changes += [
        NodeChanged(node)
        for number, node in after.nodes.items()
        if before.nodes.get(number) != node
    ]
    changes += [NodeGone(node) for node in before.nodes if node not in after.nodes]
    changes += [NodeStateChanged(node) for node in before.states.difference(after.states)]
    if before.features.chosen != after.features.chosen:
        changes.append(FeaturesChanged())
    changes += [
        BrokerConfigChanged(node)
        for node in sorted({*before.broker_configs, *after.broker_configs})
        if before.broker_configs.get(node) != after.broker_configs.get(node)
    ]
    changes += [
        TopicDeleted(topic)
        for topic_id, topic in before.topics_by_id.items()
        if topic_id not in after.topics_by_id
    ]
    for topic_id, topic in after.topics_by_id.items():
        former = before.topics_by_id.get(topic_id)
        if former is None:
            changes.append(TopicCreated(topic))
            continue
        if len(topic.partitions) > len(former.partitions):
            changes.append(PartitionsAdded(topic, len(former.partitions)))
        numbers = [
            number
            for number, (plan, known) in enumerate(
                zip(topic.partitions, former.partitions, strict=False)
            )
            if plan != known
        ]
        if numbers:
            changes.append(ReplicasChanged(topic, tuple(numbers)))
        if topic.configs != former.configs:
            changes.append(TopicConfigChanged(topic))
    return changes
