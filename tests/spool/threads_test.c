// The spool with its threads: many submitters, followers, a slow, hanging or failing disk, closing under load. Built
// with ThreadSanitizer and AddressSanitizer, too.
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

enum { SUBMITTERS = 4, BATCHES = 200, RECORDS = 3, ID_STEP = 1000000 };

static int make(void **state)
{
    struct world *world = malloc(sizeof(*world));
    world_init(world, disk_new(UINT64_C(512) << 20));
    world->options.manual = false;
    world->options.environment = NULL;
    world->options.prepared = 2;
    *state = world;
    return 0;
}

static int unmake(void **state)
{
    world_free(*state);
    free(*state);
    return 0;
}

// ---- submitters: each has one batch in flight, as a loop does that waits for its answer

struct slot {
    struct spool_batch batch; // first
    pthread_mutex_t mutex;
    pthread_cond_t told;
    unsigned times_told;
};

struct submitter {
    struct world *world;
    const char *lane;
    uint64_t first_id;
    unsigned batches;
    unsigned synced, failed; // batches
    bool refused;            // spool_submit said no
    uint64_t last_seq;       // of the last synced batch
    pthread_t thread;
};

static void slot_done(struct spool_batch *batch)
{
    struct slot *slot = (struct slot *)(void *)batch;
    pthread_mutex_lock(&slot->mutex);
    slot->times_told++;
    pthread_cond_signal(&slot->told);
    pthread_mutex_unlock(&slot->mutex);
}

// True when it was taken and told.
static bool submit_and_wait(struct submitter *submitter, unsigned i)
{
    struct spool *spool = submitter->world->spool;
    struct sent *sent = sent_new(spool, submitter->first_id + i * RECORDS, RECORDS, 2000, submitter->lane);
    struct slot slot = {.batch = sent->batch, .mutex = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER};
    slot.batch.done = slot_done;
    bool taken = spool_submit(spool, &slot.batch);
    if (taken) {
        pthread_mutex_lock(&slot.mutex);
        while (slot.times_told == 0)
            pthread_cond_wait(&slot.told, &slot.mutex);
        sl_assert(slot.times_told == 1);
        pthread_mutex_unlock(&slot.mutex);
        if (slot.batch.outcome == SPOOL_SYNCED) {
            sl_assert(submitter->failed == 0 && slot.batch.first_seq > submitter->last_seq);
            sl_assert(spool_synced_seq(spool) >= slot.batch.first_seq + RECORDS - 1);
            submitter->last_seq = slot.batch.first_seq + RECORDS - 1;
            submitter->synced++;
        } else {
            submitter->failed++;
        }
    }
    sent_free(sent);
    return taken;
}

static void *submit_all(void *argument)
{
    struct submitter *submitter = argument;
    for (unsigned i = 0; i < submitter->batches && !submitter->refused; i++)
        submitter->refused = !submit_and_wait(submitter, i);
    return NULL;
}

static void start_submitters(struct world *world, struct submitter *submitters, unsigned batches)
{
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        submitters[i] =
            (struct submitter){.world = world, .lane = "main", .first_id = (uint64_t)i * ID_STEP, .batches = batches};
        assert_int_equal(pthread_create(&submitters[i].thread, NULL, submit_all, &submitters[i]), 0);
    }
}

static void join_submitters(struct submitter *submitters)
{
    for (unsigned i = 0; i < SUBMITTERS; i++)
        assert_int_equal(pthread_join(submitters[i].thread, NULL), 0);
}

// Of each submitter: its records 0, 1, 2 … in order; at least those of the batches that were told SYNCED.
static void check_records(const struct read_stream *read, const struct submitter *submitters)
{
    uint64_t next[SUBMITTERS] = {0};
    assert_int_equal(read->damage_count, 0);
    for (size_t i = 0; i < read->count; i++) {
        uint64_t who = read->records[i].id / ID_STEP;
        assert_true(who < SUBMITTERS && read->records[i].good);
        assert_int_equal(read->records[i].seq, i + 1);
        assert_int_equal(read->records[i].id % ID_STEP, next[who]++);
    }
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        assert_true(next[i] >= submitters[i].synced * RECORDS);
        assert_int_equal(next[i] % RECORDS, 0);
    }
}

// ---- a follower, as the drainer is one

struct follower {
    struct world *world;
    uint64_t through; // where it ends
    size_t count;
    pthread_t thread;
};

static void *follow(void *argument)
{
    struct follower *follower = argument;
    struct spool *spool = follower->world->spool;
    struct spool_reader *reader;
    struct sl_error err;
    if (!spool_reader_open(&reader, spool, spool_stream(spool), 1, &err))
        sl_panic(__FILE__, __LINE__, err.text);
    uint64_t next = 1;
    while (next <= follower->through) {
        struct spool_frame *frame;
        struct spool_damage damage;
        enum spool_read read = spool_reader_next(reader, 60 * SL_NS_PER_S, &frame, &damage, &err);
        sl_assert(read == SPOOL_READ_FRAME && frame->header.first_seq == next);
        next += frame->header.count;
        sl_assert(spool_synced_seq(spool) + FRAME_BODY_MAX > next); // any thread may ask at any time
        spool_note_committed(spool, spool_stream(spool), "main", next - 1, frame->header.count);
        spool_note_verified(spool, spool_stream(spool), "main", next - 1);
        spool_frame_release(frame);
    }
    follower->count = (size_t)(next - 1);
    spool_reader_close(reader);
    return NULL;
}

static void many_submitters_and_followers(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    atomic_store(&world->fault.slow_ns[FAULT_FDATASYNC], 100000);
    struct submitter submitters[SUBMITTERS];
    struct follower followers[2];
    for (int i = 0; i < 2; i++) {
        followers[i] = (struct follower){.world = world, .through = SUBMITTERS * BATCHES * RECORDS};
        assert_int_equal(pthread_create(&followers[i].thread, NULL, follow, &followers[i]), 0);
    }
    start_submitters(world, submitters, BATCHES);
    struct sl_error err;
    char bytes[16];
    for (int i = 0; i < 50; i++) { // what admin threads ask meanwhile
        struct spool_figures figures;
        struct spool_stream_info infos[4];
        spool_figures(world->spool, &figures);
        assert_int_equal(spool_streams(world->spool, infos, 4), 1);
        assert_true(spool_put_note(world->spool, infos[0].id, "guard", "abc", 3, &err));
        size_t length = sizeof(bytes);
        assert_true(spool_get_note(world->spool, infos[0].id, "guard", bytes, &length, &err));
    }
    join_submitters(submitters);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(followers[i].thread, NULL), 0);
    for (unsigned i = 0; i < SUBMITTERS; i++)
        assert_int_equal(submitters[i].synced, BATCHES);
    // Fewer commits than batches: what came during a sync shared the next one.
    assert_true(histogram_count(spool_commit_histogram(world->spool)) < SUBMITTERS * BATCHES);
    struct read_stream read;
    read_all(world->spool, spool_stream(world->spool), 1, &read);
    assert_int_equal(read.count, SUBMITTERS * BATCHES * RECORDS);
    check_records(&read, submitters);
    read_free(&read);
}

// The disk after a power loss; the world goes on with it, without threads. Returns how often on_failed was called
// before.
static unsigned restart_after_power_loss(struct world *world, char *stream)
{
    struct sl_error err;
    struct disk *after = disk_crash(world->disk, DISK_KEEP_NOTHING, 0);
    snprintf(stream, SPOOL_STREAM_ID_MAX, "%s", spool_stream(world->spool));
    (void)!spool_close(world->spool, &err);
    world->spool = NULL;
    disk_free(world->disk);
    unsigned failures = world->failures; // the writer thread has ended
    world_init(world, after);
    world_open_ok(world);
    return failures;
}

static void a_sync_that_fails_under_load(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct submitter submitters[SUBMITTERS];
    fault_set(&world->fault, FAULT_FDATASYNC, 60, EIO, false); // the writer's, or the keeper's while it prepares
    start_submitters(world, submitters, BATCHES);
    join_submitters(submitters);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    if (!figures.failed) { // it was the keeper's: a segment less. The next one is the writer's.
        fault_set(&world->fault, FAULT_PWRITEV, 1, EIO, true);
        struct submitter again = {.world = world, .lane = "main", .first_id = 9 * ID_STEP, .batches = 5};
        submit_all(&again);
        assert_int_equal(again.synced, 0);
        assert_true(again.refused);
    } else {
        for (unsigned i = 0; i < SUBMITTERS; i++) {
            assert_true(submitters[i].refused);
            assert_true(submitters[i].failed <= 1);
        }
    }
    char stream[SPOOL_STREAM_ID_MAX];
    assert_int_equal(restart_after_power_loss(world, stream), 1);
    struct read_stream read;
    read_all(world->spool, stream, 1, &read);
    check_records(&read, submitters);
    read_free(&read);
}

static void closing_under_load_tells_everybody_once(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct submitter submitters[SUBMITTERS];
    char stream[SPOOL_STREAM_ID_MAX];
    snprintf(stream, sizeof(stream), "%s", spool_stream(world->spool));
    // Nobody may touch the spool once it is freed: the submitters are gone, their last batches are not.
    start_submitters(world, submitters, 20);
    join_submitters(submitters);
    struct sent *sent[16];
    for (uint64_t i = 0; i < 16; i++) {
        sent[i] = sent_new(world->spool, SUBMITTERS * ID_STEP + i, 1, 50 << 10, "main");
        assert_true(spool_submit(world->spool, &sent[i]->batch));
    }
    struct sl_error err;
    assert_true(spool_close(world->spool, &err));
    world->spool = NULL;
    for (uint64_t i = 0; i < 16; i++) {
        assert_int_equal(sent[i]->told, 1);
        assert_int_equal(sent[i]->batch.outcome, SPOOL_SYNCED);
        sent_free(sent[i]);
    }
    world->options.manual = true;
    world_open_ok(world);
    struct read_stream read;
    read_all(world->spool, stream, 1, &read);
    assert_int_equal(read.count, SUBMITTERS * 20 * RECORDS + 16);
    assert_int_equal(read.end, SPOOL_READ_END);
    read_free(&read);
}

// A disk that hangs: nothing is told, nothing blocks but the answers, and what is too much is refused.
static void a_hanging_disk_blocks_nobody_but_answers(void **state)
{
    struct world *world = *state;
    world->options.append_bytes = 64 << 10;
    world_open_ok(world);
    atomic_store(&world->fault.hang, true);
    struct sent *sent[64];
    unsigned count = 0;
    while (count < 64 && spool_admit(world->spool, 8000, SPOOL_PRIORITY_HIGH) == SPOOL_ADMITTED) {
        sent[count] = sent_new(world->spool, count, 1, 8000, "main");
        assert_true(spool_submit(world->spool, &sent[count]->batch));
        count++;
    }
    assert_true(count > 2 && count < 16);
    assert_int_equal(spool_admit(world->spool, 8000, SPOOL_PRIORITY_HIGH), SPOOL_BUSY);
    assert_int_equal(spool_synced_seq(world->spool), 0);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_int_equal(figures.appended_events, 0);
    atomic_store(&world->fault.hang, false);
    struct sl_error err;
    assert_true(spool_close(world->spool, &err)); // waits for the disk
    world->spool = NULL;
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(sent[i]->told, 1);
        assert_int_equal(sent[i]->batch.outcome, SPOOL_SYNCED);
        sent_free(sent[i]);
    }
}

struct declarer {
    struct world *world;
    char name[16];
    bool declared;
    pthread_t thread;
};

static void *declare(void *argument)
{
    struct declarer *declarer = argument;
    struct sl_error err;
    declarer->declared = spool_declare_lane(declarer->world->spool, declarer->name, &err);
    return NULL;
}

static void lanes_are_declared_under_load(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct submitter submitters[SUBMITTERS];
    struct declarer declarers[20];
    start_submitters(world, submitters, BATCHES);
    for (int i = 0; i < 20; i++) {
        declarers[i].world = world;
        snprintf(declarers[i].name, sizeof(declarers[i].name), "lane-%d", i / 2); // each twice
        assert_int_equal(pthread_create(&declarers[i].thread, NULL, declare, &declarers[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(pthread_join(declarers[i].thread, NULL), 0);
        assert_true(declarers[i].declared);
    }
    struct submitter other = {.world = world, .lane = "lane-7", .first_id = 0, .batches = 10};
    join_submitters(submitters);
    submit_all(&other);
    assert_int_equal(other.synced, 10);
    struct spool_stream_info info;
    assert_int_equal(spool_streams(world->spool, &info, 1), 1);
    assert_int_equal(info.lane_count, 11);
    struct sl_error err;
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof(name), "more-%d", i);
        assert_true(spool_declare_lane(world->spool, name, &err));
    }
    assert_false(spool_declare_lane(world->spool, "one-too-many", &err));
    assert_int_equal(err.code, SL_E_TOO_LARGE);
    assert_true(spool_declare_lane(world->spool, "main", &err)); // is there already
    // A power loss later, the headers still name all of them.
    char stream[SPOOL_STREAM_ID_MAX];
    assert_int_equal(restart_after_power_loss(world, stream), 0);
    struct spool_stream_info infos[2];
    assert_int_equal(spool_streams(world->spool, infos, 2), 2);
    assert_int_equal(infos[0].lane_count, 16);
}

static void *wake_later(void *argument)
{
    spool_reader_wake(argument);
    return NULL;
}

static void a_waiting_reader_can_be_woken(void **state)
{
    struct world *world = *state;
    world_open_ok(world);
    struct spool_reader *reader;
    struct spool_frame *frame;
    struct spool_damage damage;
    struct sl_error err;
    assert_true(spool_reader_open(&reader, world->spool, spool_stream(world->spool), 1, &err));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_later, reader), 0);
    // Without the wake this would take an hour, and the suite's time limit would say so.
    assert_int_equal(spool_reader_next(reader, 3600 * SL_NS_PER_S, &frame, &damage, &err), SPOOL_READ_WAIT);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(spool_reader_next(reader, 1, &frame, &damage, &err), SPOOL_READ_WAIT);
    spool_reader_close(reader);
}

// The keeper deletes, prepares and walks while everybody else is at work.
static void retention_under_load(void **state)
{
    struct world *world = *state;
    world->options.retain_ns = 0;
    world->options.max_bytes = 8 << 20;
    world_open_ok(world);
    struct follower follower = {.world = world, .through = SUBMITTERS * BATCHES * 4 * RECORDS};
    assert_int_equal(pthread_create(&follower.thread, NULL, follow, &follower), 0);
    struct submitter submitters[SUBMITTERS];
    start_submitters(world, submitters, BATCHES * 4); // 19 MiB through 8 MiB
    join_submitters(submitters);
    assert_int_equal(pthread_join(follower.thread, NULL), 0);
    assert_int_equal(follower.count, SUBMITTERS * BATCHES * 4 * RECORDS);
    struct spool_figures figures;
    spool_figures(world->spool, &figures);
    assert_true(figures.bytes <= 8 << 20);
    assert_int_equal(figures.conservation_error, 0);
    assert_int_equal(figures.pending_events, 0);
}

// ---- ids, read by several threads while their segments are deleted and what is kept of them is let go

struct ids_reader {
    struct world *world;
    atomic_bool *stop;
    _Atomic uint64_t given;
    pthread_t thread;
};

static bool in_order(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    uint64_t *next = user;
    sl_assert(block->first_seq == *next && block->first_seq >= unit->first_seq);
    *next += block->count;
    return true;
}

static void *read_again_and_again(void *argument)
{
    struct ids_reader *reader = argument;
    struct spool *spool = reader->world->spool;
    while (!atomic_load(reader->stop)) {
        struct spool_ids_unit *units;
        struct sl_error err;
        size_t count;
        if (!spool_ids_list(spool, &units, &count, &err))
            sl_panic(__FILE__, __LINE__, err.text);
        for (size_t i = 0; i < count; i++) {
            struct spool_ids_result result;
            uint64_t next = units[i].first_seq;
            if (!spool_ids_read(spool, &units[i], 0, in_order, &next, &result, &err))
                sl_panic(__FILE__, __LINE__, err.text);
            sl_assert(!result.damaged);
            // All of a unit, or nothing because it was let go.
            sl_assert(result.source == SPOOL_IDS_GONE || units[i].last_seq == UINT64_MAX ||
                      next == units[i].last_seq + 1);
            atomic_fetch_add(&reader->given, result.ids);
        }
        free(units);
    }
    return NULL;
}

// Until nothing but .ids files is left, or (kept false) nothing at all.
static void await_units(struct world *world, bool kept)
{
    int64_t end_ns = sl_monotonic_ns() + 60 * SL_NS_PER_S;
    for (bool more = true; more; sched_yield()) {
        struct spool_ids_unit *units;
        struct sl_error err;
        size_t count, wanted = 0;
        assert_true(sl_monotonic_ns() < end_ns);
        assert_true(spool_ids_list(world->spool, &units, &count, &err));
        for (size_t i = 0; i < count; i++)
            wanted += kept && units[i].kept;
        more = wanted != count;
        free(units);
    }
}

static void ids_are_read_while_segments_go(void **state)
{
    struct world *world = *state;
    world_keep_ids(world);
    world->options.retain_ns = 0;
    world_open_ok(world);
    char stream[SPOOL_STREAM_ID_MAX];
    snprintf(stream, sizeof(stream), "%s", spool_stream(world->spool));
    struct submitter submitters[SUBMITTERS];
    start_submitters(world, submitters, BATCHES);
    join_submitters(submitters);
    world_close_ok(world);
    world_open_ok(world);
    atomic_bool stop = false;
    struct ids_reader readers[2];
    for (int i = 0; i < 2; i++) {
        readers[i] = (struct ids_reader){.world = world, .stop = &stop};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_again_and_again, &readers[i]), 0);
    }
    for (int i = 0; i < 2; i++) // a thread may begin late, and then find nothing any more
        while (atomic_load(&readers[i].given) == 0)
            sched_yield();
    uint64_t all = SUBMITTERS * BATCHES * RECORDS;
    spool_note_committed(world->spool, stream, "main", all, all);
    spool_note_verified(world->spool, stream, "main", all);
    await_units(world, true);
    spool_ids_release(world->spool, stream, all);
    await_units(world, false);
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
}

int main(void)
{
#define STORY(name) cmocka_unit_test_setup_teardown(name, make, unmake)
    const struct CMUnitTest tests[] = {
        STORY(many_submitters_and_followers),
        STORY(a_sync_that_fails_under_load),
        STORY(closing_under_load_tells_everybody_once),
        STORY(a_hanging_disk_blocks_nobody_but_answers),
        STORY(lanes_are_declared_under_load),
        STORY(a_waiting_reader_can_be_woken),
        STORY(retention_under_load),
        STORY(ids_are_read_while_segments_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
