// What the window says of itself. The counters lie in stripes: a claim never writes a line that another thread's
// claims write.
#include "dedupe/internal.h"

// Where eviction starts: measured (tests/dedupe/occupancy.c) at 0.848 for 64 M slots, later in smaller tables.
static const double OCCUPANCY = 0.845;

// The threads of the process in the order in which they first came here; those beyond share the last stripe.
unsigned stripe_index(void)
{
    static _Atomic unsigned threads;
    static _Thread_local unsigned mine = UINT32_MAX;
    if (mine == UINT32_MAX) {
        unsigned number = atomic_fetch_add(&threads, 1);
        mine = number < STRIPES - 1 ? number : STRIPES - 1;
    }
    return mine;
}

int64_t stripes_latest(const struct dedupe *dedupe, int64_t now_ns)
{
    for (unsigned i = 0; i < STRIPES; i++) {
        int64_t latest_ns = atomic_load(&dedupe->stripes[i].latest_ns);
        now_ns = latest_ns > now_ns ? latest_ns : now_ns;
    }
    return now_ns;
}

uint64_t stripes_added(const struct dedupe *dedupe)
{
    uint64_t added = 0;
    for (unsigned i = 0; i < STRIPES; i++) {
        const struct stripe *stripe = &dedupe->stripes[i];
        added += atomic_load_explicit(&stripe->claimed, memory_order_relaxed) +
                 atomic_load_explicit(&stripe->inserted, memory_order_relaxed) -
                 atomic_load_explicit(&stripe->forgotten, memory_order_relaxed);
    }
    return added;
}

uint64_t stripes_opened(const struct dedupe *dedupe)
{
    uint64_t opened = stripes_added(dedupe);
    for (unsigned i = 0; i < STRIPES; i++)
        opened -= atomic_load_explicit(&dedupe->stripes[i].inserted_late, memory_order_relaxed);
    return opened;
}

void rate_sample(struct dedupe *dedupe, int64_t now_ns)
{
    const int64_t minute_ns = INT64_C(60) * 1000000000;
    uint64_t claimed = 0;
    for (unsigned i = 0; i < STRIPES; i++)
        claimed += atomic_load_explicit(&dedupe->stripes[i].claimed, memory_order_relaxed) -
                   atomic_load_explicit(&dedupe->stripes[i].forgotten, memory_order_relaxed);
    uint64_t kept = dedupe->samples < RATE_SAMPLES ? dedupe->samples : RATE_SAMPLES;
    for (uint64_t i = dedupe->samples - kept; i < dedupe->samples; i++) {
        uint64_t at = i % RATE_SAMPLES;
        int64_t passed_ns = now_ns - dedupe->sample_ns[at];
        if (passed_ns <= 0 || passed_ns > minute_ns)
            continue;
        double added = (double)(int64_t)(claimed - dedupe->sample_claimed[at]);
        atomic_store(&dedupe->rate, added > 0 ? added * 1e9 / (double)passed_ns : 0);
        break;
    }
    // No more than one a second, so that the samples reach back for a minute.
    uint64_t newest = (dedupe->samples + RATE_SAMPLES - 1) % RATE_SAMPLES;
    if (kept > 0 && now_ns - dedupe->sample_ns[newest] < 1000000000 && now_ns >= dedupe->sample_ns[newest])
        return;
    dedupe->sample_ns[dedupe->samples % RATE_SAMPLES] = now_ns;
    dedupe->sample_claimed[dedupe->samples % RATE_SAMPLES] = claimed;
    dedupe->samples++;
}

static void sum_stripes(const struct dedupe *dedupe, struct dedupe_figures *out)
{
    uint64_t removed = 0;
    for (unsigned i = 0; i < STRIPES; i++) {
        const struct stripe *stripe = &dedupe->stripes[i];
        removed += atomic_load(&stripe->removed);
        out->evicted += atomic_load(&stripe->evicted);
        out->unremembered += atomic_load(&stripe->unremembered);
        out->confirmed_duplicate += atomic_load(&stripe->duplicate);
        out->confirmed_conflict += atomic_load(&stripe->conflict);
        out->confirmed_new += atomic_load(&stripe->fresh);
    }
    uint64_t added = stripes_added(dedupe);
    out->entries = added > removed ? added - removed : 0;
}

void dedupe_figures(const struct dedupe *dedupe, int64_t now_wall_ns, struct dedupe_figures *out)
{
    int64_t since_ns = coverage_since(dedupe, now_wall_ns);
    *out = (struct dedupe_figures){
        .memory_bytes = dedupe->memory_bytes + sizeof(*dedupe),
        .capacity = table_slots(dedupe),
        .generations = atomic_load(&dedupe->current) - atomic_load(&dedupe->floor) + 1,
        .window_ns = dedupe->window_ns,
        .covered_ns = since_ns < now_wall_ns ? now_wall_ns - since_ns : 0,
        .claims_per_second = atomic_load(&dedupe->rate),
    };
    sum_stripes(dedupe, out);
    if (out->covered_ns > dedupe->window_ns)
        out->covered_ns = dedupe->window_ns;
    double kept = (double)out->capacity * OCCUPANCY;
    out->bytes_per_entry = (double)out->memory_bytes / kept;
    out->memory_needed_bytes =
        (uint64_t)(out->claims_per_second * ((double)dedupe->window_ns / 1e9) * out->bytes_per_entry);
    out->window_affordable_ns = INT64_MAX;
    if (out->claims_per_second > 0 && kept / out->claims_per_second < (double)INT64_MAX / 1e9)
        out->window_affordable_ns = (int64_t)(kept / out->claims_per_second * 1e9);
}
