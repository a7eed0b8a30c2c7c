/* Receive memory: buffers in a few sizes, kept warm for the next frame. */
#ifndef BUFFERS_H
#define BUFFERS_H

#include "core.h"

#define CL_BUFFER_TINY 512u             /* what a connection with a few bytes keeps */
#define CL_BUFFER_SMALL (16u * 1024u)   /* what every connection may always have */
#define CL_BUFFER_BASE (64u * 1024u)    /* what a connection is read into */
#define CL_BUFFERS_LARGE_KEPT_MAX 8u
#define CL_BUFFERS_CLASSES 3u

typedef struct {
    uint8_t *memory; /* NULL: none */
    uint64_t capacity;
} cl_buffer;

typedef struct cl_free_buffer {
    struct cl_free_buffer *next;
} cl_free_buffer;

typedef struct {
    uint64_t bytes_max;
    uint64_t bytes_held; /* by connections */
    uint64_t bytes_kept; /* by us, for the next one */
    cl_free_buffer *free[CL_BUFFERS_CLASSES];
    uint32_t free_count[CL_BUFFERS_CLASSES];
    cl_buffer large[CL_BUFFERS_LARGE_KEPT_MAX]; /* the last one was given back last */
    uint32_t large_count;
} cl_buffers;

void cl_buffers_init(cl_buffers *buffers, uint64_t bytes_max);
/* Give what is kept, but not held, back to the system. */
void cl_buffers_trim(cl_buffers *buffers);

/* Whether a kept buffer for size bytes waits: taking it maps no new memory. */
bool cl_buffers_keep(const cl_buffers *buffers, uint64_t size);

/* Whether cl_buffer_resize would stay below the limit. */
bool cl_buffers_fit(const cl_buffers *buffers, const cl_buffer *buffer, uint64_t size);

/* Give buffer at least size bytes of memory, and move its bytes at..at+used to the beginning.
 * Above bytes_max only CL_BUFFER_SMALL is given, unless beyond says that this one may go further.
 * Returns 0; -ENOBUFS at the limit, -ENOMEM from the system: then nothing has changed. */
int cl_buffer_resize(cl_buffers *buffers, cl_buffer *buffer, uint64_t at, uint64_t used,
                     uint64_t size, bool beyond);

void cl_buffer_release(cl_buffers *buffers, cl_buffer *buffer);

#endif
