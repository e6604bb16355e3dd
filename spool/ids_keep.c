// What is kept of deleted segments, for as long as a restart may need it: <stream>/<first seq>.ids, a segment that
// holds ids frames and a seal alone. And the list of all units.
//
// The happy path: before a segment whose records may still be looked for is deleted, its ids are copied into
// <name>.ids.tmp; sync, rename, sync of the directory; then the deletion goes on. The file is deleted when its last
// record is older than the window, or when a snapshot covers it.
//
// What a crash may leave: the .tmp (deleted at the next start); both .ids and segment (the segment counts, the .ids is
// there already when it is deleted again); a deleted .ids whose name comes back (deleted again).
// Failure: a .ids file that cannot be written keeps its segment from deletion, unless space is needed: then the ids go.
#include "spool/internal.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---- the list of a stream, with spool->mutex

static void add_file(struct stream *stream, const struct ids_file *file)
{
    if (stream->ids_count == stream->ids_capacity) {
        size_t capacity = stream->ids_capacity > 0 ? stream->ids_capacity * 2 : 8;
        struct ids_file *files = realloc(stream->ids, capacity * sizeof(*files));
        sl_assert(files != NULL);
        stream->ids = files;
        stream->ids_capacity = capacity;
    }
    size_t at = stream->ids_count++;
    while (at > 0 && stream->ids[at - 1].first_seq > file->first_seq) {
        stream->ids[at] = stream->ids[at - 1];
        at--;
    }
    stream->ids[at] = *file;
}

static bool has_file(const struct stream *stream, uint64_t first_seq)
{
    for (size_t i = 0; i < stream->ids_count; i++)
        if (stream->ids[i].first_seq == first_seq)
            return true;
    return false;
}

// ---- discovery

// Its seal says through which seq it goes and when the last record was written.
static void learn(struct stream *stream, struct ids_file *file)
{
    const struct storage *storage = &stream->spool->storage;
    char path[SPOOL_PATH_MAX];
    ids_path(path, stream, file->first_seq);
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header seal;
    int handle = storage->ops->open(storage->context, path, STORAGE_READ);
    if (handle < 0)
        return;
    ssize_t got = file->file_bytes < SPOOL_BLOCK ? 0
                                                 : storage->ops->pread(storage->context, handle, bytes, sizeof(bytes),
                                                                       file->file_bytes - SPOOL_BLOCK);
    storage->ops->close(storage->context, handle);
    if (got != (ssize_t)sizeof(bytes) || frame_header_decode(&seal, bytes) != FRAME_HEADER_OK ||
        seal.kind != FRAME_SEAL)
        return; // its reader reports it
    file->last_seq = seal.first_seq - 1;
    file->last_wall_ns = seal.written_wall_ns;
}

void ids_found(struct stream *stream, uint64_t first_seq, const struct storage_file_info *info)
{
    add_file(stream, &(struct ids_file){.first_seq = first_seq,
                                        .last_seq = first_seq,
                                        .file_bytes = info->size_bytes,
                                        .last_wall_ns = info->modified_wall_ns});
}

void ids_learn(struct stream *stream)
{
    for (size_t i = 0; i < stream->ids_count; i++)
        learn(stream, &stream->ids[i]);
}

// ---- writing one

struct ids_writer {
    const struct storage *storage;
    int handle;
    struct segment_header header;
    struct ids_buffer buffer;
    uint64_t offset, last_ids_offset;
    uint32_t previous_crc;
    int64_t wall_ns; // of the segment's last record
    bool gap;        // a block did not begin where the one before ended
    int rc;          // of the first call that failed; 0
};

static void put(struct ids_writer *writer, enum frame_kind kind, struct iovec *parts, int part_count)
{
    static const uint8_t zeros[SPOOL_BLOCK];
    if (writer->rc < 0)
        return;
    struct frame_header frame = {.kind = kind,
                                 .uuid = writer->header.uuid,
                                 .body_crc = frame_body_seed(&writer->header.uuid),
                                 .previous_crc = writer->previous_crc,
                                 .first_seq = writer->buffer.first_seq,
                                 .acked_through = writer->buffer.first_seq - 1,
                                 .written_wall_ns = writer->wall_ns,
                                 .offset = writer->offset};
    for (int i = 1; i <= part_count; i++) {
        frame.body_crc = sl_crc32c_extend(frame.body_crc, parts[i].iov_base, parts[i].iov_len);
        frame.body_length += (uint32_t)parts[i].iov_len;
    }
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(&frame, bytes);
    uint64_t size = frame_size(frame.body_length);
    parts[0] = (struct iovec){bytes, sizeof(bytes)};
    // iov_base is not const; nothing is written through it.
    parts[part_count + 1] =
        (struct iovec){(void *)(uintptr_t)zeros, (size_t)(size - FRAME_HEADER_BYTES - frame.body_length)};
    writer->rc =
        writer->storage->ops->pwritev(writer->storage->context, writer->handle, parts, part_count + 2, writer->offset);
    writer->offset += size;
    writer->previous_crc = frame.header_crc;
}

// Ids frames of what has been gathered: all of it, or full ones only.
static void put_ids(struct ids_writer *writer, bool all)
{
    struct ids_buffer *buffer = &writer->buffer;
    while (writer->rc >= 0 && buffer->count > 0) {
        struct ids_head head;
        if (ids_buffer_head(buffer, IDS_BODY_MAX, &head) == buffer->count && !all)
            return;
        head.previous_offset = writer->last_ids_offset;
        memcpy(head.key_id, writer->header.ids_key_id, sizeof(head.key_id));
        uint8_t bytes[IDS_HEAD_BYTES];
        ids_head_encode(&head, bytes);
        struct iovec parts[5];
        parts[1] = (struct iovec){bytes, sizeof(bytes)};
        parts[2] = (struct iovec){buffer->entries, head.count * sizeof(*buffer->entries)};
        parts[3] = (struct iovec){buffer->business, head.business_count * sizeof(*buffer->business)};
        writer->last_ids_offset = writer->offset;
        uint64_t first_seq = buffer->first_seq;
        buffer->first_seq += head.count; // the frame's seq is the next one
        put(writer, FRAME_IDS, parts, head.business_count > 0 ? 3 : 2);
        buffer->first_seq = first_seq;
        ids_buffer_drop(buffer, &head);
    }
}

static bool take_block(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    struct ids_writer *writer = user;
    struct ids_buffer *buffer = &writer->buffer;
    (void)unit;
    writer->gap |= block->first_seq != buffer->first_seq + buffer->count;
    if (writer->gap)
        return false;
    struct ids_head head = {.count = block->count,
                            .business_count = block->business_count,
                            .first_received_wall_ns = block->first_received_wall_ns,
                            .last_received_wall_ns = block->last_received_wall_ns};
    if (!ids_buffer_append(buffer, &head, block->entries, block->business))
        writer->rc = -ENOMEM;
    put_ids(writer, false);
    return writer->rc >= 0;
}

static void finish(struct ids_writer *writer)
{
    const struct storage *storage = writer->storage;
    put_ids(writer, true);
    uint8_t body[SEAL_BODY_BYTES], block[SPOOL_BLOCK];
    seal_body_encode(writer->last_ids_offset, body);
    struct iovec parts[3];
    parts[1] = (struct iovec){body, sizeof(body)};
    put(writer, FRAME_SEAL, parts, 1);
    writer->header.size_bytes = writer->offset;
    segment_header_encode(&writer->header, block);
    struct iovec part = {block, sizeof(block)};
    if (writer->rc >= 0)
        writer->rc = storage->ops->pwritev(storage->context, writer->handle, &part, 1, 0);
    if (writer->rc >= 0)
        writer->rc = storage->ops->fdatasync(storage->context, writer->handle);
}

static struct segment_header header_for(struct stream *stream, uint64_t first_seq, int64_t now_wall_ns)
{
    struct spool *spool = stream->spool;
    struct segment_header header = {.first_seq = first_seq,
                                    .counter = stream->counter,
                                    .created_wall_ns = now_wall_ns,
                                    .predecessor_seq = stream->predecessor_seq};
    spool->environment.random(spool->environment.context, header.uuid.bytes, sizeof(header.uuid.bytes));
    memcpy(header.stream, stream->id, sizeof(header.stream));
    memcpy(header.node, stream->node, sizeof(header.node));
    memcpy(header.predecessor, stream->predecessor, sizeof(header.predecessor));
    memcpy(header.ids_key_id, spool->ids_key_id, sizeof(header.ids_key_id));
    return header;
}

// Copies the segment's ids into the open file. *bytes: its size; 0 when the segment has none that would be of use.
static bool copy_ids(struct stream *stream, const struct segment *segment, int handle, int64_t now_wall_ns,
                     uint64_t *bytes, struct sl_error *err)
{
    struct spool_ids_unit unit = {.first_seq = segment->first_seq, .last_seq = UINT64_MAX};
    struct spool_ids_result result = {.source = SPOOL_IDS_FRAMES};
    struct ids_writer writer = {.storage = &stream->spool->storage,
                                .handle = handle,
                                .header = header_for(stream, segment->first_seq, now_wall_ns),
                                .buffer = {.first_seq = segment->first_seq},
                                .offset = SPOOL_BLOCK,
                                .wall_ns = segment->last_wall_ns};
    uint64_t after_seq = 0;
    memcpy(unit.stream, stream->id, sizeof(unit.stream));
    bool good = ids_read(stream, &unit, &after_seq, take_block, &writer, &result, err);
    bool useful = result.ids > 0 && !writer.gap && result.source != SPOOL_IDS_OTHER_KEY;
    if (good && useful)
        finish(&writer);
    if (good && writer.rc < 0)
        good = sl_fail_errno(err, writer.rc == -ENOSPC || writer.rc == -EDQUOT ? SL_E_NO_SPACE : SL_E_IO, -writer.rc,
                             "ids of %s from %llu", stream->id, (unsigned long long)segment->first_seq);
    *bytes = useful ? writer.offset : 0;
    ids_buffer_free(&writer.buffer);
    return good;
}

// Makes the file. *bytes as in copy_ids.
static bool write_file(struct stream *stream, const struct segment *segment, int64_t now_wall_ns, uint64_t *bytes,
                       struct sl_error *err)
{
    const struct storage *storage = &stream->spool->storage;
    char path[SPOOL_PATH_MAX], temporary[SPOOL_PATH_MAX];
    ids_path(path, stream, segment->first_seq);
    memcpy(temporary, path, sizeof(temporary));
    sl_assert(strlen(path) + 5 < sizeof(temporary));
    memcpy(temporary + strlen(path), ".tmp", 5);
    int handle = storage->ops->open(storage->context, temporary, STORAGE_CREATE);
    if (handle == -EEXIST) { // of an attempt that failed
        storage->ops->unlink(storage->context, temporary);
        handle = storage->ops->open(storage->context, temporary, STORAGE_CREATE);
    }
    int rc = handle;
    if (handle < 0)
        goto failed;
    bool copied = copy_ids(stream, segment, handle, now_wall_ns, bytes, err);
    storage->ops->close(storage->context, handle);
    if (!copied || *bytes == 0) {
        storage->ops->unlink(storage->context, temporary);
        return copied;
    }
    rc = storage->ops->rename(storage->context, temporary, path);
    if (rc >= 0)
        rc = storage->ops->sync_directory(storage->context, stream->dir);
    if (rc >= 0)
        return true;
    storage->ops->unlink(storage->context, temporary);
failed:
    return sl_fail_errno(err, rc == -ENOSPC || rc == -EDQUOT ? SL_E_NO_SPACE : SL_E_IO, -rc, "%s", path);
}

bool ids_keep(struct stream *stream, const struct segment *of, uint64_t last_seq, int64_t now_wall_ns,
              struct sl_error *err)
{
    struct spool *spool = stream->spool;
    struct segment copy = *of, *segment = &copy;
    if (copy.last_wall_ns == 0) // its file system does not say
        copy.last_wall_ns = now_wall_ns;
    pthread_mutex_lock(&spool->mutex);
    bool wanted = now_wall_ns - segment->last_wall_ns < spool->ids_window_ns && last_seq > stream->ids_released &&
                  last_seq >= segment->first_seq && !has_file(stream, segment->first_seq);
    pthread_mutex_unlock(&spool->mutex);
    if (!wanted || spool_all_zero(spool->ids_key_id, sizeof(spool->ids_key_id)))
        return true;
    uint64_t bytes = 0;
    if (!write_file(stream, segment, now_wall_ns, &bytes, err))
        return false;
    if (bytes == 0)
        return true;
    pthread_mutex_lock(&spool->mutex);
    add_file(stream, &(struct ids_file){.first_seq = segment->first_seq,
                                        .last_seq = last_seq,
                                        .file_bytes = bytes,
                                        .last_wall_ns = segment->last_wall_ns});
    spool->file_bytes += bytes;
    pthread_mutex_unlock(&spool->mutex);
    return true;
}

// ---- deleting them

static bool delete_file(struct stream *stream, const struct ids_file *file, const char *why)
{
    struct spool *spool = stream->spool;
    char path[SPOOL_PATH_MAX];
    ids_path(path, stream, file->first_seq);
    int rc = spool->storage.ops->unlink(spool->storage.context, path);
    if (rc < 0 && rc != -ENOENT) {
        sl_logf(SL_WARN, "spool", "ids not deleted", SL_STR("file", path), SL_STR("error", strerror(-rc)));
        return false;
    }
    spool->storage.ops->sync_directory(spool->storage.context, stream->dir);
    pthread_mutex_lock(&spool->mutex);
    for (size_t i = 0; i < stream->ids_count; i++) {
        if (stream->ids[i].first_seq != file->first_seq)
            continue;
        spool->file_bytes -= stream->ids[i].file_bytes;
        stream->ids_count--;
        memmove(&stream->ids[i], &stream->ids[i + 1], (stream->ids_count - i) * sizeof(*stream->ids));
        break;
    }
    pthread_mutex_unlock(&spool->mutex);
    sl_logf(SL_INFO, "spool", "ids of a deleted segment let go", SL_STR("stream", stream->id),
            SL_UINT("first_seq", file->first_seq), SL_UINT("last_seq", file->last_seq), SL_STR("why", why));
    return true;
}

bool ids_step(struct spool *spool, bool space, int64_t now_wall_ns)
{
    for (struct stream *stream = stream_after(spool, NULL); stream != NULL; stream = stream_after(spool, stream)) {
        struct ids_file file;
        const char *why = NULL;
        pthread_mutex_lock(&spool->mutex);
        for (size_t i = 0; i < stream->ids_count && !stream->gone && why == NULL; i++) {
            file = stream->ids[i];
            why = file.last_seq <= stream->ids_released                     ? "in a snapshot"
                  : now_wall_ns - file.last_wall_ns >= spool->ids_window_ns ? "older than the window"
                  : space                                                   ? "space is needed"
                                                                            : NULL;
        }
        pthread_mutex_unlock(&spool->mutex);
        if (why != NULL)
            return delete_file(stream, &file, why);
    }
    return false;
}

void spool_ids_release(struct spool *spool, const char *stream_id, uint64_t through)
{
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = stream_find(spool, stream_id);
    if (stream != NULL && through > stream->ids_released)
        stream->ids_released = through;
    pthread_mutex_unlock(&spool->mutex);
}

// ---- the list of units

static struct spool_ids_unit unit_of_segment(const struct stream *stream, size_t index)
{
    const struct segment *segment = &stream->segments[index];
    struct spool_ids_unit unit = {.counter = stream->counter,
                                  .first_seq = segment->first_seq,
                                  .last_seq = index + 1 < stream->segment_count
                                                  ? stream->segments[index + 1].first_seq - 1
                                                  : (stream->scanned ? stream->end_seq : UINT64_MAX),
                                  .bytes = segment->used_bytes,
                                  .last_wall_ns = segment->last_wall_ns};
    memcpy(unit.stream, stream->id, sizeof(unit.stream));
    uint64_t most = unit.last_seq == UINT64_MAX || unit.last_seq < unit.first_seq
                        ? UINT64_MAX
                        : (unit.last_seq - unit.first_seq + 1) * sizeof(struct ids_entry);
    if (most < unit.bytes)
        unit.bytes = most;
    return unit;
}

static struct spool_ids_unit unit_of_file(const struct stream *stream, const struct ids_file *file)
{
    struct spool_ids_unit unit = {.counter = stream->counter,
                                  .first_seq = file->first_seq,
                                  .last_seq = file->last_seq,
                                  .bytes = file->file_bytes,
                                  .last_wall_ns = file->last_wall_ns,
                                  .kept = true};
    memcpy(unit.stream, stream->id, sizeof(unit.stream));
    return unit;
}

// Both lists are sorted. A segment goes before what was kept of it.
static size_t list_stream(const struct stream *stream, struct spool_ids_unit *out)
{
    size_t count = 0, kept = 0;
    for (size_t i = 0; i <= stream->segment_count; i++) {
        uint64_t first_seq = i < stream->segment_count ? stream->segments[i].first_seq : UINT64_MAX;
        for (; kept < stream->ids_count && stream->ids[kept].first_seq < first_seq; kept++)
            out[count++] = unit_of_file(stream, &stream->ids[kept]);
        if (kept < stream->ids_count && stream->ids[kept].first_seq == first_seq)
            kept++;
        if (i < stream->segment_count)
            out[count++] = unit_of_segment(stream, i);
    }
    return count;
}

static bool list(struct spool *spool, bool current, struct spool_ids_unit **units, size_t *count, struct sl_error *err)
{
    *count = 0;
    pthread_mutex_lock(&spool->mutex);
    size_t most = 1;
    for (const struct stream *stream = spool->streams; stream != NULL; stream = stream->next)
        most += stream->segment_count + stream->ids_count;
    *units = malloc(most * sizeof(**units));
    for (const struct stream *stream = spool->streams; stream != NULL && *units != NULL; stream = stream->next)
        if ((current || !stream->current) && !stream->gone)
            *count += list_stream(stream, *units + *count);
    pthread_mutex_unlock(&spool->mutex);
    return *units != NULL || sl_fail(err, SL_E_NO_MEMORY, "list of ids");
}

bool spool_ids_list(struct spool *spool, struct spool_ids_unit **units, size_t *count, struct sl_error *err)
{
    return list(spool, false, units, count, err);
}

bool spool_ids_list_all(struct spool *spool, struct spool_ids_unit **units, size_t *count, struct sl_error *err)
{
    return list(spool, true, units, count, err);
}
