// The keeper's walk over older streams: once over the frame headers of each, for its end, what is pending, and an
// index. In slices, so that preparing never waits. What scanners of all kinds need of a stream is here, too.
#include "spool/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { SLICE_HEADERS = 512 };

static struct spool_frame *stream_recent(void *user, uint64_t first_seq, uint64_t offset)
{
    const struct stream *stream = user;
    struct spool *spool = stream->spool;
    pthread_mutex_lock(&spool->mutex);
    struct spool_frame *frame = stream->current ? recent_find(&spool->recent, first_seq, offset) : NULL;
    pthread_mutex_unlock(&spool->mutex);
    return frame;
}

bool stream_source(void *user, uint64_t at_least, struct scan_segment *out)
{
    struct stream *stream = user;
    struct spool *spool = stream->spool;
    pthread_mutex_lock(&spool->mutex);
    size_t low = 0, high = stream->segment_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (stream->segments[middle].first_seq < at_least)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < stream->segment_count;
    *out = (struct scan_segment){.live = stream->current || stream->growing};
    if (found) {
        const struct segment *segment = &stream->segments[low];
        bool last = low + 1 == stream->segment_count;
        *out = (struct scan_segment){
            .first_seq = segment->first_seq,
            .last = last,
            .live = stream->current || segment->grown,
            .limit = stream->written || segment->grown ? segment->used_bytes : UINT64_MAX,
            .limit_seq = last ? stream->end_seq + 1 : stream->segments[low + 1].first_seq,
            .base_seq = stream->base_seq,
        };
    }
    pthread_mutex_unlock(&spool->mutex);
    return found;
}

static void scanner_for(struct scanner *scanner, struct stream *stream, bool bodies)
{
    struct spool *spool = stream->spool;
    memset(scanner, 0, sizeof(*scanner));
    scanner->storage = &spool->storage;
    scanner->pool = spool->pool;
    scanner->dir = stream->dir;
    scanner->stream = stream->id;
    scanner->source = (struct scan_source){.segment = stream_source, .recent = stream_recent, .user = stream};
    scanner->bodies = bodies;
}

// Where its files begin: at the base, but for a copy, of which that may lie inside a segment. With spool->mutex.
static uint64_t first_file(struct stream *stream)
{
    const struct segment *segment = stream_is_copy(stream) ? stream_segment_of(stream, stream->base_seq) : NULL;
    return segment != NULL ? segment->first_seq : stream->base_seq;
}

void stream_scanner(struct scanner *scanner, struct stream *stream, uint64_t from_seq, bool bodies)
{
    struct spool *spool = stream->spool;
    scanner_for(scanner, stream, bodies);
    pthread_mutex_lock(&spool->mutex);
    const struct segment *segment = stream_segment_of(stream, from_seq);
    const struct index_entry *entry = segment != NULL ? segment_index_find(segment, from_seq) : NULL;
    uint64_t file = segment != NULL ? segment->first_seq : first_file(stream);
    uint64_t offset = entry != NULL ? entry->offset : 0;
    uint64_t expected = entry != NULL ? entry->seq : file;
    pthread_mutex_unlock(&spool->mutex);
    if (entry != NULL)
        scanner_init_at(scanner, file, offset, expected);
    else
        scanner_init(scanner, file, expected);
}

void stream_settle(struct stream *stream)
{
    struct spool *spool = stream->spool;
    pthread_mutex_lock(&spool->mutex);
    bool needed = !stream->current && !stream->settled && stream->segment_count > 0;
    uint64_t first_seq = needed ? stream->segments[stream->segment_count - 1].first_seq : 0;
    stream->settled = true;
    pthread_mutex_unlock(&spool->mutex);
    if (!needed)
        return;
    char path[SPOOL_PATH_MAX];
    segment_path(path, stream->dir, first_seq);
    const struct storage *storage = &spool->storage;
    int handle = storage->ops->open(storage->context, path, STORAGE_READ);
    int rc = handle;
    if (handle >= 0) {
        rc = storage->ops->fdatasync(storage->context, handle);
        storage->ops->close(storage->context, handle);
    }
    if (rc < 0)
        sl_logf(SL_ERROR, "spool", "an older stream's last segment cannot be synced; it is read as it is",
                SL_STR("stream", stream->id), SL_STR("error", strerror(-rc)));
}

struct spool_damage damage_of(const struct scan_event *event)
{
    struct spool_damage damage = {.first_seq = event->first_seq, .last_seq = event->last_seq, .offset = event->offset};
    char name[32];
    segment_file_name(name, event->segment);
    memcpy(damage.file, name, sizeof(name));
    const char *word = verdict_word(event->verdict);
    sl_assert(strlen(word) < sizeof(damage.verdict));
    memcpy(damage.verdict, word, strlen(word) + 1);
    return damage;
}

// ---- what is done with the end of an older stream

// Copies a torn tail to <file>.broken, for people. The file itself stays as it is: no log is ever rewritten, and the
// verdict comes out the same each time.
static void set_aside(struct stream *stream, const struct scan_event *event)
{
    const struct storage *storage = &stream->spool->storage;
    char from[SPOOL_PATH_MAX], name[64];
    segment_path(from, stream->dir, event->segment);
    segment_file_name(name, event->segment);
    memcpy(name + strlen(name), ".broken", sizeof(".broken"));
    char path[SPOOL_PATH_MAX];
    spool_path(path, stream->dir, name);
    struct storage_file_info info;
    if (storage->ops->info(storage->context, path, &info) == 0)
        return;
    size_t length = (size_t)(event->end_offset - event->offset);
    if (length > FRAME_BODY_MAX)
        length = FRAME_BODY_MAX;
    struct spool_frame *buffer = frame_pool_take(stream->spool->pool, length);
    if (buffer == NULL)
        return;
    struct sl_error err;
    int handle = storage->ops->open(storage->context, from, STORAGE_READ);
    ssize_t got =
        handle < 0 ? handle : storage->ops->pread(storage->context, handle, frame_bytes(buffer), length, event->offset);
    if (handle >= 0)
        storage->ops->close(storage->context, handle);
    if (got < 0)
        sl_fail_errno(&err, SL_E_IO, (int)-got, "%s", from);
    bool copied = got >= 0 && spool_replace_file(storage, stream->dir, name, frame_bytes(buffer), (size_t)got, &err);
    spool_frame_release(buffer);
    if (!copied)
        sl_logf(SL_WARN, "spool", "torn tail not copied", SL_STR("file", path), SL_STR("error", err.text));
    sl_logf(SL_WARN, "spool", "a write that was cut short is set aside; nobody was told of it",
            SL_STR("stream", stream->id), SL_STR("copy", copied ? name : NULL), SL_UINT("offset", event->offset),
            SL_UINT("bytes", length), SL_UINT("after_seq", event->first_seq - 1));
}

// A clean end gives the never-written rest of its file back, all but one block: that one shows that the end is clean.
static void trim(struct stream *stream, const struct scan_event *event)
{
    struct spool *spool = stream->spool;
    const struct storage *storage = &spool->storage;
    uint64_t keep = event->offset + SPOOL_BLOCK;
    pthread_mutex_lock(&spool->mutex);
    size_t last = stream->segment_count - 1;
    bool useful = stream->segment_count > 0 && stream->segments[last].first_seq == event->segment &&
                  stream->segments[last].file_bytes > keep;
    pthread_mutex_unlock(&spool->mutex);
    if (!useful)
        return;
    char path[SPOOL_PATH_MAX];
    segment_path(path, stream->dir, event->segment);
    int handle = storage->ops->open(storage->context, path, STORAGE_WRITE);
    if (handle < 0)
        return;
    int rc = storage->ops->truncate(storage->context, handle, keep);
    storage->ops->close(storage->context, handle);
    if (rc < 0)
        return;
    pthread_mutex_lock(&spool->mutex);
    spool->file_bytes -= stream->segments[last].file_bytes - keep;
    stream->segments[last].file_bytes = keep;
    pthread_mutex_unlock(&spool->mutex);
}

static void walked(struct stream *stream, const struct scanner *scanner, const struct scan_event *event)
{
    struct spool *spool = stream->spool;
    if (event->verdict == VERDICT_TORN_TAIL)
        set_aside(stream, event);
    if (event->verdict == VERDICT_CLEAN_END && event->offset >= SPOOL_BLOCK)
        trim(stream, event);
    pthread_mutex_lock(&spool->mutex);
    stream->chain = scanner->chain_known ? scanner->chain : 0;
    if (stream->end_seq + 1 < stream->base_seq) // it was to begin anew, behind what is found
        stream->end_seq = stream->base_seq - 1;
    stream->scanned = true;
    for (uint32_t i = 0; i < stream->lane_count; i++)
        figures_check_lane(spool, stream, &stream->lanes[i]);
    figures_refresh(spool);
    uint64_t pending = stream_pending_events(stream);
    uint64_t end_seq = stream->end_seq;
    pthread_mutex_unlock(&spool->mutex);
    replica_kick(spool); // it may grow now
    sl_logf(SL_INFO, "spool", "older stream walked", SL_STR("stream", stream->id),
            SL_STR("end", verdict_word(event->verdict)), SL_UINT("end_seq", end_seq),
            SL_UINT("pending_events", pending));
}

// ---- headers

// With spool->mutex. A tail that was taken by its header and then found torn is taken back.
static void note_event(struct stream *stream, enum scan_result result, const struct scan_event *event)
{
    struct segment *segment = NULL;
    for (size_t i = stream->segment_count; i-- > 0 && segment == NULL;)
        if (stream->segments[i].first_seq == event->segment)
            segment = &stream->segments[i];
    if (result == SCAN_FRAME || result == SCAN_SEAL) {
        stream->end_seq = event->last_seq;
        if (segment == NULL)
            return;
        segment->used_bytes = event->end_offset;
        segment->last_wall_ns = event->header.written_wall_ns;
        if (result == SCAN_FRAME)
            segment_index_add(segment, event->first_seq, event->offset, event->header.written_wall_ns);
        return;
    }
    stream->end_seq = event->last_seq >= event->first_seq ? event->last_seq : event->first_seq - 1;
    if (result == SCAN_END && segment != NULL && event->offset >= SPOOL_BLOCK)
        segment->used_bytes = event->offset;
}

static struct stream *next_unscanned(struct spool *spool)
{
    pthread_mutex_lock(&spool->mutex);
    // Newest first: that is the one whose end the drainer needs soonest, and its tail is the one that a crash may have
    // torn.
    struct stream *found = NULL;
    for (struct stream *stream = spool->streams; stream != NULL; stream = stream->next)
        if (!stream->current && !stream->scanned && !stream->gone && stream->retry_walk_ns <= spool_monotonic_ns(spool))
            found = stream;
    pthread_mutex_unlock(&spool->mutex);
    return found;
}

static void end_walk(struct keeper *keeper)
{
    scanner_release(&keeper->scan);
    keeper->scanned = NULL;
}

bool walk_step(struct spool *spool)
{
    struct keeper *keeper = &spool->keeper;
    if (keeper->scanned == NULL) {
        struct stream *stream = next_unscanned(spool);
        if (stream == NULL)
            return false;
        stream_settle(stream);
        keeper->scanned = stream;
        scanner_for(&keeper->scan, stream, false);
        pthread_mutex_lock(&spool->mutex);
        uint64_t file = first_file(stream);
        pthread_mutex_unlock(&spool->mutex);
        scanner_init(&keeper->scan, file, file);
    }
    struct stream *stream = keeper->scanned;
    for (int i = 0; i < SLICE_HEADERS; i++) {
        struct scan_event event;
        struct sl_error err;
        enum scan_result result = scanner_next(&keeper->scan, &event, &err);
        if (result == SCAN_FAILED) {
            sl_logf(SL_WARN, "spool", "walk of an older stream failed, trying again", SL_STR("stream", stream->id),
                    SL_STR("error", err.text));
            stream->retry_walk_ns = spool_monotonic_ns(spool) + SL_NS_PER_S;
            end_walk(keeper);
            return true;
        }
        pthread_mutex_lock(&spool->mutex);
        note_event(stream, result, &event);
        pthread_mutex_unlock(&spool->mutex);
        if (result == SCAN_DAMAGE) {
            struct spool_damage damage = damage_of(&event);
            damage_report(stream, &damage);
        }
        if (result == SCAN_END) {
            walked(stream, &keeper->scan, &event);
            end_walk(keeper);
            return true;
        }
    }
    return true;
}
