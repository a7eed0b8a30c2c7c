/* The net: one nested epoll set with every data connection, listener and eventfd of a core. */
#include "net.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EPOLL_EVENTS_MAX 256
#define NO_SLOT UINT32_MAX
#define SOURCE_TAG (UINT64_C(1) << 63) /* above every conn id */
#define WAKE_SOURCE 0u
#define TIMEOUT_US_MAX (3600ull * 1000 * 1000)

static int64_t clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t cl_now_ms(void)
{
    return clock_us(CLOCK_MONOTONIC_COARSE) / 1000;
}

/* ---- Making and freeing */

static int source_add(cl_net *net, cl_source_kind kind, int fd, int64_t token)
{
    assert(fd >= 0);
    for (uint32_t at = 0; at < CL_SOURCES_MAX; at++) {
        if (net->sources[at].kind != CL_SOURCE_NONE)
            continue;
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = SOURCE_TAG | at};
        if (epoll_ctl(net->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            return -errno;
        net->sources[at] = (cl_source){.kind = kind, .fd = fd, .token = token};
        return 0;
    }
    return -ENOSPC;
}

static int net_open(cl_net *net)
{
    net->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (net->epoll < 0)
        return -errno;
    net->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0)
        return -errno;
    return source_add(net, CL_SOURCE_WAKE, wake, 0);
}

cl_net *cl_net_new(cl_arena *arena, uint32_t conns_max, uint64_t frame_bytes_max,
                   uint64_t receive_bytes_max, int64_t stall_ms, int *error)
{
    assert(arena != NULL);
    assert(conns_max > 0);
    assert(conns_max < (1u << 20) - CL_LINKS_MAX);
    assert(frame_bytes_max <= INT32_MAX - CL_PREFIX_BYTES);
    assert(error != NULL);
    *error = -ENOMEM;
    uint32_t slots_max = conns_max + CL_LINKS_MAX;
    cl_net *net = calloc(1, sizeof *net + slots_max * sizeof(cl_conn));
    if (net == NULL)
        return NULL;
    net->arena = arena;
    net->epoll = net->spare = -1;
    net->frame_bytes_max = frame_bytes_max;
    net->stall_ms = stall_ms;
    net->conns_max = conns_max;
    net->slots_max = slots_max;
    net->grantee = -1;
    net->now_ms = cl_now_ms();
    cl_buffers_init(&net->buffers, receive_bytes_max);
    cl_buffers_init(&net->link_buffers, CL_LINK_KEPT_BYTES_MAX);
    cl_list_init(&net->ready);
    cl_list_init(&net->starved);
    cl_list_init(&net->held);
    cl_list_init(&net->served);
    cl_list_init(&net->reports);
    cl_list_init(&net->flushing);
    for (uint32_t slot = 0; slot < slots_max; slot++)
        net->conns[slot].next_free = slot + 1 < slots_max ? slot + 1 : NO_SLOT;
    *error = net_open(net);
    if (*error == 0)
        return net;
    cl_net_free(net);
    return NULL;
}

void cl_net_free(cl_net *net)
{
    assert(net != NULL);
    for (uint32_t slot = 0; slot < net->slots_max; slot++) {
        cl_conn *conn = &net->conns[slot];
        if (conn->state == CL_CONN_OPEN)
            cl_conn_close(net, conn, 0);
        if (conn->buffer.memory != NULL)
            cl_buffer_release(cl_conn_buffers(net, conn), &conn->buffer);
    }
    cl_buffers_trim(&net->buffers);
    cl_buffers_trim(&net->link_buffers);
    if (net->sources[WAKE_SOURCE].kind == CL_SOURCE_WAKE)
        close(net->sources[WAKE_SOURCE].fd);
    if (net->spare >= 0)
        close(net->spare);
    if (net->epoll >= 0)
        close(net->epoll);
    free(net);
}

int cl_net_listen(cl_net *net, int fd, int64_t listener)
{
    assert(net != NULL);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return -errno;
    return source_add(net, CL_SOURCE_LISTENER, fd, listener);
}

int cl_net_watch(cl_net *net, int fd, int64_t token)
{
    assert(net != NULL);
    return source_add(net, CL_SOURCE_WATCH, fd, token);
}

int cl_net_unlisten(cl_net *net, int fd)
{
    assert(net != NULL);
    for (uint32_t at = WAKE_SOURCE + 1; at < CL_SOURCES_MAX; at++) {
        if (net->sources[at].kind == CL_SOURCE_NONE || net->sources[at].fd != fd)
            continue;
        epoll_ctl(net->epoll, EPOLL_CTL_DEL, fd, NULL);
        net->sources[at].kind = CL_SOURCE_NONE;
        return 0;
    }
    return -ENOENT;
}

/* ---- Polling */

/* epoll_wait in microseconds; milliseconds before Linux 5.11. */
static int wait_us(int epoll, struct epoll_event *ready, int64_t timeout_us)
{
    if (timeout_us <= 0)
        return epoll_wait(epoll, ready, EPOLL_EVENTS_MAX, 0);
#ifdef SYS_epoll_pwait2
    struct timespec timeout = {timeout_us / 1000000, timeout_us % 1000000 * 1000};
    long count = syscall(SYS_epoll_pwait2, epoll, ready, EPOLL_EVENTS_MAX, &timeout, NULL, 0);
    if (count >= 0 || errno != ENOSYS)
        return (int)count;
#endif
    return epoll_wait(epoll, ready, EPOLL_EVENTS_MAX, (int)((timeout_us + 999) / 1000));
}

static void source_ready(cl_net *net, cl_source *source, cl_events *events)
{
    uint64_t value;
    switch (source->kind) {
    case CL_SOURCE_LISTENER:
        cl_listener_accept(net, source, events);
        return;
    case CL_SOURCE_WATCH:
        if (cl_events_full(events) || read(source->fd, &value, sizeof value) != sizeof value)
            return; /* still readable: the next poll takes it */
        cl_event *event = cl_events_add(events, CL_NET_WATCH, -1);
        event->size = source->token;
        event->address = value;
        return;
    case CL_SOURCE_WAKE:
        if (read(source->fd, &value, sizeof value) == sizeof value)
            net->wake_set = false;
        return;
    case CL_SOURCE_NONE:
        return;
    }
}

static void conn_ready(cl_net *net, cl_conn *conn, uint32_t what)
{
    if (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->hung_up = true;
    if (what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->readable = true;
    if ((what & EPOLLERR) && conn->is_link) /* only a pipe to write to has it */
        cl_link_unheard(net, conn);
    if ((what & EPOLLOUT) && conn->unsent != NULL && !cl_linked(&conn->flush))
        cl_list_push(&net->flushing, &conn->flush);
    if (conn->state != CL_CONN_OPEN)
        return;
    cl_conn_place(net, conn);
    bool is_read = cl_linked(&conn->ready) && !conn->starved && !conn->held;
    if ((what & (EPOLLHUP | EPOLLERR)) && !is_read)
        cl_conn_close(net, conn, CL_CLOSED_RESET); /* nobody will read it to find out */
    else if (conn->starved)
        cl_starved_check(net, conn);
}

/* Take what epoll has; returns false if a signal came instead. */
static bool take_ready(cl_net *net, int64_t timeout_us, cl_events *events)
{
    struct epoll_event ready[EPOLL_EVENTS_MAX];
    int count = wait_us(net->epoll, ready, timeout_us);
    net->now_ms = cl_now_ms();
    for (int at = 0; at < count; at++) {
        uint64_t tag = ready[at].data.u64;
        if (tag & SOURCE_TAG) {
            source_ready(net, &net->sources[tag & ~SOURCE_TAG], events);
            continue;
        }
        cl_conn *conn = cl_conn_find(net, (int64_t)tag);
        if (conn != NULL) /* closed earlier in this round */
            conn_ready(net, conn, ready[at].events);
    }
    return count >= 0;
}

/* Serve each connection that is ready now once, the longest waiting first. */
static void serve_ready(cl_net *net, cl_events *events)
{
    cl_link turn;
    cl_list_init(&turn);
    for (cl_link *link = cl_list_pop(&net->ready); link != NULL; link = cl_list_pop(&net->ready))
        cl_list_push(&turn, link);
    int64_t bytes_end = cl_net_received(net) + CL_POLL_BYTES_MAX;
    while (!cl_list_empty(&turn) && !cl_events_full(events) && cl_net_received(net) < bytes_end) {
        cl_conn *conn = CL_ITEM(cl_list_pop(&turn), cl_conn, ready);
        cl_conn_serve(net, conn, events); /* puts itself back, at the end */
    }
    while (!cl_list_empty(&turn)) { /* not served: they stay in front */
        cl_list_push_front(&net->ready, turn.previous);
    }
}

static void report(cl_net *net, cl_events *events)
{
    while (!cl_list_empty(&net->reports) && !cl_events_full(events)) {
        cl_conn *conn = CL_ITEM(cl_list_pop(&net->reports), cl_conn, report);
        if (conn->drained) {
            conn->drained = false;
            cl_events_add(events, CL_NET_DRAINED, conn->id);
            continue;
        }
        assert(conn->close_reason != 0);
        cl_events_add(events, CL_NET_CLOSED, conn->id)->size = conn->close_reason;
        conn->close_reason = 0;
        cl_conn_bury(net, conn);
    }
}

/* The frames of the last poll are gone: buffers may move and be given back. */
static void begin(cl_net *net)
{
    net->poll_number++;
    net->sent_end = cl_net_sent(net) + CL_TURN_SEND_BYTES_MAX;
    for (cl_link *link = cl_list_pop(&net->served); link != NULL; link = cl_list_pop(&net->served))
        cl_conn_after_poll(net, CL_ITEM(link, cl_conn, served));
    cl_starved_retry(net);
    cl_grantee_check(net);
}

void cl_net_wake(cl_net *net)
{
    bool busy = !cl_list_empty(&net->ready) || !cl_list_empty(&net->reports);
    busy = busy || !cl_list_empty(&net->flushing);
    busy = busy || (!cl_list_empty(&net->starved) && !cl_list_empty(&net->served));
    if (!busy || net->wake_set)
        return;
    uint64_t one = 1;
    if (write(net->sources[WAKE_SOURCE].fd, &one, sizeof one) == sizeof one)
        net->wake_set = true;
}

int cl_net_fd(cl_net *net)
{
    assert(net != NULL);
    cl_net_wake(net);
    return net->epoll;
}

uint32_t cl_net_poll(cl_net *net, uint64_t timeout_us, cl_event *events, uint32_t events_max,
                     uint32_t *others)
{
    assert(net != NULL);
    assert(events != NULL);
    assert(events_max > 0);
    assert(others != NULL);
    if (timeout_us > TIMEOUT_US_MAX)
        timeout_us = TIMEOUT_US_MAX;
    int64_t now_us = clock_us(CLOCK_MONOTONIC), end_us = now_us + (int64_t)timeout_us;
    cl_events found = {.at = events, .max = events_max};
    net->peer_count = 0;
    for (;;) {
        begin(net);
        report(net, &found);
        bool busy = found.count > 0 || !cl_list_empty(&net->ready);
        busy = busy || !cl_list_empty(&net->flushing);
        bool signalled = !take_ready(net, busy ? 0 : end_us - now_us, &found);
        cl_flush_turns(net);
        serve_ready(net, &found);
        report(net, &found);
        if (found.count > 0 || timeout_us == 0 || signalled)
            break;
        now_us = clock_us(CLOCK_MONOTONIC);
        if (now_us >= end_us)
            break;
    }
    *others = found.others;
    return found.count;
}

/* ---- Looking */

uint32_t cl_net_idle(cl_net *net, int64_t idle_ms, int64_t partial_ms, int64_t unsent_ms,
                     int64_t *conns, uint32_t conns_max)
{
    assert(net != NULL);
    assert(conns != NULL || conns_max == 0);
    uint32_t count = 0;
    net->now_ms = cl_now_ms();
    cl_grantee_check(net);
    if (cl_net_received(net) - net->idle_bytes_in < CL_BUFFER_BASE) {
        cl_buffers_trim(&net->buffers); /* nothing large came for a while */
        cl_buffers_trim(&net->link_buffers);
    }
    net->idle_bytes_in = cl_net_received(net);
    for (uint32_t slot = 0; slot < net->slots_max && count < conns_max; slot++) {
        const cl_conn *conn = &net->conns[slot];
        if (conn->state != CL_CONN_OPEN || conn->is_link)
            continue;
        bool idle = idle_ms >= 0 && net->now_ms - conn->moved_ms >= idle_ms;
        bool partial = partial_ms >= 0 && conn->partial_ms >= 0 && !conn->paused && !conn->held &&
                       !conn->starved && net->now_ms - conn->partial_ms >= partial_ms;
        bool stuck = unsent_ms >= 0 && conn->unsent != NULL && !cl_linked(&conn->flush) &&
                     net->now_ms - conn->moved_ms >= unsent_ms;
        if (idle || partial || stuck)
            conns[count++] = conn->id;
    }
    cl_net_wake(net);
    return count;
}

void cl_net_stats_read(const cl_net *net, cl_net_stats *stats)
{
    assert(net != NULL);
    assert(stats != NULL);
    *stats = net->stats;
    stats->receive_bytes = (int64_t)net->buffers.bytes_held;
    stats->receive_bytes_kept = (int64_t)(net->buffers.bytes_kept + net->link_buffers.bytes_kept);
    stats->link_receive_bytes = (int64_t)net->link_buffers.bytes_held;
}
