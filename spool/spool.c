// Opening and closing. What happens in between is in commit.c (writer), keeper.c, reader.c.
#include "spool/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

// ---- the machine's environment

static int64_t real_wall_ns(void *context)
{
    (void)context;
    return sl_wall_ns();
}

static int64_t real_monotonic_ns(void *context)
{
    (void)context;
    return sl_monotonic_ns();
}

static void real_random(void *context, void *bytes, size_t length)
{
    (void)context;
    sl_assert(length <= 256 && getrandom(bytes, length, 0) == (ssize_t)length); // up to 256 bytes are never cut short
}

static const struct spool_environment real_environment = {
    .wall_ns = real_wall_ns, .monotonic_ns = real_monotonic_ns, .random = real_random};

int64_t spool_wall_ns(const struct spool *spool)
{
    return spool->environment.wall_ns(spool->environment.context);
}

int64_t spool_monotonic_ns(const struct spool *spool)
{
    return spool->environment.monotonic_ns(spool->environment.context);
}

// ---- opening

static bool check_options(const struct spool_options *options, struct sl_error *err)
{
    size_t length = strlen(options->dir);
    if (length == 0 || length > SPOOL_DIR_MAX || options->dir[0] != '/')
        return sl_fail(err, SL_E_INVALID, "spool.dir must be an absolute path of at most %d bytes", SPOOL_DIR_MAX);
    if (options->node[0] == '\0' || strlen(options->node) > SPOOL_NAME_MAX || strchr(options->node, '.') != NULL)
        return sl_fail(err, SL_E_INVALID, "node name");
    if (options->lane_count == 0 || options->lane_count > SPOOL_LANES_MAX)
        return sl_fail(err, SL_E_INVALID, "%zu lanes; 1 to %d are possible", options->lane_count, SPOOL_LANES_MAX);
    if (options->segment_bytes < MIN_SEGMENT_BYTES || options->segment_bytes % SPOOL_BLOCK != 0)
        return sl_fail(err, SL_E_INVALID, "spool.segment must be a multiple of %d and at least 1 MiB", SPOOL_BLOCK);
    if (options->max_bytes < 4 * (uint64_t)MIN_SEGMENT_BYTES)
        return sl_fail(err, SL_E_INVALID, "spool.max must be at least 4 MiB");
    if (options->prepared == 0 || options->prepared > READY_MAX / 2)
        return sl_fail(err, SL_E_INVALID, "prepared segments: 1 to %d", READY_MAX / 2);
    return true;
}

static bool copy_lanes(struct spool *spool, const struct spool_options *options, struct sl_error *err)
{
    for (size_t i = 0; i < options->lane_count; i++) {
        size_t length = strlen(options->lanes[i]);
        if (length == 0 || length > SPOOL_NAME_MAX || strcspn(options->lanes[i], " \t\r\n") != length)
            return sl_fail(err, SL_E_INVALID, "lane name");
        memcpy(spool->lanes[i], options->lanes[i], length + 1);
    }
    atomic_store(&spool->lane_count, (uint32_t)options->lane_count);
    return true;
}

static void init_locks(struct spool *spool)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&spool->queue_mutex, NULL);
    pthread_mutex_init(&spool->mutex, NULL);
    pthread_mutex_init(&spool->progress_mutex, NULL);
    pthread_mutex_init(&spool->marks_mutex, NULL);
    pthread_cond_init(&spool->queue_filled, &monotonic);
    pthread_cond_init(&spool->writer_answered, &monotonic);
    pthread_cond_init(&spool->published, &monotonic);
    pthread_cond_init(&spool->keeper_wanted, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static struct spool *spool_new(const struct spool_options *options)
{
    struct spool *spool = calloc(1, sizeof(*spool));
    if (spool == NULL)
        return NULL;
    spool->pool = frame_pool_new();
    if (spool->pool == NULL || !replica_new(spool)) {
        if (spool->pool != NULL)
            frame_pool_release(spool->pool);
        free(spool);
        return NULL;
    }
    init_locks(spool);
    spool->storage = *options->storage;
    spool->environment = options->environment != NULL ? *options->environment : real_environment;
    memcpy(spool->dir, options->dir, strlen(options->dir) + 1);
    memcpy(spool->node, options->node, strlen(options->node) + 1);
    spool->max_bytes = options->max_bytes;
    // Four segments at least must fit, or one segment of unproduced events and the prepared ones would fill the budget.
    uint64_t largest = options->max_bytes / 4 / SPOOL_BLOCK * SPOOL_BLOCK;
    spool->segment_bytes = options->segment_bytes < largest ? options->segment_bytes : largest;
    spool->append_bytes = options->append_bytes;
    spool->retain_ns = options->retain_ns;
    spool->prepared = options->prepared;
    memcpy(spool->ids_key_id, options->ids_key_id, sizeof(spool->ids_key_id));
    spool->ids_window_ns = options->ids_window_ns;
    spool->on_failed = options->on_failed;
    spool->on_frame = options->on_frame;
    spool->on_synced = options->on_synced;
    spool->user = options->user;
    spool->counter_min = options->counter_min;
    spool->manual = options->manual;
    spool->lock_handle = -1;
    spool->queue_last = &spool->queue_first;
    spool->writer.last = &spool->writer.first;
    spool->writer.log.handle = -1;
    histogram_init(&spool->sync_ns, &histogram_latency_ns);
    histogram_init(&spool->commit_events, &histogram_sizes);
    return spool;
}

static void spool_free(struct spool *spool)
{
    replica_free(spool);
    keeper_release(spool);
    stream_log_release(&spool->writer.log);
    while (spool->streams != NULL) {
        struct stream *stream = spool->streams;
        spool->streams = stream->next;
        stream_free(stream);
    }
    if (spool->lock_handle >= 0)
        spool->storage.ops->close(spool->storage.context, spool->lock_handle);
    recent_clear(&spool->recent);
    frame_pool_release(spool->pool);
    pthread_mutex_destroy(&spool->queue_mutex);
    pthread_mutex_destroy(&spool->mutex);
    pthread_mutex_destroy(&spool->progress_mutex);
    pthread_mutex_destroy(&spool->marks_mutex);
    pthread_cond_destroy(&spool->queue_filled);
    pthread_cond_destroy(&spool->writer_answered);
    pthread_cond_destroy(&spool->published);
    pthread_cond_destroy(&spool->keeper_wanted);
    free(spool);
}

static bool make_directory(struct spool *spool, struct sl_error *err)
{
    const struct storage *storage = &spool->storage;
    int rc = storage->ops->mkdir(storage->context, spool->dir);
    if (rc == -EEXIST)
        return true;
    char parent[SPOOL_PATH_MAX];
    memcpy(parent, spool->dir, sizeof(parent));
    char *slash = strrchr(parent, '/');
    *slash = '\0';
    if (rc == -ENOENT && slash != parent) {
        rc = storage->ops->mkdir(storage->context, parent);
        if (rc >= 0)
            rc = storage->ops->mkdir(storage->context, spool->dir);
    }
    if (rc >= 0)
        rc = storage->ops->sync_directory(storage->context, slash != parent ? parent : "/");
    return rc >= 0 || sl_fail_errno(err, rc == -ENOSPC ? SL_E_NO_SPACE : SL_E_IO, -rc, "create %s", spool->dir);
}

static bool lock_directory(struct spool *spool, struct sl_error *err)
{
    int rc = spool->storage.ops->lock(spool->storage.context, spool->dir);
    if (rc == -EWOULDBLOCK)
        return sl_fail(err, SL_E_LOCKED, "%s is in use by another process", spool->dir);
    if (rc < 0)
        return sl_fail_errno(err, SL_E_IO, -rc, "lock %s", spool->dir);
    spool->lock_handle = rc;
    return true;
}

// A segment for a spool that has none ready: small, and zeroed only where the first frames go. With little space, a
// smaller one.
static bool quick_segment(struct spool *spool, struct ready_segment *out, struct sl_error *err)
{
    struct preparer *preparer = &spool->keeper.preparer;
    uint64_t size_bytes = spool->segment_bytes < QUICK_SEGMENT_BYTES ? spool->segment_bytes : QUICK_SEGMENT_BYTES;
    while (!preparer_begin(preparer, size_bytes, err)) {
        if (err->code != SL_E_NO_SPACE || size_bytes <= MIN_SEGMENT_BYTES / 4)
            return false;
        size_bytes = size_bytes / 2 / SPOOL_BLOCK * SPOOL_BLOCK;
    }
    bool complete = false;
    for (uint64_t zeroed = 0; zeroed < QUICK_ZERO_BYTES && !complete; zeroed = preparer->zeroed)
        if (!preparer_fill(preparer, &complete, err))
            return false;
    spool->file_bytes += size_bytes;
    return preparer_finish(preparer, out, err);
}

static bool open_segments(struct spool *spool, struct sl_error *err)
{
    if (!preparer_init(&spool->keeper.preparer, &spool->storage, spool->dir, err))
        return false;
    size_t capacity = spool->prepared + 1;
    if (!preparer_adopt(&spool->keeper.preparer, spool->ready, capacity, &spool->ready_count, err))
        return false;
    for (size_t i = 0; i < spool->ready_count; i++)
        spool->file_bytes += spool->ready[i].size_bytes;
    spool->keeper.ballast = ballast_is_there(&spool->storage, spool->dir);
    spool->file_bytes += spool->keeper.ballast ? (uint64_t)BALLAST_BYTES : 0;
    return true;
}

static bool open_stream(struct spool *spool, struct sl_error *err)
{
    struct stream *stream = incarnation_make(spool, err);
    if (stream == NULL)
        return false;
    incarnation_follow_older(stream);
    struct ready_segment ready;
    if (spool->ready_count > 0) {
        ready = ready_take(spool, 0);
    } else if (!quick_segment(spool, &ready, err)) {
        incarnation_discard(stream);
        return false;
    }
    return incarnation_begin(spool, stream, &ready, err);
}

static void name_thread(pthread_t thread, const char *name)
{
    pthread_setname_np(thread, name); // only for people who look; cannot fail for these names
}

static bool start_threads(struct spool *spool, struct sl_error *err)
{
    // Signals are the main thread's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&spool->writer_thread, NULL, writer_main, spool);
    int keeper_rc = rc == 0 ? pthread_create(&spool->keeper_thread, NULL, keeper_main, spool) : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0 && keeper_rc != 0) {
        pthread_mutex_lock(&spool->queue_mutex);
        spool->closing = true;
        pthread_mutex_unlock(&spool->queue_mutex);
        writer_kick(spool);
        pthread_join(spool->writer_thread, NULL);
    }
    if (rc != 0 || keeper_rc != 0)
        return sl_fail_errno(err, SL_E_IO, rc != 0 ? rc : keeper_rc, "start of a thread");
    name_thread(spool->writer_thread, "spool-writer");
    name_thread(spool->keeper_thread, "spool-keeper");
    return true;
}

static bool count_refused(void *user, const char *name, bool is_directory)
{
    struct spool *spool = user;
    size_t length = strlen(name);
    if (!is_directory && length > 5 && strcmp(name + length - 5, ".json") == 0)
        atomic_fetch_add(&spool->refused_records, 1);
    return true;
}

static bool try_open(struct spool **out, const struct spool_options *options, struct sl_error *err)
{
    struct spool *spool = spool_new(options);
    if (spool == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "spool");
    char refused[SPOOL_PATH_MAX];
    spool_path(refused, spool->dir, "refused");
    bool open = copy_lanes(spool, options, err) && make_directory(spool, err) && lock_directory(spool, err) &&
                streams_discover(spool, err) && open_segments(spool, err) && open_stream(spool, err);
    size_t ready_segments = spool->ready_count; // of the threads from here on
    if (open) {
        spool->storage.ops->list(spool->storage.context, refused, count_refused, spool);
        figures_refresh(spool);
        figures_room(spool);
        open = spool->manual || start_threads(spool, err);
    }
    if (!open) {
        spool_free(spool);
        return false;
    }
    const struct stream *stream = spool->current;
    sl_logf(SL_INFO, "spool", "stream opened", SL_STR("stream", stream->id), SL_STR("predecessor", stream->predecessor),
            SL_UINT("predecessor_seq", stream->predecessor_seq), SL_UINT("ready_segments", ready_segments));
    *out = spool;
    return true;
}

bool spool_open(struct spool **out, const struct spool_options *options, struct sl_error *err)
{
    if (!check_options(options, err))
        return sl_wrap(err, "spool");
    bool open = try_open(out, options, err);
    if (!open && err->code == SL_E_NO_SPACE && ballast_give_up(options->storage, options->dir)) {
        sl_logf(SL_WARN, "spool", "the disk is full: ballast given up for the start", SL_STR("error", err->text));
        open = try_open(out, options, err);
    }
    return open || sl_wrap(err, "open spool");
}

// ---- closing

bool spool_close(struct spool *spool, struct sl_error *err)
{
    pthread_mutex_lock(&spool->queue_mutex);
    spool->closing = true;
    pthread_cond_broadcast(&spool->writer_answered);
    pthread_mutex_unlock(&spool->queue_mutex);
    atomic_store(&spool->stopping, true);
    writer_kick(spool);
    if (spool->manual) {
        int64_t pause_ns;
        while (!spool->writer.finished)
            if (!spool_step_writer(spool))
                keeper_step(spool, &pause_ns);
        replica_stop(spool);
    } else {
        pthread_join(spool->writer_thread, NULL);
        replica_stop(spool);
        pthread_mutex_lock(&spool->mutex);
        spool->keeper_stop = true;
        pthread_cond_signal(&spool->keeper_wanted);
        pthread_mutex_unlock(&spool->mutex);
        pthread_join(spool->keeper_thread, NULL);
    }
    keeper_persist(spool);
    bool good = !atomic_load(&spool->failed) && !spool->writer.gave_up;
    spool_free(spool);
    return good || sl_fail(err, SL_E_SYNC, "the last writes of the spool failed");
}

// ---- small questions

const char *spool_stream(const struct spool *spool)
{
    return spool->current->id;
}

uint64_t spool_synced_seq(const struct spool *spool)
{
    return atomic_load_explicit(&spool->synced_seq, memory_order_acquire);
}

size_t spool_lane_index(const struct spool *spool, const char *lane)
{
    uint32_t count = atomic_load_explicit(&spool->lane_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(spool->lanes[i], lane) == 0)
            return i;
    return SIZE_MAX;
}

// Without threads the caller does their work.
void spool_wait_for_writer(struct spool *spool)
{
    if (!spool->manual) {
        pthread_cond_wait(&spool->writer_answered, &spool->queue_mutex);
        return;
    }
    pthread_mutex_unlock(&spool->queue_mutex);
    if (!spool_step_writer(spool))
        spool_step_keeper(spool);
    pthread_mutex_lock(&spool->queue_mutex);
}

bool spool_alive(const struct spool *spool)
{
    return !spool->closing && !atomic_load(&spool->failed);
}

// No segment is ready and none can be made right now.
static bool no_segment(const struct spool *spool)
{
    return atomic_load(&spool->no_space) && atomic_load(&spool->room_ready) == 0;
}

bool spool_declare_lane(struct spool *spool, const char *lane, struct sl_error *err)
{
    size_t length = strlen(lane);
    if (length == 0 || length > SPOOL_NAME_MAX || strcspn(lane, " \t\r\n") != length)
        return sl_fail(err, SL_E_INVALID, "lane name");
    pthread_mutex_lock(&spool->queue_mutex);
    while (spool->lane_wanted[0] != '\0' && spool_alive(spool))
        spool_wait_for_writer(spool); // another caller's turn
    bool known = spool_lane_index(spool, lane) != SIZE_MAX;
    bool room = atomic_load(&spool->lane_count) < SPOOL_LANES_MAX, no_space = false;
    if (!known && room) {
        memcpy(spool->lane_wanted, lane, length + 1);
        spool->writer_kicked = true;
        pthread_cond_signal(&spool->queue_filled);
        while (spool_lane_index(spool, lane) == SIZE_MAX && spool_alive(spool) && !no_segment(spool))
            spool_wait_for_writer(spool);
        known = spool_lane_index(spool, lane) != SIZE_MAX;
        no_space = !known && no_segment(spool);
        if (!known) { // let the next caller in
            spool->lane_wanted[0] = '\0';
            pthread_cond_broadcast(&spool->writer_answered);
        }
    }
    pthread_mutex_unlock(&spool->queue_mutex);
    if (!room && !known)
        return sl_fail(err, SL_E_TOO_LARGE, "lane %s: a stream has at most %d lanes", lane, SPOOL_LANES_MAX);
    if (no_space)
        return sl_fail(err, SL_E_NO_SPACE, "lane %s: no space for the segment that would name it", lane);
    return known || sl_fail(err, SL_E_UNAVAILABLE, "lane %s: the spool is failed or closing", lane);
}

size_t spool_streams(struct spool *spool, struct spool_stream_info *out, size_t capacity)
{
    size_t count = 0;
    pthread_mutex_lock(&spool->mutex);
    for (const struct stream *stream = spool->streams; stream != NULL; stream = stream->next) {
        if (stream->gone || stream->segment_count == 0)
            continue;
        if (count < capacity)
            stream_info(stream, &out[count]);
        count++;
    }
    pthread_mutex_unlock(&spool->mutex);
    return count;
}

bool spool_stream_find(struct spool *spool, const char *id, struct spool_stream_info *out)
{
    pthread_mutex_lock(&spool->mutex);
    const struct stream *stream = stream_find(spool, id);
    bool there = stream != NULL && !stream->gone && stream->segment_count > 0;
    if (there)
        stream_info(stream, out);
    pthread_mutex_unlock(&spool->mutex);
    return there;
}
