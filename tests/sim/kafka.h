// A model of Kafka's transactions as the older protocol (the one of librdkafka) has them: transactional ids with
// epochs, open transactions that hold the stable offset of the progress topic back, a coordinator that times them out.
// Requests are applied when they arrive; delays, lost answers and late arrivals are drain.c's.
//
// Threads: none.
#ifndef SLUICE_TESTS_SIM_KAFKA_H
#define SLUICE_TESTS_SIM_KAFKA_H

#include "tests/sim/sim.h"

enum kafka_result { KAFKA_OK, KAFKA_FENCED, KAFKA_UNAVAILABLE, KAFKA_WRONG_STATE };
enum txn_state { TXN_OPEN, TXN_COMMITTED, TXN_ABORTED };

struct txn {
    struct txn *next_made;
    uint32_t stream;
    uint8_t lane;
    enum txn_state state;
    bool stray;
    uint32_t count;
    uint64_t seqs[TXN_RECORDS];
};
struct progress_entry {
    struct txn *txn;
    uint32_t stream;
    uint8_t lane;
    bool tombstone;
    struct ha_progress progress;
};
struct kafka {
    bool down;              // no broker answers
    bool topic_down[LANES]; // below min.insync.replicas
    int64_t coordinator_moves_until_ns;
    struct {
        uint32_t epoch;
        struct txn *open;
    } ids[STREAMS_MAX][LANES];
    struct {
        struct progress_entry *entries;
        size_t count, capacity, stable;
    } progress[PARTITIONS];
    struct txn *txns;
    uint64_t commits, aborts;
};

void kafka_free(struct sim *sim);
bool kafka_reachable(const struct sim *sim, uint8_t node);
uint32_t kafka_init(struct sim *sim, uint32_t stream, uint8_t lane); // the new epoch
// Begins the transaction when none is open.
enum kafka_result kafka_append(struct sim *sim, uint32_t stream, uint8_t lane, uint32_t epoch, const uint64_t *seqs,
                               uint32_t count, bool begin);
enum kafka_result kafka_append_progress(struct sim *sim, uint32_t stream, uint8_t lane, uint32_t epoch, bool begin,
                                        const struct ha_progress *progress);
enum kafka_result kafka_end(struct sim *sim, uint32_t stream, uint8_t lane, uint32_t epoch, bool commit, bool stray);
void kafka_tombstone(struct sim *sim, uint32_t stream, uint8_t lane);
// What a read_committed reader sees of a partition: [0, this).
size_t kafka_stable(struct sim *sim, uint32_t partition);
size_t kafka_high_watermark(struct sim *sim, uint32_t partition);
// The last committed progress before `upto`; zero when there is none.
struct ha_progress kafka_progress(struct sim *sim, uint32_t stream, uint8_t lane, size_t upto);
bool kafka_any_open(const struct sim *sim);

#endif
