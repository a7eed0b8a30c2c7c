/* The tail of a raft group's log: rows of its entries in memory, looked at many at a time. */
#include "entries.h"
#include "record.h"

#define KIND_TRIM 4u

static void entry_at(const void *entries, uint64_t at, cl_entry *entry)
{
    memcpy(entry, (const uint8_t *)entries + at * sizeof *entry, sizeof *entry);
}

uint64_t cl_tail_find(const void *entries, uint64_t count, int64_t offset)
{
    assert(entries != NULL || count == 0);
    uint64_t low = 0, high = count; /* those below low end at or before offset */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        cl_entry entry;
        entry_at(entries, middle, &entry);
        if (entry.next_offset > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

uint64_t cl_tail_same_chunk(const void *entries, uint64_t count)
{
    assert(entries != NULL || count == 0);
    cl_entry first, entry;
    if (count == 0)
        return 0;
    entry_at(entries, 0, &first);
    uint64_t at = 1;
    for (; at < count; at++) {
        entry_at(entries, at, &entry);
        if (entry.chunk != first.chunk)
            break;
    }
    return at;
}

void cl_tail_sum(const void *entries, uint64_t count, cl_tail_sums *sums)
{
    assert(entries != NULL || count == 0);
    assert(sums != NULL);
    *sums = (cl_tail_sums){.newest = INT64_MIN};
    for (uint64_t at = 0; at < count; at++) {
        cl_entry entry;
        entry_at(entries, at, &entry);
        sums->bytes += entry.size;
        sums->trims += entry.kind == KIND_TRIM;
        if (entry.max_timestamp > sums->newest)
            sums->newest = entry.max_timestamp;
    }
}

/* Whether a batch must not go to a segment with those before it. */
static bool is_too_much(const cl_collected *found, const cl_entry *entry)
{
    uint64_t end = found->log_bytes + entry->size;
    if (end > found->bytes_max || found->last_offset == found->closed_at)
        return true;
    if (entry->kind != CL_KIND_BATCH)
        return false;
    if (end > found->segment_left && found->begin + found->log_bytes > 0)
        return true;
    return found->oldest != -1 &&
           (__int128)entry->max_timestamp - found->oldest > found->segment_ms;
}

void cl_tail_collect(const void *entries, uint64_t count, cl_collected *found, void *rows)
{
    assert(entries != NULL || count == 0);
    assert(found != NULL);
    assert(rows != NULL);
    uint8_t *to = rows;
    for (found->count = 0; found->count < count; found->count++) {
        cl_entry entry;
        entry_at(entries, found->count, &entry);
        if (found->count > 0 && is_too_much(found, &entry))
            return;
        found->all_bytes += entry.size;
        if (entry.kind == CL_KIND_BATCH) {
            found->log_bytes += entry.size;
            found->batches++;
            if (entry.max_timestamp > found->newest)
                found->newest = entry.max_timestamp;
            if (entry.size > found->biggest)
                found->biggest = entry.size;
            if (found->oldest == -1)
                found->oldest = entry.max_timestamp;
        }
        cl_entry_row row = {.next_offset = entry.next_offset,
                            .end_position = found->begin + found->log_bytes,
                            .max_timestamp = found->newest,
                            .term = entry.term,
                            .kind = (uint8_t)entry.kind};
        memcpy(to, &row, sizeof row);
        to += sizeof row;
        found->last_offset = entry.next_offset;
        found->last_term = entry.term;
    }
}

int64_t cl_arena_gather_batches(cl_arena *arena, int64_t chunk, uint64_t position,
                                const void *entries, uint64_t count)
{
    assert(entries != NULL || count == 0);
    uint64_t start = position;
    for (uint64_t at = 0; at < count; at++) {
        cl_entry entry;
        entry_at(entries, at, &entry);
        if (entry.kind != CL_KIND_BATCH)
            continue;
        cl_range range = {
            .chunk = entry.chunk, .position = entry.position, .size = entry.size};
        int64_t copied = cl_arena_gather(arena, chunk, position, &range, 1);
        if (copied < 0)
            return copied;
        position += (uint64_t)copied;
    }
    return (int64_t)(position - start);
}
