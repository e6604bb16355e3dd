// Segment and frame headers. Every integer is little-endian; docs/disk-format.md has the offsets in a table.
#include "spool/frame.h"

#include "base/crc32c.h"

#include <string.h>

static const uint64_t segment_magic = UINT64_C(0x4745534543554c53); // "SLUCESEG"
static const uint32_t frame_magic = UINT32_C(0x46434c53);           // "SLCF"

enum {
    SEGMENT_CRC_OFFSET = 12,                                              // behind magic and version
    SEGMENT_KEY_ID_OFFSET = 336 + SPOOL_LANES_MAX * (SPOOL_NAME_MAX + 1), // behind room for all lanes
    FRAME_CRC_OFFSET = 4,                                                 // behind the magic
    FRAME_USED_BYTES = 80,
};

static void write_name(struct sl_writer *writer, const char *name, size_t room)
{
    static const uint8_t zeros[SPOOL_STREAM_ID_MAX] = {0};
    size_t length = strnlen(name, room);
    sl_assert(length < room && room <= sizeof(zeros));
    sl_write_bytes(writer, name, length);
    sl_write_bytes(writer, zeros, room - length);
}

// False when the field is not terminated inside its room.
static bool read_name(struct sl_reader *reader, char *name, size_t room)
{
    struct sl_span span = sl_read_span(reader, room);
    if (span.length != room || memchr(span.bytes, 0, room) == NULL)
        return false;
    memcpy(name, span.bytes, room);
    return true;
}

void segment_header_encode(const struct segment_header *header, uint8_t block[SPOOL_BLOCK])
{
    sl_assert(header->lane_count <= SPOOL_LANES_MAX);
    memset(block, 0, SPOOL_BLOCK);
    struct sl_writer writer = sl_writer_of(block, SPOOL_BLOCK);
    sl_write_u64(&writer, segment_magic);
    sl_write_u32(&writer, SPOOL_VERSION);
    sl_write_u32(&writer, 0); // the CRC's place
    sl_write_bytes(&writer, header->uuid.bytes, sizeof(header->uuid.bytes));
    sl_write_u64(&writer, header->first_seq);
    sl_write_u64(&writer, header->counter);
    sl_write_u64(&writer, (uint64_t)header->created_wall_ns);
    sl_write_u64(&writer, header->size_bytes);
    sl_write_u64(&writer, header->predecessor_seq);
    sl_write_u32(&writer, header->previous_frame_crc);
    sl_write_u32(&writer, header->lane_count);
    write_name(&writer, header->stream, sizeof(header->stream));
    write_name(&writer, header->node, sizeof(header->node));
    write_name(&writer, header->predecessor, sizeof(header->predecessor));
    for (uint32_t i = 0; i < header->lane_count; i++)
        write_name(&writer, header->lanes[i], sizeof(header->lanes[i]));
    sl_assert(!writer.failed && writer.position <= SEGMENT_KEY_ID_OFFSET);
    memcpy(block + SEGMENT_KEY_ID_OFFSET, header->ids_key_id, sizeof(header->ids_key_id));
    uint32_t crc = sl_crc32c(block, SPOOL_BLOCK);
    struct sl_writer patch = sl_writer_of(block + SEGMENT_CRC_OFFSET, sizeof(crc));
    sl_write_u32(&patch, crc);
}

static uint32_t segment_crc(const uint8_t block[SPOOL_BLOCK])
{
    static const uint8_t zero[4] = {0};
    uint32_t crc = sl_crc32c(block, SEGMENT_CRC_OFFSET);
    crc = sl_crc32c_extend(crc, zero, sizeof(zero));
    return sl_crc32c_extend(crc, block + SEGMENT_CRC_OFFSET + 4, SPOOL_BLOCK - SEGMENT_CRC_OFFSET - 4);
}

static bool read_names(struct sl_reader *reader, struct segment_header *header, struct sl_error *err)
{
    if (!read_name(reader, header->stream, sizeof(header->stream)))
        return sl_fail(err, SL_E_CORRUPT, "segment header: stream");
    if (!read_name(reader, header->node, sizeof(header->node)))
        return sl_fail(err, SL_E_CORRUPT, "segment header: node");
    if (!read_name(reader, header->predecessor, sizeof(header->predecessor)))
        return sl_fail(err, SL_E_CORRUPT, "segment header: predecessor");
    for (uint32_t i = 0; i < header->lane_count; i++)
        if (!read_name(reader, header->lanes[i], sizeof(header->lanes[i])))
            return sl_fail(err, SL_E_CORRUPT, "segment header: lane %u", i);
    return true;
}

bool segment_header_decode(struct segment_header *header, const uint8_t block[SPOOL_BLOCK], struct sl_error *err)
{
    memset(header, 0, sizeof(*header));
    struct sl_reader reader = sl_reader_of(block, SPOOL_BLOCK);
    if (sl_read_u64(&reader) != segment_magic)
        return sl_fail(err, SL_E_CORRUPT, "segment header: magic");
    uint32_t version = sl_read_u32(&reader);
    uint32_t crc = sl_read_u32(&reader);
    if (crc != segment_crc(block))
        return sl_fail(err, SL_E_CORRUPT, "segment header: checksum");
    if (version != SPOOL_VERSION)
        return sl_fail(err, SL_E_CORRUPT, "segment header: version %u, this program reads %d", version, SPOOL_VERSION);
    struct sl_span uuid = sl_read_span(&reader, sizeof(header->uuid.bytes));
    memcpy(header->uuid.bytes, uuid.bytes, sizeof(header->uuid.bytes));
    header->first_seq = sl_read_u64(&reader);
    header->counter = sl_read_u64(&reader);
    header->created_wall_ns = (int64_t)sl_read_u64(&reader);
    header->size_bytes = sl_read_u64(&reader);
    header->predecessor_seq = sl_read_u64(&reader);
    header->previous_frame_crc = sl_read_u32(&reader);
    header->lane_count = sl_read_u32(&reader);
    if (header->first_seq == 0)
        return sl_fail(err, SL_E_CORRUPT, "segment header: first seq is 0");
    if (header->size_bytes < 2 * (uint64_t)SPOOL_BLOCK || header->size_bytes % SPOOL_BLOCK != 0)
        return sl_fail(err, SL_E_CORRUPT, "segment header: size %llu", (unsigned long long)header->size_bytes);
    if (header->lane_count > SPOOL_LANES_MAX)
        return sl_fail(err, SL_E_CORRUPT, "segment header: %u lanes", header->lane_count);
    memcpy(header->ids_key_id, block + SEGMENT_KEY_ID_OFFSET, sizeof(header->ids_key_id));
    return read_names(&reader, header, err);
}

uint64_t frame_size(uint32_t body_length)
{
    uint64_t bytes = (uint64_t)FRAME_HEADER_BYTES + body_length;
    return (bytes + SPOOL_BLOCK - 1) / SPOOL_BLOCK * SPOOL_BLOCK;
}

void frame_header_encode(struct frame_header *header, uint8_t bytes[FRAME_HEADER_BYTES])
{
    memset(bytes, 0, FRAME_HEADER_BYTES);
    struct sl_writer writer = sl_writer_of(bytes, FRAME_HEADER_BYTES);
    sl_write_u32(&writer, frame_magic);
    sl_write_u32(&writer, 0); // the CRC's place
    sl_write_u16(&writer, SPOOL_VERSION);
    sl_write_u16(&writer, (uint16_t)header->kind);
    sl_write_u16(&writer, header->flags);
    sl_write_u16(&writer, 0);
    sl_write_bytes(&writer, header->uuid.bytes, sizeof(header->uuid.bytes));
    sl_write_u32(&writer, header->body_length);
    sl_write_u32(&writer, header->body_crc);
    sl_write_u32(&writer, header->previous_crc);
    sl_write_u32(&writer, header->count);
    sl_write_u64(&writer, header->first_seq);
    sl_write_u64(&writer, header->acked_through);
    sl_write_u64(&writer, (uint64_t)header->written_wall_ns);
    sl_write_u64(&writer, header->offset);
    sl_assert(!writer.failed && writer.position == FRAME_USED_BYTES);
    header->header_crc = sl_crc32c(bytes, FRAME_HEADER_BYTES);
    struct sl_writer patch = sl_writer_of(bytes + FRAME_CRC_OFFSET, sizeof(header->header_crc));
    sl_write_u32(&patch, header->header_crc);
}

static uint32_t frame_crc(const uint8_t bytes[FRAME_HEADER_BYTES])
{
    static const uint8_t zero[4] = {0};
    uint32_t crc = sl_crc32c(bytes, FRAME_CRC_OFFSET);
    crc = sl_crc32c_extend(crc, zero, sizeof(zero));
    return sl_crc32c_extend(crc, bytes + FRAME_CRC_OFFSET + 4, FRAME_HEADER_BYTES - FRAME_CRC_OFFSET - 4);
}

bool spool_all_zero(const void *bytes, size_t length)
{
    const uint8_t *p = (const uint8_t *)bytes;
    // A buffer is zero when its first byte is and it equals itself shifted by one.
    return length == 0 || (p[0] == 0 && memcmp(p, p + 1, length - 1) == 0);
}

static bool frame_values_ok(const struct frame_header *header, uint16_t version, uint16_t reserved)
{
    if (version != SPOOL_VERSION || reserved != 0 || header->first_seq == 0)
        return false;
    if (header->body_length > FRAME_BODY_MAX || header->offset % SPOOL_BLOCK != 0 || header->offset == 0)
        return false;
    if (header->first_seq + header->count < header->first_seq || header->acked_through >= header->first_seq)
        return false;
    switch (header->kind) {
    case FRAME_DATA:
        return header->flags == 0 && header->count > 0 && header->body_length > 0;
    case FRAME_SEAL:
        return (header->flags & ~FRAME_FLAG_STREAM_CLOSED) == 0 && header->count == 0 &&
               (header->body_length == 0 || header->body_length == SEAL_BODY_BYTES);
    case FRAME_IDS:
        return header->flags == 0 && header->count == 0 && header->body_length > IDS_HEAD_BYTES &&
               header->body_length <= IDS_BODY_MAX;
    }
    return false;
}

void frame_header_parse(struct frame_header *header, uint16_t *version, uint16_t *reserved,
                        const uint8_t bytes[FRAME_HEADER_BYTES])
{
    memset(header, 0, sizeof(*header));
    struct sl_reader reader = sl_reader_of(bytes, FRAME_HEADER_BYTES);
    (void)sl_read_u32(&reader); // magic
    header->header_crc = sl_read_u32(&reader);
    *version = sl_read_u16(&reader);
    header->kind = (enum frame_kind)sl_read_u16(&reader);
    header->flags = sl_read_u16(&reader);
    *reserved = sl_read_u16(&reader);
    struct sl_span uuid = sl_read_span(&reader, sizeof(header->uuid.bytes));
    memcpy(header->uuid.bytes, uuid.bytes, sizeof(header->uuid.bytes));
    header->body_length = sl_read_u32(&reader);
    header->body_crc = sl_read_u32(&reader);
    header->previous_crc = sl_read_u32(&reader);
    header->count = sl_read_u32(&reader);
    header->first_seq = sl_read_u64(&reader);
    header->acked_through = sl_read_u64(&reader);
    header->written_wall_ns = (int64_t)sl_read_u64(&reader);
    header->offset = sl_read_u64(&reader);
}

enum frame_header_state frame_header_decode(struct frame_header *header, const uint8_t bytes[FRAME_HEADER_BYTES])
{
    memset(header, 0, sizeof(*header));
    struct sl_reader reader = sl_reader_of(bytes, FRAME_HEADER_BYTES);
    if (sl_read_u32(&reader) != frame_magic)
        return spool_all_zero(bytes, FRAME_HEADER_BYTES) ? FRAME_HEADER_ZERO : FRAME_HEADER_BAD;
    if (sl_read_u32(&reader) != frame_crc(bytes))
        return FRAME_HEADER_BAD;
    uint16_t version, reserved;
    frame_header_parse(header, &version, &reserved, bytes);
    if (!frame_values_ok(header, version, reserved))
        return FRAME_HEADER_BAD;
    // A CRC that matches over bytes that this version does not know is a newer writer's: refuse rather than guess.
    if (!spool_all_zero(bytes + FRAME_USED_BYTES, FRAME_HEADER_BYTES - FRAME_USED_BYTES))
        return FRAME_HEADER_BAD;
    return FRAME_HEADER_OK;
}

bool segment_uuid_equal(const struct segment_uuid *a, const struct segment_uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

uint32_t frame_body_seed(const struct segment_uuid *uuid)
{
    return sl_crc32c(uuid->bytes, sizeof(uuid->bytes));
}

void seal_body_encode(uint64_t last_ids_offset, uint8_t body[SEAL_BODY_BYTES])
{
    struct sl_writer writer = sl_writer_of(body, SEAL_BODY_BYTES);
    sl_write_u64(&writer, last_ids_offset);
}

uint64_t seal_body_decode(const uint8_t body[SEAL_BODY_BYTES])
{
    struct sl_reader reader = sl_reader_of(body, SEAL_BODY_BYTES);
    return sl_read_u64(&reader);
}

bool frame_body_verify(const struct frame_header *header, const void *body)
{
    return sl_crc32c_extend(frame_body_seed(&header->uuid), body, header->body_length) == header->body_crc;
}
