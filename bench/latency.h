// Latencies in logarithmic buckets of 1/64 (1.6 %), as HdrHistogram does: 1 ns … 2^42 ns (73 minutes) in 19 KiB.
// Threads: one.
#ifndef SLUICE_BENCH_LATENCY_H
#define SLUICE_BENCH_LATENCY_H

#include <stdint.h>

enum { LATENCY_SUB_BITS = 6, LATENCY_POWERS = 37, LATENCY_BUCKETS = LATENCY_POWERS << LATENCY_SUB_BITS };

struct latency {
    uint64_t count, sum_ns, max_ns;
    uint64_t buckets[LATENCY_BUCKETS];
};

void latency_reset(struct latency *latency);
void latency_add(struct latency *latency, uint64_t ns);
// The upper end of the bucket that holds quantile q (0..1), never above max_ns; 0 when empty.
uint64_t latency_quantile_ns(const struct latency *latency, double q);
uint64_t latency_mean_ns(const struct latency *latency);

#endif
