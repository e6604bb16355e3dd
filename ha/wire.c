// Messages as bytes. Integers are little-endian, texts are a length (u8) and their bytes.
//
//   header     length of content and body u32 | crc u32 | length of content u32 | kind u8 | zero 3 bytes
//   HELLO      magic 8 bytes | version u32 | cluster | members u8 | self u8 | for each member: name, zone
//              | chance u64 | key id 8 bytes
//   WELCOME    nothing
//   HEARTBEAT  kafka u8 | members u8 | silence i64 for each | acked through u64 | entries u8 | for each:
//              stream | flags u8 | base u64 | end u64 | lanes u8 | id u32 for each | predecessor | its seq u64
//   FRAME      stream | flags u8 | first u64 | last u64 | stated through u64 | acked through u64 | written i64
//              | lanes u8 | name for each | predecessor | its seq u64 | crc of the body u32; then the body
//   DURABLE    stream | last u64
//   REFUSED    stream
//   ASK_IDS    ranges u16 | for each: stream, first u64, last u64
//   IDS        end u8 | stream | first u64 | count u32 | business hashes u32 | in Kafka u64 | first received i64
//              | last received i64 | crc of the body u32; then the body: 24 bytes for each, 20 for each business hash
//
// The header's checksum covers header (itself as zero) and content; the body has its own, so that a sender can put a
// header in front of bytes that it keeps elsewhere.
#include "ha/wire.h"

#include "base/crc32c.h"

#include <string.h>

enum {
    CRC_OFFSET = 4,
    FRAME_FLAG_REPAIR = 1,
    ENTRY_FLAGS = HA_ENTRY_CURRENT | HA_ENTRY_KEPT | HA_ENTRY_DRAINING | HA_ENTRY_EMPTY | HA_ENTRY_TAKING,
    TEXT_MAX = SPOOL_STREAM_ID_MAX - 1, // the longest text of all
};
// Sums of two seqs do not overflow.
static const uint64_t seq_max = UINT64_MAX >> 2;
static const char magic[8] = {'S', 'L', 'U', 'I', 'C', 'E', 'H', 'A'};

// HEARTBEAT is the longest content.
_Static_assert(2 + 8 * HA_MEMBERS_MAX + 9 +
                       HA_STREAMS_MAX * (2 * SPOOL_STREAM_ID_MAX + 1 + 3 * 8 + 1 + 4 * HA_LANES_MAX) <=
                   WIRE_CONTENT_MAX,
               "content");

// ---- pieces

static void put_text(struct sl_writer *writer, const char *text)
{
    size_t length = strlen(text);
    sl_assert(length <= TEXT_MAX);
    sl_write_u8(writer, (uint8_t)length);
    sl_write_bytes(writer, text, length);
}

// Into `size` bytes, terminated. No blanks and no control characters: texts go to logs, and names to other files.
static void take_text(struct sl_reader *reader, char *text, size_t size)
{
    size_t length = sl_read_u8(reader);
    text[0] = '\0';
    if (length >= size)
        reader->failed = true;
    struct sl_span span = sl_read_span(reader, length);
    const uint8_t *bytes = span.bytes;
    for (size_t i = 0; i < span.length; i++)
        if (bytes[i] <= ' ' || bytes[i] == 0x7f)
            reader->failed = true;
    if (reader->failed)
        return;
    memcpy(text, bytes, length);
    text[length] = '\0';
}

static void take_name(struct sl_reader *reader, char name[SPOOL_NAME_MAX + 1])
{
    take_text(reader, name, SPOOL_NAME_MAX + 1);
    if (name[0] == '\0')
        reader->failed = true;
}

static uint64_t take_seq(struct sl_reader *reader)
{
    uint64_t seq = sl_read_u64(reader);
    if (seq > seq_max)
        reader->failed = true;
    return seq;
}

static uint8_t take_at_most(struct sl_reader *reader, unsigned most)
{
    uint8_t value = sl_read_u8(reader);
    if (value > most)
        reader->failed = true;
    return reader->failed ? 0 : value;
}

static void put_id(struct sl_writer *writer, const struct wire_cell *cell, struct ha_id id)
{
    char text[SPOOL_STREAM_ID_MAX] = "";
    sl_assert(id.counter == 0 || id.member < cell->members);
    if (id.counter != 0)
        ha_id_text(text, id, cell->names);
    put_text(writer, text);
}

// The text "" is an id with counter 0. Every id has one text: "gw.07-…" is none.
static bool parse_id(struct ha_id *out, const struct wire_cell *cell, const char *text)
{
    char again[SPOOL_STREAM_ID_MAX];
    *out = (struct ha_id){0};
    if (text[0] == '\0')
        return true;
    if (!ha_id_parse(out, text, cell->names, cell->members))
        return false;
    ha_id_text(again, *out, cell->names);
    return strcmp(again, text) == 0;
}

static struct ha_id take_id(struct sl_reader *reader, const struct wire_cell *cell)
{
    char text[SPOOL_STREAM_ID_MAX];
    struct ha_id id;
    take_text(reader, text, sizeof(text));
    if (!parse_id(&id, cell, text))
        reader->failed = true;
    return id;
}

static struct ha_id take_stream(struct sl_reader *reader, const struct wire_cell *cell)
{
    struct ha_id id = take_id(reader, cell);
    if (id.counter == 0)
        reader->failed = true;
    return id;
}

static void put_positive(struct sl_writer *writer, int64_t value)
{
    sl_write_u64(writer, value > 0 ? (uint64_t)value : 0);
}

static int64_t take_positive(struct sl_reader *reader)
{
    uint64_t value = sl_read_u64(reader);
    if (value > INT64_MAX)
        reader->failed = true;
    return reader->failed ? 0 : (int64_t)value;
}

// ---- kinds

static void put_heartbeat(struct sl_writer *writer, const struct wire_cell *cell, const struct ha_message *message)
{
    sl_assert(message->entry_count <= HA_STREAMS_MAX);
    sl_write_u8(writer, message->kafka);
    sl_write_u8(writer, cell->members);
    for (uint8_t i = 0; i < cell->members; i++)
        put_positive(writer, message->silence_ns[i]);
    sl_write_u64(writer, message->heartbeat_acked_through);
    sl_write_u8(writer, (uint8_t)message->entry_count);
    for (const struct ha_entry *entry = message->entries; entry < message->entries + message->entry_count; entry++) {
        const struct ha_head *head = &entry->head;
        sl_assert(entry->stream.counter != 0 && head->lane_count <= HA_LANES_MAX);
        put_id(writer, cell, entry->stream);
        sl_write_u8(writer, entry->flags);
        sl_write_u64(writer, entry->base);
        sl_write_u64(writer, entry->end);
        sl_write_u8(writer, (uint8_t)head->lane_count);
        for (uint32_t i = 0; i < head->lane_count; i++)
            sl_write_u32(writer, head->lane_ids[i]);
        put_id(writer, cell, head->predecessor);
        sl_write_u64(writer, head->predecessor_seq);
    }
}

static void take_entry(struct sl_reader *reader, const struct wire_cell *cell, struct ha_entry *entry)
{
    struct ha_head *head = &entry->head;
    entry->stream = take_stream(reader, cell);
    entry->flags = take_at_most(reader, ENTRY_FLAGS);
    entry->base = take_seq(reader);
    entry->end = take_seq(reader);
    head->lane_count = take_at_most(reader, HA_LANES_MAX);
    for (uint32_t i = 0; i < head->lane_count; i++)
        head->lane_ids[i] = sl_read_u32(reader);
    head->predecessor = take_id(reader, cell);
    head->predecessor_seq = take_seq(reader);
}

static void take_heartbeat(struct sl_reader *reader, const struct wire_cell *cell, struct ha_message *message)
{
    message->kafka = take_at_most(reader, 1) == 1;
    if (sl_read_u8(reader) != cell->members)
        reader->failed = true;
    for (uint8_t i = 0; i < cell->members; i++)
        message->silence_ns[i] = take_positive(reader);
    message->heartbeat_acked_through = take_seq(reader);
    message->entry_count = take_at_most(reader, HA_STREAMS_MAX);
    for (uint32_t i = 0; i < message->entry_count && !reader->failed; i++)
        take_entry(reader, cell, &message->entries[i]);
}

static void put_frame(struct sl_writer *writer, const struct wire_cell *cell, const struct wire_message *message)
{
    const struct ha_message *core = &message->message;
    const struct spool_head *head = &message->head;
    sl_assert(core->first >= 1 && core->first <= core->last && message->count == core->last - core->first + 1);
    sl_assert(message->body.length > 0 && message->body.length <= FRAME_BODY_MAX);
    sl_assert(head->lane_count <= SPOOL_LANES_MAX);
    put_id(writer, cell, core->stream);
    sl_write_u8(writer, core->repair ? FRAME_FLAG_REPAIR : 0);
    sl_write_u64(writer, core->first);
    sl_write_u64(writer, core->last);
    sl_write_u64(writer, core->stated_through);
    sl_write_u64(writer, core->acked_through);
    put_positive(writer, message->written_wall_ns);
    sl_write_u8(writer, (uint8_t)head->lane_count);
    for (uint32_t i = 0; i < head->lane_count; i++)
        put_text(writer, head->lanes[i]);
    put_text(writer, head->predecessor);
    sl_write_u64(writer, head->predecessor_seq);
    sl_write_u32(writer, sl_crc32c(message->body.bytes, message->body.length));
}

// The body's checksum as said; the body itself is looked at by the caller.
static uint32_t take_frame(struct sl_reader *reader, const struct wire_cell *cell, struct wire_message *message)
{
    struct ha_message *core = &message->message;
    struct spool_head *head = &message->head;
    core->stream = take_stream(reader, cell);
    core->repair = take_at_most(reader, FRAME_FLAG_REPAIR) == FRAME_FLAG_REPAIR;
    core->first = take_seq(reader);
    core->last = take_seq(reader);
    if (core->first == 0 || core->first > core->last || core->last - core->first >= UINT32_MAX)
        reader->failed = true;
    message->count = (uint32_t)(core->last - core->first + 1);
    core->stated_through = take_seq(reader);
    core->acked_through = take_seq(reader);
    message->written_wall_ns = take_positive(reader);
    head->lane_count = core->head.lane_count = take_at_most(reader, SPOOL_LANES_MAX);
    for (uint32_t i = 0; i < head->lane_count; i++) {
        take_name(reader, head->lanes[i]);
        core->head.lane_ids[i] = sl_crc32c(head->lanes[i], strlen(head->lanes[i]));
    }
    take_text(reader, head->predecessor, sizeof(head->predecessor));
    if (!parse_id(&core->head.predecessor, cell, head->predecessor))
        reader->failed = true;
    head->predecessor_seq = core->head.predecessor_seq = take_seq(reader);
    return sl_read_u32(reader);
}

// Whether the body is `count` records by their lengths.
static bool records_add_up(struct sl_span body, uint32_t count)
{
    struct sl_reader reader = sl_reader_of(body.bytes, body.length);
    uint32_t found = 0;
    for (; reader.position < reader.length && found < count && !reader.failed; found++) {
        uint32_t length = sl_read_u32(&reader);
        sl_read_span(&reader, length);
    }
    return !reader.failed && found == count && reader.position == reader.length;
}

static void put_ask(struct sl_writer *writer, const struct wire_cell *cell, const struct wire_ids *ids)
{
    sl_assert(ids->range_count <= WIRE_RANGES_MAX);
    sl_write_u16(writer, (uint16_t)ids->range_count);
    for (const struct wire_range *range = ids->ranges; range < ids->ranges + ids->range_count; range++) {
        put_id(writer, cell, range->stream);
        sl_write_u64(writer, range->first);
        sl_write_u64(writer, range->last);
    }
}

static void take_ask(struct sl_reader *reader, const struct wire_cell *cell, struct wire_ids *ids)
{
    ids->range_count = sl_read_u16(reader);
    if (ids->range_count > WIRE_RANGES_MAX)
        reader->failed = true;
    for (uint32_t i = 0; i < ids->range_count && !reader->failed; i++) {
        struct wire_range *range = &ids->ranges[i];
        range->stream = take_stream(reader, cell);
        range->first = take_seq(reader);
        range->last = take_seq(reader);
    }
}

static size_t ids_length(const struct wire_ids *ids)
{
    return ids->count * sizeof(struct ids_entry) + ids->business_count * sizeof(struct ids_business);
}

static void put_ids(struct sl_writer *writer, const struct wire_cell *cell, const struct wire_message *message)
{
    const struct wire_ids *ids = &message->ids;
    sl_assert(message->body.length == ids_length(ids) && ids->end == (ids->count == 0));
    sl_write_u8(writer, ids->end);
    put_id(writer, cell, ids->stream);
    sl_write_u64(writer, ids->first);
    sl_write_u32(writer, ids->count);
    sl_write_u32(writer, ids->business_count);
    sl_write_u64(writer, ids->in_kafka);
    put_positive(writer, ids->first_received_wall_ns);
    put_positive(writer, ids->last_received_wall_ns);
    sl_write_u32(writer, sl_crc32c(message->body.bytes, message->body.length));
}

static uint32_t take_ids(struct sl_reader *reader, const struct wire_cell *cell, struct wire_ids *ids)
{
    ids->end = take_at_most(reader, 1) == 1;
    ids->stream = take_id(reader, cell);
    ids->first = take_seq(reader);
    ids->count = sl_read_u32(reader);
    ids->business_count = sl_read_u32(reader);
    ids->in_kafka = sl_read_u64(reader);
    ids->first_received_wall_ns = take_positive(reader);
    ids->last_received_wall_ns = take_positive(reader);
    bool some = ids->count > 0 && ids->stream.counter != 0 && ids->first > 0;
    if (ids->end ? ids->count != 0 || ids->business_count != 0 : !some || ids->business_count > ids->count)
        reader->failed = true;
    return sl_read_u32(reader);
}

// ---- messages

static uint32_t header_crc(const uint8_t *bytes, uint32_t content_length)
{
    static const uint8_t zero[4];
    uint32_t crc = sl_crc32c_extend(0, bytes, CRC_OFFSET);
    crc = sl_crc32c_extend(crc, zero, sizeof(zero));
    return sl_crc32c_extend(crc, bytes + CRC_OFFSET + 4, WIRE_HEADER_BYTES - CRC_OFFSET - 4 + content_length);
}

static struct sl_writer begin(uint8_t *bytes)
{
    struct sl_writer writer = sl_writer_of(bytes, WIRE_HEAD_MAX);
    writer.position = WIRE_HEADER_BYTES;
    return writer;
}

static size_t finish(struct sl_writer *writer, enum wire_kind kind, size_t body_length)
{
    size_t end = writer->position;
    uint32_t content_length = (uint32_t)(end - WIRE_HEADER_BYTES);
    sl_assert(!writer->failed);
    writer->position = 0;
    sl_write_u32(writer, content_length + (uint32_t)body_length);
    sl_write_u32(writer, 0);
    sl_write_u32(writer, content_length);
    sl_write_u32(writer, (uint32_t)kind);
    uint32_t crc = header_crc(writer->bytes, content_length);
    memcpy(writer->bytes + CRC_OFFSET, &crc, sizeof(crc));
    return end;
}

size_t wire_encode(const struct wire_cell *cell, const struct wire_message *message, uint8_t *bytes)
{
    const struct ha_message *core = &message->message;
    struct sl_writer writer = begin(bytes);
    if (message->what == WIRE_ASKS_IDS) {
        put_ask(&writer, cell, &message->ids);
        return finish(&writer, WIRE_ASK_IDS, 0);
    }
    if (message->what == WIRE_GIVES_IDS) {
        put_ids(&writer, cell, message);
        return finish(&writer, WIRE_IDS, message->body.length);
    }
    switch (core->kind) {
    case HA_HEARTBEAT:
        put_heartbeat(&writer, cell, core);
        return finish(&writer, WIRE_HEARTBEAT, 0);
    case HA_FRAME:
        put_frame(&writer, cell, message);
        return finish(&writer, WIRE_FRAME, message->body.length);
    case HA_DURABLE:
        put_id(&writer, cell, core->stream);
        sl_write_u64(&writer, core->last);
        return finish(&writer, WIRE_DURABLE, 0);
    case HA_REFUSED:
        put_id(&writer, cell, core->stream);
        return finish(&writer, WIRE_REFUSED, 0);
    }
    sl_panic(__FILE__, __LINE__, "kind of message");
}

size_t wire_encode_hello(const struct wire_hello *hello, uint8_t *bytes)
{
    struct sl_writer writer = begin(bytes);
    sl_assert(hello->member_count <= HA_MEMBERS_MAX && hello->self < hello->member_count);
    sl_write_bytes(&writer, magic, sizeof(magic));
    sl_write_u32(&writer, hello->version);
    put_text(&writer, hello->cluster);
    sl_write_u8(&writer, hello->member_count);
    sl_write_u8(&writer, hello->self);
    for (uint8_t i = 0; i < hello->member_count; i++) {
        put_text(&writer, hello->members[i].name);
        put_text(&writer, hello->members[i].zone);
    }
    sl_write_u64(&writer, hello->chance);
    sl_write_bytes(&writer, hello->dedupe_key_id, sizeof(hello->dedupe_key_id));
    return finish(&writer, WIRE_HELLO, 0);
}

size_t wire_encode_welcome(uint8_t *bytes)
{
    struct sl_writer writer = begin(bytes);
    return finish(&writer, WIRE_WELCOME, 0);
}

bool wire_decode_header(struct wire_header *out, const uint8_t bytes[WIRE_HEADER_BYTES], size_t bytes_max,
                        struct sl_error *err)
{
    struct sl_reader reader = sl_reader_of(bytes, WIRE_HEADER_BYTES);
    out->length = sl_read_u32(&reader);
    out->crc = sl_read_u32(&reader);
    out->content_length = sl_read_u32(&reader);
    uint32_t kind = sl_read_u32(&reader);
    if (kind < WIRE_HELLO || kind > WIRE_IDS)
        return sl_fail(err, SL_E_CORRUPT, "these are not the bytes of a message (kind %u)", kind);
    out->kind = (enum wire_kind)kind;
    if (out->content_length > WIRE_CONTENT_MAX || out->content_length > out->length)
        return sl_fail(err, SL_E_CORRUPT, "a message with %u bytes of content out of %u", out->content_length,
                       out->length);
    if (out->kind != WIRE_FRAME && out->kind != WIRE_IDS && out->content_length != out->length)
        return sl_fail(err, SL_E_CORRUPT, "a message of kind %u with a body", kind);
    if (bytes_max < WIRE_HEADER_BYTES || out->length > bytes_max - WIRE_HEADER_BYTES)
        return sl_fail(err, SL_E_TOO_LARGE, "a message of %u bytes, at most %zu are taken", out->length, bytes_max);
    return true;
}

static bool verify_content(struct sl_reader *content, const struct wire_header *header, const uint8_t *bytes,
                           struct sl_error *err)
{
    *content = sl_reader_of(bytes + WIRE_HEADER_BYTES, header->content_length);
    if (header_crc(bytes, header->content_length) != header->crc)
        return sl_fail(err, SL_E_CORRUPT, "the checksum of a message of kind %d is wrong", (int)header->kind);
    return true;
}

static bool is_whole(const struct sl_reader *content, enum wire_kind kind, struct sl_error *err)
{
    if (content->failed || content->position != content->length)
        return sl_fail(err, SL_E_CORRUPT, "a message of kind %d with fields out of range", (int)kind);
    return true;
}

static bool verify_ids(struct wire_message *message, const struct wire_header *header, const uint8_t *bytes,
                       uint32_t crc, struct sl_error *err)
{
    message->body = (struct sl_span){.bytes = bytes + WIRE_HEADER_BYTES + header->content_length,
                                     .length = header->length - header->content_length};
    if (message->body.length != ids_length(&message->ids))
        return sl_fail(err, SL_E_CORRUPT, "%zu bytes of ids for %u events", message->body.length, message->ids.count);
    return sl_crc32c(message->body.bytes, message->body.length) == crc ||
           sl_fail(err, SL_E_CORRUPT, "the checksum of ids is wrong");
}

static bool verify_body(struct wire_message *message, const struct wire_header *header, const uint8_t *bytes,
                        uint32_t crc, struct sl_error *err)
{
    message->body = (struct sl_span){.bytes = bytes + WIRE_HEADER_BYTES + header->content_length,
                                     .length = header->length - header->content_length};
    if (message->body.length > FRAME_BODY_MAX)
        return sl_fail(err, SL_E_CORRUPT, "a frame of %zu bytes", message->body.length);
    if (sl_crc32c(message->body.bytes, message->body.length) != crc)
        return sl_fail(err, SL_E_CORRUPT, "the checksum of a frame's records is wrong");
    if (!records_add_up(message->body, message->count))
        return sl_fail(err, SL_E_CORRUPT, "a frame that does not hold the %u records that it names", message->count);
    return true;
}

bool wire_decode(struct wire_message *out, const struct wire_cell *cell, uint8_t from, const struct wire_header *header,
                 const uint8_t *bytes, struct sl_error *err)
{
    struct sl_reader content;
    struct ha_message *message = &out->message;
    uint32_t body_crc = 0;
    memset(out, 0, sizeof(*out));
    message->from = from;
    if (!verify_content(&content, header, bytes, err))
        return false;
    switch (header->kind) {
    case WIRE_HEARTBEAT:
        message->kind = HA_HEARTBEAT;
        take_heartbeat(&content, cell, message);
        break;
    case WIRE_FRAME:
        message->kind = HA_FRAME;
        body_crc = take_frame(&content, cell, out);
        break;
    case WIRE_DURABLE:
        message->kind = HA_DURABLE;
        message->stream = take_stream(&content, cell);
        message->last = take_seq(&content);
        break;
    case WIRE_REFUSED:
        message->kind = HA_REFUSED;
        message->stream = take_stream(&content, cell);
        break;
    case WIRE_ASK_IDS:
        out->what = WIRE_ASKS_IDS;
        take_ask(&content, cell, &out->ids);
        break;
    case WIRE_IDS:
        out->what = WIRE_GIVES_IDS;
        body_crc = take_ids(&content, cell, &out->ids);
        break;
    case WIRE_HELLO:
    case WIRE_WELCOME:
        return sl_fail(err, SL_E_CORRUPT, "a message of kind %d in the middle of a session", (int)header->kind);
    }
    if (!is_whole(&content, header->kind, err))
        return false;
    if (header->kind == WIRE_IDS)
        return verify_ids(out, header, bytes, body_crc, err);
    return header->kind != WIRE_FRAME || verify_body(out, header, bytes, body_crc, err);
}

bool wire_decode_hello(struct wire_hello *out, const struct wire_header *header, const uint8_t *bytes,
                       struct sl_error *err)
{
    struct sl_reader content;
    memset(out, 0, sizeof(*out));
    if (header->kind != WIRE_HELLO)
        return sl_fail(err, SL_E_CORRUPT, "a message of kind %d where a HELLO belongs", (int)header->kind);
    if (!verify_content(&content, header, bytes, err))
        return false;
    struct sl_span found = sl_read_span(&content, sizeof(magic));
    if (content.failed || memcmp(found.bytes, magic, sizeof(magic)) != 0)
        return sl_fail(err, SL_E_CORRUPT, "a HELLO of something else");
    out->version = sl_read_u32(&content);
    take_name(&content, out->cluster);
    out->member_count = take_at_most(&content, HA_MEMBERS_MAX);
    out->self = sl_read_u8(&content);
    if (out->self >= out->member_count)
        content.failed = true;
    for (uint8_t i = 0; i < out->member_count; i++) {
        take_name(&content, out->members[i].name);
        take_name(&content, out->members[i].zone);
    }
    if (out->version != WIRE_VERSION && !content.failed)
        return true;
    out->chance = sl_read_u64(&content);
    struct sl_span key_id = sl_read_span(&content, sizeof(out->dedupe_key_id));
    if (key_id.length == sizeof(out->dedupe_key_id))
        memcpy(out->dedupe_key_id, key_id.bytes, sizeof(out->dedupe_key_id));
    return is_whole(&content, header->kind, err);
}

bool wire_decode_welcome(const struct wire_header *header, const uint8_t *bytes, struct sl_error *err)
{
    struct sl_reader content;
    if (header->kind != WIRE_WELCOME)
        return sl_fail(err, SL_E_CORRUPT, "a message of kind %d where a WELCOME belongs", (int)header->kind);
    return verify_content(&content, header, bytes, err) && is_whole(&content, header->kind, err);
}
