// The keeper: everything that may take its time. One small piece a step, the most urgent first:
//   1. a segment for a writer that stands still (handed over as soon as it is allocated)
//   2. the same for a copy of another node's stream that stands still, small
//   3. segments ahead of need, one more while copies grow, zeroed chunk by chunk, with pauses as long as the work so
//   that the writer's syncs keep the disk
//   4. the first walk over older streams
//   5. once a second: progress and damage to disk, retention, growth
//
// No space: only the preparer meets it. spool_admit refuses from then on what might not fit any more; the keeper tries
// again every second, and at once when something was deleted. Copies stop a segment earlier: the last one is for the
// own stream.
#include "spool/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <time.h>

enum { IDLE_PAUSE_MS = 200, FILL_PAUSE_MS_MAX = 50 };

void keeper_kick(struct spool *spool)
{
    spool->keeper_kicked = true;
    pthread_cond_signal(&spool->keeper_wanted);
}

size_t ready_fitting(const struct spool *spool, uint64_t body_bytes)
{
    for (size_t i = 0; i < spool->ready_count; i++)
        if (segment_usable(spool->ready[i].size_bytes) >= body_bytes)
            return i;
    return SIZE_MAX;
}

struct ready_segment ready_take(struct spool *spool, size_t index)
{
    sl_assert(index < spool->ready_count);
    struct ready_segment ready = spool->ready[index];
    spool->ready_count--;
    memmove(&spool->ready[index], &spool->ready[index + 1], (spool->ready_count - index) * sizeof(ready));
    figures_room(spool);
    return ready;
}

// ---- preparing

static void set_no_space(struct spool *spool, bool none, const char *why)
{
    if (atomic_exchange(&spool->no_space, none) == none)
        return;
    if (none)
        sl_logf(SL_ERROR, "spool", "no space for another segment: refusing events before the last one is full",
                SL_STR("reason", why));
    else
        sl_log(SL_INFO, "spool", "space for segments again");
    pthread_mutex_lock(&spool->queue_mutex);
    pthread_cond_broadcast(&spool->writer_answered); // who declares a lane does not wait for space
    pthread_mutex_unlock(&spool->queue_mutex);
    writer_kick(spool);
}

static void keep_away(struct spool *spool, const char *why)
{
    set_no_space(spool, true, why);
    spool->keeper.next_prepare_ns = spool_monotonic_ns(spool) + SL_NS_PER_S;
}

struct need {
    uint64_t size_bytes; // 0: none
    bool urgent;         // somebody stands still for it
    bool for_copies;     // the own stream has what it needs
};

// A body larger than a segment gets one of its own size.
static uint64_t size_for(uint64_t body_bytes, uint64_t usual)
{
    uint64_t own = frame_size((uint32_t)body_bytes) + 2 * (uint64_t)SPOOL_BLOCK;
    return own > usual ? own : usual;
}

static struct need find_need(struct spool *spool)
{
    struct need need = {0};
    uint64_t quick = spool->segment_bytes < QUICK_SEGMENT_BYTES ? spool->segment_bytes : QUICK_SEGMENT_BYTES;
    bool copies_wait = spool->keeper.next_copy_ns > spool_monotonic_ns(spool);
    bool no_space = atomic_load(&spool->no_space); // that there is some again only a whole segment shows
    pthread_mutex_lock(&spool->mutex);
    uint64_t wanted = spool->wanted_bytes, copy = spool->copy_wanted_bytes;
    if (wanted > 0 && ready_fitting(spool, wanted) == SIZE_MAX)
        need = (struct need){.size_bytes = size_for(wanted, spool->segment_bytes), .urgent = true};
    else if (copy > 0 && !copies_wait && (no_space || spool->ready_count < 2 || ready_fitting(spool, copy) == SIZE_MAX))
        need = (struct need){
            .size_bytes = size_for(copy, no_space ? spool->segment_bytes : quick), .urgent = true, .for_copies = true};
    else if (spool->ready_count < spool->prepared)
        need.size_bytes = spool->segment_bytes;
    else if (spool->ready_count == spool->prepared && spool->streams_growing > 0 && !copies_wait)
        need = (struct need){.size_bytes = spool->segment_bytes, .for_copies = true};
    pthread_mutex_unlock(&spool->mutex);
    return need;
}

static uint64_t budget_left(struct spool *spool)
{
    pthread_mutex_lock(&spool->mutex);
    uint64_t left = spool->max_bytes > spool->file_bytes ? spool->max_bytes - spool->file_bytes : 0;
    pthread_mutex_unlock(&spool->mutex);
    return left;
}

static void account(struct spool *spool, uint64_t bytes, bool more)
{
    pthread_mutex_lock(&spool->mutex);
    spool->file_bytes += more ? bytes : -bytes;
    pthread_mutex_unlock(&spool->mutex);
}

static void no_room(struct spool *spool, const struct need *need, const char *why)
{
    if (!need->for_copies) {
        keep_away(spool, why);
        return;
    }
    spool->keeper.next_copy_ns = spool_monotonic_ns(spool) + SL_NS_PER_S;
    if (!atomic_exchange(&spool->copies_no_space, true))
        sl_logf(SL_WARN, "spool",
                "no space for copies of other nodes' streams: they stand still when theirs is used up",
                SL_STR("reason", why));
}

static bool begin(struct spool *spool, const struct need *need)
{
    struct preparer *preparer = &spool->keeper.preparer;
    uint64_t size_bytes = need->size_bytes;
    while (budget_left(spool) < size_bytes + (need->for_copies ? spool->segment_bytes : 0))
        if (!retain_step(spool, true)) {
            no_room(spool, need, "spool.max");
            return false;
        }
    struct sl_error err;
    while (!preparer_begin(preparer, size_bytes, &err))
        if (err.code != SL_E_NO_SPACE || !retain_step(spool, true)) {
            no_room(spool, need, err.text);
            return false;
        }
    account(spool, size_bytes, true);
    set_no_space(spool, false, NULL);
    if (need->for_copies && atomic_exchange(&spool->copies_no_space, false))
        sl_log(SL_INFO, "spool", "space for copies of other nodes' streams again");
    return true;
}

static void hand_over(struct spool *spool)
{
    struct preparer *preparer = &spool->keeper.preparer;
    struct ready_segment ready;
    struct sl_error err;
    uint64_t size_bytes = preparer->making.size_bytes;
    if (!preparer_finish(preparer, &ready, &err)) {
        account(spool, size_bytes, false);
        keep_away(spool, err.text);
        return;
    }
    pthread_mutex_lock(&spool->mutex);
    sl_assert(spool->ready_count < READY_MAX);
    spool->ready[spool->ready_count++] = ready;
    figures_room(spool);
    pthread_mutex_unlock(&spool->mutex);
    writer_kick(spool);
    replica_kick(spool);
}

static void fill(struct spool *spool)
{
    struct preparer *preparer = &spool->keeper.preparer;
    struct sl_error err;
    uint64_t size_bytes = preparer->making.size_bytes;
    bool complete;
    if (!preparer_fill(preparer, &complete, &err)) {
        account(spool, size_bytes, false);
        keep_away(spool, err.text);
    } else if (complete) {
        hand_over(spool);
    }
}

// How long to leave the disk to the writer after a chunk that took so long.
static int64_t pace(struct spool *spool, int64_t took_ns)
{
    pthread_mutex_lock(&spool->mutex);
    bool none_ready = spool->ready_count == 0;
    pthread_mutex_unlock(&spool->mutex);
    bool soon = atomic_load_explicit(&spool->room_current, memory_order_relaxed) < spool->segment_bytes / 4;
    int64_t pause_ns = !none_ready ? 3 * took_ns : soon ? 0 : took_ns;
    return pause_ns < FILL_PAUSE_MS_MAX * SL_NS_PER_MS ? pause_ns : FILL_PAUSE_MS_MAX * SL_NS_PER_MS;
}

static bool ready_is_full(struct spool *spool)
{
    pthread_mutex_lock(&spool->mutex);
    bool full = spool->ready_count == READY_MAX;
    pthread_mutex_unlock(&spool->mutex);
    return full;
}

// *pause_ns is lowered to the time of the next chunk, or of the next try.
static bool prepare_step(struct spool *spool, int64_t *pause_ns)
{
    struct keeper *keeper = &spool->keeper;
    struct need need = find_need(spool);
    bool urgent = need.urgent;
    int64_t now = spool_monotonic_ns(spool);
    if (!keeper->preparer.active && (need.size_bytes == 0 || ready_is_full(spool)))
        return false;
    int64_t next_ns = keeper->preparer.active ? keeper->next_fill_ns : keeper->next_prepare_ns;
    if (next_ns > now && !(keeper->preparer.active && urgent)) {
        *pause_ns = next_ns - now < *pause_ns ? next_ns - now : *pause_ns;
        return false;
    }
    bool begun = true;
    if (!keeper->preparer.active)
        begun = begin(spool, &need);
    else if (urgent || keeper->large_frames)
        hand_over(spool); // what is not zeroed yet is slower to write, not wrong
    else
        fill(spool);
    if (!begun || keeper->next_prepare_ns > now) // there was no space
        return false;
    int64_t after = spool_monotonic_ns(spool);
    // Without threads nobody else is at the disk.
    *pause_ns = urgent || spool->manual ? 0 : pace(spool, after - now);
    keeper->next_fill_ns = after + *pause_ns;
    return true;
}

// ---- once a second

void keeper_persist(struct spool *spool)
{
    for (struct stream *stream = stream_after(spool, NULL); stream != NULL; stream = stream_after(spool, stream)) {
        pthread_mutex_lock(&spool->mutex);
        bool progress = stream->progress_dirty && !stream->gone;
        bool damage = stream->damage_dirty && !stream->gone;
        pthread_mutex_unlock(&spool->mutex);
        struct sl_error err;
        if (progress && !progress_store(stream, &err))
            sl_logf(SL_WARN, "spool", "progress not written", SL_STR("stream", stream->id), SL_STR("error", err.text));
        if (damage && !damage_store(stream, &err))
            sl_logf(SL_WARN, "spool", "list of damage not written", SL_STR("stream", stream->id),
                    SL_STR("error", err.text));
    }
}

static void measure_growth(struct spool *spool, int64_t now)
{
    pthread_mutex_lock(&spool->mutex);
    figures_refresh(spool);
    uint64_t pending = atomic_load_explicit(&spool->pending_bytes, memory_order_relaxed);
    if (spool->growth_at_ns > 0 && now > spool->growth_at_ns) {
        double rate = ((double)pending - (double)spool->growth_pending) / ((double)(now - spool->growth_at_ns) / 1e9);
        double weight = 1.0 / 60.0; // of one second in the last minute
        spool->growth_bytes_per_s += (rate - spool->growth_bytes_per_s) * weight;
    }
    spool->growth_at_ns = now;
    spool->growth_pending = pending;
    pthread_mutex_unlock(&spool->mutex);
}

// Zeroed blocks spare a sync its metadata: half of its time for a frame of 4 KiB, nothing that can be measured from
// about 256 KiB on. There the zeros would only double the bytes that go to the disk.
static void look_at_frames(struct spool *spool)
{
    struct keeper *keeper = &spool->keeper;
    uint64_t frames = histogram_count(&spool->commit_events) - keeper->frames_seen;
    uint64_t bytes = atomic_load_explicit(&spool->appended_bytes, memory_order_relaxed) - keeper->frame_bytes_seen;
    keeper->frames_seen += frames;
    keeper->frame_bytes_seen += bytes;
    keeper->large_frames = frames >= LARGE_FRAMES_MIN && bytes / frames >= LARGE_FRAME_BYTES;
}

static void each_second(struct spool *spool, int64_t now)
{
    struct keeper *keeper = &spool->keeper;
    keeper->next_second_ns = now + SL_NS_PER_S;
    keeper_persist(spool);
    measure_growth(spool, now);
    look_at_frames(spool);
    while (retain_step(spool, false))
        keeper->next_prepare_ns = 0; // there is space again
    if (!keeper->ballast && !atomic_load(&spool->no_space) && budget_left(spool) > BALLAST_BYTES &&
        ballast_make(&spool->storage, spool->dir)) {
        keeper->ballast = true;
        account(spool, BALLAST_BYTES, true);
    }
}

bool keeper_step(struct spool *spool, int64_t *pause_ns)
{
    int64_t now = spool_monotonic_ns(spool);
    *pause_ns = IDLE_PAUSE_MS * SL_NS_PER_MS;
    if (now >= spool->keeper.next_second_ns)
        each_second(spool, now);
    bool prepared = prepare_step(spool, pause_ns);
    bool walked = walk_step(spool);
    if (walked)
        *pause_ns = 0;
    return prepared || walked;
}

// ---- the thread

static void pause_for(struct spool *spool, int64_t pause_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + pause_ns;
    until.tv_sec += ns / SL_NS_PER_S;
    until.tv_nsec = ns % SL_NS_PER_S;
    while (!spool->keeper_kicked && !spool->keeper_stop)
        if (pthread_cond_timedwait(&spool->keeper_wanted, &spool->mutex, &until) != 0)
            break;
    spool->keeper_kicked = false;
}

void *keeper_main(void *argument)
{
    struct spool *spool = argument;
    for (;;) {
        int64_t pause_ns;
        keeper_step(spool, &pause_ns);
        pthread_mutex_lock(&spool->mutex);
        if (pause_ns > 0)
            pause_for(spool, pause_ns);
        bool stop = spool->keeper_stop;
        pthread_mutex_unlock(&spool->mutex);
        if (stop)
            return NULL;
    }
}

void keeper_release(struct spool *spool)
{
    struct keeper *keeper = &spool->keeper;
    preparer_cancel(&keeper->preparer);
    if (keeper->scanned != NULL)
        scanner_release(&keeper->scan);
    for (size_t i = 0; i < spool->ready_count; i++)
        spool->storage.ops->close(spool->storage.context, spool->ready[i].handle);
    spool->ready_count = 0;
}

bool spool_step_keeper(struct spool *spool)
{
    sl_assert(spool->manual);
    int64_t pause_ns;
    return keeper_step(spool, &pause_ns);
}
