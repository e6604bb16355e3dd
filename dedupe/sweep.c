// The sweep: one linear pass over the table takes away what has expired, so that its slots are empty and the numbers
// of its generations can be used again; then one pass over the filter for each of its generations that is over.
//
// A thread may have read the number of the open generation, been interrupted for long, and enter something in it after
// that has expired. So a pass begins only when each thread that was entering something has been seen outside of it
// (struct stripe: publishing) since the floor was raised: whoever comes later reads a number above the floor.
//
// In small pieces: by dedupe_tick, and by a claimer that cannot rotate because the sweep is behind.
#include "dedupe/internal.h"

// A claim that has been open for so long that its bits in the filter are about to go: it gets others.
static void keep_in_filter(struct dedupe *dedupe, _Atomic uint64_t *w0, struct pair *pair)
{
    uint64_t word = atomic_load(w0);
    uint64_t w1 = atomic_load_explicit(&pair->w1, memory_order_acquire);
    if (state_of(word) != SLOT_PENDING || atomic_load(w0) != word)
        return;
    uint64_t current = atomic_load(&dedupe->current);
    filter_set(dedupe, w1, atomic_load(&generation_of(dedupe, current)->filter));
}

static void sweep_set(struct dedupe *dedupe, struct set *set, uint64_t target)
{
    for (unsigned way = 0; way < WAYS; way++) {
        uint64_t word = atomic_load(&set->w0[way]);
        if (state_of(word) == SLOT_PENDING)
            keep_in_filter(dedupe, &set->w0[way], &set->pairs[way]);
        if (state_of(word) != SLOT_DURABLE || number_of(word, atomic_load(&dedupe->current)) >= target)
            continue;
        if (atomic_compare_exchange_strong(&set->w0[way], &word, 0)) {
            struct stripe *stripe = stripe_mine(dedupe);
            stripe_add(dedupe, stripe, &stripe->removed);
        }
    }
}

// A filter generation that no table generation uses any more. FILTERS: none.
static uint32_t filter_over(const struct dedupe *dedupe)
{
    uint64_t current = atomic_load(&dedupe->current), swept = atomic_load(&dedupe->swept);
    uint32_t open = atomic_load(&generation_of(dedupe, current)->filter);
    for (uint32_t filter = 0; filter < FILTERS; filter++) {
        if (filter != open && !atomic_load(&dedupe->filter_clean[filter]) &&
            atomic_load(&dedupe->filter_last[filter]) < swept)
            return filter;
    }
    return FILTERS;
}

static void clear_some(struct dedupe *dedupe, uint64_t words)
{
    if (dedupe->clear_filter == FILTERS) {
        dedupe->clear_filter = filter_over(dedupe);
        dedupe->clear_next = 0;
        if (dedupe->clear_filter == FILTERS)
            return;
    }
    uint64_t left = dedupe->cells_words - dedupe->clear_next;
    uint64_t to = dedupe->clear_next + (words < left ? words : left);
    filter_clear(dedupe, dedupe->clear_filter, dedupe->clear_next, to);
    dedupe->clear_next = to;
    if (to < dedupe->cells_words)
        return;
    atomic_store(&dedupe->filter_clean[dedupe->clear_filter], true);
    dedupe->clear_filter = FILTERS;
}

// Whether every thread has left what it was at when the pass was to begin.
static bool all_published(struct dedupe *dedupe)
{
    for (uint64_t waits = dedupe->sweep_waits; waits != 0; waits &= waits - 1) {
        unsigned i = (unsigned)__builtin_ctzll(waits);
        uint64_t publishing = atomic_load(&dedupe->stripes[i].publishing);
        bool gone =
            i == STRIPES - 1 ? publishing == 0 : publishing % 2 == 0 || publishing != dedupe->sweep_publishing[i];
        if (gone)
            dedupe->sweep_waits &= ~(UINT64_C(1) << i);
    }
    return dedupe->sweep_waits == 0;
}

static void begin_pass(struct dedupe *dedupe)
{
    dedupe->sweep_target = atomic_load(&dedupe->floor);
    dedupe->sweep_next = 0;
    dedupe->sweep_waits = UINT64_MAX;
    for (unsigned i = 0; i < STRIPES; i++)
        dedupe->sweep_publishing[i] = atomic_load(&dedupe->stripes[i].publishing);
}

static void clear_table_some(struct dedupe *dedupe, uint64_t sets)
{
    uint64_t all = CHOICES * dedupe->third;
    if (dedupe->sweep_target <= atomic_load(&dedupe->swept))
        begin_pass(dedupe);
    if (dedupe->sweep_target <= atomic_load(&dedupe->swept) || !all_published(dedupe))
        return;
    uint64_t left = all - dedupe->sweep_next;
    uint64_t to = dedupe->sweep_next + (sets < left ? sets : left);
    for (uint64_t i = dedupe->sweep_next; i < to; i++)
        sweep_set(dedupe, &dedupe->sets[i], dedupe->sweep_target);
    dedupe->sweep_next = to;
    if (to == all)
        atomic_store(&dedupe->swept, dedupe->sweep_target);
}

void sweep_some(struct dedupe *dedupe, uint64_t sets)
{
    if (atomic_flag_test_and_set(&dedupe->sweeping))
        return;
    clear_table_some(dedupe, sets);
    clear_some(dedupe, sets);
    atomic_flag_clear(&dedupe->sweeping);
}
