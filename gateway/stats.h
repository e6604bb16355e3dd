// What happened to events, by source: the counters behind sluice_events_total and the conservation sums of
// DESIGN.md 1.5.
//
// Threads: each loop writes its own shard and nobody else's (single writer: a relaxed load and store, no locked
// instruction); any thread reads any shard at any time. Sources are added by one thread at a time (start, reload) and
// never removed: an index stays valid for the life of the process, over reloads.
#ifndef SLUICE_GATEWAY_STATS_H
#define SLUICE_GATEWAY_STATS_H

#include "base/histogram.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum outcome {
    OUTCOME_ACCEPTED,
    OUTCOME_DUPLICATE,
    OUTCOME_CONFLICT,
    OUTCOME_QUARANTINED,
    OUTCOME_REJECTED,
    OUTCOME_THROTTLED,
    OUTCOME_UNAVAILABLE,
    OUTCOME_COUNT,
};
extern const char *const outcome_words[OUTCOME_COUNT];

// Events of one source as one loop saw them. At every turn's end, on that loop:
//   received = sum of outcomes + in_flight
//   spooled  = accepted + quarantined + unavailable_after_append + waiting
struct source_stats {
    _Atomic uint64_t received;
    _Atomic uint64_t outcomes[OUTCOME_COUNT];
    _Atomic uint64_t in_flight;                // taken, not answered yet: for the disk, Kafka, or another request
    _Atomic uint64_t spooled;                  // synced to this node's disk
    _Atomic uint64_t waiting;                  // spooled, and waiting for a higher level
    _Atomic uint64_t unavailable_after_append; // spooled, but the client was told 503 or had gone
    _Atomic uint64_t business_duplicates;      // of all that were taken: their business fields were known by another id
    struct histogram ack_ns;                   // request complete → 2xx
} __attribute__((aligned(64)));

struct stats;
enum { STATS_UNKNOWN_SOURCE = 0 }; // the index of `_unknown`

struct stats *stats_new(uint32_t loop_count);
void stats_free(struct stats *stats);
// The index of a source, added if it is new. UINT32_MAX when memory is out or there are too many.
uint32_t stats_source_index(struct stats *stats, const char *name);
uint32_t stats_source_count(const struct stats *stats);
const char *stats_source_name(const struct stats *stats, uint32_t index);
// Remembers that the source's events go to this lane from now on. Returns the bits of all lanes that it ever had, over
// reloads and over its removal. By the thread that adds sources.
uint32_t stats_note_lane(struct stats *stats, uint32_t index, uint8_t lane);
struct source_stats *stats_shard(struct stats *stats, uint32_t index, uint32_t loop);

// The owner's way to change a counter of its own shard.
static inline void stats_add(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount, memory_order_relaxed);
}
static inline void stats_subtract(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) - amount, memory_order_relaxed);
}
static inline uint64_t stats_read(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

// Sums over all loops. The histogram is initialised here.
struct source_totals {
    uint64_t received, outcomes[OUTCOME_COUNT], in_flight, spooled, waiting, unavailable_after_append;
    uint64_t business_duplicates;
    struct histogram ack_ns;
};
void stats_totals(const struct stats *stats, uint32_t index, struct source_totals *out);

// The largest difference in the two sums of any source in this loop's shards; 0 when they hold. On that loop's thread,
// between requests.
uint64_t stats_check_shard(const struct stats *stats, uint32_t loop);

#endif
