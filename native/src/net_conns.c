/* The table of connections: making, finding, placing, closing them. */
#include "net.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOT_BITS 20
#define SLOT_MASK ((1 << SLOT_BITS) - 1)
#define NO_SLOT UINT32_MAX

cl_conn *cl_conn_find(cl_net *net, int64_t id)
{
    assert(net != NULL);
    uint32_t slot = (uint32_t)(id & SLOT_MASK);
    if (id < 0 || slot >= net->slots_max)
        return NULL;
    cl_conn *conn = &net->conns[slot];
    return conn->id == id && conn->state == CL_CONN_OPEN ? conn : NULL;
}

static bool is_blocked(const cl_conn *conn)
{
    return conn->paused || conn->held || conn->starved ||
           (conn->backlog_bytes > CL_BACKLOG_BYTES_MAX && !conn->is_link);
}

void cl_conn_place(cl_net *net, cl_conn *conn)
{
    bool wanted = conn->state == CL_CONN_OPEN && (conn->readable || conn->uncut);
    if (wanted && !is_blocked(conn)) {
        if (!cl_linked(&conn->ready))
            cl_list_push(&net->ready, &conn->ready);
    } else if (!conn->starved && !conn->held) {
        cl_list_remove(&conn->ready);
    }
}

/* Register for everything once: with edges nothing has to be changed later. */
static int conn_register(cl_net *net, cl_conn *conn)
{
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.u64 = (uint64_t)conn->id,
    };
    return epoll_ctl(net->epoll, EPOLL_CTL_ADD, conn->fd, &event) == 0 ? 0 : -errno;
}

static void socket_prepare(int fd)
{
    int one = 1;
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* fails on unix sockets: fine */
}

cl_conn *cl_conn_new(cl_net *net, int fd)
{
    uint32_t slot = net->free_slot;
    if (slot == NO_SLOT)
        return NULL;
    cl_conn *conn = &net->conns[slot];
    assert(conn->state == CL_CONN_FREE);
    net->free_slot = conn->next_free;
    *conn = (cl_conn){
        .id = (++net->generation << SLOT_BITS) | slot,
        .fd = fd,
        .write_fd = fd,
        .state = CL_CONN_OPEN,
        .moved_ms = cl_now_ms(),
        .partial_ms = -1,
        .lowat_bytes = 1,
        .first = true,
    };
    return conn;
}

void cl_conn_unmake(cl_net *net, cl_conn *conn)
{
    conn->state = CL_CONN_FREE;
    conn->next_free = net->free_slot;
    net->free_slot = (uint32_t)(conn->id & SLOT_MASK);
}

int64_t cl_net_add(cl_net *net, int fd)
{
    assert(net != NULL);
    assert(fd >= 0);
    bool has_room = net->stats.connections < net->conns_max;
    cl_conn *conn = has_room ? cl_conn_new(net, fd) : NULL;
    if (conn == NULL) {
        net->stats.refused++;
        close(fd);
        return -EMFILE;
    }
    socket_prepare(fd);
    int status = conn_register(net, conn);
    if (status < 0) {
        cl_conn_unmake(net, conn);
        close(fd);
        return status;
    }
    net->stats.connections++;
    net->stats.accepted++;
    return conn->id;
}

void cl_conn_close(cl_net *net, cl_conn *conn, int reason)
{
    assert(conn->state == CL_CONN_OPEN);
    if (conn->is_link)
        cl_link_close(net, conn);
    else
        close(conn->fd); /* leaves the epoll set by itself */
    conn->fd = conn->write_fd = -1;
    conn->state = CL_CONN_CLOSED;
    conn->starved = false;
    conn->held = false;
    conn->drained = false;
    conn->close_reason = reason;
    cl_unsent_drop(net, conn);
    cl_list_remove(&conn->ready);
    cl_list_remove(&conn->report);
    cl_list_remove(&conn->flush);
    if (reason != 0)
        cl_list_push(&net->reports, &conn->report);
    if (!cl_linked(&conn->served))
        cl_list_push(&net->served, &conn->served); /* the next poll takes its buffer (N2) */
    if (net->grantee == conn->id)
        net->grantee = -1;
    if (conn->is_link) {
        net->stats.links--;
        return;
    }
    net->stats.connections--;
    net->stats.closed++;
}

void cl_conn_bury(cl_net *net, cl_conn *conn)
{
    if (conn->state != CL_CONN_CLOSED || conn->close_reason != 0 || cl_linked(&conn->served))
        return;
    assert(conn->buffer.memory == NULL);
    assert(conn->unsent == NULL);
    conn->state = CL_CONN_FREE;
    conn->next_free = net->free_slot;
    net->free_slot = (uint32_t)(conn->id & SLOT_MASK);
}

void cl_net_close(cl_net *net, int64_t id)
{
    cl_conn *conn = cl_conn_find(net, id);
    if (conn == NULL)
        return;
    cl_conn_close(net, conn, 0);
    cl_net_wake(net);
}

void cl_net_pause(cl_net *net, int64_t id)
{
    cl_conn *conn = cl_conn_find(net, id);
    if (conn == NULL)
        return;
    conn->paused = true;
    cl_conn_place(net, conn);
}

void cl_net_resume(cl_net *net, int64_t id)
{
    cl_conn *conn = cl_conn_find(net, id);
    if (conn == NULL)
        return;
    conn->paused = false;
    conn->uncut = conn->end > conn->start;
    cl_conn_place(net, conn);
    cl_net_wake(net);
}

void cl_net_hold_produce(cl_net *net, int held)
{
    assert(net != NULL);
    net->holding = held != 0;
    if (net->holding)
        return;
    while (!cl_list_empty(&net->held))
        cl_conn_unblock(net, CL_ITEM(net->held.next, cl_conn, ready));
    cl_net_wake(net);
}
