// The inside of the HTTP engine (gateway/http*.c): libh2o-evloop 2.2.5 and the armour around it.
//
// Invariants
//  1. Only gateway/http*.c include this header or h2o's. Everything else sees gateway/http.h.
//  2. A connection (struct http_conn), its streams and its requests belong to one loop and are touched on its thread
//  only.
//     Other threads reach a loop by http_loop_post(), and read its counters (relaxed, written by the loop alone).
//  3. h2o's own calls to the functions listed in HTTP_HOOKS arrive here instead, because the executable's symbols come
//     before the library's and the library calls itself through its PLT. http_armour_prove() runs a conversation
//     through the library before a server starts and refuses to start when one hook was not reached.
//  4. Every frame of HTTP/2 is parsed with `http_here.conn` set: the three ways into h2o's parser are the read callback
//     (wrapped by http_conn_on_read), h2o_http2_accept (hooked), and the end of an h2c upgrade, which is only let
//     through when nothing was sent behind the request. A frame without a connection is refused.
//  5. Every h2o_buffer_t is allocated by http_buffer.c: HTTP_BODY_PADDING readable bytes follow its capacity, never a
//  file
//     in /tmp, and the bytes are charged to the connection from the first one until the buffer is freed.
//  6. A request that the engine refuses is answered with a problem+json whenever that is possible: over HTTP/2 the
//  stream is
//     answered and what still comes on it is thrown away (and given back to the connection's window), over HTTP/1.1 the
//     connection is closed after the answer, and drained for a while, so that a reset does not overtake the answer.
//  7. A connection that must go is closed by its own read callback with an error (frees at once) or, where that is not
//     possible, by shutdown(2) of its socket, after which h2o closes it itself.
//  8. Time limits count on the monotonic clock, in the sweep, once a second; h2o's own timers (wall clock) are set to
//  never,
//     except the one of the TLS handshake.
//
// What a request costs: its state lives in h2o's request pool; no lock, no atomic read-modify-write.
#ifndef SLUICE_GATEWAY_HTTP_INTERNAL_H
#define SLUICE_GATEWAY_HTTP_INTERNAL_H

#ifndef H2O_USE_EPOLL
#define H2O_USE_EPOLL 1 // which of h2o's event loops libh2o-evloop was built with; decides the layout of its structures
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-value" // the stand-ins of http_shim/khash.h inside h2o's inline functions
#include <h2o.h>
#include <h2o/http1.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#pragma GCC diagnostic pop

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "gateway/http.h"

#include <pthread.h>
#include <stdatomic.h>

#if H2O_VERSION_MAJOR != 2 || H2O_VERSION_MINOR != 2 || H2O_VERSION_PATCH != 5
#error "the armour was written for, and proven with, h2o 2.2.5"
#endif

enum {
    HTTP_LOOPS_MAX = 64,
    HTTP_TIMERS_MAX = 4,     // http_loop_every calls a loop
    HTTP_REFUSED_MAX = 128,  // answered streams of a connection whose uploads may still be on their way; h2o opens 100
    HTTP_READ_BYTES = 65536, // one read of an HTTP/2 or uploading connection, at most
    HTTP_HEADER_BLOCK_MAX = 262144, // h2o gives up a little later by itself (H2O_MAX_REQLEN)
    HTTP_FLOOR_BYTES = 16384,       // a connection holding no more than this is not shed for the global budget
};

// ---- sabotage: a build for the attack tests only, in which pieces of the armour can be switched off

#ifdef SLUICE_HTTP_SABOTAGE
bool http_disarmed(const char *piece);
#define HTTP_ARMED(piece) (!http_disarmed(piece))
#else
#define HTTP_ARMED(piece) true
#endif

// ---- hooks into the library

#define HTTP_HOOKS(X)                                                                                                  \
    X(h2o_socket_read_start)                                                                                           \
    X(h2o_socket_close)                                                                                                \
    X(h2o_buffer_reserve)                                                                                              \
    X(h2o_buffer__do_free)                                                                                             \
    X(h2o_send_error_generic)                                                                                          \
    X(h2o_http2_accept)                                                                                                \
    X(h2o_http2_decode_frame)                                                                                          \
    X(h2o_http2_conn_register_stream)                                                                                  \
    X(h2o_http2_conn_unregister_stream)                                                                                \
    X(h2o_http2_stream_reset)                                                                                          \
    X(h2o_http2__encode_rst_stream_frame)                                                                              \
    X(h2o_hpack_parse_headers)                                                                                         \
    X(phr_parse_request)                                                                                               \
    X(phr_decode_chunked)

enum http_hook {
#define X(name) HOOK_##name,
    HTTP_HOOKS(X)
#undef X
        HTTP_HOOK_COUNT
};

// picohttpparser's interface; h2o's packages do not ship its header. Layouts: deps/picohttpparser of h2o 2.2.5.
struct phr_header {
    const char *name; // NULL: a folded line
    size_t name_len;
    const char *value;
    size_t value_len;
};
struct phr_chunked_decoder {
    size_t bytes_left_in_chunk;
    char consume_trailer;
    char _hex_count;
    char _state;
};
int phr_parse_request(const char *buf, size_t len, const char **method, size_t *method_len, const char **path,
                      size_t *path_len, int *minor_version, struct phr_header *headers, size_t *num_headers,
                      size_t last_len);
ssize_t phr_decode_chunked(struct phr_chunked_decoder *decoder, char *buf, size_t *bufsz);

// The library's own functions behind the hooks (NULL where a hook replaces the function and never calls it).
struct http_real {
    __typeof__(h2o_socket_read_start) *socket_read_start;
    __typeof__(h2o_socket_close) *socket_close;
    __typeof__(h2o_http2_accept) *http2_accept;
    __typeof__(h2o_http2_decode_frame) *decode_frame;
    __typeof__(h2o_http2_conn_register_stream) *register_stream;
    __typeof__(h2o_http2_conn_unregister_stream) *unregister_stream;
    __typeof__(h2o_http2_stream_reset) *stream_reset;
    __typeof__(h2o_http2__encode_rst_stream_frame) *encode_rst;
    __typeof__(h2o_hpack_parse_headers) *parse_headers;
    __typeof__(phr_parse_request) *parse_request;
};
extern struct http_real http_real;

struct http_conn;

// What the hooks know of the moment, one a thread.
struct http_here {
    struct http_conn *conn;      // whose input is being parsed
    struct http_conn *upgrading; // whose HTTP/1.1 request may be turning into HTTP/2
    h2o_http2_stream_t *stream;  // of the DATA frame being handled
    uint32_t stream_id;          // of the frame being handled
    int frame_type;              // -1 outside of a frame
    uint8_t frame_flags;
    bool body_refused;  // h2o_buffer_reserve() refused this DATA frame
    uint32_t refuse_id; // stream to be answered instead of reset; 0 = none
    int refuse_status;
    uint32_t hooks_seen; // bits of enum http_hook
};
extern __thread struct http_here http_here;
#define HTTP_HOOK_SEEN(name) (http_here.hooks_seen |= HTTP_ARMED("hook-" #name) ? 1u << HOOK_##name : 0u)

// Proves, on the calling thread, that every hook is reached from inside the library.
bool http_armour_prove(struct sl_error *err) SL_MUST_USE;

// ---- connections

enum http_protocol { HTTP_UNKNOWN, HTTP_1, HTTP_2 };
enum http_phase { HTTP_IDLE, HTTP_HEAD, HTTP_BODY, HTTP_ANSWERING, HTTP_UPGRADING }; // of HTTP/1.1

struct http_address { // of a peer, for the cap and for logs
    uint16_t family;  // AF_INET, AF_INET6, AF_UNIX
    uint16_t port;
    bool claimed;      // by a PROXY header: not the address of the socket's other end
    uint8_t bytes[16]; // IPv4 in the first four
};

struct http_stream_slot {
    uint32_t id;
    h2o_http2_stream_t *stream;
    int64_t since_ns;     // opened
    int64_t answering_ns; // first sweep that saw its answer unread; 0 = none
};

struct http_refused_stream {
    uint32_t id;
    bool uploading;      // the client has not ended it
    int64_t answered_ns; // when its answer was written out; 0 = not yet
};

// The engine's own answer to a request that h2o is about to hand over.
struct http_refusal {
    const h2o_req_t *request; // NULL = none
    int status;
    const char *detail;
};

struct http_conn {
    uint32_t magic;
    enum http_protocol protocol;
    struct http_loop *loop;
    h2o_socket_t *sock;
    h2o_socket_cb read_cb; // h2o's, behind http_conn_on_read
    struct http_conn *previous, *next;
    struct http_address peer;
    const char *doom;                             // why it is being closed; NULL = it is not
    bool tls, draining, closing, linger, tracked; // tracked: counted in the table of addresses
    int64_t accepted_ns;
    int64_t active_ns;  // the last time a request began or ended
    int64_t partial_ns; // HTTP/2: since when an unfinished frame or preface waits; 0 = none
    int64_t closing_ns; // since when h2o_socket_close() is under way
    int64_t draining_ns;
    int64_t writing_ns;  // first sweep that saw this write unfinished; 0 = none
    size_t writing_seen; // sock->bytes_written then
    uint32_t requests_live;
    // HTTP/1.1
    enum http_phase phase;
    int64_t receiving_ns; // first byte of the request being received; 0 = none
    h2o_req_t *h1_request;
    struct http_request *h1_live;
    h2o_http2_stream_t *upgrade_stream;
    struct http_refusal refusal;
    // HTTP/2
    struct http_stream_slot *slots;
    uint32_t slot_count, slot_capacity;
    struct http_refused_stream *refused; // a ring of HTTP_REFUSED_MAX; NULL until the first
    uint32_t refused_next;
    uint32_t skipped_bytes; // of DATA thrown away, to be given back to the connection's window
    uint64_t progress;      // frames
    bool headers_end_stream;
    uint32_t block_bytes, block_frames; // header block being received; block_frames 0 = none
    uint32_t last_reset_id;
    uint32_t resets, control_frames; // in the minute that began at
    int64_t minute_ns;
    // bytes charged
    uint64_t unfinished_bytes; // bodies not complete, and what has been read and not been parsed
    uint64_t held_bytes;       // complete bodies of requests not ended
    uint64_t input_bytes;      // of the two, the part of sock->input
    bool input_held;
};

struct http_loop {
    struct http_server *server;
    uint32_t index;
    pthread_t thread;
    h2o_evloop_t *evloop;
    h2o_context_t context;
    h2o_accept_ctx_t accept_plain, accept_tls;
    int wake_fd;
    h2o_socket_t *wake_socket;
    struct http_conn *conns;             // newest first
    struct http_proxy_wait *proxy_waits; // newest first
    struct http_linger *lingers;
    uint32_t linger_count;
    struct http_loop_timer {
        int64_t interval_ns, next_ns;
        void (*run)(struct http_loop *loop, void *user);
        void *user;
    } timers[HTTP_TIMERS_MAX];
    uint32_t timer_count;
    int64_t now_ns; // 0 = not looked at in this turn
    int64_t sweep_ns;
    int64_t draining_ns; // 0 = not draining
    bool stop;
    uint64_t body_bytes;  // as below, the loop's own copy
    uint64_t budget_next; // look at all loops' bytes when body_bytes passes this
    struct http_task shed_task;
    // Written by others.
    _Alignas(64) _Atomic(struct http_task *) posted; // newest first
    _Atomic uint32_t connections;                    // counted up by whoever hands a connection over
    atomic_bool shed_wanted;
    // Written by the loop, read by all.
    struct http_loop_counters {
        _Alignas(64) _Atomic uint64_t accepted, closed_by_armour, requests, refused_headers, refused_smuggling,
            refused_body;
        _Atomic uint64_t body_bytes;
        _Atomic uint32_t requests_live;
    } counters;
};

struct http_bound { // a listener
    int fd;
    uint16_t port;
    bool tls, is_unix;
    enum proxy_version proxy;
    char *unix_path;
    uint64_t unix_device, unix_inode; // the socket file that is ours to remove
};

struct http_server {
    struct http_options options;
    struct http_limits limits;
    h2o_globalconf_t globalconf;
    h2o_hostconf_t *host;
    SSL_CTX *tls;
    struct http_loop *loops;
    uint32_t loop_count;
    // the acceptor (http_listen.c)
    struct http_bound *bound;
    size_t bound_count;
    pthread_t acceptor;
    bool acceptor_runs;
    int acceptor_wake_fd;
    atomic_bool closing; // listeners are to be closed
    _Atomic uint64_t refused_connections, refused_address, refused_proxy_header;
    _Atomic int64_t proxy_logged_ns; // the last refusal for its header that was logged; 0 = none
    _Atomic uint64_t proxy_not_logged;
    struct http_addresses *addresses;
};

struct http_request {
    uint32_t magic;
    bool answered;
    h2o_req_t *req;
    struct http_conn *conn;
    void (*gone)(void *user);
    void *gone_user;
};

enum { HTTP_CONN_MAGIC = 0x5348434e, HTTP_REQUEST_MAGIC = 0x53485251 };

// Single writer, relaxed: no read-modify-write.
static inline void http_count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

// ---- http_conn.c

// Takes over a connected, non-blocking socket. Loop thread.
void http_conn_adopt(struct http_loop *loop, int fd, bool tls, const struct http_address *peer, bool tracked);
// The connection of one of h2o's sockets, or NULL when it is not one of ours.
struct http_conn *http_conn_of_socket(const h2o_socket_t *sock);
struct http_conn *http_conn_of_request(const h2o_req_t *req);
// Closes now where possible; the pointer may be dead afterwards. why: what the armour has against it; NULL = nothing
// (idle, draining, stopping), and then it does not count as closed by the armour.
void http_conn_close(struct http_conn *conn, const char *why);
// While its input is being parsed: lets no further frame through; closed at the end of the read at the latest.
void http_conn_doom(struct http_conn *conn, const char *why);
void http_conn_drain(struct http_conn *conn);
// After h2o has parsed what came: budgets, partial frames. The pointer may be dead afterwards.
void http_conn_after_parse(struct http_conn *conn, uint64_t progress_before);
void http_conn_close_all(struct http_loop *loop);

// ---- http_proxy.c: connections whose PROXY header has not come yet

// Takes over a connected, non-blocking socket, which is counted in loop->connections and against no address, and adopts
// it when its header is there. Loop thread.
void http_proxy_wait(struct http_loop *loop, int fd, bool tls, const struct http_address *peer,
                     enum proxy_version version);
void http_proxy_sweep(struct http_loop *loop, int64_t now_ns);
void http_proxy_close_all(struct http_loop *loop);

// ---- http_sweep.c

void http_sweep(struct http_loop *loop);
void http_loop_drain(struct http_loop *loop);

// ---- http_linger.c: sockets of closed HTTP/1.1 connections, read and thrown away for a while

// Keeps a duplicate of the socket's descriptor, if there is room.
void http_linger_add(struct http_loop *loop, h2o_socket_t *sock, bool tls);
void http_linger_sweep(struct http_loop *loop, int64_t now_ns);

// ---- http_stream.c: streams of HTTP/2 and their refusal

void http_stream_track(struct http_conn *conn, h2o_http2_stream_t *stream);
struct http_stream_slot *http_stream_find(struct http_conn *conn, uint32_t id);
struct http_refused_stream *http_stream_find_refused(struct http_conn *conn, uint32_t id);
// Answers a stream whose body is still being received, frees what it holds; the rest of the upload will be thrown away.
void http_stream_refuse(struct http_conn *conn, h2o_http2_stream_t *stream, int status, const char *detail,
                        bool uploading);
void http_stream_remember_refused(struct http_conn *conn, uint32_t id, bool uploading);
// Tells clients that go on sending on streams that were answered a while ago to stop. In the sweep.
void http_stream_stop_uploads(struct http_conn *conn, int64_t now_ns);
void http_stream_count_reset(struct http_conn *conn, uint32_t id);
void http_stream_count_control(struct http_conn *conn);
// last: no stream is open and no further one will be taken; h2o closes once it is written. Else a first notice.
void http_stream_goaway(struct http_conn *conn, bool last, int error);
// Gives thrown away bytes back to the connection's window.
void http_stream_return_window(struct http_conn *conn);

// ---- http_buffer.c

enum { HTTP_BODY_PADDING = 64 };
void http_buffer_hold(h2o_buffer_t *buffer);                      // its request is complete
void http_buffer_charge_input(struct http_conn *conn, bool held); // looks at sock->input as it is now
void http_buffer_uncharge_input(struct http_conn *conn);
void http_buffer_compact(h2o_buffer_t **buffer); // a large buffer that holds little becomes a small one
void http_buffer_thread_end(void);
// Refuses the largest unfinished bodies of this loop while all loops together are over budget.
void http_budget_enforce(struct http_loop *loop);

// ---- http_request.c

void http_request_install(struct http_server *server);
// The engine's own answer; counts it and tells on_refused.
void http_request_refuse(h2o_req_t *req, int status, const char *detail);
// Answers an HTTP/1.1 request that is still being received. False when that is not possible (the connection is doomed).
bool http_request_refuse_h1(struct http_conn *conn, int status, const char *detail);
// The server stops: tells the owner that the request is gone, and lets h2o end it.
void http_request_abandon(struct http_request *request);

// ---- http_loop.c

// Any thread; afterwards tasks may be posted to it.
bool http_loop_prepare(struct http_loop *loop, struct http_server *server, uint32_t index,
                       struct sl_error *err) SL_MUST_USE;
bool http_loop_start(struct http_loop *loop, struct sl_error *err) SL_MUST_USE; // a thread that opens, turns, closes it
// Ends the loop's thread, which closes and frees everything of the loop. Not on a loop thread.
void http_loop_stop(struct http_loop *loop);
// The rest: on the thread that turns the loop, from the beginning: h2o keeps pointers to thread-local free lists.
void http_loop_open(struct http_loop *loop);
void http_loop_turn(struct http_loop *loop, int32_t wait_ms_max);
void http_loop_finish(struct http_loop *loop); // closes all connections
void http_loop_close(struct http_loop *loop);

// ---- http_listen.c

bool http_listen_bind(struct http_server *server, struct sl_error *err) SL_MUST_USE;
bool http_listen_start(struct http_server *server, struct sl_error *err) SL_MUST_USE;
void http_listen_close(struct http_server *server); // asks the acceptor to close the listeners; any thread
void http_listen_stop(struct http_server *server);  // waits for that
void http_listen_free(struct http_server *server);  // after the loops have ended
void http_address_text(const struct http_address *address, char *text, size_t size);
bool http_address_take(struct http_server *server, const struct http_address *address);
void http_address_release(struct http_server *server, const struct http_address *address);

// ---- http_tls.c

bool http_tls_create(SSL_CTX **out, const struct http_options *options, struct sl_error *err) SL_MUST_USE;

// ---- http_server.c

void http_server_configure(struct http_server *server); // limits into h2o's configuration
void http_server_dispose(struct http_server *server);

#endif
