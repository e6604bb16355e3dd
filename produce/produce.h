// The drain: every record of every stream of this node's spool into Kafka, exactly once for read_committed readers.
//
// One thread and one transactional producer a lane ("drain-<lane>"): it drains the lane's records of the older streams,
// oldest first, then follows the current one. A lane whose topic is in trouble holds up itself alone. In a cell
// (options.driven) somebody else orders the steps: produce/drain.h.
//
// This is the only folder that includes rdkafka.h; nothing of it shows here.
//
// Threads: produce_start/produce_stop from one thread; everything else from any thread. Strings handed in are copied.
#ifndef SLUICE_PRODUCE_PRODUCE_H
#define SLUICE_PRODUCE_PRODUCE_H

#include "base/error.h"
#include "base/histogram.h"
#include "produce/drain.h"
#include "spool/spool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PRODUCE_TOPIC_MAX = 249 };

struct produce;

struct produce_property {
    const char *name, *value;
};

struct produce_topic { // of a configured source
    const char *name;
    const char *lane;
};

struct produce_options {
    struct spool *spool;
    const char *node, *cluster;   // enter the transactional.id: sluice.<cluster>.<stream>.<lane>
    const char *brokers;          // "host:port,…"; NULL = embedded: librdkafka's mock cluster in this process
    uint32_t embedded_partitions; // of each topic of the embedded cluster, ≥ 4
    const struct produce_property *properties; // any librdkafka property, already free of the refused ones
    size_t property_count;
    bool transactional;          // false: mode idempotent, the weaker promise of docs/guarantees.md
    int64_t transaction_time_ns; // how long a transaction grows under load
    uint32_t queue_events;       // librdkafka's queue
    uint64_t queue_bytes;
    const struct produce_topic *topics;
    size_t topic_count;
    const char *const *lanes;
    size_t lane_count;
    // Goes on although Kafka's progress went back, or lies in another sluice.progress or cluster: from the position
    // that this node verified last. Without it such a lane is PRODUCE_STOPPED. For one start, by an operator.
    bool adopt;
    // Any drain thread: the committed position of a stream moved in this lane; not driven: of the current stream alone.
    // Must be cheap and not block. May be NULL.
    void (*on_committed)(void *user, const char *stream, const char *lane, uint64_t through);
    // No lane drains by itself; drain.h's orders do. The rest is for that mode.
    bool driven;
    int64_t takeover_after_ns;
    // Any drain thread: the answer to an order.
    void (*on_done)(void *user, const struct produce_done *done);
    // Thread "progress-tail": every progress record that read_committed readers see, of every stream, from the
    // beginning, for ever; those of one stream in their order. After sluice.progress was made anew, and rarely after
    // trouble with it, it begins again. `gone`: a tombstone. May be NULL.
    void (*on_progress)(void *user, const char *stream, const char *lane, const struct produce_progress *progress,
                        bool gone);
    void *user;
};

// Checks every librdkafka property (SL_E_CONFIG names it) and starts the lanes' threads. Does not wait for Kafka. Older
// streams that name lanes which are configured no more are drained as well.
bool produce_start(struct produce **out, const struct produce_options *options, struct sl_error *err) SL_MUST_USE;
// Goes on draining until everything is committed and verified or `deadline_ns` (monotonic) has passed, whichever is
// first; then aborts what is open, closes, joins, frees. What Kafka has not taken stays spooled. With a deadline in the
// past: stops at once.
void produce_stop(struct produce *produce, int64_t deadline_ns);

// For a reload: starts lanes that are new, checks topics that are new. Lanes are never stopped.
bool produce_update(struct produce *produce, const struct produce_topic *topics, size_t topic_count,
                    const char *const *lanes, size_t lane_count, struct sl_error *err) SL_MUST_USE;

// The current stream's committed position in a lane; 0 = nothing. Driven: of the stream that produce_set_drainer named.
uint64_t produce_committed(const struct produce *produce, const char *lane);
// The brokers' address; for embedded the mock cluster's.
const char *produce_brokers(const struct produce *produce);

// ---- figures

enum produce_lane_state {
    PRODUCE_CONNECTING, // waiting for Kafka: init_transactions, reading progress, the claim
    PRODUCE_DRAINING,   // an older stream
    PRODUCE_FOLLOWING,  // the current stream
    PRODUCE_HELD,       // a topic is missing, not authorised, or without enough replicas; `trouble` says which
    PRODUCE_STOPPED,    // on purpose, until a person decides (progress went back, other cluster id, a rival's claim)
};
const char *produce_lane_state_word(enum produce_lane_state state);

struct produce_lane_status {
    char lane[SPOOL_NAME_MAX + 1];
    char stream[SPOOL_STREAM_ID_MAX]; // being drained now
    enum produce_lane_state state;
    int64_t since_wall_ns;    // of the state
    int64_t waiting_since_ns; // monotonic; records were handed to Kafka then, and nothing was committed since; 0 = none
                              // wait
    uint64_t committed_seq, verified_seq;
    uint64_t transactions, aborts, fenced, producers; // since start; producers = handles made
    uint64_t dead_lettered, refused;
    char trouble[300]; // "" or a sentence for an operator
};
// Driven: one for each drain that is there, whatever its stream; none for a lane that nobody drains here.
size_t produce_lanes(const struct produce *produce, struct produce_lane_status *out, size_t capacity);

struct produce_topic_status {
    char topic[PRODUCE_TOPIC_MAX + 1];
    uint64_t produced; // committed records since start: sluice_produced_total{topic}
    int partitions;    // 0 = not known or missing
    int replication_factor;
    int min_insync_replicas; // -1 = not known
    char warning[200];       // weaker replication than the level promises, missing, …
};
size_t produce_topics(const struct produce *produce, struct produce_topic_status *out, size_t capacity);

// received → committed, ns: sluice_produce_seconds
const struct histogram *produce_histogram(const struct produce *produce);
// Kafka reachable in the last 10 s, as far as the handles know.
bool produce_connected(const struct produce *produce);
// Monotonic time of the last successful commit (or verified idle rewrite) of the lane, 0 = none yet.
int64_t produce_last_commit_ns(const struct produce *produce, const char *lane);

#endif
