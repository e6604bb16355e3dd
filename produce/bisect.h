// Which record of a refused batch is the one? Kafka names a batch ("too large", "invalid record"); transactions over
// halves of the suspects name the record. Pure; one thread.
#ifndef SLUICE_PRODUCE_BISECT_H
#define SLUICE_PRODUCE_BISECT_H

#include <stdbool.h>
#include <stdint.h>

struct bisect {
    bool active;
    bool found;           // some record of this round was condemned
    uint64_t first, last; // suspects, seqs inclusive; there may be more than one culprit among them
};

// A transaction failed: the refused records lie in first..last, `count` of them. Returns the seq to condemn, or 0 when
// halving has to go on. Suspects of an earlier, wider failure that lie behind these are left to be refused again.
uint64_t bisect_failed(struct bisect *bisect, uint64_t first, uint64_t last, uint64_t count);
// The last seq that a transaction which starts at `next` may take.
uint64_t bisect_limit(const struct bisect *bisect, uint64_t next);
// A transaction through `through` was committed. Returns true when the round ended with nobody condemned: then it was
// the batch as a whole that was refused, and smaller batches are the cure.
bool bisect_succeeded(struct bisect *bisect, uint64_t through);

#endif
