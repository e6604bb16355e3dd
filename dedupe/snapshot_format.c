// A header that names the streams, blocks of entries that each verify and decode by themselves (so that threads can
// share them out), a trailer that says how many there are: without it a snapshot is not whole.
#include "dedupe/snapshot_format.h"

#include "base/crc32c.h"

static const char header_magic[8] = {'S', 'L', 'U', 'C', 'E', 'I', 'D', 'S'};
static const char block_magic[4] = {'S', 'L', 'I', 'B'};
static const char trailer_magic[4] = {'S', 'L', 'I', 'E'};
enum { HEADER_CRC_AT = 12, BLOCK_CRC_AT = 4, TRAILER_CRC_AT = 4 };
// Payload hash, choice and group share a word: 40, 2 and 22 bits.
#define HASH_BITS_MASK (~UINT64_C(0xffffff))
enum { CHOICE_SHIFT = 22, GROUP_MASK = (1 << CHOICE_SHIFT) - 1 };

_Static_assert(SNAPSHOT_HEADER_MAX % SNAPSHOT_ALIGN == 0, "a header ends on a block's boundary");
_Static_assert(SNAPSHOT_HEADER_MAX >= SNAPSHOT_HEADER_FIXED + SNAPSHOT_STREAMS_MAX * (8 + 1 + SNAPSHOT_NAME_MAX),
               "all streams fit");

// Over all bytes, the field itself taken as zero.
static uint32_t crc_without(const uint8_t *bytes, size_t length, size_t at)
{
    const uint8_t zero[4] = {0};
    uint32_t crc = sl_crc32c_extend(0, bytes, at);
    crc = sl_crc32c_extend(crc, zero, sizeof(zero));
    return sl_crc32c_extend(crc, bytes + at + sizeof(zero), length - at - sizeof(zero));
}

static void put_crc(uint8_t *bytes, size_t length, size_t at)
{
    uint32_t crc = crc_without(bytes, length, at);
    struct sl_writer writer = sl_writer_of(bytes + at, sizeof(crc));
    sl_write_u32(&writer, crc);
}

static bool has_magic(struct sl_reader *reader, const char *magic, size_t length)
{
    struct sl_span found = sl_read_span(reader, length);
    return found.length == length && memcmp(found.bytes, magic, length) == 0;
}

size_t snapshot_header_encode(struct snapshot_header *header, uint8_t *bytes)
{
    memset(bytes, 0, SNAPSHOT_HEADER_MAX);
    size_t length = SNAPSHOT_HEADER_FIXED;
    for (uint32_t i = 0; i < header->stream_count; i++)
        length += 8 + 1 + strlen(header->streams[i].name);
    length = (length + SNAPSHOT_ALIGN - 1) / SNAPSHOT_ALIGN * SNAPSHOT_ALIGN;
    header->header_bytes = (uint32_t)length;
    struct sl_writer writer = sl_writer_of(bytes, length);
    sl_write_bytes(&writer, header_magic, sizeof(header_magic));
    sl_write_u32(&writer, SNAPSHOT_VERSION);
    sl_write_u32(&writer, 0); // its CRC
    sl_write_u32(&writer, header->header_bytes);
    sl_write_u32(&writer, header->block_bytes);
    sl_write_bytes(&writer, header->key_id, sizeof(header->key_id));
    sl_write_u64(&writer, (uint64_t)header->written_wall_ns);
    sl_write_u64(&writer, (uint64_t)header->window_ns);
    sl_write_u64(&writer, header->rate_milli);
    sl_write_u64(&writer, header->slots);
    sl_write_u32(&writer, header->stream_count);
    sl_write_u32(&writer, 0);
    for (uint32_t i = 0; i < header->stream_count; i++) {
        size_t name = strlen(header->streams[i].name);
        sl_write_u64(&writer, header->streams[i].through);
        sl_write_u8(&writer, (uint8_t)name);
        sl_write_bytes(&writer, header->streams[i].name, name);
    }
    sl_assert(!writer.failed);
    put_crc(bytes, length, HEADER_CRC_AT);
    return length;
}

static bool decode_streams(struct snapshot_header *header, struct sl_reader *reader)
{
    if (header->stream_count > SNAPSHOT_STREAMS_MAX)
        return false;
    for (uint32_t i = 0; i < header->stream_count; i++) {
        struct snapshot_stream *stream = &header->streams[i];
        stream->through = sl_read_u64(reader);
        struct sl_span name = sl_read_span(reader, sl_read_u8(reader));
        if (reader->failed || name.length == 0 || name.length > SNAPSHOT_NAME_MAX ||
            memchr(name.bytes, '\0', name.length) != NULL)
            return false;
        memcpy(stream->name, name.bytes, name.length);
        stream->name[name.length] = '\0';
    }
    return true;
}

bool snapshot_header_decode(struct snapshot_header *header, const uint8_t *bytes, size_t length, struct sl_error *err)
{
    struct sl_reader reader = sl_reader_of(bytes, length);
    if (!has_magic(&reader, header_magic, sizeof(header_magic)))
        return sl_fail(err, SL_E_CORRUPT, "no snapshot");
    uint32_t version = sl_read_u32(&reader), crc = sl_read_u32(&reader);
    header->header_bytes = sl_read_u32(&reader);
    header->block_bytes = sl_read_u32(&reader);
    if (header->header_bytes < SNAPSHOT_ALIGN || header->header_bytes > length ||
        header->header_bytes % SNAPSHOT_ALIGN != 0 || crc != crc_without(bytes, header->header_bytes, HEADER_CRC_AT))
        return sl_fail(err, SL_E_CORRUPT, "checksum of the header");
    if (version != SNAPSHOT_VERSION)
        return sl_fail(err, SL_E_INVALID, "version %u", version);
    reader.length = header->header_bytes;
    struct sl_span key_id = sl_read_span(&reader, sizeof(header->key_id));
    memcpy(header->key_id, key_id.bytes, key_id.length);
    header->written_wall_ns = (int64_t)sl_read_u64(&reader);
    header->window_ns = (int64_t)sl_read_u64(&reader);
    header->rate_milli = sl_read_u64(&reader);
    header->slots = sl_read_u64(&reader);
    header->stream_count = sl_read_u32(&reader);
    uint32_t zero = sl_read_u32(&reader);
    uint32_t block = header->block_bytes;
    if (zero != 0 || block < SNAPSHOT_BLOCK_MIN || block > SNAPSHOT_BLOCK_MAX || (block & (block - 1)) != 0 ||
        !decode_streams(header, &reader))
        return sl_fail(err, SL_E_CORRUPT, "a value of the header");
    return true;
}

void snapshot_trailer_encode(const struct snapshot_trailer *trailer, uint8_t bytes[SNAPSHOT_TRAILER_BYTES])
{
    memset(bytes, 0, SNAPSHOT_TRAILER_BYTES);
    struct sl_writer writer = sl_writer_of(bytes, SNAPSHOT_TRAILER_BYTES);
    sl_write_bytes(&writer, trailer_magic, sizeof(trailer_magic));
    sl_write_u32(&writer, 0); // its CRC
    sl_write_u64(&writer, (uint64_t)trailer->written_wall_ns);
    sl_write_u64(&writer, trailer->blocks);
    sl_write_u64(&writer, trailer->entries);
    sl_write_u64(&writer, (uint64_t)trailer->covered_since_wall_ns);
    sl_write_u32(&writer, trailer->generation_count);
    sl_write_u32(&writer, 0);
    for (uint32_t i = 0; i < trailer->generation_count; i++)
        sl_write_u64(&writer, (uint64_t)trailer->ends_wall_ns[i]);
    sl_assert(!writer.failed);
    put_crc(bytes, SNAPSHOT_TRAILER_BYTES, TRAILER_CRC_AT);
}

bool snapshot_trailer_decode(struct snapshot_trailer *trailer, const uint8_t bytes[SNAPSHOT_TRAILER_BYTES])
{
    struct sl_reader reader = sl_reader_of(bytes, SNAPSHOT_TRAILER_BYTES);
    if (!has_magic(&reader, trailer_magic, sizeof(trailer_magic)) ||
        sl_read_u32(&reader) != crc_without(bytes, SNAPSHOT_TRAILER_BYTES, TRAILER_CRC_AT))
        return false;
    trailer->written_wall_ns = (int64_t)sl_read_u64(&reader);
    trailer->blocks = sl_read_u64(&reader);
    trailer->entries = sl_read_u64(&reader);
    trailer->covered_since_wall_ns = (int64_t)sl_read_u64(&reader);
    trailer->generation_count = sl_read_u32(&reader);
    if (trailer->generation_count > SNAPSHOT_GENERATIONS_MAX || sl_read_u32(&reader) != 0)
        return false;
    for (uint32_t i = 0; i < trailer->generation_count; i++) {
        trailer->ends_wall_ns[i] = (int64_t)sl_read_u64(&reader);
        if (i > 0 && trailer->ends_wall_ns[i] < trailer->ends_wall_ns[i - 1])
            return false;
    }
    return true;
}

// ---- blocks

static uint8_t *entry_at(const struct snapshot_block *block, uint32_t index)
{
    return block->bytes + SNAPSHOT_BLOCK_FIXED + (size_t)index * SNAPSHOT_ENTRY_BYTES;
}

static uint8_t *group_at(const struct snapshot_block *block, uint32_t index)
{
    return block->bytes + block->block_bytes - (size_t)(index + 1) * SNAPSHOT_GROUP_BYTES;
}

void snapshot_block_start(struct snapshot_block *block)
{
    memset(block->bytes, 0, block->block_bytes);
    block->entries = block->groups = 0;
}

void snapshot_block_add(struct snapshot_block *block, const struct snapshot_entry *entry)
{
    sl_assert(entry->group < block->groups && entry->choice < SNAPSHOT_CHOICES);
    struct sl_writer writer = sl_writer_of(entry_at(block, block->entries++), SNAPSHOT_ENTRY_BYTES);
    sl_write_u64(&writer, entry->id.words[0]);
    sl_write_u64(&writer, entry->id.words[1]);
    sl_write_u64(&writer,
                 (entry->payload_hash & HASH_BITS_MASK) | (uint64_t)entry->choice << CHOICE_SHIFT | entry->group);
    sl_write_u32(&writer, entry->seq_low);
}

void snapshot_block_finish(struct snapshot_block *block, const struct snapshot_group *groups, int64_t written_wall_ns,
                           uint64_t index)
{
    for (uint32_t i = 0; i < block->groups; i++) {
        struct sl_writer writer = sl_writer_of(group_at(block, i), SNAPSHOT_GROUP_BYTES);
        sl_write_u64(&writer, (uint64_t)groups[i].seen_wall_ns);
        sl_write_u32(&writer, groups[i].stream);
        sl_write_u32(&writer, groups[i].seq_high);
    }
    struct sl_writer writer = sl_writer_of(block->bytes, SNAPSHOT_BLOCK_FIXED);
    sl_write_bytes(&writer, block_magic, sizeof(block_magic));
    sl_write_u32(&writer, 0); // its CRC
    sl_write_u64(&writer, (uint64_t)written_wall_ns);
    sl_write_u64(&writer, index);
    sl_write_u32(&writer, block->entries);
    sl_write_u32(&writer, block->groups);
    put_crc(block->bytes, block->block_bytes, BLOCK_CRC_AT);
}

bool snapshot_block_open(struct snapshot_block *block, int64_t written_wall_ns, uint64_t index)
{
    struct sl_reader reader = sl_reader_of(block->bytes, SNAPSHOT_BLOCK_FIXED);
    if (!has_magic(&reader, block_magic, sizeof(block_magic)) ||
        sl_read_u32(&reader) != crc_without(block->bytes, block->block_bytes, BLOCK_CRC_AT) ||
        (int64_t)sl_read_u64(&reader) != written_wall_ns || sl_read_u64(&reader) != index)
        return false;
    block->entries = sl_read_u32(&reader);
    block->groups = sl_read_u32(&reader);
    return block->groups <= SNAPSHOT_GROUPS_MAX && SNAPSHOT_BLOCK_FIXED +
                                                           (uint64_t)block->entries * SNAPSHOT_ENTRY_BYTES +
                                                           (uint64_t)block->groups * SNAPSHOT_GROUP_BYTES <=
                                                       block->block_bytes;
}

bool snapshot_block_group(const struct snapshot_block *block, uint32_t index, uint32_t stream_count,
                          struct snapshot_group *out)
{
    struct sl_reader reader = sl_reader_of(group_at(block, index), SNAPSHOT_GROUP_BYTES);
    out->seen_wall_ns = (int64_t)sl_read_u64(&reader);
    out->stream = sl_read_u32(&reader);
    out->seq_high = sl_read_u32(&reader);
    return out->stream < stream_count;
}

bool snapshot_block_entry(const struct snapshot_block *block, uint32_t index, struct snapshot_entry *out)
{
    struct sl_reader reader = sl_reader_of(entry_at(block, index), SNAPSHOT_ENTRY_BYTES);
    out->id.words[0] = sl_read_u64(&reader);
    out->id.words[1] = sl_read_u64(&reader);
    uint64_t word = sl_read_u64(&reader);
    out->payload_hash = word & HASH_BITS_MASK;
    out->choice = (uint32_t)(word >> CHOICE_SHIFT) % SNAPSHOT_CHOICES;
    out->group = (uint32_t)word & GROUP_MASK;
    out->seq_low = sl_read_u32(&reader);
    return out->group < block->groups;
}
