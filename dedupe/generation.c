// Generations: what was received in one stretch of time, and goes together.
//
// One is open: what becomes durable now is entered in it. It is closed when its part of the window has passed, when it
// holds its part of the table, or when it cannot name a seq (generation_rotate: whoever notices does it; nobody waits
// for whoever is at it, but goes on with the open one; only a filling waits, whose time does not pass as the clock's
// does). A closed one knows when it ended; it expires when that end is older than the window. Numbers only grow; a word
// holds them modulo RING. So that they stay unambiguous, no more than LIVE_MAX count at once (the oldest is let go
// before its time, and the coverage says so), and a number is used again only when the sweep has passed behind the one
// that had it.
#include "dedupe/internal.h"

#include <string.h>

static const uint64_t STREAM_ANCHOR_BITS = 44;
static const uint64_t SEQ_RANGE = UINT64_C(1) << SEQ_BITS;

void coverage_raise(_Atomic int64_t *since_ns, int64_t wall_ns)
{
    int64_t seen = atomic_load_explicit(since_ns, memory_order_relaxed);
    while (seen < wall_ns && !atomic_compare_exchange_weak(since_ns, &seen, wall_ns)) {
    }
}

static void raise_number(_Atomic uint64_t *number, uint64_t to)
{
    uint64_t seen = atomic_load_explicit(number, memory_order_relaxed);
    while (seen < to && !atomic_compare_exchange_weak(number, &seen, to)) {
    }
}

static void generation_open(struct dedupe *dedupe, uint64_t number, uint32_t filter)
{
    struct generation *generation = generation_of(dedupe, number);
    for (unsigned i = 0; i < STREAMS; i++)
        atomic_store(&generation->streams[i], 0);
    atomic_store(&generation->filter, filter);
    atomic_store(&generation->end_ns, INT64_MAX);
    atomic_store(&dedupe->filter_last[filter], number);
}

// A window whose past is in parts that ended then, oldest first; one more is open.
static void lay_out(struct dedupe *dedupe, const int64_t *ends_ns, uint64_t count, int64_t now_ns)
{
    for (uint32_t filter = 0; filter < FILTERS; filter++) {
        atomic_store(&dedupe->filter_last[filter], 0);
        atomic_store(&dedupe->filter_clean[filter], true);
    }
    for (uint64_t i = 0; i <= count; i++) {
        uint64_t number = FIRST_NUMBER + i;
        uint32_t filter = (uint32_t)(i * (FILTERS - 1) / (count + 1));
        generation_open(dedupe, number, filter);
        atomic_store(&dedupe->filter_clean[filter], false);
        if (i < count)
            atomic_store(&generation_of(dedupe, number)->end_ns, ends_ns[i]);
    }
    int64_t part_ns = dedupe->window_ns / PARTS;
    atomic_store(&dedupe->current, FIRST_NUMBER + count);
    atomic_store(&dedupe->floor, FIRST_NUMBER);
    atomic_store(&dedupe->swept, FIRST_NUMBER);
    atomic_store(&dedupe->clock_ns, now_ns);
    atomic_store(&dedupe->rotate_at_ns, now_ns + (part_ns > 0 ? part_ns : 1));
    dedupe->filter_until_ns = now_ns + part_ns * (PARTS / (FILTERS - 1));
}

// Even parts, for what the rebuild enters.
void generation_start(struct dedupe *dedupe, int64_t now_ns)
{
    int64_t ends_ns[PARTS];
    for (int64_t i = 0; i < PARTS; i++)
        ends_ns[i] = now_ns - dedupe->window_ns / PARTS * (PARTS - 1 - i);
    lay_out(dedupe, ends_ns, PARTS, now_ns);
}

bool generation_restart(struct dedupe *dedupe, const int64_t *ends_ns, uint64_t count, int64_t now_ns)
{
    if (stripes_added(dedupe) != 0 || atomic_load(&dedupe->current) != FIRST_NUMBER + PARTS)
        return false;
    sl_assert(count <= RESTART_MAX);
    lay_out(dedupe, ends_ns, count, now_ns);
    return true;
}

// ---- expiry

void generation_expire(struct dedupe *dedupe)
{
    int64_t now_ns = atomic_load(&dedupe->clock_ns);
    uint64_t floor = atomic_load(&dedupe->floor), current = atomic_load(&dedupe->current);
    while (floor < current && now_ns - dedupe->window_ns >= atomic_load(&generation_of(dedupe, floor)->end_ns))
        floor++;
    raise_number(&dedupe->floor, floor);
}

void generation_evicts(struct dedupe *dedupe, uint64_t number)
{
    int64_t end_ns = atomic_load(&generation_of(dedupe, number)->end_ns);
    if (end_ns == INT64_MAX)
        raise_number(&dedupe->evicted_open, number + 1);
    else
        coverage_raise(&dedupe->evicted_until_ns, end_ns);
}

// What was let go of a generation that was open then and is closed now.
static int64_t evicted_open_until(const struct dedupe *dedupe, int64_t now_ns)
{
    // One that was closed long ago is in evicted_until_ns, and its place in the ring is another's.
    uint64_t open = atomic_load(&dedupe->evicted_open);
    if (open == 0 || open + RING / 2 < atomic_load(&dedupe->current))
        return INT64_MIN;
    int64_t end_ns = atomic_load(&generation_of(dedupe, open - 1)->end_ns);
    return end_ns == INT64_MAX ? now_ns : end_ns;
}

int64_t coverage_since(const struct dedupe *dedupe, int64_t now_ns)
{
    int64_t clock_ns = atomic_load(&dedupe->clock_ns);
    int64_t now_latest_ns = stripes_latest(dedupe, now_ns > clock_ns ? now_ns : clock_ns);
    int64_t sources[] = {
        evicted_open_until(dedupe, now_latest_ns),
        atomic_load(&dedupe->evicted_until_ns),
        atomic_load(&dedupe->base_since_ns),
        now_latest_ns - dedupe->window_ns,
    };
    int64_t since_ns = INT64_MIN;
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
        since_ns = sources[i] > since_ns ? sources[i] : since_ns;
    return since_ns;
}

// ---- rotation

// The filter's generation for the next one: another, when its own has taken enough and one is clean.
static uint32_t filter_next(struct dedupe *dedupe, uint32_t filter, uint64_t added, int64_t now_ns)
{
    uint32_t next = (filter + 1) % FILTERS;
    // Signed: what is forgotten may have been added before.
    int64_t taken = (int64_t)(added - dedupe->filter_added_before);
    bool due = now_ns >= dedupe->filter_until_ns || taken >= (int64_t)(dedupe->part * (PARTS / (FILTERS - 1)));
    if (!due || !atomic_load(&dedupe->filter_clean[next]))
        return filter;
    atomic_store(&dedupe->filter_clean[next], false);
    dedupe->filter_added_before = added;
    dedupe->filter_until_ns = now_ns + dedupe->window_ns / (FILTERS - 1);
    return next;
}

// Under `rotating`.
static void rotate(struct dedupe *dedupe, uint64_t number, int64_t now_ns)
{
    uint64_t next = number + 1;
    uint64_t added = stripes_opened(dedupe);
    uint32_t filter = filter_next(dedupe, atomic_load(&generation_of(dedupe, number)->filter), added, now_ns);
    if (next - atomic_load(&dedupe->floor) >= LIVE_MAX) {
        generation_evicts(dedupe, next - LIVE_MAX);
        raise_number(&dedupe->floor, next - LIVE_MAX + 1);
    }
    generation_open(dedupe, next, filter);
    dedupe->added_before = added;
    atomic_store(&dedupe->current, next);
    // Only now: who entered something in the old one before, has left the time of it in its stripe.
    int64_t end_ns = stripes_latest(dedupe, now_ns);
    coverage_raise(&dedupe->clock_ns, end_ns);
    end_ns = atomic_load(&dedupe->clock_ns);
    atomic_store(&generation_of(dedupe, number)->end_ns, end_ns);
    int64_t part_ns = dedupe->window_ns / PARTS;
    atomic_store(&dedupe->rotate_at_ns, end_ns + (part_ns > 0 ? part_ns : 1));
    if (atomic_load(&dedupe->evicted_open) <= next)
        coverage_raise(&dedupe->evicted_until_ns, evicted_open_until(dedupe, end_ns));
}

bool generation_rotate(struct dedupe *dedupe, uint64_t number, int64_t now_ns)
{
    if (atomic_flag_test_and_set(&dedupe->rotating))
        return false;
    bool done = atomic_load(&dedupe->current) != number;
    bool swept = number + 1 - atomic_load(&dedupe->swept) < RING;
    if (!done && swept) {
        rotate(dedupe, number, now_ns);
        generation_expire(dedupe);
        done = true;
    }
    atomic_flag_clear(&dedupe->rotating);
    if (!swept)
        sweep_some(dedupe, 1024);
    return done;
}

void generation_check_count(struct dedupe *dedupe, int64_t now_ns)
{
    uint64_t number = atomic_load(&dedupe->current);
    if (atomic_flag_test_and_set(&dedupe->rotating))
        return;
    bool full = (int64_t)(stripes_opened(dedupe) - dedupe->added_before) >= (int64_t)dedupe->part;
    atomic_flag_clear(&dedupe->rotating);
    if (full)
        (void)generation_rotate(dedupe, number, now_ns);
}

uint64_t generation_at(const struct dedupe *dedupe, int64_t seen_ns)
{
    uint64_t low = atomic_load(&dedupe->floor), high = atomic_load(&dedupe->current);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int64_t end_ns = atomic_load(&generation_of(dedupe, middle)->end_ns);
        // One that is being closed gets an end which may have been taken already: too early for this one.
        if (end_ns >= seen_ns && end_ns != INT64_MAX)
            high = middle;
        else
            low = middle + 1;
    }
    return high;
}

// ---- seqs

int generation_stream(struct dedupe *dedupe, uint64_t number, uint32_t origin, uint64_t seq)
{
    struct generation *generation = generation_of(dedupe, number);
    uint64_t owner = (uint64_t)origin + 1;
    for (int i = 0; i < STREAMS; i++) {
        uint64_t stream = atomic_load(&generation->streams[i]);
        if (stream == 0) {
            // From one step before: what was sent off a little earlier may become durable a little later.
            uint64_t anchor = seq >> ANCHOR_SHIFT;
            uint64_t fresh = owner << STREAM_ANCHOR_BITS | (anchor > 0 ? anchor - 1 : 0);
            origin_used(dedupe, origin, number);
            if (atomic_compare_exchange_strong(&generation->streams[i], &stream, fresh))
                return i;
        }
        uint64_t base = (stream & ((UINT64_C(1) << STREAM_ANCHOR_BITS) - 1)) << ANCHOR_SHIFT;
        if (stream >> STREAM_ANCHOR_BITS == owner && seq - base < SEQ_RANGE)
            return i;
    }
    return -1;
}

void generation_decode(const struct dedupe *dedupe, uint64_t number, uint64_t w2, uint32_t *origin, uint64_t *seq)
{
    uint64_t stream = atomic_load(&generation_of(dedupe, number)->streams[w2 >> SEQ_BITS & (STREAMS - 1)]);
    uint64_t base = (stream & ((UINT64_C(1) << STREAM_ANCHOR_BITS) - 1)) << ANCHOR_SHIFT;
    *origin = (uint32_t)(stream >> STREAM_ANCHOR_BITS) - 1;
    *seq = base + ((w2 - base) & (SEQ_RANGE - 1));
}
