/* Sends answers: one gather call now, the rest when the socket takes it. */
#include "net.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define VECTOR_MAX 1024
#define VECTOR_FLUSH_MAX 64
#define SMALL_BYTES 16384 /* an answer that waits behind nobody's large one */
#define BACKLOG_COPIED_MAX (256u * 1024u * 1024u) /* of all clients, and of each link */

static cl_range range_at(const void *ranges, uint32_t at)
{
    cl_range range;
    memcpy(&range, (const uint8_t *)ranges + at * sizeof range, sizeof range);
    return range;
}

/* Where a range lies; NULL if it is outside of its memory. */
static const uint8_t *range_memory(const cl_net *net, const cl_range *range, const uint8_t *heads,
                                   uint64_t heads_bytes)
{
    if (range->chunk == CL_NO_CHUNK) {
        if (range->position > heads_bytes || range->size > heads_bytes - range->position)
            return NULL;
        return heads + range->position;
    }
    int64_t capacity = cl_arena_capacity(net->arena, range->chunk);
    if (capacity < 0 || range->position > (uint64_t)capacity ||
        range->size > (uint64_t)capacity - range->position)
        return NULL;
    return cl_pointer(cl_arena_address(net->arena, range->chunk)) + range->position;
}

/* Send vector; returns the bytes taken (0 when the socket is full), or a negative errno. */
static int64_t transmit(cl_net *net, cl_conn *conn, struct iovec *vector, size_t count)
{
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = count};
    for (;;) {
        ssize_t sent = conn->is_link
                           ? writev(conn->write_fd, vector, (int)count)
                           : sendmsg(conn->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            conn->moved_ms = net->now_ms;
            *(conn->is_link ? &net->stats.link_bytes_out : &net->stats.bytes_out) += sent;
            return sent;
        }
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

/* How much one connection may send now: what large answers have left of the turn, or a little. */
static uint64_t turn_rest(const cl_net *net)
{
    int64_t rest = net->sent_end - cl_net_sent(net);
    return (uint64_t)(rest > SMALL_BYTES ? rest : SMALL_BYTES);
}

/* The other side takes nothing any more. */
static void broken(cl_net *net, cl_conn *conn)
{
    if (conn->is_link)
        cl_link_unheard(net, conn);
    else
        cl_conn_close(net, conn, CL_CLOSED_RESET);
}

/* ---- What the socket does not take */

static void backlog_count(cl_net *net, cl_conn *conn, int64_t bytes, int64_t copied)
{
    conn->backlog_bytes += (uint64_t)bytes;
    conn->backlog_bytes_copied += (uint64_t)copied;
    if (conn->is_link) {
        net->stats.link_backlog_bytes += bytes;
        return;
    }
    net->stats.backlog_bytes += bytes;
    net->stats.backlog_bytes_copied += copied;
}

static int unsent_push(cl_net *net, cl_conn *conn, int64_t chunk, const uint8_t *at, uint64_t size)
{
    uint64_t copied = chunk == CL_NO_CHUNK ? size : 0;
    uint64_t copied_before = conn->is_link ? conn->backlog_bytes_copied
                                           : (uint64_t)net->stats.backlog_bytes_copied;
    if (copied > BACKLOG_COPIED_MAX - copied_before)
        return -ENOBUFS;
    cl_unsent *piece = malloc(sizeof *piece + copied);
    if (piece == NULL)
        return -ENOMEM;
    *piece = (cl_unsent){.chunk = chunk, .at = at, .size = size, .copied = copied};
    if (copied > 0) {
        memcpy(piece + 1, at, copied);
        piece->at = (const uint8_t *)(piece + 1);
    }
    if (chunk != CL_NO_CHUNK) {
        int status = cl_arena_retain(net->arena, chunk);
        assert(status == 0);
    }
    if (conn->unsent == NULL)
        conn->unsent = piece;
    else
        conn->unsent_last->next = piece;
    conn->unsent_last = piece;
    backlog_count(net, conn, (int64_t)size, (int64_t)copied);
    return 0;
}

static void unsent_pop(cl_net *net, cl_conn *conn)
{
    cl_unsent *piece = conn->unsent;
    assert(piece != NULL);
    if (piece->chunk != CL_NO_CHUNK) {
        int status = cl_arena_release(net->arena, piece->chunk);
        assert(status == 0);
    }
    conn->unsent = piece->next;
    backlog_count(net, conn, -(int64_t)piece->size, -(int64_t)piece->copied);
    free(piece);
}

void cl_unsent_drop(cl_net *net, cl_conn *conn)
{
    while (conn->unsent != NULL)
        unsent_pop(net, conn);
    assert(conn->backlog_bytes == 0);
}

/* Take sent bytes off the front of the backlog. */
static void unsent_advance(cl_net *net, cl_conn *conn, uint64_t sent)
{
    while (sent > 0) {
        cl_unsent *piece = conn->unsent;
        assert(piece != NULL);
        if (sent >= piece->size) {
            sent -= piece->size;
            unsent_pop(net, conn);
            continue;
        }
        piece->at += sent;
        piece->size -= sent;
        backlog_count(net, conn, -(int64_t)sent, 0);
        return;
    }
}

void cl_conn_flush(cl_net *net, cl_conn *conn)
{
    assert(conn->state == CL_CONN_OPEN);
    cl_list_remove(&conn->flush);
    if (conn->unsent == NULL)
        return;
    uint64_t allowed = turn_rest(net);
    while (conn->unsent != NULL) {
        if (allowed == 0) {
            cl_list_push(&net->flushing, &conn->flush);
            break;
        }
        struct iovec vector[VECTOR_FLUSH_MAX];
        size_t count = 0;
        uint64_t offered = 0;
        for (cl_unsent *piece = conn->unsent;
             piece != NULL && count < VECTOR_FLUSH_MAX && offered < allowed;
             piece = piece->next, count++) {
            uint64_t size = piece->size < allowed - offered ? piece->size : allowed - offered;
            vector[count] = (struct iovec){(void *)(uintptr_t)piece->at, size};
            offered += size;
        }
        int64_t sent = transmit(net, conn, vector, count);
        if (sent < 0) {
            broken(net, conn);
            return;
        }
        if (sent == 0)
            break;
        allowed -= (uint64_t)sent;
        unsent_advance(net, conn, (uint64_t)sent);
    }
    if (conn->unsent == NULL && !conn->drained) {
        conn->drained = true;
        cl_list_push(&net->reports, &conn->report);
    }
    cl_conn_place(net, conn);
}

void cl_flush_turns(cl_net *net)
{
    cl_link turn;
    cl_list_init(&turn);
    for (cl_link *link = cl_list_pop(&net->flushing); link != NULL;
         link = cl_list_pop(&net->flushing))
        cl_list_push(&turn, link);
    while (!cl_list_empty(&turn) && cl_net_sent(net) < net->sent_end) /* the rest: next poll */
        cl_conn_flush(net, CL_ITEM(cl_list_pop(&turn), cl_conn, flush)); /* back at the end */
    while (!cl_list_empty(&turn)) /* not served: they stay in front */
        cl_list_push_front(&net->flushing, turn.previous);
}

/* ---- Sending */

typedef struct {
    const void *ranges;
    uint32_t count;
    const uint8_t *heads;
    uint64_t heads_bytes;
    uint32_t at;   /* the first range that is not sent */
    uint64_t skip; /* bytes of it that are */
} outgoing;

/* The next bytes of out's range number at; its whole memory was checked before. */
static struct iovec outgoing_piece(const cl_net *net, const outgoing *out, uint32_t at,
                                   int64_t *chunk)
{
    cl_range range = range_at(out->ranges, at);
    const uint8_t *memory = range_memory(net, &range, out->heads, out->heads_bytes);
    assert(memory != NULL);
    uint64_t skip = at == out->at ? out->skip : 0;
    *chunk = range.chunk;
    return (struct iovec){(void *)(uintptr_t)(memory + skip), range.size - skip};
}

static void outgoing_advance(const cl_net *net, outgoing *out, uint64_t sent)
{
    while (out->at < out->count) {
        int64_t chunk;
        uint64_t rest = outgoing_piece(net, out, out->at, &chunk).iov_len;
        if (sent < rest) {
            out->skip += sent;
            return;
        }
        sent -= rest;
        out->at++;
        out->skip = 0;
    }
    assert(sent == 0);
}

/* Send until the socket is full, all is sent, or the limit of the turn is reached. */
static int send_now(cl_net *net, cl_conn *conn, outgoing *out)
{
    struct iovec vector[VECTOR_MAX];
    uint64_t allowed = turn_rest(net);
    while (out->at < out->count) {
        if (allowed == 0) {
            cl_list_push(&net->flushing, &conn->flush);
            return 0;
        }
        size_t count = 0;
        uint64_t offered = 0;
        int64_t chunk;
        for (uint32_t at = out->at; at < out->count && count < VECTOR_MAX && offered < allowed;
             at++) {
            struct iovec piece = outgoing_piece(net, out, at, &chunk);
            if (piece.iov_len > allowed - offered)
                piece.iov_len = allowed - offered;
            offered += piece.iov_len;
            vector[count++] = piece;
        }
        int64_t sent = transmit(net, conn, vector, count);
        if (sent < 0)
            return (int)sent;
        allowed -= (uint64_t)sent;
        outgoing_advance(net, out, (uint64_t)sent);
        if (sent == 0 && out->at < out->count)
            return 0;
    }
    return 0;
}

static int keep_rest(cl_net *net, cl_conn *conn, const outgoing *out)
{
    for (uint32_t at = out->at; at < out->count; at++) {
        int64_t chunk;
        struct iovec piece = outgoing_piece(net, out, at, &chunk);
        if (piece.iov_len == 0)
            continue;
        int status = unsent_push(net, conn, chunk, piece.iov_base, piece.iov_len);
        if (status < 0)
            return status;
    }
    return 0;
}

int64_t cl_net_send(cl_net *net, int64_t id, const void *heads, uint64_t heads_bytes,
                    const void *ranges, uint32_t range_count)
{
    assert(heads != NULL || heads_bytes == 0);
    assert(ranges != NULL || range_count == 0);
    for (uint32_t at = 0; at < range_count; at++) {
        cl_range range = range_at(ranges, at);
        if (range_memory(net, &range, heads, heads_bytes) == NULL)
            return -EINVAL;
    }
    cl_conn *conn = cl_conn_find(net, id);
    if (conn == NULL || conn->unheard)
        return 0;
    outgoing out = {
        .ranges = ranges, .count = range_count, .heads = heads, .heads_bytes = heads_bytes};
    if (conn->unsent == NULL && send_now(net, conn, &out) < 0) {
        broken(net, conn);
        cl_net_wake(net);
        return 0;
    }
    int status = keep_rest(net, conn, &out);
    if (status < 0) {
        cl_conn_close(net, conn, status == -ENOBUFS ? CL_CLOSED_BACKLOG : CL_CLOSED_MEMORY);
        cl_net_wake(net);
        return 0;
    }
    cl_conn_place(net, conn);
    return (int64_t)conn->backlog_bytes;
}
