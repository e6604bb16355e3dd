// Any bytes as a segment header, a frame and its records: a decoder ends, reads nothing beyond them, and what it takes
// encodes to the same bytes again. The first byte picks what the rest is: 0 a segment header, 1 a frame header, 2
// records, 4 the body of an ids frame, else a whole segment file that is scanned from a storage in memory.
#include "spool/internal.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// ---- a storage that holds one file

struct file {
    const uint8_t *bytes;
    size_t length;
};

static int file_open(void *context, const char *path, enum storage_open how)
{
    (void)context;
    (void)path;
    return how == STORAGE_READ ? 1 : -EROFS;
}

static int file_close(void *context, int handle)
{
    (void)context;
    (void)handle;
    return 0;
}

static ssize_t file_pread(void *context, int handle, void *bytes, size_t length, uint64_t offset)
{
    const struct file *file = context;
    (void)handle;
    if (offset >= file->length)
        return 0;
    size_t left = file->length - (size_t)offset, take = left < length ? left : length;
    memcpy(bytes, file->bytes + offset, take);
    return (ssize_t)take;
}

static int file_info(void *context, const char *path, struct storage_file_info *out)
{
    const struct file *file = context;
    (void)path;
    *out = (struct storage_file_info){.size_bytes = file->length};
    return 0;
}

static const struct storage_ops file_ops = {
    .open = file_open, .close = file_close, .pread = file_pread, .info = file_info};

// ---- what is taken is what was written

static void check_segment_header(const uint8_t *data, size_t size)
{
    uint8_t block[SPOOL_BLOCK] = {0}, again[SPOOL_BLOCK];
    memcpy(block, data, size < sizeof(block) ? size : sizeof(block));
    // The checksum is put right, or no input would ever come past it.
    memset(block + 12, 0, 4);
    uint32_t crc = sl_crc32c(block, sizeof(block));
    memcpy(block + 12, &crc, sizeof(crc));
    struct segment_header header;
    struct sl_error err = {.text = ""};
    if (!segment_header_decode(&header, block, &err)) {
        sl_assert(err.code == SL_E_CORRUPT && err.text[0] != '\0');
        return;
    }
    struct segment_header twice;
    segment_header_encode(&header, again);
    sl_assert(segment_header_decode(&twice, again, &err) && strcmp(twice.stream, header.stream) == 0 &&
              twice.first_seq == header.first_seq && twice.lane_count == header.lane_count);
}

static void check_frame_header(const uint8_t *data, size_t size)
{
    uint8_t bytes[FRAME_HEADER_BYTES] = {0}, again[FRAME_HEADER_BYTES];
    memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
    memset(bytes + 4, 0, 4);
    uint32_t crc = sl_crc32c(bytes, sizeof(bytes));
    memcpy(bytes + 4, &crc, sizeof(crc));
    struct frame_header header;
    if (frame_header_decode(&header, bytes) != FRAME_HEADER_OK)
        return;
    frame_header_encode(&header, again);
    sl_assert(memcmp(bytes, again, sizeof(bytes)) == 0);
}

static size_t collect_headers(const struct record *record, struct record_header_field *fields, bool *good)
{
    struct sl_reader reader = sl_reader_of(record->headers.bytes, record->headers.length);
    size_t count = 0;
    while (count < RECORD_HEADERS_MAX && record_header_next(&reader, &fields[count]))
        count++;
    *good = !reader.failed && reader.position == reader.length && count == record->header_count;
    return count;
}

static void check_records(const uint8_t *data, size_t size)
{
    struct sl_reader reader = sl_reader_of(data, size);
    struct record record;
    struct record_header_field fields[RECORD_HEADERS_MAX];
    size_t before = 0;
    while (record_next(&reader, &record)) {
        bool good;
        size_t count = collect_headers(&record, fields, &good);
        struct record_buffer buffer = {0};
        // Lengths over the limits of today's writer can be read; they are not written again.
        if (good && record_append(&buffer, &record, fields, count) && (record.has_key || record.key.length == 0))
            sl_assert(buffer.length == reader.position - before &&
                      memcmp(buffer.bytes, data + before, buffer.length) == 0);
        record_buffer_free(&buffer);
        before = reader.position;
    }
    sl_assert(reader.failed || reader.position == reader.length);
}

static void check_ids(const uint8_t *data, size_t size)
{
    uint8_t *body = malloc(size > 0 ? size : 1), again[IDS_HEAD_BYTES]; // aligned, and of that size for the sanitizer
    sl_assert(body != NULL && size <= UINT32_MAX);
    if (size > 0)
        memcpy(body, data, size);
    struct ids_head head;
    const struct ids_entry *entries;
    const struct ids_business *business;
    if (ids_body_decode(&head, &entries, &business, body, (uint32_t)size)) {
        ids_head_encode(&head, again);
        sl_assert(memcmp(again, body, sizeof(again)) == 0);
        sl_assert((const uint8_t *)entries == body + IDS_HEAD_BYTES &&
                  (const uint8_t *)(business + head.business_count) == body + size);
        for (uint32_t i = 0; i < head.business_count; i++)
            sl_assert(business[i].index < head.count && (i == 0 || business[i - 1].index < business[i].index));
    }
    free(body);
}

// What the writer takes from records is what a reader sees in them.
static void check_ids_of_records(const uint8_t *data, size_t size)
{
    struct ids_buffer buffer = {.first_seq = 1};
    struct sl_reader reader = sl_reader_of(data, size);
    struct record record;
    bool taken = ids_buffer_add(&buffer, data, size);
    uint32_t count = 0, business = 0;
    while (record_next(&reader, &record)) {
        sl_assert(!taken || memcmp(buffer.entries[count].id_hash, record.id_hash, RECORD_HASH_BYTES) == 0);
        sl_assert(!taken || buffer.entries[count].payload_hash == record.payload_hash);
        sl_assert(!taken || !record.has_business_hash || buffer.business[business].index == count);
        business += record.has_business_hash;
        count++;
    }
    sl_assert(reader.failed || (taken && buffer.count == count && buffer.business_count == business));
    ids_buffer_free(&buffer);
}

static bool one_segment(void *user, uint64_t at_least, struct scan_segment *out)
{
    (void)user;
    *out = (struct scan_segment){.first_seq = 1, .last = true, .limit = UINT64_MAX};
    return at_least <= 1;
}

static void check_segment(const uint8_t *data, size_t size, bool bodies)
{
    static struct frame_pool *pool;
    if (pool == NULL)
        pool = frame_pool_new();
    struct file file = {.bytes = data, .length = size};
    struct storage storage = {.ops = &file_ops, .context = &file};
    struct scanner scanner = {.storage = &storage,
                              .pool = pool,
                              .dir = "/spool/s",
                              .stream = "gw-a1.1-00c0ffee",
                              .source = {.segment = one_segment},
                              .bodies = bodies};
    scanner_init(&scanner, 1, 1);
    uint64_t next = 1;
    for (size_t steps = 0;; steps++) {
        sl_assert(steps <= 4 * (size / SPOOL_BLOCK + 4)); // it ends
        struct scan_event event;
        struct sl_error err;
        enum scan_result result = scanner_next(&scanner, &event, &err);
        sl_assert(result != SCAN_WAIT && result != SCAN_FAILED);
        if (result == SCAN_END)
            break;
        if (result == SCAN_FRAME) {
            sl_assert(event.first_seq >= next); // seqs only grow
            next = event.last_seq + 1;
        }
        if (result == SCAN_FRAME && bodies) {
            sl_assert(frame_body_verify(&event.frame->header, event.frame->body));
            check_records(event.frame->body, event.frame->header.body_length);
            spool_frame_release(event.frame);
        }
    }
    scanner_release(&scanner);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0]) {
    case 0:
        check_segment_header(data + 1, size - 1);
        break;
    case 1:
        check_frame_header(data + 1, size - 1);
        break;
    case 2:
        check_records(data + 1, size - 1);
        check_ids_of_records(data + 1, size - 1);
        break;
    case 4:
        check_ids(data + 1, size - 1);
        break;
    default:
        check_segment(data + 1, size - 1, true);
        check_segment(data + 1, size - 1, false);
    }
    return 0;
}
