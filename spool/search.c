// What the scanner looks for where it finds no frame. See search.h.
#include "spool/search.h"

#include "base/crc32c.h"
#include "spool/internal.h"

enum { SECTOR = 512, CHUNK = 256 << 10 };

bool scan_read_at(struct scanner *scanner, void *bytes, size_t length, uint64_t offset, size_t *got,
                  struct sl_error *err)
{
    const struct storage *storage = scanner->storage;
    *got = 0;
    ssize_t rc = storage->ops->pread(storage->context, scanner->handle, bytes, length, offset);
    if (rc >= 0) {
        *got = (size_t)rc;
        return true;
    }
    char name[32];
    segment_file_name(name, scanner->file.first_seq);
    return sl_fail_errno(err, SL_E_IO, (int)-rc, "%s/%s: read %zu bytes at %llu", scanner->stream, name, length,
                         (unsigned long long)offset);
}

// Whether the body of a frame that was found verifies. Reads it piece by piece. An unreadable one does not.
static bool body_verifies(struct scanner *scanner, const struct frame_header *header, uint8_t *chunk)
{
    uint32_t crc = frame_body_seed(&header->uuid);
    uint64_t left = header->body_length, at = header->offset + FRAME_HEADER_BYTES;
    while (left > 0) {
        size_t want = left < CHUNK ? (size_t)left : (size_t)CHUNK, got;
        struct sl_error ignored;
        if (!scan_read_at(scanner, chunk, want, at, &got, &ignored) || got < want)
            return false;
        crc = sl_crc32c_extend(crc, chunk, got);
        at += got;
        left -= got;
    }
    return crc == header->body_crc;
}

static bool is_later_frame(struct scanner *scanner, const uint8_t *block, size_t length, uint64_t offset,
                           struct frame_header *header, uint8_t *scratch)
{
    return length >= FRAME_HEADER_BYTES && frame_header_decode(header, block) == FRAME_HEADER_OK &&
           segment_uuid_equal(&header->uuid, &scanner->uuid) && header->offset == offset &&
           header->first_seq >= scanner->expected && body_verifies(scanner, header, scratch);
}

// Looks at a chunk of blocks. True when it holds a later frame.
static bool search_chunk(struct scanner *scanner, const uint8_t *chunk, size_t length, uint64_t at,
                         uint64_t first_candidate, struct search *found, uint8_t *scratch)
{
    for (size_t position = 0; position < length; position += SECTOR) {
        if (position % SPOOL_BLOCK == 0 && length - position >= SPOOL_BLOCK &&
            spool_all_zero(chunk + position, SPOOL_BLOCK)) { // most of a file's rest is
            position += SPOOL_BLOCK - SECTOR;
            continue;
        }
        size_t sector = length - position < SECTOR ? length - position : (size_t)SECTOR;
        uint64_t offset = at + position;
        if (offset % SPOOL_BLOCK == 0 && offset >= first_candidate &&
            is_later_frame(scanner, chunk + position, length - position, offset, &found->header, scratch)) {
            found->later = true;
            found->offset = offset;
            return true;
        }
        if (spool_all_zero(chunk + position, sector))
            continue;
        if (offset > found->nonzero_end)
            found->zero_sector = true;
        found->nonzero_end = offset + sector;
    }
    return false;
}

bool scan_search_rest(struct scanner *scanner, uint64_t start, uint64_t first_candidate, struct search *found,
                      struct sl_error *err)
{
    *found = (struct search){.nonzero_end = start};
    struct spool_frame *buffer = frame_pool_take(scanner->pool, 2 * (size_t)CHUNK);
    if (buffer == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "search of %s", scanner->stream);
    uint8_t *chunk = frame_bytes(buffer);
    for (uint64_t at = start; at < scanner->file_bytes; at += CHUNK) {
        size_t got;
        struct sl_error ignored;
        if (!scan_read_at(scanner, chunk, CHUNK, at, &got, &ignored)) {
            found->nonzero_end = at + CHUNK;
            continue;
        }
        if (got == 0 || search_chunk(scanner, chunk, got, at, first_candidate, found, chunk + CHUNK))
            break;
    }
    spool_frame_release(buffer);
    return true;
}

bool scan_has_zero_sector(struct scanner *scanner, uint64_t start, uint64_t end)
{
    uint8_t block[SPOOL_BLOCK];
    if (end > scanner->file_bytes)
        return true;
    for (uint64_t at = start; at < end; at += SPOOL_BLOCK) {
        size_t got;
        struct sl_error ignored;
        if (!scan_read_at(scanner, block, sizeof(block), at, &got, &ignored))
            continue;
        for (size_t position = 0; position < got && at + position < end; position += SECTOR) {
            uint64_t left = end - at - position;
            if (spool_all_zero(block + position, left < SECTOR ? (size_t)left : (size_t)SECTOR))
                return true;
        }
    }
    return false;
}

bool scan_find_uuid(struct scanner *scanner, bool *found, struct sl_error *err)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct spool_frame *scratch = frame_pool_take(scanner->pool, CHUNK);
    if (scratch == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "search of %s", scanner->stream);
    *found = false;
    for (uint64_t at = SPOOL_BLOCK; at < scanner->file_bytes && !*found; at += SPOOL_BLOCK) {
        struct frame_header header;
        size_t got;
        struct sl_error ignored;
        if (!scan_read_at(scanner, bytes, sizeof(bytes), at, &got, &ignored) || got < sizeof(bytes))
            continue;
        if (frame_header_decode(&header, bytes) != FRAME_HEADER_OK || header.offset != at ||
            !body_verifies(scanner, &header, frame_bytes(scratch)))
            continue;
        scanner->uuid = header.uuid;
        *found = true;
    }
    spool_frame_release(scratch);
    return true;
}
