// Filling a window at a start: ids are gathered, sorted by where they go, and entered in that order.
//
// An id has a word of the filter and three sets, each in another page: met one id after the other, most of the time is
// page tables. So a batch is sorted by its words of the filter, and goes through the filter in one pass; each id that
// is new gets the emptiest of its three sets, from a table of counts that is small enough to stay in the cache; the
// batch is sorted once more, by slot, and goes through the table in one pass. What the filter may hold comes after
// that: it is looked for, as a whole id. What finds no room goes by dedupe_insert, which lets go of something.
//
// Time passes as it did then: ids come about in order, and generations are closed by the part of the window that they
// lasted, or by their number, as they were. So an id stays no longer than it would have without the restart.
//
// Failure modes: no memory for batches: all ids go by dedupe_insert. A set that another thread filled meanwhile: the
// same. A generation that was let go while an id of it waited in a batch: that id goes, too; the coverage said so.
#include "dedupe/internal.h"
#include "dedupe/scan.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PARTITIONS = 512,
    ITEMS_MAX = 1 << 20, // of a batch: 64 MiB with the room to sort it
    FEW = 64,
    AHEAD = 24, // ids whose cache lines are on their way
    LOOKS_MAX = 64,
    HUGE_PAGE_BYTES = 2 << 20,
};

struct item {
    uint64_t first, w1, w2; // the id's first word
    uint32_t number;        // of its generation: it has not been running for long
    uint32_t slot;          // fewer than 2^32 (MEMORY_MAX)
};
_Static_assert(sizeof(struct item) == 32, "two of them are a cache line");

struct dedupe_filling {
    struct dedupe *dedupe;
    _Atomic uint8_t *taken; // of each set: entries that it has or gets; NULL: ids go by dedupe_insert
    uint64_t filter_scale, slot_scale;
};

struct dedupe_filler {
    struct dedupe_filling *filling;
    struct stripe *stripe;
    struct item *items, *sorted; // capacity of them each
    size_t count, capacity;
    size_t slow; // at the end of items: those that are put off
    struct item few[FEW];
    // Ids that came one after the other, in one generation.
    int64_t seen_ns;
    uint64_t seq, number;
    uint32_t origin;
    int stream;
    uint64_t left; // until it is looked again whether the generation is full
};

// ---- begin and end

// What is in the table already, from a snapshot.
static void count_taken(struct dedupe_filling *filling)
{
    struct dedupe *dedupe = filling->dedupe;
    for (uint64_t i = 0; i < CHOICES * dedupe->third; i++)
        atomic_store_explicit(&filling->taken[i], (uint8_t)(WAYS - scan_count(scan_empty(dedupe->sets[i].w0))),
                              memory_order_relaxed);
}

struct dedupe_filling *dedupe_filling_new(struct dedupe *dedupe, uint64_t ids, int64_t oldest_wall_ns)
{
    struct dedupe_filling *filling = calloc(1, sizeof(*filling));
    sl_assert(filling != NULL); // some words
    uint64_t slots = table_slots(dedupe);
    filling->dedupe = dedupe;
    filling->filter_scale = ((uint64_t)PARTITIONS << 32) / dedupe->cells_words;
    filling->slot_scale = ((uint64_t)PARTITIONS << 32) / slots;
    bool fresh = generation_restart(dedupe, NULL, 0, oldest_wall_ns);
    // Counting what is there costs as much as entering some ids.
    if (fresh || ids > slots / 32)
        filling->taken = calloc(CHOICES * dedupe->third, sizeof(*filling->taken));
    if (!fresh && filling->taken != NULL)
        count_taken(filling);
    return filling;
}

void dedupe_filling_end(struct dedupe_filling *filling, int64_t now_wall_ns)
{
    struct dedupe *dedupe = filling->dedupe;
    // The open generation ends with its last id, and not with the restart.
    (void)generation_rotate(dedupe, atomic_load(&dedupe->current), atomic_load(&dedupe->clock_ns));
    coverage_raise(&dedupe->clock_ns, now_wall_ns);
    generation_expire(dedupe);
    free(filling->taken);
    free(filling);
}

struct dedupe_filler *dedupe_filler_new(struct dedupe_filling *filling)
{
    struct dedupe_filler *filler = calloc(1, sizeof(*filler));
    sl_assert(filler != NULL); // two pages
    filler->filling = filling;
    filler->stripe = stripe_mine(filling->dedupe);
    size_t wanted = table_slots(filling->dedupe) / 16;
    filler->capacity = wanted < ITEMS_MAX ? wanted : ITEMS_MAX;
    size_t bytes = 2 * filler->capacity * sizeof(*filler->items);
    bytes = (bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if (filling->taken != NULL)
        filler->items = aligned_alloc(HUGE_PAGE_BYTES, bytes);
    if (filler->items != NULL) {
        (void)madvise(filler->items, bytes, MADV_HUGEPAGE);
        filler->sorted = filler->items + filler->capacity;
    } else {
        filler->items = filler->few;
        filler->capacity = FEW;
    }
    return filler;
}

// ---- sorting

static inline uint64_t key_of(const struct dedupe_filling *filling, const struct item *item, bool by_slot)
{
    // Both are spread evenly, below what the scale was made for.
    return by_slot ? (item->slot * filling->slot_scale) >> 32
                   : (filter_place_of(filling->dedupe, item->w1).word * filling->filter_scale) >> 32;
}

static void sort(const struct dedupe_filling *filling, const struct item *from, size_t count, struct item *to,
                 bool by_slot)
{
    uint32_t ends[PARTITIONS + 1] = {0};
    for (size_t i = 0; i < count; i++)
        ends[key_of(filling, &from[i], by_slot) + 1]++;
    for (size_t i = 0; i < PARTITIONS; i++)
        ends[i + 1] += ends[i];
    for (size_t i = 0; i < count; i++)
        to[ends[key_of(filling, &from[i], by_slot)]++] = from[i];
}

// ---- one batch

static inline void put_off(struct dedupe_filler *filler, const struct item *item)
{
    filler->items[filler->capacity - ++filler->slow] = *item;
}

// Bits into the filter. Those that it may have held are put off; returns how many are left.
static size_t pass_filter(struct dedupe_filler *filler, size_t count)
{
    struct dedupe *dedupe = filler->filling->dedupe;
    struct item *items = filler->sorted;
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            __builtin_prefetch((const void *)&dedupe->cells[filter_place_of(dedupe, items[i + AHEAD].w1).word], 1);
        struct filter_place place = filter_place_of(dedupe, items[i].w1);
        uint64_t bits =
            UINT64_C(1) << place.shifts[0] | UINT64_C(1) << place.shifts[1] | UINT64_C(1) << place.shifts[2];
        bits <<= atomic_load_explicit(&generation_of(dedupe, items[i].number)->filter, memory_order_relaxed);
        uint64_t old = atomic_fetch_or(&dedupe->cells[place.word], bits);
        old = old >> place.shifts[0] & old >> place.shifts[1] & old >> place.shifts[2] & ((1 << FILTERS) - 1);
        if (__builtin_expect(old != 0, false))
            put_off(filler, &items[i]);
        else
            items[left++] = items[i];
    }
    return left;
}

// The emptiest of an id's three sets; of equal ones the left. Two threads may count one set at once: then it seems
// emptier than it is, and what does not fit goes by dedupe_insert. False: all three are full.
static bool choose(struct dedupe_filling *filling, struct item *item, const uint64_t sets[CHOICES])
{
    unsigned best = 0, least = WAYS;
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        unsigned has = atomic_load_explicit(&filling->taken[sets[choice]], memory_order_relaxed);
        best = has < least ? choice : best;
        least = has < least ? has : least;
    }
    if (least == WAYS)
        return false;
    atomic_store_explicit(&filling->taken[sets[best]], (uint8_t)(least + 1), memory_order_relaxed);
    item->slot = (uint32_t)(sets[best] * WAYS + least);
    return true;
}

static void sets_of(const struct dedupe *dedupe, const struct item *item, struct place *place, uint64_t sets[CHOICES])
{
    place_of(dedupe, &(struct dedupe_id){{item->first, item->w1}}, place);
    for (unsigned choice = 0; choice < CHOICES; choice++)
        sets[choice] = place->first[choice] / WAYS;
}

static size_t choose_slots(struct dedupe_filler *filler, size_t count)
{
    struct dedupe_filling *filling = filler->filling;
    struct item *items = filler->sorted;
    size_t left = 0;
    for (size_t from = 0; from < count; from += AHEAD) {
        size_t some = count - from < AHEAD ? count - from : AHEAD;
        uint64_t sets[AHEAD][CHOICES];
        for (size_t i = 0; i < some; i++) {
            struct place place;
            sets_of(filling->dedupe, &items[from + i], &place, sets[i]);
            for (unsigned choice = 0; choice < CHOICES; choice++)
                __builtin_prefetch((const void *)&filling->taken[sets[i][choice]], 1);
        }
        for (size_t i = 0; i < some; i++) {
            if (__builtin_expect(choose(filling, &items[from + i], sets[i]), true))
                items[left++] = items[from + i];
            else
                put_off(filler, &items[from + i]);
        }
    }
    return left;
}

static void go_by_insert(struct dedupe_filler *filler, const struct item *item)
{
    struct dedupe *dedupe = filler->filling->dedupe;
    stripe_add(dedupe, filler->stripe, &filler->stripe->removed); // and added once more, if it is entered
    int64_t end_ns = atomic_load(&generation_of(dedupe, item->number)->end_ns);
    uint32_t origin;
    uint64_t seq;
    generation_decode(dedupe, item->number, item->w2, &origin, &seq);
    if (item->number >= atomic_load(&dedupe->floor))
        dedupe_insert(dedupe, &(struct dedupe_id){{item->first, item->w1}}, item->w2 & HASH_MASK,
                      end_ns == INT64_MAX ? filler->seen_ns : end_ns, origin, seq);
}

// A slot of the set, which should be the one that was chosen. As restore_entry does it.
static bool enter(struct dedupe *dedupe, const struct item *item)
{
    struct set *set = set_of(dedupe, item->slot);
    uint64_t want = item->first << TAG_SHIFT;
    for (unsigned i = 0; i < WAYS; i++) {
        unsigned way = (item->slot + i) % WAYS;
        uint64_t empty = 0;
        if (!atomic_compare_exchange_strong(&set->w0[way], &empty, word_make(want, 0, SLOT_RESERVED)))
            continue;
        atomic_store_explicit(&set->pairs[way].w1, item->w1, memory_order_release);
        atomic_store_explicit(&set->pairs[way].w2, item->w2, memory_order_release);
        atomic_store_explicit(&set->w0[way], word_make(want, item->number, SLOT_DURABLE), memory_order_release);
        return true;
    }
    return false;
}

static void enter_chosen(struct dedupe_filler *filler, const struct item *item)
{
    struct dedupe *dedupe = filler->filling->dedupe;
    // So that the sweep has not passed when something is entered that it is to find.
    publishing_begin(dedupe, filler->stripe);
    bool entered = item->number >= atomic_load(&dedupe->floor) && enter(dedupe, item);
    publishing_end(dedupe, filler->stripe);
    if (__builtin_expect(!entered, false))
        go_by_insert(filler, item);
}

static void enter_all(struct dedupe_filler *filler, size_t count)
{
    struct dedupe *dedupe = filler->filling->dedupe;
    const struct item *items = filler->items;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) {
            __builtin_prefetch((const void *)word_of(dedupe, items[i + AHEAD].slot), 1);
            __builtin_prefetch((const void *)pair_of(dedupe, items[i + AHEAD].slot), 1);
        }
        enter_chosen(filler, &items[i]);
    }
}

// What the filter may have held is looked for; what is there stays as it is.
static void enter_put_off(struct dedupe_filler *filler, struct item *item)
{
    struct dedupe_filling *filling = filler->filling;
    struct place place;
    struct hit hit;
    uint64_t sets[CHOICES];
    sets_of(filling->dedupe, item, &place, sets);
    if (table_find(filling->dedupe, &place, UINT64_MAX, &hit) == SEARCH_FOUND)
        stripe_add(filling->dedupe, filler->stripe, &filler->stripe->removed); // it was counted when it was added
    else if (choose(filling, item, sets))
        enter_chosen(filler, item);
    else
        go_by_insert(filler, item);
}

// In the order in which they came.
static void enter_all_put_off(struct dedupe_filler *filler)
{
    struct dedupe *dedupe = filler->filling->dedupe;
    struct item *last = &filler->items[filler->capacity - 1];
    for (size_t i = 0; i < filler->slow + AHEAD; i++) {
        if (i < filler->slow)
            dedupe_prefetch(dedupe, &(struct dedupe_id){{(last - i)->first, (last - i)->w1}});
        if (i >= AHEAD)
            enter_put_off(filler, last - (i - AHEAD));
    }
    filler->slow = 0;
}

static void flush_few(struct dedupe_filler *filler)
{
    for (size_t i = 0; i < filler->count; i++)
        dedupe_prefetch(filler->filling->dedupe, &(struct dedupe_id){{filler->few[i].first, filler->few[i].w1}});
    for (size_t i = 0; i < filler->count; i++)
        go_by_insert(filler, &filler->few[i]);
    filler->count = 0;
}

static void flush(struct dedupe_filler *filler)
{
    if (filler->items == filler->few) {
        flush_few(filler);
        return;
    }
    sort(filler->filling, filler->items, filler->count, filler->sorted, false);
    size_t count = choose_slots(filler, pass_filter(filler, filler->count));
    sort(filler->filling, filler->sorted, count, filler->items, true);
    enter_all(filler, count);
    enter_all_put_off(filler);
    filler->count = 0;
}

// ---- adding

// A start has the time to wait for who is at it, and must: what is filled meanwhile may be hours of the window, and
// would stay as long as the last of it.
static void rotate_if_due(struct dedupe *dedupe, int64_t seen_ns)
{
    for (;;) {
        // Read first: what another thread opens meanwhile is not closed here.
        uint64_t number = atomic_load(&dedupe->current);
        if (seen_ns < atomic_load(&dedupe->rotate_at_ns) || generation_rotate(dedupe, number, seen_ns))
            return;
        (void)sched_yield();
    }
}

// The generation for an id of that time, and how it names that seq. False: it cannot be had now.
static bool begin_run(struct dedupe_filler *filler, int64_t seen_ns, uint32_t origin, uint64_t seq)
{
    struct dedupe *dedupe = filler->filling->dedupe;
    stripe_time(dedupe, filler->stripe, seen_ns);
    rotate_if_due(dedupe, seen_ns);
    generation_check_count(dedupe, atomic_load(&dedupe->clock_ns));
    filler->seen_ns = seen_ns;
    filler->origin = origin;
    filler->seq = seq;
    filler->left = dedupe->check_mask + 1;
    for (unsigned i = 0; i < LOOKS_MAX; i++) {
        filler->number = generation_at(dedupe, seen_ns);
        filler->stream = generation_stream(dedupe, filler->number, origin, seq);
        while (filler->stream < 0 && filler->number < atomic_load(&dedupe->current))
            filler->stream = generation_stream(dedupe, ++filler->number, origin, seq);
        if (filler->stream >= 0)
            return true;
        (void)generation_rotate(dedupe, filler->number, atomic_load(&dedupe->clock_ns));
    }
    filler->left = 0;
    return false;
}

void dedupe_filler_add(struct dedupe_filler *filler, const struct dedupe_id *id, uint64_t payload_hash,
                       int64_t seen_wall_ns, uint32_t origin, uint64_t seq)
{
    struct dedupe *dedupe = filler->filling->dedupe;
    // A range of seqs begins at a multiple of 2^ANCHOR_SHIFT and is as long as some of them.
    bool same = filler->left > 0 && filler->seen_ns == seen_wall_ns && filler->origin == origin &&
                (filler->seq ^ seq) >> ANCHOR_SHIFT == 0;
    if (!same && !begin_run(filler, seen_wall_ns, origin, seq)) {
        dedupe_insert(dedupe, id, payload_hash, seen_wall_ns, origin, seq);
        return;
    }
    filler->left--;
    filler->items[filler->count++] = (struct item){.first = id->words[0],
                                                   .w1 = id->words[1],
                                                   .w2 = w2_make(payload_hash, filler->stream, seq),
                                                   .number = (uint32_t)filler->number};
    stripe_add(dedupe, filler->stripe, &filler->stripe->inserted);
    if (filler->number != atomic_load_explicit(&dedupe->current, memory_order_relaxed))
        stripe_add(dedupe, filler->stripe, &filler->stripe->inserted_late);
    if (filler->count == filler->capacity)
        flush(filler);
}

void dedupe_filler_end(struct dedupe_filler *filler)
{
    flush(filler);
    if (filler->items != filler->few)
        free(filler->items);
    free(filler);
}
