"""The errors a broker may answer with: why that happens, and what to do. The README shows it.

Every error that this project's broker gives is here; a test sees to that. What happened in the
one case at hand is said by the broker's own sentence, which commands print before the next step.
"""

from typing import Final

from corelane.model.record import record


@record
class Advice:
    """What is behind an error, by Kafka's name for it."""

    name: str
    cause: str
    next_step: str


# A table reads best with one error a paragraph.
# fmt: off
CATALOGUE: Final = (
    Advice("CLUSTER_AUTHORIZATION_FAILED",
           "the user may not do this to the cluster",
           "Use a user with that right, or let an administrator grant it."),
    Advice("COORDINATOR_LOAD_IN_PROGRESS",
           "the coordinator has just been elected and reads its log",
           "Try again in a moment; if it lasts, look at the broker's log."),
    Advice("COORDINATOR_NOT_AVAILABLE",
           "no broker coordinates groups or transactions here, or none is up",
           "See `corelane cluster health`; try again when it is healthy."),
    Advice("CORRUPT_MESSAGE",
           "a batch was damaged on its way, or a client made it wrongly",
           "Try again; if it lasts, update the client or look for faulty memory or network."),
    Advice("ELECTION_NOT_NEEDED",
           "the replica that should lead a partition leads it already",
           "Nothing is to be done."),
    Advice("ELIGIBLE_LEADERS_NOT_AVAILABLE",
           "no replica of a partition can lead it now",
           "See `corelane cluster health` for what keeps its core from serving it."),
    Advice("FENCED_LEADER_EPOCH",
           "the client knows an older leader of the partition",
           "Try again: clients ask for the new leader by themselves."),
    Advice("FETCH_SESSION_ID_NOT_FOUND",
           "the broker was restarted or has dropped the client's fetch session",
           "Nothing: clients fetch again in full by themselves."),
    Advice("INVALID_CONFIG",
           "a setting is not known, or its value is not allowed",
           "Correct it; `corelane topic describe NAME --all-configs` shows names and values."),
    Advice("INVALID_PARTITIONS",
           "the number of partitions is not possible: too large, or not more than there are",
           "Choose another number; partitions can be added and never taken away."),
    Advice("INVALID_PRODUCER_EPOCH",
           "a newer producer with the same identity has taken over",
           "Let only one instance run, or give each its own transactional id."),
    Advice("INVALID_RECORD",
           "a record breaks a rule of its topic, such as a missing key where it is compacted",
           "Correct the record; `corelane topic describe` shows the topic's settings."),
    Advice("INVALID_REPLICATION_FACTOR",
           "there are fewer nodes than copies are asked for",
           "Choose a --replication-factor of at most the number of nodes."),
    Advice("INVALID_REPLICA_ASSIGNMENT",
           "a broker is named that there is not, or one twice",
           "Leave the assignment to the broker, or name brokers of `corelane cluster info`."),
    Advice("INVALID_REQUEST",
           "the request contradicts itself",
           "Correct what the message names; if the client made it, update the client."),
    Advice("INVALID_REQUIRED_ACKS",
           "acks is none of all (-1), 1 and 0",
           "Set acks of the client to all, 1 or 0."),
    Advice("INVALID_TIMESTAMP",
           "a record's time is too far from the broker's clock for its topic",
           "Check the producer's clock, or message.timestamp.before.max.ms and"
           " message.timestamp.after.max.ms of the topic."),
    Advice("INVALID_TOPIC_EXCEPTION",
           "the name is empty, too long, or has a character that names cannot have",
           "Use letters, digits, '.', '_' and '-', at most 249 of them."),
    Advice("INVALID_TXN_STATE",
           "a transaction was begun or ended out of order",
           "Update the client; it lost track of its transaction."),
    Advice("KAFKA_STORAGE_ERROR",
           "the broker's disk is full or fails",
           "Look at the broker's log: its disk is full or failing."),
    Advice("LEADER_NOT_AVAILABLE",
           "the partition is being made, moved, or its node is down",
           "See `corelane cluster health`; try again when it is healthy."),
    Advice("MESSAGE_TOO_LARGE",
           "a batch is larger than its topic or the broker takes",
           "Raise max.message.bytes of the topic, or send smaller records."),
    Advice("NOT_CONTROLLER",
           "the controller has moved to another broker",
           "Try again: clients ask for the new one by themselves."),
    Advice("NOT_ENOUGH_REPLICAS",
           "fewer copies are alive than min.insync.replicas asks for",
           "Check that enough brokers are up, or lower min.insync.replicas."),
    Advice("NOT_LEADER_OR_FOLLOWER",
           "the partition has moved to another core or broker",
           "Try again: clients ask for the new leader by themselves."),
    Advice("OFFSET_OUT_OF_RANGE",
           "the offset was deleted, or is not written yet",
           "See the first and next offsets with `corelane topic describe`."),
    Advice("OUT_OF_ORDER_SEQUENCE_NUMBER",
           "batches of an idempotent producer are missing before this one",
           "Start the producer again; one that goes on would lose its order."),
    Advice("POLICY_VIOLATION",
           "the broker's limits forbid it",
           "Ask for less; the message names the limit."),
    Advice("PREFERRED_LEADER_NOT_AVAILABLE",
           "the replica that should lead a partition cannot now",
           "See `corelane cluster health` for what keeps its core from serving it."),
    Advice("REQUEST_TIMED_OUT",
           "it was not done in time and may still take effect",
           "See whether it was done, then try again; look at the broker's log if it lasts."),
    Advice("TOPIC_ALREADY_EXISTS",
           "there is a topic of this name",
           "Choose another name, or look at it with `corelane topic describe`."),
    Advice("TOPIC_AUTHORIZATION_FAILED",
           "the user may not access the topic",
           "Use a user with that right, or let an administrator grant it."),
    Advice("TOPIC_DELETION_DISABLED",
           "the broker is configured to delete no topics",
           "Set delete.topic.enable of the broker, or trim the topic with `corelane topic trim`."),
    Advice("UNKNOWN_LEADER_EPOCH",
           "the client knows a newer leader than this broker does yet",
           "Try again: the broker hears of it in a moment."),
    Advice("UNKNOWN_SERVER_ERROR",
           "the broker met something it has no word for",
           "Look at the broker's log, and report it."),
    Advice("UNKNOWN_TOPIC_ID",
           "the topic was deleted, perhaps made again since",
           "Try again: clients ask for topics anew by themselves."),
    Advice("UNKNOWN_TOPIC_OR_PARTITION",
           "there is no such topic, or it has no such partition",
           "See what there is with `corelane topic list`, or make it with"
           " `corelane topic create`."),
    Advice("UNSUPPORTED_COMPRESSION_TYPE",
           "the client speaks too old a version for how the records are compressed",
           "Update the client, or send the records with another compression."),
    Advice("UNSUPPORTED_ENDPOINT_TYPE",
           "the client asked for controllers, which are not reached on their own here",
           "Connect to the brokers: use --bootstrap-server with Kafka's tools."),
    Advice("UNSUPPORTED_VERSION",
           "the broker does not serve the version the client speaks",
           "Update the older of the two."),
)
# fmt: on

BY_NAME: Final = {advice.name: advice for advice in CATALOGUE}

assert [*BY_NAME] == sorted(BY_NAME)
assert len(BY_NAME) == len(CATALOGUE)


def next_step(name: str) -> str:
    """Return what to do about the error that Kafka calls *name*; empty where nobody knows."""
    advice = BY_NAME.get(name)
    return advice.next_step if advice else ""


def table() -> str:
    """Return the catalogue as the README shows it."""
    rows = [f"| {row.name} | {row.cause} | {row.next_step} |" for row in CATALOGUE]
    return "\n".join(["| error | why | what to do |", "| --- | --- | --- |", *rows])
