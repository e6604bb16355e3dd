// The window from one thread: verdicts, outcomes, eviction, origins, expiry, coverage; and, with words of the table put
// there by hand, what a claim does that meets another one half-way.
#include "dedupe/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int64_t SECOND = 1000000000;
static const int64_t NOW = INT64_C(1700000000) * 1000000000;
static const int64_t WINDOW = INT64_C(3600) * 1000000000;
static const uint64_t HASH = UINT64_C(0x1122334455667788);

static struct dedupe *make_window(void)
{
    struct dedupe_options options = {.memory_bytes = dedupe_memory_min(), .window_ns = WINDOW, .now_wall_ns = NOW};
    struct dedupe *dedupe;
    struct sl_error err;
    assert_true(dedupe_new(&dedupe, &options, &err));
    return dedupe;
}

static int make(void **state)
{
    *state = make_window();
    return 0;
}

static int unmake(void **state)
{
    dedupe_free(*state);
    return 0;
}

// Ids of one set triple: the same second word, the same high bits of the first.
static struct dedupe_id id_of(uint64_t number)
{
    return (struct dedupe_id){.words = {UINT64_C(0x4242424200000000) | number, UINT64_C(0x0123456789abcdef)}};
}

static struct dedupe_claim claim_new(struct dedupe *dedupe, uint64_t number, int64_t now_ns)
{
    struct dedupe_id id = id_of(number);
    struct dedupe_claim claim = {0};
    struct dedupe_found found;
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, now_ns, &claim, &found), DEDUPE_NEW);
    return claim;
}

static void store(struct dedupe *dedupe, uint64_t number, int64_t now_ns, uint64_t seq)
{
    struct dedupe_claim claim = claim_new(dedupe, number, now_ns);
    dedupe_settle(dedupe, &claim, seq);
}

static enum dedupe_verdict look(struct dedupe *dedupe, uint64_t number, struct dedupe_found *found)
{
    struct dedupe_id id = id_of(number);
    return dedupe_look(dedupe, &id, HASH, found);
}

static int64_t covered(const struct dedupe *dedupe, int64_t now_ns)
{
    struct dedupe_figures figures;
    dedupe_figures(dedupe, now_ns, &figures);
    return figures.covered_ns;
}

static void refuses_sizes_and_windows(void **state)
{
    (void)state;
    struct dedupe *dedupe;
    struct sl_error err;
    struct dedupe_options options = {.memory_bytes = dedupe_memory_min() - 1, .window_ns = WINDOW, .now_wall_ns = NOW};
    assert_false(dedupe_new(&dedupe, &options, &err));
    assert_int_equal(err.code, SL_E_INVALID);
    options = (struct dedupe_options){.memory_bytes = dedupe_memory_min(), .window_ns = 0, .now_wall_ns = NOW};
    assert_false(dedupe_new(&dedupe, &options, &err));
    assert_int_equal(err.code, SL_E_INVALID);
    dedupe_free(NULL);
}

static void a_claim_settles(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_id id = id_of(1);
    struct dedupe_claim claim, other;
    struct dedupe_found found;
    assert_int_equal(look(dedupe, 1, &found), DEDUPE_NEW);
    assert_int_equal(found.state, DEDUPE_GONE);
    dedupe_prefetch(dedupe, &id);
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &claim, &found), DEDUPE_NEW);
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &other, &found), DEDUPE_DUPLICATE);
    assert_int_equal(found.state, DEDUPE_PENDING);
    assert_int_equal(dedupe_claim(dedupe, &id, ~HASH, NOW, &other, &found), DEDUPE_CONFLICT);
    dedupe_settle(dedupe, &claim, 77);
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &other, &found), DEDUPE_DUPLICATE);
    assert_int_equal(found.state, DEDUPE_DURABLE);
    assert_int_equal(found.origin, DEDUPE_ORIGIN_OWN);
    assert_int_equal(found.seq, 77);
    assert_int_equal(look(dedupe, 1, &found), DEDUPE_DUPLICATE);
    assert_int_equal(dedupe_look(dedupe, &id, ~HASH, &found), DEDUPE_CONFLICT);
    assert_int_equal(found.seq, 77);
    // Its outcome is known: nothing changes it.
    dedupe_forget(dedupe, &claim);
    dedupe_settle(dedupe, &claim, 78);
    assert_int_equal(look(dedupe, 1, &found), DEDUPE_DUPLICATE);
    assert_int_equal(found.seq, 77);
}

static void a_forgotten_one_is_new(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    struct dedupe_claim claim = claim_new(dedupe, 1, NOW);
    dedupe_forget(dedupe, &claim);
    assert_int_equal(look(dedupe, 1, &found), DEDUPE_NEW);
    struct dedupe_claim again = claim_new(dedupe, 1, NOW);
    dedupe_settle(dedupe, &again, 5);
    dedupe_forget(dedupe, &claim);
    assert_int_equal(look(dedupe, 1, &found), DEDUPE_DUPLICATE);
}

// Each of the 128 bits, alone and with each other one.
static void every_bit_counts(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_id base = id_of(0x55aa);
    struct dedupe_claim claim;
    struct dedupe_found found;
    assert_int_equal(dedupe_claim(dedupe, &base, HASH, NOW, &claim, &found), DEDUPE_NEW);
    for (unsigned first = 0; first < 128; first++) {
        for (unsigned second = first; second < 128; second++) {
            struct dedupe_id id = base;
            id.words[first / 64] ^= UINT64_C(1) << first % 64;
            if (second != first)
                id.words[second / 64] ^= UINT64_C(1) << second % 64;
            struct dedupe_claim other;
            assert_int_equal(dedupe_look(dedupe, &id, HASH, &found), DEDUPE_NEW);
            assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &other, &found), DEDUPE_NEW);
            assert_int_equal(dedupe_look(dedupe, &id, HASH, &found), DEDUPE_DUPLICATE);
            dedupe_forget(dedupe, &other);
        }
    }
}

// The 40 high bits of the payload's hash are kept.
static void payload_bits(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    struct dedupe_id id = id_of(9);
    store(dedupe, 9, NOW, (UINT64_C(1) << 22) - 1);
    for (unsigned bit = 0; bit < 64; bit++) {
        enum dedupe_verdict verdict = dedupe_look(dedupe, &id, HASH ^ UINT64_C(1) << bit, &found);
        assert_int_equal(verdict, bit < 25 ? DEDUPE_DUPLICATE : DEDUPE_CONFLICT);
    }
}

// ---- a full set

static void fill(struct dedupe *dedupe, uint64_t first, unsigned count, int64_t now_ns)
{
    for (unsigned i = 0; i < count; i++)
        store(dedupe, first + i, now_ns, first + i);
}

static void the_oldest_goes_first(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    dedupe_covered_since(dedupe, NOW - WINDOW);
    fill(dedupe, 100, 8, NOW);
    dedupe_tick(dedupe, NOW + 100 * SECOND);
    fill(dedupe, 200, 8, NOW + 100 * SECOND);
    dedupe_tick(dedupe, NOW + 200 * SECOND);
    fill(dedupe, 300, 8, NOW + 200 * SECOND);
    dedupe_tick(dedupe, NOW + 300 * SECOND);
    int64_t now_ns = NOW + 350 * SECOND;
    assert_true(covered(dedupe, now_ns) == WINDOW);
    for (uint64_t i = 0; i < 8; i++) {
        store(dedupe, 400 + i, now_ns, 400 + i);
        unsigned first = 0;
        for (uint64_t k = 0; k < 8; k++) {
            first += look(dedupe, 100 + k, &found) == DEDUPE_DUPLICATE;
            assert_int_equal(look(dedupe, 200 + k, &found), DEDUPE_DUPLICATE);
            assert_int_equal(look(dedupe, 300 + k, &found), DEDUPE_DUPLICATE);
        }
        assert_int_equal(first, 7 - i);
        // The end of the oldest one's generation.
        assert_true(covered(dedupe, now_ns) == now_ns - (NOW + 100 * SECOND));
    }
    store(dedupe, 500, now_ns, 500);
    assert_true(covered(dedupe, now_ns) == now_ns - (NOW + 200 * SECOND));
    struct dedupe_figures figures;
    dedupe_figures(dedupe, now_ns, &figures);
    assert_int_equal(figures.evicted, 9);
    assert_int_equal(figures.entries, 24);
}

static void evicting_what_is_young_covers_nothing(void **state)
{
    struct dedupe *dedupe = *state;
    dedupe_covered_since(dedupe, NOW - WINDOW);
    fill(dedupe, 100, 24, NOW);
    assert_true(covered(dedupe, NOW + SECOND) == WINDOW);
    store(dedupe, 200, NOW + SECOND, 200);
    assert_true(covered(dedupe, NOW + 2 * SECOND) == 0);
    dedupe_tick(dedupe, NOW + 60 * SECOND);
    assert_true(covered(dedupe, NOW + 61 * SECOND) == SECOND);
    dedupe_tick(dedupe, NOW + 120 * SECOND);
    assert_true(covered(dedupe, NOW + 121 * SECOND) == 61 * SECOND);
}

static void open_claims_stay(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_found found;
    struct dedupe_claim claims[24];
    dedupe_covered_since(dedupe, NOW - WINDOW);
    for (unsigned i = 0; i < 23; i++)
        claims[i] = claim_new(dedupe, i, NOW);
    store(dedupe, 50, NOW, 50);
    dedupe_tick(dedupe, NOW + 60 * SECOND);
    claims[23] = claim_new(dedupe, 23, NOW + 60 * SECOND);
    assert_int_equal(look(dedupe, 50, &found), DEDUPE_NEW);
    for (unsigned i = 0; i < 24; i++) {
        assert_int_equal(look(dedupe, i, &found), DEDUPE_DUPLICATE);
        assert_int_equal(found.state, DEDUPE_PENDING);
    }
    // No room: new, held by nobody, and the window begins anew.
    struct dedupe_claim none = claim_new(dedupe, 24, NOW + 61 * SECOND);
    assert_int_equal(none.word, 0);
    dedupe_settle(dedupe, &none, 1);
    dedupe_forget(dedupe, &none);
    struct dedupe_figures figures;
    dedupe_figures(dedupe, NOW + 62 * SECOND, &figures);
    assert_int_equal(figures.unremembered, 1);
    assert_int_equal(figures.entries, 24);
    assert_true(figures.covered_ns == SECOND);
    for (unsigned i = 0; i < 24; i++)
        dedupe_settle(dedupe, &claims[i], 1000 + i);
    for (unsigned i = 0; i < 24; i++) {
        assert_int_equal(look(dedupe, i, &found), DEDUPE_DUPLICATE);
        assert_int_equal(found.seq, 1000 + i);
    }
}

// ---- another claim, half-way

static void reserved_by_another(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_id id = id_of(7);
    struct dedupe_claim claim;
    struct dedupe_found found;
    struct place place;
    place_of(dedupe, &id, &place);
    uint64_t reserved = word_make(place.want, 0, SLOT_RESERVED);
    _Atomic uint64_t *lowest = word_of(dedupe, place.first[0]), *high = word_of(dedupe, place.first[2] + 7);

    // In the filter: it is looked for, and is in nobody's hands yet. Nobody waits for it.
    filter_set(dedupe, place.w1, 0);
    atomic_store(lowest, reserved);
    assert_int_equal(dedupe_look(dedupe, &id, HASH, &found), DEDUPE_UNSURE);
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &claim, &found), DEDUPE_UNSURE);
    filter_clear(dedupe, 0, 0, dedupe->cells_words);

    // Not yet in the filter: the tie is for the lower slot.
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &claim, &found), DEDUPE_UNSURE);
    assert_true(atomic_load(lowest) == reserved);
    atomic_store(lowest, 0);
    for (uint32_t filter = 0; filter < FILTERS; filter++)
        filter_clear(dedupe, filter, 0, dedupe->cells_words);
    atomic_store(high, reserved);
    assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &claim, &found), DEDUPE_NEW);
    assert_int_equal(state_of(atomic_load(high)), SLOT_KILLED);
    assert_int_equal(dedupe_look(dedupe, &id, HASH, &found), DEDUPE_DUPLICATE);
    // What is killed is no entry, and no room for one.
    for (unsigned i = 0; i < 22; i++)
        (void)claim_new(dedupe, 100 + i, NOW);
    assert_int_equal(claim_new(dedupe, 200, NOW).word, 0);
    assert_int_equal(state_of(atomic_load(high)), SLOT_KILLED);
}

// Published by another after the filter was asked: the rescan sees it, whatever the filter says.
static void the_filter_is_no_judge(void **state)
{
    struct dedupe *dedupe = *state;
    struct dedupe_id id = id_of(7);
    struct dedupe_claim claim = claim_new(dedupe, 7, NOW), other;
    struct dedupe_found found;
    struct dedupe_figures figures;
    for (unsigned step = 0; step < 2; step++) {
        for (uint32_t filter = 0; filter < FILTERS; filter++)
            filter_clear(dedupe, filter, 0, dedupe->cells_words);
        assert_int_equal(dedupe_claim(dedupe, &id, HASH, NOW, &other, &found), DEDUPE_DUPLICATE);
        assert_int_equal(found.state, step == 0 ? DEDUPE_PENDING : DEDUPE_DURABLE);
        dedupe_settle(dedupe, &claim, 3);
    }
    dedupe_figures(dedupe, NOW, &figures);
    assert_int_equal(figures.entries, 1);
    assert_int_equal(figures.confirmed_duplicate, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_sizes_and_windows),
        cmocka_unit_test_setup_teardown(a_claim_settles, make, unmake),
        cmocka_unit_test_setup_teardown(a_forgotten_one_is_new, make, unmake),
        cmocka_unit_test_setup_teardown(every_bit_counts, make, unmake),
        cmocka_unit_test_setup_teardown(payload_bits, make, unmake),
        cmocka_unit_test_setup_teardown(the_oldest_goes_first, make, unmake),
        cmocka_unit_test_setup_teardown(evicting_what_is_young_covers_nothing, make, unmake),
        cmocka_unit_test_setup_teardown(open_claims_stay, make, unmake),
        cmocka_unit_test_setup_teardown(reserved_by_another, make, unmake),
        cmocka_unit_test_setup_teardown(the_filter_is_no_judge, make, unmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
