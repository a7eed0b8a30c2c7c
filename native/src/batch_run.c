/* Which of the whole batches in a piece of a log a reader gets. */
#include "record.h"

void cl_batches_run(uint64_t address, uint64_t size, int64_t offset, int64_t offset_max,
                    uint64_t bytes_max, int first_always, cl_batch_run *run)
{
    assert(address != 0 || size == 0);
    assert(run != NULL);
    const uint8_t *data = cl_pointer(address);
    uint64_t at = 0;
    *run = (cl_batch_run){.start = -1, .is_cut = 1};
    while (size - at >= CL_BATCH_HEADER_BYTES) {
        const uint8_t *batch = data + at;
        uint64_t batch_bytes = (uint64_t)cl_be32(batch + CL_BATCH_LENGTH) + CL_BATCH_LENGTH_PREFIX;
        bool is_lie = batch_bytes < CL_BATCH_HEADER_BYTES || batch_bytes > INT32_MAX;
        bool is_too_much = at + batch_bytes > bytes_max && (at > 0 || !first_always);
        int64_t base_offset = (int64_t)cl_be64(batch + CL_BATCH_BASE_OFFSET);
        if (is_lie || is_too_much || base_offset >= offset_max) {
            run->is_cut = 0;
            break;
        }
        if (batch_bytes > size - at)
            break;
        int32_t delta = (int32_t)cl_be32(batch + CL_BATCH_LAST_OFFSET_DELTA);
        int64_t last_offset = base_offset + delta;
        at += batch_bytes;
        if (last_offset < offset)
            continue;
        if (run->start < 0)
            run->start = (int64_t)(at - batch_bytes);
        run->next_offset = last_offset + 1;
    }
    run->end = (int64_t)at;
    assert(run->end >= run->start);
    assert(at <= size);
}
