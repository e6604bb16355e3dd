// Generations: when they are closed, what they can name, when they go; origins; what is entered from elsewhere.
#include "dedupe/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int64_t SECOND = 1000000000;
static const int64_t NOW = INT64_C(1700000000) * 1000000000;
static const int64_t WINDOW = INT64_C(6400) * 1000000000; // a part is 100 s
static const uint64_t HASH = UINT64_C(0x1122334455667788);

static int make(void **state)
{
    struct dedupe_options options = {.memory_bytes = dedupe_memory_min(), .window_ns = WINDOW, .now_wall_ns = NOW};
    struct sl_error err;
    assert_true(dedupe_new((struct dedupe **)state, &options, &err));
    return 0;
}

static int unmake(void **state)
{
    dedupe_free(*state);
    return 0;
}

// Spread over the table.
static struct dedupe_id id_of(uint64_t number)
{
    uint64_t mixed = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    return (struct dedupe_id){.words = {mixed ^ mixed >> 29, (mixed ^ mixed >> 31) * UINT64_C(0xbf58476d1ce4e5b9)}};
}

static void store(struct dedupe *dedupe, uint64_t number, int64_t now_ns, uint64_t seq)
{
    struct dedupe_id id = id_of(number);
    struct dedupe_claim claim = {0};
    struct dedupe_found found;
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, now_ns, &claim, &found), DEDUPE_NEW);
    dedupe_settle(dedupe, &claim, seq);
}

static enum dedupe_verdict look(struct dedupe *dedupe, uint64_t number, struct dedupe_found *found)
{
    struct dedupe_id id = id_of(number);
    return dedupe_look(dedupe, &id, HASH, found);
}

static void insert(struct dedupe *dedupe, uint64_t number, int64_t seen_ns, uint32_t origin, uint64_t seq)
{
    struct dedupe_id id = id_of(number);
    dedupe_insert(dedupe, &id, HASH, seen_ns, origin, seq);
}

static void expect(struct dedupe *dedupe, uint64_t number, uint32_t origin, uint64_t seq)
{
    struct dedupe_found found;
    assert_int_equal(look(dedupe, number, &found), DEDUPE_DUPLICATE);
    assert_int_equal(found.state, DEDUPE_DURABLE);
    assert_int_equal(found.origin, origin);
    assert_true(found.seq == seq);
}

static uint64_t current(const struct dedupe *dedupe)
{
    return atomic_load(&dedupe->current);
}

static void closed_by_time(void **state)
{
    struct dedupe *dedupe = *state;
    uint64_t first = current(dedupe);
    dedupe_tick(dedupe, NOW + 100 * SECOND - 1);
    assert_int_equal(current(dedupe), first);
    dedupe_tick(dedupe, NOW + 100 * SECOND);
    assert_int_equal(current(dedupe), first + 1);
    dedupe_tick(dedupe, NOW + 101 * SECOND);
    assert_int_equal(current(dedupe), first + 1);
    // By a claim as well.
    store(dedupe, 1, NOW + 200 * SECOND, 1);
    assert_int_equal(current(dedupe), first + 2);
    expect(dedupe, 1, DEDUPE_ORIGIN_OWN, 1);
}

static void closed_by_count(void **state)
{
    struct dedupe *dedupe = *state;
    uint64_t first = current(dedupe), parts = 4, count = parts * table_slots(dedupe) / PARTS;
    for (uint64_t i = 0; i < count; i++)
        store(dedupe, i, NOW, i + 1);
    assert_in_range(current(dedupe), first + parts - 1, first + parts);
    for (uint64_t i = 0; i < count; i++)
        expect(dedupe, i, DEDUPE_ORIGIN_OWN, i + 1);
    // What was forgotten does not count.
    uint64_t before = current(dedupe);
    for (uint64_t i = 0; i < count; i++) {
        struct dedupe_id id = id_of(count + i);
        struct dedupe_claim claim;
        struct dedupe_found found;
        assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &claim, &found), DEDUPE_NEW);
        dedupe_forget(dedupe, &claim);
    }
    assert_int_equal(current(dedupe), before);
}

// Seqs in rising, falling and jumping order around every boundary of their stored bits.
static void names_seqs(void **state)
{
    struct dedupe *dedupe = *state;
    const uint64_t around[] = {UINT64_C(1) << 20, UINT64_C(1) << 22, UINT64_C(3) << 22, UINT64_C(1) << 24,
                               UINT64_C(1) << 32, UINT64_C(1) << 40, UINT64_C(1) << 60};
    enum { EACH = 41, PLACES = sizeof(around) / sizeof(around[0]) };
    uint64_t number = 0;
    for (unsigned place = 0; place < PLACES; place++) {
        for (unsigned i = 0; i < EACH; i++, number++)
            store(dedupe, number, NOW, around[place] + (i % 2 ? i : -(uint64_t)i));
    }
    for (unsigned place = PLACES; place-- > 0;) {
        for (unsigned i = 0; i < EACH; i++, number++)
            store(dedupe, number, NOW, around[place] + 1000 + i);
    }
    number = 0;
    for (unsigned place = 0; place < PLACES; place++) {
        for (unsigned i = 0; i < EACH; i++, number++)
            expect(dedupe, number, DEDUPE_ORIGIN_OWN, around[place] + (i % 2 ? i : -(uint64_t)i));
    }
    for (unsigned place = PLACES; place-- > 0;) {
        for (unsigned i = 0; i < EACH; i++, number++)
            expect(dedupe, number, DEDUPE_ORIGIN_OWN, around[place] + 1000 + i);
    }
}

static void closed_by_span(void **state)
{
    struct dedupe *dedupe = *state;
    uint64_t first = current(dedupe), number = 0;
    // Eight ranges of three quarters of 2^22 each, at the least.
    for (uint64_t seq = 1; seq < UINT64_C(1) << 25; seq += 99991, number++)
        store(dedupe, number, NOW, seq);
    assert_int_equal(current(dedupe), first + 1);
    number = 0;
    for (uint64_t seq = 1; seq < UINT64_C(1) << 25; seq += 99991, number++)
        expect(dedupe, number, DEDUPE_ORIGIN_OWN, seq);
}

static void goes_with_its_generation(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    struct dedupe_figures figures;
    store(dedupe, 1, NOW + SECOND, 1);
    dedupe_tick(dedupe, NOW + 100 * SECOND);
    store(dedupe, 2, NOW + 150 * SECOND, 2);
    for (int64_t at = 200; at < 6500; at += 50)
        dedupe_tick(dedupe, NOW + at * SECOND);
    expect(dedupe, 1, DEDUPE_ORIGIN_OWN, 1);
    expect(dedupe, 2, DEDUPE_ORIGIN_OWN, 2);
    dedupe_tick(dedupe, NOW + WINDOW + 100 * SECOND);
    assert_int_equal(look(dedupe, 1, &found), DEDUPE_NEW);
    expect(dedupe, 2, DEDUPE_ORIGIN_OWN, 2);
    store(dedupe, 1, NOW + WINDOW + 101 * SECOND, 3);
    expect(dedupe, 1, DEDUPE_ORIGIN_OWN, 3);
    dedupe_figures(dedupe, NOW + WINDOW + 101 * SECOND, &figures);
    assert_int_equal(figures.entries, 2);
    assert_int_equal(figures.evicted, 0);
    assert_true(figures.covered_ns == WINDOW);
}

// Through all numbers several times: nothing of an earlier round comes back, in table or filter.
static void numbers_wrap(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    const uint64_t rounds = 2 * RING + 50;
    struct dedupe_id held_id = id_of(1000000);
    struct dedupe_claim held;
    assert_int_equal(dedupe_claim(dedupe, &held_id, HASH, NOW, &held, &found), DEDUPE_NEW);
    for (uint64_t round = 0; round < rounds; round++) {
        int64_t now_ns = NOW + (int64_t)round * 100 * SECOND;
        store(dedupe, round, now_ns, round + 1);
        dedupe_tick(dedupe, now_ns + 100 * SECOND);
        for (uint64_t back = 0; back <= round && back < PARTS + 20; back++) {
            if (back < PARTS)
                expect(dedupe, round - back, DEDUPE_ORIGIN_OWN, round - back + 1);
            else if (back > PARTS + 1)
                assert_int_equal(look(dedupe, round - back, &found), DEDUPE_NEW);
        }
        assert_int_equal(dedupe_look(dedupe, &held_id, HASH, &found), DEDUPE_DUPLICATE);
    }
    assert_true(atomic_load(&dedupe->swept) + PARTS + 4 > current(dedupe));
    // A claim that stayed open through all of it is its claimer's still.
    dedupe_settle(dedupe, &held, 123);
    expect(dedupe, 1000000, DEDUPE_ORIGIN_OWN, 123);
}

// The same without dedupe_tick: claims close generations, and sweep when the next number is not free.
static void numbers_wrap_without_tick(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    enum { EACH = 12, ROUNDS = 2 * RING + 50 };
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (uint64_t i = 0; i < EACH; i++)
            store(dedupe, round * EACH + i, NOW + (int64_t)round * 100 * SECOND, round * EACH + i + 1);
        expect(dedupe, round * EACH, DEDUPE_ORIGIN_OWN, round * EACH + 1);
        for (uint64_t back = RING - 4; back < RING + 4 && back <= round; back++)
            assert_int_equal(look(dedupe, (round - back) * EACH, &found), DEDUPE_NEW);
    }
    assert_true(current(dedupe) > FIRST_NUMBER + ROUNDS);
}

// Claimed under one generation of the filter, settled under another: it is found for as long as it lives.
static void settled_late(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_id id = id_of(1000000);
    struct dedupe_claim held;
    struct dedupe_found found;
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &held, &found), DEDUPE_NEW);
    // Claims close generations; without a tick no sweep comes by.
    uint32_t filter = atomic_load(&generation_of(dedupe, current(dedupe))->filter);
    for (int64_t i = 1; i <= 40; i++)
        store(dedupe, (uint64_t)i, NOW + i * 100 * SECOND, (uint64_t)i);
    assert_int_not_equal(atomic_load(&generation_of(dedupe, current(dedupe))->filter), filter);
    dedupe_settle(dedupe, &held, 99);
    for (int64_t i = 41; i < 40 + PARTS; i++) {
        dedupe_tick(dedupe, NOW + i * 100 * SECOND);
        expect(dedupe, 1000000, DEDUPE_ORIGIN_OWN, 99);
    }
}

// Without dedupe_tick, by count alone: claims do the sweeping, the window keeps what it says.
static void goes_on_without_tick(void **state)
{
    struct dedupe *dedupe = *state;
    uint64_t count = 12 * table_slots(dedupe);
    dedupe_covered_since(dedupe, NOW - WINDOW);
    for (uint64_t i = 0; i < count; i++)
        store(dedupe, i, NOW + (int64_t)i, i + 1);
    assert_true(current(dedupe) - FIRST_NUMBER > 2 * RING);
    struct dedupe_figures figures;
    int64_t now_ns = NOW + (int64_t)count;
    dedupe_figures(dedupe, now_ns, &figures);
    assert_true(figures.evicted > 0);
    assert_true(figures.entries <= figures.capacity);
    uint64_t sure = (uint64_t)figures.covered_ns;
    assert_in_range(sure, table_slots(dedupe) / 2, table_slots(dedupe));
    for (uint64_t back = 1; back < sure; back++)
        expect(dedupe, count - back, DEDUPE_ORIGIN_OWN, count - back + 1);
}

// ---- from elsewhere

static void inserts_by_time(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    uint32_t origin = dedupe_origin(dedupe, "node-a-1");
    assert_int_not_equal(origin, DEDUPE_ORIGIN_OWN);
    dedupe_covered_since(dedupe, NOW - WINDOW);
    for (uint64_t i = 0; i < 64; i++)
        insert(dedupe, i, NOW - (int64_t)i * 100 * SECOND - 1, origin, 1000 + i);
    insert(dedupe, 64, NOW - WINDOW, origin, 2000);
    insert(dedupe, 65, NOW - 2 * WINDOW, origin, 2001);
    assert_int_equal(look(dedupe, 64, &found), DEDUPE_NEW);
    assert_int_equal(look(dedupe, 65, &found), DEDUPE_NEW);
    for (uint64_t i = 0; i < 64; i++)
        expect(dedupe, i, origin, 1000 + i);
    // There already: nothing changes.
    insert(dedupe, 3, NOW, DEDUPE_ORIGIN_OWN, 7);
    expect(dedupe, 3, origin, 1003);
    // They leave one after the other, none before its time.
    for (int64_t at = 1; at <= 64; at++) {
        dedupe_tick(dedupe, NOW + at * 100 * SECOND);
        for (int64_t i = 0; i < 64; i++) {
            if (i < 64 - at)
                expect(dedupe, (uint64_t)i, origin, 1000 + (uint64_t)i);
            else if (i > 64 - at)
                assert_int_equal(look(dedupe, (uint64_t)i, &found), DEDUPE_NEW);
        }
    }
    struct dedupe_figures figures;
    dedupe_figures(dedupe, NOW + WINDOW, &figures);
    assert_int_equal(figures.evicted, 0);
    assert_true(figures.covered_ns == WINDOW);
}

// A cell's streams take turns, and that ends no generation.
static void streams_that_take_turns(void **state)
{
    struct dedupe *dedupe = *state;
    uint32_t origins[STREAMS];
    uint64_t first = current(dedupe), seq = 1;
    for (unsigned i = 0; i < STREAMS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "stream-%u", i);
        origins[i] = i == 0 ? DEDUPE_ORIGIN_OWN : dedupe_origin(dedupe, name);
    }
    for (; seq < 500; seq++)
        insert(dedupe, seq, NOW, origins[seq % STREAMS], seq);
    assert_int_equal(current(dedupe), first);
    for (seq = 1; seq < 500; seq++)
        expect(dedupe, seq, origins[seq % STREAMS], seq);
}

// More streams, and wider ranges of seqs, than one generation names.
static void many_origins_at_one_time(void **state)
{
    struct dedupe *dedupe = *state;
    enum { NAMES = 40, EACH = 5 };
    uint32_t origins[NAMES];
    for (unsigned i = 0; i < NAMES; i++) {
        char name[32];
        snprintf(name, sizeof(name), "stream-%u", i);
        origins[i] = dedupe_origin(dedupe, name);
        assert_int_equal(dedupe_origin(dedupe, name), origins[i]);
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(origins[i], origins[k]);
    }
    for (unsigned i = 0; i < NAMES * EACH; i++)
        insert(dedupe, i, NOW - 1000 * SECOND, origins[i % NAMES], UINT64_C(0x3fffffff) * (i / NAMES) + 1);
    for (unsigned i = 0; i < NAMES * EACH; i++)
        expect(dedupe, i, origins[i % NAMES], UINT64_C(0x3fffffff) * (i / NAMES) + 1);
    for (unsigned i = 0; i < NAMES; i++) {
        char name[32], told[32];
        snprintf(name, sizeof(name), "stream-%u", i);
        assert_true(dedupe_origin_name(dedupe, origins[i], told, sizeof(told)));
        assert_string_equal(told, name);
    }
}

static void origins_are_used_again(void **state)
{
    struct dedupe *dedupe = *state;
    char name[32];
    assert_false(dedupe_origin_name(dedupe, DEDUPE_ORIGIN_OWN, name, sizeof(name)));
    dedupe_own_stream(dedupe, "own");
    assert_int_equal(dedupe_origin(dedupe, "own"), DEDUPE_ORIGIN_OWN);
    assert_true(dedupe_origin_name(dedupe, DEDUPE_ORIGIN_OWN, name, sizeof(name)));
    assert_string_equal(name, "own");
    assert_false(dedupe_origin_name(dedupe, DEDUPE_ORIGIN_OWN, name, 3));
    assert_false(dedupe_origin_name(dedupe, ORIGINS, name, sizeof(name)));
    for (unsigned i = 1; i < ORIGINS; i++) {
        snprintf(name, sizeof(name), "%u", i);
        assert_int_equal(dedupe_origin(dedupe, name), i);
    }
    assert_int_equal(dedupe_origin(dedupe, "one too many"), UINT32_MAX);
    // All but one of them have nothing left when the window has passed.
    for (int64_t at = 100; at <= 7000; at += 100) {
        insert(dedupe, (uint64_t)at, NOW + at * SECOND, 17, (uint64_t)at);
        dedupe_tick(dedupe, NOW + at * SECOND);
    }
    assert_int_equal(dedupe_origin(dedupe, "17"), 17);
    for (unsigned i = 1; i < ORIGINS; i++) {
        snprintf(name, sizeof(name), "again %u", i);
        uint32_t origin = dedupe_origin(dedupe, name);
        assert_int_not_equal(origin, 17);
        assert_true((origin == UINT32_MAX) == (i == ORIGINS - 1));
    }
    expect(dedupe, 7000, 17, 7000);
}

static void an_insert_never_evicts_what_is_younger(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    struct dedupe_figures figures;
    dedupe_covered_since(dedupe, NOW - WINDOW);
    struct dedupe_id id = {.words = {1, 2}};
    for (uint64_t i = 0; i < 24; i++) {
        id.words[0] = i;
        dedupe_insert(dedupe, &id, HASH, NOW - 100 * SECOND - 1, 0, i + 1);
    }
    id.words[0] = 24;
    dedupe_insert(dedupe, &id, HASH, NOW - 300 * SECOND - 1, 0, 100);
    assert_int_equal(dedupe_look(dedupe, &id, HASH, &found), DEDUPE_NEW);
    dedupe_figures(dedupe, NOW, &figures);
    assert_true(figures.covered_ns == 300 * SECOND);
    id.words[0] = 25;
    dedupe_insert(dedupe, &id, HASH, NOW, 0, 101);
    assert_int_equal(dedupe_look(dedupe, &id, HASH, &found), DEDUPE_DUPLICATE);
    dedupe_figures(dedupe, NOW, &figures);
    assert_true(figures.covered_ns == 100 * SECOND);
    assert_int_equal(figures.entries, 24);
}

// ---- what the window says

static void covers_what_it_was_told(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_figures figures;
    dedupe_figures(dedupe, NOW, &figures);
    assert_true(figures.covered_ns == 0 && figures.window_ns == WINDOW);
    dedupe_figures(dedupe, NOW + 10 * SECOND, &figures);
    assert_true(figures.covered_ns == 10 * SECOND);
    dedupe_covered_since(dedupe, NOW - 3000 * SECOND);
    dedupe_figures(dedupe, NOW + 10 * SECOND, &figures);
    assert_true(figures.covered_ns == 3010 * SECOND);
    dedupe_covered_since(dedupe, NOW - 2 * WINDOW);
    dedupe_figures(dedupe, NOW + 10 * SECOND, &figures);
    assert_true(figures.covered_ns == WINDOW);
}

static void arithmetic(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_figures figures;
    dedupe_figures(dedupe, NOW, &figures);
    assert_true(figures.window_affordable_ns == INT64_MAX);
    assert_int_equal(figures.capacity, table_slots(dedupe));
    uint64_t number = 0;
    for (int64_t second = 0; second <= 90; second++) {
        for (unsigned i = 0; i < 50; i++, number++)
            store(dedupe, number, NOW + second * SECOND, number + 1);
        dedupe_tick(dedupe, NOW + second * SECOND);
    }
    dedupe_figures(dedupe, NOW + 90 * SECOND, &figures);
    assert_int_equal(figures.entries, number);
    assert_true(figures.claims_per_second > 49.9 && figures.claims_per_second < 50.1);
    double needed = 50.0 * 6400 * figures.bytes_per_entry;
    assert_true((double)figures.memory_needed_bytes > 0.99 * needed);
    assert_true((double)figures.memory_needed_bytes < 1.01 * needed);
    double affordable = (double)figures.memory_bytes / figures.bytes_per_entry / 50;
    assert_true((double)figures.window_affordable_ns / 1e9 > 0.99 * affordable);
    assert_true((double)figures.window_affordable_ns / 1e9 < 1.01 * affordable);
}

// What the snapshot walks gives back what went in.
static void entries_come_back(void **state)
{
    struct dedupe *dedupe = *state;
    enum { COUNT = 5000 };
    for (uint64_t i = 0; i < COUNT; i++) {
        if (i % 5 == 0)
            insert(dedupe, i, NOW - (int64_t)(i + 1) * SECOND, 3, i * 1000);
        else
            store(dedupe, i, NOW, i + 1);
    }
    static bool seen[COUNT];
    uint64_t entries = 0;
    for (uint64_t slot = 0; slot < table_slots(dedupe); slot++) {
        struct dedupe_entry entry;
        if (!table_entry(dedupe, slot, NOW + SECOND, &entry))
            continue;
        entries++;
        assert_int_equal(entry.state, DEDUPE_DURABLE);
        uint64_t number = entry.origin == 3 ? entry.seq / 1000 : entry.seq - 1;
        assert_true(number < COUNT && !seen[number]);
        seen[number] = true;
        struct dedupe_id id = id_of(number);
        assert_memory_equal(&entry.id, &id, sizeof(id));
        assert_true(entry.payload_hash == (HASH & ~UINT64_C(0x1ffffff)));
        int64_t received_ns = number % 5 == 0 ? NOW - (int64_t)(number + 1) * SECOND : NOW;
        assert_true(entry.seen_wall_ns >= received_ns && entry.seen_wall_ns < received_ns + 101 * SECOND);
    }
    assert_int_equal(entries, COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(closed_by_time, make, unmake),
        cmocka_unit_test_setup_teardown(closed_by_count, make, unmake),
        cmocka_unit_test_setup_teardown(names_seqs, make, unmake),
        cmocka_unit_test_setup_teardown(closed_by_span, make, unmake),
        cmocka_unit_test_setup_teardown(goes_with_its_generation, make, unmake),
        cmocka_unit_test_setup_teardown(numbers_wrap, make, unmake),
        cmocka_unit_test_setup_teardown(numbers_wrap_without_tick, make, unmake),
        cmocka_unit_test_setup_teardown(settled_late, make, unmake),
        cmocka_unit_test_setup_teardown(goes_on_without_tick, make, unmake),
        cmocka_unit_test_setup_teardown(inserts_by_time, make, unmake),
        cmocka_unit_test_setup_teardown(streams_that_take_turns, make, unmake),
        cmocka_unit_test_setup_teardown(many_origins_at_one_time, make, unmake),
        cmocka_unit_test_setup_teardown(origins_are_used_again, make, unmake),
        cmocka_unit_test_setup_teardown(an_insert_never_evicts_what_is_younger, make, unmake),
        cmocka_unit_test_setup_teardown(covers_what_it_was_told, make, unmake),
        cmocka_unit_test_setup_teardown(arithmetic, make, unmake),
        cmocka_unit_test_setup_teardown(entries_come_back, make, unmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
