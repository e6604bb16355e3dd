// Progress, sums, notes and refused records, over restarts.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include "base/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char *const two_lanes[] = {"main", "bulk"};

// ---- progress

static void progress_survives_a_restart(void **state)
{
    struct world *world = *state;
    world->options.lanes = two_lanes;
    world->options.lane_count = 2;
    world_open_ok(world);
    char first[SPOOL_STREAM_ID_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    world_fill(world, 10);
    struct sent *bulk = sent_new(world->spool, 1000, 5, 100, "bulk"); // seqs 11 to 15
    assert_true(world_send(world, bulk));
    sent_free(bulk);
    spool_note_committed(world->spool, first, "main", 4, 4);
    spool_note_committed(world->spool, first, "main", 8, 4);
    spool_note_committed(world->spool, first, "bulk", 12, 2);
    spool_note_verified(world->spool, first, "main", 4);
    spool_note_verified(world->spool, first, "bulk", 12);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    world_kill(world);
    world_open_ok(world);
    struct spool_stream_info info = world_stream_at(world->spool, 0);
    assert_int_equal(info.verified[0], 4);
    assert_int_equal(info.committed[0],
                     4); // what was committed and not verified is counted again by the drainer's walk
    assert_int_equal(info.verified[1], 12);
    world_settle(world);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 15 - 4 - 2);
    spool_note_committed(world->spool, first, "main", 15, 6);
    spool_note_committed(world->spool, first, "bulk", 15, 3);
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 0);
    assert_int_equal(figures.conservation_error, 0);
    assert_int_equal(figures.committed_events, 9);
}

static void verified_waits_for_what_is_counted_and_never_moves_back(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    const char *stream = spool_stream(world->spool);
    world_fill(world, 10);
    spool_note_verified(world->spool, stream, "main", 7);
    assert_int_equal(world_stream_at(world->spool, 0).verified[0], 0);
    spool_note_committed(world->spool, stream, "main", 5, 5);
    assert_int_equal(world_stream_at(world->spool, 0).verified[0], 5);
    spool_note_committed(world->spool, stream, "main", 9, 4);
    assert_int_equal(world_stream_at(world->spool, 0).verified[0], 7);
    spool_note_verified(world->spool, stream, "main", 3);
    assert_int_equal(world_stream_at(world->spool, 0).verified[0], 7);
}

static void a_record_too_few_is_seen_in_the_sum(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_fill(world, 10);
    spool_note_committed(world->spool, spool_stream(world->spool), "main", 10, 9);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.conservation_error, 1);
}

static void pending_is_known_before_and_after_the_walk(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_fill(world, 25);
    struct spool_figures before, after;
    spool_figures(world->spool, &before);
    assert_int_equal(before.pending_events, 25);
    assert_true(before.oldest_pending_wall_ns > 0);
    world_kill(world);
    world_open_ok(world);
    world_settle(world);
    spool_figures(world->spool, &after);
    assert_int_equal(after.pending_events, 25);
    assert_true(after.pending_bytes <= before.pending_bytes + 4 * SPOOL_BLOCK);
    assert_true(after.pending_bytes + 4 * SPOOL_BLOCK >= before.pending_bytes);
    assert_int_equal(after.oldest_pending_wall_ns, before.oldest_pending_wall_ns);
}

// ---- notes, refused

static void notes_are_replaced_and_survive(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    char stream[SPOOL_STREAM_ID_MAX], bytes[64], path[SPOOL_PATH_MAX];
    snprintf(stream, sizeof(stream), "%s", spool_stream(world->spool));
    struct sl_error err;
    size_t length = sizeof(bytes);
    world_send_ok(world, 0, 1, 10);
    assert_true(spool_get_note(world->spool, stream, "guard.main", bytes, &length, &err));
    assert_int_equal(length, 0);
    assert_true(spool_put_note(world->spool, stream, "guard.main", "one", 3, &err));
    assert_true(spool_put_note(world->spool, stream, "guard.main", "three", 5, &err));
    world_kill(world);
    world_open_ok(world);
    length = sizeof(bytes);
    assert_true(spool_get_note(world->spool, stream, "guard.main", bytes, &length, &err));
    assert_int_equal(length, 5);
    assert_memory_equal(bytes, "three", 5);
    length = 4;
    assert_false(spool_get_note(world->spool, stream, "guard.main", bytes, &length, &err));
    assert_int_equal(err.code, SL_E_TOO_LARGE);
    assert_false(spool_put_note(world->spool, stream, "../evil", "x", 1, &err));
    assert_int_equal(err.code, SL_E_INVALID);
    assert_false(spool_put_note(world->spool, "gw-a1.9-00000000", "guard", "x", 1, &err));
    snprintf(path, sizeof(path), "/spool/%s/note-guard.main", stream);
    assert_true(disk_flip(world->disk, path, 2, 1));
    length = sizeof(bytes);
    assert_false(spool_get_note(world->spool, stream, "guard.main", bytes, &length, &err));
    assert_int_equal(err.code, SL_E_CORRUPT);
}

static void refused_records_are_kept_and_counted(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct sl_error err;
    struct record record = {.source = sl_span_of("s\"\\\n\xff"), .payload = sl_span_of("{\"a\":1}")};
    record.lane = record.topic = record.event_id = sl_span_of("x");
    assert_true(spool_put_refused(world->spool, "gw-a1.1-00000000", 17, &record, "too large", &err));
    assert_int_equal(disk_size(world->disk, "/spool/refused/gw-a1.1-00000000-17.bin"), 7);
    assert_true(disk_size(world->disk, "/spool/refused/gw-a1.1-00000000-17.json") > 50);
    world_kill(world);
    world_open_ok(world);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.refused_records, 1);
}

static void figures_start_sane(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 0);
    assert_int_equal(figures.pending_bytes, 0);
    assert_true(isinf(figures.seconds_to_full));
    assert_int_equal(figures.segments, 1);
    assert_false(figures.failed || figures.no_space);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        STORY(progress_survives_a_restart),
        STORY(verified_waits_for_what_is_counted_and_never_moves_back),
        STORY(a_record_too_few_is_seen_in_the_sum),
        STORY(pending_is_known_before_and_after_the_walk),
        STORY(notes_are_replaced_and_survive),
        STORY(refused_records_are_kept_and_counted),
        STORY(figures_start_sane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
