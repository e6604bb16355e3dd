// A configuration as the loops need it: each source with its counters, its lane and its compiled pointers.
//
// Threads: immutable once made; reference counted like the configuration that it holds (retain and release on any
// thread).
#ifndef SLUICE_GATEWAY_ROUTES_H
#define SLUICE_GATEWAY_ROUTES_H

#include "gateway/config.h"
#include "gateway/stats.h"
#include "spool/spool.h"

enum { ROUTE_POINTERS_MAX = CONFIG_PICKED_MAX + 2 };

struct route {
    const struct config_source *source;
    // Of the source; every record has them.
    struct sl_span name, lane_name, topic;
    uint32_t stats; // index for stats_shard
    uint8_t lane;   // index for spool_batch.lane_counts
    // Bits of this and of every lane that the source had since the process started: where the first event of a
    // duplicate went.
    uint32_t lanes_ever;
    // For json_walk: the id's parts (NULL where a part is a header), then key, then time, then the business fields.
    const struct json_pointer *pointers[ROUTE_POINTERS_MAX];
    size_t pointer_count, key_index, time_index, business_index;
};

struct routes;
// Retains the configuration. Every lane of it must have been declared to the spool. SL_E_NO_MEMORY, SL_E_INVALID.
bool routes_new(struct routes **out, struct config *config, struct spool *spool, struct stats *stats,
                struct sl_error *err) SL_MUST_USE;
struct routes *routes_retain(struct routes *routes);
void routes_release(struct routes *routes); // NULL is allowed

const struct config *routes_config(const struct routes *routes);
size_t routes_count(const struct routes *routes);
const struct route *routes_at(const struct routes *routes, size_t index); // sorted by name
const struct route *routes_find(const struct routes *routes, struct sl_span name);

#endif
