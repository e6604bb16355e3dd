// Readers: the scanner with bodies, bounded by what was published when the stream is the current one, or grows.
#include "spool/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct spool_reader {
    struct spool *spool;
    struct stream *stream;
    struct scanner scanner;
    uint64_t from_seq;
    uint64_t resumed_end; // of the stream, when the reader last went on behind its end
    bool woken;           // spool->mutex
};

bool spool_reader_open(struct spool_reader **out, struct spool *spool, const char *stream_id, uint64_t from_seq,
                       struct sl_error *err)
{
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = stream_find(spool, stream_id);
    pthread_mutex_unlock(&spool->mutex);
    if (stream == NULL)
        return sl_fail(err, SL_E_INVALID, "no stream %s in the spool", stream_id);
    struct spool_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "reader of %s", stream_id);
    reader->spool = spool;
    reader->stream = stream;
    stream_settle(stream);
    reader->scanner.handle = -1;
    if (!spool_reader_seek(reader, from_seq, err)) {
        free(reader);
        return false;
    }
    *out = reader;
    return true;
}

// Walks by headers alone from the nearest known place to the frame that holds from_seq. Whatever is not a plain frame
// ends the walk: reading with bodies goes on from there and reports it.
static void skip_to(struct spool_reader *reader, uint64_t from_seq)
{
    struct scanner skip;
    stream_scanner(&skip, reader->stream, from_seq, false);
    struct scan_event event, good = {0};
    struct sl_error ignored;
    bool moved = false;
    for (;;) {
        enum scan_result result = scanner_next(&skip, &event, &ignored);
        if (result == SCAN_SEAL)
            continue;
        if (result != SCAN_FRAME)
            break;
        good = event;
        moved = true;
        if (event.last_seq >= from_seq)
            break;
    }
    scanner_release(&skip);
    stream_scanner(&reader->scanner, reader->stream, from_seq, true);
    if (moved)
        scanner_init_at(&reader->scanner, good.segment, good.offset, good.first_seq);
}

bool spool_reader_seek(struct spool_reader *reader, uint64_t seq, struct sl_error *err)
{
    if (seq == 0)
        return sl_fail(err, SL_E_INVALID, "seqs start at 1");
    scanner_release(&reader->scanner);
    reader->from_seq = seq;
    skip_to(reader, seq);
    return true;
}

// Waits for a publication beyond `seen`. False: the time is up, or the reader was woken.
static bool wait_published(struct spool_reader *reader, uint64_t seen, const struct timespec *until)
{
    struct spool *spool = reader->spool;
    pthread_mutex_lock(&spool->mutex);
    spool->readers_waiting++;
    bool in_time = !spool->manual;
    while (in_time && spool->publications == seen && !reader->woken)
        in_time = pthread_cond_timedwait(&spool->published, &spool->mutex, until) == 0;
    spool->readers_waiting--;
    bool news = spool->publications != seen && !reader->woken;
    reader->woken = false;
    pthread_mutex_unlock(&spool->mutex);
    return news;
}

// It has all that there is: large frames are kept in memory for it from now on.
static void follow(struct spool_reader *reader)
{
    pthread_mutex_lock(&reader->spool->mutex);
    reader->spool->recent.followed |= reader->stream->current;
    pthread_mutex_unlock(&reader->spool->mutex);
}

static uint64_t publications(struct spool *spool)
{
    pthread_mutex_lock(&spool->mutex);
    uint64_t count = spool->publications;
    pthread_mutex_unlock(&spool->mutex);
    return count;
}

static struct timespec deadline_after(int64_t timeout_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + timeout_ns % SL_NS_PER_S;
    until.tv_sec += timeout_ns / SL_NS_PER_S + ns / SL_NS_PER_S;
    until.tv_nsec = ns % SL_NS_PER_S;
    return until;
}

enum behind { NOTHING_COMES, MORE_CAME, MORE_MAY_COME };

// An older stream was read to its end. It may have grown since, or be growing. *seq: where to go on.
static enum behind look_behind_end(struct spool_reader *reader, uint64_t *seq)
{
    const struct stream *stream = reader->stream;
    pthread_mutex_lock(&reader->spool->mutex);
    *seq = reader->scanner.expected > stream->base_seq ? reader->scanner.expected : stream->base_seq;
    bool more = stream->scanned && stream->end_seq >= *seq && stream->end_seq > reader->resumed_end;
    if (more)
        reader->resumed_end = stream->end_seq;
    bool growing = stream->growing;
    pthread_mutex_unlock(&reader->spool->mutex);
    return more ? MORE_CAME : growing ? MORE_MAY_COME : NOTHING_COMES;
}

enum spool_read spool_reader_next(struct spool_reader *reader, int64_t timeout_ns, struct spool_frame **frame,
                                  struct spool_damage *damage, struct sl_error *err)
{
    struct timespec until = deadline_after(timeout_ns > 0 ? timeout_ns : 0);
    for (;;) {
        uint64_t seen = publications(reader->spool);
        struct scan_event event;
        uint64_t resume;
        switch (scanner_next(&reader->scanner, &event, err)) {
        case SCAN_FRAME:
            if (event.last_seq < reader->from_seq) {
                spool_frame_release(event.frame);
                break;
            }
            *frame = event.frame;
            return SPOOL_READ_FRAME;
        case SCAN_SEAL:
        case SCAN_PASSED:
            break;
        case SCAN_WAIT:
            follow(reader);
            if (timeout_ns <= 0 || !wait_published(reader, seen, &until))
                return SPOOL_READ_WAIT;
            break;
        case SCAN_END:
            switch (look_behind_end(reader, &resume)) {
            case NOTHING_COMES:
                return SPOOL_READ_END;
            case MORE_CAME:
                if (!spool_reader_seek(reader, resume, err))
                    return SPOOL_READ_FAILED;
                break;
            case MORE_MAY_COME:
                if (timeout_ns <= 0 || !wait_published(reader, seen, &until))
                    return SPOOL_READ_WAIT;
                break;
            }
            break;
        case SCAN_DAMAGE:
            *damage = damage_of(&event);
            damage_report(reader->stream, damage);
            if (damage->last_seq >= damage->first_seq && damage->last_seq >= reader->from_seq)
                return SPOOL_READ_DAMAGED;
            break; // no record is lost by it
        case SCAN_FAILED:
            return SPOOL_READ_FAILED;
        }
    }
}

void spool_reader_wake(struct spool_reader *reader)
{
    pthread_mutex_lock(&reader->spool->mutex);
    reader->woken = true;
    pthread_cond_broadcast(&reader->spool->published);
    pthread_mutex_unlock(&reader->spool->mutex);
}

void spool_reader_close(struct spool_reader *reader)
{
    scanner_release(&reader->scanner);
    free(reader);
}
