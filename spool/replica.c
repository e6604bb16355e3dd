// The replica thread: takes what was submitted, and lets each stream that grows go on by a piece (grow.c), in turn.
//
// A stream that has not grown for a while, and hardly will, is sealed: the unused rest of its file is given back, and
// when all of it is produced the keeper can delete it. If it grows after all, it does so in another segment.
//
// Failure modes:
//   - a write, sync or rename fails: as for the own stream nothing is told synced any more, of any stream. A disk that
//   loses one write is not trusted with others.
//   - a stream stands still: others that have room go on.
//   - closing while there is no space for what waits: it is told FAILED. Nobody was promised anything.
#include "spool/replica.h"

#include "spool/grow.h"

#include "base/clock.h"
#include "base/log.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDLE_CHECK_NS (10 * SL_NS_PER_S)
#define IDLE_END_NS   (3600 * SL_NS_PER_S) // of a stream that may grow on as far as is known here

struct replicas {
    pthread_mutex_t mutex;
    pthread_cond_t filled;                         // with mutex
    struct spool_store *queue_first, **queue_last; // mutex
    bool kicked;                                   // mutex; there is a reason to look again
    bool closing;                                  // mutex
    bool started;                                  // mutex
    pthread_t thread;
    struct growth *growths; // replica thread only, and the rest
    struct iovec parts[FRAME_PARTS_MAX + 2];
};

static struct growth *growth_of(struct spool *spool, const char *id)
{
    struct growth **place = &spool->replicas->growths;
    for (; *place != NULL; place = &(*place)->next)
        if (strcmp((*place)->id, id) == 0)
            return *place;
    struct growth *growth = growth_new(spool, id);
    *place = growth;
    return growth;
}

static void take_queue(struct spool *spool)
{
    struct replicas *replicas = spool->replicas;
    pthread_mutex_lock(&replicas->mutex);
    struct spool_store *store = replicas->queue_first;
    replicas->queue_first = NULL;
    replicas->queue_last = &replicas->queue_first;
    pthread_mutex_unlock(&replicas->mutex);
    while (store != NULL) {
        struct spool_store *next = store->next;
        struct growth *growth = growth_of(spool, store->stream);
        store->next = NULL;
        *growth->last = store;
        growth->last = &store->next;
        growth->grown_ns = spool_monotonic_ns(spool);
        store = next;
    }
}

static void fail_waiting(struct spool *spool)
{
    take_queue(spool);
    for (struct growth *growth = spool->replicas->growths; growth != NULL; growth = growth->next)
        while (growth->first != NULL)
            growth_tell_first(growth, SPOOL_FAILED);
}

static void fail(struct spool *spool, const char *stream, const struct sl_error *err)
{
    sl_logf(SL_ERROR, "spool", "a copy of a stream cannot be written: nothing is acknowledged any more",
            SL_STR("stream", stream), SL_STR("error", err->text));
    writer_fail(spool, err);
    fail_waiting(spool);
}

static void end_growth(struct spool *spool, struct growth *growth)
{
    struct growth **place = &spool->replicas->growths;
    while (*place != growth)
        place = &(*place)->next;
    *place = growth->next;
    char id[SPOOL_STREAM_ID_MAX];
    memcpy(id, growth->id, sizeof(id));
    struct sl_error err;
    if (!growth_end(spool, growth, &err))
        fail(spool, id, &err);
}

static void end_idle(struct spool *spool)
{
    int64_t now = spool_monotonic_ns(spool);
    for (struct growth *growth = spool->replicas->growths, *next; growth != NULL; growth = next) {
        next = growth->next;
        int64_t idle_ns = now - growth->grown_ns;
        if (growth->first == NULL && growth->stream != NULL && idle_ns >= IDLE_CHECK_NS &&
            (idle_ns >= IDLE_END_NS || growth_is_over(spool, growth)))
            end_growth(spool, growth);
    }
}

// One piece of one stream. STARVED: nothing that waits can go on.
static enum grow replica_step(struct spool *spool)
{
    take_queue(spool);
    if (atomic_load(&spool->failed)) {
        fail_waiting(spool);
        return GROW_IDLE;
    }
    bool starved = false;
    for (struct growth *growth = spool->replicas->growths; growth != NULL; growth = growth->next) {
        struct sl_error err;
        enum grow grow = growth_step(spool, growth, spool->replicas->parts, &err);
        if (grow == GROW_FAILED)
            fail(spool, growth->id, &err);
        if (grow == GROW_FAILED || grow == GROW_DONE)
            return GROW_DONE;
        starved |= grow == GROW_STARVED;
    }
    atomic_store_explicit(&spool->copies_waiting, starved, memory_order_relaxed);
    end_idle(spool);
    return starved ? GROW_STARVED : GROW_IDLE;
}

// What can be written is; the rest is told.
static void finish(struct spool *spool)
{
    while (replica_step(spool) == GROW_DONE) {
    }
    fail_waiting(spool);
    while (spool->replicas->growths != NULL)
        end_growth(spool, spool->replicas->growths);
}

// ---- the thread

void replica_kick(struct spool *spool)
{
    struct replicas *replicas = spool->replicas;
    pthread_mutex_lock(&replicas->mutex);
    replicas->kicked = true;
    pthread_cond_signal(&replicas->filled);
    pthread_mutex_unlock(&replicas->mutex);
}

// False: closing.
static bool wait_for_kick(struct spool *spool, enum grow step)
{
    struct replicas *replicas = spool->replicas;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += step == GROW_STARVED ? 1 : IDLE_CHECK_NS / SL_NS_PER_S;
    pthread_mutex_lock(&replicas->mutex);
    bool in_time = true;
    while (!replicas->kicked && in_time)
        in_time = pthread_cond_timedwait(&replicas->filled, &replicas->mutex, &until) == 0;
    replicas->kicked = false;
    bool closing = replicas->closing;
    pthread_mutex_unlock(&replicas->mutex);
    return !closing;
}

static void *replica_main(void *argument)
{
    struct spool *spool = argument;
    enum grow step;
    do {
        do
            step = replica_step(spool);
        while (step == GROW_DONE);
    } while (wait_for_kick(spool, step));
    finish(spool);
    return NULL;
}

bool spool_step_replica(struct spool *spool)
{
    sl_assert(spool->manual);
    return replica_step(spool) == GROW_DONE;
}

// With replicas->mutex. A node without peers needs no such thread.
static bool start(struct spool *spool)
{
    struct replicas *replicas = spool->replicas;
    if (spool->manual || replicas->started)
        return true;
    sigset_t all, before; // signals are the main thread's
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    replicas->started = pthread_create(&replicas->thread, NULL, replica_main, spool) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (replicas->started)
        pthread_setname_np(replicas->thread, "spool-replica"); // only for people who look
    return replicas->started;
}

bool replica_new(struct spool *spool)
{
    struct replicas *replicas = calloc(1, sizeof(*replicas));
    if (replicas == NULL)
        return false;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&replicas->mutex, NULL);
    pthread_cond_init(&replicas->filled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    replicas->queue_last = &replicas->queue_first;
    spool->replicas = replicas;
    return true;
}

void replica_stop(struct spool *spool)
{
    struct replicas *replicas = spool->replicas;
    pthread_mutex_lock(&replicas->mutex);
    replicas->closing = true;
    bool started = replicas->started;
    pthread_mutex_unlock(&replicas->mutex);
    if (!started) {
        finish(spool);
        return;
    }
    replica_kick(spool);
    pthread_join(replicas->thread, NULL);
}

void replica_free(struct spool *spool)
{
    sl_assert(spool->replicas->growths == NULL && spool->replicas->queue_first == NULL);
    pthread_mutex_destroy(&spool->replicas->mutex);
    pthread_cond_destroy(&spool->replicas->filled);
    free(spool->replicas);
}

// ---- what others call

bool spool_store(struct spool *spool, struct spool_store *store)
{
    sl_assert(store->first_seq > 0 && store->count > 0 && store->body_length > 0 && store->done != NULL);
    sl_assert(store->body_length <= FRAME_BODY_MAX && store->head.lane_count <= SPOOL_LANES_MAX);
    struct replicas *replicas = spool->replicas;
    store->next = NULL;
    pthread_mutex_lock(&replicas->mutex);
    bool taken = !replicas->closing && !atomic_load(&spool->failed) && start(spool);
    if (taken) {
        *replicas->queue_last = store;
        replicas->queue_last = &store->next;
        replicas->kicked = true;
        pthread_cond_signal(&replicas->filled);
    }
    pthread_mutex_unlock(&replicas->mutex);
    return taken;
}

void spool_trim(struct spool *spool, const char *id, uint64_t through)
{
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = stream_find(spool, id);
    if (stream != NULL && stream_is_copy(stream)) {
        uint64_t last = through < stream->end_seq ? through : stream->end_seq;
        if (last >= stream->base_seq) {
            stream->base_seq = last + 1;
            stream->progress_dirty = true;
            figures_refresh(spool);
        }
    }
    pthread_mutex_unlock(&spool->mutex);
}
