// The happy path: activate (header, sync, rename, sync of the directory), append frames, seal, activate the next file.
//
// What a crash may leave, by the point where it comes:
//   - before the rename: a file in ready/ with a header in it. It is never used again (prepare.c looks), because on a
//   disk that
//     persists the new name and not the removal of the old one it is the same file as a segment.
//   - behind the rename, before the first frame: a segment without frames. Recovery: clean end.
//   - in a frame: any subset of its sectors. Nobody was told of it. Recovery: torn tail, set aside.
//   - in an ids frame: the same, and no record is in it.
//   - in the seal: the segment ends without one; as the last segment it ends cleanly, and the seal holds no records.
//   - between seal and the next activation: a sealed last segment whose stream is not closed. Recovery: clean end.
// Failure: any error of a write, a sync or a rename here makes the log failed for good.
#include "spool/internal.h"

#include "base/crc32c.h"

#include <stdio.h>
#include <string.h>

static const uint8_t zeros[SPOOL_BLOCK];

void spool_path(char out[SPOOL_PATH_MAX], const char *dir, const char *name)
{
    int length = snprintf(out, SPOOL_PATH_MAX, "%s/%s", dir, name);
    sl_assert(length > 0 && length < SPOOL_PATH_MAX);
}

void segment_file_name(char out[32], uint64_t first_seq)
{
    int length = snprintf(out, 32, "%016llx.seg", (unsigned long long)first_seq);
    sl_assert(length == 20);
}

void segment_path(char out[SPOOL_PATH_MAX], const char *dir, uint64_t first_seq)
{
    char name[32];
    segment_file_name(name, first_seq);
    spool_path(out, dir, name);
}

uint64_t segment_usable(uint64_t size_bytes)
{
    uint64_t fixed = 2 * (uint64_t)SPOOL_BLOCK; // header block and seal
    return size_bytes > fixed + FRAME_HEADER_BYTES ? size_bytes - fixed - FRAME_HEADER_BYTES : 0;
}

void stream_log_init(struct stream_log *log, const struct storage *storage, const char *dir)
{
    *log = (struct stream_log){
        .storage = storage, .handle = -1, .next_seq = 1, .sealed = true, .ids_body_max = IDS_BODY_MAX};
    int length = snprintf(log->dir, sizeof(log->dir), "%s", dir);
    sl_assert(length > 0 && (size_t)length < sizeof(log->dir));
}

static bool fail(struct stream_log *log, struct sl_error *err, int rc, const char *what)
{
    log->failed = true;
    char name[32];
    segment_file_name(name, log->header.first_seq);
    return sl_fail_errno(err, SL_E_SYNC, -rc, "%s/%s: %s at %llu", log->header.stream, name, what,
                         (unsigned long long)log->offset);
}

void stream_log_release(struct stream_log *log)
{
    if (log->handle >= 0)
        log->storage->ops->close(log->storage->context, log->handle);
    log->handle = -1;
    if (log->written != NULL)
        spool_frame_release(log->written);
    log->written = NULL;
    ids_buffer_free(&log->ids);
}

// Small segments have small ids frames, so that ids take about the same part of each.
static uint32_t ids_body_max(uint64_t size_bytes)
{
    uint64_t part = size_bytes / 256 / SPOOL_BLOCK * SPOOL_BLOCK;
    if (part < SPOOL_BLOCK)
        part = SPOOL_BLOCK;
    uint64_t body = part - FRAME_HEADER_BYTES;
    return body < IDS_BODY_MAX ? (uint32_t)body : (uint32_t)IDS_BODY_MAX;
}

bool stream_log_activate(struct stream_log *log, struct ready_segment *ready, const struct segment_uuid *uuid,
                         int64_t wall_ns, struct sl_error *err)
{
    sl_assert(log->sealed && !log->failed);
    const struct storage *storage = log->storage;
    stream_log_release(log);
    log->handle = ready->handle;
    ready->handle = -1;
    log->direct = false;
    log->header.uuid = *uuid;
    log->header.first_seq = log->next_seq;
    log->header.created_wall_ns = wall_ns;
    log->header.size_bytes = ready->size_bytes;
    log->header.previous_frame_crc = log->previous_crc;
    log->seed = frame_body_seed(uuid);
    log->offset = 0;

    uint8_t block[SPOOL_BLOCK];
    segment_header_encode(&log->header, block);
    struct iovec part = {.iov_base = block, .iov_len = sizeof(block)};
    int rc = storage->ops->pwritev(storage->context, log->handle, &part, 1, 0);
    if (rc < 0)
        return fail(log, err, rc, "write of the header");
    rc = storage->ops->fdatasync(storage->context, log->handle);
    if (rc < 0)
        return fail(log, err, rc, "sync of the header");
    char path[SPOOL_PATH_MAX];
    segment_path(path, log->dir, log->header.first_seq);
    rc = storage->ops->rename(storage->context, ready->path, path);
    if (rc < 0)
        return fail(log, err, rc, "rename");
    rc = storage->ops->sync_directory(storage->context, log->dir);
    if (rc < 0)
        return fail(log, err, rc, "sync of the directory");
    log->offset = SPOOL_BLOCK;
    log->sealed = false;
    log->ids_body_max = ids_body_max(log->header.size_bytes);
    log->ids_given_up = spool_all_zero(log->header.ids_key_id, sizeof(log->header.ids_key_id));
    log->last_ids_offset = 0;
    ids_buffer_reset(&log->ids, log->next_seq);
    return true;
}

uint64_t stream_log_room(const struct stream_log *log)
{
    if (log->sealed || log->failed)
        return 0;
    uint64_t taken = log->offset + SPOOL_BLOCK + FRAME_HEADER_BYTES; // behind the frame: the seal
    return log->header.size_bytes > taken ? log->header.size_bytes - taken : 0;
}

// Past the page cache or through it. A hint: storage that cannot writes through the cache, as durable.
static void set_direct(struct stream_log *log, bool direct)
{
    if (log->direct == direct || log->storage->ops->bypass_cache == NULL)
        return;
    log->storage->ops->bypass_cache(log->storage->context, log->handle, direct);
    log->direct = direct;
}

// Puts the body together behind the place of its header and takes its CRC on the way, piece by piece, while the bytes
// are near.
static uint32_t assemble(uint8_t *body, const struct iovec *parts, int part_count, uint32_t crc)
{
    enum { PIECE = 32 << 10 };
    for (int i = 1; i <= part_count; i++) {
        const uint8_t *from = parts[i].iov_base;
        for (size_t left = parts[i].iov_len; left > 0;) {
            size_t piece = left < PIECE ? left : (size_t)PIECE;
            memcpy(body, from, piece);
            crc = sl_crc32c_extend(crc, body, piece);
            body += piece;
            from += piece;
            left -= piece;
        }
    }
    return crc;
}

static struct spool_frame *take_image(struct stream_log *log, enum frame_kind kind, size_t length)
{
    if (log->written != NULL)
        spool_frame_release(log->written);
    log->written = NULL;
    bool tapped = log->on_frame != NULL && kind == FRAME_DATA;
    if (log->pool == NULL || (length < DIRECT_FRAME_BYTES && !tapped))
        return NULL;
    return frame_pool_take(log->pool, length); // without memory the parts are written as they are
}

// Writes one frame and syncs it. parts as in stream_log_append; frame->{kind, flags, count} are set.
static bool put_frame(struct stream_log *log, struct iovec *parts, int part_count, struct frame_header *frame,
                      struct sl_error *err)
{
    const struct storage *storage = log->storage;
    size_t length = 0;
    for (int i = 1; i <= part_count; i++)
        length += parts[i].iov_len;
    sl_assert(length <= FRAME_BODY_MAX);
    struct spool_frame *image = take_image(log, frame->kind, length);
    uint32_t crc = log->seed;
    if (image != NULL)
        crc = assemble(frame_bytes(image), parts, part_count, crc);
    else
        for (int i = 1; i <= part_count; i++)
            crc = sl_crc32c_extend(crc, parts[i].iov_base, parts[i].iov_len);
    frame->uuid = log->header.uuid;
    frame->body_length = (uint32_t)length;
    frame->body_crc = crc;
    frame->previous_crc = log->previous_crc;
    frame->first_seq = log->next_seq;
    // Everything synced before this frame was told before this frame was built: there is one frame in flight at a time.
    frame->acked_through = log->next_seq - 1;
    frame->offset = log->offset;
    uint8_t header[FRAME_HEADER_BYTES];
    frame_header_encode(frame, header);
    uint64_t size = frame_size(frame->body_length);
    size_t padding = (size_t)(size - FRAME_HEADER_BYTES - length);
    sl_assert(log->offset + size <= log->header.size_bytes);
    int used;
    if (image != NULL) {
        image->header = *frame;
        uint8_t *bytes = frame_image(image);
        memcpy(bytes, header, sizeof(header));
        memset(bytes + FRAME_HEADER_BYTES + length, 0, padding);
        parts[0] = (struct iovec){.iov_base = bytes, .iov_len = size};
        used = 1;
        log->written = image;
        image->incarnation = log->incarnation;
        if (log->on_frame != NULL && frame->kind == FRAME_DATA)
            log->on_frame(log->user, image);
    } else {
        parts[0] = (struct iovec){.iov_base = header, .iov_len = sizeof(header)};
        // iov_base is not const; nothing is written through it.
        parts[part_count + 1] = (struct iovec){.iov_base = (void *)(uintptr_t)zeros, .iov_len = padding};
        used = part_count + (padding > 0 ? 2 : 1);
    }
    set_direct(log, image != NULL && length >= DIRECT_FRAME_BYTES);
    int rc = storage->ops->pwritev(storage->context, log->handle, parts, used, log->offset);
    if (rc < 0)
        return fail(log, err, rc, "write");
    rc = storage->ops->fdatasync(storage->context, log->handle);
    if (rc < 0)
        return fail(log, err, rc, "sync");
    log->offset += size;
    log->previous_crc = frame->header_crc;
    log->next_seq += frame->count;
    return true;
}

// ---- ids

uint64_t stream_log_ids_bytes(const struct stream_log *log, uint64_t records)
{
    if (log->ids_given_up)
        return 0;
    const uint64_t most = sizeof(struct ids_entry) + sizeof(struct ids_business);
    uint64_t bytes = (log->ids.count + records) * most;
    uint64_t frames = bytes / (log->ids_body_max - IDS_HEAD_BYTES - most) + 1;
    return bytes + frames * (FRAME_HEADER_BYTES + IDS_HEAD_BYTES + SPOOL_BLOCK);
}

static void give_up_ids(struct stream_log *log)
{
    log->ids_given_up = true;
    ids_buffer_reset(&log->ids, log->next_seq);
}

// Writes ids frames: all that waits, or full ones only. `behind` bytes must still fit, with the seal.
static bool put_ids(struct stream_log *log, bool all, uint64_t behind, int64_t wall_ns, struct sl_error *err)
{
    while (!log->ids_given_up && log->ids.count > 0) {
        struct ids_head head;
        uint32_t taken = ids_buffer_head(&log->ids, log->ids_body_max, &head);
        if (taken == log->ids.count && !all)
            break;
        uint64_t end = log->offset + frame_size((uint32_t)ids_body_length(&head)) + behind + SPOOL_BLOCK;
        if (end > log->header.size_bytes) {
            give_up_ids(log);
            break;
        }
        head.previous_offset = log->last_ids_offset;
        memcpy(head.key_id, log->header.ids_key_id, sizeof(head.key_id));
        uint8_t bytes[IDS_HEAD_BYTES];
        ids_head_encode(&head, bytes);
        struct iovec parts[5];
        parts[1] = (struct iovec){bytes, sizeof(bytes)};
        parts[2] = (struct iovec){log->ids.entries, head.count * sizeof(*log->ids.entries)};
        parts[3] = (struct iovec){log->ids.business, head.business_count * sizeof(*log->ids.business)};
        struct frame_header frame = {.kind = FRAME_IDS, .written_wall_ns = wall_ns};
        if (!put_frame(log, parts, head.business_count > 0 ? 3 : 2, &frame, err))
            return false;
        log->last_ids_offset = frame.offset;
        ids_buffer_drop(&log->ids, &head);
    }
    return true;
}

static void note_ids(struct stream_log *log, const struct iovec *parts, int part_count)
{
    for (int i = 1; i <= part_count && !log->ids_given_up; i++)
        if (!ids_buffer_add(&log->ids, parts[i].iov_base, parts[i].iov_len))
            give_up_ids(log);
}

// ---- frames

bool stream_log_append(struct stream_log *log, struct iovec *parts, int part_count, uint32_t count, int64_t wall_ns,
                       struct frame_header *out, struct sl_error *err)
{
    sl_assert(!log->failed && !log->sealed && part_count > 0 && part_count <= FRAME_PARTS_MAX && count > 0);
    size_t length = 0;
    for (int i = 1; i <= part_count; i++)
        length += parts[i].iov_len;
    sl_assert(length <= FRAME_BODY_MAX);
    if (!put_ids(log, false, frame_size((uint32_t)length), wall_ns, err))
        return false;
    *out = (struct frame_header){.kind = FRAME_DATA, .count = count, .written_wall_ns = wall_ns};
    if (!put_frame(log, parts, part_count, out, err))
        return false;
    note_ids(log, parts, part_count);
    return true;
}

bool stream_log_seal(struct stream_log *log, bool closed, int64_t wall_ns, uint64_t *closed_size, struct sl_error *err)
{
    sl_assert(!log->failed && !log->sealed);
    if (!put_ids(log, true, 0, wall_ns, err))
        return false;
    struct frame_header seal = {
        .kind = FRAME_SEAL, .flags = closed ? FRAME_FLAG_STREAM_CLOSED : 0, .written_wall_ns = wall_ns};
    uint8_t body[SEAL_BODY_BYTES];
    seal_body_encode(log->last_ids_offset, body);
    bool complete = !log->ids_given_up && log->last_ids_offset > 0;
    struct iovec parts[3];
    parts[1] = (struct iovec){body, sizeof(body)};
    if (!put_frame(log, parts, complete ? 1 : 0, &seal, err))
        return false;
    log->sealed = true;
    *closed_size = log->header.size_bytes;
    // The rest holds zeros only. That it stays allocated after a failure or a crash costs space and nothing else.
    if (log->storage->ops->truncate(log->storage->context, log->handle, log->offset) == 0)
        *closed_size = log->offset;
    return true;
}
