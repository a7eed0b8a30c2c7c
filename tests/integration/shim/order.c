/* Records, in one total order, what a process writes to its write-ahead log and what it sends.
 *
 * Preloaded into a broker (LD_PRELOAD). Every event takes a number from one counter:
 *   a write or sync of a WAL file takes it AFTER the system call has returned,
 *   a send to a stream socket takes it BEFORE the system call is made.
 * So if an answer has a lower number than the write of its batch, it left too early; a right
 * build can never show that, however its threads run. SHIM_WRITE_DELAY_US holds every WAL write
 * back before it reaches the kernel, so that an early answer has the time to be early.
 *
 * SHIM_FAIL_WRITE=n answers the n-th WAL write of each process with EIO, without doing it.
 *
 * Events go to <SHIM_LOG>.<pid>:
 * { u64 number, u32 kind, i32 fd, u64 size, u64 flags } + size bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KIND_WRITE = 1, KIND_SYNC = 2, KIND_SEND = 3 };
enum { FLAG_DSYNC = 1, FLAG_FAILED = 2 };

struct event {
    uint64_t number;
    uint32_t kind;
    int32_t fd;
    uint64_t size;
    uint64_t flags;
};

static atomic_uint_fast64_t counter;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static pid_t log_pid;
static long delay_us = -1;

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL)
        abort();
    return function;
}

static uint64_t next_number(void)
{
    return atomic_fetch_add(&counter, 1) + 1;
}

static void raw_write(const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        long written = syscall(SYS_write, log_fd, at, size);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            abort();
        }
        at += written;
        size -= (size_t)written;
    }
}

static void record(uint64_t number, uint32_t kind, int fd, uint64_t flags,
                   const struct iovec *parts, size_t part_count, size_t size)
{
    const char *prefix = getenv("SHIM_LOG");
    if (prefix == NULL)
        return;
    int saved_errno = errno;
    pthread_mutex_lock(&lock);
    if (log_fd < 0 || log_pid != getpid()) { /* a fork has its own log */
        char path[PATH_MAX];
        log_pid = getpid();
        snprintf(path, sizeof path, "%s.%d", prefix, (int)log_pid);
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, path,
                              O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (log_fd < 0)
            abort();
    }
    struct event event = {number, kind, fd, size, flags};
    raw_write(&event, sizeof event);
    for (size_t i = 0; i < part_count && size > 0; i++) {
        size_t share = parts[i].iov_len < size ? parts[i].iov_len : size;
        raw_write(parts[i].iov_base, share);
        size -= share;
    }
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
}

/* A WAL file lies in a directory called "wal". */
static int is_wal(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return strstr(path, "/wal/") != NULL;
}

static int is_stream(int fd)
{
    struct stat status;
    int domain = 0;
    socklen_t size = sizeof domain;
    if (fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode))
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0)
        return 0;
    return domain == AF_INET || domain == AF_INET6;
}

/* The zero-filling of a new file is no write of records; its bytes would swamp the log. */
static int is_all_zero(const struct iovec *parts, int count)
{
    for (int i = 0; i < count; i++) {
        const unsigned char *data = parts[i].iov_base;
        size_t size = parts[i].iov_len;
        if (size > 0 && (data[0] != 0 || memcmp(data, data + 1, size - 1) != 0))
            return 0;
    }
    return 1;
}

/* Whether this WAL write is to fail: the SHIM_FAIL_WRITE-th of this process, counted from 1. */
static int must_fail(const struct iovec *parts, int count)
{
    static atomic_long writes;
    const char *text = getenv("SHIM_FAIL_WRITE");
    if (text == NULL || is_all_zero(parts, count))
        return 0;
    return atomic_fetch_add(&writes, 1) + 1 == atol(text);
}

static void wait_a_little(void)
{
    if (delay_us < 0) {
        const char *text = getenv("SHIM_WRITE_DELAY_US");
        delay_us = text == NULL ? 0 : atol(text);
    }
    if (delay_us > 0)
        usleep((useconds_t)delay_us);
}

/* What the kernel was really asked for: looked up now, not remembered from open. */
static uint64_t write_flags(int fd, int call_flags, ssize_t result)
{
    uint64_t flags = 0;
    int status = fcntl(fd, F_GETFL);
    if ((status >= 0 && (status & O_DSYNC) == O_DSYNC) || (call_flags & (RWF_DSYNC | RWF_SYNC)))
        flags |= FLAG_DSYNC;
    if (result < 0)
        flags |= FLAG_FAILED;
    return flags;
}

static void written(int fd, int call_flags, const struct iovec *parts, int count, ssize_t result)
{
    size_t size = result > 0 ? (size_t)result : 0;
    if (result >= 0 && is_all_zero(parts, count))
        return;
    uint64_t flags = write_flags(fd, call_flags, result);
    record(next_number(), KIND_WRITE, fd, flags, parts, (size_t)count, size);
}

#define WRITE_BODY(call, flags, parts, count)                                                      \
    if (!is_wal(fd))                                                                               \
        return call;                                                                               \
    wait_a_little();                                                                               \
    if (must_fail(parts, count)) {                                                                 \
        errno = EIO;                                                                               \
        return -1;                                                                                 \
    }                                                                                              \
    ssize_t result = call;                                                                         \
    int saved_errno = errno;                                                                       \
    written(fd, flags, parts, count, result);                                                      \
    errno = saved_errno;                                                                           \
    return result;

typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
typedef ssize_t (*write_t)(int, const void *, size_t);
typedef ssize_t (*writev_t)(int, const struct iovec *, int);
typedef ssize_t (*pwritev_t)(int, const struct iovec *, int, off_t);
typedef ssize_t (*pwritev2_t)(int, const struct iovec *, int, off_t, int);

#define DEFINE_PWRITE(name)                                                                        \
    ssize_t name(int fd, const void *data, size_t size, off_t at)                                  \
    {                                                                                              \
        static pwrite_t next;                                                                      \
        if (next == NULL)                                                                          \
            next = (pwrite_t)real(#name);                                                          \
        struct iovec part = {(void *)(uintptr_t)data, size};                                       \
        WRITE_BODY(next(fd, data, size, at), 0, &part, 1)                                          \
    }
#define DEFINE_PWRITEV(name)                                                                       \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t at)                           \
    {                                                                                              \
        static pwritev_t next;                                                                     \
        if (next == NULL)                                                                          \
            next = (pwritev_t)real(#name);                                                         \
        WRITE_BODY(next(fd, parts, count, at), 0, parts, count)                                    \
    }
#define DEFINE_PWRITEV2(name)                                                                      \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t at, int flags)                \
    {                                                                                              \
        static pwritev2_t next;                                                                    \
        if (next == NULL)                                                                          \
            next = (pwritev2_t)real(#name);                                                        \
        WRITE_BODY(next(fd, parts, count, at, flags), flags, parts, count)                         \
    }

DEFINE_PWRITE(pwrite)
DEFINE_PWRITE(pwrite64)
DEFINE_PWRITEV(pwritev)
DEFINE_PWRITEV(pwritev64)
DEFINE_PWRITEV2(pwritev2)
DEFINE_PWRITEV2(pwritev64v2)

#define DEFINE_SYNC(name)                                                                          \
    int name(int fd)                                                                               \
    {                                                                                              \
        static int (*next)(int);                                                                   \
        if (next == NULL)                                                                          \
            next = (int (*)(int))real(#name);                                                      \
        int is_ours = is_wal(fd);                                                                  \
        int result = next(fd);                                                                     \
        int saved_errno = errno;                                                                   \
        if (is_ours)                                                                               \
            record(next_number(), KIND_SYNC, fd, result == 0 ? 0 : FLAG_FAILED, NULL, 0, 0);       \
        errno = saved_errno;                                                                       \
        return result;                                                                             \
    }

DEFINE_SYNC(fdatasync)
DEFINE_SYNC(fsync)

/* The number is taken before the call; what was really taken by the socket is known after it. */
#define SEND_BODY(call, parts, count)                                                              \
    if (!is_stream(fd))                                                                            \
        return call;                                                                               \
    uint64_t number = next_number();                                                               \
    ssize_t result = call;                                                                         \
    if (result > 0)                                                                                \
        record(number, KIND_SEND, fd, 0, parts, (size_t)(count), (size_t)result);                  \
    return result;

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    static ssize_t (*next)(int, const void *, size_t, int);
    if (next == NULL)
        next = (ssize_t(*)(int, const void *, size_t, int))real("send");
    struct iovec part = {(void *)(uintptr_t)data, size};
    SEND_BODY(next(fd, data, size, flags), &part, 1)
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*next)(int, const struct msghdr *, int);
    if (next == NULL)
        next = (ssize_t(*)(int, const struct msghdr *, int))real("sendmsg");
    SEND_BODY(next(fd, message, flags), message->msg_iov, message->msg_iovlen)
}

ssize_t write(int fd, const void *data, size_t size)
{
    static write_t next;
    if (next == NULL)
        next = (write_t)real("write");
    struct iovec part = {(void *)(uintptr_t)data, size};
    if (is_wal(fd)) {
        WRITE_BODY(next(fd, data, size), 0, &part, 1)
    }
    SEND_BODY(next(fd, data, size), &part, 1)
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    static writev_t next;
    if (next == NULL)
        next = (writev_t)real("writev");
    if (is_wal(fd)) {
        WRITE_BODY(next(fd, parts, count), 0, parts, count)
    }
    SEND_BODY(next(fd, parts, count), parts, count)
}
