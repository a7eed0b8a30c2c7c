/* Receive memory; see buffers.h. Small sizes come from malloc and go to free lists; large ones are
 * maps, which grow by moving pages instead of bytes. */
#include "buffers.h"

#include <stdlib.h>
#include <sys/mman.h>

#define LARGE_UNIT (64u * 1024u)
#define KEPT_RATIO_MAX 4 /* a kept map may be so many times larger than what is asked for */
#define LARGE_BYTES_KEPT_MAX (64u * 1024u * 1024u)

static const uint64_t class_bytes[CL_BUFFERS_CLASSES] = {CL_BUFFER_TINY, CL_BUFFER_SMALL,
                                                         CL_BUFFER_BASE};
static const uint32_t class_kept_max[CL_BUFFERS_CLASSES] = {1024, 64, 64};

void cl_buffers_init(cl_buffers *buffers, uint64_t bytes_max)
{
    assert(buffers != NULL);
    memset(buffers, 0, sizeof *buffers);
    buffers->bytes_max = bytes_max;
}

/* The smallest class that holds size, or CL_BUFFERS_CLASSES for a map of its own. */
static uint32_t class_of(uint64_t size)
{
    uint32_t class = 0;
    while (class < CL_BUFFERS_CLASSES && class_bytes[class] < size)
        class++;
    return class;
}

static void large_drop(cl_buffers *buffers, uint32_t at)
{
    assert(at < buffers->large_count);
    cl_buffer *victim = &buffers->large[at];
    munmap(victim->memory, victim->capacity);
    buffers->bytes_kept -= victim->capacity;
    buffers->large_count--;
    memmove(victim, victim + 1, (buffers->large_count - at) * sizeof *victim);
}

void cl_buffers_trim(cl_buffers *buffers)
{
    assert(buffers != NULL);
    while (buffers->large_count > 0)
        large_drop(buffers, 0);
    for (uint32_t class = 0; class < CL_BUFFERS_CLASSES; class++) {
        while (buffers->free[class] != NULL) {
            cl_free_buffer *next = buffers->free[class]->next;
            free(buffers->free[class]);
            buffers->free[class] = next;
        }
        buffers->bytes_kept -= buffers->free_count[class] * class_bytes[class];
        buffers->free_count[class] = 0;
    }
    assert(buffers->bytes_kept == 0);
}

static uint32_t large_find(const cl_buffers *buffers, uint64_t size)
{
    for (uint32_t at = buffers->large_count; at > 0; at--) {
        uint64_t capacity = buffers->large[at - 1].capacity;
        if (capacity >= size && capacity / KEPT_RATIO_MAX <= size)
            return at - 1;
    }
    return CL_BUFFERS_LARGE_KEPT_MAX;
}

bool cl_buffers_keep(const cl_buffers *buffers, uint64_t size)
{
    assert(buffers != NULL);
    return large_find(buffers, size) < CL_BUFFERS_LARGE_KEPT_MAX;
}

static cl_buffer small_take(cl_buffers *buffers, uint32_t class)
{
    cl_buffer taken = {.memory = (uint8_t *)buffers->free[class], .capacity = class_bytes[class]};
    if (taken.memory == NULL) {
        taken.memory = malloc(taken.capacity);
        return taken;
    }
    buffers->free[class] = buffers->free[class]->next;
    buffers->free_count[class]--;
    buffers->bytes_kept -= taken.capacity;
    return taken;
}

static cl_buffer large_take(cl_buffers *buffers, uint64_t size)
{
    uint32_t found = large_find(buffers, size);
    if (found < CL_BUFFERS_LARGE_KEPT_MAX) {
        cl_buffer kept = buffers->large[found];
        buffers->bytes_kept -= kept.capacity;
        buffers->large_count--;
        memmove(&buffers->large[found], &buffers->large[found + 1],
                (buffers->large_count - found) * sizeof kept);
        return kept;
    }
    cl_buffer made = {.capacity = cl_round_up(size, LARGE_UNIT)};
    void *memory = mmap(NULL, made.capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0);
    made.memory = memory == MAP_FAILED ? NULL : memory;
    return made;
}

/* Keep memory that nobody holds any more, or give it back to the system. */
static void give_back(cl_buffers *buffers, cl_buffer buffer)
{
    uint32_t class = class_of(buffer.capacity);
    if (class < CL_BUFFERS_CLASSES) {
        if (buffers->free_count[class] == class_kept_max[class]) {
            free(buffer.memory);
            return;
        }
        cl_free_buffer *node = (cl_free_buffer *)(void *)buffer.memory;
        node->next = buffers->free[class];
        buffers->free[class] = node;
        buffers->free_count[class]++;
        buffers->bytes_kept += buffer.capacity;
        return;
    }
    if (buffers->large_count == CL_BUFFERS_LARGE_KEPT_MAX)
        large_drop(buffers, 0);
    buffers->large[buffers->large_count++] = buffer;
    buffers->bytes_kept += buffer.capacity;
    while (buffers->large_count > 0 && buffers->bytes_kept > LARGE_BYTES_KEPT_MAX)
        large_drop(buffers, 0);
}

/* Kept memory counts, too: it makes way for what is in use. */
static void make_way(cl_buffers *buffers)
{
    while (buffers->large_count > 0 &&
           buffers->bytes_held + buffers->bytes_kept > buffers->bytes_max)
        large_drop(buffers, 0);
}

/* A map becomes larger without its bytes being copied. */
static int large_grow(cl_buffers *buffers, cl_buffer *buffer, uint64_t size)
{
    uint64_t capacity = cl_round_up(size, LARGE_UNIT);
    void *memory = mremap(buffer->memory, buffer->capacity, capacity, MREMAP_MAYMOVE);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    buffers->bytes_held += capacity - buffer->capacity;
    buffer->memory = memory;
    buffer->capacity = capacity;
    make_way(buffers);
    return 0;
}

/* What will be given for size: a kept map may be larger than a new one. */
static uint64_t capacity_for(const cl_buffers *buffers, uint32_t class, uint64_t size)
{
    assert(size > 0);
    if (class < CL_BUFFERS_CLASSES)
        return class_bytes[class];
    uint32_t kept = large_find(buffers, size);
    if (kept < CL_BUFFERS_LARGE_KEPT_MAX)
        return buffers->large[kept].capacity;
    return cl_round_up(size, LARGE_UNIT);
}

bool cl_buffers_fit(const cl_buffers *buffers, const cl_buffer *buffer, uint64_t size)
{
    assert(buffers != NULL);
    assert(buffer != NULL);
    uint64_t capacity = capacity_for(buffers, class_of(size), size);
    uint64_t held = buffers->bytes_held - buffer->capacity + capacity;
    return held <= buffers->bytes_max || capacity <= CL_BUFFER_SMALL;
}

int cl_buffer_resize(cl_buffers *buffers, cl_buffer *buffer, uint64_t at, uint64_t used,
                     uint64_t size, bool beyond)
{
    assert(buffers != NULL);
    assert(buffer != NULL);
    assert(at + used <= buffer->capacity);
    assert(used <= size);
    uint32_t class = class_of(size);
    if (!beyond && !cl_buffers_fit(buffers, buffer, size))
        return -ENOBUFS;
    bool grows = class_of(buffer->capacity) == CL_BUFFERS_CLASSES && size > buffer->capacity;
    if (grows && at == 0 && !cl_buffers_keep(buffers, size))
        return large_grow(buffers, buffer, size);

    cl_buffer taken = class < CL_BUFFERS_CLASSES ? small_take(buffers, class)
                                                 : large_take(buffers, size);
    if (taken.memory == NULL)
        return -ENOMEM;
    if (used > 0)
        memcpy(taken.memory, buffer->memory + at, used);
    if (buffer->memory != NULL)
        cl_buffer_release(buffers, buffer);
    *buffer = taken;
    buffers->bytes_held += taken.capacity;
    make_way(buffers);
    return 0;
}

void cl_buffer_release(cl_buffers *buffers, cl_buffer *buffer)
{
    assert(buffers != NULL);
    assert(buffer->memory != NULL);
    assert(buffers->bytes_held >= buffer->capacity);
    buffers->bytes_held -= buffer->capacity;
    give_back(buffers, *buffer);
    *buffer = (cl_buffer){0};
}
