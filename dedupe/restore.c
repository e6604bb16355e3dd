// A fresh window filled from a snapshot: each entry goes where it was, so that what had room then has room now, and
// most memory is met in its order.
//
// Nobody claims yet, so an entry needs no tie-break: its slot is taken by one compare and swap, and is published when
// it is whole. An id that a snapshot has twice (let go and claimed again while it was written) is met by the filter.
#include "dedupe/internal.h"

unsigned restore_choice(const struct dedupe *dedupe, uint64_t slot)
{
    return (unsigned)(slot / WAYS / dedupe->third);
}

void restore_prefetch(const struct dedupe *dedupe, const struct dedupe_id *id, unsigned choice)
{
    struct place place;
    place_of(dedupe, id, &place);
    __builtin_prefetch((const void *)&dedupe->cells[filter_place_of(dedupe, place.w1).word], 1);
    __builtin_prefetch(place.sets[choice], 1);
}

bool restore_entry(struct dedupe *dedupe, const struct dedupe_id *id, unsigned choice, uint64_t payload_hash,
                   uint64_t number, uint32_t origin, uint64_t seq)
{
    struct place place;
    struct hit hit;
    int stream = generation_stream(dedupe, number, origin, seq);
    if (stream < 0)
        return false;
    place_of(dedupe, id, &place);
    if (filter_may_hold(dedupe, place.w1) && table_find(dedupe, &place, UINT64_MAX, &hit) == SEARCH_FOUND)
        return true;
    struct set *set = place.sets[choice];
    for (unsigned way = 0; way < WAYS; way++) {
        uint64_t empty = atomic_load_explicit(&set->w0[way], memory_order_relaxed);
        if (empty != 0 ||
            !atomic_compare_exchange_strong(&set->w0[way], &empty, word_make(place.want, 0, SLOT_RESERVED)))
            continue;
        atomic_store_explicit(&set->pairs[way].w1, place.w1, memory_order_release);
        atomic_store_explicit(&set->pairs[way].w2, w2_make(payload_hash, stream, seq), memory_order_release);
        filter_set(dedupe, place.w1, atomic_load(&generation_of(dedupe, number)->filter));
        atomic_store_explicit(&set->w0[way], word_make(place.want, number, SLOT_DURABLE), memory_order_release);
        struct stripe *stripe = stripe_mine(dedupe);
        stripe_add(dedupe, stripe, &stripe->inserted);
        if (number != atomic_load_explicit(&dedupe->current, memory_order_relaxed))
            stripe_add(dedupe, stripe, &stripe->inserted_late);
        return true;
    }
    return false;
}
