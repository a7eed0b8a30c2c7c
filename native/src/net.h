/* What the files of the net share: its connections and its lists.
 *
 * Sockets are edge-triggered: an event only marks its connection, and `ready` says who has
 * something to do. So pausing, holding and rotating are moves between lists, never system calls.
 *
 * N1. A connection is in `ready` exactly when it has work and nothing blocks it.
 * N2. Frames handed out lie in the connection's buffer until the next poll; nothing moves or frees
 *     a buffer of `served` before that.
 * N3. A closed connection's slot is free only when its CLOSED event was handed out and its buffer
 *     was given back; its id is never used again. */
#ifndef NET_H
#define NET_H

#include "buffers.h"
#include "list.h"

#define CL_PREFIX_BYTES 4u
#define CL_FRAME_BYTES_MIN 8u /* api key, version, correlation id */
#define CL_TURN_FRAMES_MAX 64u
#define CL_LINK_FRAMES_MAX 256u /* one link stands for many clients */
#define CL_LINKS_MAX 256u
#define CL_LINK_KEPT_BYTES_MAX (16u * 1024u * 1024u) /* receive memory kept for the next frame */
#define CL_TURN_BYTES_MAX (1024u * 1024u)     /* received of one connection */
#define CL_TURN_SEND_BYTES_MAX (256 * 1024)   /* sent to all, from one poll to the next */
#define CL_POLL_BYTES_MAX (8 * 1024 * 1024) /* of all connections: then the turn goes on */
#define CL_BACKLOG_BYTES_MAX (1024u * 1024u) /* above, a connection is not read */
#define CL_LOWAT_BYTES_MAX (256u * 1024u)
#define CL_ACCEPTS_MAX 64u
#define CL_SOURCES_MAX 64u
#define CL_PEER_BYTES 64u
#define CL_NO_CHUNK (-1)

/* A piece of what a socket did not take yet. */
typedef struct cl_unsent {
    struct cl_unsent *next;
    int64_t chunk; /* retained; CL_NO_CHUNK: the bytes follow this head */
    const uint8_t *at;
    uint64_t size;
    uint64_t copied; /* bytes that follow */
} cl_unsent;

typedef enum { CL_CONN_FREE, CL_CONN_OPEN, CL_CONN_CLOSED } cl_conn_state;

typedef struct {
    int64_t id;
    int fd;
    int write_fd;  /* of a link: its other pipe; of a socket the same as fd */
    bool is_link;
    cl_conn_state state;
    cl_link ready;  /* in net.ready, net.starved or net.held */
    cl_link served; /* in net.served */
    cl_link report; /* in net.reports */
    cl_link flush;  /* in net.flushing */

    cl_buffer buffer;
    uint64_t start; /* received bytes start..end are not cut into frames yet */
    uint64_t end;
    uint64_t frame_last_bytes; /* what the next frame is expected to need */
    uint64_t served_poll;      /* the poll that handed out frames of this buffer */
    int64_t moved_ms;          /* when a byte moved last, either way */
    int64_t partial_ms;        /* since when there is an unfinished frame; -1 without one */
    int lowat_bytes;

    bool readable;  /* the socket may have bytes */
    bool hung_up;   /* the peer will send no more */
    bool uncut;     /* the buffer may have whole frames */
    bool first;     /* no frame was cut yet */
    bool paused;
    bool held;      /* its next frame is a Produce */
    bool starved;   /* waits for receive memory */
    bool unheard;   /* of a link: the other side reads no more, but may have left last words */
    bool drained;   /* a DRAINED event is due */
    int close_reason; /* of a CLOSED event that is due; 0: none */

    cl_unsent *unsent;
    cl_unsent *unsent_last;
    uint64_t backlog_bytes;
    uint64_t backlog_bytes_copied;
    uint32_t next_free;
} cl_conn;

typedef enum { CL_SOURCE_NONE, CL_SOURCE_LISTENER, CL_SOURCE_WATCH, CL_SOURCE_WAKE } cl_source_kind;

typedef struct {
    cl_source_kind kind;
    int fd;
    int64_t token;
} cl_source;

struct cl_net {
    cl_arena *arena;
    int epoll;
    int spare; /* given up to accept, and close, when descriptors have run out */
    bool wake_set;
    bool holding;
    uint64_t frame_bytes_max;
    int64_t stall_ms;
    uint64_t poll_number;
    int64_t now_ms;
    int64_t generation;
    int64_t grantee; /* the conn that may go beyond receive_bytes_max, or -1 */
    int64_t grantee_moved_ms;
    int64_t idle_bytes_in; /* received when cl_net_idle was called last */
    int64_t sent_end;      /* what stats may say was sent before the next poll begins */
    cl_buffers buffers;    /* of clients */
    cl_buffers link_buffers;
    cl_link ready;
    cl_link starved;
    cl_link held;
    cl_link served;
    cl_link reports;
    cl_link flushing; /* have more to send than their turn allowed, and a socket that may take it */
    cl_source sources[CL_SOURCES_MAX];
    cl_net_stats stats;
    uint32_t free_slot;
    uint32_t conns_max; /* of clients; links have slots of their own beyond */
    uint32_t slots_max;
    uint32_t peer_count;
    char peers[CL_ACCEPTS_MAX][CL_PEER_BYTES]; /* of this poll's ACCEPTED events */
    cl_conn conns[];
};

int64_t cl_now_ms(void);

/* Where a poll puts its events. */
typedef struct {
    cl_event *at;
    uint32_t count;
    uint32_t others; /* that are not frames */
    uint32_t max;
} cl_events;

static inline bool cl_events_full(const cl_events *events)
{
    return events->count == events->max;
}

static inline cl_event *cl_events_add(cl_events *events, int64_t kind, int64_t conn)
{
    assert(!cl_events_full(events));
    cl_event *event = &events->at[events->count++];
    *event = (cl_event){.kind = kind, .conn = conn};
    events->others += kind != CL_NET_FRAME;
    return event;
}

/* ---- net.c */

/* Whoever waits for our descriptor must see that there is something to do. */
void cl_net_wake(cl_net *net);

/* All bytes received and sent so far. */
static inline int64_t cl_net_received(const cl_net *net)
{
    return net->stats.bytes_in + net->stats.link_bytes_in;
}

static inline int64_t cl_net_sent(const cl_net *net)
{
    return net->stats.bytes_out + net->stats.link_bytes_out;
}

/* Where conn's receive memory comes from. */
static inline cl_buffers *cl_conn_buffers(cl_net *net, const cl_conn *conn)
{
    return conn->is_link ? &net->link_buffers : &net->buffers;
}

/* ---- net_conns.c */

/* The open connection with that id, or NULL. */
cl_conn *cl_conn_find(cl_net *net, int64_t id);

/* Put conn into the list where it belongs now (N1). */
void cl_conn_place(cl_net *net, cl_conn *conn);

/* Close the socket and forget what was to be sent; a CLOSED event with reason follows, unless
 * reason is 0. */
void cl_conn_close(cl_net *net, cl_conn *conn, int reason);

/* Free a closed connection's slot if nothing keeps it (N3). */
void cl_conn_bury(cl_net *net, cl_conn *conn);

/* A free slot for fd, as an open connection that is in no epoll set yet; NULL: none is free. */
cl_conn *cl_conn_new(cl_net *net, int fd);

/* Give a slot back whose descriptor could not be registered. */
void cl_conn_unmake(cl_net *net, cl_conn *conn);

/* ---- net_links.c */

/* Take a link's pipes out of the epoll set and close them. */
void cl_link_close(cl_net *net, const cl_conn *conn);

/* The other side reads no more: what waits for it is dropped, and the link closes when what it
 * wrote before is read. */
void cl_link_unheard(cl_net *net, cl_conn *conn);

/* ---- net_receive.c */

/* Receive, and cut frames into events, within a turn's limits. */
void cl_conn_serve(cl_net *net, cl_conn *conn, cl_events *events);

/* Tidy the buffer after a poll whose frames are gone. */
void cl_conn_after_poll(cl_net *net, cl_conn *conn);

/* Take conn off the list of those that are held or starved, and let it go on. */
void cl_conn_unblock(cl_net *net, cl_conn *conn);

/* Close a starved connection whose peer is gone: its frame will never be whole. */
void cl_starved_check(cl_net *net, cl_conn *conn);

/* Let a connection that waits for memory go on, if it can have some. */
void cl_starved_retry(cl_net *net);

/* Close the grantee if it stalls while others wait. */
void cl_grantee_check(cl_net *net);

/* ---- net_send.c */

/* Send what waits, within a turn's limit; closes the connection if it is broken. */
void cl_conn_flush(cl_net *net, cl_conn *conn);

/* Give each connection that was stopped by its turn's limit another turn. */
void cl_flush_turns(cl_net *net);

/* Free what waits. */
void cl_unsent_drop(cl_net *net, cl_conn *conn);

/* ---- net_accept.c */

/* Accept what waits at a listener. */
void cl_listener_accept(cl_net *net, const cl_source *listener, cl_events *events);

#endif
