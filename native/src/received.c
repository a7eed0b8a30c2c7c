/* Judges the entries that a leader sent, and makes WAL records of them: each byte of a batch is
 * read twice, once for its own CRC and once, while it is copied, for the record's. */
#include "batch.h"
#include "record.h"

#define ENTRY_HEAD_BYTES 8u
#define ENTRY_KIND_MAX 31u

typedef struct {
    uint32_t kind;
    uint32_t size;
} entry_head;

/* Read the head at position; false if it, or the payload behind it, is not all there. */
static bool head_read(const uint8_t *data, uint64_t size, uint64_t position, entry_head *head)
{
    assert(position <= size);
    if (size - position < ENTRY_HEAD_BYTES)
        return false;
    memcpy(head, data + position, sizeof *head);
    return head->size <= size - position - ENTRY_HEAD_BYTES;
}

/* Judge a batch as the next one of the log; on 0 row says what it is. */
static int check_batch(const uint8_t *batch, uint32_t term, int64_t base_offset, cl_received *row)
{
    cl_produce_row found;
    if (row->size > INT32_MAX)
        return CL_BATCH_TOO_LARGE;
    cl_batch_check(batch, row->size, -1, CL_CHECK_STORED, &found);
    if (found.reason != 0)
        return found.reason;
    int64_t last_delta = (int32_t)cl_be32(batch + CL_BATCH_LAST_OFFSET_DELTA);
    if (found.record_count <= 0 || last_delta + 1 != found.record_count)
        return CL_BATCH_COUNT_WRONG;
    if ((int64_t)cl_be64(batch + CL_BATCH_BASE_OFFSET) != base_offset)
        return CL_RECEIVED_OFFSET_WRONG;
    if (cl_be32(batch + CL_BATCH_LEADER_EPOCH) != term)
        return CL_RECEIVED_TERM_WRONG;
    row->next_offset = base_offset + found.record_count;
    row->max_timestamp = found.max_timestamp;
    return 0;
}

void cl_received_check(uint64_t address, uint64_t size, uint32_t term, cl_received_run *run,
                       cl_received *rows, uint32_t rows_max)
{
    assert(run != NULL);
    assert(rows != NULL || rows_max == 0);
    const uint8_t *data = cl_pointer(address);
    run->reason = 0;
    for (run->count = 0; run->count < rows_max && run->position < size; run->count++) {
        entry_head head;
        if (!head_read(data, size, run->position, &head)) {
            run->reason = CL_RECEIVED_CUT;
            return;
        }
        if (head.kind == 0 || head.kind > ENTRY_KIND_MAX) { /* the three zeros are part of it */
            run->reason = CL_RECEIVED_KIND_WRONG;
            return;
        }
        cl_received *row = &rows[run->count];
        *row = (cl_received){.next_offset = run->next_offset,
                             .max_timestamp = -1,
                             .position = run->position + ENTRY_HEAD_BYTES,
                             .size = head.size,
                             .kind = head.kind};
        if (head.kind == CL_KIND_BATCH)
            run->reason = check_batch(data + row->position, term, run->next_offset, row);
        if (run->reason != 0)
            return;
        run->next_offset = row->next_offset;
        run->position = row->position + row->size;
    }
}

int64_t cl_arena_put_received(cl_arena *arena, int64_t chunk, uint64_t position, uint64_t limit,
                              const cl_record *record, uint64_t address, const cl_received *rows,
                              uint32_t row_count, uint64_t *bytes)
{
    assert(record != NULL);
    assert(rows != NULL);
    assert(bytes != NULL);
    const uint8_t *data = cl_pointer(address);
    uint64_t start = position;
    uint32_t count = 0;
    cl_record next = *record;
    for (; count < row_count; count++) {
        const cl_received *row = &rows[count];
        if (position > limit || cl_record_size(row->size) > limit - position)
            break;
        next.kind = row->kind;
        next.offset = row->next_offset;
        int64_t taken = cl_arena_put_record(arena, chunk, position, &next,
                                            (uint64_t)(uintptr_t)(data + row->position), row->size);
        if (taken < 0)
            return taken;
        position += (uint64_t)taken;
        next.lsn++;
        next.index++;
    }
    *bytes = position - start;
    return count;
}
