// <stream>/progress: how far each lane is known to be in Kafka; <stream>/damaged: ranges that cannot be read. Both are
// text, end in a line with the CRC32C of what is before it, and are replaced as a whole.
//
//   sluice-progress 1
//   base <lowest seq that retention has left>
//   uncounted        only where the stream grew without its beginning: what was produced of it is not known
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

// A file in the making. NULL bytes after text_end: out of memory.
struct text {
    FILE *out;
    char *bytes;
    size_t length;
};

static bool text_begin(struct text *text, struct sl_error *err)
{
    *text = (struct text){.bytes = NULL};
    text->out = open_memstream(&text->bytes, &text->length);
    return text->out != NULL || sl_fail(err, SL_E_NO_MEMORY, "text of a small file");
}

// Adds the line with the checksum and puts the file into its place. Frees the text.
static bool text_store(struct text *text, struct stream *stream, const char *name, struct sl_error *err)
{
    bool good = fflush(text->out) == 0;
    if (good)
        fprintf(text->out, "crc %08" PRIx32 "\n", sl_crc32c(text->bytes, text->length));
    good = fclose(text->out) == 0 && good;
    if (good)
        good = spool_replace_file(&stream->spool->storage, stream->dir, name, text->bytes, text->length, err);
    else
        sl_fail(err, SL_E_NO_MEMORY, "text of %s", name);
    free(text->bytes);
    return good;
}

// The next word of a line as a number. The checksum was right, so that a line is what this program wrote, or a later
// one: what does not parse is left alone.
static bool next_number(char **rest, uint64_t *out)
{
    const char *word = strtok_r(NULL, " ", rest);
    char *end;
    if (word == NULL || *word < '0' || *word > '9')
        return false;
    *out = strtoull(word, &end, 10);
    return *end == '\0';
}

static bool next_word(char **rest, char *out, size_t room)
{
    const char *word = strtok_r(NULL, " ", rest);
    if (word == NULL || strlen(word) >= room)
        return false;
    memcpy(out, word, strlen(word) + 1);
    return true;
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
    char expected[CRC_LINE + 1];
    snprintf(expected, sizeof(expected), "crc %08" PRIx32 "\n",
             sl_crc32c(bytes, length > CRC_LINE ? length - CRC_LINE : 0));
    if (length <= CRC_LINE || memcmp(bytes + length - CRC_LINE, expected, CRC_LINE) != 0) {
        free(bytes);
        return sl_fail(err, SL_E_CORRUPT, "%s/%s: checksum", stream->id, name);
    }
    bytes[length - CRC_LINE] = '\0';
    *text = bytes;
    return true;
}

static void take_progress_line(struct stream *stream, char *line)
{
    char *rest = NULL, name[SPOOL_NAME_MAX + 1];
    const char *what = strtok_r(line, " ", &rest);
    uint64_t through, records;
    if (what != NULL && strcmp(what, "base") == 0 && next_number(&rest, &through))
        stream->base_seq = through;
    if (what != NULL && strcmp(what, "uncounted") == 0)
        stream->uncounted = true;
    if (what == NULL || strcmp(what, "lane") != 0 || !next_word(&rest, name, sizeof(name)) ||
        !next_number(&rest, &through) || !next_number(&rest, &records))
        return;
    struct lane_state *lane = stream_lane(stream, name);
    if (lane == NULL)
        return;
    lane->verified_told = lane->verified = lane->committed = through;
    lane->committed_records = records;
    lane->stored = (struct checkpoint){.through = through, .records = records};
}

bool progress_load(struct stream *stream, struct sl_error *err)
{
    char *text;
    if (!load(stream, "progress", &text, err))
        return false;
    if (text == NULL)
        return true;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        take_progress_line(stream, line);
    free(text);
    return true;
}

bool progress_store(struct stream *stream, struct sl_error *err)
{
    struct spool *spool = stream->spool;
    struct text text;
    if (!text_begin(&text, err))
        return false;
    pthread_mutex_lock(&spool->progress_mutex); // keeper and replica thread
    pthread_mutex_lock(&spool->mutex);
    fprintf(text.out, "sluice-progress 1\nbase %" PRIu64 "\n%s", stream->base_seq,
            stream->uncounted ? "uncounted\n" : "");
    for (uint32_t i = 0; i < stream->lane_count; i++) {
        const struct lane_state *lane = &stream->lanes[i];
        fprintf(text.out, "lane %s %" PRIu64 " %" PRIu64 "\n", lane->name, lane->stored.through, lane->stored.records);
    }
    stream->progress_dirty = false;
    pthread_mutex_unlock(&spool->mutex);
    bool stored = text_store(&text, stream, "progress", err);
    pthread_mutex_unlock(&spool->progress_mutex);
    if (!stored) {
        pthread_mutex_lock(&spool->mutex);
        stream->progress_dirty = true;
        pthread_mutex_unlock(&spool->mutex);
    }
    return stored;
}

// ---- damage: "<file> <offset> <first seq> <last seq> <verdict>" a line; last < first: no record was lost

// With spool->mutex, or before there are threads.
static void mark_damaged(struct stream *stream, const char *file)
{
    for (size_t i = 0; i < stream->segment_count; i++) {
        char name[32];
        segment_file_name(name, stream->segments[i].first_seq);
        if (strcmp(name, file) == 0)
            stream->segments[i].damaged = true;
    }
}

static void take_damage_line(struct stream *stream, char *line)
{
    struct spool_damage damage = {0};
    char *rest = NULL;
    const char *file = strtok_r(line, " ", &rest);
    if (file == NULL || strlen(file) >= sizeof(damage.file) || !next_number(&rest, &damage.offset) ||
        !next_number(&rest, &damage.first_seq) || !next_number(&rest, &damage.last_seq) ||
        !next_word(&rest, damage.verdict, sizeof(damage.verdict)))
        return; // the first line, too
    memcpy(damage.file, file, strlen(file) + 1);
    struct spool_damage *damages = realloc(stream->damages, (stream->damage_count + 1) * sizeof(*damages));
    sl_assert(damages != NULL);
    stream->damages = damages;
    stream->damages[stream->damage_count++] = damage;
    mark_damaged(stream, damage.file);
}

bool damage_load(struct stream *stream, struct sl_error *err)
{
    char *text;
    if (!load(stream, "damaged", &text, err))
        return false;
    if (text == NULL)
        return true;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        take_damage_line(stream, line);
    free(text);
    return true;
}

bool damage_store(struct stream *stream, struct sl_error *err)
{
    struct spool *spool = stream->spool;
    struct text text;
    if (!text_begin(&text, err))
        return false;
    fprintf(text.out, "sluice-damaged 1 - - -\n");
    pthread_mutex_lock(&spool->mutex);
    for (size_t i = 0; i < stream->damage_count && i < DAMAGES_MAX; i++) {
        const struct spool_damage *damage = &stream->damages[i];
        fprintf(text.out, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", damage->file, damage->offset,
                damage->first_seq, damage->last_seq, damage->verdict);
    }
    stream->damage_dirty = false;
    pthread_mutex_unlock(&spool->mutex);
    bool stored = text_store(&text, stream, "damaged", err);
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
        bool here = known->first_seq == damage->first_seq && known->offset == damage->offset &&
                    strcmp(known->file, damage->file) == 0;
        // The end of a stream that goes on behind it has another verdict from then on.
        if (here && (strcmp(known->verdict, damage->verdict) == 0 || known->last_seq == damage->last_seq))
            return false;
    }
    struct spool_damage *damages = realloc(stream->damages, (stream->damage_count + 1) * sizeof(*damages));
    if (damages == NULL)
        return false; // found again by the next pass
    stream->damages = damages;
    stream->damages[stream->damage_count++] = *damage;
    stream->damage_dirty = true;
    mark_damaged(stream, damage->file);
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
