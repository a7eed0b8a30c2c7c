/* Judges one Kafka record batch: header, CRC and, where the records are not compressed, each of
 * them. What is checked and which error it earns: Kafka's DefaultRecordBatch and LogValidator. */
#include "batch.h"

#include "record.h"

#define CODEC_NONE 0
#define CODEC_ZSTD 4

static int16_t error_of(int reason)
{
    switch (reason) {
    case 0:
        return CL_ERROR_NONE;
    case CL_BATCH_CUT:
    case CL_BATCH_CRC_WRONG:
        return CL_ERROR_CORRUPT_MESSAGE;
    case CL_BATCH_OLD_FORMAT:
        return CL_ERROR_UNSUPPORTED_FOR_MESSAGE_FORMAT;
    case CL_BATCH_TOO_LARGE:
        return CL_ERROR_MESSAGE_TOO_LARGE;
    case CL_BATCH_TIMESTAMP_TYPE_SET:
        return CL_ERROR_INVALID_TIMESTAMP;
    case CL_BATCH_UNKNOWN_CODEC:
    case CL_BATCH_ZSTD_TOO_EARLY:
        return CL_ERROR_UNSUPPORTED_COMPRESSION_TYPE;
    default:
        return CL_ERROR_INVALID_RECORD;
    }
}

/* Size and format: nothing after this reads outside batch[0..size). */
static int check_frame(const uint8_t *batch, uint64_t size, int64_t bytes_max)
{
    if (size == 0)
        return CL_BATCH_ABSENT;
    if (size <= CL_BATCH_MAGIC)
        return CL_BATCH_SHORT;
    int8_t magic = (int8_t)batch[CL_BATCH_MAGIC]; /* formats 0 and 1 have it at the same place */
    if (magic == 0 || magic == 1)
        return CL_BATCH_OLD_FORMAT;
    if (magic != 2)
        return CL_BATCH_UNKNOWN_FORMAT;
    if (size < CL_BATCH_HEADER_BYTES)
        return CL_BATCH_SHORT;
    int64_t claimed = (int64_t)(int32_t)cl_be32(batch + CL_BATCH_LENGTH) + CL_BATCH_LENGTH_PREFIX;
    if (claimed < CL_BATCH_HEADER_BYTES || claimed > (int64_t)size)
        return CL_BATCH_CUT;
    if (claimed < (int64_t)size)
        return CL_BATCH_TRAILING;
    if (bytes_max >= 0 && claimed > bytes_max)
        return CL_BATCH_TOO_LARGE;
    uint32_t crc = cl_crc32c(0, batch + CL_BATCH_ATTRIBUTES, size - CL_BATCH_ATTRIBUTES);
    if (crc != cl_be32(batch + CL_BATCH_CRC))
        return CL_BATCH_CRC_WRONG;
    return 0;
}

static void read_header(const uint8_t *batch, cl_produce_row *row)
{
    row->attributes = cl_be16(batch + CL_BATCH_ATTRIBUTES);
    row->base_timestamp = (int64_t)cl_be64(batch + CL_BATCH_BASE_TIMESTAMP);
    row->max_timestamp = (int64_t)cl_be64(batch + CL_BATCH_MAX_TIMESTAMP);
    row->producer_id = (int64_t)cl_be64(batch + CL_BATCH_PRODUCER_ID);
    row->producer_epoch = (int16_t)cl_be16(batch + CL_BATCH_PRODUCER_EPOCH);
    row->base_sequence = (int32_t)cl_be32(batch + CL_BATCH_BASE_SEQUENCE);
    row->record_count = (int32_t)cl_be32(batch + CL_BATCH_RECORD_COUNT);
}

/* What only the log may set. */
static int check_reserved(const uint8_t *batch, const cl_produce_row *row)
{
    if (cl_be64(batch + CL_BATCH_BASE_OFFSET) != 0)
        return CL_BATCH_BASE_OFFSET_SET;
    int64_t last_delta = (int32_t)cl_be32(batch + CL_BATCH_LAST_OFFSET_DELTA);
    if (row->record_count <= 0 || last_delta + 1 != row->record_count)
        return CL_BATCH_COUNT_WRONG;
    if (row->attributes & CL_ATTRIBUTE_CONTROL)
        return CL_BATCH_CONTROL_SET;
    if (row->attributes & CL_ATTRIBUTE_LOG_APPEND_TIME)
        return CL_BATCH_TIMESTAMP_TYPE_SET;
    if (row->attributes & CL_ATTRIBUTE_DELETE_HORIZON)
        return CL_BATCH_DELETE_HORIZON_SET;
    return 0;
}

static int check_header(const cl_produce_row *row, int flags)
{
    int codec = row->attributes & CL_ATTRIBUTE_CODEC;
    if (codec > CODEC_ZSTD)
        return CL_BATCH_UNKNOWN_CODEC;
    if (codec == CODEC_ZSTD && (flags & CL_CHECK_REFUSE_ZSTD))
        return CL_BATCH_ZSTD_TOO_EARLY;
    if (flags & CL_CHECK_STORED)
        return 0; /* control batches of the log carry a producer and no sequence */
    if (row->producer_id >= 0 && row->base_sequence < 0)
        return CL_BATCH_SEQUENCE_NEGATIVE;
    if (row->producer_id >= 0 && row->producer_epoch < 0)
        return CL_BATCH_EPOCH_NEGATIVE;
    if (row->producer_id < 0 && (row->attributes & CL_ATTRIBUTE_TRANSACTIONAL))
        return CL_BATCH_TRANSACTION_WITHOUT_PRODUCER;
    return 0;
}

static int check_records(const uint8_t *batch, uint64_t size, cl_produce_row *row)
{
    cl_walk walk;
    cl_walk_records(batch + CL_BATCH_HEADER_BYTES, size - CL_BATCH_HEADER_BYTES,
                    row->record_count, row->base_timestamp, INT64_MAX, &walk);
    row->keyless = walk.keyless;
    if (walk.reason == 0 && !(row->attributes & CL_ATTRIBUTE_LOG_APPEND_TIME))
        row->max_timestamp = walk.max_timestamp;
    return walk.reason;
}

static int check(const uint8_t *batch, uint64_t size, int64_t bytes_max, int flags,
                 cl_produce_row *row)
{
    int reason = check_frame(batch, size, bytes_max);
    if (reason != 0)
        return reason;
    read_header(batch, row);
    if (!(flags & CL_CHECK_STORED))
        reason = check_reserved(batch, row);
    if (reason == 0)
        reason = check_header(row, flags);
    if (reason != 0 || (flags & (CL_CHECK_NO_WALK | CL_CHECK_STORED)))
        return reason; /* a compacted batch of the log has holes */
    if ((row->attributes & CL_ATTRIBUTE_CODEC) != CODEC_NONE)
        return 0;
    return check_records(batch, size, row);
}

void cl_batch_check(const uint8_t *batch, uint64_t size, int64_t bytes_max, int flags,
                    cl_produce_row *row)
{
    assert(batch != NULL || size == 0);
    assert(size <= INT32_MAX);
    assert(row != NULL);
    row->batch_bytes = (int32_t)size;
    row->record_count = 0;
    row->attributes = 0;
    row->producer_id = -1;
    row->producer_epoch = -1;
    row->base_sequence = -1;
    row->base_timestamp = -1;
    row->max_timestamp = -1;
    row->keyless = -1;
    row->again = 0;
    int reason = check(batch, size, bytes_max, flags, row);
    row->reason = (int16_t)reason;
    row->error = error_of(reason);
}

void cl_check_batch(uint64_t address, uint64_t size, int64_t bytes_max, int flags,
                    cl_produce_row *row)
{
    assert(row != NULL);
    memset(row, 0, sizeof *row);
    cl_batch_check(cl_pointer(address), size, bytes_max, flags, row);
}
