// Progress as the drainer tells it, its own small files, and the records that even the dead-letter topic refused.
#include "spool/internal.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOTE_BYTES_MAX = 64 << 10, CRC_BYTES = 4 };

// ---- progress

static struct checkpoint *checkpoint_at(struct lane_state *lane, size_t index)
{
    return &lane->checkpoints[(lane->checkpoint_first + index) % CHECKPOINTS];
}

// When the ring is full its newest entry moves on: what goes to disk is then a little older, never wrong.
static void add_checkpoint(struct lane_state *lane)
{
    if (lane->checkpoint_count < CHECKPOINTS)
        lane->checkpoint_count++;
    *checkpoint_at(lane, lane->checkpoint_count - 1) =
        (struct checkpoint){.through = lane->committed, .records = lane->committed_records};
}

// What was read back counts as far as the drainer has counted the records, so that through and records always belong
// together.
static void advance_verified(struct stream *stream, struct lane_state *lane)
{
    uint64_t verified = lane->verified_told < lane->committed ? lane->verified_told : lane->committed;
    if (verified > lane->verified)
        lane->verified = verified;
    for (; lane->checkpoint_count > 0 && checkpoint_at(lane, 0)->through <= lane->verified; lane->checkpoint_count--) {
        lane->stored = *checkpoint_at(lane, 0);
        lane->checkpoint_first = (lane->checkpoint_first + 1) % CHECKPOINTS;
        stream->progress_dirty = true;
    }
}

static struct lane_state *find_lane(struct spool *spool, const char *stream_id, const char *lane_name,
                                    struct stream **stream)
{
    *stream = stream_find(spool, stream_id);
    return *stream != NULL ? stream_lane(*stream, lane_name) : NULL;
}

void spool_note_committed(struct spool *spool, const char *stream_id, const char *lane_name, uint64_t through,
                          uint64_t records)
{
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream;
    struct lane_state *lane = find_lane(spool, stream_id, lane_name, &stream);
    if (lane != NULL) {
        if (through > lane->committed)
            lane->committed = through;
        lane->committed_records += records;
        add_checkpoint(lane);
        advance_verified(stream, lane);
        figures_check_lane(spool, stream, lane);
        figures_refresh(spool);
    }
    pthread_mutex_unlock(&spool->mutex);
    atomic_fetch_add_explicit(&spool->committed_events, records, memory_order_relaxed);
}

void spool_note_verified(struct spool *spool, const char *stream_id, const char *lane_name, uint64_t through)
{
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream;
    struct lane_state *lane = find_lane(spool, stream_id, lane_name, &stream);
    if (lane != NULL && through > lane->verified_told) {
        lane->verified_told = through;
        advance_verified(stream, lane);
    }
    pthread_mutex_unlock(&spool->mutex);
}

// ---- notes

static bool note_name(char out[64], const char *name, struct sl_error *err)
{
    size_t length = strlen(name);
    if (length == 0 || length > 40 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != length)
        return sl_fail(err, SL_E_INVALID, "name of a note: %s", name);
    snprintf(out, 64, "note-%s", name);
    return true;
}

static bool stream_dir(struct spool *spool, const char *stream_id, char out[SPOOL_PATH_MAX], struct sl_error *err)
{
    pthread_mutex_lock(&spool->mutex);
    const struct stream *stream = stream_find(spool, stream_id);
    if (stream != NULL)
        memcpy(out, stream->dir, SPOOL_PATH_MAX);
    pthread_mutex_unlock(&spool->mutex);
    return stream != NULL || sl_fail(err, SL_E_INVALID, "no stream %s in the spool", stream_id);
}

bool spool_put_note(struct spool *spool, const char *stream_id, const char *name, const void *bytes, size_t length,
                    struct sl_error *err)
{
    char file[64], dir[SPOOL_PATH_MAX];
    if (!note_name(file, name, err) || !stream_dir(spool, stream_id, dir, err))
        return false;
    if (length > NOTE_BYTES_MAX)
        return sl_fail(err, SL_E_TOO_LARGE, "note %s: %zu bytes", name, length);
    uint8_t *image = malloc(length + CRC_BYTES);
    if (image == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "note %s", name);
    uint32_t crc = sl_crc32c(bytes, length);
    struct sl_writer writer = sl_writer_of(image, length + CRC_BYTES);
    sl_write_bytes(&writer, bytes, length);
    sl_write_u32(&writer, crc);
    bool stored = spool_replace_file(&spool->storage, dir, file, image, length + CRC_BYTES, err);
    free(image);
    return stored;
}

bool spool_get_note(struct spool *spool, const char *stream_id, const char *name, void *bytes, size_t *length,
                    struct sl_error *err)
{
    char file[64], dir[SPOOL_PATH_MAX];
    if (!note_name(file, name, err) || !stream_dir(spool, stream_id, dir, err))
        return false;
    uint8_t *image = malloc(NOTE_BYTES_MAX + CRC_BYTES);
    if (image == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "note %s", name);
    size_t capacity = *length, got = NOTE_BYTES_MAX + CRC_BYTES;
    bool read = spool_read_file(&spool->storage, dir, file, image, &got, err);
    *length = 0;
    if (read && got > 0) {
        size_t body = got >= CRC_BYTES ? got - CRC_BYTES : 0;
        struct sl_reader reader = sl_reader_of(image + body, got - body);
        if (sl_read_u32(&reader) != sl_crc32c(image, body) || reader.failed)
            read = sl_fail(err, SL_E_CORRUPT, "note %s of %s: checksum", name, stream_id);
        else if (body > capacity)
            read = sl_fail(err, SL_E_TOO_LARGE, "note %s of %s: %zu bytes", name, stream_id, body);
        else if (body > 0)
            memcpy(bytes, image, body);
        *length = read ? body : 0;
    }
    free(image);
    return read;
}

// ---- refused records

static size_t json_string(char *out, size_t room, struct sl_span text)
{
    size_t length = 0;
    const uint8_t *bytes = text.bytes;
    for (size_t i = 0; i < text.length && length + 8 < room; i++) {
        if (bytes[i] == '"' || bytes[i] == '\\')
            length += (size_t)snprintf(out + length, room - length, "\\%c", bytes[i]);
        else if (bytes[i] < 0x20 || bytes[i] >= 0x7f) // as Latin-1: names may hold any bytes, the file stays valid JSON
            length += (size_t)snprintf(out + length, room - length, "\\u%04x", bytes[i]);
        else
            out[length++] = (char)bytes[i];
    }
    out[length] = '\0';
    return length;
}

static bool refused_dir(struct spool *spool, char dir[SPOOL_PATH_MAX], struct sl_error *err)
{
    spool_path(dir, spool->dir, "refused");
    int rc = spool->storage.ops->mkdir(spool->storage.context, dir);
    if (rc == 0)
        rc = spool->storage.ops->sync_directory(spool->storage.context, spool->dir);
    return rc == 0 || rc == -EEXIST || sl_fail_errno(err, SL_E_IO, -rc, "create %s", dir);
}

bool spool_put_refused(struct spool *spool, const char *stream_id, uint64_t seq, const struct record *record,
                       const char *cause, struct sl_error *err)
{
    enum { TEXT = 8192, META = 6 * TEXT };
    char dir[SPOOL_PATH_MAX], name[SPOOL_STREAM_ID_MAX + 64];
    if (!refused_dir(spool, dir, err))
        return false;
    // Enough for one field: event ids are at most 1,024 bytes, six characters each as an escape.
    char *text = malloc(TEXT), *meta = malloc(META);
    if (text == NULL || meta == NULL) {
        free(text);
        free(meta);
        return sl_fail(err, SL_E_NO_MEMORY, "refused record");
    }
    struct {
        const char *key;
        struct sl_span value;
    } fields[] = {{"source", record->source},
                  {"lane", record->lane},
                  {"topic", record->topic},
                  {"event_id", record->event_id},
                  {"cause", sl_span_of(cause)}};
    int used = snprintf(meta, META, "{\"stream\":\"%s\",\"seq\":%" PRIu64 ",\"received_wall_ns\":%" PRId64, stream_id,
                        seq, record->received_wall_ns);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        json_string(text, TEXT, fields[i].value);
        used += snprintf(meta + used, META - (size_t)used, ",\"%s\":\"%s\"", fields[i].key, text);
    }
    used += snprintf(meta + used, META - (size_t)used, ",\"payload_bytes\":%zu}\n", record->payload.length);
    snprintf(name, sizeof(name), "%s-%" PRIu64 ".bin", stream_id, seq);
    bool stored = spool_replace_file(&spool->storage, dir, name, record->payload.bytes, record->payload.length, err);
    snprintf(name, sizeof(name), "%s-%" PRIu64 ".json", stream_id, seq);
    stored = stored && spool_replace_file(&spool->storage, dir, name, meta, (size_t)used, err);
    free(text);
    free(meta);
    if (stored)
        atomic_fetch_add_explicit(&spool->refused_records, 1, memory_order_relaxed);
    return stored;
}
