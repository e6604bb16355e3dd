// The writer: group commit without a timer. Whatever was submitted while the last frame was synced goes into the next
// one.
//
// The happy path: take the queue, build one frame from the batches' own buffers (no copy), write, sync, publish
// (readers see it, sums count it), tell every batch. When the next frame does not fit: seal, activate a ready segment,
// go on.
//
// Failure modes:
//   - a write, sync or rename fails: the stream is failed for good; every batch that waits, and every one that comes,
//   is told FAILED;
//     nothing is retried. What was written may or may not be there after a restart: nobody was told that it is.
//   - no ready segment: the writer stands still until the keeper has made one. Batches wait; nothing is lost or told.
//   - closing while there is no space for what waits: it is told FAILED, and the stream is sealed in the room kept for
//   that.
#include "spool/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

enum step { STEP_DONE, STEP_IDLE, STEP_STARVED, STEP_FINISHED };

// Bytes that a batch counts for in spool->queued_bytes: its own frame at worst.
static uint64_t queued_size(const struct spool_batch *batch)
{
    return batch->records.length + SPOOL_BLOCK + FRAME_HEADER_BYTES;
}

static void tell(struct spool *spool, struct spool_batch *batch, enum spool_outcome outcome)
{
    atomic_fetch_sub_explicit(&spool->queued_bytes, queued_size(batch), memory_order_relaxed);
    batch->outcome = outcome;
    batch->next = NULL;
    batch->done(batch);
}

static void take_queue(struct spool *spool)
{
    struct writer *writer = &spool->writer;
    pthread_mutex_lock(&spool->queue_mutex);
    if (spool->queue_first != NULL) {
        *writer->last = spool->queue_first;
        writer->last = spool->queue_last;
        spool->queue_first = NULL;
        spool->queue_last = &spool->queue_first;
    }
    pthread_mutex_unlock(&spool->queue_mutex);
}

static void fail_waiting(struct spool *spool)
{
    struct writer *writer = &spool->writer;
    take_queue(spool);
    struct spool_batch *batch = writer->first;
    writer->first = NULL;
    writer->last = &writer->first;
    while (batch != NULL) {
        struct spool_batch *next = batch->next;
        tell(spool, batch, SPOOL_FAILED);
        batch = next;
    }
}

static void set_failed(struct spool *spool, const struct sl_error *err)
{
    pthread_mutex_lock(&spool->queue_mutex); // behind it, no batch is taken any more
    if (!atomic_load(&spool->failed))
        spool->failure = *err;
    atomic_store(&spool->failed, true);
    pthread_cond_broadcast(&spool->writer_answered);
    pthread_mutex_unlock(&spool->queue_mutex);
}

// Behind fail_waiting; once.
static void tell_failure(struct spool *spool)
{
    if (spool->writer.failure_told || spool->on_failed == NULL)
        return;
    spool->writer.failure_told = true;
    pthread_mutex_lock(&spool->queue_mutex);
    struct sl_error failure = spool->failure;
    pthread_mutex_unlock(&spool->queue_mutex);
    spool->on_failed(spool->user, &failure);
}

static void fail_stream(struct spool *spool, const struct sl_error *err)
{
    sl_logf(SL_ERROR, "spool", "the stream has failed: nothing is acknowledged any more",
            SL_STR("stream", spool->current->id), SL_STR("error", err->text));
    set_failed(spool, err);
    replica_kick(spool);
    fail_waiting(spool);
    tell_failure(spool);
}

void writer_fail(struct spool *spool, const struct sl_error *err)
{
    set_failed(spool, err);
    writer_kick(spool);
}

// ---- segments

static void publish_rooms(struct spool *spool)
{
    atomic_store_explicit(&spool->room_current, stream_log_room(&spool->writer.log), memory_order_relaxed);
}

// With spool->mutex.
void wake_readers(struct spool *spool)
{
    spool->publications++;
    if (spool->readers_waiting > 0)
        pthread_cond_broadcast(&spool->published);
}

bool writer_activate(struct spool *spool, struct ready_segment *ready, int64_t wall_ns, struct sl_error *err)
{
    struct segment_uuid uuid;
    spool->environment.random(spool->environment.context, uuid.bytes, sizeof(uuid.bytes));
    return stream_log_activate(&spool->writer.log, ready, &uuid, wall_ns, err);
}

void writer_add_segment(struct spool *spool, int64_t wall_ns)
{
    const struct stream_log *log = &spool->writer.log;
    uint64_t size_bytes = log->header.size_bytes;
    struct stream *stream = spool->current;
    struct segment *last = stream->segment_count > 0 ? &stream->segments[stream->segment_count - 1] : NULL;
    if (last != NULL && last->first_seq == log->header.first_seq) { // an empty one was replaced
        spool->file_bytes -= last->file_bytes;
        last->file_bytes = size_bytes;
    } else {
        last = stream_add_segment(stream, log->header.first_seq, size_bytes);
    }
    last->used_bytes = log->offset;
    last->last_wall_ns = wall_ns;
    wake_readers(spool);
    publish_rooms(spool);
}

// Seals the segment. One without a frame is left as it is: the next one takes its name, which is its first seq.
static bool seal(struct spool *spool, bool closed, struct sl_error *err)
{
    struct stream_log *log = &spool->writer.log;
    if (log->offset == SPOOL_BLOCK && !closed) {
        log->sealed = true;
        return true;
    }
    uint64_t closed_size;
    if (!stream_log_seal(log, closed, spool_wall_ns(spool), &closed_size, err))
        return false;
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = spool->current;
    struct segment *last = &stream->segments[stream->segment_count - 1];
    spool->file_bytes -= last->file_bytes - closed_size;
    last->file_bytes = closed_size;
    last->used_bytes = log->offset;
    last->closed = true;
    wake_readers(spool);
    publish_rooms(spool);
    pthread_mutex_unlock(&spool->mutex);
    return true;
}

static enum step roll(struct spool *spool, uint64_t body_bytes, struct sl_error *err)
{
    pthread_mutex_lock(&spool->mutex);
    size_t index = ready_fitting(spool, body_bytes);
    spool->wanted_bytes = index == SIZE_MAX ? body_bytes : 0;
    struct ready_segment ready;
    if (index != SIZE_MAX)
        ready = ready_take(spool, index);
    keeper_kick(spool);
    pthread_mutex_unlock(&spool->mutex);
    if (index == SIZE_MAX)
        return STEP_STARVED;
    if (!seal(spool, false, err)) {
        spool->storage.ops->close(spool->storage.context, ready.handle); // its file is used at the next start
        fail_stream(spool, err);
        return STEP_DONE;
    }
    int64_t now = spool_wall_ns(spool);
    if (!writer_activate(spool, &ready, now, err)) {
        fail_stream(spool, err);
        return STEP_DONE;
    }
    pthread_mutex_lock(&spool->mutex);
    writer_add_segment(spool, now);
    pthread_mutex_unlock(&spool->mutex);
    return STEP_DONE;
}

// A lane was asked for: the next segment's header names it.
static enum step roll_for_lane(struct spool *spool, const char *lane)
{
    struct segment_header *header = &spool->writer.log.header;
    struct sl_error err;
    uint32_t count = header->lane_count;
    snprintf(header->lanes[count], sizeof(header->lanes[count]), "%s", lane);
    header->lane_count = count + 1;
    if (roll(spool, 1, &err) == STEP_STARVED) {
        header->lane_count = count;
        return STEP_STARVED;
    }
    if (atomic_load(&spool->failed))
        return STEP_DONE;
    pthread_mutex_lock(&spool->mutex);
    struct lane_state *state = &spool->current->lanes[spool->current->lane_count++];
    snprintf(state->name, sizeof(state->name), "%s", lane);
    pthread_mutex_unlock(&spool->mutex);
    snprintf(spool->lanes[count], sizeof(spool->lanes[count]), "%s", lane);
    atomic_store_explicit(&spool->lane_count, count + 1, memory_order_release);
    pthread_mutex_lock(&spool->queue_mutex);
    spool->lane_wanted[0] = '\0';
    pthread_cond_broadcast(&spool->writer_answered);
    pthread_mutex_unlock(&spool->queue_mutex);
    return STEP_DONE;
}

// Another stream was asked for. Without a segment for it this one goes on.
static enum step change_stream(struct spool *spool)
{
    struct ready_segment ready;
    struct stream *next = incarnation_take(spool, &ready);
    if (next == NULL)
        return STEP_STARVED;
    const struct stream *ended = spool->current;
    struct sl_error err;
    bool sealed = seal(spool, true, &err);
    if (!sealed) { // directory and file are used or deleted at the next start
        spool->storage.ops->close(spool->storage.context, ready.handle);
        stream_free(next);
    }
    bool changed = sealed && incarnation_begin(spool, next, &ready, &err);
    if (changed)
        sl_logf(SL_INFO, "spool", "stream ended, the next one opened", SL_STR("stream", next->id),
                SL_STR("ended", ended->id), SL_UINT("ended_seq", ended->end_seq));
    else
        fail_stream(spool, &err);
    incarnation_taken(spool, changed);
    return STEP_DONE;
}

// ---- frames

struct next_frame {
    int batches;
    uint32_t records;
    uint64_t body_bytes;
    uint64_t with_ids_bytes; // body, and what will be written of all ids that wait by then
};

// How many of the waiting batches go into the next frame. At least one; no more than fit into `room` otherwise.
static struct next_frame gather(struct writer *writer, uint64_t room)
{
    struct next_frame next = {0};
    int count = 0;
    for (struct spool_batch *batch = writer->first; batch != NULL; batch = batch->next) {
        uint64_t more = next.body_bytes + batch->records.length;
        uint64_t with_ids = more + stream_log_ids_bytes(&writer->log, (uint64_t)next.records + batch->records.count);
        if (count > 0 && (more > GROUP_BYTES || with_ids > room || count == FRAME_PARTS_MAX))
            break;
        next.body_bytes = more;
        next.with_ids_bytes = with_ids;
        next.records += batch->records.count;
        count++;
        writer->parts[count] = (struct iovec){.iov_base = batch->records.bytes, .iov_len = batch->records.length};
    }
    next.batches = count;
    return next;
}

static void count_batch(struct stream *stream, const struct spool_batch *batch)
{
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        if (batch->lane_counts[i] == 0)
            continue;
        stream->lanes[i].appended += batch->lane_counts[i];
        stream->lanes[i].appended_seq = batch->first_seq + batch->records.count - 1;
    }
}

// The frame is durable: readers may see it, sums count it. Then the batches are told.
static void publish(struct spool *spool, const struct frame_header *frame, int count)
{
    struct writer *writer = &spool->writer;
    uint64_t seq = frame->first_seq;
    struct spool_batch *batch = writer->first;
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = spool->current;
    struct segment *segment = &stream->segments[stream->segment_count - 1];
    segment_index_add(segment, frame->first_seq, frame->offset, frame->written_wall_ns);
    segment->used_bytes = writer->log.offset;
    segment->last_wall_ns = frame->written_wall_ns;
    for (int i = 0; i < count; i++, batch = batch->next) {
        batch->first_seq = seq;
        batch->incarnation = stream->incarnation;
        seq += batch->records.count;
        count_batch(stream, batch);
    }
    stream->end_seq = seq - 1;
    spool->wanted_bytes = 0; // it may have stood still for a segment with room for ids
    if (writer->log.written != NULL && frame->body_length >= DIRECT_FRAME_BYTES)
        recent_add(&spool->recent, writer->log.written);
    atomic_fetch_add_explicit(&spool->pending_bytes, frame_size(frame->body_length), memory_order_relaxed);
    wake_readers(spool);
    publish_rooms(spool);
    pthread_mutex_unlock(&spool->mutex);
    sl_assert(seq == writer->log.next_seq);
    atomic_fetch_add_explicit(&spool->appended_events, frame->count, memory_order_relaxed);
    atomic_fetch_add_explicit(&spool->appended_bytes, frame_size(frame->body_length), memory_order_relaxed);
    histogram_observe(&spool->commit_events, frame->count);
    atomic_store_explicit(&spool->synced_seq, seq - 1, memory_order_release);
    for (int i = 0; i < count; i++) {
        struct spool_batch *told = writer->first;
        writer->first = told->next;
        if (writer->first == NULL)
            writer->last = &writer->first;
        tell(spool, told, SPOOL_SYNCED);
    }
    if (spool->on_synced != NULL)
        spool->on_synced(spool->user, stream->incarnation, seq - 1);
}

static enum step write_frame(struct spool *spool)
{
    struct writer *writer = &spool->writer;
    struct sl_error err;
    uint64_t room = stream_log_room(&writer->log);
    struct next_frame next = gather(writer, room);
    // Without space for another segment what was admitted goes in before its ids, which are then read from the records.
    uint64_t wanted = atomic_load(&spool->no_space) ? next.body_bytes : next.with_ids_bytes;
    if (wanted > room)
        return roll(spool, wanted, &err);
    struct frame_header frame;
    int64_t before = spool_monotonic_ns(spool);
    if (!stream_log_append(&writer->log, writer->parts, next.batches, next.records, spool_wall_ns(spool), &frame,
                           &err)) {
        fail_stream(spool, &err);
        return STEP_DONE;
    }
    histogram_observe(&spool->sync_ns, (uint64_t)(spool_monotonic_ns(spool) - before));
    publish(spool, &frame, next.batches);
    return STEP_DONE;
}

static enum step finish(struct spool *spool)
{
    struct writer *writer = &spool->writer;
    struct sl_error err;
    writer->finished = true;
    if (!atomic_load(&spool->failed) && !writer->log.sealed && !seal(spool, true, &err))
        fail_stream(spool, &err);
    return STEP_FINISHED;
}

static enum step writer_step(struct spool *spool)
{
    struct writer *writer = &spool->writer;
    if (writer->finished)
        return STEP_FINISHED;
    char lane[SPOOL_NAME_MAX + 1];
    pthread_mutex_lock(&spool->queue_mutex);
    memcpy(lane, spool->lane_wanted, sizeof(lane));
    bool closing = spool->closing, change = spool->change == CHANGE_ASKED;
    pthread_mutex_unlock(&spool->queue_mutex);
    take_queue(spool);
    if (atomic_load(&spool->failed)) {
        fail_waiting(spool);
        tell_failure(spool);
        return closing ? finish(spool) : STEP_IDLE;
    }
    enum step step = STEP_IDLE;
    if (lane[0] != '\0' && !closing)
        step = roll_for_lane(spool, lane);
    if (change && !closing && step != STEP_DONE)
        step = change_stream(spool);
    if (step == STEP_IDLE || (step == STEP_STARVED && writer->first != NULL))
        step = writer->first != NULL ? write_frame(spool) : step;
    if (closing && step == STEP_STARVED && atomic_load(&spool->no_space)) {
        writer->gave_up = true;
        fail_waiting(spool);
        step = STEP_IDLE;
    }
    return closing && step == STEP_IDLE ? finish(spool) : step;
}

// ---- the thread

void writer_kick(struct spool *spool)
{
    pthread_mutex_lock(&spool->queue_mutex);
    spool->writer_kicked = true;
    pthread_cond_signal(&spool->queue_filled);
    pthread_mutex_unlock(&spool->queue_mutex);
}

static void wait_for_kick(struct spool *spool)
{
    pthread_mutex_lock(&spool->queue_mutex);
    while (!spool->writer_kicked)
        pthread_cond_wait(&spool->queue_filled, &spool->queue_mutex);
    spool->writer_kicked = false;
    pthread_mutex_unlock(&spool->queue_mutex);
}

void *writer_main(void *argument)
{
    struct spool *spool = argument;
    for (;;) {
        switch (writer_step(spool)) {
        case STEP_DONE:
            break;
        case STEP_IDLE:    // for batches
        case STEP_STARVED: // for a segment, too
            wait_for_kick(spool);
            break;
        case STEP_FINISHED:
            return NULL;
        }
    }
}

bool spool_step_writer(struct spool *spool)
{
    sl_assert(spool->manual);
    return writer_step(spool) == STEP_DONE;
}

// ---- submitting

bool spool_submit(struct spool *spool, struct spool_batch *batch)
{
    sl_assert(batch->records.count > 0 && batch->records.length <= FRAME_BODY_MAX && batch->done != NULL);
    uint64_t lanes = 0;
    for (size_t i = 0; i < SPOOL_LANES_MAX; i++)
        lanes += batch->lane_counts[i];
    sl_assert(lanes == batch->records.count);
    batch->next = NULL;
    pthread_mutex_lock(&spool->queue_mutex);
    bool taken = !spool->closing && !atomic_load(&spool->failed);
    if (taken) {
        atomic_fetch_add_explicit(&spool->queued_bytes, queued_size(batch), memory_order_relaxed);
        *spool->queue_last = batch;
        spool->queue_last = &batch->next;
        if (!spool->writer_kicked) {
            spool->writer_kicked = true;
            pthread_cond_signal(&spool->queue_filled);
        }
    }
    pthread_mutex_unlock(&spool->queue_mutex);
    return taken;
}
