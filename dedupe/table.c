// The table: where an id may be, whether it is there, and where it may go. Only reads; claim.c writes.
//
// A reader takes w0, then w1 and w2, then w0 again: when both are the same word, what lay between them belonged to it.
// The word may have been another one in the meantime and come back. Then an entry of the same tag, state and
// generation left the slot and another came, in those few instructions; two ids of one tag and one set are the same id
// but for one case in 2^53, and for the same id the verdict is right.
#include "dedupe/internal.h"
#include "dedupe/scan.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum {
    // So that the low TAG_BITS of the first word say which of the ids of a set it is: 2^64 / third <= 2^TAG_BITS.
    THIRD_MIN = 1 << (64 - TAG_BITS),
    // Two bytes of filter for each slot.
    CELLS_WORDS_PER_SET = WAYS * 2 / 8,
    HUGE_PAGE_BYTES = 2 << 20,
};

_Static_assert((int)SCAN_WORDS == (int)WAYS, "a set's w0 is what a scan takes");
static const uint64_t BYTES_PER_INDEX = CHOICES * (sizeof(struct set) + CELLS_WORDS_PER_SET * sizeof(uint64_t));
// More could not be named: LIVE_MAX generations of STREAMS ranges of 2^SEQ_BITS seqs.
static const uint64_t MEMORY_MAX = UINT64_C(64) << 30;

uint64_t dedupe_memory_min(void)
{
    return THIRD_MIN * BYTES_PER_INDEX + sizeof(struct dedupe) + LINE_BYTES;
}

// Huge pages when the system has some set aside, else what the kernel makes of the advice.
static void *map(uint64_t bytes)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *memory = MAP_FAILED;
    if (bytes % HUGE_PAGE_BYTES == 0)
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
    if (memory != MAP_FAILED)
        return memory;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory != MAP_FAILED)
        (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

bool table_map(struct dedupe *dedupe, uint64_t memory_bytes, struct sl_error *err)
{
    if (memory_bytes < dedupe_memory_min() || memory_bytes > MEMORY_MAX)
        return sl_fail(err, SL_E_INVALID, "the window of event ids takes %llu bytes to %llu, not %llu",
                       (unsigned long long)dedupe_memory_min(), (unsigned long long)MEMORY_MAX,
                       (unsigned long long)memory_bytes);
    uint64_t bytes = memory_bytes - sizeof(struct dedupe);
    if (bytes > UINT64_C(64) * HUGE_PAGE_BYTES)
        bytes -= bytes % HUGE_PAGE_BYTES;
    dedupe->memory = map(bytes);
    if (dedupe->memory == MAP_FAILED) {
        dedupe->memory = NULL;
        return sl_fail_errno(err, SL_E_NO_MEMORY, errno, "%llu bytes for the window of event ids",
                             (unsigned long long)bytes);
    }
    dedupe->memory_bytes = bytes;
    dedupe->third = bytes / BYTES_PER_INDEX;
    dedupe->sets = dedupe->memory;
    dedupe->cells = (_Atomic uint64_t *)(void *)(dedupe->sets + CHOICES * dedupe->third);
    dedupe->cells_words = CHOICES * dedupe->third * CELLS_WORDS_PER_SET;
    return true;
}

void table_unmap(struct dedupe *dedupe)
{
    if (dedupe->memory != NULL)
        munmap(dedupe->memory, dedupe->memory_bytes);
}

uint64_t table_slots(const struct dedupe *dedupe)
{
    return dedupe->third * CHOICES * WAYS;
}

// One word whose tag fits.
static enum search examine(const struct dedupe *dedupe, _Atomic uint64_t *w0, struct pair *pair,
                           const struct place *place, struct hit *hit)
{
    for (;;) {
        uint64_t began = atomic_load(&dedupe->current);
        uint64_t word = atomic_load(w0);
        if (!same_tag(word, place->want))
            return SEARCH_NONE;
        enum slot_state state = state_of(word);
        hit->word = word;
        if (state == SLOT_RESERVED)
            return SEARCH_BUSY;
        if (state != SLOT_PENDING && state != SLOT_DURABLE)
            return SEARCH_NONE;
        uint64_t w1 = atomic_load_explicit(&pair->w1, memory_order_acquire);
        hit->w2 = atomic_load_explicit(&pair->w2, memory_order_acquire);
        hit->found = (struct dedupe_found){.state = DEDUPE_PENDING};
        bool expired = false;
        if (state == SLOT_DURABLE) {
            uint64_t number = number_of(word, atomic_load(&dedupe->current));
            hit->found.state = DEDUPE_DURABLE;
            generation_decode(dedupe, number, hit->w2, &hit->found.origin, &hit->found.seq);
            expired = number < atomic_load(&dedupe->floor);
        }
        // Interrupted for long, the ring may have been another's.
        if (atomic_load(w0) == word && atomic_load(&dedupe->current) - began < RING - LIVE_MAX)
            return w1 == place->w1 && !expired ? SEARCH_FOUND : SEARCH_NONE;
    }
}

static enum search find_in(const struct dedupe *dedupe, const struct place *place, unsigned choice, unsigned fits,
                           uint64_t skip, struct hit *hit)
{
    enum search outcome = SEARCH_NONE;
    struct set *set = place->sets[choice];
    for (; fits != 0; fits &= fits - 1) {
        unsigned way = scan_first(fits);
        uint64_t slot = place->first[choice] + way;
        if (slot == skip)
            continue;
        struct hit one = {.slot = slot};
        enum search search = examine(dedupe, &set->w0[way], &set->pairs[way], place, &one);
        if (search == SEARCH_NONE)
            continue;
        *hit = one;
        outcome = search;
        if (search == SEARCH_FOUND)
            break;
    }
    return outcome;
}

enum search table_find(const struct dedupe *dedupe, const struct place *place, uint64_t skip, struct hit *hit)
{
    enum search outcome = SEARCH_NONE;
#pragma GCC unroll 3
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        unsigned fits = scan_tags(place->sets[choice]->w0, place->want, TAG_SHIFT);
        if (__builtin_expect(fits != 0, false)) {
            enum search search = find_in(dedupe, place, choice, fits, skip, hit);
            if (search == SEARCH_FOUND)
                return search;
            if (search == SEARCH_BUSY)
                outcome = search;
        }
    }
    return outcome;
}

// The set with the most empty slots; of equal ones the left.
static bool choose_empty(const struct place *place, uint64_t *slot)
{
    unsigned empty[CHOICES], count[CHOICES];
#pragma GCC unroll 3
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        empty[choice] = scan_empty(place->sets[choice]->w0);
        count[choice] = scan_count(empty[choice]);
    }
    unsigned best = count[1] > count[0];
    best = count[2] > count[best] ? 2 : best;
    if (count[best] == 0)
        return false;
    *slot = place->first[best] + scan_first(empty[best]);
    return true;
}

void table_prefetch(const struct dedupe *dedupe, const struct place *place)
{
    uint64_t slot = UINT64_MAX;
#pragma GCC unroll 3
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        unsigned fits = scan_tags(place->sets[choice]->w0, place->want, TAG_SHIFT);
        if (fits != 0)
            slot = place->first[choice] + scan_first(fits);
    }
    if (slot != UINT64_MAX || choose_empty(place, &slot))
        __builtin_prefetch((const void *)pair_of(dedupe, slot), 1);
}

bool table_choose(const struct dedupe *dedupe, const struct place *place, uint64_t *slot, uint64_t *old,
                  uint64_t *evicts)
{
    *old = 0;
    *evicts = 0;
    if (choose_empty(place, slot))
        return true;
    uint64_t oldest = UINT64_MAX;
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        for (unsigned way = 0; way < WAYS; way++) {
            uint64_t word = atomic_load(&place->sets[choice]->w0[way]);
            if (state_of(word) != SLOT_DURABLE)
                continue;
            uint64_t number = number_of(word, atomic_load(&dedupe->current));
            if (number >= oldest)
                continue;
            oldest = number;
            *slot = place->first[choice] + way;
            *old = word;
        }
    }
    if (oldest == UINT64_MAX)
        return false;
    *evicts = oldest < atomic_load(&dedupe->floor) ? 0 : oldest;
    return true;
}

// The id of an entry, from where it is and what it holds.
static struct dedupe_id entry_id(const struct dedupe *dedupe, uint64_t slot, uint64_t word, uint64_t w1)
{
    uint64_t index = slot / WAYS, third = dedupe->third;
    unsigned choice = (unsigned)(index / third);
    uint64_t turn = turn_of(w1, choice, third), at = index % third;
    uint64_t home = at >= turn ? at - turn : at + third - turn;
    // The smallest first word of that set, and the next one from there on with these low bits.
    const uint64_t tag_mask = (UINT64_C(1) << TAG_BITS) - 1;
    uint64_t least = (((home << 32) + third - 1) / third) << 32;
    uint64_t first = (least & ~tag_mask) | word >> TAG_SHIFT;
    if (first < least)
        first += UINT64_C(1) << TAG_BITS;
    return (struct dedupe_id){.words = {first, w1}};
}

bool table_entry(const struct dedupe *dedupe, uint64_t slot, int64_t now_wall_ns, struct dedupe_entry *out)
{
    _Atomic uint64_t *w0 = word_of(dedupe, slot);
    struct pair *pair = pair_of(dedupe, slot);
    for (;;) {
        uint64_t began = atomic_load(&dedupe->current);
        uint64_t word = atomic_load(w0);
        enum slot_state state = state_of(word);
        if (state != SLOT_PENDING && state != SLOT_DURABLE)
            return false;
        uint64_t w1 = atomic_load_explicit(&pair->w1, memory_order_acquire);
        uint64_t w2 = atomic_load_explicit(&pair->w2, memory_order_acquire);
        *out = (struct dedupe_entry){.payload_hash = w2 & HASH_MASK, .state = DEDUPE_PENDING};
        bool expired = false;
        if (state == SLOT_DURABLE) {
            uint64_t number = number_of(word, atomic_load(&dedupe->current));
            out->state = DEDUPE_DURABLE;
            out->generation = number;
            int64_t end_ns = atomic_load(&generation_of(dedupe, number)->end_ns);
            out->seen_wall_ns = end_ns < now_wall_ns ? end_ns : now_wall_ns;
            generation_decode(dedupe, number, w2, &out->origin, &out->seq);
            expired = number < atomic_load(&dedupe->floor);
        }
        if (atomic_load(w0) != word || atomic_load(&dedupe->current) - began >= RING - LIVE_MAX)
            continue;
        out->id = entry_id(dedupe, slot, word, w1);
        return !expired;
    }
}
