// A change of the stream without space, and on a disk that fails: the old stream goes on, or the spool has failed;
// nothing is lost or written twice.
#include "tests/spool/world.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void produced(struct spool *spool, uint32_t incarnation, const char *lane, uint64_t through, uint64_t records)
{
    const char *id = spool_incarnation_id(spool, incarnation);
    spool_note_committed(spool, id, lane, through, records);
    spool_note_verified(spool, id, lane, through);
}

static void without_space_the_old_stream_goes_on(void **state)
{
    struct world *world = *state;
    struct sl_error err;
    for (int budget = 0; budget < 2; budget++) {
        if (budget)
            world->options.max_bytes = 4 << 20;
        world_open_ok(world);
        const char *first = spool_stream(world->spool);
        if (!budget)
            disk_set_capacity(world->disk, disk_used(world->disk) + (16 << 10));
        uint64_t sent = 0;
        for (; spool_admit(world->spool, 100 << 10, SPOOL_PRIORITY_HIGH) == SPOOL_ADMITTED; sent++) {
            world_send_ok(world, sent, 1, 100 << 10);
            world_settle(world);
        }
        assert_true(sent > 0);
        struct spool_figures figures;
        do { // the keeper tries again each second
            world_advance(world, SL_NS_PER_S);
            world_settle(world);
            spool_figures(world->spool, &figures);
        } while (!figures.no_space);
        for (int i = 0; i < 2; i++) {
            assert_false(spool_next_stream(world->spool, &err));
            assert_int_equal(err.code, SL_E_NO_SPACE);
        }
        assert_ptr_equal(spool_stream(world->spool), first);
        assert_int_equal(spool_incarnation(world->spool), 0);
        world_send_ok(world, sent, 1, 100); // the old one is as it was
        world_expect_records(world->spool, first, 0, sent + 1);
        // With space again it works.
        disk_set_capacity(world->disk, UINT64_C(256) << 20);
        produced(world->spool, 0, "main", sent + 1, sent + 1);
        for (int i = 0; i < 4; i++) {
            world_advance(world, SL_NS_PER_S + world->options.retain_ns);
            world_settle(world);
        }
        world_next_ok(world);
        world_send_ok(world, 500, 1, 100);
        assert_string_equal(world_stream_of(world->spool, 1).predecessor, spool_incarnation_id(world->spool, 0));
        world_close_ok(world);
    }
}

static void a_spool_that_failed_or_closes_has_no_next_stream(void **state)
{
    struct world *world = *state;
    struct sl_error err;
    world_open_ok(world);
    world_settle(world);
    fault_set(&world->fault, FAULT_PWRITEV, 1, EIO, true);
    assert_false(spool_next_stream(world->spool, &err)); // the counter cannot be written
    assert_int_equal(err.code, SL_E_IO);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_false(figures.failed);
    struct sent *sent = sent_new(world->spool, 0, 1, 100, "main");
    assert_true(world_send(world, sent));
    assert_int_equal(sent->batch.outcome, SPOOL_FAILED);
    sent_free(sent);
    fault_clear(&world->fault);
    assert_false(spool_next_stream(world->spool, &err));
    assert_int_equal(err.code, SL_E_UNAVAILABLE);
}

// One life around a change in which the n-th call of an operation fails. Returns whether it came to that.
static bool live_with_a_fault(struct world *world, enum fault_op op, uint64_t n, bool forever)
{
    struct sl_error err;
    world_open_ok(world);
    world_settle(world);
    world_send_ok(world, 0, 2, 100);
    struct sent *waits = sent_new(world->spool, 2, 1, 100, "main");
    assert_true(spool_submit(world->spool, &waits->batch));
    fault_set(&world->fault, op, n, EIO, forever);
    bool changed = spool_next_stream(world->spool, &err);
    bool fired = atomic_load(&world->fault.fired);
    fault_clear(&world->fault);
    assert_true(changed || fired);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.failed, world->failures);
    assert_int_equal(!changed && err.code == SL_E_UNAVAILABLE, figures.failed);
    uint32_t incarnation = spool_incarnation(world->spool);
    assert_int_equal(incarnation, changed ? 1 : 0);
    for (int i = 0; i < 20 && waits->told == 0; i++)
        if (!spool_step_writer(world->spool))
            spool_step_keeper(world->spool);
    assert_int_equal(waits->told, 1);
    assert_int_equal(waits->batch.outcome, figures.failed ? SPOOL_FAILED : SPOOL_SYNCED);
    if (!figures.failed) {
        assert_int_equal(waits->batch.incarnation, incarnation);
        assert_int_equal(waits->batch.first_seq, changed ? 1 : 3);
        world_next_ok(world);
        world_send_ok(world, 3, 1, 100);
        assert_int_equal(world_stream_of(world->spool, incarnation + 1).predecessor_seq, changed ? 1 : 3);
    }
    sent_free(waits);
    bool good = !figures.failed;
    // After a power loss everything that was told is there, each once, and in order.
    struct disk *after = disk_crash(world->disk, DISK_KEEP_NOTHING, 0);
    world_free(world);
    world_init(world, after);
    world_open_ok(world);
    world_settle(world);
    struct spool_stream_info infos[16];
    size_t streams = spool_streams(world->spool, infos, 16);
    uint64_t next = 0;
    for (size_t i = 0; i + 1 < streams; i++) {
        struct read_stream read;
        read_all(world->spool, infos[i].id, 1, &read);
        assert_int_equal(read.damage_count, 0);
        assert_int_equal(read.end, SPOOL_READ_END);
        for (size_t k = 0; k < read.count; k++)
            assert_true(read.records[k].id == next++ && read.records[k].good);
        read_free(&read);
    }
    assert_true(next >= (good ? 4 : 2));
    return fired;
}

static void each_call_of_a_change_fails(void **state)
{
    struct world *world = *state;
    static const enum fault_op ops[] = {FAULT_OPEN,     FAULT_PWRITEV, FAULT_FDATASYNC,      FAULT_RENAME,
                                        FAULT_TRUNCATE, FAULT_UNLINK,  FAULT_SYNC_DIRECTORY, FAULT_MKDIR,
                                        FAULT_INFO,     FAULT_PREAD};
    unsigned faults = 0;
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        for (int forever = 0; forever < 2; forever++) {
            bool fired = true;
            for (uint64_t n = 1; fired; n++, faults++) {
                fired = live_with_a_fault(world, ops[i], n, forever);
                world_free(world);
                world_init(world, disk_new(UINT64_C(256) << 20));
            }
        }
    print_message("           %u faults\n", faults);
    assert_true(faults > 30);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        TEST(without_space_the_old_stream_goes_on),
        TEST(a_spool_that_failed_or_closes_has_no_next_stream),
        TEST(each_call_of_a_change_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
