// Retention: deletes what is verified in Kafka and old enough, or, when space is needed, whatever its age; oldest
// first, one segment a step.
//
// Order of a deletion: the new base goes into the progress file first, so that after a crash a missing file is known to
// have been deleted and is no alarm; then unlink, sync of the directory. What the deleted records were known by stays
// as a .ids file before all that (ids_keep.c), when a restart may need it. A stream without segments and without such
// files loses its directory. A file with a damaged range is never deleted: its records have no other home.
#include "spool/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

uint64_t stream_verified(const struct stream *stream)
{
    if (stream->lane_count == 0)
        return 0;
    uint64_t verified = UINT64_MAX;
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        const struct lane_state *lane = &stream->lanes[i];
        // Of one that has ended every lane is drained to the end, so that it does not go under a drain.
        if (stream->current && lane->appended_seq <= lane->stored.through)
            continue; // nothing of it is in the stream beyond that
        if (lane->stored.through < verified)
            verified = lane->stored.through;
    }
    return verified;
}

// With spool->mutex: index of a segment that may go, SIZE_MAX: none.
static size_t deletable(const struct spool *spool, const struct stream *stream, bool space, int64_t now)
{
    bool copy = stream_is_copy(stream);
    uint64_t verified = copy ? stream->base_seq - 1 : stream_verified(stream);
    bool empty = !stream->current && !stream->growing && stream->scanned && stream->damage_count == 0 &&
                 stream->segment_count == 1 && stream->end_seq < stream->segments[0].first_seq;
    for (size_t i = 0; i < stream->segment_count; i++) {
        const struct segment *segment = &stream->segments[i];
        bool last = i + 1 == stream->segment_count;
        if (segment->damaged)
            continue;
        if (!segment->closed || (last && !stream->current && !stream->scanned))
            return SIZE_MAX;
        uint64_t last_seq = last ? stream->end_seq : stream->segments[i + 1].first_seq - 1;
        if (last_seq > verified && !empty)
            return SIZE_MAX;
        return space || empty || copy || now - segment->last_wall_ns >= spool->retain_ns ? i : SIZE_MAX;
    }
    return SIZE_MAX;
}

// False: it stays.
static bool keep_ids(struct stream *stream, uint64_t first_seq, uint64_t last_seq, bool space, int64_t now)
{
    struct spool *spool = stream->spool;
    struct sl_error err;
    pthread_mutex_lock(&spool->mutex);
    struct segment segment = *stream_segment_of(stream, first_seq);
    pthread_mutex_unlock(&spool->mutex);
    sl_assert(segment.first_seq == first_seq);
    bool kept = ids_keep(stream, &segment, last_seq, now, &err);
    if (!kept)
        sl_logf(SL_WARN, "spool",
                space ? "space is needed: what the records of a deleted segment were known by is lost to a restart"
                      : "segment not deleted",
                SL_STR("stream", stream->id), SL_UINT("first_seq", first_seq), SL_STR("error", err.text));
    pthread_mutex_lock(&spool->mutex);
    bool found_damage = !segment.damaged && stream_segment_of(stream, first_seq)->damaged;
    pthread_mutex_unlock(&spool->mutex);
    return (kept || space) && !found_damage;
}

static bool delete_segment(struct stream *stream, uint64_t first_seq, uint64_t next_seq)
{
    struct spool *spool = stream->spool;
    struct sl_error err;
    pthread_mutex_lock(&spool->mutex);
    if (next_seq > stream->base_seq)
        stream->base_seq = next_seq;
    pthread_mutex_unlock(&spool->mutex);
    if (!progress_store(stream, &err)) {
        sl_logf(SL_WARN, "spool", "segment not deleted", SL_STR("stream", stream->id), SL_STR("error", err.text));
        return false;
    }
    char path[SPOOL_PATH_MAX];
    segment_path(path, stream->dir, first_seq);
    int rc = spool->storage.ops->unlink(spool->storage.context, path);
    if (rc < 0 && rc != -ENOENT) {
        sl_logf(SL_WARN, "spool", "segment not deleted", SL_STR("file", path), SL_STR("error", strerror(-rc)));
        return false;
    }
    // That the name comes back after a crash is harmless: it is below the base.
    spool->storage.ops->sync_directory(spool->storage.context, stream->dir);
    pthread_mutex_lock(&spool->mutex);
    for (size_t i = 0; i < stream->segment_count; i++) {
        if (stream->segments[i].first_seq != first_seq)
            continue;
        spool->file_bytes -= stream->segments[i].file_bytes;
        stream_remove_segment(stream, i);
        break;
    }
    pthread_mutex_unlock(&spool->mutex);
    sl_logf(SL_INFO, "spool", "segment deleted", SL_STR("stream", stream->id), SL_UINT("first_seq", first_seq),
            SL_UINT("last_seq", next_seq - 1));
    return true;
}

struct emptying {
    struct stream *stream;
    int rc;
};

static bool each_leftover(void *user, const char *name, bool is_directory)
{
    struct emptying *emptying = user;
    const struct storage *storage = &emptying->stream->spool->storage;
    if (is_directory || strlen(name) > 120)
        return true; // rmdir refuses then
    char path[SPOOL_PATH_MAX];
    spool_path(path, emptying->stream->dir, name);
    struct storage_file_info info = {0};
    storage->ops->info(storage->context, path, &info);
    int rc = storage->ops->unlink(storage->context, path);
    if (rc < 0)
        emptying->rc = rc;
    return true;
}

static bool remove_stream(struct stream *stream)
{
    struct spool *spool = stream->spool;
    struct emptying emptying = {.stream = stream};
    spool->storage.ops->list(spool->storage.context, stream->dir, each_leftover, &emptying);
    int rc = spool->storage.ops->rmdir(spool->storage.context, stream->dir);
    pthread_mutex_lock(&spool->mutex);
    stream->removing = false;
    stream->gone = true; // also when it could not be removed: there is nothing in it; the next start tries again
    pthread_mutex_unlock(&spool->mutex);
    if (rc < 0 && rc != -ENOENT) {
        sl_logf(SL_WARN, "spool", "directory of an empty stream not removed", SL_STR("dir", stream->dir),
                SL_STR("error", strerror(-rc)));
        return false;
    }
    spool->storage.ops->sync_directory(spool->storage.context, spool->dir);
    sl_logf(SL_INFO, "spool", "stream removed", SL_STR("stream", stream->id));
    return true;
}

bool retain_step(struct spool *spool, bool space)
{
    int64_t now = spool_wall_ns(spool);
    for (struct stream *stream = stream_after(spool, NULL); stream != NULL; stream = stream_after(spool, stream)) {
        pthread_mutex_lock(&spool->mutex);
        if (stream->gone) {
            pthread_mutex_unlock(&spool->mutex);
            continue;
        }
        bool busy = spool->keeper.scanned == stream;
        bool empty = !busy && !stream->current && !stream->growing && stream->segment_count == 0 &&
                     stream->damage_count == 0 && stream->ids_count == 0;
        stream->removing = empty; // the replica thread does not begin with it
        size_t index = empty ? SIZE_MAX : deletable(spool, stream, space, now);
        uint64_t first_seq = 0, next_seq = 0;
        if (index != SIZE_MAX) {
            first_seq = stream->segments[index].first_seq;
            next_seq = index + 1 < stream->segment_count ? stream->segments[index + 1].first_seq : stream->end_seq + 1;
        }
        pthread_mutex_unlock(&spool->mutex);
        if (empty)
            return remove_stream(stream);
        if (index != SIZE_MAX)
            return keep_ids(stream, first_seq, next_seq - 1, space, now) && delete_segment(stream, first_seq, next_seq);
    }
    return ids_step(spool, space, now);
}
