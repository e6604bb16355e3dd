// Streams in memory and how they are found again at a start. See internal.h for locks.
#include "spool/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stream *stream_new(struct spool *spool, const char *id)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    sl_assert(stream != NULL && strlen(id) < sizeof(stream->id));
    stream->spool = spool;
    memcpy(stream->id, id, strlen(id) + 1);
    spool_path(stream->dir, spool->dir, id);
    stream->base_seq = 1;
    return stream;
}

void stream_free(struct stream *stream)
{
    for (size_t i = 0; i < stream->segment_count; i++)
        free(stream->segments[i].index);
    free(stream->segments);
    free(stream->ids);
    free(stream->damages);
    free(stream);
}

struct stream *stream_after(struct spool *spool, struct stream *stream)
{
    pthread_mutex_lock(&spool->mutex);
    struct stream *next = stream != NULL ? stream->next : spool->streams;
    pthread_mutex_unlock(&spool->mutex);
    return next;
}

struct stream *stream_find(struct spool *spool, const char *id)
{
    for (struct stream *stream = spool->streams; stream != NULL; stream = stream->next)
        if (!stream->gone && strcmp(stream->id, id) == 0)
            return stream;
    return NULL;
}

struct stream *stream_find_any(struct spool *spool, const char *id)
{
    for (struct stream *stream = spool->streams; stream != NULL; stream = stream->next)
        if (strcmp(stream->id, id) == 0)
            return stream;
    return NULL;
}

bool stream_is_copy(const struct stream *stream)
{
    return strcmp(stream->node, stream->spool->node) != 0;
}

struct lane_state *stream_lane(struct stream *stream, const char *lane)
{
    for (uint32_t i = 0; i < stream->lane_count; i++)
        if (strcmp(stream->lanes[i].name, lane) == 0)
            return &stream->lanes[i];
    return NULL;
}

struct segment *stream_add_segment(struct stream *stream, uint64_t first_seq, uint64_t file_bytes)
{
    if (stream->segment_count == stream->segment_capacity) {
        size_t capacity = stream->segment_capacity > 0 ? stream->segment_capacity * 2 : 8;
        struct segment *segments = realloc(stream->segments, capacity * sizeof(*segments));
        sl_assert(segments != NULL);
        stream->segments = segments;
        stream->segment_capacity = capacity;
    }
    struct segment *segment = &stream->segments[stream->segment_count++];
    *segment = (struct segment){.first_seq = first_seq, .file_bytes = file_bytes, .used_bytes = file_bytes};
    return segment;
}

void stream_remove_segment(struct stream *stream, size_t index)
{
    sl_assert(index < stream->segment_count);
    free(stream->segments[index].index);
    stream->segment_count--;
    memmove(&stream->segments[index], &stream->segments[index + 1],
            (stream->segment_count - index) * sizeof(*stream->segments));
}

struct segment *stream_segment_of(struct stream *stream, uint64_t seq)
{
    size_t low = 0, high = stream->segment_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (stream->segments[middle].first_seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &stream->segments[low - 1] : NULL;
}

void segment_index_add(struct segment *segment, uint64_t seq, uint64_t offset, int64_t wall_ns)
{
    if (segment->index_count > 0) {
        const struct index_entry *last = &segment->index[segment->index_count - 1];
        if (offset < last->offset + INDEX_STEP_BYTES && wall_ns - last->wall_ns < INDEX_STEP_NS)
            return;
    }
    if (segment->index_count == segment->index_capacity) {
        size_t capacity = segment->index_capacity > 0 ? segment->index_capacity * 2 : 16;
        struct index_entry *index = realloc(segment->index, capacity * sizeof(*index));
        if (index == NULL)
            return; // a sparser index is slower, not wrong
        segment->index = index;
        segment->index_capacity = capacity;
    }
    segment->index[segment->index_count++] = (struct index_entry){.seq = seq, .offset = offset, .wall_ns = wall_ns};
}

const struct index_entry *segment_index_find(const struct segment *segment, uint64_t seq)
{
    size_t low = 0, high = segment->index_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (segment->index[middle].seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &segment->index[low - 1] : NULL;
}

// ---- discovery

bool stream_parse_id(const char *id, char node[SPOOL_NAME_MAX + 1], uint64_t *counter)
{
    const char *dot = strchr(id, '.');
    if (strlen(id) >= SPOOL_STREAM_ID_MAX || dot == NULL || dot == id || (size_t)(dot - id) > SPOOL_NAME_MAX)
        return false;
    size_t digits = strspn(dot + 1, "0123456789");
    const char *dash = dot + 1 + digits;
    if (digits == 0 || digits > 18 || *dash != '-' || strspn(dash + 1, "0123456789abcdef") != 8 || dash[9] != '\0')
        return false;
    memcpy(node, id, (size_t)(dot - id));
    node[dot - id] = '\0';
    *counter = strtoull(dot + 1, NULL, 10);
    return true;
}

// "<first seq, 16 hex><ending>"
static bool parse_file_name(const char *name, const char *ending, uint64_t *first_seq)
{
    if (strlen(name) < 16 || strspn(name, "0123456789abcdef") != 16 || strcmp(name + 16, ending) != 0)
        return false;
    *first_seq = strtoull(name, NULL, 16);
    return *first_seq > 0;
}

struct file_walk {
    struct spool *spool;
    struct stream *stream;
    const char *dir;
    int rc;
};

static bool each_stream_file(void *user, const char *name, bool is_directory)
{
    struct file_walk *walk = user;
    const struct storage *storage = &walk->spool->storage;
    char path[SPOOL_PATH_MAX];
    if (is_directory || strlen(name) > 120)
        return true;
    spool_path(path, walk->dir, name);
    struct storage_file_info info;
    walk->rc = storage->ops->info(storage->context, path, &info);
    if (walk->rc < 0)
        return walk->rc == -ENOENT;
    uint64_t first_seq;
    // An unfinished one was never of use, and is as large as a .ids file.
    if (walk->stream != NULL && parse_file_name(name, ".ids.tmp", &first_seq) &&
        storage->ops->unlink(storage->context, path) == 0)
        return true;
    walk->spool->file_bytes += info.size_bytes;
    if (walk->stream != NULL && parse_file_name(name, ".ids", &first_seq))
        ids_found(walk->stream, first_seq, &info);
    if (walk->stream != NULL && parse_file_name(name, ".seg", &first_seq)) {
        struct segment *segment = stream_add_segment(walk->stream, first_seq, info.size_bytes);
        segment->last_wall_ns = info.modified_wall_ns;
        segment->closed = true;
    }
    return true;
}

static int by_first_seq(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;
    return (x->first_seq > y->first_seq) - (x->first_seq < y->first_seq);
}

static bool read_segment_header(struct stream *stream, size_t index, struct segment_header *header)
{
    const struct storage *storage = &stream->spool->storage;
    char path[SPOOL_PATH_MAX];
    segment_path(path, stream->dir, stream->segments[index].first_seq);
    int handle = storage->ops->open(storage->context, path, STORAGE_READ);
    if (handle < 0)
        return false;
    uint8_t block[SPOOL_BLOCK];
    ssize_t got = storage->ops->pread(storage->context, handle, block, sizeof(block), 0);
    storage->ops->close(storage->context, handle);
    struct sl_error ignored; // the scanner reports it, with its place
    return got == SPOOL_BLOCK && segment_header_decode(header, block, &ignored) &&
           strcmp(header->stream, stream->id) == 0;
}

void stream_add_lane(struct stream *stream, const char *name)
{
    if (stream_lane(stream, name) != NULL || stream->lane_count == SPOOL_LANES_MAX)
        return;
    struct lane_state *lane = &stream->lanes[stream->lane_count++];
    snprintf(lane->name, sizeof(lane->name), "%s", name);
}

// The newest header that can be read names all lanes and the predecessor.
static void learn_from_headers(struct stream *stream)
{
    for (size_t i = stream->segment_count; i-- > 0;) {
        struct segment_header header;
        if (!read_segment_header(stream, i, &header))
            continue;
        memcpy(stream->predecessor, header.predecessor, sizeof(stream->predecessor));
        stream->predecessor_seq = header.predecessor_seq;
        for (uint32_t lane = 0; lane < header.lane_count; lane++)
            stream_add_lane(stream, header.lanes[lane]);
        return;
    }
    // Every header is lost: the lanes of today's configuration are the best guess, records name theirs themselves.
    for (uint32_t lane = 0; lane < stream->spool->lane_count; lane++)
        stream_add_lane(stream, stream->spool->lanes[lane]);
}

void streams_insert(struct spool *spool, struct stream *stream)
{
    struct stream **place = &spool->streams;
    while (*place != NULL && (*place)->counter <= stream->counter && !(*place)->current)
        place = &(*place)->next;
    stream->next = *place;
    *place = stream;
}

static bool load_stream(struct spool *spool, const char *id, const char *node, uint64_t counter, struct sl_error *err)
{
    struct stream *stream = stream_new(spool, id);
    memcpy(stream->node, node, strlen(node) + 1);
    stream->counter = counter;
    streams_insert(spool, stream);
    struct file_walk walk = {.spool = spool, .stream = stream, .dir = stream->dir};
    int rc = spool->storage.ops->list(spool->storage.context, stream->dir, each_stream_file, &walk);
    if (rc < 0 || (walk.rc < 0 && walk.rc != -ENOENT))
        return sl_fail_errno(err, SL_E_IO, rc < 0 ? -rc : -walk.rc, "list %s", stream->dir);
    if (stream->segment_count > 0) // qsort takes no NULL
        qsort(stream->segments, stream->segment_count, sizeof(*stream->segments), by_first_seq);
    ids_learn(stream);
    if (stream->segment_count > 0) {
        stream->end_seq =
            stream->segments[stream->segment_count - 1].first_seq - 1; // a lower bound until it was scanned
        learn_from_headers(stream);
    } else {
        stream->scanned = true;
    }
    struct sl_error why;
    if (!progress_load(stream, &why)) // then the drainer reads it from Kafka; nothing is deleted before
        sl_logf(SL_WARN, "spool", "progress file not read", SL_STR("stream", id), SL_STR("error", why.text));
    if (stream->segment_count == 0 && stream_is_copy(stream)) // what was here is produced
        stream->end_seq = stream->base_seq - 1;
    if (!damage_load(stream, &why))
        sl_logf(SL_WARN, "spool", "list of damage not read", SL_STR("stream", id), SL_STR("error", why.text));
    return true;
}

struct discovery {
    struct spool *spool;
    struct sl_error *err;
    bool failed;
};

static bool each_entry(void *user, const char *name, bool is_directory)
{
    struct discovery *discovery = user;
    struct spool *spool = discovery->spool;
    char node[SPOOL_NAME_MAX + 1];
    uint64_t counter;
    if (is_directory && stream_parse_id(name, node, &counter)) {
        discovery->failed = !load_stream(spool, name, node, counter, discovery->err);
        return !discovery->failed;
    }
    if (is_directory && strcmp(name, "refused") == 0) {
        char dir[SPOOL_PATH_MAX];
        spool_path(dir, spool->dir, name);
        struct file_walk walk = {.spool = spool, .dir = dir};
        spool->storage.ops->list(spool->storage.context, dir, each_stream_file, &walk);
    }
    return true;
}

bool streams_discover(struct spool *spool, struct sl_error *err)
{
    struct discovery discovery = {.spool = spool, .err = err};
    int rc = spool->storage.ops->list(spool->storage.context, spool->dir, each_entry, &discovery);
    if (discovery.failed)
        return false;
    if (rc < 0)
        return sl_fail_errno(err, SL_E_IO, -rc, "list %s", spool->dir);
    return true;
}

bool streams_next_counter(struct spool *spool, uint64_t *out, struct sl_error *err)
{
    char text[32];
    size_t length = sizeof(text) - 1;
    if (!spool_read_file(&spool->storage, spool->dir, "counter", text, &length, err))
        return false;
    text[length] = '\0';
    uint64_t counter = strtoull(text, NULL, 10);
    // A lost counter file must not repeat a stream's number.
    pthread_mutex_lock(&spool->mutex);
    for (const struct stream *stream = spool->streams; stream != NULL; stream = stream->next)
        if (stream->counter > counter)
            counter = stream->counter;
    pthread_mutex_unlock(&spool->mutex);
    *out = counter + 1 > spool->counter_min ? counter + 1 : spool->counter_min;
    int written = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)*out);
    return spool_replace_file(&spool->storage, spool->dir, "counter", text, (size_t)written, err);
}
