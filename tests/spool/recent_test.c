// Large frames: put together in memory, written past the page cache, kept for a reader that follows closely.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { LARGE = 300 << 10, SMALL = 20 << 10 };

static void roomy(struct world *world)
{
    world->options.segment_bytes = 64 << 20;
    world->options.max_bytes = 512 << 20;
    world_open_ok(world);
}

static struct spool_reader *reader_at_the_end(struct world *world)
{
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, spool_stream(world->spool), 1, &err));
    enum spool_read read;
    while ((read = spool_reader_next(reader, 0, &frame, &damage, &err)) == SPOOL_READ_FRAME)
        spool_frame_release(frame);
    assert_int_equal(read, SPOOL_READ_WAIT);
    return reader;
}

static void expect_next(struct spool_reader *reader, uint64_t id, size_t payload_bytes)
{
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    struct sl_reader body = sl_reader_of(frame->body, frame->header.body_length);
    struct record record;
    uint64_t found;
    assert_true(record_next(&body, &record));
    assert_true(record_id(&record, &found));
    assert_int_equal(found, id);
    assert_true(record.payload.length + 4096 > payload_bytes);
    assert_true(frame_body_verify(&frame->header, frame->body));
    spool_frame_release(frame);
}

static uint64_t reads(const struct world *world)
{
    return atomic_load(&world->fault.calls[FAULT_PREAD]);
}

static void a_reader_that_follows_reads_no_large_frame_from_the_disk(void **state)
{
    struct world *world = *state;
    roomy(world);
    world_send_ok(world, 0, 1, SMALL); // before a first frame there is nothing that a reader could have reached
    struct spool_reader *reader = reader_at_the_end(world);
    uint64_t before = reads(world);
    for (uint64_t id = 1; id <= 200; id++) { // more than the ring holds, and over the end of the segment
        world_send_ok(world, id, 1, LARGE);
        world_settle(world);
        expect_next(reader, id, LARGE);
        if (id % 7 == 0) {
            struct spool_frame *none;
            struct spool_damage damage;
            struct sl_error err;
            assert_int_equal(spool_reader_next(reader, 0, &none, &damage, &err), SPOOL_READ_WAIT);
        }
    }
    assert_true(reads(world) - before <= 10); // seals and header blocks, where segments change
    spool_reader_close(reader);
}

static void small_and_large_frames_come_in_order_from_both_places(void **state)
{
    struct world *world = *state;
    roomy(world);
    world_send_ok(world, 0, 1, SMALL);
    struct spool_reader *reader = reader_at_the_end(world);
    for (uint64_t id = 1; id <= 40; id++)
        world_send_ok(world, id, 1, id % 3 == 0 ? SMALL : LARGE);
    for (uint64_t id = 1; id <= 40; id++)
        expect_next(reader, id, id % 3 == 0 ? SMALL : LARGE);
    spool_reader_close(reader);
    world_expect_records(world->spool, spool_stream(world->spool), 0, 41);
}

static void nothing_is_kept_when_nobody_follows(void **state)
{
    struct world *world = *state;
    roomy(world);
    for (uint64_t id = 0; id < 5; id++)
        world_send_ok(world, id, 1, LARGE);
    assert_int_equal(world->spool->recent.count, 0);

    struct spool_reader *reader = reader_at_the_end(world);
    world_send_ok(world, 5, 1, LARGE);
    assert_int_equal(world->spool->recent.count, 1);
    spool_reader_close(reader); // and does not come back
    uint64_t id = 6;
    for (; id <= 6 + RECENT_BYTES / LARGE; id++) {
        world_send_ok(world, id, 1, LARGE);
        world_settle(world);
    }
    assert_int_equal(world->spool->recent.count, 0);
    assert_int_equal(world->spool->recent.bytes, 0);
    world_expect_records(world->spool, spool_stream(world->spool), 0, id);
}

static void a_reader_that_fell_behind_goes_on_from_the_disk_and_catches_up(void **state)
{
    struct world *world = *state;
    roomy(world);
    world_send_ok(world, 0, 1, SMALL);
    struct spool_reader *reader = reader_at_the_end(world);
    uint64_t last = 2 * RECENT_BYTES / LARGE;
    for (uint64_t id = 1; id <= last; id++) {
        world_send_ok(world, id, 1, LARGE);
        world_settle(world);
        if (id == 1)
            expect_next(reader, 1, LARGE);
    }
    for (uint64_t id = 2; id <= last; id++)
        expect_next(reader, id, LARGE);
    struct spool_frame *none;
    struct spool_damage damage;
    struct sl_error err;
    assert_int_equal(spool_reader_next(reader, 0, &none, &damage, &err), SPOOL_READ_WAIT);
    world_send_ok(world, last + 1, 1, LARGE);
    uint64_t before = reads(world);
    expect_next(reader, last + 1, LARGE);
    assert_int_equal(reads(world), before);
    spool_reader_close(reader);
}

static void what_memory_gave_is_on_the_disk(void **state)
{
    struct world *world = *state;
    roomy(world);
    world_send_ok(world, 0, 1, SMALL);
    struct spool_reader *reader = reader_at_the_end(world);
    for (uint64_t id = 1; id <= 20; id++) {
        world_send_ok(world, id, 3, LARGE / 2);
        id += 2;
    }
    spool_reader_close(reader);
    char stream[SPOOL_STREAM_ID_MAX];
    snprintf(stream, sizeof(stream), "%s", spool_stream(world->spool));
    world_kill(world);
    world_open_ok(world);
    world_settle(world);
    world_expect_records(world->spool, stream, 0, 22);
}

// A frame of a write that failed is not published.
static void a_large_frame_whose_sync_failed_is_in_nobodys_memory(void **state)
{
    struct world *world = *state;
    roomy(world);
    world_send_ok(world, 0, 1, SMALL);
    struct spool_reader *reader = reader_at_the_end(world);
    fault_set(&world->fault, FAULT_FDATASYNC, 1, EIO, true);
    struct sent *sent = sent_new(world->spool, 1, 1, LARGE, "main");
    assert_true(world_send(world, sent));
    assert_int_equal(sent->batch.outcome, SPOOL_FAILED);
    sent_free(sent);
    assert_int_equal(world->spool->recent.count, 0);
    struct spool_frame *none;
    struct spool_damage damage;
    struct sl_error err;
    assert_int_equal(spool_reader_next(reader, 0, &none, &damage, &err), SPOOL_READ_WAIT);
    spool_reader_close(reader);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_reader_that_follows_reads_no_large_frame_from_the_disk),
        STORY(small_and_large_frames_come_in_order_from_both_places),
        STORY(nothing_is_kept_when_nobody_follows),
        STORY(a_reader_that_fell_behind_goes_on_from_the_disk_and_catches_up),
        STORY(what_memory_gave_is_on_the_disk),
        STORY(a_large_frame_whose_sync_failed_is_in_nobodys_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
