// A window filled at a start: what was added is there as if it had come one after the other, from several threads, of
// any age, into a fresh window, one that is used, and one that is too small.
#include "dedupe/internal.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__SANITIZE_THREAD__)
enum { IDS = 100000 };
#else
enum { IDS = 400000 };
#endif
enum { THREADS = 2, BLOCK = 1000 };
static const int64_t second = 1000000000, now = INT64_C(1700000000) * 1000000000, day = INT64_C(86400) * 1000000000;

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static struct dedupe_id id_of(uint64_t number)
{
    return (struct dedupe_id){{mix(2 * number + 1), mix(~number)}};
}

static uint64_t hash_of(uint64_t number)
{
    return mix(number ^ 0x5555) | UINT64_C(1) << 24;
}

static struct dedupe *make(uint64_t slots)
{
    struct dedupe *dedupe;
    struct sl_error err;
    uint64_t memory = slots * 26 + 65536;
    struct dedupe_options options = {.memory_bytes = memory > dedupe_memory_min() ? memory : dedupe_memory_min(),
                                     .window_ns = day,
                                     .now_wall_ns = now};
    assert_true(dedupe_new(&dedupe, &options, &err));
    dedupe_covered_since(dedupe, now - day);
    return dedupe;
}

// ---- filling

struct filling {
    struct dedupe *dedupe;
    struct dedupe_filling *filling;
    uint32_t origin;
    uint64_t from, to;         // numbers of ids; the seq is one more
    int64_t first_ns, last_ns; // when they were received
    _Atomic uint64_t next;
};

static int64_t seen_of(const struct filling *filling, uint64_t number)
{
    uint64_t end = number / BLOCK * BLOCK + BLOCK - 1; // a block stays as long as its last one
    end = end < filling->to ? end : filling->to - 1;
    double part = (double)(end - filling->from + 1) / (double)(filling->to - filling->from);
    return filling->first_ns + (int64_t)(part * (double)(filling->last_ns - filling->first_ns));
}

static void *fill_some(void *user)
{
    struct filling *filling = user;
    struct dedupe_filler *filler = dedupe_filler_new(filling->filling);
    for (;;) {
        uint64_t from = atomic_fetch_add(&filling->next, BLOCK);
        if (from >= filling->to)
            break;
        for (uint64_t i = from; i < from + BLOCK && i < filling->to; i++) {
            struct dedupe_id id = id_of(i);
            dedupe_filler_add(filler, &id, hash_of(i), seen_of(filling, i), filling->origin, i + 1);
        }
    }
    dedupe_filler_end(filler);
    return NULL;
}

static void begin(struct filling *filling)
{
    atomic_store(&filling->next, filling->from);
    filling->origin = dedupe_origin(filling->dedupe, "a.1");
    filling->filling = dedupe_filling_new(filling->dedupe, filling->to - filling->from, now - day);
}

static void fill(struct filling *filling, unsigned threads)
{
    pthread_t started[THREADS];
    begin(filling);
    for (unsigned i = 1; i < threads; i++)
        assert_int_equal(pthread_create(&started[i], NULL, fill_some, filling), 0);
    fill_some(filling);
    for (unsigned i = 1; i < threads; i++)
        pthread_join(started[i], NULL);
    dedupe_filling_end(filling->filling, now);
}

static bool knows(struct dedupe *dedupe, uint64_t number, uint32_t origin)
{
    struct dedupe_found found;
    struct dedupe_id id = id_of(number);
    enum dedupe_verdict verdict = dedupe_look(dedupe, &id, hash_of(number), &found);
    if (verdict == DEDUPE_NEW)
        return false;
    assert_int_equal(verdict, DEDUPE_DUPLICATE);
    assert_int_equal(found.state, DEDUPE_DURABLE);
    assert_int_equal(found.origin, origin);
    assert_int_equal(found.seq, number + 1);
    return true;
}

static uint64_t entries(struct dedupe *dedupe, int64_t wall_ns, uint64_t *evicted)
{
    struct dedupe_figures figures;
    dedupe_figures(dedupe, wall_ns, &figures);
    *evicted = figures.evicted;
    return figures.entries;
}

// ---- tests

static void all_are_there(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= THREADS; threads++) {
        struct dedupe *dedupe = make(IDS * 100 / 80);
        struct filling filling = {.dedupe = dedupe, .to = IDS, .first_ns = now - day / 2, .last_ns = now - second};
        uint64_t evicted, there = 0;
        fill(&filling, threads);
        assert_int_equal(entries(dedupe, now, &evicted), IDS);
        assert_int_equal(evicted, 0);
        for (uint64_t i = 0; i < IDS; i++)
            assert_true(knows(dedupe, i, filling.origin));
        assert_false(knows(dedupe, IDS, filling.origin));
        struct dedupe_entry entry;
        for (uint64_t slot = 0; slot < table_slots(dedupe); slot++)
            there += table_entry(dedupe, slot, now, &entry);
        assert_int_equal(there, IDS); // none twice
        dedupe_free(dedupe);
    }
}

static void check_times(struct filling *filling)
{
    struct dedupe *dedupe = filling->dedupe;
    for (int64_t at = now; at <= filling->last_ns + day + day / 16; at += day / 64) {
        dedupe_tick(dedupe, at);
        uint64_t evicted;
        for (uint64_t i = 0; i < IDS; i += BLOCK) {
            int64_t end = seen_of(filling, i) + day;
            if (end > at)
                assert_true(knows(dedupe, i, filling->origin));
            if (end + day / 32 < at)
                assert_false(knows(dedupe, i, filling->origin));
        }
        (void)entries(dedupe, at, &evicted);
        assert_int_equal(evicted, 0);
    }
}

// An id leaves when the window behind its time has passed, within a 32nd of the window; not a window after the start.
static void each_goes_at_its_time(void **state)
{
    (void)state;
    struct dedupe *dedupe = make(IDS * 2);
    struct filling filling = {.dedupe = dedupe, .to = IDS, .first_ns = now - day + day / 10, .last_ns = now - day / 4};
    fill(&filling, THREADS);
    check_times(&filling);
    dedupe_free(dedupe);
}

// A thread that stands still while it closes a generation, as one does that has lost its processor, holds up the
// others: what they filled meanwhile would be of one generation, and would leave with its last.
static void none_goes_on_while_a_generation_is_closed(void **state)
{
    (void)state;
    enum { LOOKS = 100000 }; // the filler has time to do wrong; when it does right, they are all that is waited for
    struct dedupe *dedupe = make(IDS * 2);
    struct filling filling = {.dedupe = dedupe, .to = IDS, .first_ns = now - day + day / 10, .last_ns = now - day / 4};
    begin(&filling);
    assert_false(atomic_flag_test_and_set(&dedupe->rotating));
    pthread_t filler;
    assert_int_equal(pthread_create(&filler, NULL, fill_some, &filling), 0);
    for (unsigned look = 0; look < LOOKS && atomic_load(&filling.next) < IDS; look++)
        (void)sched_yield();
    atomic_flag_clear(&dedupe->rotating);
    pthread_join(filler, NULL);
    dedupe_filling_end(filling.filling, now);
    check_times(&filling);
    dedupe_free(dedupe);
}

// Twice within a batch, in another batch, and beside what was claimed before: the first stays.
static void what_is_there_stays(void **state)
{
    (void)state;
    struct dedupe *dedupe = make(IDS);
    uint32_t origin = dedupe_origin(dedupe, "a.1");
    struct dedupe_filling *filling = dedupe_filling_new(dedupe, IDS, now - day);
    struct dedupe_filler *filler = dedupe_filler_new(filling);
    for (unsigned turn = 0; turn < 3; turn++)
        for (uint64_t i = 0; i < IDS / 2; i++)
            for (unsigned twice = 0; twice < 2; twice++) {
                struct dedupe_id id = id_of(i);
                bool first = turn == 0 && twice == 0;
                dedupe_filler_add(filler, &id, first ? hash_of(i) : 7, now - second, origin, first ? i + 1 : 1);
            }
    dedupe_filler_end(filler);
    dedupe_filling_end(filling, now);
    uint64_t evicted;
    assert_int_equal(entries(dedupe, now, &evicted), IDS / 2);
    for (uint64_t i = 0; i < IDS / 2; i++)
        assert_true(knows(dedupe, i, origin));

    struct filling more = {.dedupe = dedupe, .to = IDS / 2 + 1, .first_ns = now - second, .last_ns = now};
    fill(&more, 1);
    more.from = IDS / 2, more.to = IDS / 2 + 10; // few: they go in one by one
    fill(&more, 1);
    assert_int_equal(entries(dedupe, now, &evicted), IDS / 2 + 10);
    for (uint64_t i = 0; i < IDS / 2 + 10; i++)
        assert_true(knows(dedupe, i, origin));
    dedupe_free(dedupe);
}

// More than there is room for: the youngest stay, and the window says from when on it is complete.
static void the_oldest_go(void **state)
{
    (void)state;
    struct dedupe *dedupe = make(IDS / 2);
    struct filling filling = {.dedupe = dedupe, .to = IDS, .first_ns = now - day / 2, .last_ns = now - second};
    fill(&filling, THREADS);
    uint64_t evicted, lost = 0;
    uint64_t left = entries(dedupe, now, &evicted);
    struct dedupe_figures figures;
    dedupe_figures(dedupe, now, &figures);
    assert_in_range(left, IDS * 2 / 5, table_slots(dedupe));
    assert_true(evicted > 0 && figures.covered_ns > 0);
    for (uint64_t i = 0; i < IDS; i++) {
        bool known = knows(dedupe, i, filling.origin);
        if (seen_of(&filling, i) > now - figures.covered_ns)
            assert_true(known);
        lost += !known;
    }
    assert_int_equal(IDS - lost, left);
    // Half of the ids are younger than what is left; the coverage may be some generations less.
    assert_true(figures.covered_ns > day / 8);
    dedupe_free(dedupe);
}

// Streams in turns and seqs far apart: more than a generation can name at once.
static void seqs_are_told_apart(void **state)
{
    (void)state;
    enum { STREAMS_HERE = 7, EACH = 3000 };
    struct dedupe *dedupe = make(IDS);
    struct dedupe_filling *filling = dedupe_filling_new(dedupe, IDS, now - day);
    struct dedupe_filler *filler = dedupe_filler_new(filling);
    uint32_t origins[STREAMS_HERE];
    for (unsigned stream = 0; stream < STREAMS_HERE; stream++) {
        char name[] = {'s', (char)('0' + stream), '\0'};
        origins[stream] = dedupe_origin(dedupe, name);
    }
    for (uint64_t i = 0; i < STREAMS_HERE * EACH; i++) {
        struct dedupe_id id = id_of(i);
        uint64_t seq = i * (UINT64_C(1) << 14) + 1;
        dedupe_filler_add(filler, &id, hash_of(i), now - day / 2 + (int64_t)i * second, origins[i % STREAMS_HERE], seq);
    }
    dedupe_filler_end(filler);
    dedupe_filling_end(filling, now);
    for (uint64_t i = 0; i < STREAMS_HERE * EACH; i++) {
        struct dedupe_found found;
        struct dedupe_id id = id_of(i);
        enum dedupe_verdict verdict = dedupe_look(dedupe, &id, hash_of(i), &found);
        if (verdict == DEDUPE_NEW) { // of a generation that gave way to more than can be told apart
            struct dedupe_figures figures;
            dedupe_figures(dedupe, now, &figures);
            assert_true(now - day / 2 + (int64_t)i * second <= now - figures.covered_ns);
            continue;
        }
        assert_int_equal(verdict, DEDUPE_DUPLICATE);
        assert_int_equal(found.origin, origins[i % STREAMS_HERE]);
        assert_int_equal(found.seq, i * (UINT64_C(1) << 14) + 1);
    }
    dedupe_free(dedupe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_there),
        cmocka_unit_test(each_goes_at_its_time),
        cmocka_unit_test(none_goes_on_while_a_generation_is_closed),
        cmocka_unit_test(what_is_there_stays),
        cmocka_unit_test(the_oldest_go),
        cmocka_unit_test(seqs_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
