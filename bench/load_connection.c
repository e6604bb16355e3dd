// How requests are sent: non-blocking sockets under epoll (edge-triggered), HTTP/2 with prior knowledge by libnghttp2.
//
// Happy path: submit() queues a request in nghttp2 and marks the connection dirty; flush() lets nghttp2 serialise into
// the shared staging buffer, 128 KiB at a time, where events are built in place, and hands it to the kernel; what the
// kernel does not take is kept in `pending` until EPOLLOUT. event() feeds what was read to nghttp2, whose callbacks
// fill the request; the end of its stream ends the attempt.
//
// Failure modes: a connection that cannot be opened, is lost, or breaks the protocol is marked dead in a callback or on
// a failed read or write, buried where no callback of its session runs, and opened again 50 ms later, or after twice as
// long each time while no answer comes; its requests end as unknown. After GOAWAY the streams in flight go on and the
// connection is replaced when they have ended. A request without an answer in time is reset; if its connection has been
// silent since it was sent, the whole connection is replaced.
#include "bench/load.h"

#include "base/clock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECONNECT_MS = 50, READ_BYTES = 64 << 10, WINDOW_BYTES = 1 << 30 };

// ---- which connections have room

static bool has_room(const struct load_connection *connection)
{
    return connection->connected && !connection->going && !connection->dead &&
           connection->in_flight < connection->load->options.streams;
}

static void offer(struct load_connection *connection)
{
    struct load *load = connection->load;
    if (connection->ready || !has_room(connection))
        return;
    connection->ready = true;
    connection->ready_next = NULL;
    if (load->ready_tail != NULL)
        load->ready_tail->ready_next = connection;
    else
        load->ready_head = connection;
    load->ready_tail = connection;
}

struct load_connection *load_connection_ready(struct load *load)
{
    while (load->ready_head != NULL) {
        struct load_connection *connection = load->ready_head;
        load->ready_head = connection->ready_next;
        if (load->ready_head == NULL)
            load->ready_tail = NULL;
        connection->ready = false;
        if (has_room(connection)) {
            offer(connection);
            return connection;
        }
    }
    return NULL;
}

static void mark_dirty(struct load_connection *connection)
{
    if (connection->dirty)
        return;
    connection->dirty = true;
    connection->load->dirty[connection->load->dirty_count++] = connection;
}

// ---- requests in flight

static void detach(struct load_request *request)
{
    struct load_connection *connection = request->connection;
    *request->previous_next = request->next;
    if (request->next != NULL)
        request->next->previous_next = request->previous_next;
    request->connection = NULL;
    connection->in_flight--;
    offer(connection);
}

static void end_all(struct load_connection *connection, enum load_cause cause)
{
    while (connection->requests != NULL) {
        struct load_request *request = connection->requests;
        detach(request);
        request->answered = false;
        load_request_done(connection->load, request, connection, cause);
    }
}

static void bury(struct load_connection *connection, enum load_cause cause)
{
    connection->dead = true; // so that nothing is offered to it below
    end_all(connection, cause);
    nghttp2_session_del(connection->session);
    connection->session = NULL;
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->connected = connection->going = false;
    connection->pending_length = connection->pending_sent = 0;
    int64_t pause_ns = (RECONNECT_MS * SL_NS_PER_MS) << (connection->failures < 10 ? connection->failures : 10);
    if (pause_ns > connection->load->options.reconnect_max_ns)
        pause_ns = connection->load->options.reconnect_max_ns;
    connection->failures++; // until an answer comes: a balancer without a server behind it accepts, then hangs up
    connection->reconnect_ns = connection->load->now_ns + pause_ns;
}

// ---- callbacks of nghttp2

static ssize_t on_send(nghttp2_session *session, const uint8_t *bytes, size_t length, int flags, void *user)
{
    (void)session;
    (void)flags;
    struct load *load = ((struct load_connection *)user)->load;
    if (LOAD_STAGING_BYTES - load->staging_length < length)
        return NGHTTP2_ERR_WOULDBLOCK;
    memcpy(load->staging + load->staging_length, bytes, length);
    load->staging_length += length;
    return (ssize_t)length;
}

static ssize_t on_body_length(nghttp2_session *session, int32_t stream_id, uint8_t *buffer, size_t length,
                              uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)stream_id;
    (void)buffer;
    const struct load_request *request = (const struct load_request *)source->ptr;
    size_t left = load_request_body_bytes(((struct load_connection *)user)->load) - request->body_sent;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (left > length)
        return (ssize_t)length;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)left;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *frame_head, size_t length,
                        nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)frame; // never padded
    struct load *load = ((struct load_connection *)user)->load;
    struct load_request *request = (struct load_request *)source->ptr;
    enum { FRAME_HEAD_BYTES = 9 };
    if (LOAD_STAGING_BYTES - load->staging_length < FRAME_HEAD_BYTES + length)
        return NGHTTP2_ERR_WOULDBLOCK;
    uint8_t *out = load->staging + load->staging_length;
    memcpy(out, frame_head, FRAME_HEAD_BYTES);
    load_request_body(load, request, request->body_sent, out + FRAME_HEAD_BYTES, length);
    request->body_sent += length;
    load->staging_length += FRAME_HEAD_BYTES + length;
    return 0;
}

static uint32_t small_number(const uint8_t *text, size_t length)
{
    uint32_t value = 0;
    for (size_t i = 0; i < length && i < 6 && text[i] >= '0' && text[i] <= '9'; i++)
        value = value * 10 + (uint32_t)(text[i] - '0');
    return value;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user)
{
    (void)flags;
    (void)user;
    bool is_status = name_length == 7 && memcmp(name, ":status", 7) == 0;
    if (!is_status && !(name_length == 11 && memcmp(name, "retry-after", 11) == 0))
        return 0;
    struct load_request *request =
        (struct load_request *)nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (request == NULL)
        return 0;
    if (is_status)
        request->status = (int)small_number(value, value_length);
    else
        request->retry_after_s = small_number(value, value_length);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t length,
                   void *user)
{
    (void)flags;
    (void)user;
    struct load_request *request = (struct load_request *)nghttp2_session_get_stream_user_data(session, stream_id);
    if (request == NULL)
        return 0;
    size_t room = LOAD_ANSWER_MAX - 1 - request->answer_length;
    size_t part = length < room ? length : room;
    memcpy(request->answer + request->answer_length, bytes, part);
    request->answer_length += part;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct load_connection *connection = (struct load_connection *)user;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        connection->going = true;
        return 0;
    }
    bool ends = (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
                (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!ends)
        return 0;
    struct load_request *request =
        (struct load_request *)nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    connection->failures = 0;
    if (request != NULL)
        request->answered = request->status >= 200;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user)
{
    struct load_connection *connection = (struct load_connection *)user;
    struct load_request *request = (struct load_request *)nghttp2_session_get_stream_user_data(session, stream_id);
    if (request == NULL)
        return 0;
    detach(request);
    load_request_done(connection->load, request, connection,
                      error_code == NGHTTP2_REFUSED_STREAM ? LOAD_CAUSE_REFUSED : LOAD_CAUSE_RESET);
    return 0;
}

// ---- opening

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){
        .name = (uint8_t *)(uintptr_t)name,
        .value = (uint8_t *)(uintptr_t)value,
        .namelen = strlen(name),
        .valuelen = strlen(value),
        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE,
    };
}

static bool create_session(struct load_connection *connection)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return false;
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option *option;
    if (nghttp2_option_new(&option) != 0) {
        nghttp2_session_callbacks_del(callbacks);
        return false;
    }
    // The checks of header names and values are a tenth of the cost of an answer; that they are right is for other
    // tests.
    nghttp2_option_set_no_http_messaging(option, 1);
    int status = nghttp2_session_client_new2(&connection->session, callbacks, connection, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    if (status != 0)
        return false;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    // One window update for the whole run instead of one every 32 KiB of answers.
    return nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 1) == 0 &&
           nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES) == 0;
}

static void open_connection(struct load_connection *connection)
{
    struct load *load = connection->load;
    connection->dead = connection->going = connection->connected = false;
    connection->last_read_ns = load->now_ns;
    int family = connection->url->address.ss_family;
    connection->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || !create_session(connection))
        goto failed;
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(connection->fd, (const struct sockaddr *)&connection->url->address, connection->url->address_length) !=
            0 &&
        errno != EINPROGRESS)
        goto failed;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) == 0)
        return;
failed:
    load->counts.connect_failures++;
    bury(connection, LOAD_CAUSE_CONNECT);
}

bool load_connections_create(struct load *load, struct sl_error *err)
{
    const struct load_options *options = &load->options;
    static char length_text[24];
    snprintf(length_text, sizeof(length_text), "%zu", load_request_body_bytes(load));
    load->connections = (struct load_connection *)calloc(options->connections, sizeof(*load->connections));
    load->dirty = (struct load_connection **)calloc(options->connections, sizeof(struct load_connection *));
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load->connections == NULL || load->dirty == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "connections");
    if (load->epoll_fd < 0)
        return sl_fail_errno(err, SL_E_IO, errno, "epoll_create1");
    for (uint32_t i = 0; i < options->connections; i++) {
        struct load_connection *connection = &load->connections[i];
        connection->load = load;
        connection->fd = -1;
        connection->url = &options->urls[i % options->url_count];
        nghttp2_nv *headers = connection->headers;
        headers[connection->header_count++] = header(":method", "POST");
        headers[connection->header_count++] = header(":scheme", "http");
        headers[connection->header_count++] = header(":authority", connection->url->authority);
        headers[connection->header_count++] = header(":path", connection->url->path);
        headers[connection->header_count++] =
            header("content-type", options->ndjson ? "application/x-ndjson" : "application/json");
        headers[connection->header_count++] = header("content-length", length_text);
        for (size_t h = 0; h < options->header_count; h++)
            headers[connection->header_count++] = options->headers[h];
        connection->pending = (uint8_t *)malloc(LOAD_STAGING_BYTES);
        if (connection->pending == NULL)
            return sl_fail(err, SL_E_NO_MEMORY, "connections");
    }
    for (uint32_t i = 0; i < options->connections; i++)
        open_connection(&load->connections[i]);
    return true;
}

void load_connections_destroy(struct load *load)
{
    for (uint32_t i = 0; load->connections != NULL && i < load->options.connections; i++) {
        struct load_connection *connection = &load->connections[i];
        if (connection->load == NULL) // creation stopped before it
            break;
        nghttp2_session_del(connection->session);
        if (connection->fd >= 0)
            close(connection->fd);
        free(connection->pending);
    }
    free(load->connections);
    free(load->dirty);
    if (load->epoll_fd >= 0)
        close(load->epoll_fd);
}

uint32_t load_connections_up(const struct load *load)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < load->options.connections; i++)
        up += load->connections[i].connected ? 1 : 0;
    return up;
}

// ---- working

void load_connection_submit(struct load_connection *connection, struct load_request *request)
{
    const nghttp2_data_provider provider = {.source.ptr = request, .read_callback = on_body_length};
    request->connection = connection;
    request->next = connection->requests;
    request->previous_next = &connection->requests;
    if (request->next != NULL)
        request->next->previous_next = &request->next;
    connection->requests = request;
    connection->in_flight++;
    mark_dirty(connection);
    request->stream_id = nghttp2_submit_request(connection->session, NULL, connection->headers,
                                                connection->header_count, &provider, request);
    if (request->stream_id >= 0)
        return;
    // Stream ids used up after 2^30 requests, or the peer is going: replace the connection once it is empty.
    connection->going = true;
    detach(request);
    load_request_done(connection->load, request, connection, LOAD_CAUSE_REFUSED);
}

// False when the kernel takes no more for now, or the connection is dead.
static bool write_out(struct load_connection *connection, const uint8_t *bytes, size_t length, size_t *written)
{
    *written = 0;
    while (*written < length) {
        ssize_t count = send(connection->fd, bytes + *written, length - *written, MSG_NOSIGNAL);
        if (count >= 0) {
            *written += (size_t)count;
        } else if (errno != EINTR) {
            connection->dead = errno != EAGAIN;
            return false;
        }
    }
    return true;
}

static void flush_connection(struct load_connection *connection)
{
    struct load *load = connection->load;
    if (!connection->connected || connection->dead)
        return;
    size_t written;
    if (connection->pending_length > connection->pending_sent) {
        bool all = write_out(connection, connection->pending + connection->pending_sent,
                             connection->pending_length - connection->pending_sent, &written);
        connection->pending_sent += written;
        if (!all)
            return;
    }
    for (;;) {
        load->staging_length = 0;
        if (nghttp2_session_send(connection->session) != 0) {
            connection->dead = true;
            return;
        }
        if (load->staging_length == 0) {
            // After an error of the protocol nghttp2 says goodbye and wants nothing more.
            if (nghttp2_session_want_read(connection->session) == 0 &&
                nghttp2_session_want_write(connection->session) == 0)
                connection->dead = true;
            return;
        }
        if (!write_out(connection, load->staging, load->staging_length, &written)) {
            connection->pending_sent = 0;
            connection->pending_length = load->staging_length - written;
            memcpy(connection->pending, load->staging + written, connection->pending_length);
            return;
        }
    }
}

void load_connections_flush(struct load *load)
{
    for (size_t i = 0; i < load->dirty_count; i++) {
        struct load_connection *connection = load->dirty[i];
        connection->dirty = false;
        if (connection->session == NULL)
            continue;
        flush_connection(connection);
        bool drained = connection->going && connection->in_flight == 0;
        if (connection->dead || drained)
            bury(connection, LOAD_CAUSE_LOST);
    }
    load->dirty_count = 0;
}

static void finish_connect(struct load_connection *connection)
{
    int status = 0;
    socklen_t size = sizeof(status);
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &status, &size);
    if (status != 0) {
        connection->load->counts.connect_failures++;
        connection->dead = true;
        return;
    }
    connection->connected = true;
    connection->serial++;
    connection->load->counts.connects++;
    offer(connection);
}

static void read_in(struct load_connection *connection)
{
    struct load *load = connection->load;
    static uint8_t buffer[READ_BYTES];
    for (;;) {
        ssize_t count = recv(connection->fd, buffer, sizeof(buffer), 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return;
        if (count <= 0) {
            connection->dead = true;
            return;
        }
        load->now_ns = sl_monotonic_ns(); // the arrival of these answers
        connection->last_read_ns = load->now_ns;
        ssize_t used = nghttp2_session_mem_recv(connection->session, buffer, (size_t)count);
        if (used != count) {
            connection->dead = true;
            return;
        }
        if ((size_t)count < sizeof(buffer)) // the socket is empty; an end comes as an event of its own
            return;
    }
}

void load_connection_event(struct load_connection *connection, uint32_t epoll_events)
{
    if (connection->session == NULL) // buried since the event was fetched
        return;
    mark_dirty(connection);
    if (!connection->connected && (epoll_events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
        finish_connect(connection);
    if (!connection->connected || connection->dead)
        return;
    if ((epoll_events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        read_in(connection);
    if ((epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 && !connection->dead) {
        read_in(connection); // what the early return above has left
        connection->dead = true;
    }
}

static void expire(struct load *load, struct load_request *request)
{
    struct load_connection *connection = request->connection;
    // A half-sent body, too: nghttp2 may hold a DATA frame that points to this request, which is about to be reused.
    if (connection->last_read_ns < request->invoked_ns || request->body_sent < load_request_body_bytes(load)) {
        connection->dead = true;
    } else {
        nghttp2_session_set_stream_user_data(connection->session, request->stream_id, NULL);
        nghttp2_submit_rst_stream(connection->session, NGHTTP2_FLAG_NONE, request->stream_id, NGHTTP2_CANCEL);
    }
    mark_dirty(connection);
    detach(request);
    request->answered = false;
    load_request_done(load, request, connection, LOAD_CAUSE_TIMEOUT);
}

void load_connections_tick(struct load *load)
{
    for (size_t i = 0; i < load->request_count; i++) {
        struct load_request *request = &load->requests[i];
        if (request->connection != NULL && load->now_ns - request->invoked_ns > load->options.timeout_ns)
            expire(load, request);
    }
    for (uint32_t i = 0; i < load->options.connections; i++) {
        struct load_connection *connection = &load->connections[i];
        if (connection->session == NULL && load->now_ns >= connection->reconnect_ns)
            open_connection(connection);
        else if (connection->session != NULL && !connection->connected &&
                 load->now_ns - connection->last_read_ns > load->options.timeout_ns)
            bury(connection, LOAD_CAUSE_CONNECT);
    }
}

void load_connections_give_up(struct load *load)
{
    for (uint32_t i = 0; i < load->options.connections; i++)
        end_all(&load->connections[i], LOAD_CAUSE_END);
}
