// Driven mode (produce_options.driven): the steps of a drain one by one, in the order that somebody else decides (the
// protocol core of a cell, docs/protocol-ha.md). A drain is a stream and a lane: a thread of its own with, between INIT
// and produce_release, one producer. What happens inside a step (aborts, bisection, dead letters, a topic that holds
// the lane up) is the same code as without driving; what needs a new producer ends the step, for the caller to decide.
//
// Threads: any; every function returns at once. The callbacks of produce_options (on_done, on_committed, on_progress)
// come on threads of produce (on_done of an order for which no thread can be started: on the caller's), must be cheap,
// and must not call back into produce. They are made with a lock of the drain held: no lock that a callback takes may
// be held while produce is called. Strings are copied.
#ifndef SLUICE_PRODUCE_DRAIN_H
#define SLUICE_PRODUCE_DRAIN_H

#include "spool/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct produce;

enum produce_step {
    PRODUCE_STEP_INIT,    // a new producer and init_transactions: fences every other drainer of stream and lane
    PRODUCE_STEP_READ,    // progress, to the high watermark; judged by what this node verified before
    PRODUCE_STEP_CLAIM,   // commits {through, claim, drainer}
    PRODUCE_STEP_RECORDS, // transactions from `first` on; the progress record after all delivery reports
    PRODUCE_STEP_CLOSE,   // commits progress with `closed`, a hint
    PRODUCE_STEP_LOOK,    // READ without a producer: whose claim is the last? Needs no INIT and no release
};
const char *produce_step_word(enum produce_step step);

enum produce_result {
    PRODUCE_OK,
    PRODUCE_FAILED, // refused, timed out, unknown, or stopped for a person: nothing is concluded from it. Release, then
                    // INIT
    PRODUCE_FENCED, // another producer of this transactional.id, or the coordinator timed the transaction out. Release,
                    // LOOK
};

struct produce_progress { // a progress record, as a read_committed reader saw it
    bool found;           // false: no record, or a tombstone; the rest is zero
    bool closed;          // a hint: the stream ends at `through`
    uint64_t through, claim;
    char drainer[SPOOL_STREAM_ID_MAX]; // the stream that the drainer wrote itself
};

struct produce_order {
    enum produce_step step;
    const char *stream, *lane; // the stream: one that the spool holds (LOOK: any)
    uint32_t ticket;           // comes back in produce_done
    uint64_t through;          // CLAIM: as READ said; CLOSE: as RECORDS said
    uint64_t claim;            // CLAIM and CLOSE
    // RECORDS. first: RECORDS or CLAIM before it ended at first - 1. last: inclusive, durable here; 0 or UINT64_MAX:
    // the current stream, to be followed until it is released, or sealed (then it is done when its end is produced).
    uint64_t first, last;
};

struct produce_done {
    enum produce_step step;
    const char *stream, *lane; // during the call
    uint32_t ticket;
    enum produce_result result;
    struct produce_progress progress; // READ, LOOK
    uint64_t through;                 // RECORDS, CLOSE: committed. What is committed meanwhile is on_committed's
    const char *trouble;              // FAILED, FENCED: a sentence for an operator
};

// Each order is answered by exactly one on_done, unless the drain is released before or produce_stop comes. The orders
// of a drain are carried out one after the other.
//
// While RECORDS waits for records or for a topic in trouble, the progress record is committed anew at least every
// takeover_after/3, moved or not: a sign of life. (Not while a transaction is in flight: its end is the sign.)
void produce_order(struct produce *produce, const struct produce_order *order);
// Ends what the drain does, aborts what is open, destroys the producer, in the background. When this returns, on_done
// and on_committed have come for the last time for what was ordered before; a later order of the same drain waits for
// the end of the earlier one's producer. A drain that is not there: nothing happens.
void produce_release(struct produce *produce, const char *stream, const char *lane);

// The name in claims from now on: the newest own stream. At first it is spool_stream().
void produce_set_drainer(struct produce *produce, const char *stream);

// Removes the progress of a stream's lanes from Kafka, in the background, by a producer without transactions. Best
// effort: on_progress with `gone` tells that it came to pass; otherwise ask again.
void produce_tombstone(struct produce *produce, const char *stream, const char *const *lanes, size_t lane_count);

#endif
