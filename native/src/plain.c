/* Plain Produce requests that are alike: their batches into the log, their answers out of one. */
#include "record.h"

#define CORRELATION_AT 4u /* of an answer, behind its length */

int64_t cl_arena_put_plain(cl_arena *arena, int64_t chunk, uint64_t position, uint64_t limit,
                           const cl_record *record, const cl_plain *heads,
                           const cl_produce_row *rows, uint32_t count, cl_entry *entries,
                           uint64_t *bytes)
{
    assert(record != NULL);
    assert(heads != NULL);
    assert(rows != NULL);
    assert(entries != NULL);
    uint64_t start = position;
    uint32_t at = 0;
    cl_record next = *record;
    for (; at < count; at++) {
        const cl_produce_row *row = &rows[at];
        uint64_t size = (uint64_t)row->batch_bytes;
        if (position > limit || cl_record_size(size) > limit - position)
            break;
        next.record_count = (uint32_t)row->record_count;
        int64_t taken = cl_arena_put_batch(arena, chunk, position, &next,
                                           heads[at].address + (uint64_t)row->batch_at, size);
        if (taken < 0)
            return taken;
        next.offset += row->record_count;
        entries[at] = (cl_entry){
            .next_offset = next.offset,
            .max_timestamp = next.append_time_ms < 0 ? row->max_timestamp : next.append_time_ms,
            .lsn = next.lsn,
            .chunk = chunk,
            .position = (uint32_t)(position + CL_RECORD_HEADER_BYTES),
            .size = (uint32_t)size,
            .term = next.term,
            .kind = CL_KIND_BATCH};
        next.lsn++;
        next.index++;
        position += (uint64_t)taken;
    }
    *bytes = position - start;
    return at;
}

int64_t cl_plain_answers(const void *answer, uint32_t answer_bytes, uint32_t offset_at,
                         const cl_plain *heads, const cl_produce_row *rows, uint32_t count,
                         int64_t base_offset, void *out)
{
    assert(answer != NULL);
    assert(out != NULL);
    assert(offset_at > CORRELATION_AT);
    assert(offset_at + sizeof(int64_t) <= answer_bytes);
    uint8_t *to = out;
    for (uint32_t at = 0; at < count; at++) {
        memcpy(to, answer, answer_bytes);
        cl_put_be32(to + CORRELATION_AT, (uint32_t)heads[at].correlation_id);
        cl_put_be64(to + offset_at, (uint64_t)base_offset);
        base_offset += rows[at].record_count;
        to += answer_bytes;
    }
    return base_offset;
}
