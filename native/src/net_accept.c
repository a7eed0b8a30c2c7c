/* Takes new connections from listening sockets, in batches. */
#include "net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void peer_text(const struct sockaddr_storage *peer, char *text)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)peer;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(text, CL_PEER_BYTES, "%s:%u", host, ntohs(v4->sin_port));
    } else if (peer->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)peer;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(text, CL_PEER_BYTES, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        snprintf(text, CL_PEER_BYTES, "local");
    }
}

/* Without a free descriptor accept fails and the listener stays readable for ever: give up the
 * spare one, take the connection, and drop it. */
static bool drop_one(cl_net *net, int listener)
{
    if (net->spare < 0)
        return false;
    close(net->spare);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        close(fd);
        net->stats.refused++;
    }
    net->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return fd >= 0;
}

void cl_listener_accept(cl_net *net, const cl_source *listener, cl_events *events)
{
    assert(listener->kind == CL_SOURCE_LISTENER);
    uint32_t refused = 0;
    while (net->peer_count < CL_ACCEPTS_MAX && !cl_events_full(events)) {
        struct sockaddr_storage peer = {0};
        socklen_t peer_bytes = sizeof peer;
        int fd = accept4(listener->fd, (struct sockaddr *)&peer, &peer_bytes,
                         SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
            if (!drop_one(net, listener->fd) || ++refused == CL_ACCEPTS_MAX)
                return;
            continue;
        }
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            return;
        int64_t conn = cl_net_add(net, fd);
        if (conn < 0 && ++refused == CL_ACCEPTS_MAX)
            return; /* a flood of them must not keep us here */
        if (conn < 0)
            continue;
        char *text = net->peers[net->peer_count++];
        peer_text(&peer, text);
        cl_event *event = cl_events_add(events, CL_NET_ACCEPTED, conn);
        event->address = (uint64_t)(uintptr_t)text;
        event->size = listener->token;
    }
}
