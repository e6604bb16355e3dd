// The upkeep of the window of ids.
//
// Happy path: a key, memory, a rebuild (window_rebuild.c), and then for ever: tick, look, and now and then a snapshot.
//
// Failure modes: a snapshot that cannot be written is said in the log and on /status, and the next start reads more ids
// from the spool instead. Memory that is too small for the rate shortens the window; that is warned about and shown
// while it lasts. Nothing of this stops the process: a shorter window doubles an event at worst, and only for a client
// that sends it again after that time.
#include "gateway/window_internal.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UPKEEP_NS     SL_NS_PER_S
#define WARN_EVERY_NS (3600 * SL_NS_PER_S)

enum {
    SNAPSHOT_BYTES_PER_SECOND = 64 << 20, // beside the spool's own writes
    CALM_PERCENT = 90,                    // of the memory: the alarm ends when no more is needed
};

static bool make_directory(const struct window *window, const char *path, struct sl_error *err)
{
    int rc = window->storage.ops->mkdir(window->storage.context, path);
    if (rc == -ENOENT) { // its parents' last level, as the spool does it
        char parent[PATH_MAX];
        snprintf(parent, sizeof(parent), "%s", path);
        char *slash = strrchr(parent, '/');
        if (slash != NULL && slash != parent) {
            *slash = '\0';
            window->storage.ops->mkdir(window->storage.context, parent);
            rc = window->storage.ops->mkdir(window->storage.context, path);
        }
    }
    return rc >= 0 || rc == -EEXIST || sl_fail_errno(err, SL_E_IO, -rc, "create %s", path);
}

bool window_new(struct window **out, const struct window_options *options, struct sl_error *err)
{
    struct window *window = calloc(1, sizeof(*window));
    if (window == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "the dedupe window");
    window->storage = *options->storage;
    window->window_ns = options->window_ns;
    window->snapshot_every_ns = options->snapshot_every_ns;
    char key_file[PATH_MAX];
    int length =
        snprintf(key_file, sizeof(key_file), "%s%s", options->key_file != NULL ? options->key_file : options->spool_dir,
                 options->key_file != NULL ? "" : "/dedupe.key");
    int dir_length = snprintf(window->dir, sizeof(window->dir), "%s/dedupe", options->spool_dir);
    snprintf(window->spool_dir, sizeof(window->spool_dir), "%s", options->spool_dir);
    struct dedupe_options table = {
        .memory_bytes = options->memory_bytes, .window_ns = options->window_ns, .now_wall_ns = sl_wall_ns()};
    bool good = length < PATH_MAX && dir_length < PATH_MAX;
    if (!good)
        sl_fail(err, SL_E_INVALID, "spool.dir or dedupe.key_file is too long");
    good = good && make_directory(window, window->spool_dir, err) &&
           dedupe_key_load(&window->key, key_file, true, err) && dedupe_new(&window->dedupe, &table, err);
    if (!good) {
        free(window);
        return false;
    }
    pthread_mutex_init(&window->lock, NULL);
    pthread_mutex_init(&window->feed_lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&window->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = window;
    return true;
}

struct dedupe *window_dedupe(struct window *window)
{
    return window->dedupe;
}

const struct dedupe_key *window_key(const struct window *window)
{
    return &window->key;
}

bool window_is_complete(const struct window *window)
{
    return atomic_load_explicit(&window->complete, memory_order_acquire);
}

bool window_is_stopping(struct window *window)
{
    pthread_mutex_lock(&window->lock);
    bool stopping = window->stopping;
    pthread_mutex_unlock(&window->lock);
    return stopping;
}

struct known_stream *window_known(struct window *window, const char *stream)
{
    for (size_t i = 0; i < window->known_count; i++)
        if (strcmp(window->known[i].stream, stream) == 0)
            return &window->known[i];
    if (window->known_count == window->known_capacity) {
        size_t capacity = window->known_capacity == 0 ? 16 : 2 * window->known_capacity;
        struct known_stream *larger = realloc(window->known, capacity * sizeof(*larger));
        sl_assert(larger != NULL); // some hundred bytes a stream
        window->known = larger;
        window->known_capacity = capacity;
    }
    struct known_stream *known = &window->known[window->known_count++];
    *known = (struct known_stream){.through = 0};
    snprintf(known->stream, sizeof(known->stream), "%s", stream);
    return known;
}

// ---- memory

static void set_alarm(struct window *window, const char *text, bool *before)
{
    pthread_mutex_lock(&window->lock);
    *before = window->alarm[0] != '\0';
    snprintf(window->alarm, sizeof(window->alarm), "%s", text);
    pthread_mutex_unlock(&window->lock);
}

static bool alarm_is_on(struct window *window)
{
    pthread_mutex_lock(&window->lock);
    bool on = window->alarm[0] != '\0';
    pthread_mutex_unlock(&window->lock);
    return on;
}

void window_check_memory(struct window *window, double ids_per_second, const char *when)
{
    struct dedupe_figures figures;
    dedupe_figures(window->dedupe, sl_wall_ns(), &figures);
    double window_s = (double)window->window_ns * 1e-9;
    double needed = ids_per_second * window_s * figures.bytes_per_entry;
    double memory = (double)figures.memory_bytes;
    bool before;
    if (needed <= memory) {
        if (alarm_is_on(window) && needed <= memory * CALM_PERCENT / 100) {
            set_alarm(window, "", &before);
            sl_logf(SL_INFO, "dedupe", "dedupe.memory is enough again", SL_REAL("ids_per_second", ids_per_second),
                    SL_REAL("needed_bytes", needed), SL_REAL("memory_bytes", memory));
        }
        return;
    }
    double affordable_s = memory / (ids_per_second * figures.bytes_per_entry);
    char text[300];
    snprintf(text, sizeof(text),
             "dedupe.memory is too small: %.0f new ids/s x %.0f s x %.1f bytes = %.0f MiB, there are %.0f MiB, which "
             "last for a window of %.0f s.",
             ids_per_second, window_s, figures.bytes_per_entry, needed / 1048576, memory / 1048576, affordable_s);
    set_alarm(window, text, &before);
    int64_t now_ns = sl_monotonic_ns();
    if (window->warned_ns != 0 && now_ns - window->warned_ns < WARN_EVERY_NS)
        return;
    window->warned_ns = now_ns;
    sl_logf(SL_WARN, "dedupe", text, SL_STR("rate", when), SL_REAL("ids_per_second", ids_per_second),
            SL_REAL("window_seconds", window_s), SL_REAL("bytes_per_id", figures.bytes_per_entry),
            SL_REAL("needed_bytes", needed), SL_REAL("memory_bytes", memory),
            SL_REAL("affordable_seconds", affordable_s));
}

// ---- upkeep

// How far Kafka has a stream, over all of its lanes: which of them an id went to is not kept.
static uint64_t in_kafka_through(const struct spool_stream_info *stream)
{
    uint64_t least = stream->lane_count == 0 ? 0 : UINT64_MAX;
    for (uint32_t lane = 0; lane < stream->lane_count; lane++) {
        uint64_t through =
            stream->committed[lane] > stream->verified[lane] ? stream->committed[lane] : stream->verified[lane];
        if (through < least)
            least = through;
    }
    return least;
}

// A stream that the spool does not list any more was deleted, which it is only when all of it is in Kafka.
static uint64_t origin_in_kafka(const char *name, const struct spool_stream_info *streams, size_t count)
{
    bool all = strcmp(name, WINDOW_SHARED_ORIGIN) == 0;
    for (size_t i = 0; i < count; i++) {
        if (!all && strcmp(streams[i].id, name) == 0)
            return in_kafka_through(&streams[i]);
        if (all && !streams[i].current && (!streams[i].scanned || in_kafka_through(&streams[i]) < streams[i].end_seq))
            return 0;
    }
    return UINT64_MAX;
}

static void tell_older(struct window *window)
{
    size_t capacity = spool_streams(window->spool, NULL, 0) + 4;
    struct spool_stream_info *streams = calloc(capacity, sizeof(*streams));
    if (streams == NULL)
        return;
    size_t count = spool_streams(window->spool, streams, capacity);
    if (count > capacity)
        count = 0; // more than a moment ago: the next time
    char name[SPOOL_STREAM_ID_MAX];
    for (uint32_t origin = DEDUPE_ORIGIN_OWN; count > 0 && origin < WINDOW_ORIGINS_MAX; origin++) {
        if (!dedupe_origin_name(window->dedupe, origin, name, sizeof(name)))
            continue;
        ingest_note_older(window->ingest, origin, name, origin_in_kafka(name, streams, count));
    }
    free(streams);
}

static void upkeep(struct window *window)
{
    int64_t now_ns = sl_monotonic_ns();
    if (now_ns < window->next_upkeep_ns)
        return;
    window->next_upkeep_ns = now_ns + UPKEEP_NS;
    int64_t wall_ns = sl_wall_ns();
    dedupe_tick(window->dedupe, wall_ns);
    tell_older(window);
    struct dedupe_figures figures;
    dedupe_figures(window->dedupe, wall_ns, &figures);
    window_check_memory(window, figures.claims_per_second, "of the last minute");
}

// Waits on the condition that the end of the process signals. False: it is to end.
static bool wait_ns(struct window *window, int64_t ns)
{
    int64_t until_ns = sl_monotonic_ns() + ns;
    struct timespec until = {.tv_sec = until_ns / SL_NS_PER_S, .tv_nsec = until_ns % SL_NS_PER_S};
    pthread_mutex_lock(&window->lock);
    while (!window->stopping && ns > 0 && pthread_cond_timedwait(&window->wake, &window->lock, &until) != ETIMEDOUT)
        ;
    bool go_on = !window->stopping;
    pthread_mutex_unlock(&window->lock);
    return go_on;
}

// ---- snapshots

uint64_t window_own_covers(struct window *window, uint32_t incarnation)
{
    static struct spool_stream_info info; // the window's thread alone
    if (incarnation == window->own_incarnation)
        return window->own_through;
    // One that ended may still grow, by what peers give back: no more than its present end is said.
    const char *stream = spool_incarnation_id(window->spool, incarnation);
    return spool_stream_find(window->spool, stream, &info) ? info.end_seq : UINT64_MAX;
}

uint64_t window_covers(struct window *window, const char *stream)
{
    for (size_t i = 0; i < window->known_count; i++)
        if (strcmp(window->known[i].stream, stream) == 0)
            return window_fed_through(window, stream, window->known[i].through, true);
    return window_fed_through(window, stream, 0, false);
}

static uint64_t snapshot_through(void *user, const char *stream)
{
    struct window *window = user;
    for (uint32_t i = 0; i <= window->own_incarnation; i++)
        if (strcmp(stream, spool_incarnation_id(window->spool, i)) == 0)
            return window_own_covers(window, i);
    return window_covers(window, stream);
}

static bool snapshot_pause(void *user, int64_t ns)
{
    struct window *window = user;
    bool go_on = wait_ns(window, ns);
    upkeep(window);
    return go_on;
}

static void note_snapshot(struct window *window, int64_t wall_ns, const char *error)
{
    pthread_mutex_lock(&window->lock);
    if (error[0] == '\0')
        window->snapshot_wall_ns = wall_ns;
    snprintf(window->snapshot_error, sizeof(window->snapshot_error), "%s", error);
    pthread_mutex_unlock(&window->lock);
}

static void snapshot(struct window *window, bool last)
{
    struct sl_error err;
    int64_t wall_ns = sl_wall_ns(), started_ns = sl_monotonic_ns();
    struct dedupe_snapshot_writing how = {
        .through = snapshot_through,
        .pause = last ? NULL : snapshot_pause,
        .user = window,
        .bytes_per_second = last ? 0 : SNAPSHOT_BYTES_PER_SECOND,
    };
    ingest_settled(window->ingest, &window->own_incarnation, &window->own_through);
    bool good = make_directory(window, window->dir, &err) &&
                dedupe_snapshot_write(window->dedupe, &window->key, &window->storage, window->dir, &how, wall_ns, &err);
    window->next_snapshot_ns = sl_monotonic_ns() + window->snapshot_every_ns;
    if (!good) {
        if (err.code == SL_E_REFUSED)
            return; // the process is to end
        note_snapshot(window, wall_ns, err.text);
        sl_logf(SL_WARN, "dedupe", "no snapshot of the window; a restart will read more ids from the spool",
                SL_STR("error", err.text));
        return;
    }
    note_snapshot(window, wall_ns, "");
    sl_logf(SL_DEBUG, "dedupe", "snapshot written", SL_UINT("through", window->own_through),
            SL_REAL("ms", (double)(sl_monotonic_ns() - started_ns) / 1e6));
    window_release_ids(window);
}

// ---- the thread

static bool not_stopping(void *user)
{
    return wait_ns(user, 0);
}

static void *run(void *argument)
{
    struct window *window = argument;
    pthread_setname_np(pthread_self(), "dedupe");
    if (window_rebuild(window)) {
        window->next_snapshot_ns = sl_monotonic_ns() + window->snapshot_every_ns;
        window_feed_begin(window);
        tell_older(window);
        atomic_store_explicit(&window->complete, true, memory_order_release);
        ingest_window_complete(window->ingest);
        dedupe_populate(window->dedupe, not_stopping, window);
        do {
            upkeep(window);
            if (sl_monotonic_ns() >= window->next_snapshot_ns)
                snapshot(window, false);
        } while (wait_ns(window, UPKEEP_NS));
    }
    pthread_mutex_lock(&window->lock);
    bool last = window->last_snapshot;
    pthread_mutex_unlock(&window->lock);
    if (last && window_is_complete(window))
        snapshot(window, true);
    return NULL;
}

bool window_start(struct window *window, struct spool *spool, struct ingest *ingest, struct sl_error *err)
{
    window->spool = spool;
    window->ingest = ingest;
    dedupe_own_stream(window->dedupe, spool_incarnation_id(spool, 0));
    atomic_store(&window->rebuild_started_ns, sl_monotonic_ns());
    int error = pthread_create(&window->thread, NULL, run, window);
    if (error != 0)
        return sl_fail_errno(err, SL_E_NO_MEMORY, error, "the thread of the dedupe window");
    window->started = true;
    return true;
}

void window_stop_begin(struct window *window, bool last_snapshot)
{
    pthread_mutex_lock(&window->lock);
    window->stopping = true;
    window->last_snapshot = last_snapshot;
    pthread_cond_broadcast(&window->wake);
    pthread_mutex_unlock(&window->lock);
}

void window_stop(struct window *window)
{
    pthread_mutex_lock(&window->lock);
    window->stopping = true;
    pthread_cond_broadcast(&window->wake);
    pthread_mutex_unlock(&window->lock);
    if (window->started)
        pthread_join(window->thread, NULL);
    window->started = false;
}

void window_free(struct window *window)
{
    if (window == NULL)
        return;
    dedupe_free(window->dedupe);
    pthread_cond_destroy(&window->wake);
    pthread_mutex_destroy(&window->lock);
    pthread_mutex_destroy(&window->feed_lock);
    free(window->fed);
    free(window->known);
    free(window);
}

void window_status(struct window *window, struct window_status *out)
{
    *out = (struct window_status){
        .complete = window_is_complete(window),
        .rebuild_ids = atomic_load(&window->rebuild_ids),
        .rebuild_done_bytes = atomic_load(&window->rebuild_done_bytes),
        .rebuild_bytes = atomic_load(&window->rebuild_bytes),
        .replica_ids = atomic_load(&window->fed_ids),
    };
    int64_t started_ns = atomic_load(&window->rebuild_started_ns), ended_ns = atomic_load(&window->rebuild_ended_ns);
    if (started_ns != 0)
        out->rebuild_seconds = (double)((ended_ns != 0 ? ended_ns : sl_monotonic_ns()) - started_ns) * 1e-9;
    dedupe_figures(window->dedupe, sl_wall_ns(), &out->figures);
    if (!out->complete)
        out->figures.covered_ns = 0; // nothing is answered from it yet
    pthread_mutex_lock(&window->lock);
    out->snapshot_wall_ns = window->snapshot_wall_ns;
    memcpy(out->snapshot_error, window->snapshot_error, sizeof(out->snapshot_error));
    memcpy(out->alarm, window->alarm, sizeof(out->alarm));
    pthread_mutex_unlock(&window->lock);
}
