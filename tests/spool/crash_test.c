// A crash at every call that changes the disk, and what a disk may then hold: nothing of what was not synced, all of
// it, or any part of it, sector by sector and directory entry by directory entry. On every such image the next start
// must find: each batch that was told SYNCED, whole and at its place; nothing that was not submitted; of every other
// batch all or nothing; the ids of all of them, deleted or not, that nobody released; no damage, because a crash
// damages nothing; and a spool that works.
#include "tests/spool/world.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCHES = 12, IMAGES = 6, GENERATIONS = 2, TWO = 2 };

struct life {
    char stream[SPOOL_STREAM_ID_MAX];
    uint32_t counts[BATCHES * TWO]; // records of each batch, in the order of submission
    bool synced[BATCHES * TWO];
    size_t submitted;
    uint64_t verified;
    uint64_t released; // of ids
};

static struct sent *submit(struct world *world, struct life *life, uint64_t *id, uint32_t count, size_t bytes)
{
    struct sent *sent = sent_new(world->spool, *id, count, bytes, "main");
    if (!spool_submit(world->spool, &sent->batch)) {
        sent_free(sent);
        return NULL;
    }
    *id += count;
    life->counts[life->submitted++] = count;
    return sent;
}

static void settle_some(struct world *world)
{
    for (int i = 0; i < 12; i++)
        spool_step_keeper(world->spool);
}

// Two batches a frame, segments that are rolled, progress, deletions, a note, a new lane. Stops being able to do
// anything at the crash.
static void live(struct world *world, struct life *life)
{
    struct sl_error err;
    memset(life, 0, sizeof(*life));
    if (!world_open(world, &err))
        return;
    snprintf(life->stream, sizeof(life->stream), "%s", spool_stream(world->spool));
    uint64_t id = 0;
    for (unsigned i = 0; i < BATCHES; i++) {
        struct sent *sent[TWO];
        for (unsigned k = 0; k < TWO; k++)
            sent[k] = i % 5 == 3 ? submit(world, life, &id, 220, 400) // full ids frames come between data
                                 : submit(world, life, &id, 1 + (i + k) % 3, i % 4 == 0 ? 600 : 60 << 10);
        for (int turn = 0; turn < 50 && sent[1] != NULL && sent[1]->told == 0; turn++)
            if (!spool_step_writer(world->spool))
                spool_step_keeper(world->spool);
        if (sent[1] != NULL && sent[1]->told == 0) { // no segment can be made any more: the machine is gone
            (void)spool_close(world->spool, &err);
            world->spool = NULL;
        }
        for (unsigned k = 0; k < TWO; k++) {
            if (sent[k] == NULL)
                continue;
            life->synced[i * TWO + k] = sent[k]->batch.outcome == SPOOL_SYNCED && sent[k]->told == 1;
            sent_free(sent[k]);
        }
        if (sent[1] == NULL || world->spool == NULL)
            break;
        if (i == 5) {
            uint64_t through = spool_synced_seq(world->spool);
            spool_note_committed(world->spool, life->stream, "main", through, through);
            spool_note_verified(world->spool, life->stream, "main", through);
            life->verified = through;
            world_advance(world, 2 * world->options.retain_ns);
        }
        if (i == 7) {
            spool_ids_release(world->spool, life->stream, life->verified);
            life->released = life->verified;
            world_advance(world, 2 * SL_NS_PER_S);
        }
        if (i == 8) {
            bool noted = spool_put_note(world->spool, life->stream, "guard", "abc", 3, &err);
            bool declared = noted && spool_declare_lane(world->spool, "bulk", &err);
            (void)declared;
        }
        settle_some(world);
    }
}

static bool batch_of(const struct life *life, uint64_t seq, uint64_t *first, uint32_t *count, bool *synced)
{
    uint64_t at = 1;
    for (size_t i = 0; i < life->submitted; i++) {
        if (seq < at + life->counts[i]) {
            *first = at;
            *count = life->counts[i];
            *synced = life->synced[i];
            return true;
        }
        at += life->counts[i];
    }
    return false;
}

// The ids of everything up to end_seq that was not released, once and in order.
static void check_ids(struct spool *spool, const struct life *life, uint64_t end_seq)
{
    struct read_ids ids;
    read_ids(spool, life->stream, 0, 0, &ids);
    assert_int_equal(ids.damaged, 0);
    uint64_t first = ids.count > 0 ? ids.seqs[0] : end_seq + 1;
    if (first > life->released + 1)
        fail_msg("the id of seq %llu is missing", (unsigned long long)first - 1);
    read_ids_expect(&ids, first, end_seq);
    read_ids_free(&ids);
}

static void check_stream(struct spool *spool, const struct life *life)
{
    struct read_stream read;
    read_all(spool, life->stream, 1, &read);
    assert_int_equal(read.damage_count, 0);
    if (read.count > 0)
        check_ids(spool, life, read.records[read.count - 1].seq);
    uint64_t first = read.count > 0 ? read.records[0].seq : 1, next = first;
    for (size_t i = 0; i < read.count; i++) {
        assert_int_equal(read.records[i].seq, next++); // in order, without a gap
        assert_int_equal(read.records[i].id, read.records[i].seq - 1);
        assert_true(read.records[i].good);
    }
    read_free(&read);
    if (first > life->verified + 1)
        fail_msg("seq %llu is missing; verified is %llu", (unsigned long long)first - 1,
                 (unsigned long long)life->verified);
    uint64_t batch_first = 0, at = 1;
    uint32_t count = 0;
    bool synced;
    if (next > 1) { // the last one is whole
        assert_true(batch_of(life, next - 1, &batch_first, &count, &synced));
        assert_int_equal(batch_first + count, next);
    }
    for (size_t i = 0; i < life->submitted; at += life->counts[i++])
        if (life->synced[i] && at + life->counts[i] > next && at > life->verified)
            fail_msg("batch at seq %llu was told synced and is gone", (unsigned long long)at);
}

static bool holds(struct spool *spool, const char *stream)
{
    struct spool_stream_info infos[8];
    size_t count = spool_streams(spool, infos, 8);
    for (size_t i = 0; i < count && i < 8; i++)
        if (strcmp(infos[i].id, stream) == 0)
            return true;
    return false;
}

// Starts on the image, checks, writes a little, and crashes again: what was found once is found again.
static void check_image(struct disk *image, const struct life *life)
{
    for (int generation = 0; generation < GENERATIONS; generation++) {
        struct world world;
        world_init(&world, image);
        world_keep_ids(&world);
        world_open_ok(&world);
        for (int walked = 0; walked < 2; walked++) {
            bool there = life->stream[0] != '\0' && holds(world.spool, life->stream);
            if (there)
                check_stream(world.spool, life);
            for (size_t i = 0; i < life->submitted && !there; i++)
                assert_false(life->synced[i]);
            world_settle(&world);
        }
        struct spool_figures figures;
        spool_figures(world.spool, &figures);
        assert_int_equal(figures.damaged_events, 0);
        assert_int_equal(figures.conservation_error, 0);
        world_send_ok(&world, 5000, 3, 1000);
        image = disk_crash(world.disk, DISK_KEEP_NOTHING, 0);
        world_free(&world);
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
        static const enum disk_crash kinds[IMAGES] = {DISK_KEEP_NOTHING, DISK_KEEP_ALL,    DISK_KEEP_SOME,
                                                      DISK_KEEP_SOME,    DISK_KEEP_BLOCKS, DISK_KEEP_BLOCKS};
        for (int i = 0; i < IMAGES; i++, images++)
            check_image(disk_crash(world.disk, kinds[i], crashes * IMAGES + (uint64_t)i), &life);
        world_free(&world);
    }
    print_message("           %llu crashes, %llu images\n", (unsigned long long)crashes, (unsigned long long)images);
    assert_true(crashes > 60);
    for (size_t i = 0; i < life.submitted; i++) // the last life was not cut short: the story itself works
        assert_true(life.synced[i]);
    assert_int_equal(life.submitted, BATCHES * TWO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_crash_finds_all_that_was_synced)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
