// Time. Monotonic for deadlines and durations, wall for stamps that people and Kafka read. Any thread.
#ifndef SLUICE_BASE_CLOCK_H
#define SLUICE_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define SL_NS_PER_MS INT64_C(1000000)
#define SL_NS_PER_S  INT64_C(1000000000)

static inline int64_t sl_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * SL_NS_PER_S + now.tv_nsec;
}

static inline int64_t sl_monotonic_ns(void)
{
    return sl_clock_ns(CLOCK_MONOTONIC);
}

static inline int64_t sl_wall_ns(void)
{
    return sl_clock_ns(CLOCK_REALTIME);
}

#endif
