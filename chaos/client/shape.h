// When events are due. Each shape is a function of the event's number alone, so that a run can be repeated.
#ifndef SLUICE_CHAOS_CLIENT_SHAPE_H
#define SLUICE_CHAOS_CLIENT_SHAPE_H

#include <stdint.h>

enum { SHAPE_PARTS = 5 };

// A period of straight lines, over and over: a low level, from 45 % of it up to the peak within 5 %, 8 % at the peak,
// down within 5 %, the low level again.
struct shape {
    int64_t period_ns;
    double events; // a period
    struct {
        double seconds, from_rate, to_rate, events;
    } parts[SHAPE_PARTS];
};

// `rate` is the average in events/s; the peak is `factor` times that (1 is steady, at most SHAPE_FACTOR_MAX).
#define SHAPE_FACTOR_MAX 7.0
void shape_init(struct shape *shape, double rate, double factor, int64_t period_ns);
// For struct load_options: when event number `event` is due, from the start.
int64_t shape_due_ns(void *shape, uint64_t event);

#endif
