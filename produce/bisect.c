#include "produce/bisect.h"

#include "base/error.h"

uint64_t bisect_failed(struct bisect *bisect, uint64_t first, uint64_t last, uint64_t count)
{
    sl_assert(first >= 1 && first <= last && count >= 1);
    bool found = bisect->active && bisect->found;
    *bisect = (struct bisect){.active = true, .found = found, .first = first, .last = last};
    if (count > 1 && first < last)
        return 0;
    bisect->found = true;
    return first;
}

uint64_t bisect_limit(const struct bisect *bisect, uint64_t next)
{
    if (!bisect->active || next > bisect->last)
        return UINT64_MAX;
    if (next < bisect->first)
        return bisect->first - 1;
    // Strictly less than the suspects until one is left, so that every failure narrows them.
    return next + (bisect->last - next) / 2;
}

bool bisect_succeeded(struct bisect *bisect, uint64_t through)
{
    if (!bisect->active || through < bisect->last)
        return false;
    bisect->active = false;
    return !bisect->found;
}
