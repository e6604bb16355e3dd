#include "base/histogram.h"

#include "base/error.h"

#define US(n) (UINT64_C(1000) * (n))
#define MS(n) (UINT64_C(1000000) * (n))

const struct histogram_bounds histogram_latency_ns = {
    .count = 18,
    .upper = {US(100), US(200), US(350), US(500), US(750), MS(1), MS(2), MS(3), MS(5), MS(10), MS(25), MS(50), MS(100),
              MS(250), MS(1000), MS(2500), MS(10000), MS(30000)},
};

const struct histogram_bounds histogram_sizes = {
    .count = 17,
    .upper = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536},
};

void histogram_init(struct histogram *histogram, const struct histogram_bounds *bounds)
{
    sl_assert(bounds->count <= HISTOGRAM_BUCKETS_MAX);
    histogram->bounds = bounds;
    for (size_t i = 0; i <= HISTOGRAM_BUCKETS_MAX; i++)
        atomic_init(&histogram->buckets[i], 0);
    atomic_init(&histogram->sum, 0);
}

void histogram_observe_many(struct histogram *histogram, uint64_t value, uint64_t times)
{
    size_t bucket = 0;
    while (bucket < histogram->bounds->count && value > histogram->bounds->upper[bucket])
        bucket++;
    if (bucket == histogram->bounds->count)
        bucket = HISTOGRAM_BUCKETS_MAX;
    atomic_fetch_add_explicit(&histogram->buckets[bucket], times, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum, value * times, memory_order_relaxed);
}

void histogram_observe(struct histogram *histogram, uint64_t value)
{
    histogram_observe_many(histogram, value, 1);
}

static uint64_t load(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void histogram_add(struct histogram *into, const struct histogram *from)
{
    sl_assert(into->bounds == from->bounds);
    for (size_t i = 0; i <= HISTOGRAM_BUCKETS_MAX; i++)
        atomic_fetch_add_explicit(&into->buckets[i], load(&from->buckets[i]), memory_order_relaxed);
    atomic_fetch_add_explicit(&into->sum, load(&from->sum), memory_order_relaxed);
}

uint64_t histogram_count(const struct histogram *histogram)
{
    uint64_t count = 0;
    for (size_t i = 0; i <= HISTOGRAM_BUCKETS_MAX; i++)
        count += load(&histogram->buckets[i]);
    return count;
}

uint64_t histogram_quantile(const struct histogram *histogram, double q)
{
    uint64_t count = histogram_count(histogram);
    if (count == 0)
        return 0;
    uint64_t rank = (uint64_t)(q * (double)count);
    uint64_t seen = 0;
    for (size_t i = 0; i < histogram->bounds->count; i++) {
        seen += load(&histogram->buckets[i]);
        if (seen > rank || seen == count)
            return histogram->bounds->upper[i];
    }
    return UINT64_MAX;
}
