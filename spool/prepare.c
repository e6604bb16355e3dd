// The happy path: begin (create NNNNNNNN.tmp, allocate), fill chunk by chunk, finish (rename to .seg, sync of the
// directory).
//
// Failure modes: no space at begin deletes the file and is retried by the keeper a second later, or when something was
// deleted. Any other error does the same. A crash leaves .tmp files, deleted at the next start, or a .seg file, used at
// the next start. Pace: each chunk is synced by itself, so that the writer's sync never finds more than a chunk of
// foreign dirty pages in its way.
#include "spool/prepare.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20, MIN_BYTES = 4 * SPOOL_BLOCK };

static _Alignas(SPOOL_BLOCK) const uint8_t zeros[64 << 10]; // aligned for writes past the cache

bool preparer_init(struct preparer *preparer, const struct storage *storage, const char *spool_dir,
                   struct sl_error *err)
{
    *preparer = (struct preparer){.storage = storage, .next_number = 1, .making.handle = -1};
    spool_path(preparer->dir, spool_dir, "ready");
    int rc = storage->ops->mkdir(storage->context, preparer->dir);
    if (rc == -EEXIST)
        return true;
    if (rc == 0)
        rc = storage->ops->sync_directory(storage->context, spool_dir);
    if (rc < 0)
        return sl_fail_errno(err, rc == -ENOSPC ? SL_E_NO_SPACE : SL_E_IO, -rc, "create %s", preparer->dir);
    return true;
}

struct listing {
    uint64_t *numbers;
    size_t count, capacity;
    bool out_of_memory;
    const struct preparer *preparer;
};

// "00000012.seg" → 12
static bool parse_number(const char *name, uint64_t *out)
{
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 18 || strcmp(name + digits, ".seg") != 0)
        return false;
    *out = strtoull(name, NULL, 10);
    return true;
}

static bool each_ready(void *user, const char *name, bool is_directory)
{
    struct listing *listing = user;
    uint64_t number;
    if (is_directory)
        return true;
    if (!parse_number(name, &number)) {
        if (strlen(name) > 4 && strlen(name) < 64 && strcmp(name + strlen(name) - 4, ".tmp") == 0) {
            char path[SPOOL_PATH_MAX];
            spool_path(path, listing->preparer->dir, name);
            const struct storage *storage = listing->preparer->storage;
            storage->ops->unlink(storage->context, path);
        }
        return true;
    }
    if (listing->count == listing->capacity) {
        size_t capacity = listing->capacity > 0 ? listing->capacity * 2 : 16;
        uint64_t *numbers = realloc(listing->numbers, capacity * sizeof(*numbers));
        if (numbers == NULL) {
            listing->out_of_memory = true;
            return false;
        }
        listing->numbers = numbers;
        listing->capacity = capacity;
    }
    listing->numbers[listing->count++] = number;
    return true;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Opens a left-over file. False when it is of no use (*out untouched): the caller deletes it.
static bool adopt_one(struct preparer *preparer, const char *path, struct ready_segment *out)
{
    const struct storage *storage = preparer->storage;
    struct storage_file_info info;
    if (storage->ops->info(storage->context, path, &info) < 0 || info.size_bytes < MIN_BYTES ||
        info.size_bytes % SPOOL_BLOCK != 0)
        return false;
    int handle = storage->ops->open(storage->context, path, STORAGE_WRITE);
    if (handle < 0)
        return false;
    uint8_t block[SPOOL_BLOCK];
    ssize_t got = storage->ops->pread(storage->context, handle, block, sizeof(block), 0);
    if (got != SPOOL_BLOCK || memcmp(block, zeros, SPOOL_BLOCK) != 0) {
        storage->ops->close(storage->context, handle);
        return false;
    }
    out->handle = handle;
    out->size_bytes = info.size_bytes;
    snprintf(out->path, sizeof(out->path), "%s", path);
    return true;
}

bool preparer_adopt(struct preparer *preparer, struct ready_segment *out, size_t capacity, size_t *count,
                    struct sl_error *err)
{
    const struct storage *storage = preparer->storage;
    struct listing listing = {.preparer = preparer};
    *count = 0;
    int rc = storage->ops->list(storage->context, preparer->dir, each_ready, &listing);
    if (rc < 0 || listing.out_of_memory) {
        free(listing.numbers);
        return sl_fail_errno(err, SL_E_IO, rc < 0 ? -rc : ENOMEM, "list %s", preparer->dir);
    }
    if (listing.count > 0) // qsort takes no NULL
        qsort(listing.numbers, listing.count, sizeof(*listing.numbers), by_number);
    for (size_t i = 0; i < listing.count; i++) {
        char name[32], path[SPOOL_PATH_MAX];
        snprintf(name, sizeof(name), "%08llu.seg", (unsigned long long)listing.numbers[i]);
        spool_path(path, preparer->dir, name);
        if (*count < capacity && adopt_one(preparer, path, &out[*count]))
            (*count)++;
        else
            storage->ops->unlink(storage->context, path);
        preparer->next_number = listing.numbers[i] + 1;
    }
    free(listing.numbers);
    return true;
}

void preparer_cancel(struct preparer *preparer)
{
    if (!preparer->active)
        return;
    const struct storage *storage = preparer->storage;
    storage->ops->close(storage->context, preparer->making.handle);
    storage->ops->unlink(storage->context, preparer->making.path);
    preparer->making.handle = -1;
    preparer->active = false;
}

static bool give_up(struct preparer *preparer, struct sl_error *err, int rc, const char *what)
{
    bool space = rc == -ENOSPC || rc == -EDQUOT;
    sl_fail_errno(err, space ? SL_E_NO_SPACE : SL_E_IO, -rc, "prepare %s: %s", preparer->making.path, what);
    preparer_cancel(preparer);
    return false;
}

bool preparer_begin(struct preparer *preparer, uint64_t size_bytes, struct sl_error *err)
{
    sl_assert(!preparer->active && size_bytes >= MIN_BYTES && size_bytes % SPOOL_BLOCK == 0);
    const struct storage *storage = preparer->storage;
    char name[32];
    snprintf(name, sizeof(name), "%08llu.tmp", (unsigned long long)preparer->next_number);
    spool_path(preparer->making.path, preparer->dir, name);
    int handle = storage->ops->open(storage->context, preparer->making.path, STORAGE_CREATE);
    if (handle == -EEXIST) { // left by a deletion that failed
        storage->ops->unlink(storage->context, preparer->making.path);
        handle = storage->ops->open(storage->context, preparer->making.path, STORAGE_CREATE);
    }
    if (handle < 0)
        return give_up(preparer, err, handle, "create");
    preparer->next_number++;
    preparer->active = true;
    preparer->making.handle = handle;
    preparer->making.size_bytes = size_bytes;
    preparer->zeroed = 0;
    int rc = storage->ops->allocate(storage->context, handle, size_bytes);
    if (rc < 0)
        return give_up(preparer, err, rc, "allocate");
    if (storage->ops->bypass_cache != NULL)
        storage->ops->bypass_cache(storage->context, handle, true);
    return true;
}

bool preparer_fill(struct preparer *preparer, bool *complete, struct sl_error *err)
{
    sl_assert(preparer->active);
    const struct storage *storage = preparer->storage;
    struct iovec parts[CHUNK_BYTES / sizeof(zeros)];
    uint64_t left = preparer->making.size_bytes - preparer->zeroed;
    size_t chunk = left < CHUNK_BYTES ? (size_t)left : (size_t)CHUNK_BYTES;
    int used = 0;
    for (size_t position = 0; position < chunk; position += sizeof(zeros)) {
        size_t length = chunk - position < sizeof(zeros) ? chunk - position : sizeof(zeros);
        parts[used++] = (struct iovec){.iov_base = (void *)(uintptr_t)zeros, .iov_len = length};
    }
    if (used > 0) {
        int rc = storage->ops->pwritev(storage->context, preparer->making.handle, parts, used, preparer->zeroed);
        if (rc < 0)
            return give_up(preparer, err, rc, "write");
        rc = storage->ops->fdatasync(storage->context, preparer->making.handle);
        if (rc < 0)
            return give_up(preparer, err, rc, "sync");
    }
    preparer->zeroed += chunk;
    *complete = preparer->zeroed == preparer->making.size_bytes;
    return true;
}

bool preparer_finish(struct preparer *preparer, struct ready_segment *out, struct sl_error *err)
{
    sl_assert(preparer->active);
    const struct storage *storage = preparer->storage;
    if (storage->ops->bypass_cache != NULL)
        storage->ops->bypass_cache(storage->context, preparer->making.handle, false);
    // Size and extents of a file that was not filled at all must be durable before frames are: one more sync.
    int rc = storage->ops->fdatasync(storage->context, preparer->making.handle);
    if (rc < 0)
        return give_up(preparer, err, rc, "sync");
    char path[SPOOL_PATH_MAX];
    int stem = (int)strlen(preparer->making.path) - 4; // without ".tmp"
    snprintf(path, sizeof(path), "%.*s.seg", stem, preparer->making.path);
    rc = storage->ops->rename(storage->context, preparer->making.path, path);
    if (rc < 0)
        return give_up(preparer, err, rc, "rename");
    memcpy(preparer->making.path, path, sizeof(path));
    rc = storage->ops->sync_directory(storage->context, preparer->dir);
    if (rc < 0)
        return give_up(preparer, err, rc, "sync of the directory");
    *out = preparer->making;
    preparer->making.handle = -1;
    preparer->active = false;
    return true;
}
