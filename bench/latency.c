#include "bench/latency.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum { SUB_COUNT = 1 << LATENCY_SUB_BITS };

void latency_reset(struct latency *latency)
{
    memset(latency, 0, sizeof(*latency));
}

// Values below SUB_COUNT have a bucket each; above, the leading SUB_BITS + 1 bits choose it.
static size_t bucket_of(uint64_t ns)
{
    if (ns < SUB_COUNT)
        return (size_t)ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(ns) - LATENCY_SUB_BITS;
    size_t bucket = ((size_t)power << LATENCY_SUB_BITS) + (size_t)(ns >> power);
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

static uint64_t upper_ns(size_t bucket)
{
    if (bucket < SUB_COUNT)
        return bucket;
    unsigned power = (unsigned)(bucket >> LATENCY_SUB_BITS) - 1;
    uint64_t leading = bucket - ((uint64_t)power << LATENCY_SUB_BITS);
    return ((leading + 1) << power) - 1;
}

void latency_add(struct latency *latency, uint64_t ns)
{
    latency->count++;
    latency->sum_ns += ns;
    if (ns > latency->max_ns)
        latency->max_ns = ns;
    latency->buckets[bucket_of(ns)]++;
}

uint64_t latency_quantile_ns(const struct latency *latency, double q)
{
    if (latency->count == 0)
        return 0;
    uint64_t rank = (uint64_t)ceil(q * (double)latency->count);
    uint64_t seen = 0;
    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen >= rank && seen > 0) {
            uint64_t upper = upper_ns(i);
            return upper < latency->max_ns ? upper : latency->max_ns;
        }
    }
    return latency->max_ns;
}

uint64_t latency_mean_ns(const struct latency *latency)
{
    return latency->count == 0 ? 0 : latency->sum_ns / latency->count;
}
