// The guard of a stream and lane: what this node durably knows of the place where its progress lies. Progress that went
// back, another sluice.progress or another Kafka cluster stop the drain until a person says `adopt`: to go on would
// produce a second time what the first cluster has, or trust a cluster that lost it.
//
// guard_judge, guard_encode, guard_decode are pure; guard_load and guard_store go through a note of the spool and may
// be called by the lane's thread.
#ifndef SLUICE_PRODUCE_GUARD_H
#define SLUICE_PRODUCE_GUARD_H

#include "base/error.h"
#include "spool/spool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GUARD_CLUSTER_MAX = 64, GUARD_BYTES_MAX = 256, GUARD_NAME_MAX = 41 };

struct guard {
    char lane[SPOOL_NAME_MAX + 1];
    uint64_t through;                   // highest verified
    uint64_t topic_id[2];               // of sluice.progress; both 0 = not known (a broker that does not tell)
    char cluster_id[GUARD_CLUSTER_MAX]; // "" = not known
};

// What was found in Kafka now, against what is known. False: *err (SL_E_REFUSED) is the alarm.
bool guard_judge(const struct guard *known, const struct guard *found, struct sl_error *err) SL_MUST_USE;

size_t guard_encode(const struct guard *guard, uint8_t bytes[GUARD_BYTES_MAX]);
bool guard_decode(struct guard *guard, const void *bytes, size_t length, struct sl_error *err) SL_MUST_USE;

// *known is zero but for its lane when there is no note yet.
bool guard_load(struct spool *spool, const char *stream, const char *lane, struct guard *known,
                struct sl_error *err) SL_MUST_USE;
bool guard_store(struct spool *spool, const char *stream, const struct guard *guard, struct sl_error *err) SL_MUST_USE;

#endif
