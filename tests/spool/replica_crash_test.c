// A crash at every call that changes the disk while copies grow, get a lane, are trimmed, begin anew, and marks are
// put; and what a disk may then hold (disk.h). On every such image the next start must find: each store that was told
// SYNCED, unless it was trimmed; nothing that was not submitted; no base that nobody gave; all between base and end,
// with its ids; the marks of before or behind the call; no damage. Then the copy grows on behind what was found, the
// machine dies again, and the same holds.
#include "tests/spool/copies.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STREAMS = 2, STORES = 16, IMAGES = 4, GENERATIONS = 3 };

static const char *const streams[STREAMS] = {COPY_STREAM, "gw-c1.3-00000001"};

struct life {
    struct {
        uint64_t submitted, synced; // last seqs
        uint64_t base;              // the highest that was given
    } copies[STREAMS];
    uint64_t guard, guard_asked; // of the first stream
};

static bool put(struct world *world, struct life *life, unsigned copy, uint64_t first_seq, uint32_t count,
                size_t payload_bytes, bool lane)
{
    struct stored *stored = stored_new(world, streams[copy], first_seq, count, payload_bytes);
    struct spool_head *head = &stored->store.head;
    stored->store.new_base = first_seq > life->copies[copy].submitted + 1;
    if (lane)
        memcpy(head->lanes[head->lane_count++], "bulk", 5);
    if (stored->store.new_base)
        life->copies[copy].base = first_seq;
    bool taken = spool_store(world->spool, &stored->store);
    if (taken)
        life->copies[copy].submitted = first_seq + count - 1;
    for (int turn = 0; turn < 50 && taken && stored->told == 0; turn++)
        if (!spool_step_replica(world->spool))
            spool_step_keeper(world->spool);
    if (taken && stored->told == 0) { // no segment can be made any more: the machine is gone
        struct sl_error err;
        (void)!spool_close(world->spool, &err);
        world->spool = NULL;
    }
    bool synced = taken && stored->store.outcome == SPOOL_SYNCED && stored->told == 1;
    if (synced)
        life->copies[copy].synced = life->copies[copy].submitted;
    stored_free(stored);
    return synced;
}

static void live(struct world *world, struct life *life)
{
    struct sl_error err;
    *life = (struct life){.copies = {{.base = 1}, {.base = 1}}};
    if (!world_open(world, &err))
        return;
    for (unsigned i = 0; i < STORES; i++) {
        uint64_t next = life->copies[0].submitted + 1;
        bool good = put(world, life, 0, next, 1 + i % 3, i % 3 == 0 ? 200 << 10 : 900, i >= 9);
        if (good && i % 4 == 1) // the second one begins anew, twice
            good = put(world, life, 1, life->copies[1].submitted + (i == 5 || i == 13 ? 50 : 1), 2, 60 << 10, false);
        if (!good)
            return;
        if (i == 6 || i == 12) {
            life->copies[0].base = life->copies[0].synced - 2;
            spool_trim(world->spool, streams[0], life->copies[0].base - 1);
            world_advance(world, 2 * SL_NS_PER_S);
        }
        if (i == 4 || i == 8) {
            life->guard_asked = i;
            if (!spool_put_marks(world->spool, streams[0], &(struct spool_marks){true, i}, &err))
                return;
            life->guard = i;
        }
        for (int step = 0; step < 12; step++)
            spool_step_keeper(world->spool);
    }
}

static void check_copy(struct world *world, const struct life *life, unsigned copy, uint64_t *end_seq)
{
    struct spool_stream_info info;
    uint64_t synced = life->copies[copy].synced;
    *end_seq = 0;
    if (!world_info(world, streams[copy], &info)) {
        if (synced >= life->copies[copy].base)
            fail_msg("%s is gone", streams[copy]);
        return;
    }
    assert_true(info.scanned);
    assert_int_equal(info.damaged, 0);
    assert_true(info.base_seq <= life->copies[copy].base);
    assert_true(info.end_seq + 1 >= info.base_seq);
    if (info.end_seq < synced)
        fail_msg("%s: %llu was told synced, %llu is there", streams[copy], (unsigned long long)synced,
                 (unsigned long long)info.end_seq);
    assert_true(info.end_seq <= life->copies[copy].submitted);
    *end_seq = info.end_seq;
    struct read_stream read;
    read_all(world->spool, streams[copy], 1, &read);
    assert_int_equal(read.damage_count, 0);
    uint64_t next = info.base_seq;
    for (size_t i = 0; i < read.count; i++) {
        assert_true(read.records[i].good && read.records[i].id + 1 == read.records[i].seq);
        if (read.records[i].seq >= info.base_seq)
            assert_int_equal(read.records[i].seq, next++);
    }
    assert_int_equal(next, info.end_seq + 1);
    read_free(&read);
    struct read_ids ids;
    read_ids(world->spool, streams[copy], info.base_seq - 1, 0, &ids);
    assert_int_equal(ids.damaged, 0);
    if (info.end_seq >= info.base_seq)
        read_ids_expect(&ids, info.base_seq, info.end_seq);
    read_ids_free(&ids);
}

static void check_marks(struct world *world, const struct life *life)
{
    struct spool_marks marks;
    struct sl_error err;
    assert_true(spool_get_marks(world->spool, streams[0], &marks, &err));
    assert_true(marks.guard == life->guard || marks.guard == life->guard_asked);
    assert_int_equal(marks.fenced, marks.guard > 0);
}

// Takes the image.
static void check_image(struct disk *image, struct life life, uint64_t seed)
{
    for (int generation = 0; generation < GENERATIONS; generation++) {
        struct world world;
        world_init(&world, image);
        world_keep_ids(&world);
        world_open_ok(&world);
        world_settle(&world);
        for (unsigned copy = 0; copy < STREAMS; copy++) {
            uint64_t end_seq;
            check_copy(&world, &life, copy, &end_seq);
            life.copies[copy].submitted = end_seq;
            bool synced = put(&world, &life, copy, end_seq + 1, 2, 700, false);
            assert_true(synced);
        }
        check_marks(&world, &life);
        world_settle(&world);
        struct spool_figures figures;
        spool_figures(world.spool, &figures);
        assert_int_equal(figures.damaged_events, 0);
        // One that is not told: torn, or not.
        struct stored *torn = stored_new(&world, streams[0], life.copies[0].submitted + 1, 3, 3000);
        disk_stop_after(world.disk, 2);
        assert_true(spool_store(world.spool, &torn->store));
        spool_step_replica(world.spool);
        life.copies[0].submitted += 3;
        image = disk_crash(world.disk, DISK_KEEP_SOME, seed + (uint64_t)generation);
        world_free(&world);
        stored_free(torn);
    }
    disk_free(image);
}

static void every_crash_finds_all_that_was_synced(void **state)
{
    (void)state;
    uint64_t crashes = 0, images = 0;
    struct life life;
    for (bool crashed = true; crashed; crashes++) {
        struct world world;
        world_init(&world, disk_new(UINT64_C(256) << 20));
        world_keep_ids(&world);
        disk_stop_after(world.disk, crashes + 1);
        live(&world, &life);
        crashed = disk_changes(world.disk) > crashes;
        static const enum disk_crash kinds[IMAGES] = {DISK_KEEP_NOTHING, DISK_KEEP_ALL, DISK_KEEP_SOME,
                                                      DISK_KEEP_BLOCKS};
        for (unsigned i = 0; i < IMAGES; i++, images++)
            check_image(disk_crash(world.disk, kinds[i], crashes * IMAGES + i), life, crashes * IMAGES + i);
        world_free(&world);
    }
    print_message("           %llu crashes, %llu images\n", (unsigned long long)crashes, (unsigned long long)images);
    assert_true(crashes > 60);
    // The last life was not cut short: the story itself works.
    assert_int_equal(life.copies[0].synced, 31);
    assert_int_equal(life.copies[1].synced, 106);
    assert_int_equal(life.guard, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_crash_finds_all_that_was_synced)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
