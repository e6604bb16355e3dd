// <stream>/progress: how far each lane is known to be in Kafka; <stream>/damaged: ranges that cannot be read. Both are
// text, end in a line with the CRC32C of what is before it, and are replaced as a whole.
//
//   sluice-progress 1
//   base <lowest seq that retention has left>
//   lane <name> <verified through> <records of the lane up to there>
//   crc <8 hex>
#include "spool/internal.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 64 << 10, DAMAGES_MAX = 400 };

struct text {
    char *bytes;
    size_t length;
};

static void SL_PRINTF(2, 3) add(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text->bytes + text->length, FILE_BYTES_MAX - text->length, format, args);
    va_end(args);
    sl_assert(length >= 0 && (size_t)length < FILE_BYTES_MAX - text->length);
    text->length += (size_t)length;
}

static void add_crc(struct text *text)
{
    add(text, "crc %08" PRIx32 "\n", sl_crc32c(text->bytes, text->length));
}

// Reads a whole file and checks its last line, which is cut off. *text is NULL when there is no file.
static bool load(struct stream *stream, const char *name, char **text, struct sl_error *err)
{
    *text = NULL;
    char *bytes = malloc(FILE_BYTES_MAX + 1);
    if (bytes == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "%s", name);
    size_t length = FILE_BYTES_MAX;
    if (!spool_read_file(&stream->spool->storage, stream->dir, name, bytes, &length, err)) {
        free(bytes);
        return false;
    }
    if (length == 0) {
        free(bytes);
        return true;
    }
    bytes[length] = '\0';
    enum { CRC_LINE = 13 };
    uint32_t crc;
    if (length <= CRC_LINE || sscanf(bytes + length - CRC_LINE, "crc %8" SCNx32 "\n", &crc) != 1 ||
        crc != sl_crc32c(bytes, length - CRC_LINE)) {
        free(bytes);
        return sl_fail(err, SL_E_CORRUPT, "%s/%s: checksum", stream->id, name);
    }
    bytes[length - CRC_LINE] = '\0';
    *text = bytes;
    return true;
}

bool progress_load(struct stream *stream, struct sl_error *err)
{
    char *text;
    if (!load(stream, "progress", &text, err))
        return false;
    if (text == NULL)
        return true;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char name[SPOOL_NAME_MAX + 1];
        uint64_t through, records;
        if (sscanf(line, "base %" SCNu64, &stream->base_seq) == 1)
            continue;
        if (sscanf(line, "lane %63s %" SCNu64 " %" SCNu64, name, &through, &records) != 3)
            continue;
        struct lane_state *lane = stream_lane(stream, name);
        if (lane == NULL)
            continue;
        lane->verified_told = lane->verified = lane->committed = through;
        lane->committed_records = records;
        lane->stored = (struct checkpoint){.through = through, .records = records};
    }
    free(text);
    return true;
}

bool progress_store(struct stream *stream, struct sl_error *err)
{
    struct spool *spool = stream->spool;
    struct text text = {.bytes = malloc(FILE_BYTES_MAX)};
    if (text.bytes == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "progress");
    pthread_mutex_lock(&spool->mutex);
    add(&text, "sluice-progress 1\nbase %" PRIu64 "\n", stream->base_seq);
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        const struct lane_state *lane = &stream->lanes[i];
        add(&text, "lane %s %" PRIu64 " %" PRIu64 "\n", lane->name, lane->stored.through, lane->stored.records);
    }
    stream->progress_dirty = false;
    pthread_mutex_unlock(&spool->mutex);
    add_crc(&text);
    bool stored = spool_replace_file(&spool->storage, stream->dir, "progress", text.bytes, text.length, err);
    free(text.bytes);
    if (!stored) {
        pthread_mutex_lock(&spool->mutex);
        stream->progress_dirty = true;
        pthread_mutex_unlock(&spool->mutex);
    }
    return stored;
}

// ---- damage: "<file> <offset> <first seq> <last seq> <verdict>" a line; last < first: no record was lost

bool damage_load(struct stream *stream, struct sl_error *err)
{
    char *text;
    if (!load(stream, "damaged", &text, err))
        return false;
    if (text == NULL)
        return true;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        struct spool_damage damage = {0};
        if (sscanf(line, "%63s %" SCNu64 " %" SCNu64 " %" SCNu64 " %31s", damage.file, &damage.offset,
                   &damage.first_seq, &damage.last_seq, damage.verdict) != 5)
            continue;
        struct spool_damage *damages = realloc(stream->damages, (stream->damage_count + 1) * sizeof(*damages));
        sl_assert(damages != NULL);
        stream->damages = damages;
        stream->damages[stream->damage_count++] = damage;
        for (size_t i = 0; i < stream->segment_count; i++) {
            char name[32];
            segment_file_name(name, stream->segments[i].first_seq);
            if (strcmp(name, damage.file) == 0)
                stream->segments[i].damaged = true;
        }
    }
    free(text);
    return true;
}

bool damage_store(struct stream *stream, struct sl_error *err)
{
    struct spool *spool = stream->spool;
    struct text text = {.bytes = malloc(FILE_BYTES_MAX)};
    if (text.bytes == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "damaged");
    add(&text, "sluice-damaged 1 - - -\n");
    pthread_mutex_lock(&spool->mutex);
    for (size_t i = 0; i < stream->damage_count && i < DAMAGES_MAX; i++) {
        const struct spool_damage *damage = &stream->damages[i];
        add(&text, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", damage->file, damage->offset, damage->first_seq,
            damage->last_seq, damage->verdict);
    }
    stream->damage_dirty = false;
    pthread_mutex_unlock(&spool->mutex);
    add_crc(&text);
    bool stored = spool_replace_file(&spool->storage, stream->dir, "damaged", text.bytes, text.length, err);
    free(text.bytes);
    if (!stored) {
        pthread_mutex_lock(&spool->mutex);
        stream->damage_dirty = true;
        pthread_mutex_unlock(&spool->mutex);
    }
    return stored;
}

// With spool->mutex. False when it is known already.
static bool remember(struct stream *stream, const struct spool_damage *damage)
{
    for (size_t i = 0; i < stream->damage_count; i++) {
        const struct spool_damage *known = &stream->damages[i];
        if (known->first_seq == damage->first_seq && known->offset == damage->offset &&
            strcmp(known->file, damage->file) == 0 && strcmp(known->verdict, damage->verdict) == 0)
            return false;
    }
    struct spool_damage *damages = realloc(stream->damages, (stream->damage_count + 1) * sizeof(*damages));
    if (damages == NULL)
        return false; // found again by the next pass
    stream->damages = damages;
    stream->damages[stream->damage_count++] = *damage;
    stream->damage_dirty = true;
    for (size_t i = 0; i < stream->segment_count; i++) {
        char name[32];
        segment_file_name(name, stream->segments[i].first_seq);
        if (strcmp(name, damage->file) == 0)
            stream->segments[i].damaged = true;
    }
    return true;
}

void damage_report(struct stream *stream, const struct spool_damage *damage)
{
    pthread_mutex_lock(&stream->spool->mutex);
    bool fresh = remember(stream, damage);
    if (fresh)
        keeper_kick(stream->spool); // writes it to <stream>/damaged
    pthread_mutex_unlock(&stream->spool->mutex);
    if (!fresh)
        return;
    sl_logf(SL_ERROR, "spool", "damage found: the range is set aside, everything else goes on",
            SL_STR("stream", stream->id), SL_STR("file", damage->file), SL_UINT("offset", damage->offset),
            SL_STR("verdict", damage->verdict), SL_UINT("first_seq", damage->first_seq),
            SL_UINT("last_seq", damage->last_seq));
}
