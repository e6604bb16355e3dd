// Shared by the ingest_*.c files alone. Everything of a struct ingest_loop belongs to its loop's thread, except the
// atomics.
#ifndef SLUICE_GATEWAY_INGEST_INTERNAL_H
#define SLUICE_GATEWAY_INGEST_INTERNAL_H

#include "base/clock.h"
#include "gateway/ack.h"
#include "gateway/decode.h"
#include "gateway/ingest.h"
#include "gateway/json.h"

#include <stdatomic.h>

enum {
    BATCH_TARGET_BYTES = 1 << 20, // a turn's batch is handed over early when it has grown to this
    BATCH_KEEP_BYTES = 2 << 20,   // an idle batch keeps at most this much memory
    BATCH_KEEP_COUNT = 4,         // and a loop keeps at most so many idle ones
    TICK_MS = 25,                 // deadlines are looked at this often
};

// One request between its hand-over to a batch and its end. It ends exactly once: answered, or its client gone; it is
// freed when it has ended and its batch is done.
struct waiter {
    struct waiter *next; // in its batch, then in the lane's list
    struct ingest_loop *loop;
    struct http_request *request; // NULL once it has ended
    struct source_stats *stats;
    uint32_t first_index, count; // its records in the batch
    uint8_t lane;
    enum ack_level level;
    int64_t started_ns, deadline_ns;
    uint64_t first_seq, last_seq; // 0 until synced
};

struct loop_batch {
    struct spool_batch spool;
    struct http_task task; // posted by the spool's writer thread when the outcome is known
    struct ingest_loop *loop;
    struct waiter *first, **tail;
    struct loop_batch *next; // in flight (oldest first), or idle
};

struct ingest_loop {
    struct ingest *ingest;
    struct http_loop *http;
    uint32_t index;
    struct routes *routes;
    struct json_parser *parser;
    struct decoder *decoder;
    struct loop_batch *open; // of this turn, or NULL
    struct loop_batch *in_flight, **in_flight_tail;
    struct loop_batch *idle;
    uint32_t idle_count;
    struct waiter *idle_waiters;
    struct { // synced, and waiting for Kafka; by last_seq, because a loop's batches come in order
        struct waiter *first, **tail;
    } lanes[SPOOL_LANES_MAX];
    struct http_task commit_task; // "committed positions have moved"
    _Atomic bool commit_posted;
    int64_t next_check_ns;
    _Atomic uint64_t conservation_error;
};

struct ingest {
    struct spool *spool;
    struct stats *stats;
    char stream[SPOOL_STREAM_ID_MAX];
    _Atomic bool attached, refusing, stream_failed;
    _Atomic uint64_t committed[SPOOL_LANES_MAX];
    uint32_t loop_count;
    struct ingest_loop loops[];
};

// ---- ingest_batch.c

// The batch of this turn, made when there is none. NULL: memory is out.
struct loop_batch *ingest_open_batch(struct ingest_loop *loop);
// Adds a request whose records were appended from first_index on. NULL: memory is out (the caller cuts the records
// back).
struct waiter *ingest_add_waiter(struct ingest_loop *loop, struct loop_batch *batch, struct http_request *request,
                                 const struct route *route, uint32_t first_index, uint32_t count);
void ingest_flush(struct ingest_loop *loop);
void ingest_tick(struct http_loop *http, void *loop);
void ingest_on_commit_task(struct http_task *task);
void ingest_loop_free(struct ingest_loop *loop);

// ---- ingest_answer.c

void ingest_answer_success(struct waiter *waiter);
// A problem without a list of errors; retry_after_s < 0: none.
void ingest_answer_problem(struct http_request *request, int status, int retry_after_s, const char *detail);

// ---- ingest_events.c: the body's events into the batch

_Static_assert((int)ROUTE_POINTERS_MAX <= (int)JSON_POINTERS_MAX, "a source's pointers fit one walk");
enum { INTAKE_ERRORS_MAX = 10 };
struct intake_error {
    size_t index;
    char pointer[128];
    char detail[160];
};
struct intake {
    struct ingest_loop *loop;
    const struct route *route;
    struct http_request *request;
    struct record_buffer *records;
    bool is_batch; // the body may hold several: ids from a header get "/<index>"
    int64_t received_wall_ns;
    struct record_header_field headers[4];
    size_t header_count; // those common to the request
    struct sl_span id_headers[CONFIG_ID_PARTS_MAX];
    uint32_t count;
    struct intake_error errors[INTAKE_ERRORS_MAX];
    size_t error_count;
    bool no_memory;
    struct json_fault fault;
};
enum intake_result { INTAKE_OK, INTAKE_FAULT, INTAKE_EVENT_ERRORS, INTAKE_NO_MEMORY, INTAKE_TOO_LARGE };
// Appends every event of the body to intake->records. On anything but INTAKE_OK the caller cuts the records back.
enum intake_result intake_run(struct intake *intake, enum json_shape shape, struct sl_span body);

#endif
