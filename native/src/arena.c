/* The arena: the WAL's tail in memory, byte for byte.
 *
 * Chunks are 4096-aligned maps, because O_DIRECT takes no unaligned gather. A chunk whose last
 * reference goes is kept for the next caller (warm pages cost nothing to fault in again); kept
 * chunks are unmapped only to make room for one of another size.
 *
 * A chunk id is a generation above a slot number, so that the id of a chunk that was released is
 * recognised instead of reading somebody else's bytes. */
#include "core.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "record.h"

#define SLOT_BITS 20
#define SLOT_MASK ((1 << SLOT_BITS) - 1)
#define NO_SLOT UINT32_MAX

typedef struct {
    uint8_t *memory; /* NULL: the slot has no map */
    uint64_t capacity;
    int64_t id;
    uint32_t references;
    uint32_t next; /* in the list of kept or of empty slots */
} chunk_slot;

struct cl_arena {
    uint64_t bytes_max;
    uint64_t chunk_bytes;
    uint64_t bytes_in_use;
    uint64_t bytes_mapped;
    int64_t generation;
    uint32_t slot_count;
    uint32_t kept;  /* slots with memory and no reference, last released first */
    uint32_t empty; /* slots without memory */
    chunk_slot slots[];
};

cl_arena *cl_arena_new(uint64_t bytes_max, uint64_t chunk_bytes)
{
    assert(chunk_bytes > 0);
    assert(chunk_bytes % CL_BLOCK_BYTES == 0);
    assert(bytes_max >= chunk_bytes);
    uint64_t slot_count = bytes_max / chunk_bytes; /* no chunk is smaller than chunk_bytes */
    assert(slot_count <= SLOT_MASK);

    cl_arena *arena = calloc(1, sizeof *arena + slot_count * sizeof(chunk_slot));
    if (arena == NULL)
        return NULL;
    arena->bytes_max = bytes_max;
    arena->chunk_bytes = chunk_bytes;
    arena->slot_count = (uint32_t)slot_count;
    arena->kept = NO_SLOT;
    for (uint32_t slot = 0; slot < arena->slot_count; slot++)
        arena->slots[slot].next = slot + 1 < arena->slot_count ? slot + 1 : NO_SLOT;
    return arena;
}

/* Take slot's memory away; it must be off the kept list already. */
static void slot_unmap(cl_arena *arena, uint32_t slot)
{
    chunk_slot *chunk = &arena->slots[slot];
    assert(chunk->memory != NULL);
    assert(arena->bytes_mapped >= chunk->capacity);
    munmap(chunk->memory, chunk->capacity);
    arena->bytes_mapped -= chunk->capacity;
    chunk->memory = NULL;
    chunk->next = arena->empty;
    arena->empty = slot;
}

void cl_arena_free(cl_arena *arena)
{
    assert(arena != NULL);
    for (uint32_t slot = 0; slot < arena->slot_count; slot++)
        if (arena->slots[slot].memory != NULL)
            munmap(arena->slots[slot].memory, arena->slots[slot].capacity);
    free(arena);
}

/* Take a kept slot of need..2*need bytes off its list; NO_SLOT if none is kept. */
static uint32_t kept_take(cl_arena *arena, uint64_t need)
{
    uint32_t *link = &arena->kept;
    while (*link != NO_SLOT) {
        uint32_t slot = *link;
        chunk_slot *chunk = &arena->slots[slot];
        if (chunk->capacity >= need && chunk->capacity < 2 * need) {
            *link = chunk->next;
            return slot;
        }
        link = &chunk->next;
    }
    return NO_SLOT;
}

/* Map need bytes into an empty slot, unmapping kept chunks to stay below bytes_max. */
static uint32_t slot_map(cl_arena *arena, uint64_t need)
{
    while (arena->bytes_mapped + need > arena->bytes_max && arena->kept != NO_SLOT) {
        uint32_t victim = arena->kept;
        arena->kept = arena->slots[victim].next;
        slot_unmap(arena, victim);
    }
    if (arena->bytes_mapped + need > arena->bytes_max)
        return NO_SLOT;
    void *memory = mmap(NULL, need, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NO_SLOT;
    uint32_t slot = arena->empty;
    assert(slot != NO_SLOT); /* every mapped chunk has at least chunk_bytes */
    arena->empty = arena->slots[slot].next;
    arena->slots[slot].memory = memory;
    arena->slots[slot].capacity = need;
    arena->bytes_mapped += need;
    return slot;
}

int64_t cl_arena_chunk_new(cl_arena *arena, uint64_t bytes_min)
{
    assert(arena != NULL);
    if (bytes_min > arena->bytes_max)
        return -ENOMEM;
    uint64_t need = arena->chunk_bytes;
    if (bytes_min > need)
        need = cl_round_up(bytes_min, CL_BLOCK_BYTES);
    uint32_t slot = kept_take(arena, need);
    if (slot == NO_SLOT)
        slot = slot_map(arena, need);
    if (slot == NO_SLOT)
        return -ENOMEM;

    chunk_slot *chunk = &arena->slots[slot];
    assert(chunk->references == 0);
    chunk->references = 1;
    chunk->id = (++arena->generation << SLOT_BITS) | slot;
    arena->bytes_in_use += chunk->capacity;
    return chunk->id;
}

static const chunk_slot *held(const cl_arena *arena, int64_t chunk)
{
    assert(arena != NULL);
    uint32_t slot = (uint32_t)(chunk & SLOT_MASK);
    if (slot >= arena->slot_count)
        return NULL;
    const chunk_slot *found = &arena->slots[slot];
    return found->id == chunk && found->references > 0 ? found : NULL;
}

/* The memory of a range inside a held chunk, or NULL with *status set. */
static uint8_t *range_of(const cl_arena *arena, int64_t chunk, uint64_t position, uint64_t size,
                         int *status)
{
    const chunk_slot *found = held(arena, chunk);
    *status = -EINVAL;
    if (found == NULL)
        return NULL;
    *status = -ENOSPC;
    if (position > found->capacity || size > found->capacity - position)
        return NULL;
    *status = 0;
    return found->memory + position;
}

uint64_t cl_arena_address(const cl_arena *arena, int64_t chunk)
{
    const chunk_slot *found = held(arena, chunk);
    return found == NULL ? 0 : (uint64_t)(uintptr_t)found->memory;
}

int64_t cl_arena_capacity(const cl_arena *arena, int64_t chunk)
{
    const chunk_slot *found = held(arena, chunk);
    return found == NULL ? -EINVAL : (int64_t)found->capacity;
}

int64_t cl_arena_references(const cl_arena *arena, int64_t chunk)
{
    const chunk_slot *found = held(arena, chunk);
    return found == NULL ? -EINVAL : (int64_t)found->references;
}

int cl_arena_retain(cl_arena *arena, int64_t chunk)
{
    if (held(arena, chunk) == NULL)
        return -EINVAL;
    chunk_slot *slot = &arena->slots[chunk & SLOT_MASK];
    assert(slot->references < UINT32_MAX);
    slot->references++;
    return 0;
}

int cl_arena_release(cl_arena *arena, int64_t chunk)
{
    if (held(arena, chunk) == NULL)
        return -EINVAL;
    uint32_t number = (uint32_t)(chunk & SLOT_MASK);
    chunk_slot *slot = &arena->slots[number];
    slot->references--;
    if (slot->references > 0)
        return 0;
    assert(arena->bytes_in_use >= slot->capacity);
    arena->bytes_in_use -= slot->capacity;
    slot->next = arena->kept;
    arena->kept = number;
    return 0;
}

uint64_t cl_arena_bytes_in_use(const cl_arena *arena)
{
    assert(arena != NULL);
    return arena->bytes_in_use;
}

uint64_t cl_arena_bytes_mapped(const cl_arena *arena)
{
    assert(arena != NULL);
    return arena->bytes_mapped;
}

void cl_arena_trim(cl_arena *arena, uint64_t bytes_kept)
{
    assert(arena != NULL);
    while (arena->kept != NO_SLOT && arena->bytes_mapped - arena->bytes_in_use > bytes_kept) {
        uint32_t victim = arena->kept;
        arena->kept = arena->slots[victim].next;
        slot_unmap(arena, victim);
    }
}

int64_t cl_arena_put_record(cl_arena *arena, int64_t chunk, uint64_t position,
                            const cl_record *record, uint64_t payload_address,
                            uint64_t payload_bytes)
{
    assert(record != NULL);
    if (position % 8 != 0 || payload_bytes > CL_PAYLOAD_BYTES_MAX)
        return -EINVAL;
    int status;
    uint64_t size = cl_record_size(payload_bytes);
    uint8_t *to = range_of(arena, chunk, position, size, &status);
    if (to == NULL)
        return status;
    cl_record_write(to, record, cl_pointer(payload_address), payload_bytes);
    return (int64_t)size;
}

int64_t cl_arena_put_batch(cl_arena *arena, int64_t chunk, uint64_t position,
                           const cl_record *record, uint64_t payload_address,
                           uint64_t payload_bytes)
{
    assert(record != NULL);
    if (position % 8 != 0 || payload_bytes > CL_PAYLOAD_BYTES_MAX)
        return -EINVAL;
    if (payload_bytes < CL_BATCH_HEADER_BYTES)
        return -EINVAL;
    int status;
    uint64_t size = cl_record_size(payload_bytes);
    uint8_t *to = range_of(arena, chunk, position, size, &status);
    if (to == NULL)
        return status;
    cl_record_write_batch(to, record, cl_pointer(payload_address), payload_bytes);
    return (int64_t)size;
}

int64_t cl_arena_put_batches(cl_arena *arena, int64_t chunk, uint64_t position,
                             const cl_record *record, const cl_put *puts, uint32_t count)
{
    assert(record != NULL);
    assert(puts != NULL || count == 0);
    uint64_t start = position;
    cl_record next = *record;
    for (uint32_t at = 0; at < count; at++) {
        const cl_put *put = &puts[at];
        next.kind = CL_KIND_BATCH;
        next.term = put->term;
        next.record_count = put->record_count;
        next.group = put->group;
        next.index = put->index;
        next.offset = put->base_offset;
        next.append_time_ms = put->append_time_ms;
        int64_t taken = cl_arena_put_batch(arena, chunk, position, &next, put->address, put->size);
        if (taken < 0)
            return taken;
        position += (uint64_t)taken;
        next.lsn++;
    }
    return (int64_t)(position - start);
}

int64_t cl_arena_pad(cl_arena *arena, int64_t chunk, uint64_t position)
{
    int status;
    uint64_t end = cl_round_up(position, CL_BLOCK_BYTES);
    uint8_t *to = range_of(arena, chunk, position, end - position, &status);
    if (to == NULL)
        return status;
    memset(to, 0, end - position);
    return (int64_t)end;
}

int cl_arena_write(cl_arena *arena, int64_t chunk, uint64_t position, const void *data,
                   uint64_t size)
{
    assert(data != NULL || size == 0);
    int status;
    uint8_t *to = range_of(arena, chunk, position, size, &status);
    if (to != NULL && size > 0)
        memcpy(to, data, size);
    return status;
}

int64_t cl_arena_gather(cl_arena *arena, int64_t chunk, uint64_t position, const void *ranges,
                        uint32_t range_count)
{
    assert(ranges != NULL || range_count == 0);
    uint64_t copied = 0;
    int status = 0;
    for (uint32_t at = 0; at < range_count; at++) {
        cl_range range; /* the array comes as bytes: copied, so that it need not be aligned */
        memcpy(&range, (const uint8_t *)ranges + at * sizeof range, sizeof range);
        const uint8_t *from = range_of(arena, range.chunk, range.position, range.size, &status);
        if (from == NULL)
            return status;
        uint8_t *to = range_of(arena, chunk, position + copied, range.size, &status);
        if (to == NULL)
            return status;
        memmove(to, from, range.size); /* a chunk may be gathered into itself */
        copied += range.size;
    }
    return (int64_t)copied;
}
