"""Whether a batch may be appended to a partition: the rules that need the topic's settings."""

# performance-critical: see STYLE.md

from corelane.cluster.topic_config import TopicSettings
from corelane.model.errors import ErrorCode

_CODEC_MASK = 0x07
KEYLESS_UNKNOWN = -1

Fault = tuple[ErrorCode, str]


def fault_of_batch(
    settings: TopicSettings, size_bytes: int, attributes: int, keyless: int
) -> Fault | None:
    """Return why a well-formed batch of this size and attributes may not enter the topic."""
    if size_bytes > settings.message_bytes_max:
        return (
            ErrorCode.MESSAGE_TOO_LARGE,
            (
                f"the batch has {size_bytes} bytes, the topic allows {settings.message_bytes_max} "
                "(max.message.bytes): send smaller batches or raise the limit"
            ),
        )
    if settings.is_compacted and keyless == 1:
        return (
            ErrorCode.INVALID_RECORD,
            "a record without a key cannot enter a compacted topic: give every record a key",
        )
    return None


def fault_of_time(settings: TopicSettings, max_timestamp_ms: int, wall_ms: int) -> Fault | None:
    """Return why the producer's clock is too far off for this topic (CreateTime only)."""
    if settings.is_log_append_time:
        return None
    before_ms = wall_ms - max_timestamp_ms
    if before_ms > settings.timestamp_before_max_ms or -before_ms > settings.timestamp_after_max_ms:
        return (
            ErrorCode.INVALID_TIMESTAMP,
            (
                f"the batch's timestamp {max_timestamp_ms} is too far from the broker's {wall_ms} "
                "(message.timestamp.before.max.ms, message.timestamp.after.max.ms)"
            ),
        )
    return None


_CODECS = {"uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def codec_wanted(settings: TopicSettings, attributes: int) -> int | None:
    """Return the codec the batch must be stored in, None where its own will do."""
    wanted = _CODECS.get(settings.compression_type)  # "producer" is none of them
    return None if wanted == attributes & _CODEC_MASK else wanted


def needs_decompression(settings: TopicSettings, attributes: int) -> bool:
    """Whether the records must be looked at although they are compressed.

    Only on compacted topics (keys are needed) and strict ones: elsewhere decompressing every
    batch would cost 1.4 CPU s/GB (limits.md 1.3), and Kafka's clients never lie about deltas.
    """
    return bool(attributes & _CODEC_MASK) and (settings.is_compacted or settings.is_strict)
