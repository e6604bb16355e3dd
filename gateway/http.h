// The HTTP engine behind one interface: HTTP/1.1 and HTTP/2, clear text and TLS, on N event loops.
//
// Nothing outside gateway/http*.c knows which library does it. A server owns N loops, each one thread; a request lives
// on the loop that accepted its connection, and everything marked "loop thread" is called there and nowhere else.
//
// What a user of this interface may rely on:
//   - The handler sees only complete requests, within every limit of struct http_limits; the engine answers the rest
//     itself (400, 408, 413, 431, 503, all as problem+json) or closes the connection.
//   - One response a request. A request may be answered later: keep the pointer, and set http_request_on_gone(),
//   because
//     a reset or a lost connection ends a request at any time.
//   - A body in flight is counted against the budgets from its first byte until its request ends.
#ifndef SLUICE_GATEWAY_HTTP_H
#define SLUICE_GATEWAY_HTTP_H

#include "base/cursor.h"
#include "base/error.h"
#include "gateway/proxy_protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_server;
struct http_loop;
struct http_request;

// Every limit is configurable (`limits:` in the configuration); the defaults are those of CONTRACT.md.
struct http_limits {
    uint64_t body_bytes;                  // one body as sent; over it: 413. Default 16 MiB
    uint64_t unfinished_bytes_connection; // bodies not yet complete, one connection. Default 32 MiB
    uint64_t unfinished_bytes;            // bodies not yet complete, all connections. Default 128 MiB
    uint32_t header_block_bytes;          // default 16 KiB; over it: 431, or the connection is closed
    uint32_t header_count;                // default 128
    uint32_t connections;                 // in all. Default 10,000
    uint32_t connections_address;         // of one peer address (IPv6: /64), or of the one that a PROXY header names;
                                          // unix sockets are exempt. Default 1,000
    uint32_t resets_minute;         // resets (by either side) a connection a minute, then it is closed. Default 200
    uint32_t control_frames_minute; // PING, SETTINGS, PRIORITY, unknown and empty frames; the same. Default 60,000
    int64_t request_timeout_ns;     // first byte of a request to its last. Default 30 s
    int64_t response_timeout_ns;    // an answer waiting to be read by the client. Default 30 s
    int64_t idle_timeout_ns;        // a connection without a request. Default 75 s
    int64_t handshake_timeout_ns;   // TLS; and, before it, a PROXY header. Default 10 s
    int64_t connection_age_ns;      // then GOAWAY / Connection: close; 0 = no limit. Default 0
};
struct http_limits http_limits_default(void);

struct http_listener {
    // "host:port", "[::]:port" or "unix:/path" (created 0660, a stale one is removed).
    const char *address;
    bool tls;
};

struct http_tls {
    const char *certificate_file; // PEM, chain included; NULL when no listener has tls
    const char *key_file;
};

struct http_options {
    const char *name; // of the threads and in logs: "ingest", "admin"
    const struct http_listener *listeners;
    size_t listener_count;
    // Every connection of a TCP listener begins with this header, or is refused. Unix sockets take none: who connects
    // to them is on this machine and has no address.
    enum proxy_version proxy_protocol;
    struct http_tls tls;
    uint32_t loop_count; // 1..64
    struct http_limits limits;
    // Loop thread. Answers at once or later.
    void (*on_request)(struct http_request *request, void *user);
    // Loop thread, once a turn, after everything that was readable has been handled and before the loop sleeps:
    // the place to hand over what the turn has gathered. May be NULL.
    void (*on_turn_end)(struct http_loop *loop, void *user);
    // The engine's own refusals (400, 408, 413, 431, 503 before the handler ran). Loop thread. `path` may be empty. May
    // be NULL.
    void (*on_refused)(struct http_loop *loop, int status, struct sl_span path, void *user);
    void *user;
};

// Binds every listener and starts the loops. On failure nothing is left behind. The caller's thread only.
bool http_server_start(struct http_server **out, const struct http_options *options, struct sl_error *err) SL_MUST_USE;

// The port a listener got (for port 0), 0 for a unix socket. Any thread.
uint16_t http_server_port(const struct http_server *server, size_t listener);
// What connections of a listener begin with. Any thread.
enum proxy_version http_server_proxy_protocol(const struct http_server *server, size_t listener);
uint32_t http_server_loop_count(const struct http_server *server);
struct http_loop *http_server_loop(struct http_server *server, uint32_t index);

// Stops accepting and tells clients to go (GOAWAY, Connection: close); requests in flight, uploads included, go on and
// are answered. Returns at once. Any thread.
void http_server_close_gracefully(struct http_server *server);
// Connections still open. Any thread.
uint32_t http_server_connections(const struct http_server *server);
// Requests that the handler has seen and that have not ended (answered and written out, or gone). Any thread.
uint32_t http_server_requests(const struct http_server *server);
// Closes what is left, joins the loops, frees everything. Not on a loop thread.
void http_server_stop(struct http_server *server);

struct http_counters {
    uint64_t connections_accepted;
    uint64_t connections_refused;          // over limits.connections
    uint64_t connections_refused_address;  // over limits.connections_address
    uint64_t connections_refused_proxy;    // without a good PROXY header where one is wanted; not among the accepted
    uint64_t connections_closed_by_armour; // resets, stalls, timeouts, budgets
    uint64_t requests;
    uint64_t refused_headers, refused_smuggling, refused_body; // answered by the engine
    uint64_t body_bytes_unfinished;                            // now
};
void http_server_counters(const struct http_server *server, struct http_counters *out);

// ---- loops

uint32_t http_loop_index(const struct http_loop *loop);
// Runs `run(argument)` soon on the loop's thread, in the order of the calls. Any thread; never blocks; one wake-up
// serves many. After http_server_stop() has begun, what was posted is still run before the loop ends.
struct http_task {
    void (*run)(struct http_task *task);
    struct http_task *next; // the engine's
};
void http_loop_post(struct http_loop *loop, struct http_task *task);
// Calls `run(user)` on the loop's thread about every `interval_ns` (≥ 1 ms), until the loop ends. Any thread; at most
// four a loop.
void http_loop_every(struct http_loop *loop, int64_t interval_ns, void (*run)(struct http_loop *loop, void *user),
                     void *user);
// Cached monotonic time of this turn, ns. Loop thread.
int64_t http_loop_now_ns(const struct http_loop *loop);

// ---- requests (all: loop thread; all spans live as long as the request)

struct http_loop *http_request_loop(const struct http_request *request);
struct sl_span http_request_method(const struct http_request *request);
struct sl_span http_request_path(const struct http_request *request);  // without the query, as sent (not normalised)
struct sl_span http_request_query(const struct http_request *request); // without '?', may be empty
// At least JSON_PADDING (64) readable bytes follow the body, also an empty one; their contents are anything.
struct sl_span http_request_body(const struct http_request *request);
// The body is needed no more: its memory goes to the next request while it is still in the cache. Spans into it are
// dead. A request that waits for the disk holds nothing but its own state then. Optional.
void http_request_drop_body(struct http_request *request);
// The only value of a header (lower-case name), or an empty span with bytes == NULL. Repeated: the values joined with
// ", " is what HTTP means, but every header asked for here is a single one: the first is given and *repeated set when
// there are more.
struct sl_span http_request_header(const struct http_request *request, const char *name, bool *repeated);
// "127.0.0.1", "::1" or "unix"; behind a balancer with PROXY protocol, of the client that it names.
void http_request_peer(const struct http_request *request, char *text, size_t size);
// Whether the socket itself is local. False for what a PROXY header says, which may say anything.
bool http_request_is_loopback(const struct http_request *request);

// Called when the request ends without an answer having been given (reset, lost connection, armour). After it the
// pointer is dead. Not called after http_respond().
void http_request_on_gone(struct http_request *request, void (*gone)(void *user), void *user);

struct http_header {
    const char *name; // lower case
    struct sl_span value;
};
// Copies headers and body. `content_type` NULL means none. content-length is set by the engine.
void http_respond(struct http_request *request, int status, const char *content_type, const struct http_header *headers,
                  size_t header_count, const void *body, size_t body_length);

#endif
