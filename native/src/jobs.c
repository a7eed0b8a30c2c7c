/* The disk jobs, one function each; core.cdef.h says what they promise. */
#include "jobs.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "directories.h"
#include "entries.h"

#define ROWS_PER_READ 128u /* one block of rows: below that, reading beats searching */
#define TEMPORARY_SUFFIX ".new"

static const char *path_after(const char *path)
{
    return path + strlen(path) + 1;
}

static int sync_data(int fd)
{
    while (fdatasync(fd) != 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int run_write(cl_files *files, const cl_task *task, cl_done *done)
{
    const cl_job *words = &task->words;
    bool durable = (words->flags & CL_WRITE_DSYNC) != 0;
    cl_open_kind kind = CL_OPEN_WRITE;
    if (words->flags & CL_WRITE_DIRECT)
        kind = durable ? CL_OPEN_DIRECT_DSYNC : CL_OPEN_DIRECT;
    int status = 0;
    bool create = (words->flags & CL_WRITE_CREATE) != 0;
    cl_file *file = cl_files_open(files, task->paths, kind, create, &status);
    if (file == NULL)
        return status;

    uint64_t written;
    status = cl_file_write(files, file, task->parts, task->part_count, words->position, &written);
    done->values[0] = (int64_t)written;
    if (status == 0 && words->size >= 0 && ftruncate(file->fd, words->size) != 0)
        status = -errno;
    bool is_durable = kind == CL_OPEN_DIRECT_DSYNC && file->direct && words->size < 0;
    if (status == 0 && durable && !is_durable)
        status = sync_data(file->fd);
    return status;
}

static int run_read(cl_files *files, const cl_task *task, cl_done *done)
{
    const cl_job *words = &task->words;
    int status = 0;
    cl_file *file = cl_files_open(files, task->paths, CL_OPEN_READ, false, &status);
    if (file == NULL)
        return status;
    uint64_t size = (uint64_t)words->size, got;
    status = cl_file_read(file, cl_pointer(words->address), size, words->position, &got);
    done->values[0] = (int64_t)got;
    if (status == 0 && got < size && !(words->flags & CL_READ_PARTIAL))
        return -EIO; /* whoever asked knows that the file is longer */
    return status;
}

/* Read count rows from row `from` on; the file's first row is its header. */
static int rows_read(const cl_file *file, uint8_t *rows, uint64_t from, uint64_t count)
{
    uint64_t got, size = count * CL_ENTRY_ROW_BYTES;
    int status = cl_file_read(file, rows, size, (from + 1) * CL_ENTRY_ROW_BYTES, &got);
    if (status < 0)
        return status;
    return got == size ? 0 : -EIO;
}

/* The first row that matches: halve down to a block of rows by single reads, search that. */
static int row_find(const cl_file *file, const cl_job *words, uint64_t *found)
{
    uint8_t rows[ROWS_PER_READ * CL_ENTRY_ROW_BYTES];
    uint64_t low = 0, high = words->row_count;
    while (high - low > ROWS_PER_READ) {
        uint64_t middle = low + (high - low) / 2;
        int status = rows_read(file, rows, middle, 1);
        if (status < 0)
            return status;
        if (cl_entries_row_matches(rows, words->column, words->key))
            high = middle;
        else
            low = middle + 1;
    }
    int status = rows_read(file, rows, low, high - low);
    if (status < 0)
        return status;
    *found = low + cl_entries_first(rows, high - low, words->column, words->key);
    return 0;
}

/* Where the entry of a row starts in the log: where the one before it ends. */
static int row_start(const cl_file *file, uint64_t row, uint64_t *start)
{
    cl_entry_row before;
    *start = 0;
    if (row == 0)
        return 0;
    int status = rows_read(file, (uint8_t *)&before, row - 1, 1);
    *start = before.end_position;
    return status;
}

static int run_search_read(cl_files *files, const cl_task *task, cl_done *done)
{
    const cl_job *words = &task->words;
    int status = 0;
    cl_file *entries = cl_files_open(files, task->paths, CL_OPEN_READ, false, &status);
    if (entries == NULL)
        return status;
    uint64_t row = 0, start = 0, got = 0;
    status = row_find(entries, words, &row);
    done->values[0] = (int64_t)row;
    if (status < 0 || row == words->row_count)
        return status;
    status = row_start(entries, row, &start);
    done->values[1] = (int64_t)start;
    if (status < 0 || start >= words->log_bytes)
        return status;

    cl_file *log = cl_files_open(files, path_after(task->paths), CL_OPEN_READ, false, &status);
    if (log == NULL)
        return status;
    uint64_t size = words->log_bytes - start;
    if (size > (uint64_t)words->size)
        size = (uint64_t)words->size;
    status = cl_file_read(log, cl_pointer(words->address), size, start, &got);
    done->values[2] = (int64_t)got;
    return status == 0 && got < size ? -EIO : status;
}

static int run_sync(cl_files *files, const cl_task *task)
{
    const char *path = task->paths;
    for (uint32_t at = 0; at < task->path_count; at++, path = path_after(path)) {
        int status = 0;
        cl_file *file = cl_files_open(files, path, CL_OPEN_READ, false, &status);
        if (file == NULL)
            return status;
        status = sync_data(file->fd);
        if (status == 0)
            status = cl_directories_sync(files->directory, path);
        if (status < 0)
            return status;
    }
    return 0;
}

static int run_sync_filesystem(cl_files *files, const cl_task *task)
{
    int fd = openat(files->directory, task->paths, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int status = syncfs(fd) == 0 ? 0 : -errno;
    close(fd);
    return status;
}

/* Fill an open temporary file with zeros and make them durable. */
static int zeros_write(cl_files *files, cl_file *file, const cl_task *task)
{
    uint64_t size = (uint64_t)task->words.size;
    for (uint64_t at = 0; at < size; at += CL_ZEROS_BYTES) {
        uint64_t rest = size - at, written;
        cl_part part = {.address = (uint64_t)(uintptr_t)task->zeros, .size = CL_ZEROS_BYTES};
        if (rest < part.size)
            part.size = rest;
        int status = cl_file_write(files, file, &part, 1, at, &written);
        if (status < 0)
            return status;
    }
    if (ftruncate(file->fd, task->words.size) != 0)
        return -errno;
    return fsync(file->fd) == 0 ? 0 : -errno;
}

static int run_zerofill(cl_files *files, const cl_task *task)
{
    char temporary[CL_PATH_BYTES_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s" TEMPORARY_SUFFIX, task->paths);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return -ENAMETOOLONG;
    int status = 0;
    cl_file *file = cl_files_open(files, temporary, CL_OPEN_DIRECT, true, &status);
    if (file == NULL)
        return status;
    status = zeros_write(files, file, task);
    cl_files_forget(files, temporary);
    if (status == 0 && renameat(files->directory, temporary, files->directory, task->paths) != 0)
        status = -errno;
    if (status == 0)
        return cl_directories_sync(files->directory, task->paths);
    unlinkat(files->directory, temporary, 0); /* the room it took may be what is missing */
    return status;
}

static int run_write_file(cl_files *files, const cl_task *task, cl_done *done)
{
    int status = 0;
    bool is_new = faccessat(files->directory, task->paths, F_OK, 0) != 0;
    cl_file *file = cl_files_open(files, task->paths, CL_OPEN_WRITE, true, &status);
    if (file == NULL)
        return status;
    uint64_t written;
    status = cl_file_write(files, file, task->parts, task->part_count, 0, &written);
    done->values[0] = (int64_t)written;
    if (status == 0 && ftruncate(file->fd, (off_t)written) != 0)
        status = -errno;
    if (status == 0)
        status = sync_data(file->fd);
    if (status == 0 && is_new)
        status = cl_directories_sync(files->directory, task->paths);
    return status;
}

static int unlink_one(cl_files *files, const char *path)
{
    cl_files_forget(files, path);
    if (unlinkat(files->directory, path, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return -errno;
    if (unlinkat(files->directory, path, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    return errno == ENOTEMPTY ? 0 : -errno;
}

static int run_unlink(cl_files *files, const cl_task *task)
{
    const char *path = task->paths;
    int first_failure = 0;
    for (uint32_t at = 0; at < task->path_count; at++, path = path_after(path)) {
        int status = unlink_one(files, path);
        if (first_failure == 0)
            first_failure = status; /* the others need not stay because of it */
    }
    return first_failure;
}

static int run_rename(cl_files *files, const cl_task *task)
{
    const char *from = task->paths, *to = path_after(from);
    cl_files_forget(files, from);
    cl_files_forget(files, to);
    if (renameat(files->directory, from, files->directory, to) != 0)
        return -errno;
    return cl_directories_sync(files->directory, to);
}

static bool is_same_file(const cl_files *files, const char *one, const char *other)
{
    struct stat first, second;
    if (fstatat(files->directory, one, &first, AT_SYMLINK_NOFOLLOW) != 0 ||
        fstatat(files->directory, other, &second, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

static int link_once(const cl_files *files, const char *from, const char *to)
{
    return linkat(files->directory, from, files->directory, to, 0) == 0 ? 0 : -errno;
}

static int link_one(cl_files *files, const char *from, const char *to)
{
    int status = link_once(files, from, to);
    if (status == -ENOENT) { /* of the file, or of the directory it goes to */
        status = cl_directories_make(files->directory, to, false);
        if (status == 0)
            status = link_once(files, from, to);
    }
    if (status != -EEXIST)
        return status;
    if (is_same_file(files, from, to))
        return 0; /* done before, and not known: whoever did it died */
    cl_files_forget(files, to);
    if (unlinkat(files->directory, to, 0) != 0)
        return -errno;
    return link_once(files, from, to);
}

static bool is_same_directory(const char *one, const char *other)
{
    const char *first = strrchr(one, '/'), *second = strrchr(other, '/');
    if (first == NULL || second == NULL)
        return first == second;
    return first - one == second - other && memcmp(one, other, (size_t)(first - one)) == 0;
}

static int run_link(cl_files *files, const cl_task *task)
{
    const char *from = task->paths, *synced = NULL;
    for (uint32_t at = 0; at < task->path_count; at += 2) {
        const char *to = path_after(from);
        int status = link_one(files, from, to);
        if (status < 0)
            return status;
        from = path_after(to);
    }
    from = task->paths;
    for (uint32_t at = 0; at < task->path_count; at += 2) {
        const char *to = path_after(from);
        int status = 0;
        if (synced == NULL || !is_same_directory(synced, to))
            status = cl_directories_sync(files->directory, to);
        if (status < 0)
            return status;
        synced = to;
        from = path_after(to);
    }
    return 0;
}

static int run_make_directory(cl_files *files, const cl_task *task)
{
    int status = cl_directories_make(files->directory, task->paths, true);
    return status < 0 ? status : cl_directories_sync(files->directory, task->paths);
}

static int run_truncate(cl_files *files, const cl_task *task)
{
    int status = 0;
    cl_file *file = cl_files_open(files, task->paths, CL_OPEN_WRITE, false, &status);
    if (file == NULL)
        return status;
    if (ftruncate(file->fd, task->words.size) != 0)
        return -errno;
    return sync_data(file->fd);
}

static int run_forget(cl_files *files, const cl_task *task)
{
    const char *path = task->paths;
    for (uint32_t at = 0; at < task->path_count; at++, path = path_after(path))
        cl_files_forget(files, path);
    return 0;
}

static int run(cl_files *files, const cl_task *task, cl_done *done)
{
    switch (task->words.op) {
    case CL_JOB_WRITE:
        return run_write(files, task, done);
    case CL_JOB_READ:
        return run_read(files, task, done);
    case CL_JOB_SEARCH_READ:
        return run_search_read(files, task, done);
    case CL_JOB_SYNC:
        return run_sync(files, task);
    case CL_JOB_SYNC_FILESYSTEM:
        return run_sync_filesystem(files, task);
    case CL_JOB_ZEROFILL:
        return run_zerofill(files, task);
    case CL_JOB_WRITE_FILE:
        return run_write_file(files, task, done);
    case CL_JOB_UNLINK:
        return run_unlink(files, task);
    case CL_JOB_RENAME:
        return run_rename(files, task);
    case CL_JOB_MAKE_DIRECTORY:
        return run_make_directory(files, task);
    case CL_JOB_TRUNCATE:
        return run_truncate(files, task);
    case CL_JOB_FORGET:
        return run_forget(files, task);
    case CL_JOB_LINK:
        return run_link(files, task);
    default:
        return -EINVAL;
    }
}

void cl_task_run(cl_files *files, const cl_task *task, cl_done *done)
{
    assert(files != NULL);
    assert(task != NULL);
    assert(done != NULL);
    *done = (cl_done){.job = task->words.job, .op = task->words.op};
    done->result = run(files, task, done);
    assert(done->result <= 0);
}
