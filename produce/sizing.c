#include "produce/sizing.h"

void sizing_observe(struct sizing *sizing, uint64_t events, int64_t elapsed_ns)
{
    if (elapsed_ns < 1000000) // a clock that stands still says nothing about load
        elapsed_ns = 1000000;
    double rate = (double)events * 1e9 / (double)elapsed_ns;
    // The last few transactions count: load comes in steps, and one odd transaction should not change the size.
    sizing->rate = sizing->rate * 0.7 + rate * 0.3;
}

int64_t sizing_least_ns(const struct sizing *sizing)
{
    double share = (sizing->rate - SIZING_QUIET_RATE) / (SIZING_FULL_RATE - SIZING_QUIET_RATE);
    if (share <= 0)
        return 0;
    return share >= 1 ? sizing->time_ns : (int64_t)(share * (double)sizing->time_ns);
}

bool sizing_ripe(const struct sizing *sizing, int64_t age_ns, bool more)
{
    if (age_ns >= sizing->time_ns)
        return true;
    return !more && age_ns >= sizing_least_ns(sizing);
}
