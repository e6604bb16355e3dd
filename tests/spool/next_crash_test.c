// A crash at every call that changes the disk, in a life of several streams: changes with and without batches that
// wait, with a segment ready and without, an empty stream, an ended one that is produced and deleted. On every image
// that a crash may leave the next start must find: each batch that was told SYNCED, in the stream and at the place that
// it was told; every record once, in the order of submission over all streams; each stream naming the one before it
// with its true end; no damage; and a spool that works and goes on with a next stream, too.
#include "tests/spool/world.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCHES_MAX = 40, IMAGES = 6, GENERATIONS = 2, STREAMS_MAX = 16, RECORDS_MAX = 400, LATER_IDS = 5000 };

struct told {
    uint64_t first_id, first_seq;
    uint32_t count, incarnation;
    bool synced;
};

struct life {
    char names[STREAMS_MAX][SPOOL_STREAM_ID_MAX]; // by incarnation, as far as they became known
    struct told batches[BATCHES_MAX];
    struct sent *waiting[BATCHES_MAX]; // index as batches; NULL: told, or never taken
    size_t count;
    uint64_t next_id;
    uint64_t produced_ids; // all below were told to be produced and verified
    bool ended;            // the story was told to its end
};

static void put(struct world *world, struct life *life, uint32_t count, size_t bytes)
{
    if (world->spool == NULL)
        return;
    struct sent *sent = sent_new(world->spool, life->next_id, count, bytes, "main");
    if (!spool_submit(world->spool, &sent->batch)) {
        sent_free(sent);
        return;
    }
    life->batches[life->count] = (struct told){.first_id = life->next_id, .count = count};
    life->waiting[life->count++] = sent;
    life->next_id += count;
}

static void take_told(struct world *world, struct life *life)
{
    for (size_t i = 0; i < life->count; i++) {
        struct sent *sent = life->waiting[i];
        if (sent == NULL || sent->told == 0)
            continue;
        assert_int_equal(sent->told, 1);
        struct told *told = &life->batches[i];
        told->synced = sent->batch.outcome == SPOOL_SYNCED;
        if (told->synced) {
            told->first_seq = sent->batch.first_seq;
            told->incarnation = sent->batch.incarnation;
            snprintf(life->names[told->incarnation], SPOOL_STREAM_ID_MAX, "%s",
                     spool_incarnation_id(world->spool, told->incarnation));
        }
        sent_free(sent);
        life->waiting[i] = NULL;
    }
}

static bool all_told(const struct life *life)
{
    for (size_t i = 0; i < life->count; i++)
        if (life->waiting[i] != NULL && life->waiting[i]->told == 0)
            return false;
    return true;
}

// A few turns; at the crash nothing comes of them.
static void drive(struct world *world, struct life *life)
{
    if (world->spool == NULL)
        return;
    for (int turn = 0; turn < 60 && !all_told(life); turn++)
        if (!spool_step_writer(world->spool))
            spool_step_keeper(world->spool);
    if (!all_told(life)) { // no segment can be made any more: the machine is gone
        struct sl_error err;
        (void)spool_close(world->spool, &err);
        world->spool = NULL;
    }
    take_told(world, life);
}

static void settle_some(struct world *world)
{
    for (int i = 0; i < 8 && world->spool != NULL; i++)
        spool_step_keeper(world->spool);
}

static void change(struct world *world, struct life *life)
{
    struct sl_error err;
    bool changed = world->spool != NULL && spool_next_stream(world->spool, &err);
    if (changed)
        snprintf(life->names[spool_incarnation(world->spool)], SPOOL_STREAM_ID_MAX, "%s", spool_stream(world->spool));
    drive(world, life);
}

static void live(struct world *world, struct life *life)
{
    struct sl_error err;
    memset(life, 0, sizeof(*life));
    if (!world_open(world, &err))
        return;
    put(world, life, 3, 100);
    drive(world, life);
    change(world, life); // without a ready segment
    put(world, life, 2, 100);
    drive(world, life);
    settle_some(world);
    put(world, life, 1, 500 << 10); // over two segments
    put(world, life, 1, 600 << 10);
    drive(world, life);
    settle_some(world);
    put(world, life, 2, 2000); // these wait
    put(world, life, 1, 100);
    change(world, life);
    change(world, life); // at once again
    settle_some(world);
    change(world, life); // an empty one lies between
    put(world, life, 5, 3000);
    drive(world, life);
    if (world->spool != NULL) { // the first stream is produced, and goes
        spool_note_committed(world->spool, life->names[0], "main", 3, 3);
        spool_note_verified(world->spool, life->names[0], "main", 3);
        life->produced_ids = 3;
        world_advance(world, 2 * world->options.retain_ns);
    }
    settle_some(world);
    put(world, life, 1, 100);
    drive(world, life);
    life->ended = world->spool != NULL;
}

// ---- what must be found

struct found {
    uint64_t next_id; // of the next record over all streams; those that nobody was told of may be left out
    uint8_t seen[RECORDS_MAX];
    char stream[RECORDS_MAX][SPOOL_STREAM_ID_MAX];
    uint64_t seq[RECORDS_MAX];
};

static void find_stream(struct spool *spool, const struct spool_stream_info *info, struct found *found)
{
    struct read_stream read;
    read_all(spool, info->id, 1, &read);
    assert_int_equal(read.damage_count, 0);
    assert_int_equal(read.end, SPOOL_READ_END);
    for (size_t i = 0; i < read.count; i++) {
        const struct read_record *record = &read.records[i];
        assert_true(record->good);
        assert_int_equal(record->seq, read.records[0].seq + i);
        if (record->id < found->next_id)
            fail_msg("record %llu comes again, or late, in %s", (unsigned long long)record->id, info->id);
        found->next_id = record->id + 1;
        if (record->id >= LATER_IDS)
            continue;
        assert_true(record->id < RECORDS_MAX);
        found->seen[record->id]++;
        found->seq[record->id] = record->seq;
        memcpy(found->stream[record->id], info->id, SPOOL_STREAM_ID_MAX);
    }
    read_free(&read);
}

static void check_batches(const struct life *life, const struct found *found)
{
    for (size_t i = 0; i < life->count; i++) {
        const struct told *told = &life->batches[i];
        uint8_t seen = found->seen[told->first_id];
        for (uint32_t k = 0; k < told->count; k++) {
            uint64_t id = told->first_id + k;
            assert_int_equal(found->seen[id], seen); // all or nothing
            if (!told->synced || (id < life->produced_ids && seen == 0))
                continue;
            if (seen != 1 || found->seq[id] != told->first_seq + k ||
                strcmp(found->stream[id], life->names[told->incarnation]) != 0)
                fail_msg("record %llu was told synced at %llu of %s", (unsigned long long)id,
                         (unsigned long long)told->first_seq + k, life->names[told->incarnation]);
        }
    }
}

// Each stream with records that is still there is named, with its end, by the next one.
static void check_predecessors(const struct spool_stream_info *infos, size_t count)
{
    const struct spool_stream_info *before = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct spool_stream_info *info = &infos[i];
        if (before != NULL) {
            assert_string_equal(info->predecessor, before->id);
            assert_int_equal(info->predecessor_seq, before->end_seq);
        }
        if (info->end_seq > 0)
            before = info;
    }
}

static void check_image(struct disk *image, const struct life *life)
{
    for (unsigned generation = 0; generation < GENERATIONS; generation++) {
        struct world world;
        world_init(&world, image);
        world_keep_ids(&world);
        world_open_ok(&world);
        struct spool_stream_info infos[STREAMS_MAX];
        for (int walked = 0; walked < 2; walked++) {
            static struct found found;
            memset(&found, 0, sizeof(found));
            size_t count = spool_streams(world.spool, infos, STREAMS_MAX);
            assert_true(count >= 1 && count < STREAMS_MAX && infos[count - 1].current);
            for (size_t i = 0; i + 1 < count; i++)
                find_stream(world.spool, &infos[i], &found);
            check_batches(life, &found);
            world_settle(&world);
        }
        check_predecessors(infos, spool_streams(world.spool, infos, STREAMS_MAX));
        struct spool_figures figures;
        spool_figures(world.spool, &figures);
        assert_int_equal(figures.damaged_events, 0);
        assert_int_equal(figures.conservation_error, 0);
        world_send_ok(&world, LATER_IDS + 10 * generation, 3, 1000);
        struct sl_error err;
        assert_true(spool_next_stream(world.spool, &err));
        world_send_ok(&world, LATER_IDS + 10 * generation + 3, 3, 1000);
        image = disk_crash(world.disk, DISK_KEEP_NOTHING, 0);
        world_free(&world);
    }
    disk_free(image);
}

static void every_crash_around_a_change_finds_all_that_was_synced(void **state)
{
    (void)state;
    uint64_t crashes = 0, images = 0;
    static struct life life;
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
    assert_true(crashes > 100);
    assert_true(life.ended);
    for (size_t i = 0; i < life.count; i++) // the last life was not cut short: the story itself works
        assert_true(life.batches[i].synced);
    assert_int_equal(life.batches[life.count - 1].incarnation, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_crash_around_a_change_finds_all_that_was_synced)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
