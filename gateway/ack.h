// The acknowledgement rule: when may a client be told 2xx? Pure functions over positions (DESIGN.md sections 1, 2 and
// 8).
//
// Threads: none; no state. Nothing here waits, reads a clock or knows of HTTP.
#ifndef SLUICE_GATEWAY_ACK_H
#define SLUICE_GATEWAY_ACK_H

#include "gateway/config.h"

#include <stdbool.h>
#include <stdint.h>

// How far the stream that holds the request's events has come. A position p means: every record up to and including
// seq p; 0 means none. `kafka_committed` is that of the lane of the events' own source.
struct ack_positions {
    uint64_t synced;      // this node's disk
    uint64_t peer_synced; // the furthest peer in another zone; 0 while there are no peers
    uint64_t kafka_committed;
    bool stream_failed; // a write or sync failed: `synced` will never move again
};

enum ack_verdict {
    ACK_WAIT,
    ACK_GIVE,   // 2xx
    ACK_REFUSE, // the level cannot be reached any more: 503
};

// last_seq ≥ 1: the last seq of the request. The verdict for a set of events is that of its last one, because each
// position covers everything below it.
enum ack_verdict ack_decide(enum ack_level level, uint64_t last_seq, const struct ack_positions *positions);

// What is known of the first event of an id, whose duplicate or conflict is to be answered.
struct ack_original {
    enum ack_original_state {
        ACK_ORIGINAL_PENDING, // its own request is not decided yet
        ACK_ORIGINAL_GONE,    // it was not stored, or what became of it is not known any more
        ACK_ORIGINAL_STORED,  // on this node's disk, and where else:
    } state;
    bool at_peer, in_kafka; // STORED only
};
// The answer to a duplicate is its original's, never earlier and never better. GONE is refused: the client sends again,
// and then it is new.
enum ack_verdict ack_decide_original(enum ack_level level, const struct ack_original *original);

// For a request whose parts have these verdicts: REFUSE before WAIT before GIVE.
enum ack_verdict ack_both(enum ack_verdict a, enum ack_verdict b);

#endif
