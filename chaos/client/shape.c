#include "chaos/client/shape.h"

#include "base/clock.h"

#include <math.h>
#include <stddef.h>

static const double part_shares[SHAPE_PARTS] = {0.45, 0.05, 0.08, 0.05, 0.37};

void shape_init(struct shape *shape, double rate, double factor, int64_t period_ns)
{
    double slopes = part_shares[1] + part_shares[3], top = part_shares[2];
    double low = (1 - factor * (top + slopes / 2)) / (1 - top - slopes / 2); // so that the average is 1
    const double levels[SHAPE_PARTS + 1] = {low, low, factor, factor, low, low};
    double period_s = (double)period_ns / (double)SL_NS_PER_S;
    shape->period_ns = period_ns;
    shape->events = rate * period_s;
    for (size_t i = 0; i < SHAPE_PARTS; i++) {
        double seconds = part_shares[i] * period_s;
        shape->parts[i].seconds = seconds;
        shape->parts[i].from_rate = levels[i] * rate;
        shape->parts[i].to_rate = levels[i + 1] * rate;
        shape->parts[i].events = seconds * (levels[i] + levels[i + 1]) / 2 * rate;
    }
}

int64_t shape_due_ns(void *context, uint64_t event)
{
    const struct shape *shape = (const struct shape *)context;
    double periods = floor((double)event / shape->events);
    double rest = (double)event - periods * shape->events, start_s = 0;
    size_t i = 0;
    for (; i < SHAPE_PARTS - 1 && rest >= shape->parts[i].events; i++) {
        rest -= shape->parts[i].events;
        start_s += shape->parts[i].seconds;
    }
    // rest = from t + a t²/2, solved in the form that a = 0 does not break
    double from = shape->parts[i].from_rate, a = (shape->parts[i].to_rate - from) / shape->parts[i].seconds;
    double t = 2 * rest / (from + sqrt(fmax(0, from * from + 2 * a * rest)));
    return (int64_t)(periods * (double)shape->period_ns + (start_s + t) * (double)SL_NS_PER_S);
}
