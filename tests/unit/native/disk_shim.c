/* Preloaded under the C core by test_worker_faults.py: makes disk calls misbehave as the variable
 * SHIM says, on files whose name contains "shim", and logs their order to the file SHIM_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int calls;

static int told(const char *fault)
{
    const char *shim = getenv("SHIM");
    return shim != NULL && strcmp(shim, fault) == 0;
}

static int is_ours(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = '\0';
    return strstr(path, "shim") != NULL;
}

static void note(const char *call, int fd, long long result)
{
    const char *name = getenv("SHIM_LOG");
    if (name == NULL || !is_ours(fd))
        return;
    int log = open(name, O_WRONLY | O_APPEND | O_CREAT, 0600);
    dprintf(log, "%s %lld\n", call, result);
    close(log);
}

ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t position)
{
    static ssize_t (*real)(int, const struct iovec *, int, off_t);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "pwritev");
    ssize_t done;
    calls++;
    errno = 0;
    if (is_ours(fd) && told("write-eio"))
        done = -1, errno = EIO;
    else if (is_ours(fd) && told("write-einval") && (fcntl(fd, F_GETFL) & O_DIRECT))
        done = -1, errno = EINVAL;
    else if (is_ours(fd) && told("write-eintr") && calls % 2 == 1)
        done = -1, errno = EINTR;
    else if (is_ours(fd) && told("write-stuck"))
        done = 0;
    else if (is_ours(fd) && told("write-short")) {
        struct iovec part = vector[0];
        size_t step = fcntl(fd, F_GETFL) & O_DIRECT ? 8192 : 1000;
        if (part.iov_len > step)
            part.iov_len = step;
        done = real(fd, &part, 1, position);
    } else
        done = real(fd, vector, count, position);
    int error = errno;
    note("pwritev", fd, done < 0 ? -error : done);
    errno = error;
    return done;
}

ssize_t pread(int fd, void *to, size_t size, off_t position)
{
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "pread");
    calls++;
    if (is_ours(fd) && told("read-eio")) {
        errno = EIO;
        return -1;
    }
    if (is_ours(fd) && told("read-short")) {
        if (calls % 3 == 0) {
            errno = EINTR;
            return -1;
        }
        if (size > 7)
            size = 7;
    }
    return real(fd, to, size, position);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    int done = is_ours(fd) && told("sync-eio") ? -1 : real(fd);
    int error = told("sync-eio") ? EIO : errno;
    note("fdatasync", fd, done < 0 ? -error : done);
    errno = error;
    return done;
}

int fsync(int fd)
{
    static int (*real)(int);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    int done = is_ours(fd) && told("sync-eio") ? -1 : real(fd);
    int error = told("sync-eio") ? EIO : errno;
    note("fsync", fd, done < 0 ? -error : done);
    errno = error;
    return done;
}
