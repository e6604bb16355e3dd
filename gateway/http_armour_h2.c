// The armour of HTTP/2: every frame and every header block passes here on its way into h2o's parser.
//
// What it is against, and what it does:
//   - rapid reset, and clients that make the server reset: counted (http_stream_count_reset), then GOAWAY, at the frame
//   - HPACK bombs: a block over header_block_bytes, or with more fields than any client sends, ends the connection
//   before
//     it is decoded; a block with somewhat too many fields is decoded (the compression state has to follow) and
//     answered 431
//   - CONTINUATION floods: bytes and frames of a block are counted as they come
//   - PING, SETTINGS, PRIORITY, unknown and empty frames without end: counted
//   - priorities: dropped (RFC 9113 section 5.3 has deprecated them); h2o's scheduler tree is no concern of a client's
//   - unknown frames: dropped without h2o's line on stderr
//   - bodies that are too long: content-length is believed at once (413), the rest is caught where h2o would reset
//   - an assertion in h2o that a client can trip: WINDOW_UPDATE, or SETTINGS that raise the window, for a stream whose
//     answer has used up its window exactly and is still being written ("aborts update_stream_output_window")
//   - trailers: h2o merges them into the headers, where they could pass for signed or authorising ones; dropped
//   - CONTINUATION after GOAWAY: h2o would consume nothing, for ever
//
// A frame is dropped by turning it into a SETTINGS acknowledgement, the frame without consequences.
#include "gateway/http_internal.h"

enum {
    FIELDS_HARD = 512,      // in one block: beyond it nothing is decoded
    PSEUDO_FIELDS_MAX = 4,  // :method :scheme :authority :path
    CONTINUATIONS_MAX = 64, // of one block
    WINDOW_OUT_OF_THE_WAY = 1 << 20,
};

void h2o_http2_accept(h2o_accept_ctx_t *ctx, h2o_socket_t *sock, struct timeval connected_at)
{
    HTTP_HOOK_SEEN(h2o_http2_accept);
    struct http_conn *conn = http_conn_of_socket(sock), *outer = http_here.conn;
    if (conn != NULL) {
        conn->protocol = HTTP_2;
        conn->phase = HTTP_IDLE;
        conn->receiving_ns = 0;
        conn->h1_request = NULL;
        conn->active_ns = http_loop_now_ns(conn->loop);
        http_here.conn = conn;
    }
    http_real.http2_accept(ctx, sock, connected_at); // parses what has been read; `conn` may be gone afterwards
    if (outer == NULL && conn != NULL && http_here.conn == conn)
        http_conn_after_parse(conn, 0); // not inside of a read: TLS, after its last flight was written
    http_here.conn = outer != NULL && http_here.conn == NULL ? NULL : outer;
}

// ---- frames

static void drop(h2o_http2_frame_t *frame)
{
    frame->type = H2O_HTTP2_FRAME_TYPE_SETTINGS;
    frame->flags = H2O_HTTP2_FRAME_FLAG_ACK;
    frame->stream_id = 0;
    frame->length = 0;
    http_here.frame_type = -1;
}

static void on_data(struct http_conn *conn, h2o_http2_frame_t *frame)
{
    struct http_stream_slot *slot = http_stream_find(conn, frame->stream_id);
    http_here.stream = slot != NULL ? slot->stream : NULL;
    bool ended = (frame->flags & H2O_HTTP2_FRAME_FLAG_END_STREAM) != 0;
    if (frame->length == 0 && !ended)
        http_stream_count_control(conn);
    if (slot != NULL && slot->stream->state == H2O_HTTP2_STREAM_STATE_RECV_BODY)
        return;
    struct http_refused_stream *refused = http_stream_find_refused(conn, frame->stream_id);
    if (refused == NULL)
        return;
    if (ended)
        refused->uploading = false;
    conn->skipped_bytes += frame->length;
    drop(frame);
}

// Takes the priority out of a HEADERS frame. What is malformed is left for h2o to complain about.
static void strip_priority(h2o_http2_frame_t *frame)
{
    enum { PRIORITY_BYTES = 5 };
    size_t padding = 0, front = PRIORITY_BYTES;
    if ((frame->flags & H2O_HTTP2_FRAME_FLAG_PADDED) != 0) {
        if (frame->length < 1)
            return;
        padding = frame->payload[0];
        front++;
    }
    if (frame->length < front + padding)
        return;
    frame->payload += front;
    frame->length -= (uint32_t)(front + padding);
    frame->flags &= (uint8_t) ~(H2O_HTTP2_FRAME_FLAG_PADDED | H2O_HTTP2_FRAME_FLAG_PRIORITY);
}

static void on_block(struct http_conn *conn, const h2o_http2_frame_t *frame)
{
    conn->block_bytes = conn->block_frames == 0 ? frame->length : conn->block_bytes + frame->length;
    conn->block_frames++;
    if (HTTP_ARMED("continuation") && (conn->block_bytes > conn->loop->server->limits.header_block_bytes + 512 ||
                                       conn->block_frames > CONTINUATIONS_MAX))
        http_conn_doom(conn, "header block too long"); // 512: padding and priority, which are in the first frame only
    if ((frame->flags & H2O_HTTP2_FRAME_FLAG_END_HEADERS) != 0)
        conn->block_frames = 0;
}

// Streams that are written out keep their window out of the way of h2o's assertion.
static void on_settings(struct http_conn *conn, const h2o_http2_frame_t *frame)
{
    if ((frame->flags & H2O_HTTP2_FRAME_FLAG_ACK) != 0)
        return;
    http_stream_count_control(conn);
    if (!HTTP_ARMED("window-assertion"))
        return;
    for (uint32_t i = 0; i < conn->slot_count; i++)
        if (conn->slots[i].stream->state == H2O_HTTP2_STREAM_STATE_END_STREAM)
            conn->slots[i].stream->output_window._avail = WINDOW_OUT_OF_THE_WAY;
}

static void on_window_update(struct http_conn *conn, h2o_http2_frame_t *frame)
{
    struct http_stream_slot *slot = frame->stream_id != 0 ? http_stream_find(conn, frame->stream_id) : NULL;
    if (slot != NULL && slot->stream->state == H2O_HTTP2_STREAM_STATE_END_STREAM && frame->length == 4 &&
        HTTP_ARMED("window-assertion"))
        drop(frame);
}

static void on_frame(struct http_conn *conn, h2o_http2_frame_t *frame)
{
    switch (frame->type) {
    case H2O_HTTP2_FRAME_TYPE_DATA:
        on_data(conn, frame);
        break;
    case H2O_HTTP2_FRAME_TYPE_HEADERS:
        if ((frame->flags & H2O_HTTP2_FRAME_FLAG_PRIORITY) != 0)
            strip_priority(frame);
        conn->headers_end_stream = (frame->flags & H2O_HTTP2_FRAME_FLAG_END_STREAM) != 0;
        on_block(conn, frame);
        break;
    case H2O_HTTP2_FRAME_TYPE_CONTINUATION:
        on_block(conn, frame);
        break;
    case H2O_HTTP2_FRAME_TYPE_SETTINGS:
        on_settings(conn, frame);
        break;
    case H2O_HTTP2_FRAME_TYPE_WINDOW_UPDATE:
        on_window_update(conn, frame);
        break;
    case H2O_HTTP2_FRAME_TYPE_PRIORITY:
        http_stream_count_control(conn);
        if (frame->length == 5 && frame->stream_id != 0)
            drop(frame);
        break;
    case H2O_HTTP2_FRAME_TYPE_RST_STREAM:
        if (http_stream_find(conn, frame->stream_id) == NULL)
            http_stream_count_control(conn);
        break;
    case H2O_HTTP2_FRAME_TYPE_PUSH_PROMISE:
        break;
    case H2O_HTTP2_FRAME_TYPE_PING:
    case H2O_HTTP2_FRAME_TYPE_GOAWAY:
        http_stream_count_control(conn);
        break;
    default:
        http_stream_count_control(conn);
        if (HTTP_ARMED("unknown-frames"))
            drop(frame);
        break;
    }
}

ssize_t h2o_http2_decode_frame(h2o_http2_frame_t *frame, const uint8_t *src, size_t len,
                               const h2o_http2_settings_t *host_settings, const char **err_desc)
{
    HTTP_HOOK_SEEN(h2o_http2_decode_frame);
    struct http_conn *conn = http_here.conn;
    http_here.frame_type = -1;
    http_here.stream = NULL;
    if (conn == NULL || conn->protocol != HTTP_2 || (const uint8_t *)conn->sock->input->bytes != src)
        return H2O_HTTP2_ERROR_PROTOCOL_CLOSE_IMMEDIATELY; // not on one of the three ways in: see invariant 4
    ssize_t used = http_real.decode_frame(frame, src, len, host_settings, err_desc);
    if (used >= 0 && conn->doom == NULL) {
        h2o_http2_conn_t *h2conn = conn->sock->data;
        bool in_block = conn->block_frames != 0;
        if (in_block && h2conn->state >= H2O_HTTP2_CONN_STATE_HALF_CLOSED)
            return H2O_HTTP2_ERROR_PROTOCOL_CLOSE_IMMEDIATELY;
        conn->progress++;
        http_here.frame_type = frame->type;
        http_here.frame_flags = frame->flags;
        http_here.stream_id = frame->stream_id;
        if (!in_block || frame->type == H2O_HTTP2_FRAME_TYPE_CONTINUATION) // else h2o ends the connection
            on_frame(conn, frame);
    }
    if (conn->doom != NULL) {
        *err_desc = conn->doom;
        return H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM;
    }
    return used;
}

// ---- header blocks

static bool skip_integer(struct sl_reader *block, uint8_t first, unsigned prefix_bits, uint32_t *value)
{
    uint32_t most = (1u << prefix_bits) - 1;
    *value = first & most;
    if (*value != most)
        return true;
    for (unsigned shift = 0; shift < 28; shift += 7) {
        uint8_t byte = sl_read_u8(block);
        *value += (uint32_t)(byte & 127) << shift;
        if ((byte & 128) == 0)
            return !block->failed;
    }
    return false;
}

static bool skip_string(struct sl_reader *block)
{
    uint32_t length;
    return skip_integer(block, sl_read_u8(block), 7, &length) && (sl_read_span(block, length), !block->failed);
}

// The number of fields of a block (RFC 7541 section 6) without decoding them; up to the first thing that is malformed,
// which is where h2o stops, too.
static uint32_t count_fields(const uint8_t *src, size_t length)
{
    struct sl_reader block = sl_reader_of(src, length);
    uint32_t fields = 0, index;
    while (!block.failed && block.position < length) {
        uint8_t first = sl_read_u8(&block);
        bool literal = first < 128, size_update = first >= 32 && first < 64;
        unsigned bits = !literal ? 7 : first >= 64 ? 6 : size_update ? 5 : 4;
        if (!skip_integer(&block, first, bits, &index))
            break;
        if (size_update)
            continue;
        fields++;
        if (literal && ((index == 0 && !skip_string(&block)) || !skip_string(&block)))
            break;
    }
    return fields;
}

static void refuse_headers(struct http_conn *conn, const h2o_req_t *req, int status, const char *detail)
{
    conn->refusal = (struct http_refusal){.request = req, .status = status, .detail = detail};
}

// What h2o would let pass. True when the request is to be refused.
static bool check_headers(struct http_conn *conn, const h2o_req_t *req, uint32_t fields, size_t content_length)
{
    const struct http_limits *limits = &conn->loop->server->limits;
    conn->refusal.request = NULL;
    if (fields > limits->header_count + PSEUDO_FIELDS_MAX && HTTP_ARMED("header-count"))
        refuse_headers(conn, req, 431, "too many header fields");
    else if (content_length != SIZE_MAX && content_length > limits->body_bytes)
        refuse_headers(conn, req, 413, "the body is longer than this server takes");
    else if (content_length != SIZE_MAX && content_length > 0 && conn->headers_end_stream &&
             HTTP_ARMED("content-length"))
        refuse_headers(conn, req, 400, "a content-length without a body");
    return conn->refusal.request != NULL;
}

int h2o_hpack_parse_headers(h2o_req_t *req, h2o_hpack_header_table_t *header_table, const uint8_t *src, size_t len,
                            int *pseudo_header_exists_map, size_t *content_length, h2o_cache_digests_t **digests,
                            const char **err_desc)
{
    HTTP_HOOK_SEEN(h2o_hpack_parse_headers);
    (void)digests; // a browser's cache: nothing that a client of ours should make h2o decode
    struct http_conn *conn = http_conn_of_request(req);
    if (conn == NULL)
        return H2O_HTTP2_ERROR_INTERNAL;
    // A field takes a byte at least: a short block cannot hold too many.
    bool short_block = len <= conn->loop->server->limits.header_count + PSEUDO_FIELDS_MAX;
    uint32_t fields = short_block ? 0 : count_fields(src, len);
    if (HTTP_ARMED("hpack") && (len > conn->loop->server->limits.header_block_bytes || fields > FIELDS_HARD)) {
        http_conn_doom(conn, "header block too long");
        *err_desc = conn->doom;
        return H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM;
    }
    size_t headers_before = req->headers.size;
    int result =
        http_real.parse_headers(req, header_table, src, len, pseudo_header_exists_map, content_length, NULL, err_desc);
    if (pseudo_header_exists_map == NULL) {
        if (HTTP_ARMED("trailers"))
            req->headers.size = headers_before;
        return result == H2O_HTTP2_ERROR_INVALID_HEADER_CHAR ? H2O_HTTP2_ERROR_PROTOCOL : result;
    }
    if (result == 0 && check_headers(conn, req, fields, *content_length)) {
        *err_desc = conn->refusal.detail;
        return H2O_HTTP2_ERROR_INVALID_HEADER_CHAR; // h2o answers such a stream with 400; see h2o_send_error_generic
    }
    return result;
}

// ---- resets

void h2o_http2__encode_rst_stream_frame(h2o_buffer_t **buf, uint32_t stream_id, int errnum)
{
    HTTP_HOOK_SEEN(h2o_http2__encode_rst_stream_frame);
    struct http_conn *conn = http_here.conn;
    if (conn != NULL && http_here.frame_type == H2O_HTTP2_FRAME_TYPE_DATA && http_here.stream_id == stream_id &&
        http_here.stream != NULL && HTTP_ARMED("answer-413")) {
        // In a DATA frame, h2o resets with these two for a body that is too long, or that got no buffer. The call of
        // h2o_http2_stream_reset() that follows answers instead.
        bool too_long = errnum == -H2O_HTTP2_ERROR_REFUSED_STREAM;
        if (too_long || (errnum == -H2O_HTTP2_ERROR_STREAM_CLOSED && http_here.body_refused)) {
            http_here.body_refused = false;
            http_here.refuse_id = stream_id;
            http_here.refuse_status = too_long ? 413 : 503;
            return;
        }
    }
    if (conn != NULL) {
        http_stream_count_reset(conn, stream_id);
        if (http_stream_find(conn, stream_id) == NULL)
            http_stream_count_control(conn); // the same closed stream, over and over
    }
    http_real.encode_rst(buf, stream_id, errnum);
}

void h2o_http2_stream_reset(h2o_http2_conn_t *h2conn, h2o_http2_stream_t *stream)
{
    HTTP_HOOK_SEEN(h2o_http2_stream_reset);
    struct http_conn *conn = http_conn_of_socket(h2conn->sock);
    http_here.body_refused = false;
    if (conn != NULL) {
        http_stream_count_reset(conn, stream->stream_id);
        if (http_here.refuse_id == stream->stream_id && http_here.conn == conn) {
            bool uploading = (http_here.frame_flags & H2O_HTTP2_FRAME_FLAG_END_STREAM) == 0;
            http_here.refuse_id = 0;
            http_here.stream = NULL;
            http_stream_refuse(conn, stream, http_here.refuse_status,
                               http_here.refuse_status == 413
                                   ? "the body is longer than this server takes"
                                   : "too many bytes of unfinished bodies on this connection",
                               uploading);
            return;
        }
    }
    http_real.stream_reset(h2conn, stream);
}
