// The counters behind the conservation sums: what is counted is found again, and a missing event is noticed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "gateway/config.h"
#include "gateway/stats.h"

static void test_indices_are_stable(void **state)
{
    (void)state;
    struct stats *stats = stats_new(2);
    assert_int_equal(stats_source_index(stats, "_unknown"), STATS_UNKNOWN_SOURCE);
    uint32_t a = stats_source_index(stats, "a"), b = stats_source_index(stats, "b");
    assert_int_not_equal(a, b);
    assert_int_equal(stats_source_index(stats, "a"), a);
    assert_string_equal(stats_source_name(stats, b), "b");
    for (int i = 0; i < CONFIG_SOURCES_MAX; i++) {
        char name[32];
        snprintf(name, sizeof(name), "source-%d", i);
        assert_int_not_equal(stats_source_index(stats, name), UINT32_MAX);
    }
    assert_int_equal(stats_source_index(stats, "a"), a);
    stats_free(stats);
}

static void test_totals_over_loops(void **state)
{
    (void)state;
    struct stats *stats = stats_new(3);
    uint32_t a = stats_source_index(stats, "a");
    for (uint32_t loop = 0; loop < 3; loop++) {
        struct source_stats *shard = stats_shard(stats, a, loop);
        stats_add(&shard->received, 10 + loop);
        stats_add(&shard->outcomes[OUTCOME_REJECTED], 10 + loop);
        histogram_observe(&shard->ack_ns, 400000);
    }
    struct source_totals totals;
    stats_totals(stats, a, &totals);
    assert_int_equal(totals.received, 33);
    assert_int_equal(totals.outcomes[OUTCOME_REJECTED], 33);
    assert_int_equal(histogram_count(&totals.ack_ns), 3);
    assert_int_equal(histogram_quantile(&totals.ack_ns, 0.5), 500000);
    stats_free(stats);
}

static void test_sums(void **state)
{
    (void)state;
    struct stats *stats = stats_new(1);
    struct source_stats *shard = stats_shard(stats, stats_source_index(stats, "a"), 0);
    assert_int_equal(stats_check_shard(stats, 0), 0);
    stats_add(&shard->received, 7);
    assert_int_equal(stats_check_shard(stats, 0), 7); // nowhere yet: lost at the door
    stats_add(&shard->in_flight, 7);
    assert_int_equal(stats_check_shard(stats, 0), 0);
    stats_add(&shard->spooled, 7);
    assert_int_equal(stats_check_shard(stats, 0), 7); // on disk, and nobody knows of it
    stats_add(&shard->waiting, 7);
    assert_int_equal(stats_check_shard(stats, 0), 0);
    stats_subtract(&shard->in_flight, 7);
    stats_subtract(&shard->waiting, 7);
    stats_add(&shard->outcomes[OUTCOME_ACCEPTED], 4);
    stats_add(&shard->outcomes[OUTCOME_UNAVAILABLE], 3);
    assert_int_equal(stats_check_shard(stats, 0), 3); // three stored and refused: they must be counted as such
    stats_add(&shard->unavailable_after_append, 3);
    assert_int_equal(stats_check_shard(stats, 0), 0);
    stats_free(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_indices_are_stable),
                                       cmocka_unit_test(test_totals_over_loops), cmocka_unit_test(test_sums)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
