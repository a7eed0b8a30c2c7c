/* One thread with a bounded queue of jobs and an eventfd that says when answers wait.
 *
 * A job's slot is free again when its answer is reaped, so the list of answers needs no limit of
 * its own. The eventfd is written only when that list was empty: one wake-up for many answers. That
 * is after the lock was given back, so it may tell of answers that were reaped meanwhile.
 *
 * The files are the runner's: whoever set `busy` under the lock (the thread, or the caller of
 * cl_worker_run) has them until it clears it. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "jobs.h"

#define JOBS_MAX 256
#define PATHS_INLINE_BYTES 512u
#define PARTS_INLINE 16u
#define NAME_BYTES_MAX 16

typedef struct job_slot {
    struct job_slot *next;
    cl_task task;
    cl_done done;
    void *more; /* paths and parts that do not fit below */
    cl_part parts[PARTS_INLINE];
    char paths[PATHS_INLINE_BYTES];
} job_slot;

typedef struct {
    job_slot *first;
    job_slot **last;
} slot_list;

struct cl_worker {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    slot_list queued;
    slot_list answered;
    job_slot *empty;
    bool busy;
    bool stopping;
    int niceness;
    int eventfd;
    uint8_t *zeros;
    cl_files files;
    job_slot slots[JOBS_MAX];
};

static void list_init(slot_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_push(slot_list *list, job_slot *slot)
{
    slot->next = NULL;
    *list->last = slot;
    list->last = &slot->next;
}

static job_slot *list_pop(slot_list *list)
{
    job_slot *slot = list->first;
    assert(slot != NULL);
    list->first = slot->next;
    if (list->first == NULL)
        list->last = &list->first;
    return slot;
}

static void tell(const cl_worker *worker)
{
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(worker->eventfd, &one, sizeof one);
    while (written < 0 && errno == EINTR);
    assert(written == sizeof one); /* it would have to stand at 2^64 - 2 */
}

/* A thread's own priority, though POSIX says the process's. Refused: it is only slower for all. */
static void give_way(int niceness)
{
    id_t self = (id_t)gettid();
    if (niceness > 0)
        setpriority(PRIO_PROCESS, self, getpriority(PRIO_PROCESS, self) + niceness);
}

static void *thread_main(void *argument)
{
    cl_worker *worker = argument;
    give_way(worker->niceness);
    pthread_mutex_lock(&worker->lock);
    for (;;) {
        while ((worker->queued.first == NULL || worker->busy) && !worker->stopping)
            pthread_cond_wait(&worker->wake, &worker->lock);
        if (worker->queued.first == NULL)
            break;
        job_slot *slot = list_pop(&worker->queued);
        worker->busy = true;
        pthread_mutex_unlock(&worker->lock);
        cl_task_run(&worker->files, &slot->task, &slot->done);
        pthread_mutex_lock(&worker->lock);
        worker->busy = false;
        bool is_first = worker->answered.first == NULL;
        list_push(&worker->answered, slot);
        if (!is_first)
            continue;
        pthread_mutex_unlock(&worker->lock);
        tell(worker); /* who is woken wants the lock */
        pthread_mutex_lock(&worker->lock);
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

/* Signals are for Python's thread; SIGXFSZ here would turn a full quota into a death. */
static int thread_start(cl_worker *worker, const char *name, bool unbound)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int status = pthread_create(&worker->thread, NULL, thread_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != 0)
        return -status;
    char short_name[NAME_BYTES_MAX] = {0};
    strncpy(short_name, name, sizeof short_name - 1);
    pthread_setname_np(worker->thread, short_name);
    if (unbound) {
        cpu_set_t every;
        memset(&every, 0xff, sizeof every); /* the kernel keeps what the cgroup allows */
        pthread_setaffinity_np(worker->thread, sizeof every, &every);
    }
    return 0;
}

static int worker_open(cl_worker *worker, const char *directory)
{
    worker->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->eventfd < 0)
        return -errno;
    const char *start = directory[0] != '\0' ? directory : ".";
    int fd = open(start, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    cl_files_init(&worker->files, fd);
    if (posix_memalign((void **)&worker->zeros, CL_BLOCK_BYTES, CL_ZEROS_BYTES) != 0)
        return -ENOMEM;
    memset(worker->zeros, 0, CL_ZEROS_BYTES);
    return 0;
}

static void worker_release(cl_worker *worker)
{
    if (worker->eventfd >= 0)
        close(worker->eventfd);
    if (worker->files.directory >= 0) {
        cl_files_close(&worker->files);
        close(worker->files.directory);
    }
    free(worker->zeros);
    free(worker);
}

cl_worker *cl_worker_new(const char *name, const char *directory, int unbound, int niceness,
                         int *error)
{
    assert(name != NULL);
    assert(directory != NULL);
    assert(error != NULL);
    *error = -ENOMEM;
    cl_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return NULL;
    worker->niceness = niceness;
    worker->eventfd = -1;
    worker->files.directory = -1;
    list_init(&worker->queued);
    list_init(&worker->answered);
    for (int at = JOBS_MAX - 1; at >= 0; at--) {
        worker->slots[at].next = worker->empty;
        worker->empty = &worker->slots[at];
    }
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->wake, NULL);
    *error = worker_open(worker, directory);
    if (*error == 0)
        *error = thread_start(worker, name, unbound != 0);
    if (*error == 0)
        return worker;
    worker_release(worker);
    return NULL;
}

void cl_worker_free(cl_worker *worker)
{
    assert(worker != NULL);
    pthread_mutex_lock(&worker->lock);
    worker->stopping = true;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
    assert(worker->queued.first == NULL);
    while (worker->answered.first != NULL)
        free(list_pop(&worker->answered)->more);
    pthread_cond_destroy(&worker->wake);
    pthread_mutex_destroy(&worker->lock);
    worker_release(worker);
}

int cl_worker_eventfd(const cl_worker *worker)
{
    assert(worker != NULL);
    return worker->eventfd;
}

/* Whether paths holds count NUL-terminated paths of legal length, and nothing else. */
static int paths_check(const char *paths, uint32_t bytes, uint32_t count)
{
    if (bytes == 0 || count == 0 || count > CL_PATHS_PER_JOB_MAX || paths[bytes - 1] != '\0')
        return -EINVAL;
    uint32_t at = 0;
    for (uint32_t path = 0; path < count; path++) {
        if (at >= bytes)
            return -EINVAL;
        size_t length = strlen(paths + at);
        if (length == 0)
            return -EINVAL;
        if (length >= CL_PATH_BYTES_MAX)
            return -ENAMETOOLONG;
        at += (uint32_t)length + 1;
    }
    return at == bytes ? 0 : -EINVAL;
}

static int job_check(const cl_job *job, uint32_t path_count)
{
    bool takes_two = job->op == CL_JOB_RENAME || job->op == CL_JOB_SEARCH_READ;
    bool takes_pairs = job->op == CL_JOB_LINK;
    bool takes_many = job->op == CL_JOB_SYNC || job->op == CL_JOB_UNLINK ||
                      job->op == CL_JOB_FORGET || takes_pairs;
    if (!takes_many && path_count != (takes_two ? 2u : 1u))
        return -EINVAL;
    if (takes_pairs && path_count % 2 != 0)
        return -EINVAL;
    bool needs_size = job->op == CL_JOB_READ || job->op == CL_JOB_SEARCH_READ ||
                      job->op == CL_JOB_ZEROFILL || job->op == CL_JOB_TRUNCATE;
    if (needs_size && job->size < 0)
        return -EINVAL;
    return 0;
}

/* Copy everything the job needs but the data into slot. */
static int slot_fill(job_slot *slot, const cl_job *job, const void *paths, uint32_t paths_bytes,
                     uint32_t path_count, const void *parts, uint32_t part_count)
{
    char *paths_to = slot->paths;
    cl_part *parts_to = slot->parts;
    size_t parts_bytes = part_count * sizeof(cl_part);
    slot->more = NULL;
    if (paths_bytes > PATHS_INLINE_BYTES || part_count > PARTS_INLINE) {
        slot->more = malloc(parts_bytes + paths_bytes);
        if (slot->more == NULL)
            return -ENOMEM;
        parts_to = slot->more;
        paths_to = (char *)slot->more + parts_bytes;
    }
    memcpy(paths_to, paths, paths_bytes);
    if (part_count > 0)
        memcpy(parts_to, parts, parts_bytes);
    slot->task.words = *job;
    slot->task.paths = paths_to;
    slot->task.path_count = path_count;
    slot->task.parts = parts_to;
    slot->task.part_count = part_count;
    return 0;
}

int cl_worker_submit(cl_worker *worker, const cl_job *job, const void *paths, uint32_t paths_bytes,
                     uint32_t path_count, const void *parts, uint32_t part_count)
{
    assert(worker != NULL);
    assert(job != NULL);
    int status = paths_check(paths, paths_bytes, path_count);
    if (status == 0)
        status = job_check(job, path_count);
    if (status < 0)
        return status;
    pthread_mutex_lock(&worker->lock);
    job_slot *slot = worker->empty;
    if (slot != NULL)
        worker->empty = slot->next;
    pthread_mutex_unlock(&worker->lock);
    if (slot == NULL)
        return -EAGAIN;

    status = slot_fill(slot, job, paths, paths_bytes, path_count, parts, part_count);
    slot->task.zeros = worker->zeros;
    pthread_mutex_lock(&worker->lock);
    if (status == 0) {
        list_push(&worker->queued, slot);
    } else {
        slot->next = worker->empty;
        worker->empty = slot;
    }
    pthread_mutex_unlock(&worker->lock);
    /* Not under the lock: the thread would wake up to wait for it, two more system calls. */
    if (status == 0)
        pthread_cond_signal(&worker->wake);
    return status;
}

int cl_worker_run(cl_worker *worker, const cl_job *job, const void *paths, uint32_t paths_bytes,
                  uint32_t path_count, const void *parts, uint32_t part_count, cl_done *done)
{
    assert(worker != NULL);
    assert(job != NULL);
    assert(done != NULL);
    int status = paths_check(paths, paths_bytes, path_count);
    if (status == 0)
        status = job_check(job, path_count);
    if (status < 0)
        return status;
    pthread_mutex_lock(&worker->lock);
    bool taken = worker->busy || worker->queued.first != NULL;
    if (!taken)
        worker->busy = true;
    pthread_mutex_unlock(&worker->lock);
    if (taken)
        return -EBUSY;

    cl_task task = {
        .words = *job, .paths = paths, .path_count = path_count, .parts = parts,
        .part_count = part_count, .zeros = worker->zeros,
    };
    cl_task_run(&worker->files, &task, done);
    pthread_mutex_lock(&worker->lock);
    worker->busy = false;
    bool is_queued = worker->queued.first != NULL;
    pthread_mutex_unlock(&worker->lock);
    if (is_queued)
        pthread_cond_signal(&worker->wake);
    return 0;
}

uint32_t cl_worker_reap(cl_worker *worker, cl_done *done, uint32_t done_max)
{
    assert(worker != NULL);
    assert(done != NULL);
    uint32_t count = 0;
    pthread_mutex_lock(&worker->lock);
    while (count < done_max && worker->answered.first != NULL) {
        job_slot *slot = list_pop(&worker->answered);
        done[count++] = slot->done;
        free(slot->more);
        slot->more = NULL;
        slot->next = worker->empty;
        worker->empty = slot;
    }
    pthread_mutex_unlock(&worker->lock);
    return count;
}
