// Inside the window: the words of the table, its geometry, generations, counters. README.md has the protocol.
//
// Threads: every word that two threads can reach is a C11 atomic; what each function needs is said at it. C11 atomics
// and not ck_pr: ThreadSanitizer sees nothing of inline assembly, and on x86-64 the instructions are the same.
#ifndef SLUICE_DEDUPE_INTERNAL_H
#define SLUICE_DEDUPE_INTERNAL_H

#include "dedupe/dedupe.h"

#include <pthread.h>
#include <stdatomic.h>

// Three choices of a set, each in a third of the table of its own; ties go to the left. Measured with 64 M slots of
// random ids, the first eviction comes at 84.8 % (two choices of 8: 67 %, of 16: 84.1 %, but four lines to scan).
enum { CHOICES = 3, WAYS = 8, LINE_BYTES = 64 };

enum {
    RING = 256,     // generation numbers are known modulo this
    LIVE_MAX = 160, // generations that may hold entries at once; the rest of the ring is for the sweep to catch up
    RESTART_MAX = LIVE_MAX - 32, // generations of the past that a snapshot brings back
    PARTS = 64, // a generation is closed when it has run for this part of the window, or holds this part of it
    FIRST_NUMBER = RING,
    // (origin, range of seqs) pairs that one generation can name. A node of a cell hears of the streams that three
    // nodes write and of older ones that are given back, all at once; one more than this, and generations would end
    // with every change from one to the other.
    STREAMS = 8,
    SEQ_BITS = 22,     // of a seq in an entry; the rest comes from its generation
    ANCHOR_SHIFT = 20, // ranges begin at multiples of 2^20, a quarter of what SEQ_BITS can tell apart
    ORIGINS = 256,
    ORIGIN_NAME_MAX = 128,
    FILTERS = 4,  // filter generations: the bits of a cell
    STRIPES = 64, // bits of sweep_waits
    RATE_SAMPLES = 64,
};

// ---- the words of an entry
//
// w0  63..11 tag: the low 53 bits of the id's first word | 10..3 generation, modulo 256 | 2..0 state
//     The only word that says whether an entry exists, and the only one that several threads contend for.
// w1  the id's second word
// w2  63..25 the payload hash's high bits | 24..22 which of the generation's streams | 21..0 the seq's low bits
//
// Third, set within it, w1 and tag give back all 128 bits of the id (table.c: place_of, entry_id).
enum { TAG_BITS = 53, TAG_SHIFT = 64 - TAG_BITS, GENERATION_SHIFT = 3, STATE_MASK = 7 };
#define HASH_MASK (~(uint64_t)0x1ffffff)
_Static_assert((HASH_MASK & (((uint64_t)STREAMS << SEQ_BITS) - 1)) == 0, "the parts of w2 do not overlap");

enum slot_state {
    SLOT_EMPTY = 0,    // the whole word is 0
    SLOT_RESERVED = 1, // its claimer writes w1 and w2 and looks whether it is alone
    SLOT_PENDING = 2,  // belongs to its claimer until settled or forgotten: nobody else writes the word
    SLOT_DURABLE = 3,
    SLOT_KILLED = 4, // its claimer lost a tie, and will empty it
};

struct pair {
    _Atomic uint64_t w1, w2;
};

struct set {
    _Alignas(LINE_BYTES) _Atomic uint64_t w0[WAYS]; // one cache line to scan
    struct pair pairs[WAYS];
};
_Static_assert(sizeof(struct set) == 3 * LINE_BYTES, "a set is three cache lines");

// ---- generations

struct generation {
    _Alignas(LINE_BYTES) _Atomic int64_t end_ns; // nothing in it was received later; INT64_MAX: still open
    _Atomic uint32_t filter;                     // which bit of the filter's cells
    _Atomic uint64_t streams[STREAMS];           // (origin + 1) << 44 | first seq >> ANCHOR_SHIFT; 0: free
};

// Counters of one thread (the last stripe: of all threads that got none of their own). Only grow.
struct stripe {
    _Alignas(2 * LINE_BYTES) _Atomic int64_t latest_ns; // the latest time of a claim
    // Odd: this thread is making an entry durable (the last stripe: so many threads are). What the sweep goes by.
    _Atomic uint64_t publishing;
    _Atomic uint64_t claimed, forgotten, inserted;
    _Atomic uint64_t inserted_late; // of those inserted: into a generation that is closed
    _Atomic uint64_t removed;       // evicted, or gone with its generation
    _Atomic uint64_t evicted, unremembered;
    _Atomic uint64_t duplicate, conflict, fresh; // of ids that the filter let through
};

struct origin {
    _Atomic uint32_t version; // odd: being renamed
    _Atomic uint64_t last;    // newest generation that may hold something of it
    _Atomic char name[ORIGIN_NAME_MAX];
};

struct dedupe {
    // Read by every claim, written rarely.
    _Alignas(LINE_BYTES) struct set *sets;
    _Atomic uint64_t *cells; // the filter: words of 16 cells of FILTERS bits
    uint64_t third;          // sets in a third of the table
    uint64_t cells_words;
    uint64_t check_mask;          // a thread looks every so many claims (less one) whether its generation is full
    _Atomic uint64_t current;     // number of the open generation
    _Atomic uint64_t floor;       // smallest number whose entries still count
    _Atomic int64_t rotate_at_ns; // when the open generation is to be closed
    struct generation ring[RING];

    // Coverage. Raised before an entry goes.
    _Alignas(LINE_BYTES) _Atomic uint64_t evicted_open; // 1 + newest generation that lost an entry while it was open
    _Atomic int64_t evicted_until_ns, base_since_ns;
    _Atomic int64_t clock_ns; // the latest time that was acted upon

    // Rotation: under `rotating`, which is only tried.
    _Alignas(LINE_BYTES) atomic_flag rotating;
    uint64_t added_before;        // ids added before the open generation
    uint64_t filter_added_before; // and before its filter generation
    int64_t filter_until_ns;
    _Atomic uint64_t filter_last[FILTERS]; // newest generation that uses it
    _Atomic bool filter_clean[FILTERS];

    // The sweep: under `sweeping`, which is only tried.
    _Alignas(LINE_BYTES) atomic_flag sweeping;
    _Atomic uint64_t swept; // there is no entry of a generation below this
    uint64_t sweep_target, sweep_next;
    uint64_t sweep_waits;               // a bit for each stripe that may still enter something below sweep_target
    uint64_t sweep_publishing[STRIPES]; // what they stood at
    uint32_t clear_filter;              // FILTERS: none
    uint64_t clear_next;

    struct stripe stripes[STRIPES];

    // dedupe_tick's own.
    int64_t sample_ns[RATE_SAMPLES];
    uint64_t sample_claimed[RATE_SAMPLES];
    uint64_t samples;
    _Atomic double rate;

    pthread_mutex_t origins_mutex; // giving out names: rare, and no claim does it
    struct origin origins[ORIGINS];

    int64_t window_ns;
    uint64_t part; // ids after which a generation is closed
    void *memory;
    uint64_t memory_bytes;
};

// ---- table.c

// Where an id may be.
struct place {
    struct set *sets[CHOICES];
    uint64_t first[CHOICES]; // slot number of way 0
    uint64_t want;           // the tag, in place in w0
    uint64_t w1;
};

struct hit {
    uint64_t slot;
    uint64_t word; // w0 as it was
    uint64_t w2;
    struct dedupe_found found;
};

enum search {
    SEARCH_NONE,
    SEARCH_FOUND, // pending or durable, all 128 bits the same: *hit
    SEARCH_BUSY,  // somebody is claiming an id of this tag: hit->slot, hit->word
};

bool table_map(struct dedupe *dedupe, uint64_t memory_bytes, struct sl_error *err) SL_MUST_USE;
void table_unmap(struct dedupe *dedupe);
uint64_t table_slots(const struct dedupe *dedupe);
// `skip`: a slot that is not looked at (UINT64_MAX: none). Any thread.
enum search table_find(const struct dedupe *dedupe, const struct place *place, uint64_t skip, struct hit *hit);
// Brings the line of the pair that a claim will read or write; the sets' own lines should be there by now.
void table_prefetch(const struct dedupe *dedupe, const struct place *place);
// Where a new entry may go. *old: what w0 held (0, an expired entry, or the oldest durable one, whose generation is
// then in *evicts; otherwise 0). False: every slot belongs to a claim that is open.
bool table_choose(const struct dedupe *dedupe, const struct place *place, uint64_t *slot, uint64_t *old,
                  uint64_t *evicts);

static inline uint64_t scale32(uint64_t bits32, uint64_t range)
{
    return (bits32 * range) >> 32;
}

// The second and third choice turn the first by an amount that the second word alone decides, so that each choice
// together with w1 gives back the first.
static inline uint64_t turn_of(uint64_t w1, unsigned choice, uint64_t third)
{
    return choice == 0 ? 0 : scale32(choice == 1 ? w1 >> 32 : w1 & UINT32_MAX, third);
}

static inline void place_of(const struct dedupe *dedupe, const struct dedupe_id *id, struct place *place)
{
    uint64_t third = dedupe->third;
    uint64_t home = scale32(id->words[0] >> 32, third);
    place->want = id->words[0] << TAG_SHIFT;
    place->w1 = id->words[1];
#pragma GCC unroll 3
    for (unsigned choice = 0; choice < CHOICES; choice++) {
        uint64_t index = home + turn_of(place->w1, choice, third);
        if (index >= third)
            index -= third;
        index += choice * third;
        place->sets[choice] = &dedupe->sets[index];
        place->first[choice] = index * WAYS;
    }
}

static inline struct set *set_of(const struct dedupe *dedupe, uint64_t slot)
{
    return &dedupe->sets[slot / WAYS];
}

static inline _Atomic uint64_t *word_of(const struct dedupe *dedupe, uint64_t slot)
{
    return &set_of(dedupe, slot)->w0[slot % WAYS];
}

static inline struct pair *pair_of(const struct dedupe *dedupe, uint64_t slot)
{
    return &set_of(dedupe, slot)->pairs[slot % WAYS];
}

static inline enum slot_state state_of(uint64_t word)
{
    return (enum slot_state)(word & STATE_MASK);
}

static inline bool same_tag(uint64_t word, uint64_t want)
{
    return (word ^ want) >> TAG_SHIFT == 0;
}

static inline uint64_t word_make(uint64_t want, uint64_t number, enum slot_state state)
{
    return want | (number % RING) << GENERATION_SHIFT | (uint64_t)state;
}

static inline uint64_t w2_make(uint64_t payload_hash, int stream, uint64_t seq)
{
    return (payload_hash & HASH_MASK) | (uint64_t)stream << SEQ_BITS | (seq & ((UINT64_C(1) << SEQ_BITS) - 1));
}

// An entry as the snapshot sees it. The payload hash has its low 25 bits cleared: what dedupe_insert keeps of it.
struct dedupe_entry {
    struct dedupe_id id;
    uint64_t payload_hash;
    enum dedupe_state state; // pending or durable
    uint64_t generation;     // number of the generation, when durable
    int64_t seen_wall_ns;    // end of its generation: not before it was received. When durable
    uint32_t origin;         // when durable
    uint64_t seq;            // when durable
};
// The entry in a slot below table_slots(), whole and as it was at one instant. False: none, or one that is no longer
// (or not yet) in the window. Any thread, claims go on.
bool table_entry(const struct dedupe *dedupe, uint64_t slot, int64_t now_wall_ns, struct dedupe_entry *out);

// ---- restore.c
//
// A window that nobody uses yet, filled from the snapshot of one of the same size: each entry goes where it was.

// Which of an id's three places a slot is.
unsigned restore_choice(const struct dedupe *dedupe, uint64_t slot);
void restore_prefetch(const struct dedupe *dedupe, const struct dedupe_id *id, unsigned choice);
// False: there is no room where it was; dedupe_insert finds another place. Several threads at
// once, but no claim and no tick.
bool restore_entry(struct dedupe *dedupe, const struct dedupe_id *id, unsigned choice, uint64_t payload_hash,
                   uint64_t number, uint32_t origin, uint64_t seq);

// ---- filter.c

uint64_t filter_bytes(const struct dedupe *dedupe);

struct filter_place {
    uint64_t word;
    unsigned shifts[3];
};

static inline struct filter_place filter_place_of(const struct dedupe *dedupe, uint64_t w1)
{
    uint64_t mixed = (w1 ^ w1 >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    return (struct filter_place){
        .word = scale32(mixed >> 32, dedupe->cells_words),
        .shifts = {(unsigned)(mixed >> 4 & 15) * FILTERS, (unsigned)(mixed >> 12 & 15) * FILTERS,
                   (unsigned)(mixed >> 20 & 15) * FILTERS},
    };
}

// False: certainly not in the window (or not yet published).
static inline bool filter_may_hold(const struct dedupe *dedupe, uint64_t w1)
{
    struct filter_place place = filter_place_of(dedupe, w1);
    uint64_t word = atomic_load_explicit(&dedupe->cells[place.word], memory_order_acquire);
    return (word >> place.shifts[0] & word >> place.shifts[1] & word >> place.shifts[2] & ((1 << FILTERS) - 1)) != 0;
}

static inline void filter_set(struct dedupe *dedupe, uint64_t w1, uint32_t filter)
{
    struct filter_place place = filter_place_of(dedupe, w1);
    uint64_t bits = (UINT64_C(1) << place.shifts[0] | UINT64_C(1) << place.shifts[1] | UINT64_C(1) << place.shifts[2])
                    << filter;
    atomic_fetch_or(&dedupe->cells[place.word], bits);
}

// Takes the bit `filter` out of the words [from, to).
void filter_clear(struct dedupe *dedupe, uint32_t filter, uint64_t from, uint64_t to);

// ---- generation.c

static inline struct generation *generation_of(const struct dedupe *dedupe, uint64_t number)
{
    return (struct generation *)&dedupe->ring[number % RING];
}

// The number of the generation that a word names. `current` must have been read after the word.
static inline uint64_t number_of(uint64_t word, uint64_t current)
{
    return current - ((current - (word >> GENERATION_SHIFT)) & (RING - 1));
}

static inline bool word_expired(const struct dedupe *dedupe, uint64_t word)
{
    uint64_t current = atomic_load(&dedupe->current);
    return number_of(word, current) < atomic_load(&dedupe->floor);
}

void generation_start(struct dedupe *dedupe, int64_t now_ns);
// Lays out the past of a window anew: closed generations that ended then, oldest first, and one that is open from
// `now_ns` on. False, and nothing is done, when the window has been used. While nobody uses it.
bool generation_restart(struct dedupe *dedupe, const int64_t *ends_ns, uint64_t count, int64_t now_ns);
// Closes the open generation `number` and opens the next. False: somebody else is at it, or the sweep is behind.
bool generation_rotate(struct dedupe *dedupe, uint64_t number, int64_t now_ns);
// Lets generations go whose ids are older than the window.
void generation_expire(struct dedupe *dedupe);
// Rotates when the open generation is full.
void generation_check_count(struct dedupe *dedupe, int64_t now_ns);
// The oldest live generation that ends at `seen_ns` or later.
uint64_t generation_at(const struct dedupe *dedupe, int64_t seen_ns);
// The place of (origin, seq) among a generation's streams, made when there is room; -1 when there is none.
int generation_stream(struct dedupe *dedupe, uint64_t number, uint32_t origin, uint64_t seq);
void generation_decode(const struct dedupe *dedupe, uint64_t number, uint64_t w2, uint32_t *origin, uint64_t *seq);
// Says that an entry of this generation is let go. Before it goes.
void generation_evicts(struct dedupe *dedupe, uint64_t number);
// Nothing received at this time or before is said to be remembered.
void coverage_raise(_Atomic int64_t *since_ns, int64_t wall_ns);
int64_t coverage_since(const struct dedupe *dedupe, int64_t now_ns);

// ---- sweep.c

// Goes on with clearing what has expired, by about so many sets; nothing when another thread is at it.
void sweep_some(struct dedupe *dedupe, uint64_t sets);

// ---- origin.c

void origin_used(struct dedupe *dedupe, uint32_t origin, uint64_t number);

// ---- figures.c: counters

unsigned stripe_index(void);

static inline struct stripe *stripe_mine(struct dedupe *dedupe)
{
    return &dedupe->stripes[stripe_index()];
}

// A thread's own stripe needs no locked instruction.
static inline uint64_t stripe_add(struct dedupe *dedupe, struct stripe *stripe, _Atomic uint64_t *counter)
{
    if (stripe == &dedupe->stripes[STRIPES - 1])
        return atomic_fetch_add_explicit(counter, 1, memory_order_relaxed) + 1;
    uint64_t next = atomic_load_explicit(counter, memory_order_relaxed) + 1;
    atomic_store_explicit(counter, next, memory_order_relaxed);
    return next;
}

static inline void stripe_time(struct dedupe *dedupe, struct stripe *stripe, int64_t now_ns)
{
    if (stripe == &dedupe->stripes[STRIPES - 1])
        coverage_raise(&stripe->latest_ns, now_ns);
    else if (now_ns > atomic_load_explicit(&stripe->latest_ns, memory_order_relaxed))
        atomic_store_explicit(&stripe->latest_ns, now_ns, memory_order_relaxed);
}

// From before the number of a generation is read until the entry with it is published.
static inline void publishing_begin(struct dedupe *dedupe, struct stripe *stripe)
{
    if (stripe == &dedupe->stripes[STRIPES - 1])
        atomic_fetch_add(&stripe->publishing, 1);
    else
        atomic_store(&stripe->publishing, atomic_load_explicit(&stripe->publishing, memory_order_relaxed) + 1);
}

static inline void publishing_end(struct dedupe *dedupe, struct stripe *stripe)
{
    if (stripe == &dedupe->stripes[STRIPES - 1])
        atomic_fetch_sub(&stripe->publishing, 1);
    else
        atomic_store_explicit(&stripe->publishing, atomic_load_explicit(&stripe->publishing, memory_order_relaxed) + 1,
                              memory_order_release);
}

int64_t stripes_latest(const struct dedupe *dedupe, int64_t now_ns);
uint64_t stripes_added(const struct dedupe *dedupe);  // claimed and inserted, less forgotten
uint64_t stripes_opened(const struct dedupe *dedupe); // the same, but for what went into closed generations
void rate_sample(struct dedupe *dedupe, int64_t now_ns);

#endif
