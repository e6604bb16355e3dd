// One stream that grows: a copy of another node's stream, or an own older one whose tail peers give back.
//
// The happy path: put the stores that lie behind each other into one frame, write and sync it, publish (readers see
// it), tell every store. When the next frame does not fit, or names a lane that is not in the segment's header: seal,
// activate a ready segment, go on.
//
// A stream that is new here: its directory first, synced. A copy that does not begin at 1, or begins anew behind a gap:
// the base first, durable, in the stream's progress file. Then a segment, then the frame. What was held below the base
// is deleted by the keeper. A crash in between leaves an empty directory, or a stream that holds nothing and says how
// far it is produced.
//
// Failure modes: GROW_FAILED is the end of the whole spool (replica.c). Without a segment, or without space for a small
// file, the stream stands still. The own writer goes first: the last ready segment is its, and all of them while there
// is no space for more.
#include "spool/grow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct growth *growth_new(struct spool *spool, const char *id)
{
    struct growth *growth = calloc(1, sizeof(*growth));
    sl_assert(growth != NULL);
    memcpy(growth->id, id, sizeof(growth->id));
    growth->last = &growth->first;
    growth->log.handle = -1;
    growth->log.sealed = true;
    growth->grown_ns = spool_monotonic_ns(spool);
    return growth;
}

void growth_tell_first(struct growth *growth, enum spool_outcome outcome)
{
    struct spool_store *store = growth->first;
    growth->first = store->next;
    if (growth->first == NULL)
        growth->last = &growth->first;
    store->outcome = outcome;
    store->next = NULL;
    store->done(store);
}

// ---- the stream

// The stream with its place in the list. NULL: not now. The keeper has yet to walk it, or is just removing what was
// left of it.
static struct stream *enlist(struct spool *spool, const char *id)
{
    struct stream *fresh = stream_new(spool, id);
    bool known = stream_parse_id(id, fresh->node, &fresh->counter);
    sl_assert(known);
    fresh->gone = true;
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = stream_find_any(spool, id);
    if (stream == NULL) {
        stream = fresh;
        fresh = NULL;
        streams_insert(spool, stream);
    }
    sl_assert(!stream->current);
    bool free_now = !stream->removing && (stream->scanned || stream->gone);
    if (free_now) {
        stream->uncounted |= !stream_is_copy(stream) && stream->segment_count == 0;
        if (stream->end_seq + 1 < stream->base_seq) // nothing but ids was found
            stream->end_seq = stream->base_seq - 1;
        if (stream->gone) { // nothing of it is in the directory
            stream->base_seq = 1;
            stream->end_seq = 0;
            stream->chain = 0;
            stream->scanned = stream->settled = true;
            stream->gone = false;
        }
        stream->growing = true;
        spool->streams_growing++;
    }
    pthread_mutex_unlock(&spool->mutex);
    if (fresh != NULL)
        stream_free(fresh);
    return free_now ? stream : NULL;
}

static void begin_log(struct spool *spool, struct growth *growth)
{
    const struct stream *stream = growth->stream;
    struct stream_log *log = &growth->log;
    stream_log_init(log, &spool->storage, stream->dir);
    log->pool = spool->pool;
    log->next_seq = stream->end_seq + 1;
    log->previous_crc = stream->chain;
    log->header.counter = stream->counter;
    log->header.lane_count = stream->lane_count;
    log->header.predecessor_seq = stream->predecessor_seq;
    memcpy(log->header.stream, stream->id, sizeof(log->header.stream));
    memcpy(log->header.node, stream->node, sizeof(log->header.node));
    memcpy(log->header.predecessor, stream->predecessor, sizeof(log->header.predecessor));
    memcpy(log->header.ids_key_id, spool->ids_key_id, sizeof(log->header.ids_key_id));
    for (uint32_t i = 0; i < stream->lane_count; i++)
        memcpy(log->header.lanes[i], stream->lanes[i].name, sizeof(log->header.lanes[i]));
}

// What does not succeed for want of space is tried again.
static enum grow after_error(struct sl_error *err)
{
    if (err->code == SL_E_NO_SPACE)
        return GROW_STARVED;
    err->code = SL_E_SYNC; // as every error that ends the spool
    return GROW_FAILED;
}

static enum grow begin(struct spool *spool, struct growth *growth, struct sl_error *err)
{
    const struct storage *storage = &spool->storage;
    if (growth->stream == NULL) {
        growth->stream = enlist(spool, growth->id);
        if (growth->stream == NULL)
            return GROW_STARVED;
        begin_log(spool, growth);
    }
    int rc = storage->ops->mkdir(storage->context, growth->stream->dir);
    if (rc >= 0 || rc == -EEXIST) // also one that is there: an earlier process may not have got to its sync
        rc = storage->ops->sync_directory(storage->context, spool->dir);
    growth->directory = rc >= 0;
    if (growth->directory)
        return GROW_DONE;
    sl_fail_errno(err, rc == -ENOSPC || rc == -EDQUOT ? SL_E_NO_SPACE : SL_E_SYNC, -rc, "create %s",
                  growth->stream->dir);
    return after_error(err);
}

// ---- segments

// Seals the segment that grows. One without a frame is left as it is: the next one takes its name.
static bool seal(struct spool *spool, struct growth *growth, struct sl_error *err)
{
    struct stream_log *log = &growth->log;
    struct stream *stream = growth->stream;
    uint64_t closed_size = log->header.size_bytes;
    if (log->sealed)
        return true;
    bool empty = log->offset == SPOOL_BLOCK;
    if (empty)
        log->sealed = true;
    else if (!stream_log_seal(log, false, spool_wall_ns(spool), &closed_size, err))
        return false;
    pthread_mutex_lock(&spool->mutex);
    struct segment *last = &stream->segments[stream->segment_count - 1];
    spool->file_bytes -= last->file_bytes - closed_size;
    last->file_bytes = closed_size;
    last->used_bytes = log->offset;
    last->closed = true;
    stream->chain = log->previous_crc;
    wake_readers(spool);
    pthread_mutex_unlock(&spool->mutex);
    return true;
}

static bool names_lanes(const struct segment_header *header, const struct spool_head *head)
{
    for (uint32_t i = 0; i < head->lane_count; i++) {
        bool found = header->lane_count == SPOOL_LANES_MAX; // no more can be named: records name theirs themselves
        for (uint32_t k = 0; k < header->lane_count && !found; k++)
            found = strcmp(header->lanes[k], head->lanes[i]) == 0;
        if (!found)
            return false;
    }
    return true;
}

static void take_head(struct segment_header *header, const struct spool_head *head)
{
    for (uint32_t i = 0; i < head->lane_count; i++) {
        struct spool_head one = {.lane_count = 1};
        memcpy(one.lanes[0], head->lanes[i], sizeof(one.lanes[0]));
        if (!names_lanes(header, &one))
            memcpy(header->lanes[header->lane_count++], head->lanes[i], sizeof(head->lanes[i]));
    }
    if (head->predecessor[0] != '\0') {
        memcpy(header->predecessor, head->predecessor, sizeof(header->predecessor));
        header->predecessor_seq = head->predecessor_seq;
    }
}

// The segment is durable under its name.
static void publish_segment(struct spool *spool, struct growth *growth, uint64_t size_bytes, int64_t now)
{
    const struct segment_header *header = &growth->log.header;
    struct stream *stream = growth->stream;
    pthread_mutex_lock(&spool->mutex);
    struct segment *last = stream->segment_count > 0 ? &stream->segments[stream->segment_count - 1] : NULL;
    if (last != NULL && last->first_seq == header->first_seq) { // one without a whole frame was replaced
        spool->file_bytes -= last->file_bytes;
        stream_remove_segment(stream, stream->segment_count - 1);
    }
    last = stream_add_segment(stream, header->first_seq, size_bytes);
    last->grown = true;
    last->used_bytes = growth->log.offset;
    last->last_wall_ns = now;
    for (uint32_t i = 0; i < header->lane_count; i++)
        stream_add_lane(stream, header->lanes[i]);
    memcpy(stream->predecessor, header->predecessor, sizeof(stream->predecessor));
    stream->predecessor_seq = header->predecessor_seq;
    wake_readers(spool);
    pthread_mutex_unlock(&spool->mutex);
}

// With spool->mutex. The last ready segment, and all that there are when no more can be made, are the own writer's.
static size_t find_ready(const struct spool *spool, uint64_t body_bytes)
{
    bool ours = spool->ready_count > 1 && spool->wanted_bytes == 0 && !atomic_load(&spool->no_space);
    return ours ? ready_fitting(spool, body_bytes) : SIZE_MAX;
}

static enum grow roll(struct spool *spool, struct growth *growth, const struct spool_head *head, uint64_t body_bytes,
                      struct sl_error *err)
{
    struct ready_segment ready;
    pthread_mutex_lock(&spool->mutex);
    size_t index = find_ready(spool, body_bytes);
    if (index != SIZE_MAX) {
        ready = ready_take(spool, index);
        spool->copy_wanted_bytes = 0; // whoever still stands still says so again
    } else if (body_bytes > spool->copy_wanted_bytes) {
        spool->copy_wanted_bytes = body_bytes;
    }
    keeper_kick(spool);
    pthread_mutex_unlock(&spool->mutex);
    if (index == SIZE_MAX)
        return GROW_STARVED;
    if (!seal(spool, growth, err)) {
        spool->storage.ops->close(spool->storage.context, ready.handle); // its file is used at the next start
        return GROW_FAILED;
    }
    take_head(&growth->log.header, head);
    struct segment_uuid uuid;
    spool->environment.random(spool->environment.context, uuid.bytes, sizeof(uuid.bytes));
    int64_t now = spool_wall_ns(spool);
    uint64_t size_bytes = ready.size_bytes;
    if (!stream_log_activate(&growth->log, &ready, &uuid, now, err))
        return GROW_FAILED;
    publish_segment(spool, growth, size_bytes, now);
    return GROW_DONE;
}

// The copy begins anew at first_seq. In memory at once; what is on disk follows before anything is written behind it.
static enum grow begin_anew(struct spool *spool, struct growth *growth, uint64_t first_seq, struct sl_error *err)
{
    struct stream *stream = growth->stream;
    if (!seal(spool, growth, err))
        return GROW_FAILED;
    pthread_mutex_lock(&spool->mutex);
    stream->uncounted |= !stream_is_copy(stream);
    stream->base_seq = first_seq;
    stream->end_seq = first_seq - 1;
    stream->chain = 0;
    wake_readers(spool);
    pthread_mutex_unlock(&spool->mutex);
    growth->log.next_seq = first_seq;
    growth->log.previous_crc = 0; // says that nothing before it belongs to it
    growth->base_waits = true;
    return GROW_DONE;
}

static enum grow store_base(struct growth *growth, struct sl_error *err)
{
    if (!progress_store(growth->stream, err))
        return after_error(err);
    growth->base_waits = false;
    return GROW_DONE;
}

// ---- frames

struct next_frame {
    int stores;
    uint32_t records;
    uint64_t body_bytes;
    uint64_t with_ids_bytes; // body, and what will be written of all ids that wait by then
};

// Leaves out what is here already. The store keeps its own fields: its submitter asks after what it submitted.
static struct iovec body_behind(const struct spool_store *store, uint64_t end_seq, uint32_t *count)
{
    struct sl_reader reader = sl_reader_of(store->body, store->body_length);
    struct record record;
    *count = store->count;
    for (uint64_t seq = store->first_seq; seq <= end_seq; seq++, (*count)--) {
        bool there = record_next(&reader, &record);
        sl_assert(there);
    }
    size_t from = reader.position;
    // iov_base is not const; nothing is written through it.
    return (struct iovec){.iov_base = (void *)((uintptr_t)store->body + from), .iov_len = store->body_length - from};
}

// How many of the waiting stores go into the next frame: at least the first one.
static struct next_frame gather(const struct growth *growth, uint64_t room, struct iovec *parts)
{
    struct next_frame next = {0};
    uint64_t end_seq = growth->log.next_seq - 1;
    for (const struct spool_store *store = growth->first; store != NULL; store = store->next) {
        uint32_t count;
        if (next.stores > 0 && (store->first_seq != end_seq + 1 || !names_lanes(&growth->log.header, &store->head)))
            break;
        struct iovec body = body_behind(store, end_seq, &count);
        uint64_t more = next.body_bytes + body.iov_len;
        uint64_t with_ids = more + stream_log_ids_bytes(&growth->log, (uint64_t)next.records + count);
        if (next.stores > 0 && (more > GROUP_BYTES || with_ids > room || next.stores == FRAME_PARTS_MAX))
            break;
        next.stores++;
        next.records += count;
        next.body_bytes = more;
        next.with_ids_bytes = with_ids;
        end_seq += count;
        parts[next.stores] = body;
    }
    return next;
}

static void publish(struct spool *spool, struct growth *growth, const struct frame_header *frame, int stores)
{
    struct stream *stream = growth->stream;
    pthread_mutex_lock(&spool->mutex);
    struct segment *segment = &stream->segments[stream->segment_count - 1];
    segment_index_add(segment, frame->first_seq, frame->offset, frame->written_wall_ns);
    segment->used_bytes = growth->log.offset;
    segment->last_wall_ns = frame->written_wall_ns;
    stream->end_seq = frame->first_seq + frame->count - 1;
    atomic_fetch_add_explicit(&spool->pending_bytes, frame_size(frame->body_length), memory_order_relaxed);
    wake_readers(spool);
    pthread_mutex_unlock(&spool->mutex);
    atomic_fetch_add_explicit(&spool->copied_events, frame->count, memory_order_relaxed);
    for (int i = 0; i < stores; i++)
        growth_tell_first(growth, SPOOL_SYNCED);
}

static enum grow write_frame(struct spool *spool, struct growth *growth, struct iovec *parts, struct sl_error *err)
{
    struct stream_log *log = &growth->log;
    uint64_t room = stream_log_room(log);
    struct next_frame next = gather(growth, room, parts);
    bool lanes = names_lanes(&log->header, &growth->first->head);
    if (!lanes || next.with_ids_bytes > room) {
        enum grow step = roll(spool, growth, &growth->first->head, next.with_ids_bytes, err);
        // Without another segment the records go in before their ids, which are then read from the records.
        if (step != GROW_STARVED || !lanes || next.body_bytes > room)
            return step;
    }
    struct frame_header frame;
    if (!stream_log_append(log, parts, next.stores, next.records, spool_wall_ns(spool), &frame, err))
        return GROW_FAILED;
    publish(spool, growth, &frame, next.stores);
    return GROW_DONE;
}

enum grow growth_step(struct spool *spool, struct growth *growth, struct iovec *parts, struct sl_error *err)
{
    struct spool_store *store = growth->first;
    if (store == NULL)
        return GROW_IDLE;
    if (!growth->directory)
        return begin(spool, growth, err);
    const struct stream *stream = growth->stream;
    uint64_t end_seq = stream->end_seq; // this thread's alone while the stream grows
    if (store->first_seq + store->count - 1 <= end_seq) {
        growth_tell_first(growth, SPOOL_SYNCED);
        return GROW_DONE;
    }
    if (store->first_seq > end_seq + 1) {
        pthread_mutex_lock(&spool->mutex);
        sl_assert(store->new_base || stream->base_seq > end_seq || stream->segment_count == 0);
        pthread_mutex_unlock(&spool->mutex);
        return begin_anew(spool, growth, store->first_seq, err);
    }
    return growth->base_waits ? store_base(growth, err) : write_frame(spool, growth, parts, err);
}

// ---- the end

bool growth_is_over(struct spool *spool, const struct growth *growth)
{
    const struct stream *stream = growth->stream;
    pthread_mutex_lock(&spool->mutex);
    bool over = stream->guard >= stream->end_seq;
    for (const struct stream *other = spool->streams; other != NULL && !over; other = other->next)
        over = !other->gone && other->counter > stream->counter && strcmp(other->node, stream->node) == 0;
    pthread_mutex_unlock(&spool->mutex);
    return over;
}

bool growth_end(struct spool *spool, struct growth *growth, struct sl_error *err)
{
    sl_assert(growth->first == NULL);
    bool good = atomic_load(&spool->failed) || seal(spool, growth, err);
    stream_log_release(&growth->log);
    if (growth->stream != NULL) {
        pthread_mutex_lock(&spool->mutex);
        growth->stream->growing = false;
        spool->streams_growing--;
        wake_readers(spool);
        pthread_mutex_unlock(&spool->mutex);
    }
    free(growth);
    return good;
}
