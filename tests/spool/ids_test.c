// Ids of older streams: from ids frames, from records, from what is kept of deleted segments; damage, release, space.
#include "spool/internal.h"
#include "tests/spool/world.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RECORDS = 6000, PER_BATCH = 60 }; // with 300 bytes of payload: three segments, several ids frames in each

static int setup(void **state)
{
    int rc = world_setup(state);
    world_keep_ids(*state);
    return rc;
}

static void fill(struct world *world)
{
    world_open_ok(world);
    for (uint64_t id = 0; id < RECORDS; id += PER_BATCH) {
        world_send_ok(world, id, PER_BATCH, 300);
        world_settle(world);
    }
}

// A stream with RECORDS records, closed or killed; the world goes on in another one.
static void make_stream(struct world *world, bool close, char stream[SPOOL_STREAM_ID_MAX])
{
    fill(world);
    snprintf(stream, SPOOL_STREAM_ID_MAX, "%s", spool_stream(world->spool));
    if (close)
        world_close_ok(world);
    else
        world_kill(world);
    world_keep_ids(world);
    world_open_ok(world);
}

static void expect(struct world *world, const char *stream, uint64_t after_seq, struct read_ids *ids)
{
    read_ids(world->spool, stream, after_seq, 0, ids);
    read_ids_expect(ids, after_seq + 1, RECORDS);
}

static void ids_of_a_closed_stream_come_from_their_frames(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, true, stream);
    for (int walked = 0; walked < 2; walked++) {
        struct read_ids ids;
        expect(world, stream, 0, &ids);
        assert_true(ids.units >= 3);
        assert_int_equal(ids.from_records + ids.kept + ids.damaged + ids.other_key, 0);
        assert_true(ids.bytes < RECORDS * 40); // of more than 400 a record
        read_ids_free(&ids);
        world_settle(world);
    }
}

static void ids_behind_any_seq(void **state)
{
    struct world *world = *state;
    for (int close = 0; close < 2; close++) {
        char stream[SPOOL_STREAM_ID_MAX];
        make_stream(world, close, stream);
        for (uint64_t after = 0; after <= RECORDS; after += after % 1000 < 30 ? 1 : 61) {
            struct read_ids ids;
            expect(world, stream, after, &ids);
            read_ids_free(&ids);
        }
        world_kill(world);
        world_keep_ids(world);
    }
}

// No seal: the last segment's records are read, all others' ids.
static void ids_of_a_killed_stream(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, false, stream);
    struct read_ids ids;
    expect(world, stream, 0, &ids);
    assert_int_equal(ids.from_records, 1);
    assert_int_equal(ids.damaged, 0);
    read_ids_free(&ids);
}

static bool stop_at_once(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    (void)unit;
    (void)block;
    ++*(unsigned *)user;
    return false;
}

static void a_reader_can_stop(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, false, stream);
    struct spool_ids_unit *units;
    struct spool_ids_result result;
    struct sl_error err;
    size_t count;
    assert_true(spool_ids_list(world->spool, &units, &count, &err));
    for (size_t i = 0; i < count; i++) {
        unsigned calls = 0;
        assert_true(spool_ids_read(world->spool, &units[i], 0, stop_at_once, &calls, &result, &err));
        assert_true(result.stopped);
        assert_int_equal(calls, 1);
    }
    free(units);
}

static void ids_under_another_key_are_not_given(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, true, stream);
    for (int none = 0; none < 2; none++) {
        world_close_ok(world);
        memset(world->options.ids_key_id, none ? 0 : 9, sizeof(world->options.ids_key_id));
        world_open_ok(world);
        struct read_ids ids;
        read_ids(world->spool, stream, 0, 0, &ids);
        assert_int_equal(ids.count, 0);
        assert_int_equal(ids.other_key, ids.units);
        read_ids_free(&ids);
    }
}

static void without_a_key_there_are_no_ids_frames(void **state)
{
    struct world *world = *state;
    memset(world->options.ids_key_id, 0, sizeof(world->options.ids_key_id));
    world_open_ok(world);
    world_send_ok(world, 0, 500, 10);
    struct stream_log *log = &world->spool->writer.log;
    assert_int_equal(log->offset, SPOOL_BLOCK + frame_size((uint32_t)(log->offset - SPOOL_BLOCK - SPOOL_BLOCK)));
    assert_int_equal(log->last_ids_offset, 0);
    assert_int_equal(log->ids.count, 0);
    assert_int_equal(stream_log_ids_bytes(log, 1000), 0);
}

// ---- damage

struct frame_place {
    uint64_t offset;
    uint32_t body_length;
};

static size_t find_frames(struct world *world, const char *path, enum frame_kind kind, struct frame_place *out,
                          size_t capacity)
{
    const struct storage *storage = &world->storage;
    int handle = storage->ops->open(storage->context, path, STORAGE_READ);
    assert_true(handle >= 0);
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header;
    size_t count = 0;
    for (uint64_t at = SPOOL_BLOCK;
         storage->ops->pread(storage->context, handle, bytes, sizeof(bytes), at) == (ssize_t)sizeof(bytes) &&
         frame_header_decode(&header, bytes) == FRAME_HEADER_OK;
         at += frame_size(header.body_length))
        if (header.kind == kind && count < capacity)
            out[count++] = (struct frame_place){at, header.body_length};
    storage->ops->close(storage->context, handle);
    return count;
}

// Whatever is damaged of ids frames and seal: all ids are given, from the records where need be, and no record is lost.
static void damaged_ids_are_taken_from_the_records(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    make_stream(world, true, stream);
    snprintf(path, sizeof(path), "/spool/%s/0000000000000001.seg", stream);
    struct frame_place places[32], seal;
    size_t count = find_frames(world, path, FRAME_IDS, places, 32);
    assert_true(count > 8);
    assert_int_equal(find_frames(world, path, FRAME_SEAL, &seal, 1), 1);
    for (size_t i = 0; i <= count; i += i == 1 ? count - 3 : 1)
        for (unsigned where = 0; where < 3; where++) {
            struct frame_place place = i < count ? places[i] : seal;
            uint64_t at = place.offset + (where == 0 ? 50 : where == 1 ? FRAME_HEADER_BYTES + 3 : 0);
            if (where == 2)
                at = place.offset + FRAME_HEADER_BYTES + place.body_length - 1;
            assert_true(disk_flip(world->disk, path, at, 1));
            struct read_ids ids;
            expect(world, stream, 0, &ids);
            assert_int_equal(ids.from_records, 1);
            assert_int_equal(ids.damaged, 1);
            read_ids_free(&ids);
            assert_true(disk_flip(world->disk, path, at, 1));
        }
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    world_expect_records(world->spool, stream, 0, RECORDS);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.damaged_events, 0);
    struct stream *inside = stream_find(world->spool, stream);
    assert_true(inside->damage_count > 0);
    for (size_t i = 0; i < inside->damage_count; i++) {
        assert_string_equal(inside->damages[i].verdict, "lost-seal");
        assert_true(inside->damages[i].last_seq < inside->damages[i].first_seq);
    }
}

static void a_lost_header_block_costs_no_ids(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    make_stream(world, true, stream);
    snprintf(path, sizeof(path), "/spool/%s/0000000000000001.seg", stream);
    assert_true(disk_flip(world->disk, path, 40, 1));
    struct read_ids ids;
    expect(world, stream, 0, &ids);
    assert_int_equal(ids.from_records, 0);
    read_ids_free(&ids);
}

// Not cut behind its seal: a crash between the two. Its records are read; nothing is wrong.
static void a_file_that_goes_on_behind_its_seal(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    fault_set(&world->fault, FAULT_TRUNCATE, 1, EIO, true);
    make_stream(world, true, stream);
    struct read_ids ids;
    expect(world, stream, 0, &ids);
    assert_int_equal(ids.from_records, ids.units);
    assert_int_equal(ids.damaged, 0);
    read_ids_free(&ids);
}

static void an_unreadable_disk_is_an_error(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, true, stream);
    struct spool_ids_unit *units;
    size_t count;
    struct sl_error err;
    unsigned calls = 0;
    struct spool_ids_result result;
    assert_true(spool_ids_list(world->spool, &units, &count, &err));
    fault_set(&world->fault, FAULT_OPEN, 1, EIO, true);
    assert_false(spool_ids_read(world->spool, &units[0], 0, stop_at_once, &calls, &result, &err));
    assert_int_equal(err.code, SL_E_IO);
    assert_int_equal(calls, 0);
    fault_clear(&world->fault);
    free(units);
}

// ---- what is kept of deleted segments

static void produced(struct world *world, const char *stream, uint64_t through)
{
    spool_note_committed(world->spool, stream, "main", through, through);
    spool_note_verified(world->spool, stream, "main", through);
    world_settle(world);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
}

static size_t count_units(struct world *world)
{
    struct spool_ids_unit *units;
    size_t count;
    struct sl_error err;
    assert_true(spool_ids_list(world->spool, &units, &count, &err));
    free(units);
    return count;
}

static void ids_outlive_their_segments(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX], dir[SPOOL_PATH_MAX];
    make_stream(world, false, stream); // the last segment's ids come from its records
    struct spool_figures before, after;
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world); // segments and ballast are there
    spool_figures(world->spool, &before);
    produced(world, stream, RECORDS);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(spool_streams(world->spool, NULL, 0), 1 + (size_t)again); // nothing is left to drain in it
        struct read_ids ids;
        expect(world, stream, 0, &ids);
        assert_int_equal(ids.kept, ids.units);
        assert_true(ids.units >= 3);
        read_ids_free(&ids);
        expect(world, stream, RECORDS / 2 + 7, &ids);
        read_ids_free(&ids);
        spool_figures(world->spool, &after);
        assert_int_equal(after.pending_events, again); // the one below
        assert_int_equal(after.conservation_error, 0);
        if (again == 0) {
            uint64_t freed = before.bytes - after.bytes; // the records' bytes, about; ids are counted
            assert_in_range(freed, (uint64_t)RECORDS * 400, (uint64_t)RECORDS * 450);
            world_send_ok(world, 1, 1, 10);
            world_kill(world);
            world_keep_ids(world);
            world_open_ok(world);
            world_settle(world);
        }
    }
    // The window passes: they go, and the stream's directory with them.
    snprintf(dir, sizeof(dir), "/spool/%s", stream);
    assert_true(disk_size(world->disk, dir) >= 0);
    world_advance(world, world->options.ids_window_ns);
    world_settle(world);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(disk_size(world->disk, dir), -1);
}

static void what_a_snapshot_covers_goes_with_its_segment(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, true, stream);
    spool_ids_release(world->spool, "gw-a1.99-00000000", 1); // nobody's
    produced(world, stream, RECORDS / 2);                    // some segments go
    size_t units = count_units(world);
    struct read_ids ids;
    expect(world, stream, 0, &ids);
    assert_true(ids.kept > 0 && ids.kept < ids.units);
    uint64_t middle = ids.count;
    read_ids_free(&ids);
    assert_int_equal(middle, RECORDS);
    spool_ids_release(world->spool, stream, RECORDS / 4);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    read_ids(world->spool, stream, 0, 0, &ids);
    assert_true(ids.count > 0 && ids.seqs[0] <= RECORDS / 4 + 1); // none is gone that is not released
    assert_int_equal(ids.seqs[ids.count - 1], RECORDS);
    read_ids_free(&ids);
    spool_ids_release(world->spool, stream, RECORDS);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_true(count_units(world) < units);
    produced(world, stream, RECORDS);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(count_units(world), 0);
    assert_int_equal(spool_streams(world->spool, NULL, 0), 1);
}

// The stream that is being written: what is deleted of it today is asked for after the next start.
static void ids_of_the_current_streams_deleted_segments(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    fill(world);
    snprintf(stream, sizeof(stream), "%s", spool_stream(world->spool));
    produced(world, stream, RECORDS);
    world_kill(world);
    world_keep_ids(world);
    world_open_ok(world);
    struct read_ids ids;
    expect(world, stream, 0, &ids);
    assert_true(ids.kept >= 2);
    assert_int_equal(ids.from_records, 1);
    read_ids_free(&ids);
}

static void no_window_keeps_nothing(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, true, stream);
    world_close_ok(world);
    world->options.ids_window_ns = 0;
    world_open_ok(world);
    world_settle(world);
    produced(world, stream, RECORDS);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    assert_int_equal(count_units(world), 0);
}

static void a_damaged_ids_file_is_said_and_the_rest_given(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX], path[SPOOL_PATH_MAX];
    make_stream(world, true, stream);
    produced(world, stream, RECORDS);
    snprintf(path, sizeof(path), "/spool/%s/0000000000000001.ids", stream);
    struct frame_place place;
    assert_int_equal(find_frames(world, path, FRAME_IDS, &place, 1), 1);
    for (int seal = 0; seal < 2; seal++) {
        assert_true(disk_flip(world->disk, path,
                              seal ? (uint64_t)disk_size(world->disk, path) - SPOOL_BLOCK + 50 : place.offset + 1000,
                              1));
        struct read_ids ids;
        read_ids(world->spool, stream, 0, 0, &ids);
        assert_int_equal(ids.damaged, 1);
        assert_true(ids.count > RECORDS / 2 && ids.count < RECORDS);
        assert_int_equal(ids.seqs[ids.count - 1], RECORDS);
        read_ids_free(&ids);
    }
}

// A .ids file that cannot be written keeps its segment, until space is needed.
static void a_failed_write_keeps_the_segment(void **state)
{
    struct world *world = *state;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, true, stream);
    world_settle(world);
    spool_note_committed(world->spool, stream, "main", RECORDS, RECORDS);
    spool_note_verified(world->spool, stream, "main", RECORDS);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    fault_set(&world->fault, FAULT_PWRITEV, 3, EIO, true);
    world_advance(world, 2 * world->options.retain_ns);
    world_settle(world);
    fault_clear(&world->fault);
    struct read_ids ids;
    expect(world, stream, 0, &ids);
    assert_int_equal(ids.kept, 0);
    read_ids_free(&ids);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    expect(world, stream, 0, &ids);
    assert_int_equal(ids.kept, ids.units);
    read_ids_free(&ids);
}

// ---- space

// The last room is the records': where their ids do not fit, they are left out.
static void without_space_records_go_before_ids(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    char stream[SPOOL_STREAM_ID_MAX];
    snprintf(stream, sizeof(stream), "%s", spool_stream(world->spool));
    world_settle(world);
    disk_set_capacity(world->disk, disk_used(world->disk) + (64 << 10)); // small files only
    uint64_t id = 0;
    struct sent *sent;
    for (;; id += 200) { // more than would be admitted, until the writer stands still
        sent = sent_new(world->spool, id, 200, 10, "main");
        assert_true(spool_submit(world->spool, &sent->batch));
        for (int turn = 0; turn < 10 && sent->told == 0; turn++)
            if (!spool_step_writer(world->spool))
                world_settle(world);
        if (sent->told == 0)
            break;
        assert_int_equal(sent->batch.outcome, SPOOL_SYNCED);
        sent_free(sent);
        assert_true(id < 100000);
    }
    assert_true(id > 5000);
    // Not even a batch of this size fits any more.
    assert_true(stream_log_room(&world->spool->writer.log) < sent->batch.records.length);
    disk_set_capacity(world->disk, UINT64_C(256) << 20);
    world_advance(world, 2 * SL_NS_PER_S);
    world_settle(world);
    while (spool_step_writer(world->spool)) {
    }
    assert_int_equal(sent->told, 1);
    sent_free(sent);
    id += 200;
    world_send_ok(world, id, 20000, 10);
    id += 20000;
    assert_false(world->spool->writer.log.ids_given_up); // the next segments have them again
    world_close_ok(world);
    world_open_ok(world);
    struct read_ids ids;
    read_ids(world->spool, stream, 0, 0, &ids);
    read_ids_expect(&ids, 1, id);
    assert_true(ids.from_records > 0 && ids.from_records < ids.units);
    read_ids_free(&ids);
}

// With space, every segment keeps room for its ids: also one batch that is larger than a segment with them.
static void a_batch_that_needs_a_segment_of_its_own(void **state)
{
    struct world *world = *state;
    world->options.max_bytes = 200 << 20;
    world_open_ok(world);
    char stream[SPOOL_STREAM_ID_MAX];
    snprintf(stream, sizeof(stream), "%s", spool_stream(world->spool));
    world_settle(world);
    uint64_t id = 0;
    const uint32_t counts[] = {10, 7000, 1, 9000, 40000, 3, 9000};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); id += counts[i++])
        world_send_ok(world, id, counts[i], 10);
    world_close_ok(world);
    world_open_ok(world);
    struct read_ids ids;
    read_ids(world->spool, stream, 0, 0, &ids);
    read_ids_expect(&ids, 1, id);
    assert_int_equal(ids.from_records, 0);
    read_ids_free(&ids);
    world_expect_records(world->spool, stream, 0, id);
}

// Ids are let go before events are refused.
static void kept_ids_go_when_space_is_needed(void **state)
{
    struct world *world = *state;
    world->options.max_bytes = 8 << 20;
    char stream[SPOOL_STREAM_ID_MAX];
    make_stream(world, true, stream);
    produced(world, stream, RECORDS);
    struct spool_figures figures;
    assert_true(count_units(world) >= 3);
    uint64_t id = 0;
    while (spool_admit(world->spool, 50 << 10, SPOOL_PRIORITY_HIGH) == SPOOL_ADMITTED) {
        world_send_ok(world, id++, 1, 50 << 10);
        world_settle(world);
        spool_figures(world->spool, &figures);
        assert_true(figures.bytes <= world->options.max_bytes);
        assert_true(id < 1000);
    }
    assert_int_equal(count_units(world), 0);
    world_expect_records(world->spool, spool_stream(world->spool), 0, id);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)
    const struct CMUnitTest tests[] = {
        STORY(ids_of_a_closed_stream_come_from_their_frames),
        STORY(ids_behind_any_seq),
        STORY(ids_of_a_killed_stream),
        STORY(a_reader_can_stop),
        STORY(ids_under_another_key_are_not_given),
        STORY(without_a_key_there_are_no_ids_frames),
        STORY(damaged_ids_are_taken_from_the_records),
        STORY(a_lost_header_block_costs_no_ids),
        STORY(a_file_that_goes_on_behind_its_seal),
        STORY(an_unreadable_disk_is_an_error),
        STORY(ids_outlive_their_segments),
        STORY(what_a_snapshot_covers_goes_with_its_segment),
        STORY(ids_of_the_current_streams_deleted_segments),
        STORY(no_window_keeps_nothing),
        STORY(a_damaged_ids_file_is_said_and_the_rest_given),
        STORY(a_failed_write_keeps_the_segment),
        STORY(without_space_records_go_before_ids),
        STORY(a_batch_that_needs_a_segment_of_its_own),
        STORY(kept_ids_go_when_space_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
