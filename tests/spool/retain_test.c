// Space and retention: what is refused before a batch could be caught, what is deleted and when, what never is.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char *const two_lanes[] = {"main", "bulk"};

// ---- space

static void no_space_refuses_before_a_batch_is_caught(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_settle(world);
    disk_set_capacity(world->disk, disk_used(world->disk) + (64 << 10)); // small files only
    uint64_t id = 0;
    enum spool_admission admission;
    while ((admission = spool_admit(world->spool, 20 << 10, SPOOL_PRIORITY_HIGH)) == SPOOL_ADMITTED) {
        world_send_ok(world, id++, 1, 20 << 10); // what is admitted finds room
        world_settle(world);
        assert_true(id < 200);
    }
    assert_int_equal(admission, SPOOL_FULL);
    // There is room for less, which nobody sends: who asks whether anything can come is told no.
    assert_int_equal(spool_admit(world->spool, 1, SPOOL_PRIORITY_HIGH), SPOOL_ADMITTED);
    assert_int_equal(spool_would_admit(world->spool, SPOOL_PRIORITY_HIGH), SPOOL_FULL);
    assert_true(id > 40); // the segments were used, not just looked at
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_true(figures.no_space);
    assert_false(figures.failed);
    // Nothing was lost, and it recovers by itself when there is space again.
    disk_set_capacity(world->disk, UINT64_C(256) << 20);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(spool_admit(world->spool, 20 << 10, SPOOL_PRIORITY_HIGH), SPOOL_ADMITTED);
    assert_int_equal(spool_would_admit(world->spool, SPOOL_PRIORITY_HIGH), SPOOL_ADMITTED);
    world_send_ok(world, id, 1, 20 << 10);
    world_expect_records(world->spool, spool_stream(world->spool), 0, id + 1);
}

static void the_budget_is_kept_and_produced_events_go_first(void **state)
{
    struct world *world = *state;
    world->options.max_bytes = 16 << 20;
    world_open_ok(world);
    world_settle(world);
    uint64_t id = 0;
    bool throttled_low = false, throttled_normal = false;
    // What is too large for any time leaves the spool open to the rest.
    assert_int_equal(spool_admit(world->spool, world->options.max_bytes, SPOOL_PRIORITY_HIGH), SPOOL_FULL);
    assert_int_equal(spool_would_admit(world->spool, SPOOL_PRIORITY_HIGH), SPOOL_ADMITTED);
    for (;; id++) {
        throttled_low |= spool_admit(world->spool, 50 << 10, SPOOL_PRIORITY_LOW) == SPOOL_THROTTLED;
        throttled_normal |= spool_admit(world->spool, 50 << 10, SPOOL_PRIORITY_NORMAL) == SPOOL_THROTTLED;
        if (spool_admit(world->spool, 50 << 10, SPOOL_PRIORITY_HIGH) != SPOOL_ADMITTED)
            break;
        world_send_ok(world, id, 1, 50 << 10);
        world_settle(world);
        struct spool_figures figures;
        spool_figures(world->spool, &figures);
        assert_true(figures.bytes <= world->options.max_bytes);
    }
    assert_int_equal(spool_admit(world->spool, 50 << 10, SPOOL_PRIORITY_HIGH), SPOOL_FULL);
    assert_int_equal(spool_admit(world->spool, 1, SPOOL_PRIORITY_HIGH), SPOOL_ADMITTED);
    assert_int_equal(spool_would_admit(world->spool, SPOOL_PRIORITY_HIGH), SPOOL_FULL);
    assert_true(throttled_low && throttled_normal);
    assert_true(id > 100);
    world_expect_records(world->spool, spool_stream(world->spool), 0, id); // nothing unproduced was deleted
    // Half of it is produced: that goes at once, although `retain` has an hour left.
    spool_note_committed(world->spool, spool_stream(world->spool), "main", id / 2, id / 2);
    spool_note_verified(world->spool, spool_stream(world->spool), "main", id / 2);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(spool_admit(world->spool, 50 << 10, SPOOL_PRIORITY_LOW), SPOOL_ADMITTED);
    world_send_ok(world, id, 1, 50 << 10);
    struct read_stream read;
    read_all(world->spool, spool_stream(world->spool), id / 2 + 1, &read);
    assert_int_equal(read.count, id + 1 - id / 2);
    assert_int_equal(read.damage_count, 0);
    read_free(&read);
}

static void too_much_in_flight_is_busy(void **state)
{
    struct world *world = *state;
    world->options.append_bytes = 100 << 10;
    world_open_ok(world);
    // One that is larger than the whole allowance gets through, alone.
    assert_int_equal(spool_admit(world->spool, 200 << 10, SPOOL_PRIORITY_HIGH), SPOOL_ADMITTED);
    struct sent *sent = sent_new(world->spool, 0, 1, 90 << 10, "main");
    assert_true(spool_submit(world->spool, &sent->batch));
    assert_int_equal(spool_admit(world->spool, 20 << 10, SPOOL_PRIORITY_HIGH), SPOOL_BUSY);
    assert_true(spool_step_writer(world->spool));
    assert_int_equal(spool_admit(world->spool, 20 << 10, SPOOL_PRIORITY_HIGH), SPOOL_ADMITTED);
    sent_free(sent);
}

// A full disk at a start: smaller and smaller first segments, so that what is spooled can be drained.
static void a_start_with_little_space_uses_a_small_segment(void **state)
{
    struct world *world = *state;
    world->options.segment_bytes = 8 << 20;
    disk_set_capacity(world->disk, 400 << 10); // too little for ballast, too
    world_open_ok(world);
    world_send_ok(world, 0, 1, 1000);
    world_expect_records(world->spool, spool_stream(world->spool), 0, 1);
    world_close_ok(world);
    disk_set_capacity(world->disk, disk_used(world->disk));
    struct sl_error err;
    assert_false(world_open(world, &err));
    assert_int_equal(err.code, SL_E_NO_SPACE);
}

// The disk is full and a process starts: the ballast goes, the stream opens, and what is spooled can be read and
// drained.
static void a_start_on_a_full_disk_gives_up_the_ballast(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    char first[SPOOL_STREAM_ID_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    for (uint64_t id = 0; id < 25; id++)
        world_send_ok(world, id, 1, 50 << 10); // the ready segment is used up
    world_kill(world);
    disk_remove(world->disk, "/spool/ready/00000002.seg");
    disk_remove(world->disk, "/spool/ready/00000003.seg");
    assert_int_equal(disk_size(world->disk, "/spool/ready/ballast"), BALLAST_BYTES);
    disk_set_capacity(world->disk, disk_used(world->disk));
    world_open_ok(world);
    assert_int_equal(disk_size(world->disk, "/spool/ready/ballast"), -1);
    world_expect_records(world->spool, first, 0, 25);
    world_send_ok(world, 100, 1, 100);
    // With space, it comes back.
    disk_set_capacity(world->disk, UINT64_C(256) << 20);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(disk_size(world->disk, "/spool/ready/ballast"), BALLAST_BYTES);
}

// ---- retention

static void only_verified_and_old_segments_are_deleted(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    const char *stream = spool_stream(world->spool);
    world_fill(world, 50);
    struct spool_figures before, after;
    spool_figures(world->spool, &before);
    assert_int_equal(before.pending_events, 50);
    // A commit's return value deletes nothing.
    spool_note_committed(world->spool, stream, "main", 50, 50);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    spool_figures(world->spool, &after);
    assert_int_equal(after.segments, before.segments);
    assert_int_equal(after.pending_events, 0);
    assert_int_equal(after.pending_bytes, 0);
    assert_int_equal(after.oldest_pending_wall_ns, 0);
    spool_note_verified(world->spool, stream, "main", 50);
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    spool_figures(world->spool, &after);
    assert_int_equal(after.segments, 1); // the one being written
    assert_true(after.bytes < before.bytes);
    assert_int_equal(after.conservation_error, 0);
    // A reader from the start begins at what is left, without an alarm.
    struct read_stream read;
    read_all(world->spool, stream, 1, &read);
    assert_int_equal(read.damage_count, 0);
    assert_true(read.count < 15 && (read.count == 0 || read.records[read.count - 1].seq == 50));
    read_free(&read);
}

static void young_segments_stay(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_fill(world, 30);
    struct spool_figures before, after;
    spool_figures(world->spool, &before);
    spool_note_committed(world->spool, spool_stream(world->spool), "main", 30, 30);
    spool_note_verified(world->spool, spool_stream(world->spool), "main", 30);
    world_advance(world, world->options.retain_ns / 2);
    world_settle(world);
    spool_figures(world->spool, &after);
    assert_int_equal(after.segments, before.segments);
}

static void the_slowest_lane_holds_its_segments(void **state)
{
    struct world *world = *state;
    world->options.lanes = two_lanes;
    world->options.lane_count = 2;
    world_open_ok(world);
    const char *stream = spool_stream(world->spool);
    struct sent *bulk = sent_new(world->spool, 1000, 1, 100, "bulk");
    world_fill(world, 20);
    assert_true(world_send(world, bulk)); // seq 21
    world_fill(world, 20);
    spool_note_committed(world->spool, stream, "main", 41, 40);
    spool_note_verified(world->spool, stream, "main", 41);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    struct read_stream read;
    read_all(world->spool, stream, 1, &read);
    assert_true(read.records[0].seq == 1); // "bulk" has told nothing: all may be its
    read_free(&read);
    spool_note_committed(world->spool, stream, "bulk", 20, 0);
    spool_note_verified(world->spool, stream, "bulk", 20);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    read_all(world->spool, stream, 1, &read);
    assert_true(read.records[0].seq > 1 && read.records[0].seq <= 21);
    read_free(&read);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 1);
    spool_note_committed(world->spool, stream, "bulk", 41, 1);
    spool_note_verified(world->spool, stream, "bulk", 41);
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 0);
    assert_int_equal(figures.conservation_error, 0);
    sent_free(bulk);
}

static void an_older_stream_goes_with_its_directory(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    char first[SPOOL_STREAM_ID_MAX], dir[SPOOL_PATH_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    snprintf(dir, sizeof(dir), "/spool/%s", first);
    world_fill(world, 30);
    struct sl_error err;
    assert_true(spool_put_note(world->spool, first, "guard", "x", 1, &err));
    world_kill(world);
    world_open_ok(world);
    spool_note_committed(world->spool, first, "main", 30, 30);
    spool_note_verified(world->spool, first, "main", 30);
    world_settle(world);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_int_equal(disk_size(world->disk, dir), -1);
    assert_int_equal(spool_streams(world->spool, NULL, 0), 1);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.conservation_error, 0);
    assert_int_equal(figures.pending_events, 0);
}

static void a_stream_without_a_record_goes_at_once(void **state)
{
    struct world *world = *state;
    for (int i = 0; i < 3; i++) {
        world_open_ok(world);
        world_kill(world);
    }
    world_open_ok(world);
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(spool_streams(world->spool, NULL, 0), 1);
}

// Under large frames zeroing would double the bytes written and gain nothing: segments are handed over as they were
// allocated.
static void segments_are_not_zeroed_for_large_frames(void **state)
{
    struct world *world = *state;
    world->options.segment_bytes = 8 << 20;
    world->options.max_bytes = 200 << 20;
    for (int large = 0; large < 2; large++) {
        world_open_ok(world);
        world_settle(world);
        for (uint64_t id = 0; id < 40; id++)
            world_send_ok(world, id, 1, large ? 300 << 10 : 100);
        world_advance(world, 2 * SL_NS_PER_S); // the keeper looks at the last second
        spool_step_keeper(world->spool);
        uint64_t before = atomic_load(&world->fault.calls[FAULT_PWRITEV]);
        for (uint64_t id = 0; id < 30; id++) // a segment is used up, another one prepared
            world_send_ok(world, id, 1, 300 << 10);
        world_settle(world);
        uint64_t writes = atomic_load(&world->fault.calls[FAULT_PWRITEV]) - before;
        if (large)
            assert_in_range(writes, 32, 39); // frames, seals, headers, small files
        else
            assert_true(writes >= 30 + 8);
        struct spool_figures figures;
        spool_figures(world->spool, &figures);
        assert_int_equal(figures.segments_ready, 1);
        world_close_ok(world);
    }
}

// The reader has all that was in the segment, but has not seen its seal, when the segment is deleted.
static void a_reader_goes_on_when_its_segment_is_deleted(void **state)
{
    struct world *world = *state;
    world->options.retain_ns = 0;
    world_open_ok(world);
    const char *stream = spool_stream(world->spool);
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, stream, 1, &err));
    uint64_t seq = 0;
    for (struct spool_figures figures = {0}; figures.segments < 2;) {
        world_send_ok(world, seq, 1, 100 << 10);
        spool_figures(world->spool, &figures);
        if (figures.segments == 2)
            break; // the first one is sealed now, and the reader has not looked
        assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
        assert_int_equal(frame->header.first_seq, ++seq);
        spool_frame_release(frame);
        assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_WAIT);
        spool_note_committed(world->spool, stream, "main", seq, 1);
        spool_note_verified(world->spool, stream, "main", seq);
        world_settle(world);
    }
    struct spool_figures figures;
    for (unsigned i = 0; i < 20; i++) {
        world_advance(world, SL_NS_PER_S);
        world_settle(world);
    }
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.segments, 1);
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    assert_int_equal(frame->header.first_seq, seq + 1);
    spool_frame_release(frame);
    spool_reader_close(reader);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        STORY(a_reader_goes_on_when_its_segment_is_deleted),
        STORY(no_space_refuses_before_a_batch_is_caught),
        STORY(the_budget_is_kept_and_produced_events_go_first),
        STORY(too_much_in_flight_is_busy),
        STORY(a_start_with_little_space_uses_a_small_segment),
        STORY(a_start_on_a_full_disk_gives_up_the_ballast),
        STORY(segments_are_not_zeroed_for_large_frames),
        STORY(only_verified_and_old_segments_are_deleted),
        STORY(young_segments_stay),
        STORY(the_slowest_lane_holds_its_segments),
        STORY(an_older_stream_goes_with_its_directory),
        STORY(a_stream_without_a_record_goes_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
