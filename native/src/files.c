/* A bounded cache of open files by path.
 *
 * A hit is believed only while the path still names the same inode: files are renamed and removed
 * by other threads, and a write into an unlinked WAL file would be a lost acknowledgement. The
 * check is one fstatat, well under a microsecond beside a write of 80. */
#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "directories.h"

#define FILE_MODE 0640
#define VECTOR_MAX 64
#define STUCK_MAX 16 /* writes in a row that end inside the same block */

void cl_files_init(cl_files *files, int directory)
{
    assert(files != NULL);
    memset(files, 0, sizeof *files);
    files->directory = directory;
    for (uint32_t at = 0; at < CL_FILES_OPEN_MAX; at++)
        files->files[at].fd = -1;
}

static void file_close(cl_file *file)
{
    assert(file->fd >= 0);
    close(file->fd); /* what must be durable was synced before */
    file->fd = -1;
}

void cl_files_close(cl_files *files)
{
    assert(files != NULL);
    for (uint32_t at = 0; at < CL_FILES_OPEN_MAX; at++)
        if (files->files[at].fd >= 0)
            file_close(&files->files[at]);
}

/* FNV-1a: a path is compared only where its hash agrees. */
static uint64_t path_hash(const char *path)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *at = path; *at != '\0'; at++)
        hash = (hash ^ (uint8_t)*at) * 0x100000001b3u;
    return hash;
}

static bool is_same_inode(const cl_files *files, const cl_file *file, const char *path)
{
    struct stat now;
    if (fstatat(files->directory, path, &now, 0) != 0)
        return false;
    return now.st_dev == file->device && now.st_ino == file->inode;
}

static int open_flags(cl_open_kind kind)
{
    switch (kind) {
    case CL_OPEN_READ:
        return O_RDONLY;
    case CL_OPEN_WRITE:
        return O_RDWR;
    case CL_OPEN_DIRECT:
        return O_WRONLY | O_DIRECT;
    case CL_OPEN_DIRECT_DSYNC:
        return O_WRONLY | O_DIRECT | O_DSYNC;
    }
    assert(false);
    return -1;
}

static int open_once(const cl_files *files, const char *path, int flags)
{
    for (;;) {
        int fd = openat(files->directory, path, flags | O_CLOEXEC, FILE_MODE);
        if (fd >= 0)
            return fd;
        if (errno != EINTR)
            return -errno;
    }
}

/* Open, leaving out O_DIRECT (and with it O_DSYNC: fdatasync follows then) where it is refused. */
static int open_path(const cl_files *files, const char *path, cl_open_kind kind, bool create,
                     bool *direct)
{
    int flags = open_flags(kind);
    int fd = open_once(files, path, flags);
    if (fd == -ENOENT && create) {
        int status = cl_directories_make(files->directory, path, false);
        if (status < 0)
            return status;
        flags |= O_CREAT;
        fd = open_once(files, path, flags);
    }
    *direct = (flags & O_DIRECT) != 0;
    if (fd == -EINVAL && *direct) {
        *direct = false;
        fd = open_once(files, path, flags & ~(O_DIRECT | O_DSYNC));
    }
    return fd;
}

static cl_file *slot_for_new(cl_files *files)
{
    cl_file *oldest = &files->files[0];
    for (uint32_t at = 0; at < CL_FILES_OPEN_MAX; at++) {
        cl_file *file = &files->files[at];
        if (file->fd < 0)
            return file;
        if (file->used < oldest->used)
            oldest = file;
    }
    file_close(oldest);
    return oldest;
}

static cl_file *find(cl_files *files, const char *path, uint64_t hash, cl_open_kind kind)
{
    for (uint32_t at = 0; at < CL_FILES_OPEN_MAX; at++) {
        cl_file *file = &files->files[at];
        if (file->fd >= 0 && file->hash == hash && file->kind == kind &&
            strcmp(file->path, path) == 0)
            return file;
    }
    return NULL;
}

cl_file *cl_files_open(cl_files *files, const char *path, cl_open_kind kind, bool create,
                       int *error)
{
    assert(files != NULL);
    assert(strlen(path) < CL_PATH_BYTES_MAX);
    uint64_t hash = path_hash(path);
    cl_file *file = find(files, path, hash, kind);
    if (file != NULL && is_same_inode(files, file, path)) {
        file->used = ++files->clock;
        return file;
    }
    if (file != NULL)
        file_close(file);

    bool direct;
    struct stat now;
    int fd = open_path(files, path, kind, create, &direct);
    if (fd < 0) {
        *error = fd;
        return NULL;
    }
    if (fstat(fd, &now) != 0) {
        *error = -errno;
        close(fd);
        return NULL;
    }
    file = slot_for_new(files);
    file->fd = fd;
    file->kind = kind;
    file->direct = direct;
    file->device = now.st_dev;
    file->inode = now.st_ino;
    file->used = ++files->clock;
    file->hash = hash;
    strcpy(file->path, path);
    return file;
}

void cl_files_forget(cl_files *files, const char *path)
{
    assert(files != NULL);
    uint64_t hash = path_hash(path);
    for (uint32_t at = 0; at < CL_FILES_OPEN_MAX; at++) {
        cl_file *file = &files->files[at];
        if (file->fd >= 0 && file->hash == hash && strcmp(file->path, path) == 0)
            file_close(file);
    }
}

/* Some file systems take O_DIRECT at open and refuse the blocks at the first write. */
static int fall_back(const cl_files *files, cl_file *file)
{
    assert(file->direct);
    int fd = open_once(files, file->path, O_WRONLY);
    if (fd < 0)
        return fd;
    close(file->fd);
    file->fd = fd;
    file->direct = false;
    return 0;
}

/* Fill vector with the bytes of parts from byte `skip` on; returns how many elements it has. */
static int vector_fill(struct iovec *vector, const cl_part *parts, uint32_t part_count,
                       uint64_t skip)
{
    int count = 0;
    for (uint32_t at = 0; at < part_count && count < VECTOR_MAX; at++) {
        if (skip >= parts[at].size) {
            skip -= parts[at].size;
            continue;
        }
        vector[count].iov_base = cl_pointer(parts[at].address) + skip;
        vector[count].iov_len = parts[at].size - skip;
        skip = 0;
        count++;
    }
    return count;
}

int cl_file_write(cl_files *files, cl_file *file, const cl_part *parts, uint32_t part_count,
                  uint64_t position, uint64_t *written)
{
    assert(file != NULL);
    assert(parts != NULL || part_count == 0);
    struct iovec vector[VECTOR_MAX];
    uint64_t size = 0;
    int stuck = 0;
    for (uint32_t at = 0; at < part_count; at++)
        size += parts[at].size;
    *written = 0;
    for (;;) {
        int count = vector_fill(vector, parts, part_count, *written);
        if (count == 0)
            return 0;
        ssize_t done = pwritev(file->fd, vector, count, (off_t)(position + *written));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EINVAL && file->direct) {
            int status = fall_back(files, file);
            if (status < 0)
                return status;
            continue;
        }
        if (done < 0)
            return -errno;
        uint64_t step = (uint64_t)done;
        if (file->direct && *written + step < size)
            step -= step % CL_BLOCK_BYTES; /* a direct write cannot go on inside a block */
        stuck = step == 0 ? stuck + 1 : 0;
        if (stuck == STUCK_MAX)
            return -EIO;
        *written += step;
    }
}

int cl_file_read(const cl_file *file, uint8_t *to, uint64_t size, uint64_t position,
                 uint64_t *done)
{
    assert(file != NULL);
    assert(to != NULL || size == 0);
    *done = 0;
    while (*done < size) {
        uint64_t rest = size - *done;
        uint64_t wanted = rest < CL_READ_SLICE_BYTES ? rest : CL_READ_SLICE_BYTES;
        ssize_t got = pread(file->fd, to + *done, wanted, (off_t)(position + *done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        *done += (uint64_t)got;
    }
    return 0;
}
