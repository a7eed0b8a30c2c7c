/* Receives bytes and cuts them into frames. Every length comes from a client: it is checked before
 * it is believed, and memory is given only for bytes that arrived. */
#include "net.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM_BYTES_MIN 4096u          /* below this a read is not worth its call */
#define BIG_FRAME_BYTES (64u * 1024u) /* from here on frames are read to their exact end */
#define GROWTH 4u                     /* memory is at most so many times what arrived */
#define SHRINK_RATIO 8u
#define LOWAT_FROM_BYTES (16u * 1024u)
#define TRUSTED_BYTES_MAX (16u * 1024u * 1024u) /* memory that a link's word alone is worth */

typedef enum { CUT_ALL, CUT_LIMIT, CUT_HELD, CUT_BAD } cut_result;

/* ---- Cutting */

/* What speaks some other protocol is told apart by its first four bytes; all of them would be
 * lengths far above any frame (Kafka has no magic number). 0 if they say nothing. */
static int stranger(const uint8_t *first)
{
    static const char methods[][5] = {"GET ", "POST", "HEAD", "PUT ", "DELE", "OPTI",
                                      "PATC", "CONN", "TRAC", "PRI "};
    for (size_t at = 0; at < sizeof methods / sizeof methods[0]; at++)
        if (memcmp(first, methods[at], 4) == 0)
            return CL_CLOSED_HTTP;
    return first[0] == 0x16 && first[1] == 0x03 ? CL_CLOSED_TLS : 0;
}

/* Why a frame with this length prefix cannot be; 0 if it can. */
static int length_check(const cl_net *net, const cl_conn *conn, const uint8_t *prefix)
{
    uint32_t length = cl_be32(prefix);
    uint64_t length_max = conn->is_link ? INT32_MAX - CL_PREFIX_BYTES : net->frame_bytes_max;
    if (length >= CL_FRAME_BYTES_MIN && length <= length_max)
        return 0;
    if (conn->first && stranger(prefix) != 0)
        return stranger(prefix);
    if (length > INT32_MAX)
        return CL_CLOSED_FRAME_NEGATIVE;
    return length < CL_FRAME_BYTES_MIN ? CL_CLOSED_FRAME_SHORT : CL_CLOSED_FRAME_TOO_LARGE;
}

static void frame_event(cl_net *net, cl_conn *conn, const uint8_t *frame, uint32_t length,
                        cl_events *events)
{
    cl_event *event = cl_events_add(events, CL_NET_FRAME, conn->id);
    event->address = (uint64_t)(uintptr_t)frame;
    event->size = length;
    event->api_key = (int16_t)cl_be16(frame);
    event->api_version = (int16_t)cl_be16(frame + 2);
    event->correlation_id = (int32_t)cl_be32(frame + 4);
    (*(conn->is_link ? &net->stats.link_frames : &net->stats.frames))++;
}

/* Hand out whole frames until the turn's limits. */
static cut_result cut(cl_net *net, cl_conn *conn, cl_events *events, uint32_t *frames)
{
    for (;;) {
        const uint8_t *at = conn->buffer.memory + conn->start;
        uint64_t have = conn->end - conn->start;
        if (have < CL_PREFIX_BYTES)
            return CUT_ALL;
        int reason = length_check(net, conn, at);
        if (reason != 0) {
            cl_conn_close(net, conn, reason);
            return CUT_BAD;
        }
        uint32_t length = cl_be32(at);
        bool has_key = have >= CL_PREFIX_BYTES + 2;
        if (net->holding && !conn->is_link && has_key && cl_be16(at + CL_PREFIX_BYTES) == 0)
            return CUT_HELD;
        if (have < CL_PREFIX_BYTES + length)
            return CUT_ALL;
        uint32_t frames_max = conn->is_link ? CL_LINK_FRAMES_MAX : CL_TURN_FRAMES_MAX;
        if (*frames == frames_max || cl_events_full(events))
            return CUT_LIMIT;
        frame_event(net, conn, at + CL_PREFIX_BYTES, length, events);
        conn->start += CL_PREFIX_BYTES + length;
        conn->frame_last_bytes = CL_PREFIX_BYTES + length;
        conn->first = false;
        conn->served_poll = net->poll_number;
        conn->partial_ms = -1;
        if (net->grantee == conn->id)
            net->grantee = -1; /* what it was granted for is done */
        (*frames)++;
    }
}

/* ---- Room */

/* All bytes of the frame that is being received; 0 while its length is not known. */
static uint64_t frame_bytes(const cl_conn *conn)
{
    if (conn->end - conn->start < CL_PREFIX_BYTES)
        return 0;
    return CL_PREFIX_BYTES + cl_be32(conn->buffer.memory + conn->start);
}

/* How large the buffer should be for the frame at hand: the whole of it where that costs no new
 * memory or was earned by one as large before, else a multiple of what has arrived. */
static uint64_t buffer_wanted(cl_net *net, const cl_conn *conn)
{
    uint64_t have = conn->end - conn->start, whole = frame_bytes(conn);
    uint64_t expected = whole > 0 ? whole : conn->frame_last_bytes;
    if (expected <= CL_BUFFER_BASE)
        return CL_BUFFER_BASE;
    if (conn->is_link && expected <= TRUSTED_BYTES_MAX)
        return expected;
    if (expected <= conn->frame_last_bytes ||
        cl_buffers_keep(cl_conn_buffers(net, conn), expected))
        return expected;
    uint64_t earned = have * GROWTH;
    if (earned < CL_BUFFER_BASE)
        earned = CL_BUFFER_BASE;
    return earned < expected ? earned : expected;
}

/* Whether the peer has gone in the middle of the frame, so that memory for it would be wasted. */
static bool is_cut_off(const cl_conn *conn)
{
    int waiting = 0;
    if (!conn->hung_up || ioctl(conn->fd, FIONREAD, &waiting) != 0)
        return false;
    return conn->end - conn->start + (uint64_t)waiting < frame_bytes(conn);
}

void cl_starved_check(cl_net *net, cl_conn *conn)
{
    assert(conn->starved);
    if (is_cut_off(conn))
        cl_conn_close(net, conn, CL_CLOSED_EOF);
}

static void starve(cl_net *net, cl_conn *conn)
{
    assert(!conn->starved);
    assert(!conn->held);
    cl_list_remove(&conn->ready);
    conn->starved = true;
    cl_list_push(&net->starved, &conn->ready);
    net->stats.starved++;
    cl_starved_check(net, conn);
}

static void hold(cl_net *net, cl_conn *conn)
{
    assert(!conn->held);
    assert(!conn->starved);
    cl_list_remove(&conn->ready);
    conn->held = true;
    cl_list_push(&net->held, &conn->ready);
}

void cl_conn_unblock(cl_net *net, cl_conn *conn)
{
    assert(conn->held || conn->starved);
    cl_list_remove(&conn->ready);
    conn->held = false;
    conn->starved = false;
    conn->uncut = true; /* there may be a frame: look before the next receive */
    cl_conn_place(net, conn);
}

/* Get a buffer of the wanted size, or of one that every connection may have; false: starved. */
static bool buffer_get(cl_net *net, cl_conn *conn)
{
    uint64_t have = conn->end - conn->start, wanted = buffer_wanted(net, conn);
    bool beyond = conn->is_link || net->grantee == conn->id;
    cl_buffers *buffers = cl_conn_buffers(net, conn);
    int status = cl_buffer_resize(buffers, &conn->buffer, conn->start, have, wanted, beyond);
    if (status < 0 && have + CL_PREFIX_BYTES < CL_BUFFER_SMALL &&
        conn->buffer.capacity < CL_BUFFER_SMALL)
        status = cl_buffer_resize(buffers, &conn->buffer, conn->start, have, CL_BUFFER_SMALL,
                                  beyond);
    if (status == -ENOMEM) {
        cl_conn_close(net, conn, CL_CLOSED_MEMORY);
        return false;
    }
    if (status == -ENOBUFS) {
        starve(net, conn);
        return false;
    }
    conn->start = 0;
    conn->end = have;
    return true;
}

static void move_to_front(cl_conn *conn)
{
    memmove(conn->buffer.memory, conn->buffer.memory + conn->start, conn->end - conn->start);
    conn->end -= conn->start;
    conn->start = 0;
}

/* Make room to receive; returns how much should be read, 0 if nothing can be in this poll. */
static uint64_t room_make(cl_net *net, cl_conn *conn)
{
    uint64_t whole = frame_bytes(conn), have = conn->end - conn->start;
    uint64_t need = whole > 0 ? whole : have + ROOM_BYTES_MIN;
    bool handed_out = conn->served_poll == net->poll_number; /* N2: nothing may move */
    if (conn->buffer.capacity < conn->start + need && handed_out)
        return 0;
    if (net->buffers.bytes_held > net->buffers.bytes_max && handed_out && !conn->is_link)
        return 0; /* what was granted beyond the limit is given back before anything follows */
    if (conn->buffer.capacity < conn->start + need && conn->start > 0)
        move_to_front(conn);
    if (conn->buffer.capacity < need && conn->buffer.capacity - conn->end < ROOM_BYTES_MIN &&
        !buffer_get(net, conn))
        return 0;
    uint64_t room = conn->buffer.capacity - conn->end;
    uint64_t exact = whole > 0 ? whole - have : conn->frame_last_bytes;
    bool granted = net->grantee == conn->id && whole > 0; /* for this frame, not for the next */
    if ((granted || exact >= BIG_FRAME_BYTES) && exact < room)
        return exact; /* so that no part of the next frame has to be moved */
    return room;
}

/* ---- Receiving */

/* Let the kernel wake us when a good piece of a big frame is there, not for each segment. */
static void lowat_set(cl_conn *conn)
{
    uint64_t whole = frame_bytes(conn), have = conn->end - conn->start;
    int wanted = 1;
    if (whole > have + LOWAT_FROM_BYTES) {
        uint64_t rest = whole - have;
        wanted = (int)(rest < CL_LOWAT_BYTES_MAX ? rest : CL_LOWAT_BYTES_MAX);
    }
    if (wanted == conn->lowat_bytes || conn->is_link)
        return;
    if (setsockopt(conn->fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted) == 0)
        conn->lowat_bytes = wanted;
}

/* One recv; false if there is nothing (more) to be had. */
static bool receive(cl_net *net, cl_conn *conn, uint64_t size)
{
    uint8_t *memory = conn->buffer.memory + conn->end;
    ssize_t got;
    do
        got = conn->is_link ? read(conn->fd, memory, size)
                            : recv(conn->fd, memory, size, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
        conn->readable = false;
        if (conn->unheard)
            cl_conn_close(net, conn, CL_CLOSED_RESET); /* those were its last words */
        return false;
    }
    if (got <= 0) {
        cl_conn_close(net, conn, got == 0 ? CL_CLOSED_EOF : CL_CLOSED_RESET);
        return false;
    }
    conn->end += (uint64_t)got;
    conn->moved_ms = net->now_ms;
    if (conn->partial_ms < 0)
        conn->partial_ms = net->now_ms;
    if (net->grantee == conn->id)
        net->grantee_moved_ms = net->now_ms;
    if (conn->is_link)
        net->stats.link_bytes_in += got;
    else
        net->stats.bytes_in += got;
    if ((uint64_t)got < size && !conn->hung_up)
        conn->readable = false; /* a short read of a stream is its end for now: epoll(7) */
    return true;
}

void cl_conn_serve(cl_net *net, cl_conn *conn, cl_events *events)
{
    assert(conn->state == CL_CONN_OPEN);
    uint32_t frames = 0;
    uint64_t taken = 0;
    for (;;) {
        cut_result result = cut(net, conn, events, &frames);
        if (result == CUT_BAD)
            break;
        conn->uncut = result == CUT_LIMIT;
        if (result == CUT_HELD)
            hold(net, conn);
        if (result != CUT_ALL || !conn->readable || taken >= CL_TURN_BYTES_MAX)
            break;
        uint64_t size = room_make(net, conn);
        if (size == 0)
            break;
        if (size > CL_TURN_BYTES_MAX - taken)
            size = CL_TURN_BYTES_MAX - taken;
        uint64_t before = conn->end;
        if (!receive(net, conn, size))
            break;
        taken += conn->end - before;
    }
    if (!cl_linked(&conn->served))
        cl_list_push(&net->served, &conn->served);
    if (conn->state != CL_CONN_OPEN)
        return;
    if (!conn->readable)
        lowat_set(conn);
    if (conn->start == conn->end)
        conn->partial_ms = -1;
    else if (conn->partial_ms < 0)
        conn->partial_ms = net->now_ms;
    cl_conn_place(net, conn);
}

/* ---- Between polls */

void cl_conn_after_poll(cl_net *net, cl_conn *conn)
{
    assert(!cl_linked(&conn->served));
    if (conn->state == CL_CONN_CLOSED)
        conn->start = conn->end;
    uint64_t have = conn->end - conn->start;
    if (have == 0) {
        conn->start = conn->end = 0;
        if (conn->buffer.memory != NULL)
            cl_buffer_release(cl_conn_buffers(net, conn), &conn->buffer);
    } else if (conn->is_link) {
        ; /* keeps its memory for the rest of the frame, which comes in the pipe's pieces */
    } else if (have <= conn->buffer.capacity / SHRINK_RATIO && !conn->readable && !conn->uncut) {
        /* a client that sends a little and then nothing must not keep much of ours */
        if (cl_buffer_resize(&net->buffers, &conn->buffer, conn->start, have, have, false) == 0) {
            conn->start = 0;
            conn->end = have;
        }
    }
    cl_conn_bury(net, conn);
}

void cl_starved_retry(cl_net *net)
{
    if (cl_list_empty(&net->starved))
        return;
    cl_conn *conn = CL_ITEM(net->starved.next, cl_conn, ready);
    bool fits = cl_buffers_fit(&net->buffers, &conn->buffer, buffer_wanted(net, conn));
    bool can_go_on = !conn->paused && conn->backlog_bytes <= CL_BACKLOG_BYTES_MAX;
    if (!fits && net->grantee >= 0)
        return;
    if (!fits && can_go_on) { /* the others must not wait for one that waits itself */
        net->grantee = conn->id;
        net->grantee_moved_ms = net->now_ms;
    }
    cl_conn_unblock(net, conn);
}

void cl_grantee_check(cl_net *net)
{
    if (net->grantee < 0 || cl_list_empty(&net->starved))
        return;
    if (net->now_ms - net->grantee_moved_ms < net->stall_ms)
        return;
    cl_conn *conn = cl_conn_find(net, net->grantee);
    assert(conn != NULL);
    if (!conn->held) /* that one waits for us, not we for it */
        cl_conn_close(net, conn, CL_CLOSED_STALLED);
}
