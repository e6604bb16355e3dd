// The core of a load client. One thread, one epoll set, C connections with up to M requests in flight each. sluice-load
// is one program of it (load_main.c, load_options.c); others bring their own events and their own schedule.
//
//   load.c             the loop, the end of a run
//   load_request.c     what is sent: requests, schedule, retries; what an answer means
//   load_waiting.c     requests that wait to be sent again
//   load_source.h      where the events come from; load_events.c: sluice-load's own
//   load_arguments.c   numbers, headers and URLs of a command line
//   load_connection.c  how it is sent: sockets and HTTP/2 (libnghttp2)
//   load_report.c      the JSON summary and the line a second
//
// Ownership: struct load owns everything. A request is in exactly one place: the free list, the list of those that wait
// to be sent again, or in flight on one connection.
#ifndef SLUICE_BENCH_LOAD_H
#define SLUICE_BENCH_LOAD_H

#include "base/error.h"
#include "bench/history.h"
#include "bench/latency.h"
#include "bench/load_source.h"

#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LOAD_URLS_MAX = 16,
    LOAD_HEADERS_MAX = 16,
    LOAD_ANSWER_MAX = 1024, // bytes of an answer that are kept; a problem+json may be longer, nobody needs the rest
    LOAD_TICK_MS = 50,      // timeouts, reconnects and the line a second are looked at this often
};

struct load_url {
    const char *text;
    char authority[128];
    const char *path; // into text
    struct sockaddr_storage address;
    socklen_t address_length;
};

struct load_options {
    struct load_url urls[LOAD_URLS_MAX];
    size_t url_count;
    nghttp2_nv headers[LOAD_HEADERS_MAX];
    size_t header_count;
    uint32_t connections, streams, batch;
    uint32_t keys;
    size_t event_bytes;
    double rate; // events/s, the average; 0: as fast as answers come (closed loop)
    // When event number `event` is due, from the start of the run; never earlier than the one before. NULL: by `rate`.
    int64_t (*due_ns)(void *shape, uint64_t event);
    void *shape;
    int64_t duration_ns; // below 0: until `events` are sent
    int64_t warmup_ns;
    uint64_t events; // 0: until duration_ns has passed
    int64_t timeout_ns, drain_ns, retry_for_ns, interval_ns, wait_ns;
    // The pause before an attempt doubles from first to max, less a random part of it of up to jitter (0..1).
    int64_t resend_first_ns, resend_max_ns;
    double resend_jitter;
    int64_t reconnect_max_ns; // doubling from RECONNECT_MS for as long as it fails
    bool heed_retry_after;    // wait at least as long as it says; false: at most
    bool fail_unconnected;    // with no connection up, an attempt that is due fails at once, as a real sender's does
    bool ndjson, retry, ordered;
    uint64_t seed;
    const char *run;          // prefix of ids
    const char *history_path; // NULL: none
    const char *live_path;    // of the line an interval; NULL: stderr
};

struct load_connection;

struct load_request {
    struct load_request *next;           // of the list it is in; not while it waits
    struct load_request **previous_next; // in flight only: the pointer that points here
    struct load_connection *connection;  // in flight only
    int32_t stream_id;
    uint32_t attempt;
    int64_t scheduled_ns; // open loop: when it should have been sent; closed: when it was
    int64_t first_ns;     // first attempt, then the attempt of now
    int64_t invoked_ns;
    int64_t resend_ns; // waiting only
    size_t body_sent;
    bool unknown_before; // an earlier attempt ended unknown
    bool answered;       // the answer is complete
    int status;
    uint32_t retry_after_s;
    size_t answer_length;
    char answer[LOAD_ANSWER_MAX];
    struct load_event *events; // batch of them
};

struct load_connection {
    struct load *load;
    const struct load_url *url;
    struct load_connection *ready_next; // list of those that can take a request
    nghttp2_session *session;           // NULL while not connected
    int fd;                             // -1: none
    bool connected, going, dead, ready, dirty;
    uint32_t in_flight;
    int64_t reconnect_ns, last_read_ns;
    uint32_t serial;               // how often it was opened
    uint32_t failures;             // to open it, in a row
    struct load_request *requests; // in flight, through next
    nghttp2_nv headers[LOAD_HEADERS_MAX + 6];
    size_t header_count;
    // What the kernel has not taken of the last pass; nothing new is serialised before it is gone.
    uint8_t *pending;
    size_t pending_length, pending_sent;
};

// Bytes on their way from nghttp2 to a socket. One for all connections, so that it stays in the second-level cache.
enum { LOAD_STAGING_BYTES = 128 << 10 };

#define LOAD_CAUSES(X)                                                                                                 \
    X(CONNECT, "connect") X(LOST, "lost") X(RESET, "reset") X(REFUSED, "refused") X(TIMEOUT, "timeout") X(END, "end")
enum load_cause {
#define X(name, word) LOAD_CAUSE_##name,
    LOAD_CAUSES(X)
#undef X
        LOAD_CAUSE_COUNT
};
extern const char *const load_cause_words[];

struct load_counts {
    uint64_t requests; // first attempts
    uint64_t attempts_answered, retries;
    uint64_t events;                            // distinct
    uint64_t again;                             // sent once more on purpose
    uint64_t acked, refused, open;              // events whose fate is decided, as in history.h
    uint64_t accepted, duplicates, quarantined; // sums over the answers
    uint64_t status[600];
    uint64_t causes[LOAD_CAUSE_COUNT];
    uint64_t connects, connect_failures;
};

struct load {
    struct load_options options;
    struct load_source *source;
    struct history *history; // NULL: none
    FILE *live;              // where the line an interval goes
    struct history_event *history_events;
    char *history_texts; // ids and keys of history_events
    int epoll_fd;
    struct load_connection *connections;
    struct load_connection *ready_head, *ready_tail;
    struct load_connection **dirty; // have something to send
    size_t dirty_count;
    struct load_request *requests; // all, for the sweep
    size_t request_count;
    struct load_request *free;
    struct load_request **waiting; // heap by resend_ns, room for all
    size_t waiting_count;
    struct load_event *events;
    uint64_t random;
    uint8_t *scratch; // one event
    uint8_t staging[LOAD_STAGING_BYTES];
    size_t staging_length;

    int64_t start_ns, issue_end_ns, now_ns, wall_offset_ns;
    int64_t first_ack_ns, last_ack_ns, longest_gap_ns, longest_gap_end_ns;
    bool issuing;
    uint64_t scheduled;   // requests whose time has come and that were sent, open loop
    uint32_t outstanding; // neither free: in flight or waiting
    uint32_t problems_shown;
    struct load_counts counts;
    struct latency latency;
    // The window that is measured: from the end of the warm-up to the end of sending.
    bool measuring;
    int64_t measure_start_ns, measure_end_ns;
    uint64_t measure_acked_start, measure_acked_end, measure_answered_start, measure_answered_end;
    int64_t cpu_start_us, cpu_end_us;
    // The second of the line a second.
    struct latency interval_latency;
    uint64_t interval_acked, interval_unknown, interval_failed, interval_retries, interval_requests;
    int64_t interval_end_ns;
};

// ---- load.c

// The whole of a run, the summary on stdout included; returns the exit code. Owns `source` from now on (NULL: no
// memory). SIGINT or SIGTERM ends sending, a second one everything. Once a process.
int load_execute(const struct load_options *options, struct load_source *source);
enum { LOAD_EXIT_USAGE = 2, LOAD_EXIT_NO_ANSWER = 3 };

// ---- load_arguments.c: what an option's value says. A wrong one gives a message on stderr and false, in *good or as
// the result.

extern const char *load_program; // the name in messages
uint64_t load_whole(const char *text, uint64_t least, uint64_t most, bool *good);
double load_real(const char *text, bool *good); // 0..1e9
int64_t load_nanoseconds(const char *text, bool *good);
// NAME:VALUE, split in place; the argument lives as long as the process.
bool load_add_header(struct load_options *options, char *text);
bool load_is_run_name(const char *text);
// The rest of the command line, split in place as well.
bool load_take_urls(struct load_options *options, int argc, char **argv);
// A random run and seed where none was named, and the times that follow from others.
void load_complete(struct load_options *options);

// ---- load_waiting.c

void load_waiting_push(struct load *load, struct load_request *request);
// The one that is due first; NULL: none.
struct load_request *load_waiting_pop(struct load *load);
int64_t load_waiting_due_ns(const struct load *load); // INT64_MAX: none

// ---- load_request.c

bool load_requests_create(struct load *load, struct sl_error *err) SL_MUST_USE; // needs load->source
void load_requests_destroy(struct load *load);
// The request to send now, or NULL: one that waited long enough to be sent again, else a new one that is due.
struct load_request *load_request_next(struct load *load);
// When load_request_next() may have one without any answer coming in; INT64_MAX: not before one does.
int64_t load_request_due_ns(const struct load *load);
size_t load_request_body_bytes(const struct load *load);
// Builds bytes [offset, offset + length) of the body.
void load_request_body(struct load *load, struct load_request *request, size_t offset, uint8_t *out, size_t length);
// An attempt is over, the request belongs to no connection any more. `cause` counts only when it was not answered.
void load_request_done(struct load *load, struct load_request *request, const struct load_connection *connection,
                       enum load_cause cause);
// The end of the run: what waits is given up.
void load_requests_give_up(struct load *load);
// When sending ends by its schedule; INT64_MAX: when `events` are sent.
int64_t load_end_ns(const struct load *load);
// Requests whose time had come when sending ended and that were not sent.
uint64_t load_requests_not_sent(const struct load *load);

// ---- load_connection.c

bool load_connections_create(struct load *load, struct sl_error *err) SL_MUST_USE;
void load_connections_destroy(struct load *load);
// Opens what is due to be opened again and ends requests that took too long.
void load_connections_tick(struct load *load);
void load_connection_submit(struct load_connection *connection, struct load_request *request);
void load_connection_event(struct load_connection *connection, uint32_t epoll_events);
// Writes what submit and event left to be written.
void load_connections_flush(struct load *load);
uint32_t load_connections_up(const struct load *load);
// The first connection that can take a request, moved to the end of the queue; NULL: none.
struct load_connection *load_connection_ready(struct load *load);
// In-flight requests end as unknown.
void load_connections_give_up(struct load *load);

// ---- load_report.c

void load_report_interval(struct load *load);
void load_report_summary(const struct load *load);
int64_t load_cpu_us(void);

#endif
