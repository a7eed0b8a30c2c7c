"""THE list of APIs this broker serves.

ApiVersions is made from it, so nothing is advertised that is not served. One exception: Produce
is advertised from version 0 because librdkafka before 2.11 turns features on by exact versions
being inside the range (KAFKA-18659); Kafka 4 does the same, and like it we close on 0 to 2.
"""

from types import MappingProxyType
from typing import Final

from corelane.api import (
    alter_configs,
    api_versions,
    consumer_groups,
    create_partitions,
    create_topics,
    delete_records,
    delete_topics,
    describe_cluster,
    describe_configs,
    describe_log_dirs,
    describe_producers,
    elect_leaders,
    fetch,
    find_coordinator,
    gather_fetch,
    gather_produce,
    group_admin,
    group_members,
    group_offsets,
    init_producer_id,
    leader_epoch,
    list_offsets,
    metadata,
    produce,
    produce_run,
    reassignments,
    transaction_admin,
    transactions,
    txn_offsets,
    unregister_broker,
    update_features,
    write_txn_markers,
)
from corelane.shard.call import ApiRow

_ROWS: Final = (
    #      key name               min max handler
    ApiRow(
        0,
        "Produce",
        3,
        12,
        produce.handle,
        advertised_min=0,
        gather=gather_produce.gather,
        run=produce_run.handle_run,
    ),
    ApiRow(1, "Fetch", 4, 17, fetch.handle, gather=gather_fetch.gather),
    ApiRow(2, "ListOffsets", 1, 7, list_offsets.handle, gather=list_offsets.gather),
    ApiRow(3, "Metadata", 0, 12, metadata.handle),
    ApiRow(8, "OffsetCommit", 2, 9, group_offsets.commit, gather=group_offsets.gather_commit),
    ApiRow(9, "OffsetFetch", 1, 9, group_offsets.fetch, gather=group_offsets.gather_fetch),
    ApiRow(10, "FindCoordinator", 0, 6, find_coordinator.handle),
    ApiRow(11, "JoinGroup", 0, 9, group_members.join, gather=group_members.gather_join),
    ApiRow(12, "Heartbeat", 0, 4, group_members.heartbeat, gather=group_members.gather_heartbeat),
    ApiRow(13, "LeaveGroup", 0, 5, group_members.leave, gather=group_members.gather_leave),
    ApiRow(14, "SyncGroup", 0, 5, group_members.sync, gather=group_members.gather_sync),
    ApiRow(15, "DescribeGroups", 0, 6, group_admin.describe, gather=group_admin.gather_describe),
    ApiRow(16, "ListGroups", 0, 5, group_admin.list_groups, gather=group_admin.gather_list),
    ApiRow(18, "ApiVersions", 0, 4, api_versions.handle, unsupported=api_versions.unsupported),
    ApiRow(19, "CreateTopics", 2, 7, create_topics.handle, at_controller=True),
    ApiRow(20, "DeleteTopics", 1, 6, delete_topics.handle, at_controller=True),
    ApiRow(21, "DeleteRecords", 0, 2, delete_records.handle, gather=delete_records.gather),
    ApiRow(22, "InitProducerId", 0, 5, init_producer_id.handle, gather=init_producer_id.gather),
    ApiRow(23, "OffsetForLeaderEpoch", 2, 4, leader_epoch.handle, gather=leader_epoch.gather),
    ApiRow(
        24,
        "AddPartitionsToTxn",
        0,
        5,
        transactions.add_partitions,
        gather=transactions.gather_add_partitions,
    ),
    ApiRow(
        25,
        "AddOffsetsToTxn",
        0,
        4,
        transactions.add_offsets,
        gather=transactions.gather_add_offsets,
    ),
    ApiRow(26, "EndTxn", 0, 5, transactions.end, gather=transactions.gather_end),
    ApiRow(27, "WriteTxnMarkers", 1, 2, write_txn_markers.handle, gather=write_txn_markers.gather),
    ApiRow(28, "TxnOffsetCommit", 0, 5, txn_offsets.handle, gather=txn_offsets.gather),
    ApiRow(32, "DescribeConfigs", 1, 4, describe_configs.handle),
    ApiRow(33, "AlterConfigs", 0, 2, alter_configs.handle_whole, at_controller=True),
    ApiRow(35, "DescribeLogDirs", 1, 4, describe_log_dirs.handle, gather=describe_log_dirs.gather),
    ApiRow(37, "CreatePartitions", 0, 3, create_partitions.handle, at_controller=True),
    ApiRow(42, "DeleteGroups", 0, 2, group_admin.delete, gather=group_admin.gather_delete),
    ApiRow(43, "ElectLeaders", 0, 2, elect_leaders.handle, at_controller=True),
    ApiRow(
        44, "IncrementalAlterConfigs", 0, 1, alter_configs.handle_incremental, at_controller=True
    ),
    ApiRow(45, "AlterPartitionReassignments", 0, 1, reassignments.alter, at_controller=True),
    ApiRow(46, "ListPartitionReassignments", 0, 0, reassignments.list_ongoing, at_controller=True),
    ApiRow(47, "OffsetDelete", 0, 0, group_offsets.delete, gather=group_offsets.gather_delete),
    ApiRow(57, "UpdateFeatures", 0, 2, update_features.handle, at_controller=True),
    ApiRow(60, "DescribeCluster", 0, 2, describe_cluster.handle),
    ApiRow(
        61, "DescribeProducers", 0, 0, describe_producers.handle, gather=describe_producers.gather
    ),
    ApiRow(64, "UnregisterBroker", 0, 0, unregister_broker.handle, at_controller=True),
    ApiRow(
        65,
        "DescribeTransactions",
        0,
        0,
        transaction_admin.describe,
        gather=transaction_admin.gather_describe,
    ),
    ApiRow(
        66,
        "ListTransactions",
        0,
        2,
        transaction_admin.list_transactions,
        gather=transaction_admin.gather_list,
    ),
    ApiRow(
        68,
        "ConsumerGroupHeartbeat",
        0,
        1,
        consumer_groups.heartbeat,
        gather=consumer_groups.gather_heartbeat,
    ),
    ApiRow(
        69,
        "ConsumerGroupDescribe",
        0,
        1,
        consumer_groups.describe,
        gather=consumer_groups.gather_describe,
    ),
)
assert [row.key for row in _ROWS] == sorted({row.key for row in _ROWS})

API_TABLE: Final = MappingProxyType({row.key: row for row in _ROWS})
"""Every API by its key."""
