// A connection: from the accepted socket to its end.
//
// h2o owns the socket's callbacks. The hook of h2o_socket_read_start() puts http_conn_on_read() before each of them, so
// that this file sees a connection before and after h2o has parsed what came. on_close, which h2o leaves to its user,
// ends the connection here; until then a struct http_conn may be reached through sock->on_close.data.
//
// Clear-text sockets are read here and not by h2o (H2O_SOCKET_FLAG_DONT_READ): the library reads until the kernel has
// no more, doubling its buffer each time, which for a fast sender means tens of megabytes in one go. TLS has to stay
// with the library, because the buffer of encrypted bytes is private to it.
#include "gateway/http_internal.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_close(void *data);

struct http_conn *http_conn_of_socket(const h2o_socket_t *sock)
{
    if (sock == NULL || sock->on_close.cb != on_close)
        return NULL;
    struct http_conn *conn = sock->on_close.data;
    sl_assert(conn->magic == HTTP_CONN_MAGIC);
    return conn;
}

struct http_conn *http_conn_of_request(const h2o_req_t *req)
{
    return http_conn_of_socket(req->conn->callbacks->get_socket(req->conn));
}

static void on_close(void *data)
{
    struct http_conn *conn = data;
    struct http_loop *loop = conn->loop;
    http_buffer_uncharge_input(conn);
    sl_assert(conn->unfinished_bytes == 0 && conn->held_bytes == 0); // h2o has freed every buffer of it
    if (http_here.conn == conn)
        http_here.conn = NULL;
    if (http_here.upgrading == conn)
        http_here.upgrading = NULL;
    if (conn->previous != NULL)
        conn->previous->next = conn->next;
    else
        loop->conns = conn->next;
    if (conn->next != NULL)
        conn->next->previous = conn->previous;
    if (conn->tracked)
        http_address_release(loop->server, &conn->peer);
    atomic_fetch_sub_explicit(&loop->connections, 1, memory_order_relaxed);
    free(conn->slots);
    free(conn->refused);
    conn->magic = 0;
    free(conn);
}

void http_conn_adopt(struct http_loop *loop, int fd, bool tls, const struct http_address *peer, bool tracked)
{
    struct http_conn *conn = h2o_mem_alloc(sizeof(*conn));
    int64_t now_ns = http_loop_now_ns(loop);
    *conn = (struct http_conn){.magic = HTTP_CONN_MAGIC,
                               .loop = loop,
                               .peer = *peer,
                               .tls = tls,
                               .tracked = tracked,
                               .accepted_ns = now_ns,
                               .active_ns = now_ns,
                               .next = loop->conns};
    if (loop->conns != NULL)
        loop->conns->previous = conn;
    loop->conns = conn;
    http_count(&loop->counters.accepted);
    int flags = H2O_SOCKET_FLAG_IS_ACCEPTED_CONNECTION | (tls ? 0 : H2O_SOCKET_FLAG_DONT_READ);
    conn->sock = h2o_evloop_socket_create(loop->evloop, fd, flags);
    conn->sock->on_close.cb = on_close;
    conn->sock->on_close.data = conn;
    h2o_accept(tls ? &loop->accept_tls : &loop->accept_plain, conn->sock);
}

// ---- reading

// The error that ends the connection, or NULL. *nothing: there was nothing to read after all.
static const char *read_some(struct http_conn *conn, bool *nothing)
{
    h2o_buffer_t **input = &conn->sock->input;
    size_t least = 4096, most = HTTP_READ_BYTES;
    if (conn->protocol == HTTP_2) {
        // Fill a buffer of HTTP_READ_BYTES; what an unfinished frame leaves behind (≤ 16,393 bytes) is moved to its
        // front.
        bool small = (*input)->bytes == NULL || (*input)->capacity < HTTP_READ_BYTES;
        least = small ? HTTP_READ_BYTES - (*input)->size : 16000;
    } else if (conn->phase == HTTP_BODY) {
        least = HTTP_READ_BYTES;
        most = (size_t)4 * HTTP_READ_BYTES;
    }
    h2o_iovec_t space = h2o_buffer_reserve(input, least);
    ssize_t got;
    do {
        got = read(h2o_socket_get_fd(conn->sock), space.base, space.len < most ? space.len : most);
    } while (got == -1 && errno == EINTR);
    if (got == 0)
        return h2o_socket_error_closed;
    if (got > 0)
        (*input)->size += (size_t)got;
    else if (errno == EAGAIN)
        *nothing = true;
    else
        return h2o_socket_error_io;
    return NULL;
}

static void after_read_http2(struct http_conn *conn)
{
    http_stream_return_window(conn);
    http_buffer_compact(&conn->sock->input);
    http_buffer_charge_input(conn, false);
    if (conn->doom != NULL) {
        http_stream_goaway(conn, true, -H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM);
        http_conn_close(conn, conn->doom);
    }
}

void http_conn_after_parse(struct http_conn *conn, uint64_t progress_before)
{
    struct http_loop *loop = conn->loop;
    if (conn->closing)
        return;
    if (conn->protocol == HTTP_2) {
        if (conn->sock->input->size == 0)
            conn->partial_ns = 0;
        else if (conn->partial_ns == 0 || conn->progress != progress_before)
            conn->partial_ns = http_loop_now_ns(loop);
        after_read_http2(conn);
    } else {
        http_buffer_charge_input(conn, conn->phase == HTTP_ANSWERING);
    }
    http_budget_enforce(loop);
}

static void http_conn_on_read(h2o_socket_t *sock, const char *err)
{
    struct http_conn *conn = http_conn_of_socket(sock);
    sl_assert(conn != NULL && http_here.conn == NULL);
    bool nothing = false;
    http_here.conn = conn;
    if (err == NULL && !conn->tls)
        err = read_some(conn, &nothing);
    uint64_t progress_before = conn->progress;
    if (!nothing)
        conn->read_cb(sock, err);
    http_here.stream = NULL;
    http_here.frame_type = -1;
    if (http_here.conn == conn)
        http_conn_after_parse(conn, progress_before);
    http_here.conn = NULL;
}

void h2o_socket_read_start(h2o_socket_t *sock, h2o_socket_cb cb)
{
    HTTP_HOOK_SEEN(h2o_socket_read_start);
    struct http_conn *conn = http_conn_of_socket(sock);
    if (conn != NULL) {
        if (conn->phase == HTTP_UPGRADING && conn->upgrade_stream != NULL) {
            // The 101 has been written: sock->data is the HTTP/2 connection now, and stream 1 is its first.
            conn->protocol = HTTP_2;
            conn->phase = HTTP_IDLE;
            conn->h1_request = NULL;
            h2o_http2_stream_t *stream = conn->upgrade_stream;
            conn->upgrade_stream = NULL;
            http_stream_track(conn, stream);
        }
        conn->read_cb = cb;
        cb = http_conn_on_read;
    }
    http_real.socket_read_start(sock, cb);
}

// ---- the end

void h2o_socket_close(h2o_socket_t *sock)
{
    HTTP_HOOK_SEEN(h2o_socket_close);
    struct http_conn *conn = http_conn_of_socket(sock);
    if (conn != NULL && !conn->closing) {
        conn->closing = true; // sock->data is dead from here on
        conn->closing_ns = http_loop_now_ns(conn->loop);
        if (conn->linger)
            http_linger_add(conn->loop, sock, conn->tls);
    }
    http_real.socket_close(sock);
}

void http_conn_doom(struct http_conn *conn, const char *why)
{
    if (conn->doom != NULL)
        return;
    conn->doom = why;
    http_count(&conn->loop->counters.closed_by_armour);
    if (sl_log_enabled(SL_DEBUG)) {
        char peer[64];
        http_address_text(&conn->peer, peer, sizeof(peer));
        sl_logf(SL_DEBUG, conn->loop->server->options.name, "connection closed", SL_STR("peer", peer),
                SL_STR("why", why));
    }
}

void http_conn_close(struct http_conn *conn, const char *why)
{
    if (why != NULL)
        http_conn_doom(conn, why);
    h2o_socket_t *sock = conn->sock;
    bool can_tell_h2o = !conn->closing && h2o_socket_is_reading(sock) && conn->phase != HTTP_UPGRADING &&
                        (conn->protocol == HTTP_2 || !h2o_socket_is_writing(sock));
    if (!can_tell_h2o) {
        shutdown(h2o_socket_get_fd(sock), SHUT_RDWR);
        return;
    }
    struct http_conn *outer = http_here.conn;
    http_here.conn = conn;
    conn->read_cb(sock, h2o_socket_error_closed);
    http_here.conn = outer == conn && http_here.conn == NULL ? NULL : outer;
}

void http_conn_drain(struct http_conn *conn)
{
    if (conn->draining || conn->closing)
        return;
    conn->draining = true;
    conn->draining_ns = http_loop_now_ns(conn->loop);
    if (conn->protocol == HTTP_2)
        http_stream_goaway(conn, false, 0);
}

void http_conn_close_all(struct http_loop *loop)
{
    for (struct http_conn *conn = loop->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->closing || conn->protocol != HTTP_1 || conn->h1_live == NULL) {
            http_conn_close(conn, NULL);
        } else {
            shutdown(h2o_socket_get_fd(conn->sock), SHUT_RDWR);
            http_request_abandon(conn->h1_live);
        }
    }
}
