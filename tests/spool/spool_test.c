// The spool as its users see it, without threads, over a disk in memory: appending, reading, closing, starting again,
// lanes.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

// ---- appending and reading

static void what_is_synced_can_be_read_at_once(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    assert_int_equal(spool_synced_seq(world->spool), 0);
    struct sent *sent = sent_new(world->spool, 100, 3, 200, "main");
    assert_true(world_send(world, sent));
    assert_int_equal(sent->batch.outcome, SPOOL_SYNCED);
    assert_int_equal(sent->batch.first_seq, 1);
    assert_int_equal(spool_synced_seq(world->spool), 3);
    sent_free(sent);
    world_send_ok(world, 103, 1, 200);
    world_expect_records(world->spool, spool_stream(world->spool), 100, 4);
    assert_int_equal(strncmp(spool_stream(world->spool), "gw-a1.1-", 8), 0);
}

static void batches_that_wait_share_a_frame_in_order(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct sent *sent[5];
    for (unsigned i = 0; i < 5; i++) {
        sent[i] = sent_new(world->spool, i * 2, 2, 100, "main");
        assert_true(spool_submit(world->spool, &sent[i]->batch));
    }
    assert_true(spool_step_writer(world->spool));
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(sent[i]->told, 1);
        assert_int_equal(sent[i]->batch.first_seq, i * 2 + 1);
        sent_free(sent[i]);
    }
    assert_false(spool_step_writer(world->spool));
    assert_int_equal(histogram_count(spool_commit_histogram(world->spool)), 1);
    world_expect_records(world->spool, spool_stream(world->spool), 0, 10);
}

static void a_frame_stops_growing_at_two_mebibytes(void **state)
{
    struct world *world = *state;
    world->options.segment_bytes = 16 << 20;
    world_open_ok(world);
    struct sent *sent[12];
    for (unsigned i = 0; i < 12; i++) {
        sent[i] = sent_new(world->spool, i, 1, 800 << 10, "main");
        assert_true(spool_submit(world->spool, &sent[i]->batch));
    }
    assert_true(spool_step_writer(world->spool));
    unsigned told = 0;
    for (unsigned i = 0; i < 12; i++)
        told += sent[i]->told;
    assert_int_equal(told, 2); // 2 × 800 KiB ≤ 2 MiB < 3 × 800 KiB
    while (spool_step_writer(world->spool)) {
    }
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(sent[i]->told, 1);
        sent_free(sent[i]);
    }
    world_expect_records(world->spool, spool_stream(world->spool), 0, 12);
}

static void the_stream_goes_on_over_many_segments(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    for (uint64_t id = 0; id < 120; id += 3) {
        world_send_ok(world, id, 3, 50 << 10);
        world_settle(world);
    }
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_true(figures.segments >= 6);
    world_expect_records(world->spool, spool_stream(world->spool), 0, 120);
    // Sealed segments gave back what they did not use.
    assert_true(figures.bytes <= disk_used(world->disk));
}

static void a_batch_larger_than_a_segment_gets_one_of_its_own(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_send_ok(world, 0, 1, 100);
    world_send_ok(world, 1, 5, 700 << 10); // 3.5 MiB in segments of 1 MiB
    world_send_ok(world, 6, 1, 100);
    world_expect_records(world->spool, spool_stream(world->spool), 0, 7);
}

static void a_reader_starts_anywhere(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    for (uint64_t id = 0; id < 200; id += 5) {
        world_send_ok(world, id, 5, 20 << 10);
        world_advance(world, SL_NS_PER_S / 3); // so that the index has entries
        world_settle(world);
    }
    for (int round = 0; round < 2; round++) {
        char first[SPOOL_STREAM_ID_MAX];
        snprintf(first, sizeof(first), "%s", world_stream_at(world->spool, 0).id);
        for (uint64_t seq = 1; seq <= 200; seq += 7) { // every place in a frame
            struct read_stream read;
            read_all(world->spool, first, seq, &read);
            uint64_t frame_first = (seq - 1) / 5 * 5 + 1; // it is given from the frame that holds seq
            assert_int_equal(read.records[0].seq, frame_first);
            assert_int_equal(read.count, 200 - frame_first + 1);
            read_free(&read);
        }
        struct read_stream read;
        read_all(world->spool, first, 201, &read);
        assert_int_equal(read.count, 0);
        assert_int_equal(read.end, round == 0 ? SPOOL_READ_WAIT : SPOOL_READ_END);
        read_free(&read);
        if (round == 0) { // the same over an older stream that nobody has walked
            world_kill(world);
            world_open_ok(world);
        }
    }
}

static void a_reader_follows_the_writer_over_segments(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct spool_reader *reader;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, spool_stream(world->spool), 1, &err));
    uint64_t expected = 1;
    for (uint64_t id = 0; id < 60; id++) {
        struct spool_frame *frame;
        struct spool_damage damage;
        assert_int_equal(spool_reader_next(reader, 1000, &frame, &damage, &err), SPOOL_READ_WAIT);
        world_send_ok(world, id, 1, 100 << 10);
        world_settle(world);
        assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
        assert_int_equal(frame->header.first_seq, expected++);
        spool_frame_release(frame);
    }
    spool_reader_close(reader);
}

static void a_frame_outlives_its_reader_and_its_spool(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_send_ok(world, 7, 1, 3000);
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, spool_stream(world->spool), 1, &err));
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    spool_frame_retain(frame);
    spool_frame_release(frame);
    spool_reader_close(reader);
    world_close_ok(world);
    struct sl_reader body = sl_reader_of(frame->body, frame->header.body_length);
    struct record record;
    uint64_t id;
    assert_true(record_next(&body, &record));
    assert_true(record_id(&record, &id));
    assert_int_equal(id, 7);
    spool_frame_release(frame);
}

// ---- closing, starting again

static void a_closed_stream_ends_and_the_next_names_it(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    char first[SPOOL_STREAM_ID_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    world_send_ok(world, 0, 4, 100);
    world_close_ok(world);

    world_open_ok(world);
    struct spool_stream_info older = world_stream_at(world->spool, 0), current = world_stream_at(world->spool, 1);
    assert_string_equal(older.id, first);
    assert_false(older.current);
    assert_false(older.scanned); // opening does not walk
    assert_int_equal(older.lane_count, 1);
    assert_string_equal(older.lanes[0], "main");
    assert_true(current.current);
    assert_int_equal(current.counter, 2);
    assert_string_equal(current.predecessor, first);
    world_expect_records(world->spool, first, 0, 4);
    struct read_stream read;
    read_all(world->spool, first, 1, &read);
    assert_int_equal(read.end, SPOOL_READ_END);
    read_free(&read);
    world_settle(world);
    older = world_stream_at(world->spool, 0);
    assert_true(older.scanned);
    assert_int_equal(older.end_seq, 4);
}

static void a_killed_process_loses_nothing_that_was_synced(void **state)
{
    struct world *world = *state;
    for (unsigned round = 0; round < 6; round++) {
        world_open_ok(world);
        for (uint64_t id = 0; id < 10 + round; id++)
            world_send_ok(world, id, 1, 100 << 10);
        world_settle(world);
        for (unsigned older = 0; older <= round; older++)
            world_expect_records(world->spool, world_stream_at(world->spool, older).id, 0, 10 + older);
        world_kill(world);
    }
    world_open_ok(world);
    world_settle(world);
    assert_int_equal(world_stream_at(world->spool, 6).counter, 7);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(world_stream_at(world->spool, i).end_seq, 10 + i);
}

// The unused rest of an unsealed segment is given back once its clean end is known, and the end stays clean.
static void an_older_streams_unused_rest_is_given_back(void **state)
{
    struct world *world = *state;
    world->options.segment_bytes = 8 << 20;
    world_open_ok(world);
    char first[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    snprintf(path, sizeof(path), "/spool/%s/0000000000000001.seg", first);
    world_send_ok(world, 0, 1, 100);
    world_kill(world);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(disk_size(world->disk, path), round == 0 ? 8 << 20 : 3 * SPOOL_BLOCK);
        world_open_ok(world);
        world_settle(world);
        world_expect_records(world->spool, first, 0, 1);
        assert_int_equal(world_stream_at(world->spool, 0).damaged, 0);
        world_kill(world);
    }
}

static void prepared_segments_are_used_by_the_next_start(void **state)
{
    struct world *world = *state;
    world->options.prepared = 3;
    world_open_ok(world);
    world_settle(world);
    world_kill(world);
    uint64_t used = disk_used(world->disk);
    world_open_ok(world);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.segments_ready, 2);
    assert_true(disk_used(world->disk) < used + (64 << 10)); // nothing of a segment's size was made
    assert_int_equal(figures.bytes <= disk_used(world->disk), 1);
}

static void a_second_process_is_refused(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct spool *second;
    struct sl_error err;
    assert_false(spool_open(&second, &world->options, &err));
    assert_int_equal(err.code, SL_E_LOCKED);
}

static void the_counter_never_repeats(void **state)
{
    struct world *world = *state;
    for (uint64_t counter = 1; counter <= 3; counter++) {
        world_open_ok(world);
        world_send_ok(world, 0, 1, 10);
        world_kill(world);
    }
    disk_remove(world->disk, "/spool/counter");
    world_open_ok(world);
    assert_int_equal(world_stream_at(world->spool, 3).counter, 4);
}

// ---- lanes

static const char *const two_lanes[] = {"main", "bulk"};

static void lanes_are_in_the_headers(void **state)
{
    struct world *world = *state;
    world->options.lanes = two_lanes;
    world->options.lane_count = 2;
    world_open_ok(world);
    assert_int_equal(spool_lane_index(world->spool, "bulk"), 1);
    assert_int_equal(spool_lane_index(world->spool, "none"), SIZE_MAX);
    struct sent *sent = sent_new(world->spool, 0, 2, 100, "bulk");
    assert_true(world_send(world, sent));
    sent_free(sent);
    world_kill(world);
    world->options.lane_count = 1;
    world_open_ok(world);
    assert_int_equal(world_stream_at(world->spool, 0).lane_count, 2);
    assert_string_equal(world_stream_at(world->spool, 0).lanes[1], "bulk");
    assert_int_equal(world_stream_at(world->spool, 1).lane_count, 1);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        STORY(what_is_synced_can_be_read_at_once),
        STORY(batches_that_wait_share_a_frame_in_order),
        STORY(a_frame_stops_growing_at_two_mebibytes),
        STORY(the_stream_goes_on_over_many_segments),
        STORY(a_batch_larger_than_a_segment_gets_one_of_its_own),
        STORY(a_reader_starts_anywhere),
        STORY(a_reader_follows_the_writer_over_segments),
        STORY(a_frame_outlives_its_reader_and_its_spool),
        STORY(a_closed_stream_ends_and_the_next_names_it),
        STORY(a_killed_process_loses_nothing_that_was_synced),
        STORY(an_older_streams_unused_rest_is_given_back),
        STORY(prepared_segments_are_used_by_the_next_start),
        STORY(a_second_process_is_refused),
        STORY(the_counter_never_repeats),
        STORY(lanes_are_in_the_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
