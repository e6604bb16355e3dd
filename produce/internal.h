// What the files of produce/ share. Nothing of it is for other folders.
//
// Threads: a struct lane belongs to its own thread but for the members said to be shared; `mutex` guards those that are
// not atomic. A struct topic lives until produce_stop.
#ifndef SLUICE_PRODUCE_INTERNAL_H
#define SLUICE_PRODUCE_INTERNAL_H

#include "base/clock.h"
#include "base/log.h"
#include "produce/bisect.h"
#include "produce/errors.h"
#include "produce/guard.h"
#include "produce/produce.h"
#include "produce/progress.h"
#include "produce/sizing.h"
#include "produce/tail.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    LANES_MAX = 64, // configured ones, and those that only older streams name
    ROUTE_BUCKETS = 256,
    STAGE_MAX = 8192, // records prepared ahead
    CONDEMNED_MAX = 64,
    RECEIVED_RUNS_MAX = 4096,
    DRAIN_ORDERS_MAX = 8, // waiting; a step follows the answer to the one before, so more is a mistake of the caller

    TRANSACTION_TIMEOUT_MS = 15000,
    // Below the transaction's timeout, with room for an abort: a message that cannot be delivered ends the transaction
    // before the coordinator does.
    MESSAGE_TIMEOUT_MS = 10000,
    FETCH_WAIT_MS = 500,
    FETCH_HURRY_MS = 50,
    SOCKET_TIMEOUT_MS = 7000,
    CALL_DEADLINE_MS = 15000, // after that the outcome is unknown: new producer
    INIT_SLICE_MS = 2000,     // init_transactions is resumed this often, so that a stop is noticed
    // An abort waits for delivery reports that the lane has to serve, so it has to be resumed. Long enough for
    // librdkafka's thread to answer on a busy machine; a slice that it misses costs a new producer (commit.c).
    ABORT_SLICE_MS = 200,
};

// A topic, over all lanes. Immutable name; the figures under produce->mutex.
struct topic {
    char name[PRODUCE_TOPIC_MAX + 8]; // room for ".dlq"
    struct topic *next;
    bool listed; // of a configured source: shown by produce_topics, and looked at before its first record comes
    char lane[SPOOL_NAME_MAX + 1]; // of that source
    int64_t surveyed_ns;           // monotonic, of the last such look
    _Atomic uint64_t produced;
    int partitions, replication_factor, min_insync_replicas;
    char warning[300];
};

struct embedded;

struct produce {
    struct produce_options options; // deep copy; strings are freed with it
    char **owned;                   // every string and array of the copy
    size_t owned_count;
    struct embedded *embedded; // NULL: real brokers
    char brokers[4096];

    pthread_mutex_t updating;          // one produce_update at a time
    pthread_mutex_t mutex;             // lanes (only ever appended to), topics, drainer, drains; taken before a lane's
    char drainer[SPOOL_STREAM_ID_MAX]; // this process's name in claims
    struct lane *lanes[LANES_MAX];
    _Atomic size_t lane_count;
    struct topic *topics;
    struct drain *drains;          // driven: oldest first
    struct drain *retired;         // their threads have nothing left to do but to be joined
    struct feed *feed;             // driven
    struct tombstones *tombstones; // driven

    struct histogram histogram;
    _Atomic int64_t reached_ns; // monotonic: last answer of a broker to any lane
    _Atomic bool stopping;
    _Atomic int64_t stop_deadline_ns; // monotonic, valid while stopping
};

// A topic as one lane uses it.
struct route {
    struct route *next; // in its bucket
    struct topic *topic;
    uint32_t hash;
    bool dead_letter;
    bool ready;                // the session's producer has its metadata: records may be handed over
    bool refusing;             // a dead-letter topic that cannot be had
    int64_t checked_ns;        // monotonic, last look at its configuration
    int64_t message_bytes_max; // of the topic; 0 = not known
    rd_kafka_topic_t *handle;  // of the session's producer
    uint64_t in_transaction;   // records
};

// A frame while anything points into it: the cursor, the stage, librdkafka.
struct chunk {
    struct chunk *next, *previous;
    struct spool_frame *frame;
    uint32_t references;
    const void **payloads; // message_seq_at's; NULL until a delivery fails
};

enum message_kind { MESSAGE_EVENT, MESSAGE_DEAD_LETTER, MESSAGE_REFUSED };

struct message { // a record, ready to be handed over
    enum message_kind kind;
    uint64_t seq;
    struct chunk *chunk;
    struct route *route;         // NULL for MESSAGE_REFUSED
    rd_kafka_headers_t *headers; // owned until librdkafka takes them
    const char *cause;           // static; MESSAGE_REFUSED
    struct record record;        // views into the chunk
};

struct condemned {
    uint64_t seq;
    bool dead_letter_refused; // even <topic>.dlq did not take it
    char cause[96];
};

struct received_run { // for the histogram: events that came in at about the same time
    int64_t wall_ms;
    uint32_t count;
};

struct transaction {
    bool open;
    uint64_t first_seq;
    uint64_t limit;   // last seq that it may take (bisect)
    bool cut;         // the next record waits for its topic: commit what there is
    uint64_t records; // of the lane, whatever became of them
    uint64_t counted; // of them, those that spool_note_committed has not been told of
    uint64_t dead_lettered, refused;
    int64_t opened_ns;
    uint32_t outstanding; // handed to librdkafka, no delivery report yet
    uint64_t outstanding_bytes;
    // Of failed deliveries.
    bool failed;
    rd_kafka_resp_err_t error;    // the first that is not a consequence of another
    rd_kafka_resp_err_t innocent; // the last that is
    uint64_t suspect_first, suspect_last, suspect_count;
    rd_kafka_resp_err_t suspect_error;
    struct route *suspect_route; // that refused
    size_t run_count;
    struct received_run runs[RECEIVED_RUNS_MAX];
};

// One stream of the lane while it is being drained.
struct session {
    char stream[SPOOL_STREAM_ID_MAX];
    char node[SPOOL_NAME_MAX + 1];     // that accepted it
    char drainer[SPOOL_STREAM_ID_MAX]; // the name in this session's claim
    bool current;
    bool ended;         // the reader said END, or `last` is reached
    uint64_t last;      // nothing behind it is staged; UINT64_MAX: no limit
    int64_t starved_ns; // monotonic, since when the reader gives less than `last`; 0: it does not
    uint64_t counted;   // spool_note_committed was told through here
    uint64_t skipped;   // records in (counted, progress.through] that an earlier incarnation committed
    uint64_t verified;
    struct progress progress; // as committed last
    struct guard guard;
    int64_t progress_ns;      // monotonic, of that commit
    int64_t verified_ns;      // monotonic, of the last look
    int64_t committed_end_ns; // when the transaction before ended, for the rate

    rd_kafka_t *rk;
    rd_kafka_queue_t *events;
    rd_kafka_topic_t *progress_topic;
    bool fatal;

    // Reading ahead.
    struct spool_reader *reader;
    struct chunk *chunks;
    struct chunk *cursor; // being walked, NULL between frames
    struct sl_reader cursor_in;
    uint64_t cursor_seq; // of the next record
    // Records were taken from the stage that are neither committed nor to be read again yet: no transaction may begin.
    bool taken;
    uint64_t staged_through; // everything up to here was walked
    struct message *stage;   // ring of STAGE_MAX
    size_t stage_first, stage_count;
    uint64_t staged_bytes; // payloads
};

struct lane {
    struct produce *produce;
    char name[SPOOL_NAME_MAX + 1];
    bool driven; // part of a struct drain
    pthread_t thread;

    // Shared.
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct produce_lane_status status; // under mutex
    struct spool_reader *waking;       // under mutex: the session's reader, for lane_wake
    _Atomic bool leaving;              // written under mutex: produce_release was called, the session ends at once
    _Atomic uint64_t committed;        // of the current stream
    _Atomic int64_t last_commit_ns;
    _Atomic int64_t waiting_since_ns; // produce_lane_status

    // The thread's own.
    struct tail tail;
    struct route *routes[ROUTE_BUCKETS];
    struct route *route_last; // of the record before: mostly the same again
    struct session session;
    struct transaction transaction;
    struct sizing sizing;
    struct bisect bisect;
    struct condemned condemned[CONDEMNED_MAX];
    size_t condemned_count;
    bool bisect_too_large;                    // the round of bisect began with "too large"
    uint32_t batch_bytes;                     // of the next producer; 0 = as configured
    uint32_t failures;                        // in a row, for the pause
    uint32_t fences;                          // the same, of fencings
    uint64_t done_counter;                    // streams up to this one are drained
    char claimed_stream[SPOOL_STREAM_ID_MAX]; // the claim that this process committed last
    uint64_t claimed;
    int64_t probed_ns;     // monotonic, of the last question to Kafka that was only asked to see whether it is there
    int64_t complained_ns; // monotonic, of the last warning about Kafka
    struct route *held;    // the route in trouble
    char trouble[300];
};

// What a piece of work asks of the lane's state machine.
enum step {
    STEP_GO,      // go on
    STEP_ABORTED, // the transaction was aborted, position is at progress.through + 1: go on at once
    STEP_AGAIN,   // the same after a pause; or nothing was done, because Kafka does not answer
    STEP_REBUILD, // new producer
    STEP_FENCED,  // new producer, after a look at who claimed
    STEP_HELD,    // lane->held is in trouble; lane->trouble says how
    STEP_DENIED,  // new producer, later; lane->trouble
    STEP_END,     // the stream is drained
    STEP_STOPPED, // until a person decides; lane->trouble
    STEP_QUIT,    // produce_stop's deadline has passed, or everything is done
};

// ---- produce.c
struct topic *produce_topic_of(struct produce *produce, const char *name, size_t length);
bool produce_add_lane(struct produce *produce, const char *name, struct sl_error *err) SL_MUST_USE;

struct lane *lane_init(struct lane *lane, struct produce *produce, const char *name);
void lane_destroy(struct lane *lane); // its thread has ended; the struct itself is the caller's
void lane_free_routes(struct lane *lane);
// Ends a wait of the lane's thread, so that it looks around. With lane->mutex.
void lane_wake(struct lane *lane);

// ---- lane.c
void *lane_main(void *lane);

// ---- work.c
// Works on the connected session until it has to be closed; says why.
enum step lane_work(struct lane *lane);
// Stop was asked for and its deadline has passed, or the drain was released.
bool lane_must_quit(const struct lane *lane);
// For a call that cannot be interrupted: CALL_DEADLINE_MS, or less when a stop has a deadline before.
int lane_call_timeout_ms(const struct lane *lane);
void lane_set_state(struct lane *lane, enum produce_lane_state state, const char *trouble);
// What the session's stream is to this node: following or draining.
enum produce_lane_state lane_working_state(const struct lane *lane);
// Sleeps; ends early when a stop is asked for or its deadline passes. False: must quit.
bool lane_pause(struct lane *lane, int64_t ns);
// A warning about Kafka with lane->trouble, one a minute.
void lane_complain(struct lane *lane);
int64_t lane_backoff_ns(uint32_t failures, int64_t least_ns, int64_t most_ns);
// How often progress is committed anew although nothing moves.
int64_t lane_life_ns(const struct lane *lane);

// ---- handle.c: librdkafka handles and their configuration
// Every property on a trial handle: SL_E_CONFIG names the one that is wrong.
bool handle_check(const struct produce *produce, struct sl_error *err) SL_MUST_USE;
rd_kafka_t *handle_producer(struct lane *lane, const char *transactional_id, struct sl_error *err);
// `fetch_wait_ms`: how long a broker holds an empty answer back. A position over control records is only told with an
// empty answer: FETCH_HURRY_MS for who waits for that.
rd_kafka_t *handle_consumer(const struct produce *produce, const char *name, uint64_t fetch_wait_ms,
                            struct sl_error *err);
// Without transactions, for tombstones.
rd_kafka_t *handle_plain_producer(const struct produce *produce, const char *name, struct sl_error *err);
uint32_t handle_batch_bytes(rd_kafka_t *rk); // batch.size

// ---- connect.c: the steps of a takeover, which are those of this node's own restart
// All of them, in order.
enum step session_connect(struct lane *lane, const struct spool_stream_info *info);
// One by one. A session is open from the first, whatever came of it, to session_close.
enum step session_open(struct lane *lane, const struct spool_stream_info *info);
// Reads progress to the high watermark, judges it by the guard and by the claim, and sets session->progress by it.
enum step session_read_progress(struct lane *lane);
enum step session_claim(struct lane *lane, uint64_t claim);
enum step session_start_reading(struct lane *lane);
// Aborts what is open when the session was told to quit.
void session_leave(struct lane *lane);
void session_close(struct lane *lane);
// Without a producer: reads progress to the high watermark. lane->tail has it.
enum step session_look(struct lane *lane, const struct spool_stream_info *info);
// After a fencing, without a producer: STEP_STOPPED when a rival has claimed, else STEP_GO.
enum step session_look_for_rival(struct lane *lane);
// A rival has it, as lane->tail says: the lane stops; a drain is fenced.
enum step session_lost(struct lane *lane);
// True: nothing of the lane is left in an older stream beyond what was verified before; Kafka need not be asked.
bool session_is_done(struct lane *lane, const struct spool_stream_info *info);
// Others have produced what lies at or below `through`, as verified: counts the lane's records there for the spool.
void session_count(struct lane *lane, const struct spool_stream_info *info, uint64_t through);

// ---- stage.c: reading ahead
enum stage_state { STAGE_MORE, STAGE_WAIT, STAGE_END, STAGE_FAILED };
// Walks on until a record is staged that was not before, the stage is full, or there is nothing within timeout_ns.
enum stage_state stage_fill(struct lane *lane, int64_t timeout_ns, struct sl_error *err);
// As far as commits may claim: all before the first staged record.
uint64_t stage_through(const struct session *session);
struct message *stage_head(struct session *session);
void stage_pop(struct session *session);
// Drops what is staged and reads again behind what is counted.
bool stage_reset(struct lane *lane, struct sl_error *err) SL_MUST_USE;
void stage_drop(struct session *session);
void chunk_hold(struct chunk *chunk);
void chunk_drop(struct session *session, struct chunk *chunk);

// ---- message.c
// Fills kind, route, headers from message->record and message->seq.
void message_prepare(struct lane *lane, struct message *message);
void message_clear(struct message *message);
// The seq of the record in `chunk` whose payload lies at `payload`.
uint64_t message_seq_at(struct chunk *chunk, const void *payload);

// ---- deadletter.c
// The condemnation of a record, or NULL.
const struct condemned *deadletter_find(const struct lane *lane, uint64_t seq);
// `again`: the dead-letter topic refused it as well.
void deadletter_condemn(struct lane *lane, uint64_t seq, const char *cause, bool again);
// Forgets those through `through`: they are committed.
void deadletter_forget(struct lane *lane, uint64_t through);
struct route *deadletter_route(struct lane *lane, const struct record *record);
void deadletter_headers(rd_kafka_headers_t *headers, const struct record *record, const char *cause);

// ---- topics.c
struct route *route_of(struct lane *lane, const void *name, size_t length, bool dead_letter);
// STEP_GO: records may be handed over. STEP_HELD with lane->held and lane->trouble; STEP_AGAIN: Kafka did not answer.
enum step route_make_ready(struct lane *lane, struct route *route);
void routes_forget_producer(struct lane *lane);
void routes_doubt(struct lane *lane); // after an error: look again before the next record
// Looks at a few of the lane's configured topics that were not looked at for a while: what an operator should be told
// before the first event comes. For idle moments.
void topics_survey(struct lane *lane);
// sluice.progress exists, is compacted, and its id is read. STEP_GO, STEP_HELD, STEP_AGAIN.
enum step topics_progress(struct lane *lane, uint64_t topic_id[2]);

// ---- admin.c: admin calls, made synchronous
struct admin_config {
    const char *name;
    char value[128]; // "" = not told
};
rd_kafka_resp_err_t admin_create_topic(rd_kafka_t *rk, const char *topic, int partitions, int replication,
                                       const char *const (*configs)[2], size_t config_count, char *text,
                                       size_t text_size);
rd_kafka_resp_err_t admin_topic_configs(rd_kafka_t *rk, const char *topic, struct admin_config *configs, size_t count);
rd_kafka_resp_err_t admin_topic_id(rd_kafka_t *rk, const char *topic, uint64_t id[2]);

// ---- transaction.c
// One transaction, or an idle turn. STEP_GO when the next may follow.
enum step transaction_run(struct lane *lane);
// Serves delivery reports and errors of the session's producer; waits at most timeout_ms for the first.
void transaction_serve(struct lane *lane, int timeout_ms);

// ---- commit.c
// All delivery reports, then the progress record, then the commit; on failure everything that the error asks for.
enum step transaction_finish(struct lane *lane, uint64_t through, uint64_t claim, bool closed);
enum step transaction_begin(struct lane *lane);

// ---- abort.c
// What a failed delivery or a fatal error of the handle asks for.
enum step transaction_failed(struct lane *lane);
// After a failed call or delivery: aborts and reads progress where that is what the action says.
enum step transaction_fail(struct lane *lane, enum error_action action, const char *what, const char *text);
// The same, from the error that a call returned; destroys it.
enum step transaction_fail_call(struct lane *lane, const char *what, rd_kafka_error_t *error);
// Aborts what is open, in slices, for at most deadline_ms. False: the outcome is unknown.
bool transaction_abort(struct lane *lane, int deadline_ms);
// Forgets the transaction: nothing of it is in librdkafka any more.
void transaction_clear(struct lane *lane);

// ---- claim.c
enum step claim_commit(struct lane *lane, uint64_t claim);
// Is this progress record a rival's claim, given the last one that was committed here?
bool claim_is_rival(const struct progress *own, const struct progress *read);

// ---- verify.c
// Looks at what read_committed readers see of the lane's progress and tells the spool. session_lost() on a rival's
// claim.
enum step verify_progress(struct lane *lane, int timeout_ms);

// ---- drain.c: driven mode
void drain_order_count(struct produce *produce, const char *stream, const char *lane, uint64_t through);
// produce_stop's part; stopping is set.
void drains_stop(struct produce *produce);
// Dies here when this is a takeover and the test asked for it (base/failpoint.h).
void drain_failpoint(const struct lane *lane, const char *name);

// ---- steps.c: what an order asks for; answers it
enum drain_order_kind { DRAIN_STEP, DRAIN_COUNT };
struct drain_order {
    enum drain_order_kind kind;
    struct produce_order step; // without its strings; DRAIN_COUNT: through alone
};
struct drain {
    struct lane lane; // the first member: a driven lane is a drain
    char stream[SPOOL_STREAM_ID_MAX];
    struct drain *next; // under produce->mutex
    // Under lane.mutex.
    struct drain_order orders[DRAIN_ORDERS_MAX];
    size_t order_count;
};
void drain_carry_out(struct drain *drain, const struct drain_order *order);

// ---- feed.c: the reader of all progress
bool feed_start(struct produce *produce, struct sl_error *err) SL_MUST_USE;
void feed_stop(struct produce *produce); // NULL feed is allowed

// ---- tombstone.c
void tombstones_init(struct produce *produce);
void tombstones_serve(struct produce *produce); // the feed's thread
void tombstones_free(struct produce *produce);  // when that has ended; NULL is allowed

// ---- embedded.c
struct embedded *embedded_start(const struct produce_options *options, struct sl_error *err);
const char *embedded_brokers(const struct embedded *embedded);
void embedded_topic(struct embedded *embedded, const char *topic, int partitions); // any thread; idempotent
void embedded_stop(struct embedded *embedded);                                     // NULL is allowed

#endif
