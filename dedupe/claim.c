// Claims: the only place where entries come into the table.
//
// The happy path of a new id: the filter has not seen it; an empty slot of the emptiest of its three sets is reserved
// (compare and swap), its words are written, the filter gets its bits, the three sets are looked through once more,
// and the slot becomes pending. When the event is durable, its claimer writes the seq and makes it durable.
//
// Two that claim one id at once reserve two slots. Reserving and looking are sequentially consistent: at least one of
// the two sees the other. What it sees decides:
//   - pending or durable, all 128 bits the same: it withdraws and has its verdict.
//   - reserved, in a higher slot: it kills that one, which then cannot become pending, and looks again.
//   - reserved, in a lower slot: it withdraws and is unsure.
// So of all that are reserved at once the lowest alone can become pending. A claim of another id with the same tag in
// the same set (one case in 2^53) may be killed likewise: it is unsure, never wrong.
//
// No slot: evicting takes the oldest durable entry of the three sets, and says before that the window has become
// shorter. When all 24 slots belong to open claims, the id is not remembered, and the window begins anew.
#include "dedupe/internal.h"

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() atomic_signal_fence(memory_order_seq_cst)
#endif

// A claim's slot has the number of its generation above, more of it than the word holds.
enum { SLOT_BITS = 36 };
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)

enum { LOOKS_MAX = 200, ROTATIONS_MAX = 1000, INSERTS_MAX = 64 };

void dedupe_prefetch(const struct dedupe *dedupe, const struct dedupe_id *id)
{
    struct place place;
    place_of(dedupe, id, &place);
    __builtin_prefetch((const void *)&dedupe->cells[filter_place_of(dedupe, place.w1).word], 1);
#pragma GCC unroll 3
    for (unsigned choice = 0; choice < CHOICES; choice++)
        __builtin_prefetch(place.sets[choice], 1);
}

void dedupe_prefetch_slot(const struct dedupe *dedupe, const struct dedupe_id *id)
{
    struct place place;
    place_of(dedupe, id, &place);
    table_prefetch(dedupe, &place);
}

void dedupe_prefetch_claim(const struct dedupe *dedupe, const struct dedupe_claim *claim)
{
    if (claim->word == 0)
        return;
    uint64_t slot = claim->slot & SLOT_MASK;
    __builtin_prefetch((const void *)word_of(dedupe, slot), 1);
    __builtin_prefetch((const void *)pair_of(dedupe, slot), 1);
}

static enum dedupe_verdict verdict_of(const struct hit *hit, uint64_t payload_hash)
{
    return ((hit->w2 ^ payload_hash) & HASH_MASK) == 0 ? DEDUPE_DUPLICATE : DEDUPE_CONFLICT;
}

// ---- entering

enum entered {
    ENTER_DONE,
    ENTER_FOUND, // it is there: *hit
    ENTER_TIED,  // somebody else is at it
    ENTER_FULL,
};

struct newcomer {
    uint64_t w2;
    uint64_t number; // of its generation
    enum slot_state state;
};

// Looks whether the reserved slot is alone, and publishes it or takes it back.
static enum entered publish(struct dedupe *dedupe, const struct place *place, uint64_t slot, uint64_t word,
                            struct hit *hit)
{
    _Atomic uint64_t *w0 = word_of(dedupe, slot);
    for (;;) {
        enum search search = table_find(dedupe, place, slot, hit);
        if (search == SEARCH_NONE) {
            uint64_t reserved = word_make(place->want, 0, SLOT_RESERVED);
            if (atomic_compare_exchange_strong(w0, &reserved, word))
                return ENTER_DONE;
            atomic_store(w0, 0);
            return ENTER_TIED;
        }
        if (search == SEARCH_BUSY && slot < hit->slot) {
            uint64_t other = hit->word;
            atomic_compare_exchange_strong(word_of(dedupe, hit->slot), &other, word_make(place->want, 0, SLOT_KILLED));
            continue;
        }
        atomic_store(w0, 0);
        return search == SEARCH_FOUND ? ENTER_FOUND : ENTER_TIED;
    }
}

// One that was interrupted for long while it claimed set bits that may be gone. From here on the sweep sees to them.
static void keep_in_filter(struct dedupe *dedupe, uint64_t w1, uint64_t number)
{
    while (__builtin_expect(atomic_load(&dedupe->floor) > number, false)) {
        number = atomic_load(&dedupe->current);
        filter_set(dedupe, w1, atomic_load(&generation_of(dedupe, number)->filter));
    }
}

// A slot, reserved. False: none that may be had.
static bool reserve(struct dedupe *dedupe, const struct place *place, const struct newcomer *newcomer, uint64_t *slot)
{
    uint64_t old, evicts;
    for (;;) {
        if (!table_choose(dedupe, place, slot, &old, &evicts))
            return false;
        // What is entered from elsewhere gives way to what is younger.
        if (newcomer->state == SLOT_DURABLE && evicts > newcomer->number)
            return false;
        if (evicts != 0)
            generation_evicts(dedupe, evicts);
        uint64_t seen = old;
        if (atomic_compare_exchange_strong(word_of(dedupe, *slot), &seen, word_make(place->want, 0, SLOT_RESERVED)))
            break;
    }
    if (old == 0)
        return true;
    struct stripe *stripe = stripe_mine(dedupe);
    stripe_add(dedupe, stripe, &stripe->removed);
    if (evicts != 0)
        stripe_add(dedupe, stripe, &stripe->evicted);
    return true;
}

static enum entered enter(struct dedupe *dedupe, const struct place *place, const struct newcomer *newcomer,
                          uint64_t *slot, struct hit *hit)
{
    if (!reserve(dedupe, place, newcomer, slot))
        return ENTER_FULL;
    struct pair *pair = pair_of(dedupe, *slot);
    atomic_store_explicit(&pair->w1, place->w1, memory_order_release);
    atomic_store_explicit(&pair->w2, newcomer->w2, memory_order_release);
    // Before it is published: what the filter does not hold is taken for new.
    filter_set(dedupe, place->w1, atomic_load(&generation_of(dedupe, newcomer->number)->filter));
    return publish(dedupe, place, *slot, word_make(place->want, newcomer->number, newcomer->state), hit);
}

// Looks until nobody is at it, or long enough.
static enum search find_settled(const struct dedupe *dedupe, const struct place *place, struct hit *hit)
{
    enum search search = SEARCH_BUSY;
    for (unsigned i = 0; i < LOOKS_MAX && search == SEARCH_BUSY; i++) {
        if (i > 0)
            PAUSE();
        search = table_find(dedupe, place, UINT64_MAX, hit);
    }
    return search;
}

static enum dedupe_verdict confirmed(struct dedupe *dedupe, const struct hit *hit, uint64_t payload_hash,
                                     struct dedupe_found *found)
{
    struct stripe *stripe = stripe_mine(dedupe);
    enum dedupe_verdict verdict = verdict_of(hit, payload_hash);
    stripe_add(dedupe, stripe, verdict == DEDUPE_DUPLICATE ? &stripe->duplicate : &stripe->conflict);
    *found = hit->found;
    return verdict;
}

static void not_remembered(struct dedupe *dedupe, int64_t now_wall_ns)
{
    struct stripe *stripe = stripe_mine(dedupe);
    stripe_add(dedupe, stripe, &stripe->unremembered);
    coverage_raise(&dedupe->evicted_until_ns, stripes_latest(dedupe, now_wall_ns));
}

// ---- claims

enum dedupe_verdict dedupe_claim(struct dedupe *dedupe, const struct dedupe_id *id, uint64_t payload_hash,
                                 int64_t now_wall_ns, struct dedupe_claim *claim, struct dedupe_found *found)
{
    struct place place;
    struct hit hit;
    struct stripe *stripe = stripe_mine(dedupe);
    place_of(dedupe, id, &place);
    if (now_wall_ns >= atomic_load_explicit(&dedupe->rotate_at_ns, memory_order_relaxed))
        (void)generation_rotate(dedupe, atomic_load(&dedupe->current), now_wall_ns);
    enum search search;
    if (filter_may_hold(dedupe, place.w1)) {
        search = find_settled(dedupe, &place, &hit);
        if (search == SEARCH_FOUND)
            return confirmed(dedupe, &hit, payload_hash, found);
        if (search == SEARCH_BUSY)
            return DEDUPE_UNSURE;
        stripe_add(dedupe, stripe, &stripe->fresh);
    }
    stripe_time(dedupe, stripe, now_wall_ns);
    uint64_t slot = 0;
    struct newcomer newcomer = {
        .w2 = payload_hash & HASH_MASK, .number = atomic_load(&dedupe->current), .state = SLOT_PENDING};
    switch (enter(dedupe, &place, &newcomer, &slot, &hit)) {
    case ENTER_FOUND:
        return confirmed(dedupe, &hit, payload_hash, found);
    case ENTER_TIED:
        return DEDUPE_UNSURE;
    case ENTER_FULL:
        // One of those that are open may be this one.
        search = find_settled(dedupe, &place, &hit);
        if (search == SEARCH_FOUND)
            return confirmed(dedupe, &hit, payload_hash, found);
        if (search == SEARCH_BUSY)
            return DEDUPE_UNSURE;
        *claim = (struct dedupe_claim){0};
        not_remembered(dedupe, now_wall_ns);
        return DEDUPE_NEW;
    case ENTER_DONE:
        break;
    }
    keep_in_filter(dedupe, place.w1, newcomer.number);
    *claim = (struct dedupe_claim){.slot = slot | newcomer.number << SLOT_BITS,
                                   .word = word_make(place.want, newcomer.number, SLOT_PENDING)};
    if ((stripe_add(dedupe, stripe, &stripe->claimed) & dedupe->check_mask) == 0)
        generation_check_count(dedupe, now_wall_ns);
    return DEDUPE_NEW;
}

void dedupe_forget(struct dedupe *dedupe, const struct dedupe_claim *claim)
{
    _Atomic uint64_t *w0 = word_of(dedupe, claim->slot & SLOT_MASK);
    if (claim->word == 0 || atomic_load(w0) != claim->word)
        return;
    // A pending word is its claimer's alone.
    atomic_store_explicit(w0, 0, memory_order_release);
    struct stripe *stripe = stripe_mine(dedupe);
    stripe_add(dedupe, stripe, &stripe->forgotten);
}

// A generation that is open now, and its place for this seq. False: there is none (many streams at once, and whoever
// opens the next generation has been interrupted in it).
static bool settle_where(struct dedupe *dedupe, uint32_t origin, uint64_t seq, uint64_t *number, int *stream)
{
    for (unsigned i = 0; i < ROTATIONS_MAX; i++) {
        *number = atomic_load(&dedupe->current);
        *stream = generation_stream(dedupe, *number, origin, seq);
        if (*stream >= 0)
            return true;
        if (!generation_rotate(dedupe, *number, atomic_load(&dedupe->clock_ns)))
            PAUSE();
    }
    return false;
}

// An entry that was entered in a generation which has been let go meanwhile.
static void let_go_if_late(struct dedupe *dedupe, uint64_t slot, uint64_t word, uint64_t number)
{
    if (__builtin_expect(atomic_load(&dedupe->floor) <= number, true))
        return;
    generation_evicts(dedupe, number);
    if (!atomic_compare_exchange_strong(word_of(dedupe, slot), &word, 0))
        return;
    struct stripe *stripe = stripe_mine(dedupe);
    stripe_add(dedupe, stripe, &stripe->removed);
    stripe_add(dedupe, stripe, &stripe->evicted);
}

// Enters a pending entry in the open generation.
static void settle(struct dedupe *dedupe, const struct dedupe_claim *claim, uint64_t slot, uint32_t origin,
                   uint64_t seq)
{
    uint64_t number;
    int stream;
    if (!settle_where(dedupe, origin, seq, &number, &stream)) {
        not_remembered(dedupe, atomic_load(&dedupe->clock_ns));
        dedupe_forget(dedupe, claim);
        return;
    }
    struct pair *pair = pair_of(dedupe, slot);
    uint64_t want = claim->word >> TAG_SHIFT << TAG_SHIFT;
    uint64_t word = word_make(want, number, SLOT_DURABLE);
    if (((number << SLOT_BITS) ^ claim->slot) >> SLOT_BITS != 0) {
        uint64_t w1 = atomic_load_explicit(&pair->w1, memory_order_relaxed);
        filter_set(dedupe, w1, atomic_load(&generation_of(dedupe, number)->filter));
    }
    uint64_t w2 = atomic_load_explicit(&pair->w2, memory_order_relaxed);
    atomic_store_explicit(&pair->w2, w2_make(w2, stream, seq), memory_order_relaxed);
    atomic_store_explicit(word_of(dedupe, slot), word, memory_order_release);
    let_go_if_late(dedupe, slot, word, number);
}

void dedupe_settle_in(struct dedupe *dedupe, const struct dedupe_claim *claim, uint32_t origin, uint64_t seq)
{
    uint64_t slot = claim->slot & SLOT_MASK;
    if (claim->word == 0 || atomic_load(word_of(dedupe, slot)) != claim->word)
        return;
    struct stripe *stripe = stripe_mine(dedupe);
    publishing_begin(dedupe, stripe);
    settle(dedupe, claim, slot, origin, seq);
    publishing_end(dedupe, stripe);
}

void dedupe_settle(struct dedupe *dedupe, const struct dedupe_claim *claim, uint64_t seq)
{
    dedupe_settle_in(dedupe, claim, DEDUPE_ORIGIN_OWN, seq);
}

enum dedupe_verdict dedupe_look(struct dedupe *dedupe, const struct dedupe_id *id, uint64_t payload_hash,
                                struct dedupe_found *found)
{
    struct place place;
    struct hit hit;
    place_of(dedupe, id, &place);
    *found = (struct dedupe_found){.state = DEDUPE_GONE};
    if (!filter_may_hold(dedupe, place.w1))
        return DEDUPE_NEW;
    enum search search = find_settled(dedupe, &place, &hit);
    if (search == SEARCH_NONE)
        return DEDUPE_NEW;
    if (search == SEARCH_BUSY)
        return DEDUPE_UNSURE;
    *found = hit.found;
    return verdict_of(&hit, payload_hash);
}

// ---- what is durable elsewhere

// False: somebody was at the same id, or at the next generation.
static bool insert(struct dedupe *dedupe, const struct place *place, uint64_t payload_hash, int64_t seen_wall_ns,
                   uint32_t origin, uint64_t seq)
{
    struct stripe *stripe = stripe_mine(dedupe);
    struct hit hit;
    uint64_t number = generation_at(dedupe, seen_wall_ns), slot = 0;
    int stream = generation_stream(dedupe, number, origin, seq);
    // Younger ones keep it longer than need be.
    while (stream < 0 && number < atomic_load(&dedupe->current))
        stream = generation_stream(dedupe, ++number, origin, seq);
    if (stream < 0) {
        (void)generation_rotate(dedupe, number, atomic_load(&dedupe->clock_ns));
        return false;
    }
    struct newcomer newcomer = {.w2 = w2_make(payload_hash, stream, seq), .number = number, .state = SLOT_DURABLE};
    enum entered entered = enter(dedupe, place, &newcomer, &slot, &hit);
    if (entered == ENTER_DONE) {
        stripe_add(dedupe, stripe, &stripe->inserted);
        if (number != atomic_load(&dedupe->current))
            stripe_add(dedupe, stripe, &stripe->inserted_late);
        let_go_if_late(dedupe, slot, word_make(place->want, number, SLOT_DURABLE), number);
    } else if (entered == ENTER_FULL) {
        stripe_add(dedupe, stripe, &stripe->evicted);
        generation_evicts(dedupe, number);
    }
    return entered != ENTER_TIED;
}

void dedupe_insert(struct dedupe *dedupe, const struct dedupe_id *id, uint64_t payload_hash, int64_t seen_wall_ns,
                   uint32_t origin, uint64_t seq)
{
    struct place place;
    struct hit hit;
    struct stripe *stripe = stripe_mine(dedupe);
    if (seen_wall_ns <= atomic_load(&dedupe->clock_ns) - dedupe->window_ns)
        return;
    // As a claim does: the generation that it goes into is not closed with an earlier end.
    stripe_time(dedupe, stripe, seen_wall_ns);
    place_of(dedupe, id, &place);
    if (filter_may_hold(dedupe, place.w1) && table_find(dedupe, &place, UINT64_MAX, &hit) == SEARCH_FOUND)
        return;
    bool done = false;
    for (unsigned i = 0; i < INSERTS_MAX && !done; i++) {
        if (i > 0)
            PAUSE();
        publishing_begin(dedupe, stripe);
        done = insert(dedupe, &place, payload_hash, seen_wall_ns, origin, seq);
        publishing_end(dedupe, stripe);
    }
    if (!done)
        not_remembered(dedupe, seen_wall_ns);
    else if ((atomic_load_explicit(&stripe->inserted, memory_order_relaxed) & dedupe->check_mask) == 0)
        generation_check_count(dedupe, atomic_load(&dedupe->clock_ns));
}
