// A damaged or torn stream as the spool's users see it: what is given, reported, recorded, kept.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

// The stream that it writes now, and the file of its first segment.
static void open_first(struct world *world, char first[SPOOL_STREAM_ID_MAX], char path[SPOOL_PATH_MAX])
{
    world_open_ok(world);
    snprintf(first, SPOOL_STREAM_ID_MAX, "%s", spool_stream(world->spool));
    snprintf(path, SPOOL_PATH_MAX, "/spool/%s/0000000000000001.seg", first);
}

static void a_torn_tail_is_set_aside_and_the_rest_given(void **state)
{
    struct world *world = *state;
    char first[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    open_first(world, first, path);
    for (uint64_t id = 0; id < 3; id++)
        world_send_ok(world, id, 1, 5000);
    world_kill(world);
    disk_zero(world->disk, path, SPOOL_BLOCK + 2 * 8192 + 1024, 512);
    world_open_ok(world);
    world_settle(world);
    world_expect_records(world->spool, first, 0, 2);
    assert_int_equal(world_stream_at(world->spool, 0).end_seq, 2);
    assert_int_equal(world_stream_at(world->spool, 0).damaged, 0);
    size_t length = strlen(path);
    snprintf(path + length, sizeof(path) - length, ".broken");
    assert_in_range(disk_size(world->disk, path), 5000, 8192);
}

static void damage_is_recorded_reported_and_kept(void **state)
{
    struct world *world = *state;
    char first[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    open_first(world, first, path);
    for (uint64_t id = 0; id < 5; id++)
        world_send_ok(world, id, 2, 1000);
    world_kill(world);
    assert_true(disk_flip(world->disk, path, SPOOL_BLOCK + SPOOL_BLOCK + 300, 4)); // frame 2: seqs 3 and 4
    world_open_ok(world);
    struct read_stream read;
    for (int pass = 0; pass < 2; pass++) {
        read_all(world->spool, first, 1, &read);
        assert_int_equal(read.count, 8);
        assert_int_equal(read.damage_count, 1); // once a pass
        assert_int_equal(read.damages[0].first_seq, 3);
        assert_int_equal(read.damages[0].last_seq, 4);
        assert_string_equal(read.damages[0].file, "0000000000000001.seg");
        assert_string_equal(read.damages[0].verdict, "corrupt-middle");
        read_free(&read);
    }
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.damaged_events, 2);
    assert_int_equal(figures.pending_events, 8);
    // Produced and old: the file with the damage stays all the same, also over a restart.
    spool_note_committed(world->spool, first, "main", 10, 8);
    spool_note_verified(world->spool, first, "main", 10);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_true(disk_size(world->disk, path) > 0);
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.conservation_error, 0);
    world_kill(world);
    world_open_ok(world);
    assert_int_equal(world_stream_at(world->spool, 0).damaged, 2); // known before anything was read
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_true(disk_size(world->disk, path) > 0);
}

// Frame 2 of five with two records each is damaged after it was produced, and `records` more are told then.
static uint64_t error_in_the_books(struct world *world, uint64_t records)
{
    char first[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    open_first(world, first, path);
    for (uint64_t id = 0; id < 5; id++)
        world_send_ok(world, id, 2, 1000);
    spool_note_committed(world->spool, first, "main", 6, 6);
    spool_note_verified(world->spool, first, "main", 6);
    world_close_ok(world);
    assert_true(disk_flip(world->disk, path, SPOOL_BLOCK + SPOOL_BLOCK + 300, 4));
    world_open_ok(world);
    world_settle(world);
    struct read_stream read;
    read_all(world->spool, first, 1, &read);
    read_free(&read);
    spool_note_committed(world->spool, first, "main", 10, records);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.damaged_events, 2);
    return figures.conservation_error;
}

static void what_was_produced_and_damaged_then_is_no_error(void **state)
{
    assert_int_equal(error_in_the_books(*state, 4), 0);
}

static void a_record_too_few_is_seen_beside_damage(void **state)
{
    assert_int_equal(error_in_the_books(*state, 1), 1);
}

static void a_record_too_many_is_seen_beside_damage(void **state)
{
    assert_int_equal(error_in_the_books(*state, 5), 1);
}

// Damage in what this process has published: the reader passes it and goes on with the writer.
static void damage_in_the_current_stream_does_not_end_it(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    char path[SPOOL_PATH_MAX];
    snprintf(path, sizeof(path), "/spool/%s/0000000000000001.seg", spool_stream(world->spool));
    world_send_ok(world, 0, 1, 1000);
    world_send_ok(world, 1, 3, 1000);
    assert_true(disk_flip(world->disk, path, 2 * SPOOL_BLOCK + 200, 1));
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, spool_stream(world->spool), 1, &err));
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    spool_frame_release(frame);
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_DAMAGED);
    assert_int_equal(damage.first_seq, 2);
    assert_int_equal(damage.last_seq, 4);
    assert_string_equal(damage.verdict, "lost-acknowledged");
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_WAIT);
    world_send_ok(world, 4, 1, 1000);
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    assert_int_equal(frame->header.first_seq, 5);
    spool_frame_release(frame);
    spool_reader_close(reader);
}

// A sector that cannot be read: twice "try again", then it is damage like any other.
static void an_unreadable_sector_becomes_damage(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    for (uint64_t id = 0; id < 3; id++)
        world_send_ok(world, id, 1, 1000);
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, spool_stream(world->spool), 1, &err));
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    spool_frame_release(frame);
    for (int i = 0; i < 3; i++) { // header of frame 2
        fault_set(&world->fault, FAULT_PREAD, 1, EIO, false);
        enum spool_read read = spool_reader_next(reader, 0, &frame, &damage, &err);
        assert_int_equal(read, i < 2 ? SPOOL_READ_FAILED : SPOOL_READ_DAMAGED);
    }
    assert_int_equal(damage.first_seq, 2);
    assert_int_equal(damage.last_seq, 2);
    fault_clear(&world->fault);
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    assert_int_equal(frame->header.first_seq, 3);
    spool_frame_release(frame);
    spool_reader_close(reader);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        STORY(a_torn_tail_is_set_aside_and_the_rest_given),
        STORY(damage_is_recorded_reported_and_kept),
        STORY(what_was_produced_and_damaged_then_is_no_error),
        STORY(a_record_too_few_is_seen_beside_damage),
        STORY(a_record_too_many_is_seen_beside_damage),
        STORY(damage_in_the_current_stream_does_not_end_it),
        STORY(an_unreadable_sector_becomes_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
