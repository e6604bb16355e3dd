// Streams of HTTP/2: which ones are open, refusing one of them without losing the connection, and the budget of resets.
//
// Refusing. h2o knows only "reset" for a request that it does not want to receive to its end: for a body that is too
// long even with REFUSED_STREAM, which tells clients to send it again. Here such a stream is moved on as h2o itself
// does for invalid headers, to "request complete", and answered with a problem+json; its body is freed at once. What
// the client still sends on it is dropped frame by frame (http_armour_h2.c), and the bytes are given back to the
// connection's window, not to the stream's, so that at most one window (16 MiB) of it comes. When the answer has been
// written and the client has not ended its side, RST_STREAM(NO_ERROR) tells it to stop (RFC 9113 section 8.1).
#include "gateway/http_internal.h"

#include <string.h>

enum { SLOTS_FIRST = 16 };
#define STOP_UPLOAD_NS (SL_NS_PER_S / 2)

struct http_stream_slot *http_stream_find(struct http_conn *conn, uint32_t id)
{
    for (uint32_t i = conn->slot_count; i-- > 0;)
        if (conn->slots[i].id == id)
            return &conn->slots[i];
    return NULL;
}

void http_stream_track(struct http_conn *conn, h2o_http2_stream_t *stream)
{
    if (conn->slot_count == conn->slot_capacity) {
        conn->slot_capacity = conn->slot_capacity == 0 ? SLOTS_FIRST : conn->slot_capacity * 2;
        conn->slots = h2o_mem_realloc(conn->slots, conn->slot_capacity * sizeof(*conn->slots));
    }
    conn->slots[conn->slot_count++] =
        (struct http_stream_slot){.id = stream->stream_id, .stream = stream, .since_ns = http_loop_now_ns(conn->loop)};
}

static void forget(struct http_conn *conn, uint32_t id)
{
    struct http_stream_slot *slot = http_stream_find(conn, id);
    if (slot != NULL)
        *slot = conn->slots[--conn->slot_count];
}

void h2o_http2_conn_register_stream(h2o_http2_conn_t *h2conn, h2o_http2_stream_t *stream)
{
    HTTP_HOOK_SEEN(h2o_http2_conn_register_stream);
    struct http_conn *conn = http_conn_of_socket(h2conn->sock);
    if (conn != NULL)
        http_stream_track(conn, stream);
    if (h2conn->sock == NULL && http_here.upgrading != NULL) { // the first stream of an upgrade: no socket yet
        http_here.upgrading->upgrade_stream = stream;
        http_here.upgrading->phase = HTTP_UPGRADING;
    }
    http_real.register_stream(h2conn, stream);
}

// The stream is about to be freed.
void h2o_http2_conn_unregister_stream(h2o_http2_conn_t *h2conn, h2o_http2_stream_t *stream)
{
    HTTP_HOOK_SEEN(h2o_http2_conn_unregister_stream);
    struct http_conn *conn = http_conn_of_socket(h2conn->sock);
    if (conn != NULL) {
        forget(conn, stream->stream_id);
        conn->active_ns = http_loop_now_ns(conn->loop);
        struct http_refused_stream *refused = http_stream_find_refused(conn, stream->stream_id);
        if (refused != NULL)
            refused->answered_ns = conn->active_ns;
        if (http_here.stream == stream)
            http_here.stream = NULL;
    }
    http_real.unregister_stream(h2conn, stream);
}

// ---- refusing

struct http_refused_stream *http_stream_find_refused(struct http_conn *conn, uint32_t id)
{
    if (conn->refused == NULL)
        return NULL;
    for (uint32_t i = 0; i < HTTP_REFUSED_MAX; i++)
        if (conn->refused[i].id == id)
            return &conn->refused[i];
    return NULL;
}

void http_stream_remember_refused(struct http_conn *conn, uint32_t id, bool uploading)
{
    if (conn->refused == NULL) {
        size_t bytes = HTTP_REFUSED_MAX * sizeof(*conn->refused);
        conn->refused = memset(h2o_mem_alloc(bytes), 0, bytes);
    }
    conn->refused[conn->refused_next % HTTP_REFUSED_MAX] =
        (struct http_refused_stream){.id = id, .uploading = uploading};
    conn->refused_next++;
}

void http_stream_refuse(struct http_conn *conn, h2o_http2_stream_t *stream, int status, const char *detail,
                        bool uploading)
{
    h2o_http2_conn_t *h2conn = conn->sock->data;
    sl_assert(stream->state == H2O_HTTP2_STREAM_STATE_RECV_BODY);
    if (stream->_req_body != NULL)
        h2o_buffer_dispose(&stream->_req_body);
    stream->req.entity = h2o_iovec_init(NULL, 0);
    http_stream_remember_refused(conn, stream->stream_id, uploading);
    h2o_http2_stream_set_state(h2conn, stream, H2O_HTTP2_STREAM_STATE_REQ_PENDING);
    h2o_http2_stream_set_state(h2conn, stream, H2O_HTTP2_STREAM_STATE_SEND_HEADERS);
    http_request_refuse(&stream->req, status, detail);
}

void http_stream_stop_uploads(struct http_conn *conn, int64_t now_ns)
{
    h2o_http2_conn_t *h2conn = conn->sock->data;
    if (conn->refused == NULL || h2conn->state >= H2O_HTTP2_CONN_STATE_IS_CLOSING)
        return;
    for (uint32_t i = 0; i < HTTP_REFUSED_MAX; i++) {
        struct http_refused_stream *refused = &conn->refused[i];
        if (!refused->uploading || refused->answered_ns == 0 || now_ns - refused->answered_ns < STOP_UPLOAD_NS)
            continue;
        refused->uploading = false;
        http_real.encode_rst(&h2conn->_write.buf, refused->id, H2O_HTTP2_ERROR_NONE);
        h2o_http2_conn_request_write(h2conn);
    }
}

void http_stream_return_window(struct http_conn *conn)
{
    if (conn->skipped_bytes == 0)
        return;
    h2o_http2_conn_t *h2conn = conn->sock->data;
    h2o_http2_encode_window_update_frame(&h2conn->_write.buf, 0, (int32_t)conn->skipped_bytes);
    h2o_http2_conn_request_write(h2conn);
    conn->skipped_bytes = 0;
}

// ---- budgets of frames

static void begin_minute(struct http_conn *conn)
{
    int64_t now_ns = http_loop_now_ns(conn->loop);
    if (conn->minute_ns != 0 && now_ns - conn->minute_ns < 60 * SL_NS_PER_S)
        return;
    conn->minute_ns = now_ns;
    conn->resets = 0;
    conn->control_frames = 0;
}

// A reset shows twice (the stream, and the frame that tells the client), in either order: it counts once.
void http_stream_count_reset(struct http_conn *conn, uint32_t id)
{
    if (id == conn->last_reset_id)
        return;
    conn->last_reset_id = id;
    begin_minute(conn);
    if (++conn->resets > conn->loop->server->limits.resets_minute && HTTP_ARMED("resets"))
        http_conn_doom(conn, "too many resets");
}

void http_stream_count_control(struct http_conn *conn)
{
    begin_minute(conn);
    if (++conn->control_frames > conn->loop->server->limits.control_frames_minute && HTTP_ARMED("control-frames"))
        http_conn_doom(conn, "too many control frames");
}

// ---- farewell

void http_stream_goaway(struct http_conn *conn, bool last, int error)
{
    h2o_http2_conn_t *h2conn = conn->sock->data;
    if (h2conn->state != H2O_HTTP2_CONN_STATE_OPEN)
        return;
    // An HTTP/2 error code; h2o's encoder takes it negated.
    uint32_t last_id = last ? h2conn->pull_stream_ids.max_open : (uint32_t)INT32_MAX;
    h2o_http2_encode_goaway_frame(&h2conn->_write.buf, last_id, -error, h2o_iovec_init(NULL, 0));
    if (last)
        h2conn->state =
            H2O_HTTP2_CONN_STATE_HALF_CLOSED; // h2o closes when this is written and no stream is being answered
    h2o_http2_conn_request_write(h2conn);
}
