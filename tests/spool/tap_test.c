// What replication sees of the writer: each frame of records before it is written, in order and whole, and what became
// durable. Without it nothing is put together in memory that was not before.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FRAMES_MAX = 400, LARGE = 300 << 10 };

struct tap {
    struct world world; // first: on_failed takes it
    struct spool_frame *frames[FRAMES_MAX];
    size_t frame_count;
    uint64_t writes[FRAMES_MAX]; // calls of pwritev when it came
    struct {
        uint32_t incarnation;
        uint64_t through;
    } synced[FRAMES_MAX];
    size_t synced_count;
};

static uint64_t writes(struct tap *tap)
{
    return atomic_load(&tap->world.fault.calls[FAULT_PWRITEV]);
}

static void on_frame(void *user, struct spool_frame *frame)
{
    struct tap *tap = user;
    sl_assert(tap->frame_count < FRAMES_MAX);
    tap->writes[tap->frame_count] = writes(tap);
    tap->frames[tap->frame_count++] = spool_frame_retain(frame);
}

static void on_synced(void *user, uint32_t incarnation, uint64_t through)
{
    struct tap *tap = user;
    sl_assert(tap->synced_count < FRAMES_MAX);
    sl_assert(incarnation == spool_incarnation(tap->world.spool) && through == spool_synced_seq(tap->world.spool));
    tap->synced[tap->synced_count].incarnation = incarnation;
    tap->synced[tap->synced_count++].through = through;
}

static int setup(void **state)
{
    struct tap *tap = calloc(1, sizeof(*tap));
    sl_assert(tap != NULL);
    world_init(&tap->world, disk_new(UINT64_C(256) << 20));
    tap->world.options.on_frame = on_frame;
    tap->world.options.on_synced = on_synced;
    world_keep_ids(&tap->world); // ids frames and seals are between those of records
    *state = tap;
    return 0;
}

static int teardown(void **state)
{
    struct tap *tap = *state;
    world_free(&tap->world);
    for (size_t i = 0; i < tap->frame_count; i++)
        spool_frame_release(tap->frames[i]); // they may outlive the spool
    free(tap);
    return 0;
}

static void next_ok(struct world *world)
{
    struct sl_error err;
    if (!spool_next_stream(world->spool, &err))
        fail_msg("%s", err.text);
}

// What was given is what readers find, frame by frame, of the streams in turn.
static void expect_as_read(struct tap *tap)
{
    size_t at = 0;
    for (uint32_t incarnation = 0; incarnation <= spool_incarnation(tap->world.spool); incarnation++) {
        struct spool_reader *reader;
        struct spool_frame *frame;
        struct spool_damage damage;
        struct sl_error err;
        assert_true(
            spool_reader_open(&reader, tap->world.spool, spool_incarnation_id(tap->world.spool, incarnation), 1, &err));
        while (spool_reader_next(reader, 0, &frame, &damage, &err) == SPOOL_READ_FRAME) {
            assert_true(at < tap->frame_count);
            const struct spool_frame *given = tap->frames[at];
            assert_int_equal(given->incarnation, incarnation);
            assert_memory_equal(&given->header, &frame->header, sizeof(frame->header));
            assert_memory_equal(given->body, frame->body, frame->header.body_length);
            assert_true(frame_body_verify(&given->header, given->body));
            assert_int_equal(tap->synced[at].incarnation, incarnation);
            assert_int_equal(tap->synced[at].through, frame->header.first_seq + frame->header.count - 1);
            at++;
            spool_frame_release(frame);
        }
        spool_reader_close(reader);
    }
    assert_int_equal(at, tap->frame_count);
    assert_int_equal(at, tap->synced_count);
}

static void every_frame_of_records_is_given_before_it_is_written(void **state)
{
    struct tap *tap = *state;
    struct world *world = &tap->world;
    world_open_ok(world);
    uint64_t id = 0;
    for (unsigned i = 0; i < 60; i++) {
        uint64_t before = tap->frame_count;
        size_t bytes = i % 7 == 3 ? (size_t)LARGE : i % 5 == 2 ? 20000 : 40;
        uint32_t count = i % 6 == 1 ? 300 : 1 + i % 3;
        if (bytes > 1000)
            count = 1;
        world_send_ok(world, id, count, bytes);
        id += count;
        assert_int_equal(tap->frame_count, before + 1);
        assert_true(tap->writes[before] < writes(tap));
        if (i % 20 == 11)
            next_ok(world);
        world_settle(world);
    }
    assert_int_equal(spool_incarnation(world->spool), 3);
    expect_as_read(tap);
}

static void what_fails_was_given_and_is_not_synced(void **state)
{
    struct tap *tap = *state;
    world_open_ok(&tap->world);
    world_send_ok(&tap->world, 0, 2, 100);
    fault_set(&tap->world.fault, FAULT_FDATASYNC, 1, EIO, false);
    struct sent *sent = sent_new(tap->world.spool, 2, 2, 100, "main");
    assert_true(world_send(&tap->world, sent));
    assert_int_equal(sent->batch.outcome, SPOOL_FAILED);
    sent_free(sent);
    assert_int_equal(tap->frame_count, 2);
    assert_int_equal(tap->synced_count, 1);
    assert_int_equal(tap->world.failures, 1);
}

static void small_frames_are_not_kept_for_readers(void **state)
{
    struct tap *tap = *state;
    struct world *world = &tap->world;
    world->options.segment_bytes = 16 << 20;
    world_open_ok(world);
    world_send_ok(world, 0, 1, 100);
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, spool_stream(world->spool), 1, &err));
    uint64_t reads = 0;
    for (unsigned i = 0; i < 300; i++) {
        while (spool_reader_next(reader, 0, &frame, &damage, &err) == SPOOL_READ_FRAME)
            spool_frame_release(frame);
        reads = atomic_load(&world->fault.calls[FAULT_PREAD]);
        world_send_ok(world, i + 1, 1, i == 299 ? (size_t)LARGE : 100);
    }
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    assert_int_equal(atomic_load(&world->fault.calls[FAULT_PREAD]),
                     reads); // hundreds of small ones took nobody's place
    spool_frame_release(frame);
    spool_reader_close(reader);
    expect_as_read(tap);
}

// Parts of a write: header, bodies, padding; or one whole image.
struct spy {
    struct storage_ops ops;
    struct storage inner;
    int parts_max;
};

static struct spy spy;

static int spy_pwritev(void *context, int handle, const struct iovec *parts, int part_count, uint64_t offset)
{
    if (part_count > spy.parts_max)
        spy.parts_max = part_count;
    return spy.inner.ops->pwritev(context, handle, parts, part_count, offset);
}

static void without_a_tap_small_frames_are_written_from_where_they_are(void **state)
{
    struct tap *tap = *state;
    for (int tapped = 0; tapped < 2; tapped++) {
        spy.inner = tap->world.storage;
        spy.ops = *tap->world.storage.ops;
        spy.ops.pwritev = spy_pwritev;
        struct storage storage = {&spy.ops, tap->world.storage.context};
        tap->world.options.storage = &storage;
        tap->world.options.on_frame = tapped ? on_frame : NULL;
        tap->world.options.ids_window_ns = 0;
        memset(tap->world.options.ids_key_id, 0, sizeof(tap->world.options.ids_key_id));
        world_open_ok(&tap->world);
        spy.parts_max = 0;
        world_send_ok(&tap->world, 0, 1, 100);
        assert_int_equal(spy.parts_max, tapped ? 1 : 3);
        assert_int_equal(tap->frame_count, tapped);
        world_close_ok(&tap->world);
        tap->world.options.storage = &tap->world.storage;
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_frame_of_records_is_given_before_it_is_written),
        TEST(what_fails_was_given_and_is_not_synced),
        TEST(small_frames_are_not_kept_for_readers),
        TEST(without_a_tap_small_frames_are_written_from_where_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
