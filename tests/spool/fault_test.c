// The n-th call of every storage operation fails, once or for good, while a spool is opened, written, rolled, retained
// and closed. Whatever fails: no crash, no leak of a handle (world_free looks) or of memory (ASan looks), and nothing
// is told SYNCED that a power loss right then takes away.
#include "tests/spool/world.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCHES = 14, PER_BATCH = 2 };

struct run {
    char stream[SPOOL_STREAM_ID_MAX];
    bool opened;
    unsigned synced; // batches, from the first on
    uint64_t verified;
    bool failed_told, refused;
};

// A life of a spool with everything in it. Never assumes that anything works.
static void live(struct world *world, struct run *run)
{
    struct sl_error err;
    memset(run, 0, sizeof(*run));
    run->opened = world_open(world, &err);
    if (!run->opened)
        return;
    snprintf(run->stream, sizeof(run->stream), "%s", spool_stream(world->spool));
    bool failed = false;
    for (unsigned i = 0; i < BATCHES; i++) {
        struct sent *sent = sent_new(world->spool, run->synced * PER_BATCH, PER_BATCH, 100 << 10, "main");
        enum spool_admission admission = spool_admit(world->spool, sent->batch.records.length, SPOOL_PRIORITY_HIGH);
        if (admission == SPOOL_FULL) {
            run->refused = true; // what would not find room is not let in
        } else if (!world_send(world, sent)) {
            assert_int_equal(admission, SPOOL_DEAD);
            failed = true;
        } else if (sent->batch.outcome == SPOOL_SYNCED) {
            assert_false(failed); // a failed stream stays failed
            assert_int_equal(sent->batch.first_seq, run->synced * PER_BATCH + 1);
            run->synced++;
        } else {
            failed = true;
        }
        sent_free(sent);
        if (i == BATCHES / 2 && !failed) {
            uint64_t through = run->synced * PER_BATCH;
            spool_note_committed(world->spool, run->stream, "main", through, through);
            spool_note_verified(world->spool, run->stream, "main", through);
            run->verified = through;
            world_advance(world, 2 * world->options.retain_ns); // what is produced goes
        }
        for (int step = 0; step < 20; step++)
            spool_step_keeper(world->spool);
    }
    assert_int_equal(spool_synced_seq(world->spool), run->synced * PER_BATCH);
    bool noted = spool_put_note(world->spool, run->stream, "guard", "x", 1, &err);
    bool declared = spool_declare_lane(world->spool, "bulk", &err);
    if (!atomic_load(&world->fault.fired))
        assert_true(noted && declared);
    failed |= world->failures > 0;
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    if (failed)
        assert_true(figures.failed);
    run->failed_told = world->failures > 0;
    assert_int_equal(figures.failed, run->failed_told); // on_failed came once, or not at all
    assert_true(world->failures <= 1);
}

static void close_it(struct world *world)
{
    struct sl_error err;
    if (world->spool != NULL)
        (void)spool_close(world->spool, &err);
    world->spool = NULL;
}

// Opens the disk in a new world; every batch that was told SYNCED and is not deleted as verified must be there.
static void check_after(struct disk *disk, const struct run *run)
{
    struct world world;
    world_init(&world, disk);
    world_keep_ids(&world);
    world_open_ok(&world);
    world_settle(&world);
    if (run->synced > 0) {
        struct read_stream read;
        read_all(world.spool, run->stream, 1, &read);
        assert_int_equal(read.damage_count, 0);
        uint64_t first = read.count > 0 ? read.records[0].seq : run->verified + 1;
        assert_true(first <= run->verified + 1);
        assert_true(read.count + first - 1 >= run->synced * PER_BATCH);
        for (size_t i = 0; i < read.count; i++) {
            assert_int_equal(read.records[i].seq, first + i);
            assert_int_equal(read.records[i].id, first + i - 1);
            assert_true(read.records[i].good);
        }
        uint64_t read_end = read.count > 0 ? read.records[read.count - 1].seq : run->verified;
        read_free(&read);
        // No fault costs ids: a file that cannot be written keeps its segment.
        struct read_ids ids;
        read_ids(world.spool, run->stream, 0, 0, &ids);
        read_ids_expect(&ids, 1, read_end);
        read_ids_free(&ids);
    }
    world_free(&world);
}

// An older stream is there already, so that discovery and walks are under way, too.
static struct disk *disk_with_history(void)
{
    struct world world;
    world_init(&world, disk_new(UINT64_C(256) << 20));
    world_keep_ids(&world);
    world_open_ok(&world);
    for (uint64_t id = 0; id < 8; id++)
        world_send_ok(&world, id, 1, 300 << 10);
    struct disk *after = disk_crash(world.disk, DISK_KEEP_ALL, 0);
    world_free(&world);
    return after;
}

static unsigned fail_each_call(enum fault_op op, int error, bool forever)
{
    struct disk *history = disk_with_history();
    unsigned n = 1;
    for (bool fired = true; fired; n++) {
        struct world world;
        struct run run;
        world_init(&world, disk_crash(history, DISK_KEEP_ALL, 0));
        world_keep_ids(&world);
        fault_set(&world.fault, op, n, error, forever);
        live(&world, &run);
        struct disk *power_loss = disk_crash(world.disk, DISK_KEEP_NOTHING, 0);
        close_it(&world);
        fired = atomic_load(&world.fault.fired);
        fault_clear(&world.fault);
        check_after(power_loss, &run);
        check_after(disk_crash(world.disk, DISK_KEEP_SOME, n), &run);
        if (!fired) {
            assert_int_equal(run.synced, BATCHES);
            assert_false(run.refused);
        }
        world_free(&world);
    }
    disk_free(history);
    return n - 1;
}

static void each_call_fails_once_and_for_good(void **state)
{
    const enum fault_op op = *(const enum fault_op *)*state;
    unsigned once = fail_each_call(op, EIO, false);
    unsigned forever = fail_each_call(op, EIO, true);
    print_message("           %s: %u and %u calls\n", fault_op_names[op], once, forever);
    assert_true(once > 0 && forever > 0);
}

static void no_space_anywhere_but_in_the_preparer_fails_the_stream(void **state)
{
    (void)state;
    fail_each_call(FAULT_PWRITEV, ENOSPC, true);
    fail_each_call(FAULT_FDATASYNC, ENOSPC, false); // delayed allocation of a strange filesystem
    fail_each_call(FAULT_ALLOCATE, ENOSPC, false);
}

static void all_were_told(void *user, const struct sl_error *err)
{
    struct sent **sent = user;
    for (; *sent != NULL; sent++) {
        assert_int_equal((*sent)->told, 1);
        assert_int_equal((*sent)->batch.outcome, SPOOL_FAILED);
    }
    assert_int_equal(err->code, SL_E_SYNC);
    assert_int_equal(err->sys_errno, EIO);
}

// The sync that fails is the last call: a retry could report success for pages that are lost.
static void a_failed_sync_is_never_retried(void **state)
{
    (void)state;
    struct world world;
    world_init(&world, disk_new(UINT64_C(256) << 20));
    struct sent *sent[4] = {NULL}; // the last two do not fit into the frame of the first one
    world.options.on_failed = all_were_told;
    world.options.user = sent;
    world_open_ok(&world);
    world_settle(&world);
    world_send_ok(&world, 0, 1, 100);
    fault_set(&world.fault, FAULT_FDATASYNC, 1, EIO, false);
    for (unsigned i = 0; i < 3; i++) {
        sent[i] = sent_new(world.spool, 1 + i, 1, 500 << 10, "main");
        assert_true(spool_submit(world.spool, &sent[i]->batch));
    }
    uint64_t writes = atomic_load(&world.fault.calls[FAULT_PWRITEV]);
    while (spool_step_writer(world.spool)) {
    }
    assert_int_equal(atomic_load(&world.fault.calls[FAULT_PWRITEV]), writes + 1);
    assert_int_equal(atomic_load(&world.fault.calls[FAULT_FDATASYNC]), 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(sent[i]->told, 1);
        assert_int_equal(sent[i]->batch.outcome, SPOOL_FAILED);
    }
    assert_int_equal(spool_admit(world.spool, 1, SPOOL_PRIORITY_HIGH), SPOOL_DEAD);
    assert_false(spool_submit(world.spool, &sent[0]->batch));
    assert_int_equal(sent[0]->told, 1); // not again
    struct sl_error err;
    assert_false(spool_close(world.spool, &err)); // and the close writes nothing, no seal either
    world.spool = NULL;
    assert_int_equal(atomic_load(&world.fault.calls[FAULT_PWRITEV]), writes + 1);
    for (unsigned i = 0; i < 3; i++)
        sent_free(sent[i]);
    world_free(&world);
}

int main(void)
{
    static const enum fault_op ops[] = {
        FAULT_OPEN,   FAULT_PREAD,    FAULT_PWRITEV, FAULT_FDATASYNC,      FAULT_ALLOCATE,
        FAULT_RENAME, FAULT_TRUNCATE, FAULT_UNLINK,  FAULT_SYNC_DIRECTORY, FAULT_MKDIR,
        FAULT_INFO,   FAULT_LIST,     FAULT_LOCK};
    enum { OPS = sizeof(ops) / sizeof(ops[0]) };
    struct CMUnitTest tests[OPS + 2];
    for (size_t i = 0; i < OPS; i++) {
        tests[i] = (struct CMUnitTest)cmocka_unit_test(each_call_fails_once_and_for_good);
        tests[i].name = fault_op_names[ops[i]];
        tests[i].initial_state = (void *)(uintptr_t)&ops[i];
    }
    tests[OPS] = (struct CMUnitTest)cmocka_unit_test(no_space_anywhere_but_in_the_preparer_fails_the_stream);
    tests[OPS + 1] = (struct CMUnitTest)cmocka_unit_test(a_failed_sync_is_never_retried);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
