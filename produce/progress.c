#include "produce/progress.h"

#include "base/crc32c.h"
#include "base/cursor.h"

#include <stdio.h>
#include <string.h>

enum { PROGRESS_MAGIC = 0x47504c53 /* "SLPG" */, PROGRESS_FLAG_CLOSED = 1 };

size_t progress_encode(const struct progress *progress, uint8_t *bytes)
{
    sl_assert(progress->open_count <= PROGRESS_OPEN_MAX);
    size_t drainer_length = strnlen(progress->drainer, sizeof(progress->drainer) - 1);
    struct sl_writer out = sl_writer_of(bytes, PROGRESS_BYTES_MAX);
    sl_write_u32(&out, PROGRESS_MAGIC);
    sl_write_u8(&out, PROGRESS_VERSION);
    sl_write_u8(&out, progress->closed ? PROGRESS_FLAG_CLOSED : 0);
    sl_write_u16(&out, 0);
    sl_write_u64(&out, progress->through);
    sl_write_u64(&out, progress->claim);
    sl_write_u64(&out, (uint64_t)progress->written_wall_ns);
    sl_write_u8(&out, (uint8_t)drainer_length);
    sl_write_bytes(&out, progress->drainer, drainer_length);
    sl_write_u16(&out, (uint16_t)progress->open_count);
    for (uint32_t i = 0; i < progress->open_count; i++) {
        sl_write_u64(&out, progress->open[i].first);
        sl_write_u64(&out, progress->open[i].last);
    }
    sl_write_u32(&out, sl_crc32c(bytes, out.position));
    sl_assert(!out.failed);
    return out.position;
}

static bool decode_fields(struct progress *progress, struct sl_reader *in)
{
    uint8_t flags = sl_read_u8(in);
    progress->closed = flags & PROGRESS_FLAG_CLOSED;
    (void)sl_read_u16(in);
    progress->through = sl_read_u64(in);
    progress->claim = sl_read_u64(in);
    progress->written_wall_ns = (int64_t)sl_read_u64(in);
    struct sl_span drainer = sl_read_span(in, sl_read_u8(in));
    if (drainer.length >= sizeof(progress->drainer))
        return false;
    memcpy(progress->drainer, drainer.bytes, drainer.length);
    progress->open_count = sl_read_u16(in);
    if (progress->open_count > PROGRESS_OPEN_MAX)
        return false;
    uint64_t end = 0;
    for (uint32_t i = 0; i < progress->open_count; i++) {
        struct progress_range *range = &progress->open[i];
        range->first = sl_read_u64(in);
        range->last = sl_read_u64(in);
        if (range->first <= end || range->last < range->first)
            return false;
        end = range->last;
    }
    return !in->failed && in->position == in->length;
}

bool progress_decode(struct progress *progress, const void *bytes, size_t length, struct sl_error *err)
{
    *progress = (struct progress){0};
    if (length < sizeof(uint32_t))
        return sl_fail(err, SL_E_CORRUPT, "progress record: %zu bytes", length);
    size_t body = length - sizeof(uint32_t);
    struct sl_reader tail = sl_reader_of((const uint8_t *)bytes + body, sizeof(uint32_t));
    struct sl_reader in = sl_reader_of(bytes, body);
    if (sl_read_u32(&in) != PROGRESS_MAGIC)
        return sl_fail(err, SL_E_CORRUPT, "progress record: magic");
    if (sl_read_u32(&tail) != sl_crc32c(bytes, body))
        return sl_fail(err, SL_E_CORRUPT, "progress record: checksum");
    uint8_t version = sl_read_u8(&in);
    if (version != PROGRESS_VERSION)
        return sl_fail(err, SL_E_CORRUPT, "progress record: version %u, this program reads %d", version,
                       PROGRESS_VERSION);
    if (!decode_fields(progress, &in))
        return sl_fail(err, SL_E_CORRUPT, "progress record: a field out of range");
    return true;
}

bool progress_open_add(struct progress *progress, uint64_t first, uint64_t last)
{
    sl_assert(first >= 1 && first <= last);
    uint32_t begin = 0;
    while (begin < progress->open_count && progress->open[begin].last + 1 < first)
        begin++;
    uint32_t end = begin;
    while (end < progress->open_count && progress->open[end].first <= last + 1) {
        if (progress->open[end].first < first)
            first = progress->open[end].first;
        if (progress->open[end].last > last)
            last = progress->open[end].last;
        end++;
    }
    if (begin == end && progress->open_count == PROGRESS_OPEN_MAX)
        return false;
    memmove(&progress->open[begin + 1], &progress->open[end], (progress->open_count - end) * sizeof(progress->open[0]));
    progress->open_count = progress->open_count + 1 - (end - begin);
    progress->open[begin] = (struct progress_range){.first = first, .last = last};
    return true;
}

bool progress_open_has(const struct progress *progress, uint64_t seq)
{
    for (uint32_t i = 0; i < progress->open_count; i++) {
        if (seq >= progress->open[i].first && seq <= progress->open[i].last)
            return true;
    }
    return false;
}

void progress_key(char key[PROGRESS_KEY_MAX], const char *stream, const char *lane)
{
    int length = snprintf(key, PROGRESS_KEY_MAX, "%s/%s", stream, lane);
    sl_assert(length > 0 && length < PROGRESS_KEY_MAX);
}

int32_t progress_partition(const char *stream)
{
    return (int32_t)(sl_crc32c(stream, strlen(stream)) % PROGRESS_PARTITIONS);
}

void progress_node(char node[SPOOL_NAME_MAX + 1], const char *stream)
{
    size_t length = strcspn(stream, ".");
    if (length > SPOOL_NAME_MAX)
        length = SPOOL_NAME_MAX;
    memcpy(node, stream, length);
    node[length] = '\0';
}
