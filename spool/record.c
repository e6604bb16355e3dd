// Records inside a frame's body, back to back and without padding:
//
//   length u32 (of what follows) | kind u8 | flags u8 | header count u8 | source u8 | lane u8 | topic u8 | event id u16
//   | key u32 | headers u32 | payload u32 | payload crc u32 | received u64 | id hash 16 bytes
//   | payload hash u64 | business hash 16 bytes, with its flag only
//   | source, lane, topic, event id, key, headers, payload: the bytes, as long as said above
//
// headers: for each: name u16 | value u32 | the bytes of both.
#include "spool/frame.h"

#include <stdlib.h>
#include <string.h>

enum {
    RECORD_FIXED_BYTES = 56, // behind the length
    RECORD_FLAG_KEY = 1,
    RECORD_FLAG_BUSINESS_HASH = 2,
    RECORD_FLAGS_GIVEN = RECORD_FLAG_BUSINESS_DUPLICATE | RECORD_FLAG_CONFLICT | RECORD_FLAG_BUSINESS_QUARANTINE,
    // Where a record's bytes are changed in place, from its length on.
    KIND_OFFSET = 4,
    FLAGS_OFFSET = 5,
    RECEIVED_OFFSET = 28,
    ID_HASH_OFFSET = 36,
    KIND_DROPPED = 0, // between record_buffer_drop and record_buffer_compact; never stored
    TOPIC_MAX = 249,
    EVENT_ID_MAX = 1024,
    KEY_MAX = 64 << 10,
    HEADER_FIELD_FIXED = 6,
    RECORD_HEADERS_BYTES_MAX = 1 << 20,
};

static bool lengths_ok(const struct record *record, const struct record_header_field *fields, size_t field_count,
                       size_t *headers_length)
{
    if (record->source.length > SPOOL_NAME_MAX || record->lane.length > SPOOL_NAME_MAX)
        return false;
    if (record->topic.length > TOPIC_MAX || record->event_id.length > EVENT_ID_MAX)
        return false;
    if ((record->has_key ? record->key.length : 0) > KEY_MAX || record->payload.length >= FRAME_BODY_MAX)
        return false;
    if (field_count > RECORD_HEADERS_MAX)
        return false;
    *headers_length = 0;
    for (size_t i = 0; i < field_count; i++) {
        if (fields[i].name.length > UINT16_MAX || fields[i].value.length > RECORD_HEADERS_BYTES_MAX)
            return false;
        *headers_length += HEADER_FIELD_FIXED + fields[i].name.length + fields[i].value.length;
    }
    return *headers_length <= RECORD_HEADERS_BYTES_MAX;
}

static bool reserve(struct record_buffer *buffer, size_t more)
{
    if (more > FRAME_BODY_MAX - buffer->length)
        return false;
    size_t needed = buffer->length + more;
    if (needed <= buffer->capacity)
        return true;
    size_t capacity = buffer->capacity > 0 ? buffer->capacity : 4096;
    while (capacity < needed)
        capacity *= 2;
    uint8_t *bytes = realloc(buffer->bytes, capacity);
    if (bytes == NULL)
        return false;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

static void write_span(struct sl_writer *writer, struct sl_span span)
{
    sl_write_bytes(writer, span.bytes, span.length);
}

bool record_append(struct record_buffer *buffer, const struct record *record, const struct record_header_field *fields,
                   size_t field_count)
{
    size_t headers_length;
    if (!lengths_ok(record, fields, field_count, &headers_length))
        return false;
    sl_assert(record->kind == RECORD_EVENT || record->kind == RECORD_QUARANTINED);
    sl_assert((record->flags & ~RECORD_FLAGS_GIVEN) == 0);
    unsigned flags = record->flags | (record->has_key ? RECORD_FLAG_KEY : 0U) |
                     (record->has_business_hash ? RECORD_FLAG_BUSINESS_HASH : 0U);
    struct sl_span key = record->has_key ? record->key : (struct sl_span){.bytes = "", .length = 0};
    size_t length = (size_t)RECORD_FIXED_BYTES + (record->has_business_hash ? RECORD_HASH_BYTES : 0) +
                    record->source.length + record->lane.length + record->topic.length + record->event_id.length +
                    key.length + headers_length + record->payload.length;
    if (!reserve(buffer, length + 4))
        return false;
    struct sl_writer writer = sl_writer_of(buffer->bytes + buffer->length, length + 4);
    sl_write_u32(&writer, (uint32_t)length);
    sl_write_u8(&writer, (uint8_t)record->kind);
    sl_write_u8(&writer, (uint8_t)flags);
    sl_write_u8(&writer, (uint8_t)field_count);
    sl_write_u8(&writer, (uint8_t)record->source.length);
    sl_write_u8(&writer, (uint8_t)record->lane.length);
    sl_write_u8(&writer, (uint8_t)record->topic.length);
    sl_write_u16(&writer, (uint16_t)record->event_id.length);
    sl_write_u32(&writer, (uint32_t)key.length);
    sl_write_u32(&writer, (uint32_t)headers_length);
    sl_write_u32(&writer, (uint32_t)record->payload.length);
    sl_write_u32(&writer, record->payload_crc);
    sl_write_u64(&writer, (uint64_t)record->received_wall_ns);
    sl_assert(writer.position == ID_HASH_OFFSET);
    sl_write_bytes(&writer, record->id_hash, sizeof(record->id_hash));
    sl_write_u64(&writer, record->payload_hash);
    sl_assert(writer.position == RECORD_FIXED_BYTES + 4);
    if (record->has_business_hash)
        sl_write_bytes(&writer, record->business_hash, sizeof(record->business_hash));
    write_span(&writer, record->source);
    write_span(&writer, record->lane);
    write_span(&writer, record->topic);
    write_span(&writer, record->event_id);
    write_span(&writer, key);
    for (size_t i = 0; i < field_count; i++) {
        sl_write_u16(&writer, (uint16_t)fields[i].name.length);
        sl_write_u32(&writer, (uint32_t)fields[i].value.length);
        write_span(&writer, fields[i].name);
        write_span(&writer, fields[i].value);
    }
    write_span(&writer, record->payload);
    sl_assert(!writer.failed && writer.position == length + 4);
    buffer->length += length + 4;
    buffer->count++;
    return true;
}

void record_buffer_free(struct record_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct record_buffer){0};
}

void record_buffer_cut(struct record_buffer *buffer, size_t length, uint32_t count)
{
    sl_assert(length <= buffer->length && count <= buffer->count);
    buffer->length = length;
    buffer->count = count;
}

// ---- in place

size_t record_buffer_after(const struct record_buffer *buffer, size_t offset)
{
    sl_assert(offset < buffer->length && buffer->length - offset > RECORD_FIXED_BYTES);
    struct sl_reader reader = sl_reader_of(buffer->bytes + offset, 4);
    size_t after = offset + 4 + sl_read_u32(&reader);
    sl_assert(after <= buffer->length);
    return after;
}

void record_buffer_mark(struct record_buffer *buffer, size_t offset, enum record_kind kind, unsigned flags,
                        const uint8_t id_hash[RECORD_HASH_BYTES])
{
    sl_assert(record_buffer_after(buffer, offset) > offset && (flags & ~(unsigned)RECORD_FLAGS_GIVEN) == 0);
    sl_assert(kind == RECORD_EVENT || kind == RECORD_QUARANTINED);
    uint8_t *bytes = buffer->bytes + offset;
    bytes[KIND_OFFSET] = (uint8_t)kind;
    bytes[FLAGS_OFFSET] = (uint8_t)((bytes[FLAGS_OFFSET] & ~(unsigned)RECORD_FLAGS_GIVEN) | flags);
    if (id_hash != NULL)
        memcpy(bytes + ID_HASH_OFFSET, id_hash, RECORD_HASH_BYTES);
}

void record_buffer_drop(struct record_buffer *buffer, size_t offset)
{
    sl_assert(record_buffer_after(buffer, offset) > offset);
    buffer->bytes[offset + KIND_OFFSET] = KIND_DROPPED;
}

uint32_t record_buffer_compact(struct record_buffer *buffer, size_t from)
{
    uint32_t dropped = 0;
    size_t end = from;     // of what is kept
    size_t pending = from; // kept records from here to `at` have not been moved yet
    size_t at = from;
    while (at < buffer->length) {
        size_t after = record_buffer_after(buffer, at);
        if (buffer->bytes[at + KIND_OFFSET] == KIND_DROPPED) {
            if (end != pending)
                memmove(buffer->bytes + end, buffer->bytes + pending, at - pending);
            end += at - pending;
            pending = after;
            dropped++;
        }
        at = after;
    }
    if (end != pending)
        memmove(buffer->bytes + end, buffer->bytes + pending, at - pending);
    buffer->length = end + (at - pending);
    sl_assert(dropped <= buffer->count);
    buffer->count -= dropped;
    return dropped;
}

// ---- reading

static bool fixed_ok(const struct record *out, uint8_t flags)
{
    const unsigned known = RECORD_FLAG_KEY | RECORD_FLAG_BUSINESS_HASH | RECORD_FLAGS_GIVEN;
    return (out->kind == RECORD_EVENT || out->kind == RECORD_QUARANTINED) && (flags & ~known) == 0 &&
           out->header_count <= RECORD_HEADERS_MAX;
}

static void read_hash(struct sl_reader *in, uint8_t hash[RECORD_HASH_BYTES])
{
    struct sl_span span = sl_read_span(in, RECORD_HASH_BYTES);
    if (span.length == RECORD_HASH_BYTES)
        memcpy(hash, span.bytes, RECORD_HASH_BYTES);
}

bool record_next(struct sl_reader *reader, struct record *out)
{
    if (reader->failed || reader->position == reader->length)
        return false;
    uint32_t length = sl_read_u32(reader);
    struct sl_span bytes = sl_read_span(reader, length);
    struct sl_reader in = sl_reader_of(bytes.bytes, bytes.length);
    out->kind = (enum record_kind)sl_read_u8(&in);
    uint8_t flags = sl_read_u8(&in);
    out->flags = flags & RECORD_FLAGS_GIVEN;
    out->header_count = sl_read_u8(&in);
    uint8_t source = sl_read_u8(&in);
    uint8_t lane = sl_read_u8(&in);
    uint8_t topic = sl_read_u8(&in);
    uint16_t event_id = sl_read_u16(&in);
    uint32_t key = sl_read_u32(&in);
    uint32_t headers = sl_read_u32(&in);
    uint32_t payload = sl_read_u32(&in);
    out->payload_crc = sl_read_u32(&in);
    out->received_wall_ns = (int64_t)sl_read_u64(&in);
    read_hash(&in, out->id_hash);
    out->payload_hash = sl_read_u64(&in);
    out->has_business_hash = (flags & RECORD_FLAG_BUSINESS_HASH) != 0;
    memset(out->business_hash, 0, sizeof(out->business_hash));
    if (out->has_business_hash)
        read_hash(&in, out->business_hash);
    out->source = sl_read_span(&in, source);
    out->lane = sl_read_span(&in, lane);
    out->topic = sl_read_span(&in, topic);
    out->event_id = sl_read_span(&in, event_id);
    out->has_key = (flags & RECORD_FLAG_KEY) != 0;
    out->key = sl_read_span(&in, key);
    out->headers = sl_read_span(&in, headers);
    out->payload = sl_read_span(&in, payload);
    if (reader->failed || in.failed || in.position != in.length || !fixed_ok(out, flags)) {
        reader->failed = true;
        return false;
    }
    return true;
}

bool record_header_next(struct sl_reader *reader, struct record_header_field *out)
{
    if (reader->failed || reader->position == reader->length)
        return false;
    uint16_t name = sl_read_u16(reader);
    uint32_t value = sl_read_u32(reader);
    out->name = sl_read_span(reader, name);
    out->value = sl_read_span(reader, value);
    return !reader->failed;
}

bool record_ids_next(struct sl_reader *reader, struct record_ids *out)
{
    if (reader->failed || reader->position == reader->length)
        return false;
    uint32_t length = sl_read_u32(reader);
    struct sl_span bytes = sl_read_span(reader, length);
    const uint8_t *at = bytes.bytes;
    bool business = bytes.length >= RECORD_FIXED_BYTES && (at[FLAGS_OFFSET - 4] & RECORD_FLAG_BUSINESS_HASH) != 0;
    if (bytes.length < (size_t)RECORD_FIXED_BYTES + (business ? RECORD_HASH_BYTES : 0)) {
        reader->failed = true;
        return false;
    }
    struct sl_reader in = sl_reader_of(at, bytes.length);
    in.position = RECEIVED_OFFSET - 4;
    out->received_wall_ns = (int64_t)sl_read_u64(&in);
    read_hash(&in, out->entry.id_hash);
    out->entry.payload_hash = sl_read_u64(&in);
    out->has_business_hash = business;
    if (business)
        read_hash(&in, out->business_hash);
    return true;
}
