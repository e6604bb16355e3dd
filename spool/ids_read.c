// Reading ids back.
//
// The happy path, for a sealed segment and for a .ids file alike: the seal is the file's last block, and names the last
// ids frame; each of these names the one before it. Heads first, backwards, to learn where they are; then bodies, by
// seq. No record is read.
//
// Failure modes, each costing time alone: no seal (the stream was killed, or its last file was not cut behind the
// seal), a seal that names nothing (ids did not fit), frames of the chain that do not verify (reported as lost-seal):
// the seqs that they would have held are read from the records. A .ids file has none: its loss is logged.
#include "spool/ids.h"

#include "base/log.h"
#include "spool/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct place {
    uint64_t offset;
    uint32_t body_length;
    struct frame_header header;
    struct ids_head head;
};

struct reading {
    struct stream *stream;
    const struct spool_ids_unit *unit;
    uint64_t from_seq; // first that is wanted
    spool_ids_each *each;
    void *user;
    struct spool_ids_result *result;
    bool kept; // the file is a .ids file
    int handle;
    uint64_t file_bytes;
    bool uuid_known;
    struct segment_uuid uuid;
    struct place *places; // last first
    size_t place_count, place_capacity;
    uint64_t bound; // the places hold [bound, end_seq)
    uint64_t end_seq;
};

static bool read_at(struct reading *reading, void *bytes, size_t length, uint64_t offset)
{
    const struct storage *storage = &reading->stream->spool->storage;
    ssize_t got = storage->ops->pread(storage->context, reading->handle, bytes, length, offset);
    if (got < 0 || (size_t)got < length)
        return false;
    reading->result->bytes += length;
    return true;
}

// ---- giving

static bool give(struct reading *reading, const struct ids_head *head, const struct ids_entry *entries,
                 struct ids_business *business)
{
    uint64_t from = head->first_seq > reading->from_seq ? head->first_seq : reading->from_seq;
    uint64_t end = head->first_seq + head->count;
    if (from >= end)
        return true;
    uint32_t skip = (uint32_t)(from - head->first_seq), skip_business = 0;
    while (skip > 0 && skip_business < head->business_count && business[skip_business].index < skip)
        skip_business++;
    for (uint32_t i = skip_business; i < head->business_count; i++)
        business[i].index -= skip;
    struct spool_ids_block block = {.first_seq = from,
                                    .count = head->count - skip,
                                    .business_count = head->business_count - skip_business,
                                    .entries = entries + skip,
                                    .business = business + skip_business,
                                    .first_received_wall_ns = head->first_received_wall_ns,
                                    .last_received_wall_ns = head->last_received_wall_ns};
    reading->result->ids += block.count;
    reading->from_seq = end;
    if (reading->each(reading->user, reading->unit, &block))
        return true;
    reading->result->stopped = true;
    return false;
}

// ---- from records

// The frame's records before end_seq.
static bool give_frame(struct reading *reading, struct ids_buffer *buffer, const struct spool_frame *frame,
                       uint64_t end_seq, struct sl_error *err)
{
    const struct frame_header *header = &frame->header;
    reading->result->bytes += header->body_length;
    ids_buffer_reset(buffer, header->first_seq);
    if (!ids_buffer_add(buffer, frame->body, header->body_length))
        return sl_fail(err, SL_E_NO_MEMORY, "ids of %u records", header->count);
    while (buffer->count > 0 && !reading->result->stopped) {
        struct ids_head head;
        ids_buffer_head(buffer, IDS_BODY_MAX, &head);
        if (head.first_seq >= end_seq)
            break;
        if (head.first_seq + head.count > end_seq) {
            head.count = (uint32_t)(end_seq - head.first_seq);
            while (head.business_count > 0 && buffer->business[head.business_count - 1].index >= head.count)
                head.business_count--;
        }
        struct ids_head taken = head;
        if (!give(reading, &head, buffer->entries, buffer->business))
            break;
        // give() has renumbered what it gave; the rest is as it was.
        ids_buffer_drop(buffer, &taken);
    }
    return true;
}

static bool from_records(struct reading *reading, uint64_t end_seq, struct sl_error *err)
{
    enum { FAILURES_MAX = 4 }; // the scanner takes a sector that cannot be read three times for damage
    struct scanner scanner;
    struct ids_buffer buffer = {0};
    unsigned failures = 0;
    bool good = true, more = true;
    reading->result->source = SPOOL_IDS_RECORDS;
    stream_scanner(&scanner, reading->stream, reading->from_seq, true);
    while (good && more && !reading->result->stopped && reading->from_seq < end_seq) {
        struct scan_event event;
        enum scan_result result = scanner_next(&scanner, &event, err);
        more = result != SCAN_END && result != SCAN_WAIT &&
               (result == SCAN_FAILED || event.segment == reading->unit->first_seq) && result != SCAN_SEAL;
        if (result == SCAN_FAILED)
            good = ++failures < FAILURES_MAX;
        if (result == SCAN_DAMAGE && more) {
            struct spool_damage damage = damage_of(&event);
            damage_report(reading->stream, &damage);
            reading->result->damaged = true;
        }
        if (result != SCAN_FRAME)
            continue;
        if (more)
            good = give_frame(reading, &buffer, event.frame, end_seq, err);
        spool_frame_release(event.frame);
    }
    scanner_release(&scanner);
    ids_buffer_free(&buffer);
    return good;
}

// ---- from ids frames

static void report(struct reading *reading, uint64_t offset, uint64_t first_seq)
{
    reading->result->damaged = true;
    if (reading->kept) {
        sl_logf(SL_ERROR, "spool", "ids of a deleted segment are damaged: a restart will not know them",
                SL_STR("stream", reading->stream->id), SL_UINT("file_first_seq", reading->unit->first_seq),
                SL_UINT("offset", offset), SL_UINT("first_seq", first_seq));
        return;
    }
    struct scan_event event = {.verdict = VERDICT_LOST_SEAL,
                               .segment = reading->unit->first_seq,
                               .offset = offset,
                               .first_seq = first_seq,
                               .last_seq = first_seq - 1};
    struct spool_damage damage = damage_of(&event);
    damage_report(reading->stream, &damage);
}

static bool is_here(const struct reading *reading, const struct frame_header *header, enum frame_kind kind,
                    uint64_t offset)
{
    return header->kind == kind && header->offset == offset &&
           (!reading->uuid_known || segment_uuid_equal(&header->uuid, &reading->uuid));
}

// The offset of the last ids frame; 0 when the file does not end in a seal that names one.
static uint64_t find_last(struct reading *reading)
{
    uint8_t bytes[FRAME_HEADER_BYTES + SEAL_BODY_BYTES];
    if (reading->file_bytes < 3 * (uint64_t)SPOOL_BLOCK || reading->file_bytes % SPOOL_BLOCK != 0)
        return 0;
    uint64_t offset = reading->file_bytes - SPOOL_BLOCK;
    struct frame_header seal;
    if (!read_at(reading, bytes, sizeof(bytes), offset) || frame_header_decode(&seal, bytes) != FRAME_HEADER_OK ||
        !is_here(reading, &seal, FRAME_SEAL, offset) || seal.body_length != SEAL_BODY_BYTES ||
        !frame_body_verify(&seal, bytes + FRAME_HEADER_BYTES))
        return 0;
    reading->uuid = seal.uuid;
    reading->uuid_known = true;
    reading->end_seq = reading->bound = seal.first_seq;
    return seal_body_decode(bytes + FRAME_HEADER_BYTES);
}

// Only a first look: the body is verified when it is read.
static bool look(struct reading *reading, uint64_t offset, struct place *place)
{
    uint8_t bytes[FRAME_HEADER_BYTES + IDS_HEAD_BYTES];
    *place = (struct place){.offset = offset};
    return offset % SPOOL_BLOCK == 0 && read_at(reading, bytes, sizeof(bytes), offset) &&
           frame_header_decode(&place->header, bytes) == FRAME_HEADER_OK &&
           is_here(reading, &place->header, FRAME_IDS, offset) &&
           ids_head_decode(&place->head, bytes + FRAME_HEADER_BYTES, place->header.body_length) &&
           memcmp(place->head.key_id, reading->stream->spool->ids_key_id, sizeof(place->head.key_id)) == 0 &&
           place->head.first_seq + place->head.count == reading->bound &&
           place->head.first_seq >= reading->unit->first_seq && place->head.previous_offset < offset;
}

// Follows the chain back to from_seq. What is before reading->bound then was not found.
static bool find_places(struct reading *reading, uint64_t offset, struct sl_error *err)
{
    while (offset != 0 && reading->bound > reading->from_seq) {
        if (reading->place_count == reading->place_capacity) {
            size_t capacity = reading->place_capacity > 0 ? reading->place_capacity * 2 : 64;
            struct place *places = realloc(reading->places, capacity * sizeof(*places));
            if (places == NULL)
                return sl_fail(err, SL_E_NO_MEMORY, "ids of %s", reading->stream->id);
            reading->places = places;
            reading->place_capacity = capacity;
        }
        struct place *place = &reading->places[reading->place_count];
        if (!look(reading, offset, place))
            break;
        reading->place_count++;
        reading->bound = place->head.first_seq;
        offset = place->head.previous_offset;
    }
    if (reading->bound > reading->from_seq)
        report(reading, offset, reading->bound);
    return true;
}

// *good: it verified. False: out of memory.
static bool give_place(struct reading *reading, const struct place *place, bool *good, struct sl_error *err)
{
    uint32_t length = place->header.body_length;
    struct spool_frame *frame = frame_pool_take(reading->stream->spool->pool, length);
    if (frame == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "ids frame of %u bytes", length);
    uint8_t *body = frame_bytes(frame);
    struct ids_head head;
    const struct ids_entry *entries;
    const struct ids_business *business;
    *good = read_at(reading, body, length, place->offset + FRAME_HEADER_BYTES) &&
            frame_body_verify(&place->header, body) && ids_body_decode(&head, &entries, &business, body, length);
    if (*good) // the body is this function's own, and may be changed
        (void)give(reading, &head, entries, (struct ids_business *)(uintptr_t)business);
    spool_frame_release(frame);
    return true;
}

// Of a segment without a seal: where it ends by itself. One that grows: where it ended when it was listed.
static uint64_t end_of(const struct reading *reading)
{
    struct stream *stream = reading->stream;
    pthread_mutex_lock(&stream->spool->mutex);
    bool growing = stream->growing || stream->current;
    pthread_mutex_unlock(&stream->spool->mutex);
    return growing && reading->unit->last_seq < UINT64_MAX ? reading->unit->last_seq + 1 : UINT64_MAX;
}

static bool from_frames(struct reading *reading, struct sl_error *err)
{
    uint64_t last = find_last(reading);
    if (last == 0) {
        if (reading->kept)
            report(reading, 0, reading->unit->first_seq);
        return reading->kept || from_records(reading, end_of(reading), err);
    }
    if (!find_places(reading, last, err))
        return false;
    if (reading->bound > reading->from_seq && !reading->kept && !from_records(reading, reading->bound, err))
        return false;
    for (size_t i = reading->place_count; i-- > 0 && !reading->result->stopped;) {
        const struct place *place = &reading->places[i];
        bool good = false;
        if (!give_place(reading, place, &good, err))
            return false;
        if (good)
            continue;
        report(reading, place->offset, place->head.first_seq);
        if (!reading->kept && !from_records(reading, place->head.first_seq + place->head.count, err))
            return false;
    }
    return true;
}

// ---- one unit

void ids_path(char out[SPOOL_PATH_MAX], const struct stream *stream, uint64_t first_seq)
{
    char name[32];
    segment_file_name(name, first_seq);
    memcpy(strrchr(name, '.'), ".ids", sizeof(".ids"));
    spool_path(out, stream->dir, name);
}

// -ENOENT: neither the segment nor what is kept of it is there.
static int open_unit(struct reading *reading)
{
    const struct storage *storage = &reading->stream->spool->storage;
    int rc = -ENOENT;
    for (int kept = reading->unit->kept; kept < 2; kept++) {
        char path[SPOOL_PATH_MAX];
        if (kept)
            ids_path(path, reading->stream, reading->unit->first_seq);
        else
            segment_path(path, reading->stream->dir, reading->unit->first_seq);
        struct storage_file_info info;
        rc = storage->ops->open(storage->context, path, STORAGE_READ);
        if (rc == -ENOENT)
            continue;
        if (rc < 0)
            return rc;
        reading->handle = rc;
        reading->kept = kept;
        rc = storage->ops->info(storage->context, path, &info);
        reading->file_bytes = info.size_bytes;
        return rc;
    }
    return rc;
}

// False: what is in the file was hashed under another key. A header that does not verify says nothing: hashes of
// another key would find nothing, and do no harm.
static bool key_is_ours(struct reading *reading)
{
    uint8_t block[SPOOL_BLOCK];
    struct segment_header header;
    struct sl_error ignored;
    if (!read_at(reading, block, sizeof(block), 0) || !segment_header_decode(&header, block, &ignored))
        return true;
    reading->uuid = header.uuid;
    reading->uuid_known = true;
    const struct spool *spool = reading->stream->spool;
    return memcmp(header.ids_key_id, spool->ids_key_id, sizeof(header.ids_key_id)) == 0 &&
           !spool_all_zero(spool->ids_key_id, sizeof(spool->ids_key_id));
}

bool ids_read(struct stream *stream, const struct spool_ids_unit *unit, uint64_t *after_seq, spool_ids_each *each,
              void *user, struct spool_ids_result *result, struct sl_error *err)
{
    struct reading reading = {.stream = stream,
                              .unit = unit,
                              .from_seq = *after_seq + 1 > unit->first_seq ? *after_seq + 1 : unit->first_seq,
                              .each = each,
                              .user = user,
                              .result = result,
                              .handle = -1};
    int rc = open_unit(&reading);
    bool good = true;
    if (rc == -ENOENT)
        result->source = SPOOL_IDS_GONE;
    else if (rc < 0)
        good = sl_fail_errno(err, SL_E_IO, -rc, "ids of %s from %llu", stream->id, (unsigned long long)unit->first_seq);
    else if (!key_is_ours(&reading))
        result->source = SPOOL_IDS_OTHER_KEY;
    else
        good = from_frames(&reading, err);
    const struct storage *storage = &stream->spool->storage;
    if (reading.handle >= 0)
        storage->ops->close(storage->context, reading.handle);
    free(reading.places);
    *after_seq = reading.from_seq - 1;
    return good;
}

static bool has_segment(struct stream *stream, uint64_t first_seq)
{
    pthread_mutex_lock(&stream->spool->mutex);
    const struct segment *segment = stream_segment_of(stream, first_seq);
    bool there = segment != NULL && segment->first_seq == first_seq;
    pthread_mutex_unlock(&stream->spool->mutex);
    return there;
}

bool spool_ids_read(struct spool *spool, const struct spool_ids_unit *unit, uint64_t after_seq, spool_ids_each *each,
                    void *user, struct spool_ids_result *result, struct sl_error *err)
{
    *result = (struct spool_ids_result){.source = SPOOL_IDS_GONE};
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = stream_find(spool, unit->stream);
    pthread_mutex_unlock(&spool->mutex);
    if (stream == NULL)
        return true;
    stream_settle(stream);
    result->source = SPOOL_IDS_FRAMES;
    if (!ids_read(stream, unit, &after_seq, each, user, result, err))
        return false;
    if (unit->kept || result->stopped || result->source != SPOOL_IDS_RECORDS || has_segment(stream, unit->first_seq))
        return true;
    // Its records went while they were read: what was kept of it is there.
    struct spool_ids_unit kept = *unit;
    kept.kept = true;
    return ids_read(stream, &kept, &after_seq, each, user, result, err);
}
