// The spool as its users see it, without threads, over a disk in memory.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int make(void **state)
{
    struct world *world = malloc(sizeof(*world));
    world_init(world, disk_new(UINT64_C(256) << 20));
    *state = world;
    return 0;
}

static int unmake(void **state)
{
    world_free(*state);
    free(*state);
    return 0;
}

static void close_ok(struct world *world)
{
    struct sl_error err;
    assert_true(spool_close(world->spool, &err));
    world->spool = NULL;
}

// The process dies: what was written survives (kill -9), locks and memory do not.
static void kill_it(struct world *world)
{
    struct disk *after = disk_crash(world->disk, DISK_KEEP_ALL, 0);
    disk_stop_after(world->disk, 1);
    struct sl_error err;
    spool_close(world->spool, &err);
    world->spool = NULL;
    disk_free(world->disk);
    struct spool_options options = world->options;
    int64_t wall_ns = world->wall_ns, monotonic_ns = world->monotonic_ns;
    uint64_t chance = world->chance;
    world_init(world, after);
    world->wall_ns = wall_ns;
    world->monotonic_ns = monotonic_ns;
    world->chance = chance;
    options.storage = &world->storage;
    options.environment = &world->environment;
    world->options = options;
}

static struct spool_stream_info stream_at(struct spool *spool, size_t index)
{
    struct spool_stream_info infos[16];
    size_t count = spool_streams(spool, infos, 16);
    assert_true(index < count && count <= 16);
    return infos[index];
}

// Records of the stream are numbered first_id.. from seq 1 on, complete and in order.
static void expect_records(struct spool *spool, const char *stream, uint64_t first_id, size_t count)
{
    struct read_stream read;
    read_all(spool, stream, 1, &read);
    assert_int_equal(read.count, count);
    assert_int_equal(read.damage_count, 0);
    for (size_t i = 0; i < count; i++) {
        assert_true(read.records[i].good);
        assert_int_equal(read.records[i].seq, i + 1);
        assert_int_equal(read.records[i].id, first_id + i);
    }
    read_free(&read);
}

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
    expect_records(world->spool, spool_stream(world->spool), 100, 4);
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
    expect_records(world->spool, spool_stream(world->spool), 0, 10);
}

static void a_frame_stops_growing_at_four_mebibytes(void **state)
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
    assert_int_equal(told, 5); // 5 × 800 KiB ≤ 4 MiB < 6 × 800 KiB
    while (spool_step_writer(world->spool)) {
    }
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(sent[i]->told, 1);
        sent_free(sent[i]);
    }
    expect_records(world->spool, spool_stream(world->spool), 0, 12);
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
    expect_records(world->spool, spool_stream(world->spool), 0, 120);
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
    expect_records(world->spool, spool_stream(world->spool), 0, 7);
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
        snprintf(first, sizeof(first), "%s", stream_at(world->spool, 0).id);
        for (uint64_t seq = 1; seq <= 200; seq++) {
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
            kill_it(world);
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
    close_ok(world);
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
    close_ok(world);

    world_open_ok(world);
    struct spool_stream_info older = stream_at(world->spool, 0), current = stream_at(world->spool, 1);
    assert_string_equal(older.id, first);
    assert_false(older.current);
    assert_false(older.scanned); // opening does not walk
    assert_int_equal(older.lane_count, 1);
    assert_string_equal(older.lanes[0], "main");
    assert_true(current.current);
    assert_int_equal(current.counter, 2);
    assert_string_equal(current.predecessor, first);
    expect_records(world->spool, first, 0, 4);
    struct read_stream read;
    read_all(world->spool, first, 1, &read);
    assert_int_equal(read.end, SPOOL_READ_END);
    read_free(&read);
    world_settle(world);
    older = stream_at(world->spool, 0);
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
            expect_records(world->spool, stream_at(world->spool, older).id, 0, 10 + older);
        kill_it(world);
    }
    world_open_ok(world);
    world_settle(world);
    assert_int_equal(stream_at(world->spool, 6).counter, 7);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(stream_at(world->spool, i).end_seq, 10 + i);
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
    kill_it(world);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(disk_size(world->disk, path), round == 0 ? 8 << 20 : 3 * SPOOL_BLOCK);
        world_open_ok(world);
        world_settle(world);
        expect_records(world->spool, first, 0, 1);
        assert_int_equal(stream_at(world->spool, 0).damaged, 0);
        kill_it(world);
    }
}

static void prepared_segments_are_used_by_the_next_start(void **state)
{
    struct world *world = *state;
    world->options.prepared = 3;
    world_open_ok(world);
    world_settle(world);
    kill_it(world);
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
        kill_it(world);
    }
    disk_remove(world->disk, "/spool/counter");
    world_open_ok(world);
    assert_int_equal(stream_at(world->spool, 3).counter, 4);
}

static void a_torn_tail_is_set_aside_and_the_rest_given(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    char first[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    snprintf(path, sizeof(path), "/spool/%s/0000000000000001.seg", first);
    for (uint64_t id = 0; id < 3; id++)
        world_send_ok(world, id, 1, 5000);
    kill_it(world);
    disk_zero(world->disk, path, SPOOL_BLOCK + 2 * 8192 + 1024, 512);
    world_open_ok(world);
    world_settle(world);
    expect_records(world->spool, first, 0, 2);
    assert_int_equal(stream_at(world->spool, 0).end_seq, 2);
    assert_int_equal(stream_at(world->spool, 0).damaged, 0);
    strcat(path, ".broken");
    assert_in_range(disk_size(world->disk, path), 5000, 8192);
}

static void damage_is_recorded_reported_and_kept(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    char first[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    snprintf(path, sizeof(path), "/spool/%s/0000000000000001.seg", first);
    for (uint64_t id = 0; id < 5; id++)
        world_send_ok(world, id, 2, 1000);
    kill_it(world);
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
    kill_it(world);
    world_open_ok(world);
    assert_int_equal(stream_at(world->spool, 0).damaged, 2); // known before anything was read
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    assert_true(disk_size(world->disk, path) > 0);
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
    kill_it(world);
    world->options.lane_count = 1;
    world_open_ok(world);
    assert_int_equal(stream_at(world->spool, 0).lane_count, 2);
    assert_string_equal(stream_at(world->spool, 0).lanes[1], "bulk");
    assert_int_equal(stream_at(world->spool, 1).lane_count, 1);
}

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
    world_send_ok(world, id, 1, 20 << 10);
    expect_records(world->spool, spool_stream(world->spool), 0, id + 1);
}

static void the_budget_is_kept_and_produced_events_go_first(void **state)
{
    struct world *world = *state;
    world->options.max_bytes = 8 << 20;
    world_open_ok(world);
    world_settle(world);
    uint64_t id = 0;
    bool throttled_low = false, throttled_normal = false;
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
    assert_true(throttled_low && throttled_normal);
    assert_true(id > 100);
    expect_records(world->spool, spool_stream(world->spool), 0, id); // nothing unproduced was deleted
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
    disk_set_capacity(world->disk, 700 << 10);
    world_open_ok(world);
    world_send_ok(world, 0, 1, 1000);
    expect_records(world->spool, spool_stream(world->spool), 0, 1);
    close_ok(world);
    disk_set_capacity(world->disk, disk_used(world->disk));
    struct sl_error err;
    assert_false(world_open(world, &err));
    assert_int_equal(err.code, SL_E_NO_SPACE);
}

// ---- retention

static void fill_segments(struct world *world, uint64_t count)
{
    for (uint64_t id = 0; id < count; id++) {
        world_send_ok(world, id, 1, 100 << 10);
        world_settle(world);
    }
}

static void only_verified_and_old_segments_are_deleted(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    const char *stream = spool_stream(world->spool);
    fill_segments(world, 50);
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
    fill_segments(world, 30);
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
    fill_segments(world, 20);
    assert_true(world_send(world, bulk)); // seq 21
    fill_segments(world, 20);
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
    fill_segments(world, 30);
    struct sl_error err;
    assert_true(spool_put_note(world->spool, first, "guard", "x", 1, &err));
    kill_it(world);
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
        kill_it(world);
    }
    world_open_ok(world);
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(spool_streams(world->spool, NULL, 0), 1);
}

// ---- progress

static void progress_survives_a_restart(void **state)
{
    struct world *world = *state;
    world->options.lanes = two_lanes;
    world->options.lane_count = 2;
    world_open_ok(world);
    char first[SPOOL_STREAM_ID_MAX];
    snprintf(first, sizeof(first), "%s", spool_stream(world->spool));
    fill_segments(world, 10);
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
    kill_it(world);
    world_open_ok(world);
    struct spool_stream_info info = stream_at(world->spool, 0);
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
    fill_segments(world, 10);
    spool_note_verified(world->spool, stream, "main", 7);
    assert_int_equal(stream_at(world->spool, 0).verified[0], 0);
    spool_note_committed(world->spool, stream, "main", 5, 5);
    assert_int_equal(stream_at(world->spool, 0).verified[0], 5);
    spool_note_committed(world->spool, stream, "main", 9, 4);
    assert_int_equal(stream_at(world->spool, 0).verified[0], 7);
    spool_note_verified(world->spool, stream, "main", 3);
    assert_int_equal(stream_at(world->spool, 0).verified[0], 7);
}

static void a_record_too_few_is_seen_in_the_sum(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    fill_segments(world, 10);
    spool_note_committed(world->spool, spool_stream(world->spool), "main", 10, 9);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.conservation_error, 1);
}

static void pending_is_known_before_and_after_the_walk(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    fill_segments(world, 25);
    struct spool_figures before, after;
    spool_figures(world->spool, &before);
    assert_int_equal(before.pending_events, 25);
    assert_true(before.oldest_pending_wall_ns > 0);
    kill_it(world);
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
    kill_it(world);
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
    kill_it(world);
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
#define STORY(name) cmocka_unit_test_setup_teardown(name, make, unmake)
    const struct CMUnitTest tests[] = {
        STORY(what_is_synced_can_be_read_at_once),
        STORY(batches_that_wait_share_a_frame_in_order),
        STORY(a_frame_stops_growing_at_four_mebibytes),
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
        STORY(a_torn_tail_is_set_aside_and_the_rest_given),
        STORY(damage_is_recorded_reported_and_kept),
        STORY(damage_in_the_current_stream_does_not_end_it),
        STORY(an_unreadable_sector_becomes_damage),
        STORY(lanes_are_in_the_headers),
        STORY(no_space_refuses_before_a_batch_is_caught),
        STORY(the_budget_is_kept_and_produced_events_go_first),
        STORY(too_much_in_flight_is_busy),
        STORY(a_start_with_little_space_uses_a_small_segment),
        STORY(only_verified_and_old_segments_are_deleted),
        STORY(young_segments_stay),
        STORY(the_slowest_lane_holds_its_segments),
        STORY(an_older_stream_goes_with_its_directory),
        STORY(a_stream_without_a_record_goes_at_once),
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
