// Shared by the ingest_*.c files alone. Everything of a struct ingest_loop belongs to its loop's thread, except the
// atomics.
#ifndef SLUICE_GATEWAY_INGEST_INTERNAL_H
#define SLUICE_GATEWAY_INGEST_INTERNAL_H

#include "base/clock.h"
#include "gateway/ack.h"
#include "gateway/decode.h"
#include "gateway/ingest.h"
#include "gateway/json.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    BATCH_TARGET_BYTES = 1 << 20, // a turn's batch is handed over early when it has grown to this
    BATCH_KEEP_BYTES = 2 << 20,   // an idle batch keeps at most this much memory
    BATCH_KEEP_COUNT = 16,        // and a loop keeps at most so many idle ones
    BATCH_KEEP_CLAIMS = 16384,
    TICK_MS = 25,            // deadlines are looked at this often
    OLDER_ORIGINS_MAX = 256, // dedupe gives out no more
    OWN_STREAMS = 8,         // of this process, whose requests may still wait
};

// ---- streams (ingest_streams.c). Everything in them is read by any thread

// One that this process writes, or wrote.
struct own_stream {
    _Atomic uint32_t tag; // its incarnation + 1; 0: the place is free, or being changed
    _Atomic(const char *) id;
    _Atomic uint32_t origin; // as the window names it; UINT32_MAX: it had no name left
    _Atomic uint64_t peer_synced;
    _Atomic uint64_t committed[SPOOL_LANES_MAX];
};
// Any other of which the window remembers ids, by origin.
struct older_stream {
    char name[SPOOL_STREAM_ID_MAX]; // own_lock
    _Atomic uint32_t epoch;     // of the stream that the origin names: another one, another epoch. Odd: being changed
    _Atomic uint64_t through;   // Kafka has all of it up to here
    _Atomic uint64_t two_zones; // as the cell said last
};

// A seq with the incarnation of its stream: greater means later.
#define POSITION_OF(incarnation, seq) ((uint64_t)(incarnation) << 48 | (seq))

// ---- what a request waits for besides its own records: the first events of its duplicates and of its conflict

struct original {
    struct dedupe_id id;
    uint64_t payload_hash;
    enum dedupe_verdict verdict; // what the look-up must go on saying
    bool older;                  // stored in another stream than originals.own: origin and seq are final
    uint32_t origin, epoch;
    uint64_t seq;
};
struct originals {        // malloc'd, for the few requests that have something to wait for
    uint32_t own;         // origin of the stream that this process wrote when the request came
    uint64_t own_through; // its seq that must reach the level, too; 0: none
    bool conflict;        // the answer is 409, and nothing of the request was stored
    size_t conflict_index;
    char conflict_pointer[128];
    size_t count, capacity;
    struct original list[];
};

// One request between its hand-over to a batch and its end. It ends exactly once: answered, or its client gone; it is
// freed when it has ended and its batch is done.
struct waiter {
    struct waiter *next; // in its batch, then in the lane's list
    struct ingest_loop *loop;
    struct http_request *request; // NULL once it has ended
    struct source_stats *stats;
    uint32_t count;               // events of the request
    uint32_t first_index, stored; // its records in the batch; none stored: it is in no batch
    uint32_t quarantined;         // of those stored
    struct originals *originals;  // NULL: none
    uint8_t lane;
    uint32_t lanes_ever;
    enum ack_level level;
    int64_t started_ns, deadline_ns;
    uint32_t incarnation;         // of the stream that holds its records, once they are synced
    uint64_t first_seq, last_seq; // 0 until synced, and when nothing is stored
};

struct waiter_list {
    struct waiter *first, **tail;
};

// A claim of the window that a batch holds until its outcome is known.
struct held_claim {
    struct dedupe_claim claim;
    uint32_t record; // index in the batch
};

struct loop_batch {
    struct spool_batch spool;
    struct http_task task; // posted by the spool's writer thread when the outcome is known
    struct ingest_loop *loop;
    struct waiter *first, **tail;
    struct held_claim *held;
    size_t held_count, held_capacity;
    struct loop_batch *next; // in flight (oldest first), or idle
};

// What the window is asked about one event of the request that is being taken.
struct taken_event {
    struct dedupe_id id, business;
    uint64_t payload_hash;
    size_t offset; // of its record in the batch
    bool has_business;
};
struct scratch {
    uint8_t *bytes;
    size_t capacity;
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
    struct taken_event *taken; // reused by one request after the other
    size_t taken_count, taken_capacity;
    struct scratch compact, business;
    struct waiter_list lanes[SPOOL_LANES_MAX]; // synced, level kafka
    struct waiter_list zones;                  // synced, level az2, in the order of their records
    struct waiter_list waiting;                // own records synced, if any, and waiting for originals
    struct http_task commit_task;              // "committed positions have moved"
    _Atomic bool commit_posted;
    struct http_task zone_task; // "another zone has more of the newest stream"
    _Atomic bool zone_posted;
    struct http_task settled_task; // "another loop has settled claims"
    _Atomic bool settled_posted;
    _Atomic bool has_waiting; // whether `waiting` holds anything: others post settled_task then
    // The last position that the writer has posted to this loop, and the last one that this loop has settled in the
    // window.
    _Atomic uint64_t told_through, settled_through;
    int64_t next_check_ns;
    _Atomic uint64_t conservation_error;
};

struct ingest {
    struct spool *spool;
    struct stats *stats;
    struct own_stream own[OWN_STREAMS];                    // by incarnation; changed under own_lock
    _Atomic uint32_t own_count;                            // the newest one's incarnation + 1
    pthread_mutex_t own_lock;                              // of these and of the names in `older`
    uint64_t (*two_zones)(void *user, const char *stream); // NULL: there is no cell
    bool (*ready)(void *user);                             // the same
    void *user;
    struct dedupe *dedupe; // NULL: off
    const struct dedupe_key *key;
    _Atomic bool attached, refusing, stream_failed, window_complete, cell_ready;
    _Atomic uint64_t told_through; // position; of all loops
    struct older_stream *older;    // OLDER_ORIGINS_MAX; NULL when off
    uint32_t loop_count;
    struct ingest_loop loops[];
};

// ---- ingest_batch.c

// The batch of this turn, made when there is none. NULL: memory is out.
struct loop_batch *ingest_open_batch(struct ingest_loop *loop);
struct intake;
// Adds a request whose records were appended from first_index on; takes over intake->originals. One that stored nothing
// may be answered before this returns. False: memory is out, and everything is still the caller's to undo.
bool ingest_add_waiter(const struct intake *intake, struct loop_batch *batch, uint32_t first_index);
void ingest_flush(struct ingest_loop *loop);
void ingest_tick(struct http_loop *http, void *loop);
void ingest_on_commit_task(struct http_task *task);
void ingest_on_zone_task(struct http_task *task);
void ingest_on_settled_task(struct http_task *task);
void ingest_loop_free(struct ingest_loop *loop);

// ---- ingest_streams.c

// The next incarnation is written. Under own_lock, or before anybody else is there; `id` lives as long as the spool.
void ingest_open_stream(struct ingest *ingest, uint32_t incarnation, const char *id);
// NULL: it has left the ring, or the spool does not know it yet. Any thread.
struct own_stream *ingest_own_stream(struct ingest *ingest, uint32_t incarnation);
// Fills peer_synced, and kafka_committed with the least of the lanes (bits). False: the stream has left the ring.
bool ingest_positions(struct ingest *ingest, uint32_t incarnation, uint32_t lanes, struct ack_positions *out);
const char *ingest_stream_id(struct ingest *ingest, uint32_t incarnation);
uint32_t ingest_newest_incarnation(const struct ingest *ingest);
uint32_t ingest_origin_of(struct ingest *ingest, uint32_t incarnation); // UINT32_MAX: none
uint32_t ingest_origin_epoch(const struct ingest *ingest, uint32_t origin);
// Where an original is that is stored as `seq` of the origin's stream. `lanes`: those that its source ever had.
void ingest_find_original(struct ingest *ingest, enum ack_level level, uint32_t lanes, uint32_t origin, uint64_t seq,
                          struct ack_original *out);

// ---- ingest_answer.c

void ingest_answer_success(struct waiter *waiter);
// A problem without a list of errors; retry_after_s < 0: none.
void ingest_answer_problem(struct http_request *request, int status, int retry_after_s, const char *detail);
struct problem_error;
void ingest_answer_errors(struct http_request *request, int status, const char *detail,
                          const struct problem_error *errors, size_t error_count);
// 409: the event `index` has an id that was accepted with another payload, or that an earlier one of the same request
// has.
void ingest_answer_conflict(struct http_request *request, size_t index, const char *pointer, bool within_request);

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
    uint32_t count;       // events of the body
    uint32_t quarantined; // of those that stay in the records
    uint64_t business_duplicates;
    struct originals *originals; // of its duplicates; NULL: none
    size_t conflict_index;       // CLAIMS_CONFLICT_WITHIN
    struct intake_error errors[INTAKE_ERRORS_MAX];
    size_t error_count;
    bool no_memory;
    struct json_fault fault;
};
enum intake_result { INTAKE_OK, INTAKE_FAULT, INTAKE_EVENT_ERRORS, INTAKE_NO_MEMORY, INTAKE_TOO_LARGE };
// Appends every event of the body to intake->records. On anything but INTAKE_OK the caller cuts the records back.
enum intake_result intake_run(struct intake *intake, enum json_shape shape, struct sl_span body);

// ---- ingest_dedupe.c: the events of a request against the window. Only when ingest->dedupe is not NULL.

// During the walk: computes the identities of an event whose record comes next, puts them into the record and
// remembers them for intake_claim. `same_id`: the id with what compares equal made equal. False: memory is out.
bool intake_identify(struct intake *intake, const struct json_event *event, struct sl_span same_id,
                     struct record *record);
enum claims_result {
    CLAIMS_TAKEN,           // records that are duplicates are gone from the batch; claims are held by it
    CLAIMS_CONFLICT,        // nothing is stored; 409 when intake->originals has reached the level
    CLAIMS_CONFLICT_WITHIN, // the same, with an earlier event of the same request: 409 at once
    CLAIMS_UNSURE,          // nothing is stored: 503, the next attempt will know
    CLAIMS_NO_MEMORY,       // nothing is stored
};
// After the walk. On anything but CLAIMS_TAKEN no claim is held, and the caller cuts the records back. `first_offset`,
// `first_index`: of the request's records in the batch.
enum claims_result intake_claim(struct intake *intake, struct loop_batch *batch, size_t first_offset,
                                uint32_t first_index);
// Forgets the claims from held_count `from` on.
void ingest_forget_claims(struct loop_batch *batch, size_t from);
// The batch is durable: its claims, too.
void ingest_settle_claims(struct loop_batch *batch);
// Looks at what is not known yet, and says what all of it comes to at the waiter's level.
enum ack_verdict ingest_decide_originals(const struct waiter *waiter);
void ingest_dedupe_trim(struct ingest_loop *loop);
void ingest_dedupe_free(struct ingest_loop *loop);

#endif
