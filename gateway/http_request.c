// Requests: from h2o's handler to the user, the answer, and the end.
//
// A request's state lies in h2o's request pool; h2o_req_t.filereq, a slot for handlers of files that are not used here,
// points to it. Its end is seen by an access logger, the one callback that h2o makes for each request whatever became
// of it, before the pool is cleared.
#include "gateway/http_internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static struct http_request *request_of(const h2o_req_t *req)
{
    return (struct http_request *)(void *)req->filereq;
}

static const char *reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 413:
        return "Content Too Large";
    case 415:
        return "Unsupported Media Type";
    case 417:
        return "Expectation Failed";
    case 422:
        return "Unprocessable Content";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 503:
        return "Service Unavailable";
    default:
        return status < 400 ? "OK" : "Error";
    }
}

// ---- answering

static h2o_generator_t no_generator;

// Body and headers are in the request's pool already.
static void send_answer(h2o_req_t *req, int status, char *body, size_t body_length)
{
    req->res.status = status;
    req->res.reason = reason_of(status);
    req->res.content_length = status == 204 || status == 304 ? SIZE_MAX : body_length;
    h2o_start_response(req, &no_generator);
    h2o_iovec_t payload = {.base = body, .len = body_length};
    bool bare = body_length == 0 || h2o_memis(req->input.method.base, req->input.method.len, H2O_STRLIT("HEAD"));
    h2o_send(req, &payload, bare ? 0 : 1, H2O_SEND_STATE_FINAL);
}

// A header value must not hold what would begin another header.
static char *copy_value(char *to, struct sl_span value)
{
    const char *from = value.bytes;
    for (size_t i = 0; i < value.length; i++)
        *to++ = from[i] == '\r' || from[i] == '\n' || from[i] == '\0' ? ' ' : from[i];
    return to;
}

static void add_header(h2o_req_t *req, const struct http_header *header, char **room)
{
    size_t name_length = strlen(header->name);
    const h2o_token_t *token = h2o_lookup_token(header->name, name_length);
    char *value = *room;
    *room = copy_value(value, header->value);
    if (token != NULL) {
        h2o_add_header(&req->pool, &req->res.headers, token, NULL, value, header->value.length);
        return;
    }
    char *name = *room;
    memcpy(name, header->name, name_length);
    *room += name_length;
    h2o_add_header_by_str(&req->pool, &req->res.headers, name, name_length, 0, NULL, value, header->value.length);
}

static void answer(h2o_req_t *req, int status, const char *content_type, const struct http_header *headers,
                   size_t header_count, const void *body, size_t body_length)
{
    size_t type_length = content_type != NULL ? strlen(content_type) : 0, total = body_length + type_length;
    for (size_t i = 0; i < header_count; i++)
        total += strlen(headers[i].name) + headers[i].value.length;
    char *copy = h2o_mem_alloc_pool(&req->pool, total), *room = copy + body_length;
    if (body_length > 0)
        memcpy(copy, body, body_length);
    if (content_type != NULL) {
        memcpy(room, content_type, type_length);
        h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, room, type_length);
        room += type_length;
    }
    for (size_t i = 0; i < header_count; i++)
        add_header(req, &headers[i], &room);
    send_answer(req, status, copy, body_length);
}

void http_respond(struct http_request *request, int status, const char *content_type, const struct http_header *headers,
                  size_t header_count, const void *body, size_t body_length)
{
    sl_assert(request->magic == HTTP_REQUEST_MAGIC && !request->answered);
    request->answered = true;
    struct http_conn *conn = request->conn;
    if (conn->draining || conn->loop->draining_ns != 0)
        request->req->http1_is_persistent = 0;
    answer(request->req, status, content_type, headers, header_count, body, body_length);
}

// ---- the engine's own answers

static void count_refusal(struct http_loop *loop, int status)
{
    struct http_loop_counters *counters = &loop->counters;
    if (status == 413 || status == 503 || status == 408)
        http_count(&counters->refused_body);
    else if (status == 431)
        http_count(&counters->refused_headers);
    else
        http_count(&counters->refused_smuggling);
}

void http_request_refuse(h2o_req_t *req, int status, const char *detail)
{
    struct http_conn *conn = http_conn_of_request(req);
    struct http_loop *loop = conn->loop;
    if (conn->protocol == HTTP_1) {
        conn->phase = HTTP_ANSWERING;
        conn->receiving_ns = 0;
        conn->linger = true;
        req->http1_is_persistent = 0;
    }
    if (req->pathconf == NULL)
        h2o_req_bind_conf(req, loop->server->host, &loop->server->host->fallback_path);
    count_refusal(loop, status);
    const struct http_options *options = &loop->server->options;
    if (options->on_refused != NULL)
        options->on_refused(loop, status,
                            (struct sl_span){.bytes = req->input.path.base, .length = req->input.path.len},
                            options->user);
    char body[512];
    int length =
        snprintf(body, sizeof(body), "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\"}",
                 reason_of(status), status, detail);
    sl_assert(length > 0 && (size_t)length < sizeof(body));
    static const struct http_header retry_after = {.name = "retry-after", .value = {.bytes = "1", .length = 1}};
    answer(req, status, "application/problem+json", &retry_after, status == 503 ? 1 : 0, body, (size_t)length);
}

// h2o's own errors: 400, 413, 417.
void h2o_send_error_generic(h2o_req_t *req, int status, const char *reason, const char *body, int flags)
{
    HTTP_HOOK_SEEN(h2o_send_error_generic);
    (void)reason;
    (void)flags;
    struct http_conn *conn = http_conn_of_request(req);
    sl_assert(conn != NULL);
    const char *detail = body;
    if (conn->refusal.request == req) {
        status = conn->refusal.status;
        detail = conn->refusal.detail;
        conn->refusal.request = NULL;
    }
    if (conn->protocol == HTTP_2 && !conn->headers_end_stream) {
        const h2o_http2_stream_t *stream = H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, req);
        http_stream_remember_refused(conn, stream->stream_id, true);
    }
    http_request_refuse(req, status, detail);
}

bool http_request_refuse_h1(struct http_conn *conn, int status, const char *detail)
{
    h2o_socket_t *sock = conn->sock;
    if (conn->closing || h2o_socket_is_writing(sock) || !h2o_socket_is_reading(sock))
        return false;
    if (conn->phase == HTTP_HEAD && sock->input->size > 0) {
        // Parsed once more, where the hook finds the note.
        conn->refusal = (struct http_refusal){.request = conn->h1_request, .status = status, .detail = detail};
        conn->read_cb(sock, NULL);
        return true;
    }
    if (conn->phase != HTTP_BODY)
        return false;
    h2o_socket_read_stop(sock);
    h2o_buffer_consume(&sock->input, sock->input->size); // h2o has copied the head of a request with a body to its pool
    http_buffer_uncharge_input(conn);
    http_request_refuse(conn->h1_request, status, detail);
    return true;
}

// ---- h2o's handler and logger

static void begin_request(struct http_conn *conn, h2o_req_t *req)
{
    if (conn->protocol == HTTP_2) {
        h2o_http2_stream_t *stream = H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, req);
        if (stream->_req_body != NULL)
            http_buffer_hold(stream->_req_body);
    } else {
        conn->phase = HTTP_ANSWERING;
        conn->receiving_ns = 0;
        http_buffer_charge_input(conn, true);
    }
}

static int on_request(h2o_handler_t *self, h2o_req_t *req)
{
    (void)self;
    struct http_conn *conn = http_conn_of_request(req);
    struct http_loop *loop = conn->loop;
    begin_request(conn, req);
    if (conn->refusal.request == req) {
        conn->refusal.request = NULL;
        http_request_refuse(req, conn->refusal.status, conn->refusal.detail);
        return 0;
    }
    if (req->entity.len > loop->server->limits.body_bytes) {
        http_request_refuse(req, 413, "the body is longer than this server takes");
        return 0;
    }
    struct http_request *request = h2o_mem_alloc_pool(&req->pool, sizeof(*request));
    *request = (struct http_request){.magic = HTTP_REQUEST_MAGIC, .req = req, .conn = conn};
    req->filereq = (void *)request;
    if (conn->protocol == HTTP_1)
        conn->h1_live = request;
    conn->requests_live++;
    struct http_loop_counters *counters = &loop->counters;
    http_count(&counters->requests);
    atomic_store_explicit(&counters->requests_live,
                          atomic_load_explicit(&counters->requests_live, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    loop->server->options.on_request(request, loop->server->options.user);
    return 0;
}

static void tell_gone(struct http_request *request)
{
    bool tell = !request->answered && request->gone != NULL;
    request->answered = true;
    if (tell)
        request->gone(request->gone_user);
}

static void on_request_end(h2o_logger_t *self, h2o_req_t *req)
{
    (void)self;
    struct http_conn *conn = http_conn_of_request(req);
    if (conn == NULL)
        return;
    struct http_loop *loop = conn->loop;
    conn->active_ns = http_loop_now_ns(loop);
    if (conn->protocol == HTTP_1) {
        conn->phase = HTTP_IDLE;
        conn->receiving_ns = 0;
        conn->h1_live = NULL;
        http_buffer_uncharge_input(conn); // what follows in it is charged when it is looked at
    }
    struct http_request *request = request_of(req);
    if (request == NULL)
        return;
    conn->requests_live--;
    struct http_loop_counters *counters = &loop->counters;
    atomic_store_explicit(&counters->requests_live,
                          atomic_load_explicit(&counters->requests_live, memory_order_relaxed) - 1,
                          memory_order_relaxed);
    tell_gone(request);
    request->magic = 0;
}

void http_request_install(struct http_server *server)
{
    h2o_create_handler(&server->host->fallback_path, sizeof(h2o_handler_t))->on_req = on_request;
    h2o_create_logger(&server->host->fallback_path, sizeof(h2o_logger_t))->log_access = on_request_end;
}

void http_request_abandon(struct http_request *request)
{
    h2o_req_t *req = request->req;
    bool unanswered = !request->answered;
    tell_gone(request);
    if (!unanswered)
        return;
    req->http1_is_persistent = 0;
    answer(req, 503, NULL, NULL, 0, NULL, 0);
}

// ---- what the user may ask

struct http_loop *http_request_loop(const struct http_request *request)
{
    return request->conn->loop;
}

struct sl_span http_request_method(const struct http_request *request)
{
    return (struct sl_span){.bytes = request->req->method.base, .length = request->req->method.len};
}

struct sl_span http_request_path(const struct http_request *request)
{
    const h2o_req_t *req = request->req;
    return (struct sl_span){.bytes = req->path.base,
                            .length = req->query_at == SIZE_MAX ? req->path.len : req->query_at};
}

struct sl_span http_request_query(const struct http_request *request)
{
    const h2o_req_t *req = request->req;
    if (req->query_at == SIZE_MAX)
        return (struct sl_span){.bytes = "", .length = 0};
    return (struct sl_span){.bytes = req->path.base + req->query_at + 1, .length = req->path.len - req->query_at - 1};
}

struct sl_span http_request_body(const struct http_request *request)
{
    static const char empty[HTTP_BODY_PADDING];
    h2o_iovec_t entity = request->req->entity;
    if (entity.base == NULL)
        return (struct sl_span){.bytes = empty, .length = 0};
    return (struct sl_span){.bytes = entity.base, .length = entity.len};
}

void http_request_drop_body(struct http_request *request)
{
    // HTTP/1: the body lies in the request's pool or in the socket's input, and one connection has one of them.
    if (request->conn->protocol != HTTP_2)
        return;
    h2o_http2_stream_t *stream = H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, request->req);
    request->req->entity = h2o_iovec_init(NULL, 0);
    if (stream->_req_body != NULL)
        h2o_buffer_dispose(&stream->_req_body);
}

struct sl_span http_request_header(const struct http_request *request, const char *name, bool *repeated)
{
    const h2o_req_t *req = request->req;
    size_t length = strlen(name);
    if (repeated != NULL)
        *repeated = false;
    if (length == 4 && memcmp(name, "host", 4) == 0) // h2o keeps it, and :authority, apart
        return (struct sl_span){.bytes = req->input.authority.base, .length = req->input.authority.len};
    const h2o_token_t *token = h2o_lookup_token(name, length);
    ssize_t at = token != NULL ? h2o_find_header(&req->headers, token, -1)
                               : h2o_find_header_by_str(&req->headers, name, length, -1);
    if (at == -1)
        return (struct sl_span){.bytes = NULL, .length = 0};
    const h2o_header_t *header = &req->headers.entries[at];
    if (repeated != NULL)
        *repeated = (token != NULL ? h2o_find_header(&req->headers, token, at)
                                   : h2o_find_header_by_str(&req->headers, name, length, at)) != -1;
    return (struct sl_span){.bytes = header->value.base, .length = header->value.len};
}

void http_request_peer(const struct http_request *request, char *text, size_t size)
{
    http_address_text(&request->conn->peer, text, size);
}

bool http_request_is_loopback(const struct http_request *request)
{
    const struct http_address *peer = &request->conn->peer;
    static const uint8_t loopback6[16] = {[15] = 1};
    static const uint8_t mapped[13] = {[10] = 0xff, [11] = 0xff, [12] = 127};
    if (peer->claimed)
        return false;
    switch (peer->family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return peer->bytes[0] == 127;
    case AF_INET6:
        return memcmp(peer->bytes, loopback6, 16) == 0 || memcmp(peer->bytes, mapped, 13) == 0;
    default:
        return false;
    }
}

void http_request_on_gone(struct http_request *request, void (*gone)(void *user), void *user)
{
    sl_assert(request->magic == HTTP_REQUEST_MAGIC);
    request->gone = gone;
    request->gone_user = user;
}
