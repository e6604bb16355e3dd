// A process's streams, one after the other: the first at spool_open, each further one at spool_next_stream.
//
// The happy path of a change: the caller's thread makes the next stream's number and directory durable; then it asks
// the writer. The writer takes a ready segment, seals the present stream (closed), activates the segment as the first
// one of the next stream, and makes that the current one under one lock: readers of the old stream come to its end,
// batches that wait go into the new one.
//
// What a crash may leave, by the point where it comes:
//   - before the seal: a number that no stream has, a directory without a segment. The next start deletes it.
//   - between seal and activation: the same, and a closed stream. The next start's stream follows it.
//   - behind the activation: two whole streams, the newer one without a record at first.
// Failure: without a segment, and when number or directory cannot be made, nothing has changed and the old stream goes
// on. A seal or an activation that fails is the spool's failure, as everywhere in the writer.
//
// A stream without records is nobody's predecessor: what came before it comes before its successor, too.
#include "spool/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

// ---- what comes before a stream

static void follow(struct stream *stream, const struct stream *before, uint64_t end_seq)
{
    const char *predecessor = end_seq > 0 ? before->id : before->predecessor;
    memcpy(stream->predecessor, predecessor, strlen(predecessor) + 1);
    stream->predecessor_seq = end_seq > 0 ? end_seq : before->predecessor_seq;
}

// The end of an older stream, from the headers in its last segment. What cannot be read makes it a lower bound.
static uint64_t find_end(struct stream *stream)
{
    enum { FAILURES_MAX = 4 }; // the scanner takes a sector that cannot be read three times for damage
    uint64_t end_seq = stream->segments[stream->segment_count - 1].first_seq - 1;
    struct scanner scanner;
    stream_scanner(&scanner, stream, UINT64_MAX, false);
    unsigned failures = 0;
    for (bool more = true; more;) {
        struct scan_event event;
        struct sl_error err;
        enum scan_result result = scanner_next(&scanner, &event, &err);
        more = result != SCAN_END && result != SCAN_WAIT && (result != SCAN_FAILED || ++failures < FAILURES_MAX);
        if (result != SCAN_FAILED && result != SCAN_WAIT) // a tail that was taken by its header may be taken back
            end_seq = event.last_seq >= event.first_seq ? event.last_seq : event.first_seq - 1;
        if (result == SCAN_FAILED && !more)
            sl_logf(SL_WARN, "spool", "the predecessor's end is not known for certain", SL_STR("stream", stream->id),
                    SL_UINT("at_least", end_seq), SL_STR("error", err.text));
    }
    scanner_release(&scanner);
    return end_seq;
}

void incarnation_follow_older(struct stream *stream)
{
    struct spool *spool = stream->spool;
    struct stream *newest = NULL;
    for (struct stream *older = spool->streams; older != NULL; older = older->next)
        if (older->segment_count > 0 && strcmp(older->node, spool->node) == 0)
            newest = older;
    if (newest == NULL)
        return;
    stream_settle(newest); // what is named must not be gone after a power loss
    follow(stream, newest, find_end(newest));
}

// ---- making and beginning one

struct stream *incarnation_make(struct spool *spool, struct sl_error *err)
{
    uint64_t counter;
    if (!streams_next_counter(spool, &counter, err))
        return NULL;
    uint32_t chance;
    spool->environment.random(spool->environment.context, &chance, sizeof(chance));
    char id[SPOOL_STREAM_ID_MAX];
    snprintf(id, sizeof(id), "%s.%llu-%08x", spool->node, (unsigned long long)counter, chance);
    struct stream *stream = stream_new(spool, id);
    memcpy(stream->node, spool->node, sizeof(stream->node));
    stream->counter = counter;
    const struct storage *storage = &spool->storage;
    int rc = storage->ops->mkdir(storage->context, stream->dir);
    if (rc >= 0)
        rc = storage->ops->sync_directory(storage->context, spool->dir);
    if (rc >= 0)
        return stream;
    sl_fail_errno(err, rc == -ENOSPC || rc == -EDQUOT ? SL_E_NO_SPACE : SL_E_IO, -rc, "create %s", stream->dir);
    incarnation_discard(stream);
    return NULL;
}

void incarnation_discard(struct stream *stream)
{
    const struct storage *storage = &stream->spool->storage;
    storage->ops->rmdir(storage->context, stream->dir); // else the next start does it
    stream_free(stream);
}

static void init_log(struct spool *spool, const struct stream *stream)
{
    struct stream_log *log = &spool->writer.log;
    stream_log_release(log);
    stream_log_init(log, &spool->storage, stream->dir);
    log->pool = spool->pool;
    log->incarnation = stream->incarnation;
    log->on_frame = spool->on_frame;
    log->user = spool->user;
    struct segment_header *header = &log->header;
    memcpy(header->stream, stream->id, sizeof(header->stream));
    memcpy(header->node, stream->node, sizeof(header->node));
    memcpy(header->predecessor, stream->predecessor, sizeof(header->predecessor));
    memcpy(header->lanes, spool->lanes, sizeof(header->lanes));
    memcpy(header->ids_key_id, spool->ids_key_id, sizeof(header->ids_key_id));
    header->counter = stream->counter;
    header->predecessor_seq = stream->predecessor_seq;
    header->lane_count = stream->lane_count;
}

// With spool->mutex: the list's last one, and the one that is written.
static void make_current(struct spool *spool, struct stream *stream)
{
    struct stream *ended = spool->current;
    if (ended != NULL) {
        ended->current = false;
        ended->scanned = ended->settled = true; // this process synced all of it
    }
    stream->current = stream->written = true;
    struct stream **place = &spool->streams;
    while (*place != NULL)
        place = &(*place)->next;
    *place = stream;
    spool->current = stream;
    recent_clear(&spool->recent); // its frames are found by seq and offset
    spool->recent.followed = false;
    atomic_store_explicit(&spool->synced_seq, 0, memory_order_release);
}

bool incarnation_begin(struct spool *spool, struct stream *stream, struct ready_segment *ready, struct sl_error *err)
{
    const struct stream *ended = spool->current;
    if (ended != NULL) {
        stream->incarnation = ended->incarnation + 1;
        follow(stream, ended, ended->end_seq);
    }
    stream->lane_count = atomic_load(&spool->lane_count);
    for (uint32_t i = 0; i < stream->lane_count; i++)
        memcpy(stream->lanes[i].name, spool->lanes[i], sizeof(spool->lanes[i]));
    init_log(spool, stream);
    int64_t now = spool_wall_ns(spool);
    if (!writer_activate(spool, ready, now, err)) {
        stream_free(stream);
        return false;
    }
    pthread_mutex_lock(&spool->mutex);
    make_current(spool, stream);
    writer_add_segment(spool, now);
    pthread_mutex_unlock(&spool->mutex);
    return true;
}

// ---- the change, as the writer sees it

// What was admitted finds room without the rest of the segment that is written now.
static bool has_room(struct spool *spool)
{
    return !atomic_load(&spool->no_space) ||
           atomic_load(&spool->room_ready) >= atomic_load(&spool->queued_bytes) + figures_reserve(spool);
}

struct stream *incarnation_take(struct spool *spool, struct ready_segment *ready)
{
    struct stream *next = NULL;
    pthread_mutex_lock(&spool->queue_mutex);
    pthread_mutex_lock(&spool->mutex);
    if (spool->change == CHANGE_ASKED && !has_room(spool)) {
        spool->change = CHANGE_NO_ROOM;
        pthread_cond_broadcast(&spool->writer_answered);
    } else if (spool->change == CHANGE_ASKED) {
        size_t index = ready_fitting(spool, 1);
        spool->wanted_bytes = index == SIZE_MAX ? 1 : 0;
        if (index != SIZE_MAX) {
            *ready = ready_take(spool, index);
            next = spool->next_stream;
            spool->change = CHANGE_UNDER_WAY;
        }
        keeper_kick(spool);
    }
    pthread_mutex_unlock(&spool->mutex);
    pthread_mutex_unlock(&spool->queue_mutex);
    return next;
}

void incarnation_taken(struct spool *spool, bool changed)
{
    pthread_mutex_lock(&spool->queue_mutex);
    spool->change = changed ? CHANGE_DONE : CHANGE_FAILED;
    pthread_cond_broadcast(&spool->writer_answered);
    pthread_mutex_unlock(&spool->queue_mutex);
}

// ---- the change, as its caller sees it

// Takes the turn of the calls. False: the spool is failed or closing.
static bool begin_change(struct spool *spool)
{
    pthread_mutex_lock(&spool->queue_mutex);
    while (spool->change != CHANGE_NONE && spool_alive(spool))
        spool_wait_for_writer(spool);
    bool mine = spool_alive(spool);
    if (mine)
        spool->change = CHANGE_PREPARING;
    pthread_mutex_unlock(&spool->queue_mutex);
    return mine;
}

static void end_change(struct spool *spool)
{
    pthread_mutex_lock(&spool->queue_mutex);
    spool->change = CHANGE_NONE;
    pthread_cond_broadcast(&spool->writer_answered); // the next caller
    pthread_mutex_unlock(&spool->queue_mutex);
}

// Gives the stream to the writer and waits for what comes of it. CHANGE_NO_ROOM, and CHANGE_ASKED (the spool is failed
// or closing): the stream is the caller's again.
static enum change ask_writer(struct spool *spool, struct stream *stream)
{
    pthread_mutex_lock(&spool->queue_mutex);
    spool->next_stream = stream;
    spool->change = CHANGE_ASKED;
    spool->writer_kicked = true;
    pthread_cond_signal(&spool->queue_filled);
    while (spool->change == CHANGE_UNDER_WAY || (spool->change == CHANGE_ASKED && spool_alive(spool)))
        spool_wait_for_writer(spool);
    enum change came = spool->change;
    spool->change = CHANGE_PREPARING; // the writer does not look at it any more
    pthread_mutex_unlock(&spool->queue_mutex);
    return came;
}

bool spool_next_stream(struct spool *spool, struct sl_error *err)
{
    if (!begin_change(spool))
        return sl_fail(err, SL_E_UNAVAILABLE, "next stream: the spool is failed or closing");
    struct stream *stream = incarnation_make(spool, err);
    enum change came = stream != NULL ? ask_writer(spool, stream) : CHANGE_PREPARING;
    if (came == CHANGE_ASKED || came == CHANGE_NO_ROOM)
        incarnation_discard(stream);
    end_change(spool);
    if (came == CHANGE_PREPARING)
        return sl_wrap(err, "next stream");
    if (came == CHANGE_NO_ROOM)
        return sl_fail(err, SL_E_NO_SPACE, "next stream: no space for its first segment");
    return came == CHANGE_DONE || sl_fail(err, SL_E_UNAVAILABLE, "next stream: the spool is failed or closing");
}

// ---- small questions

uint32_t spool_incarnation(const struct spool *spool)
{
    return spool->current->incarnation;
}

const char *spool_incarnation_id(struct spool *spool, uint32_t incarnation)
{
    const char *id = NULL;
    pthread_mutex_lock(&spool->mutex);
    for (const struct stream *stream = spool->streams; stream != NULL && id == NULL; stream = stream->next)
        if (stream->written && stream->incarnation == incarnation)
            id = stream->id;
    pthread_mutex_unlock(&spool->mutex);
    return id;
}
