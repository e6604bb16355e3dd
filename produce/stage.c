// Reading ahead: frames from the spool, walked record by record, the lane's own prepared for Kafka. It goes on while a
// commit runs, so that the next transaction starts with its first records at hand.
//
// A frame is retained once for each thing that points into it (struct chunk) and released with the last delivery
// report: payloads are never copied. Records of other lanes are stepped over; "through" moves over them.
//
// Failure modes: a damaged range goes into `open` of the progress record and the walk goes on behind it; a read error
// that is not damage is handed up and tried again; after an abort everything staged is dropped and read again.
#include "produce/internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void chunk_hold(struct chunk *chunk)
{
    chunk->references++;
}

void chunk_drop(struct session *session, struct chunk *chunk)
{
    sl_assert(chunk->references > 0);
    if (--chunk->references > 0)
        return;
    if (chunk->previous)
        chunk->previous->next = chunk->next;
    else
        session->chunks = chunk->next;
    if (chunk->next)
        chunk->next->previous = chunk->previous;
    spool_frame_release(chunk->frame);
    free(chunk->payloads);
    free(chunk);
}

static struct chunk *chunk_new(struct session *session, struct spool_frame *frame)
{
    struct chunk *chunk = calloc(1, sizeof(*chunk));
    sl_assert(chunk);
    *chunk = (struct chunk){.frame = frame, .references = 1, .next = session->chunks};
    if (chunk->next)
        chunk->next->previous = chunk;
    session->chunks = chunk;
    return chunk;
}

uint64_t stage_through(const struct session *session)
{
    return session->stage_count ? session->stage[session->stage_first].seq - 1 : session->staged_through;
}

struct message *stage_head(struct session *session)
{
    return session->stage_count ? &session->stage[session->stage_first] : NULL;
}

void stage_pop(struct session *session)
{
    struct message *message = &session->stage[session->stage_first];
    message_clear(message);
    session->staged_bytes -= message->record.payload.length;
    chunk_drop(session, message->chunk);
    session->stage_first = (session->stage_first + 1) % STAGE_MAX;
    session->stage_count--;
}

void stage_drop(struct session *session)
{
    while (session->stage_count)
        stage_pop(session);
    if (session->cursor)
        chunk_drop(session, session->cursor);
    session->cursor = NULL;
}

bool stage_reset(struct lane *lane, struct sl_error *err)
{
    struct session *session = &lane->session;
    stage_drop(session);
    // Counted and yet not in Kafka's progress: a commit's answer was true and its outcome is lost all the same.
    uint64_t before = session->counted < session->progress.through ? session->counted : session->progress.through;
    session->staged_through = before;
    session->skipped = 0;
    session->ended = false;
    session->taken = false;
    if (!spool_reader_seek(session->reader, before + 1, err))
        return sl_wrap(err, "seek %s to %" PRIu64, session->stream, before + 1);
    return true;
}

// What an earlier incarnation, or a commit whose answer was lost, has committed: counted once the walk has passed it.
static void count_skipped(struct lane *lane)
{
    struct session *session = &lane->session;
    if (session->counted >= session->progress.through || session->staged_through < session->progress.through)
        return;
    spool_note_committed(lane->produce->options.spool, session->stream, lane->name, session->progress.through,
                         session->skipped);
    session->counted = session->progress.through;
    session->skipped = 0;
}

static bool is_of_lane(const struct lane *lane, const struct record *record)
{
    return record->lane.length == strlen(lane->name) &&
           memcmp(record->lane.bytes, lane->name, record->lane.length) == 0;
}

static void walk_frame(struct lane *lane)
{
    struct session *session = &lane->session;
    struct record record;
    while (session->stage_count < STAGE_MAX && session->cursor_seq <= session->last &&
           record_next(&session->cursor_in, &record)) {
        uint64_t seq = session->cursor_seq++;
        bool own = is_of_lane(lane, &record);
        if (seq <= session->progress.through) {
            session->skipped += own && seq > session->counted;
        } else if (own && seq > session->staged_through) {
            struct message *message = &session->stage[(session->stage_first + session->stage_count) % STAGE_MAX];
            *message = (struct message){.seq = seq, .chunk = session->cursor, .record = record};
            chunk_hold(session->cursor);
            message_prepare(lane, message);
            session->stage_count++;
            session->staged_bytes += record.payload.length;
        }
        if (seq > session->staged_through)
            session->staged_through = seq;
    }
    // A body that verified against its checksum and does not parse was written by another program: not to be passed
    // over.
    sl_assert(!session->cursor_in.failed);
    if (session->cursor_in.position == session->cursor_in.length) {
        chunk_drop(session, session->cursor);
        session->cursor = NULL;
    }
    count_skipped(lane);
}

static enum stage_state take_damage(struct lane *lane, const struct spool_damage *damage, struct sl_error *err)
{
    struct session *session = &lane->session;
    if (damage->last_seq > session->progress.through) {
        sl_logf(SL_ERROR, "produce", "a damaged range of the spool is left open", SL_STR("stream", session->stream),
                SL_STR("lane", lane->name), SL_UINT("first_seq", damage->first_seq),
                SL_UINT("last_seq", damage->last_seq), SL_STR("file", damage->file), SL_UINT("offset", damage->offset),
                SL_STR("verdict", damage->verdict));
        if (!progress_open_add(&session->progress, damage->first_seq, damage->last_seq)) {
            sl_fail(err, SL_E_REFUSED, "more than %d damaged ranges in %s: restore the spool from a copy",
                    PROGRESS_OPEN_MAX, session->stream);
            return STAGE_FAILED;
        }
    }
    if (damage->last_seq > session->staged_through)
        session->staged_through = damage->last_seq;
    count_skipped(lane);
    return STAGE_MORE;
}

static bool take_frame(struct lane *lane, struct spool_frame *frame, struct sl_error *err)
{
    struct session *session = &lane->session;
    uint64_t first_seq = frame->header.first_seq, through = session->progress.through;
    session->starved_ns = 0;
    // A copy may begin anywhere. Whoever orders a drain knows where; progress must not pass what was never there.
    if (lane->driven && first_seq > session->staged_through + 1 && first_seq > through + 1) {
        spool_frame_release(frame);
        if (!spool_reader_seek(session->reader, session->staged_through + 1, err))
            return sl_wrap(err, "seek %s to %" PRIu64, session->stream, session->staged_through + 1);
        return sl_fail(err, SL_E_REFUSED, "the copy of %s goes on at %" PRIu64 ", walked is %" PRIu64, session->stream,
                       first_seq, session->staged_through);
    }
    // What a copy does not begin with was produced before it was made: there is nothing of it to walk.
    if (lane->driven && first_seq > session->staged_through + 1) {
        session->staged_through = first_seq - 1;
        count_skipped(lane);
    }
    session->cursor = chunk_new(session, frame);
    session->cursor_in = sl_reader_of(frame->body, frame->header.body_length);
    session->cursor_seq = first_seq;
    return true;
}

// Ordered was more: the copy may still be growing. For how long that is believed is transaction.c's.
static enum stage_state take_wait(struct session *session)
{
    if (session->last != UINT64_MAX && !session->starved_ns)
        session->starved_ns = sl_monotonic_ns();
    return STAGE_WAIT;
}

static enum stage_state take_end(struct lane *lane, int64_t timeout_ns, struct sl_error *err)
{
    struct session *session = &lane->session;
    // Progress may reach beyond what is left of the stream here; what is there has been walked.
    if (session->staged_through < session->progress.through)
        session->staged_through = session->progress.through;
    count_skipped(lane);
    if (session->last == UINT64_MAX || session->staged_through >= session->last) {
        session->ended = true;
        return STAGE_END;
    }
    if (!spool_reader_seek(session->reader, session->staged_through + 1, err)) {
        sl_wrap(err, "seek %s to %" PRIu64, session->stream, session->staged_through + 1);
        return STAGE_FAILED;
    }
    (void)lane_pause(lane, timeout_ns);
    return take_wait(session);
}

enum stage_state stage_fill(struct lane *lane, int64_t timeout_ns, struct sl_error *err)
{
    struct session *session = &lane->session;
    size_t before = session->stage_count;
    while (session->stage_count == before && session->stage_count < STAGE_MAX) {
        if (session->staged_through >= session->last)
            session->ended = true;
        if (session->ended)
            return STAGE_END;
        if (session->cursor) {
            walk_frame(lane);
            continue;
        }
        // The next frame would be held in memory beside those that librdkafka still points into.
        if (session->stage_count && session->staged_bytes >= lane->produce->options.queue_bytes / 2)
            return STAGE_MORE;
        struct spool_frame *frame = NULL;
        struct spool_damage damage = {0};
        switch (spool_reader_next(session->reader, timeout_ns, &frame, &damage, err)) {
        case SPOOL_READ_FRAME:
            if (!take_frame(lane, frame, err))
                return STAGE_FAILED;
            break;
        case SPOOL_READ_WAIT:
            return take_wait(session);
        case SPOOL_READ_END:
            return take_end(lane, timeout_ns, err);
        case SPOOL_READ_DAMAGED:
            if (take_damage(lane, &damage, err) == STAGE_FAILED)
                return STAGE_FAILED;
            break;
        case SPOOL_READ_FAILED:
            return STAGE_FAILED;
        }
    }
    return STAGE_MORE;
}
