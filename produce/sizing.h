// How long a transaction grows: by time and load. A commit costs about 50 ms whatever it holds, so at low load the
// answer is "as soon as there is nothing more to read", and under load it is the configured time. Pure; one thread.
#ifndef SLUICE_PRODUCE_SIZING_H
#define SLUICE_PRODUCE_SIZING_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SIZING_QUIET_RATE = 2000, // events/s up to which a transaction ends when the reader has nothing more
    SIZING_FULL_RATE = 50000, // from here on it always grows to its full time
};

struct sizing {
    int64_t time_ns; // the configured time, transaction_time_ns
    double rate;     // events/s, smoothed over transactions
};

// A transaction of `events` took elapsed_ns, from its first record (or the end of the one before) to its commit.
void sizing_observe(struct sizing *sizing, uint64_t events, int64_t elapsed_ns);
// How old an unfinished transaction gets before it is committed although the reader waits for more.
int64_t sizing_least_ns(const struct sizing *sizing);
// Is a transaction of this age to be committed? `more`: the reader has another record at hand.
bool sizing_ripe(const struct sizing *sizing, int64_t age_ns, bool more);

#endif
