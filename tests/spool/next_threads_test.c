// Changes of the stream while everybody else is at work: submitters, a drainer that goes from stream to stream, lanes
// being declared, several threads that ask for a change at once, a disk that fails. Built with the sanitizers, too.
#include "tests/spool/world.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SUBMITTERS = 4, BATCHES = 200, RECORDS = 3, ID_STEP = 1000000, CHANGERS = 2, CHANGES = 10 };

struct scene {
    struct world world; // first: on_failed takes it
    // writer thread only
    uint32_t synced_incarnation, framed_incarnation;
    uint64_t synced_through, framed_through;
};

static void on_frame(void *user, struct spool_frame *frame)
{
    struct scene *scene = user;
    bool same = frame->incarnation == scene->framed_incarnation;
    sl_assert(same || frame->incarnation > scene->framed_incarnation);
    sl_assert(frame->header.first_seq == (same ? scene->framed_through + 1 : 1));
    scene->framed_incarnation = frame->incarnation;
    scene->framed_through = frame->header.first_seq + frame->header.count - 1;
}

static void on_synced(void *user, uint32_t incarnation, uint64_t through)
{
    struct scene *scene = user;
    sl_assert(incarnation == scene->framed_incarnation && through == scene->framed_through);
    sl_assert(incarnation > scene->synced_incarnation || through > scene->synced_through);
    scene->synced_incarnation = incarnation;
    scene->synced_through = through;
}

static int make(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    sl_assert(scene != NULL);
    struct world *world = &scene->world;
    world_init(world, disk_new(UINT64_C(512) << 20));
    world->options.manual = false;
    world->options.environment = NULL;
    world->options.prepared = 2;
    world->options.on_frame = on_frame;
    world->options.on_synced = on_synced;
    *state = scene;
    return 0;
}

static int unmake(void **state)
{
    struct scene *scene = *state;
    world_free(&scene->world);
    free(scene);
    return 0;
}

// ---- submitters: one batch in flight each

struct slot {
    struct spool_batch batch; // first
    pthread_mutex_t mutex;
    pthread_cond_t told;
    bool is_told;
};

struct submitter {
    struct spool *spool;
    uint64_t first_id;
    unsigned synced, failed; // batches
    bool refused;
    uint32_t incarnation; // of the last synced one
    uint64_t last_seq;
    pthread_t thread;
};

static void slot_done(struct spool_batch *batch)
{
    struct slot *slot = (struct slot *)(void *)batch;
    pthread_mutex_lock(&slot->mutex);
    sl_assert(!slot->is_told);
    slot->is_told = true;
    pthread_cond_signal(&slot->told);
    pthread_mutex_unlock(&slot->mutex);
}

static void count_answer(struct submitter *submitter, const struct spool_batch *batch)
{
    if (batch->outcome != SPOOL_SYNCED) {
        submitter->failed++;
        return;
    }
    sl_assert(submitter->failed == 0 && batch->incarnation <= spool_incarnation(submitter->spool));
    sl_assert(batch->incarnation > submitter->incarnation ||
              (batch->incarnation == submitter->incarnation && batch->first_seq > submitter->last_seq));
    sl_assert(spool_incarnation_id(submitter->spool, batch->incarnation) != NULL);
    submitter->incarnation = batch->incarnation;
    submitter->last_seq = batch->first_seq + RECORDS - 1;
    submitter->synced++;
}

static void *submit_all(void *argument)
{
    struct submitter *submitter = argument;
    for (unsigned i = 0; i < BATCHES && !submitter->refused; i++) {
        struct sent *sent = sent_new(submitter->spool, submitter->first_id + i * RECORDS, RECORDS, 2000, "main");
        struct slot slot = {.batch = sent->batch, .mutex = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER};
        slot.batch.done = slot_done;
        submitter->refused = !spool_submit(submitter->spool, &slot.batch);
        pthread_mutex_lock(&slot.mutex);
        while (!slot.is_told && !submitter->refused)
            pthread_cond_wait(&slot.told, &slot.mutex);
        pthread_mutex_unlock(&slot.mutex);
        if (!submitter->refused)
            count_answer(submitter, &slot.batch);
        sent_free(sent);
    }
    return NULL;
}

static void start_submitters(struct spool *spool, struct submitter *submitters)
{
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){.spool = spool, .first_id = (uint64_t)i * ID_STEP};
        assert_int_equal(pthread_create(&submitters[i].thread, NULL, submit_all, &submitters[i]), 0);
    }
}

static void join_submitters(struct submitter *submitters)
{
    for (unsigned i = 0; i < SUBMITTERS; i++)
        assert_int_equal(pthread_join(submitters[i].thread, NULL), 0);
}

// ---- who changes the stream

struct changer {
    struct spool *spool;
    unsigned changed, refused;
    pthread_t thread;
};

static void *change_again_and_again(void *argument)
{
    struct changer *changer = argument;
    for (int i = 0; i < CHANGES; i++) {
        struct sl_error err;
        bool changed = spool_next_stream(changer->spool, &err);
        sl_assert(changed || err.code == SL_E_UNAVAILABLE || err.code == SL_E_IO || err.code == SL_E_NO_SPACE);
        changer->changed += changed;
        changer->refused += !changed;
        // So that there is something in most of them.
        for (int turns = 0; turns < 1000 && changed && spool_synced_seq(changer->spool) < 20; turns++)
            sched_yield();
    }
    return NULL;
}

static void start_changers(struct spool *spool, struct changer *changers)
{
    for (int i = 0; i < CHANGERS; i++) {
        changers[i] = (struct changer){.spool = spool};
        assert_int_equal(pthread_create(&changers[i].thread, NULL, change_again_and_again, &changers[i]), 0);
    }
}

// ---- the drainer

struct drainer {
    struct spool *spool;
    uint64_t records;
    uint64_t next[SUBMITTERS];
    uint32_t incarnation;
    pthread_t thread;
};

static void take_frame(struct drainer *drainer, const char *stream, const struct spool_frame *frame)
{
    struct sl_reader body = sl_reader_of(frame->body, frame->header.body_length);
    struct record record;
    while (record_next(&body, &record)) {
        uint64_t id;
        sl_assert(record_id(&record, &id) && id / ID_STEP < SUBMITTERS);
        sl_assert(id % ID_STEP == drainer->next[id / ID_STEP]++); // of each submitter in order, over all streams
        drainer->records++;
    }
    uint64_t through = frame->header.first_seq + frame->header.count - 1;
    spool_note_committed(drainer->spool, stream, "main", through, frame->header.count);
    spool_note_verified(drainer->spool, stream, "main", through);
}

// The other lanes, which have no records, are drained to the end, too.
static void end_lanes(struct drainer *drainer, const char *stream)
{
    struct spool_stream_info info;
    if (!spool_stream_find(drainer->spool, stream, &info))
        return;
    for (uint32_t i = 1; i < info.lane_count; i++) {
        spool_note_committed(drainer->spool, stream, info.lanes[i], info.end_seq, 0);
        spool_note_verified(drainer->spool, stream, info.lanes[i], info.end_seq);
    }
}

// True when the stream has ended.
static bool drain_stream(struct drainer *drainer, const char *stream)
{
    struct spool_reader *reader;
    struct sl_error err;
    if (!spool_reader_open(&reader, drainer->spool, stream, 1, &err)) { // empty, and gone already
        sl_assert(drainer->incarnation < spool_incarnation(drainer->spool));
        return true;
    }
    uint64_t next = 1;
    enum spool_read read = SPOOL_READ_FRAME;
    while (read != SPOOL_READ_END && drainer->records < SUBMITTERS * BATCHES * RECORDS) {
        struct spool_frame *frame;
        struct spool_damage damage;
        read = spool_reader_next(reader, 60 * SL_NS_PER_S, &frame, &damage, &err);
        if (read == SPOOL_READ_FAILED) // deleted under it, when it was empty
            read = next == 1 && drainer->incarnation < spool_incarnation(drainer->spool) ? SPOOL_READ_END : read;
        sl_assert(read == SPOOL_READ_FRAME || read == SPOOL_READ_END);
        if (read != SPOOL_READ_FRAME)
            break;
        sl_assert(frame->header.first_seq == next);
        next += frame->header.count;
        take_frame(drainer, stream, frame);
        spool_frame_release(frame);
    }
    spool_reader_close(reader);
    if (read == SPOOL_READ_END)
        end_lanes(drainer, stream);
    return read == SPOOL_READ_END;
}

static void *drain_all(void *argument)
{
    struct drainer *drainer = argument;
    while (drainer->records < SUBMITTERS * BATCHES * RECORDS) {
        const char *stream = spool_incarnation_id(drainer->spool, drainer->incarnation);
        if (stream == NULL)
            sched_yield(); // the old one is sealed, the new one not there yet
        else if (drain_stream(drainer, stream))
            drainer->incarnation++;
    }
    return NULL;
}

// ---- the tests

static void *declare_lanes(void *argument)
{
    for (int i = 0; i < 8; i++) {
        struct sl_error err;
        char name[16];
        snprintf(name, sizeof(name), "lane-%d", i);
        if (!spool_declare_lane(argument, name, &err))
            sl_panic(__FILE__, __LINE__, err.text);
    }
    return NULL;
}

static void the_stream_changes_under_load(void **state)
{
    struct scene *scene = *state;
    struct world *world = &scene->world;
    world->options.retain_ns = 0;
    world_open_ok(world);
    atomic_store(&world->fault.slow_ns[FAULT_FDATASYNC], 50000);
    struct submitter submitters[SUBMITTERS];
    struct changer changers[CHANGERS];
    struct drainer drainer = {.spool = world->spool};
    pthread_t declarer;
    assert_int_equal(pthread_create(&drainer.thread, NULL, drain_all, &drainer), 0);
    start_submitters(world->spool, submitters);
    start_changers(world->spool, changers);
    assert_int_equal(pthread_create(&declarer, NULL, declare_lanes, world->spool), 0);
    struct spool_figures figures;
    struct spool_stream_info infos[32];
    struct sl_error err;
    for (int i = 0; i < 50; i++) { // what admin threads ask meanwhile
        spool_figures(world->spool, &figures);
        assert_int_equal(figures.conservation_error, 0);
        size_t count = spool_streams(world->spool, infos, 32);
        assert_true(count >= 1 && count <= 32 && infos[count - 1].current);
        assert_true(spool_put_note(world->spool, spool_stream(world->spool), "guard", "abc", 3, &err));
    }
    join_submitters(submitters);
    for (int i = 0; i < CHANGERS; i++) {
        assert_int_equal(pthread_join(changers[i].thread, NULL), 0);
        assert_int_equal(changers[i].changed, CHANGES);
    }
    assert_int_equal(pthread_join(declarer, NULL), 0);
    assert_int_equal(pthread_join(drainer.thread, NULL), 0);
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        assert_int_equal(submitters[i].synced, BATCHES);
        assert_int_equal(drainer.next[i], BATCHES * RECORDS);
    }
    assert_int_equal(spool_incarnation(world->spool), CHANGERS * CHANGES);
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.pending_events, 0);
    assert_int_equal(figures.pending_bytes, 0);
    assert_int_equal(figures.conservation_error, 0);
    assert_int_equal(figures.appended_events, SUBMITTERS * BATCHES * RECORDS);
    for (uint32_t i = drainer.incarnation; i < CHANGERS * CHANGES; i++) // where it stopped, and what is empty behind it
        end_lanes(&drainer, spool_incarnation_id(world->spool, i));
    // All but the one that is written goes.
    int64_t end_ns = sl_monotonic_ns() + 60 * SL_NS_PER_S;
    while (spool_streams(world->spool, infos, 32) > 1) {
        assert_true(sl_monotonic_ns() < end_ns);
        sched_yield();
    }
    assert_int_equal(infos[0].lane_count, 9);
}

// Everything of each stream that was told is there after a power loss right then, and everybody was told.
static void check_after(struct scene *scene, const struct submitter *submitters)
{
    struct world *world = &scene->world;
    struct disk *after = disk_crash(world->disk, DISK_KEEP_NOTHING, 0);
    struct sl_error err;
    (void)!spool_close(world->spool, &err);
    world->spool = NULL;
    disk_free(world->disk);
    world_init(world, after);
    world_open_ok(world);
    world_settle(world);
    struct spool_stream_info infos[32];
    size_t count = spool_streams(world->spool, infos, 32);
    uint64_t next[SUBMITTERS] = {0};
    for (size_t i = 0; i + 1 < count; i++) {
        struct read_stream read;
        read_all(world->spool, infos[i].id, 1, &read);
        assert_int_equal(read.damage_count, 0);
        for (size_t k = 0; k < read.count; k++) {
            uint64_t who = read.records[k].id / ID_STEP;
            assert_true(who < SUBMITTERS && read.records[k].good);
            assert_int_equal(read.records[k].id % ID_STEP, next[who]++);
        }
        read_free(&read);
    }
    for (unsigned i = 0; i < SUBMITTERS; i++)
        assert_true(next[i] >= submitters[i].synced * RECORDS);
}

static void a_disk_that_fails_while_streams_change(void **state)
{
    struct scene *scene = *state;
    struct world *world = &scene->world;
    static const enum fault_op ops[] = {FAULT_FDATASYNC, FAULT_RENAME, FAULT_SYNC_DIRECTORY, FAULT_PWRITEV};
    for (unsigned round = 0; round < 12; round++) {
        world_open_ok(world);
        struct submitter submitters[SUBMITTERS];
        struct changer changers[CHANGERS];
        fault_set(&world->fault, ops[round % 4], 5 + 7 * round, EIO, true);
        start_submitters(world->spool, submitters);
        start_changers(world->spool, changers);
        unsigned changed = 0, refused = 0;
        for (int i = 0; i < CHANGERS; i++) {
            assert_int_equal(pthread_join(changers[i].thread, NULL), 0);
            changed += changers[i].changed;
            refused += changers[i].refused;
        }
        // Where only the preparer met it nothing has failed, and batches wait for a segment until it is over.
        fault_clear(&world->fault);
        join_submitters(submitters);
        assert_int_equal(spool_incarnation(world->spool), changed);
        assert_int_equal(changed + refused, CHANGERS * CHANGES);
        check_after(scene, submitters);
        unmake(state);
        make(state);
        scene = *state;
        world = &scene->world;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_stream_changes_under_load, make, unmake),
        cmocka_unit_test_setup_teardown(a_disk_that_fails_while_streams_change, make, unmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
