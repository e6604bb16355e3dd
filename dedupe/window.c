// The window as a whole: made, ticked, freed.
#include "dedupe/internal.h"

#include <stdlib.h>

bool dedupe_new(struct dedupe **out, const struct dedupe_options *options, struct sl_error *err)
{
    if (options->window_ns <= 0)
        return sl_fail(err, SL_E_INVALID, "a window of %lld ns", (long long)options->window_ns);
    struct dedupe *dedupe = aligned_alloc(_Alignof(struct dedupe), sizeof(*dedupe));
    if (dedupe == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "the window of event ids");
    *dedupe = (struct dedupe){.window_ns = options->window_ns, .clear_filter = FILTERS};
    if (!table_map(dedupe, options->memory_bytes, err)) {
        free(dedupe);
        return false;
    }
    atomic_flag_clear(&dedupe->rotating);
    atomic_flag_clear(&dedupe->sweeping);
    pthread_mutex_init(&dedupe->origins_mutex, NULL);
    dedupe->part = table_slots(dedupe) / PARTS;
    dedupe->check_mask = 255;
    while (dedupe->check_mask > dedupe->part / 16)
        dedupe->check_mask /= 2;
    atomic_store(&dedupe->base_since_ns, options->now_wall_ns);
    atomic_store(&dedupe->evicted_until_ns, INT64_MIN);
    for (unsigned i = 0; i < STRIPES; i++)
        atomic_store(&dedupe->stripes[i].latest_ns, INT64_MIN);
    generation_start(dedupe, options->now_wall_ns);
    *out = dedupe;
    return true;
}

void dedupe_free(struct dedupe *dedupe)
{
    if (dedupe == NULL)
        return;
    table_unmap(dedupe);
    pthread_mutex_destroy(&dedupe->origins_mutex);
    free(dedupe);
}

void dedupe_covered_since(struct dedupe *dedupe, int64_t wall_ns)
{
    atomic_store(&dedupe->base_since_ns, wall_ns);
}

void dedupe_tick(struct dedupe *dedupe, int64_t now_wall_ns)
{
    // A 32nd of the table, so that a tick takes milliseconds; all of a small one.
    uint64_t sets = CHOICES * dedupe->third, piece = sets / 32;
    coverage_raise(&dedupe->clock_ns, now_wall_ns);
    uint64_t current = atomic_load(&dedupe->current);
    if (now_wall_ns >= atomic_load(&dedupe->rotate_at_ns))
        (void)generation_rotate(dedupe, current, now_wall_ns);
    else
        generation_check_count(dedupe, now_wall_ns);
    generation_expire(dedupe);
    sweep_some(dedupe, piece < 65536 ? 65536 : piece);
    rate_sample(dedupe, now_wall_ns);
}
