/* Checks one Kafka record batch, version 2. */
#ifndef BATCH_H
#define BATCH_H

#include "core.h"

/* The Kafka error codes a batch can earn. */
#define CL_ERROR_NONE 0
#define CL_ERROR_CORRUPT_MESSAGE 2
#define CL_ERROR_MESSAGE_TOO_LARGE 10
#define CL_ERROR_INVALID_TIMESTAMP 32
#define CL_ERROR_UNSUPPORTED_FOR_MESSAGE_FORMAT 43
#define CL_ERROR_UNSUPPORTED_COMPRESSION_TYPE 76
#define CL_ERROR_INVALID_RECORD 87

/* Judge batch[0..size) and fill row, as cl_check_batch. */
void cl_batch_check(const uint8_t *batch, uint64_t size, int64_t bytes_max, int flags,
                    cl_produce_row *row);

#endif
