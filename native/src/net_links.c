/* Links: connections over a pair of pipes to a process as trusted as this one.
 *
 * L1. A link is read whatever waits to be sent to it, so that two ends never wait for each other.
 * L2. Both pipes are registered under the link's id; either one's end ends the link, after all that
 *     came before it was handed out.
 * L3. What a link needs is counted apart: clients cannot take it away, nor it from them. */
#include "net.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

static int pipe_prepare(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return -errno;
    return 0;
}

static int pipe_register(cl_net *net, const cl_conn *conn, int fd, uint32_t events)
{
    int status = pipe_prepare(fd);
    if (status < 0)
        return status;
    struct epoll_event event = {.events = events | EPOLLET, .data.u64 = (uint64_t)conn->id};
    return epoll_ctl(net->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* Another process may hold the same pipe, so closing alone would leave it in the set. */
void cl_link_close(cl_net *net, const cl_conn *conn)
{
    assert(conn->is_link);
    epoll_ctl(net->epoll, EPOLL_CTL_DEL, conn->fd, NULL);
    epoll_ctl(net->epoll, EPOLL_CTL_DEL, conn->write_fd, NULL);
    close(conn->fd);
    close(conn->write_fd);
}

void cl_link_unheard(cl_net *net, cl_conn *conn)
{
    assert(conn->is_link);
    assert(conn->state == CL_CONN_OPEN);
    conn->unheard = conn->hung_up = true;
    conn->readable = true; /* to the end of what is there, and that closes it */
    cl_unsent_drop(net, conn);
    cl_list_remove(&conn->flush);
    cl_conn_place(net, conn);
}

int64_t cl_net_add_link(cl_net *net, int read_fd, int write_fd)
{
    assert(net != NULL);
    assert(read_fd >= 0);
    assert(write_fd >= 0);
    assert(read_fd != write_fd);
    bool has_room = net->stats.links < CL_LINKS_MAX;
    cl_conn *conn = has_room ? cl_conn_new(net, read_fd) : NULL;
    if (conn == NULL) {
        close(read_fd);
        close(write_fd);
        return -EMFILE;
    }
    conn->write_fd = write_fd;
    conn->is_link = true;
    conn->first = false;
    int status = pipe_register(net, conn, read_fd, EPOLLIN);
    if (status == 0)
        status = pipe_register(net, conn, write_fd, EPOLLOUT);
    if (status < 0) {
        cl_link_close(net, conn);
        cl_conn_unmake(net, conn);
        return status;
    }
    net->stats.links++;
    return conn->id;
}
