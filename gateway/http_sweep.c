// Once a second, every connection is looked at: time limits, stalled peers, idle connections, draining.
//
// The limits, and what ends a thing that is over one:
//   - a request being received (first byte to last): answered with 408; without a stream or a request to answer, closed
//   - an answer not read by the client: closed. Over HTTP/2 the client's window may hold an answer back without
//   anything
//     being stuck in the socket, so streams are looked at too
//   - a connection without a request: GOAWAY and closed. Bytes that are no request (PING) do not count as life
#include "gateway/http_internal.h"

#include <sys/socket.h>

#define CLOSING_NS (5 * SL_NS_PER_S) // for TLS's farewell
#define DRAIN_NS   SL_NS_PER_S       // between the first GOAWAY and the last: requests on their way may still arrive

static bool over(int64_t since_ns, int64_t now_ns, int64_t limit_ns)
{
    return since_ns != 0 && now_ns - since_ns >= limit_ns;
}

// A write that has not moved since the last sweeps. True when the connection was closed.
static bool check_stalled_write(struct http_conn *conn, int64_t now_ns)
{
    h2o_socket_t *sock = conn->sock;
    if (!h2o_socket_is_writing(sock)) {
        conn->writing_ns = 0;
        return false;
    }
    if (conn->writing_ns == 0 || conn->writing_seen != sock->bytes_written) {
        conn->writing_ns = now_ns;
        conn->writing_seen = sock->bytes_written;
        return false;
    }
    if (!over(conn->writing_ns, now_ns, conn->loop->server->limits.response_timeout_ns) || !HTTP_ARMED("stalled-write"))
        return false;
    shutdown(h2o_socket_get_fd(sock), SHUT_RDWR); // the write fails, and h2o closes
    http_conn_close(conn, "answer not read");
    return true;
}

// True when the connection was closed.
static bool check_stream(struct http_conn *conn, struct http_stream_slot *slot, int64_t now_ns)
{
    const struct http_limits *limits = &conn->loop->server->limits;
    h2o_http2_stream_t *stream = slot->stream;
    switch (stream->state) {
    case H2O_HTTP2_STREAM_STATE_RECV_BODY:
        if (over(slot->since_ns, now_ns, limits->request_timeout_ns)) {
            http_stream_refuse(conn, stream, 408, "the request was not complete in time", true);
            http_stream_count_reset(conn, slot->id);
        }
        return false;
    case H2O_HTTP2_STREAM_STATE_IDLE:
    case H2O_HTTP2_STREAM_STATE_RECV_HEADERS:
        if (!over(slot->since_ns, now_ns, limits->request_timeout_ns))
            return false;
        http_conn_close(conn, "headers not complete in time");
        return true;
    case H2O_HTTP2_STREAM_STATE_REQ_PENDING:
    case H2O_HTTP2_STREAM_STATE_SEND_HEADERS:
        return false; // the handler's time
    case H2O_HTTP2_STREAM_STATE_SEND_BODY:
    case H2O_HTTP2_STREAM_STATE_SEND_BODY_IS_FINAL:
    case H2O_HTTP2_STREAM_STATE_END_STREAM:
        if (slot->answering_ns == 0)
            slot->answering_ns = now_ns;
        if (!over(slot->answering_ns, now_ns, limits->response_timeout_ns) || !HTTP_ARMED("stalled-window"))
            return false;
        http_conn_close(conn, "answer not read");
        return true;
    }
    return false;
}

static void sweep_http2(struct http_conn *conn, int64_t now_ns)
{
    const struct http_limits *limits = &conn->loop->server->limits;
    if (over(conn->partial_ns, now_ns, limits->request_timeout_ns)) {
        http_conn_close(conn, "frame not complete in time");
        return;
    }
    for (uint32_t i = 0; i < conn->slot_count; i++)
        if (check_stream(conn, &conn->slots[i], now_ns))
            return;
    http_stream_stop_uploads(conn, now_ns);
    if (conn->slot_count != 0)
        return;
    bool idle = over(conn->active_ns, now_ns, limits->idle_timeout_ns);
    if (idle || (conn->draining && over(conn->draining_ns, now_ns, DRAIN_NS))) {
        http_stream_goaway(conn, true, 0);
        if (h2o_socket_is_writing(conn->sock))
            http_conn_close(conn, NULL); // nothing can be written to it: h2o would wait for that
    }
}

static void sweep_http1(struct http_conn *conn, int64_t now_ns)
{
    const struct http_limits *limits = &conn->loop->server->limits;
    if (over(conn->receiving_ns, now_ns, limits->request_timeout_ns)) {
        if (!http_request_refuse_h1(conn, 408, "the request was not complete in time"))
            http_conn_close(conn, "request not complete in time");
        return;
    }
    bool waiting = conn->phase == HTTP_IDLE && conn->receiving_ns == 0;
    if (waiting && (conn->draining || over(conn->active_ns, now_ns, limits->idle_timeout_ns)))
        http_conn_close(conn, NULL);
}

static void sweep_conn(struct http_conn *conn, int64_t now_ns)
{
    const struct http_limits *limits = &conn->loop->server->limits;
    if (conn->closing) {
        if (over(conn->closing_ns, now_ns, CLOSING_NS))
            shutdown(h2o_socket_get_fd(conn->sock), SHUT_RDWR);
        return;
    }
    bool old = limits->connection_age_ns > 0 && over(conn->accepted_ns, now_ns, limits->connection_age_ns);
    if (old || conn->loop->draining_ns != 0)
        http_conn_drain(conn);
    if (conn->doom != NULL) {
        http_conn_close(conn, NULL); // it has been told, or its budget ran out in an earlier sweep
        return;
    }
    if (check_stalled_write(conn, now_ns))
        return;
    if (conn->protocol == HTTP_2)
        sweep_http2(conn, now_ns);
    else
        sweep_http1(conn, now_ns);
}

void http_sweep(struct http_loop *loop)
{
    int64_t now_ns = http_loop_now_ns(loop);
    for (struct http_conn *conn = loop->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        sweep_conn(conn, now_ns);
    }
    http_proxy_sweep(loop, now_ns);
    http_linger_sweep(loop, now_ns);
    loop->budget_next = 0;
    http_budget_enforce(loop);
}

void http_loop_drain(struct http_loop *loop)
{
    if (loop->draining_ns != 0)
        return;
    loop->draining_ns = http_loop_now_ns(loop);
    // h2o_context_request_shutdown() would do this, and start a timer that after a second throws uploads away.
    loop->context.shutdown_requested = 1;
    for (struct http_conn *conn = loop->conns; conn != NULL; conn = conn->next)
        http_conn_drain(conn);
}
