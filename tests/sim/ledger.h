// The truth of a run: every record that was ever appended, on which disks it is durable, whether it is committed, which
// events were acknowledged. Checks the invariants at every change.
//
// Threads: none.
#ifndef SLUICE_TESTS_SIM_LEDGER_H
#define SLUICE_TESTS_SIM_LEDGER_H

#include "tests/sim/sim.h"

enum { EVENTS_MAX = 16384, PLACES_MAX = 12 };
enum level { LEVEL_DISK, LEVEL_AZ2, LEVEL_KAFKA }; // order of gateway/config.h

struct record_truth {
    uint32_t event;
    uint8_t lane;
    uint8_t durable; // bit i: on node i's disk now
    uint8_t known;   // bit i: node i's disk knows the id, also when the record is deleted
    uint8_t ever;    // bit i: was on node i's disk; what a node knows of another may be older than that disk's loss
    uint8_t commits;
    bool stray;     // committed by a stray EndTxn: may be committed once more, the stated case
    bool told;      // a client got a 2xx for this very record
    bool accepted;  // from the very process that took it: its place in the order is promised
    uint64_t order; // of acceptance, over all streams
};
struct stream_truth {
    struct ha_id id;
    char text[SPOOL_STREAM_ID_MAX];
    struct record_truth *records; // [seq]; 0 is unused
    uint64_t end, capacity;
    uint64_t through[LANES];        // highest committed progress
    uint64_t checked[LANES];        // every record of the lane up to it is committed
    uint64_t last_seq[LANES][KEYS]; // committed
    uint32_t predecessor;           // index + 1
    uint64_t predecessor_seq;
    uint64_t boot; // of its owner, when it was opened
};
struct event_truth {
    uint8_t key, lane, level, home;
    bool acknowledged, fallible; // fallible: acknowledged at `disk` alone
    uint8_t places;
    struct {
        uint32_t stream;
        uint64_t seq;
    } at[PLACES_MAX];
};
struct ledger {
    struct stream_truth streams[STREAMS_MAX];
    uint32_t stream_count;
    struct event_truth events[EVENTS_MAX];
    uint32_t event_count;
    uint64_t orders;
    struct {
        uint32_t stream;
        uint64_t seq;
    } * committed; // in the order of the commits
    size_t committed_count, committed_capacity;
    bool disk_lost[NODES];
    uint64_t acknowledged, appended, doubled_elsewhere, strays;
};

// Index of the stream; made when it is new.
uint32_t ledger_stream(struct sim *sim, struct ha_id id);
struct stream_truth *ledger_at(struct sim *sim, uint32_t stream);
void ledger_append(struct sim *sim, uint32_t stream, uint64_t seq, uint32_t event);
void ledger_durable(struct sim *sim, uint32_t stream, uint64_t first, uint64_t last, uint8_t node);
void ledger_deleted(struct sim *sim, uint32_t stream, uint64_t first, uint64_t last, uint8_t node);
void ledger_disk_lost(struct sim *sim, uint8_t node);
// What a restart finds: everything of node's that was durable between base and the last record must be in base..end.
void ledger_found(struct sim *sim, uint32_t stream, uint64_t base, uint64_t end, uint8_t node);
void ledger_acknowledged(struct sim *sim, uint32_t event, uint32_t stream, uint64_t seq, enum level level);
void ledger_committed(struct sim *sim, uint32_t stream, uint64_t seq, bool stray);
void ledger_progress(struct sim *sim, uint32_t stream, uint8_t lane, uint64_t through);
// At the end of a healed run.
void ledger_final(struct sim *sim, bool order_given_up);
// Acknowledged, not in Kafka, and on fewer than two disks.
uint64_t ledger_thin(struct sim *sim);
bool ledger_all_committed(struct sim *sim); // of what is on any disk

#endif
