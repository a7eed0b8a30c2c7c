"""What can go wrong between a client and a cluster, each as a sentence and a next step.

Every error says whether trying again may help (`retriable`). Producer, consumer and admin do try
again by themselves within their time limits; what they raise has outlived those.
"""

from corelane.model.errors import ERRORS, ErrorCode


class ClientError(Exception):
    """The root of all errors of this package: what happened, and what to do next."""

    def __init__(self, sentence: str, next_step: str = "", *, retriable: bool = False) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = next_step
        self.retriable = retriable


class KafkaError(ClientError):
    """The broker answered with an error code.

    `code` is Kafka's number and `name` Kafka's name for it. `sentence` starts with what was asked
    for; the broker's own words follow where it sent some.
    """

    def __init__(self, code: int, what: str = "", said: str | None = None) -> None:
        row = ERRORS.get(code)
        self.code = code
        self.name = row.name if row else f"ERROR_{code}"
        why = said or (row.sentence if row else "the broker's error code is not known here")
        super().__init__(
            f"{what}: {why}" if what else why,
            retriable=row is not None and row.is_retriable,
        )


class FencedError(KafkaError):
    """A newer producer with the same transactional id has taken over; this one cannot go on."""

    def __init__(self, transactional_id: str) -> None:
        super().__init__(ErrorCode.PRODUCER_FENCED, f"transactional id {transactional_id!r}")


class ConnectError(ClientError):
    """No connection to a broker: nobody listens, the network failed, or it was cut."""


class ProtocolError(ClientError):
    """The other side does not speak Kafka, or broke its rules."""


class AnswerTimeoutError(ClientError):
    """A broker did not answer in time. Whether it did what was asked is not known."""


class DeliveryTimeoutError(ClientError):
    """A record was not acknowledged in time. Whether it was written is not known."""


class CorruptRecordsError(ClientError):
    """A fetched batch does not fit its checksum or its format."""


def no_partition(topic: str, partition_count: int, partition: int) -> KafkaError:
    """Return the error for a partition the topic does not have, which asking again won't make."""
    said = f"topic {topic!r} has {partition_count} partitions and none of number {partition}"
    error = KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, said=said)
    error.retriable = False
    return error
