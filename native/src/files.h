/* The files a worker keeps open, and the loops that write and read them to the end. */
#ifndef FILES_H
#define FILES_H

#include "core.h"

#define CL_PATH_BYTES_MAX 512u
#define CL_FILES_OPEN_MAX 128u
#define CL_READ_SLICE_BYTES (128u * 1024u) /* a kernel without preemption copies it to the end */

typedef enum { CL_OPEN_READ, CL_OPEN_WRITE, CL_OPEN_DIRECT, CL_OPEN_DIRECT_DSYNC } cl_open_kind;

typedef struct {
    int fd; /* -1: the slot is empty */
    cl_open_kind kind;
    bool direct; /* false for a direct kind: the file system refused O_DIRECT */
    uint64_t device;
    uint64_t inode;
    uint64_t used; /* the cache's clock when it was last asked for */
    uint64_t hash;
    char path[CL_PATH_BYTES_MAX];
} cl_file;

/* Not for two threads at a time. */
typedef struct {
    int directory; /* what relative paths start at */
    uint64_t clock;
    cl_file files[CL_FILES_OPEN_MAX];
} cl_files;

void cl_files_init(cl_files *files, int directory);
void cl_files_close(cl_files *files);

/* The open file for path, opened now if need be; the least recently used one makes room. A file
 * that was replaced or removed under the same name is noticed and opened anew. With create, an
 * absent file and its directories are made. Returns NULL with *error. */
cl_file *cl_files_open(cl_files *files, const char *path, cl_open_kind kind, bool create,
                       int *error);

/* Close what is open of path, of any kind. */
void cl_files_forget(cl_files *files, const char *path);

/* Write all parts at position: short writes and EINTR are continued; a direct file whose blocks
 * turn out to be refused is written buffered. *written counts what is surely in the file. */
int cl_file_write(cl_files *files, cl_file *file, const cl_part *parts, uint32_t part_count,
                  uint64_t position, uint64_t *written);

/* Read up to size bytes; *done is less only at the end of the file. */
int cl_file_read(const cl_file *file, uint8_t *to, uint64_t size, uint64_t position,
                 uint64_t *done);

#endif
