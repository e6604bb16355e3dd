// Copies of another node's stream: growing, beginning anew, being trimmed, restarts in between; and marks.
#include "tests/spool/copies.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct spool_stream_info info_of(struct world *world, const char *stream)
{
    struct spool_stream_info info;
    assert_true(world_info(world, stream, &info));
    return info;
}

static void expect_held(struct world *world, const char *stream, uint64_t base, uint64_t end)
{
    struct spool_stream_info info = info_of(world, stream);
    assert_true(info.scanned);
    assert_int_equal(info.base_seq, base);
    assert_int_equal(info.end_seq, end);
    assert_int_equal(info.damaged, 0);
}

static size_t segments_of(struct world *world, const char *stream)
{
    struct spool_ids_unit *units;
    size_t count, found = 0;
    struct sl_error err;
    assert_true(spool_ids_list(world->spool, &units, &count, &err));
    for (size_t i = 0; i < count; i++)
        found += strcmp(units[i].stream, stream) == 0 && !units[i].kept;
    free(units);
    return found;
}

static void a_copy_grows_across_restarts(void **state)
{
    struct world *world = *state;
    world_keep_ids(world);
    world_open_ok(world);
    uint64_t end = 0;
    for (unsigned life = 0; life < 4; life++) {
        for (unsigned i = 0; i < 5; i++, end += 3)
            world_store_ok(world, COPY_STREAM, end + 1, 3, 90 << 10); // segments are rolled
        expect_held(world, COPY_STREAM, 1, end);
        world_expect_range(world, COPY_STREAM, 1, end);
        if (life % 2 == 0)
            world_kill(world);
        else
            world_close_ok(world);
        world_open_ok(world);
        if (life == 1) // waits for the walk
            world_store_ok(world, COPY_STREAM, ++end, 1, 1000);
        world_settle(world); // walked
        expect_held(world, COPY_STREAM, 1, end);
        world_expect_range(world, COPY_STREAM, 1, end);
        struct read_ids ids;
        read_ids(world->spool, COPY_STREAM, 0, 0, &ids);
        read_ids_expect(&ids, 1, end);
        assert_int_equal(ids.damaged, 0);
        read_ids_free(&ids);
    }
    struct spool_stream_info info = info_of(world, COPY_STREAM);
    assert_false(info.own);
    assert_false(info.current);
    assert_int_equal(info.counter, 7);
    assert_int_equal(info.lane_count, 1);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.copies_events, end);
    assert_true(figures.copies_bytes > end * (90 << 10));
    assert_int_equal(figures.pending_events, 0); // nothing of this node
    assert_int_equal(figures.conservation_error, 0);
    assert_int_equal(figures.damaged_events, 0);
}

static void what_waits_goes_into_one_frame(void **state)
{
    struct world *world = *state;
    enum { STORES = 6 };
    struct stored *stored[2][STORES];
    static const char *const streams[2] = {COPY_STREAM, "gw-c1.3-00000001"};
    world_open_ok(world);
    for (unsigned i = 0; i < STORES; i++)
        for (unsigned k = 0; k < 2; k++) {
            stored[k][i] = stored_new(world, streams[k], 1 + 2 * (uint64_t)i, 2, 100);
            assert_true(spool_store(world->spool, &stored[k][i]->store));
        }
    for (unsigned k = 0; k < 2; k++) {
        assert_true(world_step_store(world, stored[k][STORES - 1]));
        for (unsigned i = 0; i < STORES; i++) {
            assert_int_equal(stored[k][i]->told, 1);
            assert_int_equal(stored[k][i]->store.outcome, SPOOL_SYNCED);
            stored_free(stored[k][i]);
        }
        struct spool_reader *reader;
        struct spool_frame *frame;
        struct spool_damage damage;
        struct sl_error err;
        assert_true(spool_reader_open(&reader, world->spool, streams[k], 1, &err));
        assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
        assert_int_equal(frame->header.count, 2 * STORES);
        spool_frame_release(frame);
        assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_WAIT); // it may grow
        spool_reader_close(reader);
        world_expect_range(world, streams[k], 1, 2 * STORES);
    }
}

static void what_is_here_already_is_passed_over(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_store_ok(world, COPY_STREAM, 1, 10, 100);
    world_store_ok(world, COPY_STREAM, 3, 4, 100);
    expect_held(world, COPY_STREAM, 1, 10);
    world_store_ok(world, COPY_STREAM, 6, 10, 100); // 11 to 15 are new
    expect_held(world, COPY_STREAM, 1, 15);
    world_store_base_ok(world, COPY_STREAM, 1, 16, 100); // its submitter does not know of them: nothing is lost by that
    expect_held(world, COPY_STREAM, 1, 16);
    world_expect_range(world, COPY_STREAM, 1, 16);
}

static void a_new_lane_begins_a_segment(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    world_store_ok(world, COPY_STREAM, 1, 2, 100);
    struct stored *stored = stored_new(world, COPY_STREAM, 3, 2, 100);
    struct spool_head *head = &stored->store.head;
    snprintf(head->lanes[head->lane_count++], sizeof(head->lanes[0]), "bulk");
    snprintf(head->predecessor, sizeof(head->predecessor), "gw-b1.6-89abcdef");
    head->predecessor_seq = 77;
    assert_true(spool_store(world->spool, &stored->store) && world_step_store(world, stored));
    assert_int_equal(stored->store.outcome, SPOOL_SYNCED);
    stored_free(stored);
    assert_int_equal(segments_of(world, COPY_STREAM), 2);
    world_store_ok(world, COPY_STREAM, 5, 2, 100); // an older head: nothing new
    assert_int_equal(segments_of(world, COPY_STREAM), 2);
    for (unsigned life = 0; life < 2; life++) {
        struct spool_stream_info info = info_of(world, COPY_STREAM);
        assert_int_equal(info.lane_count, 2);
        assert_string_equal(info.lanes[1], "bulk");
        assert_string_equal(info.predecessor, "gw-b1.6-89abcdef");
        assert_int_equal(info.predecessor_seq, 77);
        world_kill(world);
        world_open_ok(world);
        world_settle(world);
    }
    world_expect_range(world, COPY_STREAM, 1, 6);
}

static void a_copy_begins_anew_behind_a_gap(void **state)
{
    struct world *world = *state;
    world_keep_ids(world);
    world_open_ok(world);
    world_store_base_ok(world, COPY_STREAM, 41, 10, 1000); // nothing was here
    expect_held(world, COPY_STREAM, 41, 50);
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, COPY_STREAM, 41, &err));
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    spool_frame_release(frame);
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_WAIT);
    world_store_base_ok(world, COPY_STREAM, 101, 5, 1000);
    expect_held(world, COPY_STREAM, 101, 105);
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    assert_int_equal(frame->header.first_seq, 101);
    spool_frame_release(frame);
    spool_reader_close(reader);
    world_kill(world);
    world_open_ok(world);
    world_settle(world);
    expect_held(world, COPY_STREAM, 101, 105);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(segments_of(world, COPY_STREAM), 1); // what was before is deleted
    assert_true(spool_reader_open(&reader, world->spool, COPY_STREAM, 1, &err));
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME);
    spool_frame_release(frame);
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_END);
    world_store_base_ok(world, COPY_STREAM, 201, 5, 1000); // over what an earlier process left
    assert_int_equal(spool_reader_next(reader, 0, &frame, &damage, &err), SPOOL_READ_FRAME); // and goes on, after all
    assert_int_equal(frame->header.first_seq, 201);
    spool_frame_release(frame);
    spool_reader_close(reader);
    world_expect_range(world, COPY_STREAM, 201, 205);
    struct read_ids ids;
    read_ids(world->spool, COPY_STREAM, 200, 0, &ids);
    read_ids_expect(&ids, 201, 205);
    read_ids_free(&ids);
}

// The base lies inside a segment, before and behind a restart.
static void a_trimmed_copy(void **state)
{
    struct world *world = *state;
    world_keep_ids(world);
    world_open_ok(world);
    for (uint64_t seq = 1; seq <= 40; seq++)
        world_store_ok(world, COPY_STREAM, seq, 1, 100 << 10);
    size_t before = segments_of(world, COPY_STREAM);
    assert_true(before >= 4);
    spool_trim(world->spool, COPY_STREAM, 25);
    expect_held(world, COPY_STREAM, 26, 40);
    spool_trim(world->spool, COPY_STREAM, 20); // never back
    expect_held(world, COPY_STREAM, 26, 40);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    size_t after = segments_of(world, COPY_STREAM);
    assert_true(after < before && after >= 2);
    for (unsigned life = 0; life < 2; life++) {
        struct read_stream read;
        read_all(world->spool, COPY_STREAM, 26, &read);
        assert_int_equal(read.damage_count, 0);
        assert_int_equal(read.records[read.count - 1].seq, 40);
        assert_int_equal(read.records[0].seq, 26);
        read_free(&read);
        read_all(world->spool, COPY_STREAM, 1, &read); // what is still there of its first segment, too
        assert_int_equal(read.damage_count, 0);
        assert_true(read.records[0].seq <= 26);
        read_free(&read);
        world_kill(world);
        world_open_ok(world);
        world_settle(world);
        expect_held(world, COPY_STREAM, 26, 40);
    }
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.copies_events, 15);
    struct read_ids ids; // of what was trimmed, too
    read_ids(world->spool, COPY_STREAM, 0, 0, &ids);
    read_ids_expect(&ids, 1, 40);
    read_ids_free(&ids);
}

static void a_copy_with_nothing_left_goes_away(void **state)
{
    struct world *world = *state;
    struct sl_error err;
    world_open_ok(world);
    world_store_ok(world, COPY_STREAM, 1, 10, 1000);
    assert_true(spool_put_marks(world->spool, COPY_STREAM, &(struct spool_marks){.fenced = true}, &err));
    spool_trim(world->spool, COPY_STREAM, 10);
    expect_held(world, COPY_STREAM, 11, 10);
    world_store_ok(world, COPY_STREAM, 11, 1, 1000); // it goes on
    spool_trim(world->spool, COPY_STREAM, UINT64_MAX);
    expect_held(world, COPY_STREAM, 12, 11);
    for (unsigned i = 0; i < 30; i++) {
        world_advance(world, SL_NS_PER_S);
        while (spool_step_replica(world->spool)) {
        }
        world_settle(world);
    }
    expect_held(world, COPY_STREAM, 12, 11); // its node may write on
    world_store_ok(world, "gw-b1.8-0123abcd", 1, 1, 1000);
    for (unsigned i = 0; i < 30; i++) {
        world_advance(world, SL_NS_PER_S);
        while (spool_step_replica(world->spool)) {
        }
        world_settle(world);
    }
    struct spool_stream_info info;
    assert_false(world_info(world, COPY_STREAM, &info)); // its node writes another one
    assert_int_equal(disk_size(world->disk, "/spool/" COPY_STREAM "/progress"), -1);
    world_kill(world);
    world_open_ok(world);
    struct spool_marks marks;
    assert_true(spool_get_marks(world->spool, COPY_STREAM, &marks, &err));
    assert_true(marks.fenced);
    world_settle(world);
    world_store_ok(world, COPY_STREAM, 12, 3, 1000); // a late one
    expect_held(world, COPY_STREAM, 12, 14);
    world_kill(world);
    world_open_ok(world);
    world_settle(world);
    expect_held(world, COPY_STREAM, 12, 14);
    world_expect_range(world, COPY_STREAM, 12, 14);
}

static void marks_outlive_data_and_process(void **state)
{
    struct world *world = *state;
    struct sl_error err;
    struct spool_marks marks = {.fenced = true, .guard = 4711};
    world_open_ok(world);
    assert_int_equal(spool_list_marks(world->spool, NULL, 0), 0);
    assert_false(spool_put_marks(world->spool, "../counter", &marks, &err));
    assert_int_equal(err.code, SL_E_INVALID);
    assert_true(spool_get_marks(world->spool, COPY_STREAM, &marks, &err));
    assert_true(!marks.fenced && marks.guard == 0);
    assert_true(spool_put_marks(world->spool, COPY_STREAM, &(struct spool_marks){true, 4711}, &err));
    assert_true(spool_put_marks(world->spool, "gw-c1.3-00000001", &(struct spool_marks){false, 12}, &err));
    struct disk *after = disk_crash(world->disk, DISK_KEEP_NOTHING, 0); // power loss
    world_kill(world);
    disk_free(world->disk);
    world_init(world, after);
    world_open_ok(world);
    struct spool_marked marked[3];
    assert_int_equal(spool_list_marks(world->spool, marked, 3), 2);
    size_t first = strcmp(marked[0].stream, COPY_STREAM) == 0 ? 0 : 1;
    assert_true(marked[first].marks.fenced && marked[first].marks.guard == 4711);
    assert_true(!marked[1 - first].marks.fenced && marked[1 - first].marks.guard == 12);
    assert_int_equal(spool_list_marks(world->spool, marked, 1), 2);
    // A damaged mark is never taken for none.
    assert_true(disk_flip(world->disk, "/spool/marks/gw-c1.3-00000001", 24, 1));
    assert_false(spool_get_marks(world->spool, "gw-c1.3-00000001", &marks, &err));
    assert_int_equal(err.code, SL_E_CORRUPT);
    assert_int_equal(spool_list_marks(world->spool, marked, 3), 2);
    assert_true(marked[0].marks.fenced && marked[1].marks.fenced);
    assert_true(spool_drop_marks(world->spool, "gw-c1.3-00000001", &err));
    assert_true(spool_drop_marks(world->spool, "gw-c1.3-00000001", &err));
    assert_int_equal(spool_list_marks(world->spool, marked, 3), 1);
}

static void copies_stand_still_before_the_own_stream_does(void **state)
{
    struct world *world = *state;
    world->options.max_bytes = 12 << 20;
    world_open_ok(world);
    world_settle(world);
    uint64_t end = 0;
    struct stored *stuck;
    for (;; end++) {
        stuck = stored_new(world, COPY_STREAM, end + 1, 1, 100 << 10);
        assert_true(spool_store(world->spool, &stuck->store));
        if (!world_step_store(world, stuck))
            break;
        assert_int_equal(stuck->store.outcome, SPOOL_SYNCED);
        stored_free(stuck);
    }
    assert_true(end >= 50);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_true(figures.copies_waiting && !figures.no_space);
    assert_true(figures.bytes <= figures.max_bytes);
    world_send_ok(world, 0, 9, 100 << 10); // the own one goes on, into its next segment
    world_send_ok(world, 9, 9, 100 << 10);
    assert_int_equal(stuck->told, 0);
    spool_trim(world->spool, COPY_STREAM, end / 2);
    assert_true(world_step_store(world, stuck));
    assert_int_equal(stuck->store.outcome, SPOOL_SYNCED);
    stored_free(stuck);
    expect_held(world, COPY_STREAM, end / 2 + 1, end + 1);
    assert_false(spool_step_replica(world->spool));
    spool_figures(world->spool, &figures);
    assert_false(figures.copies_waiting);
    // Closing does not wait for space.
    struct stored *large = stored_new(world, COPY_STREAM, end + 2, 1, 11 << 20);
    assert_true(spool_store(world->spool, &large->store));
    assert_false(world_step_store(world, large));
    world_close_ok(world);
    assert_int_equal(large->told, 1);
    assert_int_equal(large->store.outcome, SPOOL_FAILED);
    stored_free(large);
}

// Whatever call fails: nothing is told that a power loss takes away, and after a failed write or sync nothing is told.
static void a_failing_disk(void **state)
{
    (void)state;
    static const enum fault_op ops[] = {FAULT_PWRITEV, FAULT_FDATASYNC, FAULT_RENAME, FAULT_SYNC_DIRECTORY,
                                        FAULT_MKDIR};
    for (size_t k = 0; k < sizeof(ops) / sizeof(ops[0]); k++)
        for (uint64_t at = 1; at <= 6; at++) {
            struct world world;
            world_init(&world, disk_new(UINT64_C(256) << 20));
            world_open_ok(&world);
            world_send_ok(&world, 0, 1, 100);
            world_settle(&world);
            world_advance(&world, 2 * SL_NS_PER_S);
            world_settle(&world); // from here on the keeper does little
            fault_set(&world.fault, ops[k], atomic_load(&world.fault.calls[ops[k]]) + at, EIO, false);
            uint64_t synced = 20;
            bool failed = false;
            for (unsigned i = 0; i < 4 && !failed; i++) {
                struct stored *stored = stored_new(&world, COPY_STREAM, synced + 1, 1, 400 << 10);
                stored->store.new_base = i == 0;
                failed = !spool_store(world.spool, &stored->store) || !world_step_store(&world, stored) ||
                         stored->store.outcome == SPOOL_FAILED;
                synced += failed ? 0 : 1;
                stored_free(stored);
            }
            struct stored *later = stored_new(&world, COPY_STREAM, synced + 1, 1, 100);
            struct sent *sent = sent_new(world.spool, 1, 1, 100, "main");
            while (spool_step_writer(world.spool)) {
            }
            if (failed) { // the disk is trusted with nothing any more
                assert_int_equal(world.failures, 1);
                assert_false(spool_store(world.spool, &later->store));
                assert_false(spool_submit(world.spool, &sent->batch));
            }
            stored_free(later);
            sent_free(sent);
            struct disk *after = disk_crash(world.disk, DISK_KEEP_NOTHING, 0);
            world_free(&world);
            world_init(&world, after);
            world_open_ok(&world);
            world_settle(&world);
            struct spool_stream_info info;
            if (synced > 20) {
                assert_true(world_info(&world, COPY_STREAM, &info) && info.end_seq >= synced);
                assert_int_equal(info.base_seq, 21);
                world_expect_range(&world, COPY_STREAM, 21, info.end_seq);
            }
            world_free(&world);
        }
}

static void an_own_older_stream_gets_its_tail_back(void **state)
{
    struct world *world = *state;
    char own[SPOOL_STREAM_ID_MAX];
    world_open_ok(world);
    snprintf(own, sizeof(own), "%s", spool_stream(world->spool));
    world_send_ok(world, 0, 10, 1000);
    world_kill(world);
    world_open_ok(world);
    world_settle(world);
    world_store_ok(world, own, 11, 5, 1000);
    expect_held(world, own, 1, 15);
    assert_true(info_of(world, own).own);
    world_expect_range(world, own, 1, 15);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 15);
    spool_trim(world->spool, own, 15); // own streams go by progress
    expect_held(world, own, 1, 15);
    world_kill(world);
    world_open_ok(world);
    world_settle(world);
    world_expect_range(world, own, 1, 15);
    spool_note_committed(world->spool, own, "main", 15, 15);
    spool_note_verified(world->spool, own, "main", 15);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    struct spool_stream_info info;
    assert_false(world_info(world, own, &info));
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 0);
    assert_int_equal(figures.conservation_error, 0);
}

// The disk was replaced, and what peers still had of an older stream begins behind what Kafka had by then: how much of
// that was this lane's is not known here, now or after a restart. Nothing of it is pending.
static void an_own_older_stream_begins_anew_on_a_new_disk(void **state)
{
    struct world *world = *state;
    static const char older[] = "gw-a1.3-0123abcd";
    struct spool_figures figures;
    world->options.counter_min = 5;
    world_open_ok(world);
    world_store_base_ok(world, older, 101, 14, 1000);
    assert_true(info_of(world, older).own);
    spool_note_committed(world->spool, older, "main", 114, 14);
    spool_note_verified(world->spool, older, "main", 114);
    for (int start = 0; start < 2; start++) {
        world_advance(world, 2 * SL_NS_PER_S); // the keeper writes what was verified
        world_settle(world);
        spool_figures(world->spool, &figures);
        assert_int_equal(figures.pending_events, 0);
        assert_int_equal(figures.conservation_error, 0);
        world_kill(world);
        world_open_ok(world);
    }
}

// ---- with threads

struct following {
    struct world *world;
    uint64_t last;
};

static void *follow(void *arg)
{
    struct following *following = arg;
    struct spool_reader *reader;
    struct sl_error err;
    uint64_t seq = 0;
    if (!spool_reader_open(&reader, following->world->spool, COPY_STREAM, 1, &err))
        sl_panic(__FILE__, __LINE__, err.text);
    while (seq < following->last) {
        struct spool_frame *frame;
        struct spool_damage damage;
        enum spool_read read = spool_reader_next(reader, 10 * SL_NS_PER_S, &frame, &damage, &err);
        if (read == SPOOL_READ_WAIT)
            continue;
        sl_assert(read == SPOOL_READ_FRAME && frame->header.first_seq == seq + 1);
        seq += frame->header.count;
        spool_frame_release(frame);
    }
    spool_reader_close(reader);
    return NULL;
}

static _Atomic unsigned told_count;

static void count_told(struct spool_store *store)
{
    sl_assert(store->outcome == SPOOL_SYNCED);
    atomic_fetch_add(&told_count, 1);
}

// The own stream is written, the copy grows and is trimmed, a reader follows it, all at once.
static void a_reader_follows_a_growing_copy(void **state)
{
    struct world *world = *state;
    enum { STORES = 60, BODY = 60 << 10 };
    world->options.manual = false;
    world->options.environment = NULL;
    world_open_ok(world);
    struct stored *stored[STORES];
    for (unsigned i = 0; i < STORES; i++) {
        stored[i] = stored_new(world, COPY_STREAM, i + 1, 1, BODY);
        stored[i]->store.done = count_told;
    }
    atomic_store(&told_count, 0);
    assert_true(spool_store(world->spool, &stored[0]->store));
    while (atomic_load(&told_count) == 0)
        sched_yield();
    struct following following = {.world = world, .last = STORES};
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, follow, &following), 0);
    for (unsigned i = 1; i < STORES; i++) {
        assert_true(spool_store(world->spool, &stored[i]->store));
        if (i % 20 == 0) {
            while (atomic_load(&told_count) < i)
                sched_yield();
            struct sl_error err;
            assert_true(spool_put_marks(world->spool, COPY_STREAM, &(struct spool_marks){false, i}, &err));
        }
    }
    pthread_join(reader, NULL);
    spool_trim(world->spool, COPY_STREAM, STORES / 2);
    world_close_ok(world);
    assert_int_equal(atomic_load(&told_count), STORES);
    for (unsigned i = 0; i < STORES; i++)
        stored_free(stored[i]);
    world_open_ok(world);
    struct spool_stream_info info;
    do
        info = info_of(world, COPY_STREAM);
    while (!info.scanned && sched_yield() == 0);
    expect_held(world, COPY_STREAM, STORES / 2 + 1, STORES);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        STORY(a_copy_grows_across_restarts),
        STORY(what_waits_goes_into_one_frame),
        STORY(what_is_here_already_is_passed_over),
        STORY(a_new_lane_begins_a_segment),
        STORY(a_copy_begins_anew_behind_a_gap),
        STORY(a_trimmed_copy),
        STORY(a_copy_with_nothing_left_goes_away),
        STORY(marks_outlive_data_and_process),
        STORY(copies_stand_still_before_the_own_stream_does),
        cmocka_unit_test(a_failing_disk),
        STORY(an_own_older_stream_gets_its_tail_back),
        STORY(an_own_older_stream_begins_anew_on_a_new_disk),
        STORY(a_reader_follows_a_growing_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
