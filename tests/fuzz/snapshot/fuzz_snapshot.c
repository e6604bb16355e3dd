// Any bytes as a snapshot of the dedupe window. The first byte says whether the checksums are put right before (bit 0),
// or no input would ever come past them, how many threads load it (bit 1), and whether what was taken is written and
// taken again (bit 2).
#include "dedupe/internal.h"
#include "dedupe/snapshot_format.h"
#include "spool/storage.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const int64_t now_ns = INT64_C(1700001800) * 1000000000;
static const int64_t window_ns = INT64_C(3600) * 1000000000;

// ---- a storage that holds one file

struct file {
    uint8_t *bytes;
    size_t length, capacity;
};

static int file_open(void *context, const char *path, enum storage_open how)
{
    (void)path;
    struct file *file = context;
    if (how == STORAGE_CREATE)
        file->length = 0;
    return 1;
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

static int file_pwritev(void *context, int handle, const struct iovec *parts, int part_count, uint64_t offset)
{
    struct file *file = context;
    (void)handle;
    sl_assert(part_count == 1 && offset == file->length);
    size_t length = parts[0].iov_len;
    if (file->length + length > file->capacity) {
        file->capacity = 2 * (file->length + length);
        file->bytes = realloc(file->bytes, file->capacity);
        sl_assert(file->bytes != NULL);
    }
    memcpy(file->bytes + file->length, parts[0].iov_base, length);
    file->length += length;
    return 0;
}

static int file_sync(void *context, int handle)
{
    (void)context;
    (void)handle;
    return 0;
}

static int file_rename(void *context, const char *from, const char *to)
{
    (void)context;
    (void)from;
    (void)to;
    return 0;
}

static int file_sync_directory(void *context, const char *path)
{
    (void)context;
    (void)path;
    return 0;
}

static int file_info(void *context, const char *path, struct storage_file_info *out)
{
    const struct file *file = context;
    (void)path;
    *out = (struct storage_file_info){.size_bytes = file->length};
    return 0;
}

static const struct storage_ops file_ops = {.open = file_open,
                                            .close = file_close,
                                            .pread = file_pread,
                                            .pwritev = file_pwritev,
                                            .fdatasync = file_sync,
                                            .rename = file_rename,
                                            .sync_directory = file_sync_directory,
                                            .info = file_info};

// ---- checksums

static void put_crc(struct file *file, size_t at, size_t length, size_t field)
{
    if (at > file->length || length > file->length - at || field + 4 > length)
        return;
    memset(file->bytes + at + field, 0, 4);
    uint32_t crc = sl_crc32c(file->bytes + at, length);
    memcpy(file->bytes + at + field, &crc, sizeof(crc));
}

static uint32_t u32_at(const struct file *file, size_t at)
{
    uint32_t value = 0;
    if (at + sizeof(value) <= file->length)
        memcpy(&value, file->bytes + at, sizeof(value));
    return value;
}

// Of whatever the header says that its parts are.
static void put_checksums_right(struct file *file)
{
    uint32_t header_bytes = u32_at(file, 16), block_bytes = u32_at(file, 20);
    put_crc(file, 0, header_bytes, 12);
    if (file->length < SNAPSHOT_TRAILER_BYTES)
        return;
    size_t end = file->length - SNAPSHOT_TRAILER_BYTES;
    for (size_t at = header_bytes; block_bytes > 0 && at < end && block_bytes <= end - at; at += block_bytes)
        put_crc(file, at, block_bytes, 4);
    put_crc(file, end, SNAPSHOT_TRAILER_BYTES, 4);
}

// ---- the window that it is loaded into

static struct dedupe *window_new(void)
{
    struct dedupe_options options = {
        .memory_bytes = dedupe_memory_min(), .window_ns = window_ns, .now_wall_ns = now_ns};
    struct dedupe *dedupe;
    struct sl_error err;
    sl_assert(dedupe_new(&dedupe, &options, &err));
    return dedupe;
}

static void on_covers(void *user, const char *stream, uint64_t through)
{
    (void)through;
    sl_assert(stream[0] != '\0' && strlen(stream) <= SNAPSHOT_NAME_MAX);
    ++*(unsigned *)user;
}

static uint64_t through_nothing(void *user, const char *stream)
{
    (void)user;
    (void)stream;
    return 0;
}

static uint64_t count_entries(const struct dedupe *dedupe)
{
    struct dedupe_figures figures;
    dedupe_figures(dedupe, now_ns, &figures);
    return figures.entries;
}

// What a snapshot must hold: entries that have left the window wait in the table until they are swept.
static uint64_t count_live(const struct dedupe *dedupe)
{
    uint64_t live = 0;
    for (uint64_t slot = 0; slot < table_slots(dedupe); slot++) {
        struct dedupe_entry entry;
        live += table_entry(dedupe, slot, now_ns, &entry) && entry.state == DEDUPE_DURABLE;
    }
    return live;
}

// An id of which no input is made is new, whatever was loaded.
static void check_strangers(struct dedupe *dedupe)
{
    for (uint64_t i = 1; i <= 64; i++) {
        struct dedupe_id id = {{i * UINT64_C(0x9e3779b97f4a7c15), i * UINT64_C(0xd1342543de82ef95)}};
        struct dedupe_found found;
        sl_assert(dedupe_look(dedupe, &id, 1, &found) == DEDUPE_NEW);
    }
}

// What was taken is written, and taken again.
static void check_again(struct dedupe *dedupe, const struct dedupe_key *key)
{
    struct file file = {.bytes = NULL};
    struct storage storage = {.ops = &file_ops, .context = &file};
    struct dedupe_snapshot_writing how = {.through = through_nothing, .block_bytes = SNAPSHOT_BLOCK_MIN};
    struct dedupe_snapshot_info info;
    struct sl_error err;
    unsigned streams = 0;
    uint64_t entries = count_live(dedupe);
    sl_assert(dedupe_snapshot_write(dedupe, key, &storage, "/d", &how, now_ns, &err));
    struct dedupe *twice = window_new();
    sl_assert(dedupe_snapshot_load(twice, key, &storage, "/d", 1, on_covers, &streams, now_ns, &info, &err));
    sl_assert(info.entries == entries);
    dedupe_free(twice);
    free(file.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct file file = {.bytes = malloc(size), .length = size - 1, .capacity = size};
    sl_assert(file.bytes != NULL);
    memcpy(file.bytes, data + 1, size - 1);
    if (data[0] & 1)
        put_checksums_right(&file);
    struct storage storage = {.ops = &file_ops, .context = &file};
    struct dedupe_key key = {.bytes = {7}};
    dedupe_key_derive(&key);
    struct dedupe *dedupe = window_new();
    dedupe_own_stream(dedupe, "gw-a1.8-00c0ffee");
    struct dedupe_snapshot_info info;
    struct sl_error err = {.text = ""};
    unsigned streams = 0;
    if (dedupe_snapshot_load(dedupe, &key, &storage, "/d", data[0] & 2 ? 2 : 1, on_covers, &streams, now_ns, &info,
                             &err)) {
        sl_assert(streams <= SNAPSHOT_STREAMS_MAX && count_entries(dedupe) <= info.entries);
        if (data[0] & 4)
            check_again(dedupe, &key);
    } else {
        sl_assert(streams == 0 && err.text[0] != '\0' && (err.code == SL_E_CORRUPT || err.code == SL_E_INVALID));
    }
    check_strangers(dedupe);
    dedupe_free(dedupe);
    free(file.bytes);
    return 0;
}
