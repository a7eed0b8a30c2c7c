/* Directories on the way to a path; see directories.h. */
#include "directories.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

#define DIRECTORY_MODE 0750

/* Absolute paths are synced this many levels up: the rest was there before we were. */
#define LEVELS_ABSOLUTE_MAX 3

static int make_one(int directory, const char *path)
{
    if (mkdirat(directory, path, DIRECTORY_MODE) == 0 || errno == EEXIST)
        return 0;
    return -errno;
}

int cl_directories_make(int directory, const char *path, bool whole)
{
    char prefix[CL_PATH_BYTES_MAX];
    size_t length = strlen(path);
    assert(length > 0);
    assert(length < sizeof prefix);
    for (size_t at = 1; at < length; at++) {
        if (path[at] != '/')
            continue;
        memcpy(prefix, path, at);
        prefix[at] = '\0';
        int status = make_one(directory, prefix);
        if (status < 0)
            return status;
    }
    return whole ? make_one(directory, path) : 0;
}

static int sync_one(int directory, const char *path)
{
    int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int status = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return status;
}

int cl_directories_sync(int directory, const char *path)
{
    char prefix[CL_PATH_BYTES_MAX];
    assert(strlen(path) < sizeof prefix);
    strcpy(prefix, path);
    for (int level = 0; level < LEVELS_ABSOLUTE_MAX || path[0] != '/'; level++) {
        char *slash = strrchr(prefix, '/');
        if (slash == NULL)
            return sync_one(directory, ".");
        if (slash == prefix)
            return sync_one(directory, "/");
        *slash = '\0';
        int status = sync_one(directory, prefix);
        if (status < 0)
            return status;
    }
    return 0;
}
