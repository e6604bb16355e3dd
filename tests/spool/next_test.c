// A process that ends its stream and goes on with the next one: what stays with the old one, what goes into the new
// one, what readers, sums and deletion make of it.
#include "tests/spool/world.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LARGE = 300 << 10 };

static bool is_listed(struct spool *spool, uint32_t incarnation)
{
    struct spool_stream_info info;
    return spool_stream_find(spool, spool_incarnation_id(spool, incarnation), &info);
}

static enum spool_read read_one(struct spool_reader *reader, uint64_t *seq)
{
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    enum spool_read read = spool_reader_next(reader, 0, &frame, &damage, &err);
    if (read == SPOOL_READ_FRAME) {
        *seq = frame->header.first_seq;
        spool_frame_release(frame);
    }
    return read;
}

static struct spool_reader *reader_of(struct spool *spool, uint32_t incarnation, uint64_t from_seq)
{
    struct spool_reader *reader;
    struct sl_error err;
    if (!spool_reader_open(&reader, spool, spool_incarnation_id(spool, incarnation), from_seq, &err))
        fail_msg("%s", err.text);
    return reader;
}

static void produced(struct spool *spool, uint32_t incarnation, const char *lane, uint64_t through, uint64_t records)
{
    const char *id = spool_incarnation_id(spool, incarnation);
    spool_note_committed(spool, id, lane, through, records);
    spool_note_verified(spool, id, lane, through);
}

static void expect_sums(struct spool *spool, uint64_t pending)
{
    struct spool_figures figures;
    spool_figures(spool, &figures);
    assert_int_equal(figures.pending_events, pending);
    assert_int_equal(figures.pending_bytes > 0, pending > 0);
    assert_int_equal(figures.conservation_error, 0);
    assert_int_equal(figures.damaged_events, 0);
}

// ---- what a user sees

static void the_next_stream_begins_at_one_and_names_the_one_before(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    assert_int_equal(spool_incarnation(world->spool), 0);
    assert_null(spool_incarnation_id(world->spool, 1));
    char first[SPOOL_STREAM_ID_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    world_send_ok(world, 0, 5, 100);
    world_send_ok(world, 5, 2, 100);
    world_next_ok(world);
    assert_int_equal(spool_incarnation(world->spool), 1);
    assert_string_equal(spool_incarnation_id(world->spool, 0), first);
    assert_string_equal(spool_incarnation_id(world->spool, 1), spool_stream(world->spool));
    assert_string_not_equal(first, spool_stream(world->spool));
    assert_int_equal(spool_synced_seq(world->spool), 0);
    struct sent *sent = sent_new(world->spool, 7, 3, 100, "main");
    assert_true(world_send(world, sent));
    assert_int_equal(sent->batch.first_seq, 1);
    assert_int_equal(sent->batch.incarnation, 1);
    sent_free(sent);
    assert_int_equal(spool_synced_seq(world->spool), 3);

    struct spool_stream_info old = world_stream_at(world->spool, 0), new = world_stream_at(world->spool, 1);
    assert_string_equal(old.id, first);
    assert_true(!old.current && old.scanned && old.own && old.end_seq == 7 && old.base_seq == 1);
    assert_string_equal(new.id, spool_stream(world->spool));
    assert_true(new.current &&new.scanned &&new.end_seq == 3 && new.counter == old.counter + 1);
    assert_string_equal(new.predecessor, first);
    assert_int_equal(new.predecessor_seq, 7);
    struct read_stream read;
    read_all(world->spool, first, 1, &read);
    assert_int_equal(read.end, SPOOL_READ_END);
    assert_int_equal(read.count, 7);
    read_free(&read);
    read_all(world->spool, new.id, 1, &read);
    assert_int_equal(read.end, SPOOL_READ_WAIT);
    read_free(&read);
    expect_sums(world->spool, 10);

    // And the same after a restart.
    world_close_ok(world);
    world_open_ok(world);
    world_settle(world);
    world_expect_records(world->spool, first, 0, 7);
    world_expect_records(world->spool, new.id, 7, 3);
    struct spool_stream_info third = world_stream_at(world->spool, 2);
    assert_string_equal(third.predecessor, new.id);
    assert_int_equal(third.predecessor_seq, 3);
    assert_int_equal(spool_incarnation(world->spool), 0);
    assert_string_equal(world_stream_at(world->spool, 1).predecessor, first);
    expect_sums(world->spool, 10);
}

// What waits goes into the new one; without a segment for that the old one goes on meanwhile.
static void batches_that_wait_are_written_once(void **state)
{
    struct world *world = *state;
    for (int ready = 1; ready >= 0; ready--) {
        world_open_ok(world);
        world_send_ok(world, 0, 1, 100);
        if (ready)
            world_settle(world);
        struct sent *sent[3];
        for (unsigned i = 0; i < 3; i++) {
            sent[i] = sent_new(world->spool, 1 + i, 1, 400 << 10, "main"); // more than a segment in all
            assert_true(spool_submit(world->spool, &sent[i]->batch));
        }
        world_next_ok(world);
        world_send_ok(world, 4, 1, 100); // behind them
        unsigned in_old = 0;
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(sent[i]->told, 1);
            assert_int_equal(sent[i]->batch.outcome, SPOOL_SYNCED);
            assert_true(sent[i]->batch.incarnation == 1 || in_old == i); // in order
            in_old += sent[i]->batch.incarnation == 0;
            sent_free(sent[i]);
        }
        assert_true(ready ? in_old == 0 : in_old > 0);
        world_expect_records(world->spool, spool_incarnation_id(world->spool, 0), 0, 1 + in_old);
        world_expect_records(world->spool, spool_stream(world->spool), 1 + in_old, 4 - in_old);
        world_free(world);
        world_init(world, disk_new(UINT64_C(256) << 20));
    }
}

static void lanes_stay_as_they_are(void **state)
{
    struct world *world = *state;
    struct sl_error err;
    world_open_ok(world);
    world_settle(world);
    assert_true(spool_declare_lane(world->spool, "bulk", &err));
    world_next_ok(world);
    struct spool_stream_info info = world_stream_of(world->spool, 1);
    assert_int_equal(info.lane_count, 2);
    assert_string_equal(info.lanes[1], "bulk");
    struct sent *sent = sent_new(world->spool, 0, 2, 100, "bulk");
    assert_true(world_send(world, sent));
    sent_free(sent);
    world_settle(world);
    assert_true(spool_declare_lane(world->spool, "late", &err));
    assert_int_equal(world_stream_of(world->spool, 1).lane_count, 3);
    assert_int_equal(world_stream_of(world->spool, 1).end_seq, 2);
    produced(world->spool, 1, "bulk", 2, 2);
    expect_sums(world->spool, 0);
}

static void many_streams_one_after_the_other(void **state)
{
    struct world *world = *state;
    world->options.counter_min = 70;
    world_open_ok(world);
    for (uint32_t i = 0; i < 12; i++) {
        world_send_ok(world, i * 2, 2, 100);
        world_next_ok(world);
        assert_int_equal(spool_incarnation(world->spool), i + 1);
    }
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(world_stream_of(world->spool, i).counter, 70 + i);
        world_expect_records(world->spool, spool_incarnation_id(world->spool, i), i * 2, 2);
    }
    expect_sums(world->spool, 24);
    struct sl_error err;
    world_close_ok(world);
    assert_false(world->spool != NULL);
    world->options.counter_min = 10;
    assert_true(world_open(world, &err));
    assert_int_equal(world_stream_of(world->spool, 0).counter, 70 + 13); // not back
}

// ---- readers

static void readers_of_the_old_stream_come_to_its_end(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct spool_reader *empty = reader_of(world->spool, 0, 1);
    uint64_t seq = 0;
    assert_int_equal(read_one(empty, &seq), SPOOL_READ_WAIT); // a segment without a frame
    world_fill(world, 13);                                    // two segments
    struct spool_reader *follower = reader_of(world->spool, 0, 13), *behind = reader_of(world->spool, 0, 1);
    assert_int_equal(read_one(follower, &seq), SPOOL_READ_FRAME);
    assert_int_equal(read_one(follower, &seq), SPOOL_READ_WAIT);
    assert_int_equal(read_one(behind, &seq), SPOOL_READ_FRAME);
    world_next_ok(world);
    assert_int_equal(read_one(follower, &seq), SPOOL_READ_END);
    assert_int_equal(read_one(follower, &seq), SPOOL_READ_END); // again
    struct spool_reader *opened_later = reader_of(world->spool, 0, 14), *of_new = reader_of(world->spool, 1, 1);
    assert_int_equal(read_one(opened_later, &seq), SPOOL_READ_END);
    assert_int_equal(read_one(of_new, &seq), SPOOL_READ_WAIT);
    for (uint64_t expected = 2; expected <= 13; expected++) {
        assert_int_equal(read_one(behind, &seq), SPOOL_READ_FRAME);
        assert_int_equal(seq, expected);
    }
    assert_int_equal(read_one(behind, &seq), SPOOL_READ_END);
    for (uint64_t expected = 1; expected <= 13; expected++) {
        assert_int_equal(read_one(empty, &seq), SPOOL_READ_FRAME);
        assert_int_equal(seq, expected);
    }
    assert_int_equal(read_one(empty, &seq), SPOOL_READ_END);
    struct spool_reader *all[] = {empty, follower, behind, opened_later, of_new};
    for (size_t i = 0; i < 5; i++)
        spool_reader_close(all[i]);
}

// Whatever of the stream goes under a reader: an end is an end.
static void a_reader_whose_stream_ends_and_is_deleted_does_not_wait_for_ever(void **state)
{
    struct world *world = *state;
    for (int records = 0; records < 2; records++) {
        world_open_ok(world);
        world_settle(world);
        if (records)
            world_send_ok(world, 0, 2, 100);
        struct spool_reader *reader = reader_of(world->spool, 0, 1);
        uint64_t seq;
        if (records)
            assert_int_equal(read_one(reader, &seq), SPOOL_READ_FRAME);
        assert_int_equal(read_one(reader, &seq), SPOOL_READ_WAIT);
        world_next_ok(world);
        if (records)
            produced(world->spool, 0, "main", 2, 2);
        world_advance(world, 2 * world->options.retain_ns);
        world_settle(world);
        assert_false(is_listed(world->spool, 0));
        assert_non_null(spool_incarnation_id(world->spool, 0));
        assert_int_equal(read_one(reader, &seq), SPOOL_READ_END);
        spool_reader_close(reader);
        world_close_ok(world);
    }
}

// Frames of two streams may stand at the same seq and the same offset.
static void large_frames_in_memory_are_those_of_their_stream(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_settle(world);
    uint64_t seq;
    for (uint32_t i = 0; i < 3; i++) {
        struct spool_reader *reader = reader_of(world->spool, i, 1);
        world_send_ok(world, 10 * i, 1, 100);
        assert_int_equal(read_one(reader, &seq), SPOOL_READ_FRAME);
        assert_int_equal(read_one(reader, &seq), SPOOL_READ_WAIT); // it follows: large frames are kept
        world_send_ok(world, 10 * i + 1, 1, LARGE);
        world_send_ok(world, 10 * i + 2, 1, LARGE);
        if (i != 1) // that one has its frames still before it
            world_expect_records(world->spool, spool_stream(world->spool), 10 * i, 3);
        world_next_ok(world);
        spool_reader_close(reader);
    }
    for (uint32_t i = 0; i < 3; i++)
        world_expect_records(world->spool, spool_incarnation_id(world->spool, i), 10 * i, 3);
}

// ---- sums and deletion

static void an_ended_stream_is_deleted_when_all_of_it_is_produced(void **state)
{
    struct world *world = *state;
    static const char *const lanes[] = {"main", "unused"};
    world->options.lanes = lanes;
    world->options.lane_count = 2;
    world_open_ok(world);
    world_settle(world);
    world_fill(world, 12);
    world_next_ok(world);
    world_send_ok(world, 100, 4, 100);
    produced(world->spool, 0, "main", 11, 11);
    expect_sums(world->spool, 1 + 4);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_int_equal(world_stream_of(world->spool, 0).end_seq, 12); // its last segment is there
    produced(world->spool, 0, "main", 12, 1);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_true(is_listed(world->spool, 0)); // nothing was ever in the other lane, but its drain may be at it
    produced(world->spool, 0, "unused", 12, 0);
    produced(world->spool, 1, "main", 4, 4);
    expect_sums(world->spool, 0);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_false(is_listed(world->spool, 0));
    assert_true(is_listed(world->spool, 1));
    assert_int_equal(world_stream_of(world->spool, 1).predecessor_seq, 12);
}

static void a_sum_that_does_not_agree_is_told_of_an_ended_stream_too(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_send_ok(world, 0, 4, 100);
    world_next_ok(world);
    produced(world->spool, 0, "main", 4, 3);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.conservation_error, 1);
}

static void ids_of_an_ended_stream_are_there_at_once(void **state)
{
    struct world *world = *state;
    world_keep_ids(world);
    world_open_ok(world);
    world_fill(world, 13);
    world_next_ok(world);
    world_send_ok(world, 100, 2, 100);
    struct read_ids ids;
    read_ids(world->spool, spool_incarnation_id(world->spool, 0), 0, 0, &ids);
    assert_int_equal(ids.from_records, 0);
    read_ids_expect(&ids, 1, 13);
    read_ids_free(&ids);
    read_ids(world->spool, spool_incarnation_id(world->spool, 1), 0, 100, &ids);
    assert_int_equal(ids.units, 0);
    read_ids_free(&ids);
    produced(world->spool, 0, "main", 13, 13);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_false(is_listed(world->spool, 0));
    read_ids(world->spool, spool_incarnation_id(world->spool, 0), 0, 0, &ids);
    assert_true(ids.kept == ids.units);
    read_ids_expect(&ids, 1, 13);
    read_ids_free(&ids);
}

// ---- predecessors

// Not walked, killed, with a frame that nobody was told of, or with a part of one.
static void a_start_names_the_true_end_of_the_one_before(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_fill(world, 25);
    for (int way = 0; way < 4; way++) {
        struct spool_stream_info newest = {0};
        snprintf(newest.id, sizeof(newest.id), "%s", spool_stream(world->spool));
        uint64_t end_seq = spool_synced_seq(world->spool);
        if (way == 0)
            world_kill(world);
        else if (way == 1)
            world_close_ok(world);
        else { // the last frame in the file is not whole
            char path[64 + SPOOL_STREAM_ID_MAX];
            snprintf(path, sizeof(path), "/spool/%s/%016llx.seg", newest.id, 1ULL);
            uint64_t at = way == 2 ? 2 * SPOOL_BLOCK : 2 * SPOOL_BLOCK + 512; // header and body, or the body alone
            world_kill(world);
            disk_zero(world->disk, path, at, 3 * SPOOL_BLOCK - at);
            end_seq = 1;
        }
        world_open_ok(world);
        struct spool_stream_info info = world_stream_of(world->spool, 0);
        assert_string_equal(info.predecessor, newest.id);
        assert_int_equal(info.predecessor_seq, end_seq);
        world_settle(world);
        struct spool_stream_info older;
        assert_true(spool_stream_find(world->spool, newest.id, &older));
        assert_int_equal(older.end_seq, end_seq);
        // For the next way: two frames, the second one of a block.
        world_send_ok(world, 1000, 1, 100);
        world_send_ok(world, 1001, 1, 2500);
        assert_int_equal(spool_synced_seq(world->spool), 2);
    }
}

// A frame that was written and never synced is there after a kill, and may be gone after a power loss: once it is named
// in a header it must stay.
static void the_end_that_a_start_names_outlives_a_power_loss(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_send_ok(world, 0, 1, 100);
    fault_set(&world->fault, FAULT_FDATASYNC, 1, EIO, false);
    struct sent *sent = sent_new(world->spool, 1, 1, 100, "main");
    assert_true(world_send(world, sent));
    assert_int_equal(sent->batch.outcome, SPOOL_FAILED);
    sent_free(sent);
    struct sl_error err;
    assert_false(spool_close(world->spool, &err)); // it writes nothing: its frame is in the cache
    world->spool = NULL;
    world_open_ok(world);
    struct spool_stream_info info = world_stream_of(world->spool, 0), older;
    assert_int_equal(info.predecessor_seq, 2);
    struct disk *after = disk_crash(world->disk, DISK_KEEP_NOTHING, 0);
    world_free(world);
    world_init(world, after);
    world_open_ok(world);
    world_settle(world);
    assert_true(spool_stream_find(world->spool, info.predecessor, &older));
    assert_int_equal(older.end_seq, 2);
}

static void a_stream_without_records_is_nobodys_predecessor(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_send_ok(world, 0, 3, 100);
    char first[SPOOL_STREAM_ID_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    world_kill(world);
    world_open_ok(world); // one of a start
    world_next_ok(world); // one of a change
    world_next_ok(world);
    assert_string_equal(world_stream_of(world->spool, 2).predecessor, first);
    assert_int_equal(world_stream_of(world->spool, 2).predecessor_seq, 3);
    world_kill(world);
    world_open_ok(world);
    assert_string_equal(world_stream_of(world->spool, 0).predecessor, first);
    assert_int_equal(world_stream_of(world->spool, 0).predecessor_seq, 3);
    world_settle(world);
    world_advance(world, SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(spool_streams(world->spool, NULL, 0), 2); // and they are gone
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_next_stream_begins_at_one_and_names_the_one_before),
        TEST(batches_that_wait_are_written_once),
        TEST(lanes_stay_as_they_are),
        TEST(many_streams_one_after_the_other),
        TEST(readers_of_the_old_stream_come_to_its_end),
        TEST(a_reader_whose_stream_ends_and_is_deleted_does_not_wait_for_ever),
        TEST(large_frames_in_memory_are_those_of_their_stream),
        TEST(an_ended_stream_is_deleted_when_all_of_it_is_produced),
        TEST(a_sum_that_does_not_agree_is_told_of_an_ended_stream_too),
        TEST(ids_of_an_ended_stream_are_there_at_once),
        TEST(a_start_names_the_true_end_of_the_one_before),
        TEST(the_end_that_a_start_names_outlives_a_power_loss),
        TEST(a_stream_without_records_is_nobodys_predecessor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
