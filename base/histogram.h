// Histograms with fixed bounds, for Prometheus.
//
// Threads: any thread may observe and read at any time (relaxed atomics; a reader may see a count whose sum is not
// there yet). To keep hot threads apart, give each its own and add them up with histogram_add when read.
// Units: nanoseconds or plain counts, as the owner says; bounds are inclusive upper ends in the same unit.
#ifndef SLUICE_BASE_HISTOGRAM_H
#define SLUICE_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_BUCKETS_MAX = 24 };

struct histogram_bounds {
    size_t count; // at most HISTOGRAM_BUCKETS_MAX; the bucket +Inf is implied
    uint64_t upper[HISTOGRAM_BUCKETS_MAX];
};

struct histogram {
    const struct histogram_bounds *bounds;
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS_MAX + 1]; // not cumulative; the last one is +Inf
    _Atomic uint64_t sum;
};

// 100 µs … 30 s; 5 ms, the objective for an acknowledgement, is a bound of its own.
extern const struct histogram_bounds histogram_latency_ns;
// 1 … 65536 in powers of two: events in a group commit.
extern const struct histogram_bounds histogram_sizes;

void histogram_init(struct histogram *histogram, const struct histogram_bounds *bounds);
void histogram_observe(struct histogram *histogram, uint64_t value);
// The same for `times` equal values.
void histogram_observe_many(struct histogram *histogram, uint64_t value, uint64_t times);
// into += from; the bounds are the same object.
void histogram_add(struct histogram *into, const struct histogram *from);
uint64_t histogram_count(const struct histogram *histogram);
// The upper bound of the bucket that holds quantile q (0..1); UINT64_MAX for +Inf, 0 when empty.
uint64_t histogram_quantile(const struct histogram *histogram, double q);

#endif
