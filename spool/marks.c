// <dir>/marks/<stream>: what this node promised about a stream. Text that ends in a line with the CRC32C of what is
// before it, replaced as a whole. It is not in the stream's directory because it outlives that.
//
//   sluice-marks 1
//   fenced <0 or 1>
//   guard <seq>
//   crc <8 hex>
#include "spool/internal.h"
#include "spool/replica.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 128 };

static bool check_id(const char *id, struct sl_error *err)
{
    char node[SPOOL_NAME_MAX + 1];
    uint64_t counter;
    return stream_parse_id(id, node, &counter) ||
           sl_fail(err, SL_E_INVALID, "marks of %s: no stream has that name", id);
}

static void marks_dir(const struct spool *spool, char dir[SPOOL_PATH_MAX])
{
    spool_path(dir, spool->dir, "marks");
}

static size_t encode(const struct spool_marks *marks, char text[TEXT_MAX])
{
    int length =
        snprintf(text, TEXT_MAX, "sluice-marks 1\nfenced %d\nguard %" PRIu64 "\n", marks->fenced, marks->guard);
    length +=
        snprintf(text + length, (size_t)(TEXT_MAX - length), "crc %08" PRIx32 "\n", sl_crc32c(text, (size_t)length));
    sl_assert(length > 0 && length < TEXT_MAX);
    return (size_t)length;
}

// There is one way to write given marks: what reads differently when it is written again is damaged.
static bool decode(const char *text, size_t length, struct spool_marks *out)
{
    int fenced;
    char again[TEXT_MAX];
    if (sscanf(text, "sluice-marks 1\nfenced %d\nguard %" SCNu64, &fenced, &out->guard) != 2)
        return false;
    out->fenced = fenced == 1;
    return encode(out, again) == length && memcmp(again, text, length) == 0;
}

static bool read_marks(struct spool *spool, const char *id, struct spool_marks *out, struct sl_error *err)
{
    char dir[SPOOL_PATH_MAX], text[TEXT_MAX];
    size_t length = sizeof(text) - 1;
    marks_dir(spool, dir);
    *out = (struct spool_marks){0};
    if (!spool_read_file(&spool->storage, dir, id, text, &length, err))
        return false;
    text[length] = '\0';
    if (length == 0 || decode(text, length, out)) // an empty one was never written: sync comes before the rename
        return true;
    *out = (struct spool_marks){0};
    return sl_fail(err, SL_E_CORRUPT, "%s/%s: checksum", dir, id);
}

bool spool_get_marks(struct spool *spool, const char *id, struct spool_marks *out, struct sl_error *err)
{
    if (!check_id(id, err))
        return false;
    pthread_mutex_lock(&spool->marks_mutex);
    bool read = read_marks(spool, id, out, err);
    pthread_mutex_unlock(&spool->marks_mutex);
    return read;
}

// With marks_mutex. The directory is synced once by each process: an earlier one may not have got to it.
static bool make_dir(struct spool *spool, const char *dir, struct sl_error *err)
{
    const struct storage *storage = &spool->storage;
    if (spool->marks_there)
        return true;
    int rc = storage->ops->mkdir(storage->context, dir);
    if (rc >= 0 || rc == -EEXIST)
        rc = storage->ops->sync_directory(storage->context, spool->dir);
    spool->marks_there = rc >= 0;
    return rc >= 0 ||
           sl_fail_errno(err, rc == -ENOSPC || rc == -EDQUOT ? SL_E_NO_SPACE : SL_E_IO, -rc, "create %s", dir);
}

// A copy of which all is produced is not kept open for more.
static void learn_guard(struct spool *spool, const char *id, uint64_t guard)
{
    pthread_mutex_lock(&spool->mutex);
    struct stream *stream = stream_find(spool, id);
    if (stream != NULL)
        stream->guard = guard;
    pthread_mutex_unlock(&spool->mutex);
}

bool spool_put_marks(struct spool *spool, const char *id, const struct spool_marks *marks, struct sl_error *err)
{
    char dir[SPOOL_PATH_MAX], text[TEXT_MAX];
    if (!check_id(id, err))
        return false;
    marks_dir(spool, dir);
    size_t length = encode(marks, text);
    pthread_mutex_lock(&spool->marks_mutex);
    bool stored = make_dir(spool, dir, err) && spool_replace_file(&spool->storage, dir, id, text, length, err);
    pthread_mutex_unlock(&spool->marks_mutex);
    if (stored)
        learn_guard(spool, id, marks->guard);
    return stored || sl_wrap(err, "marks of %s", id);
}

bool spool_drop_marks(struct spool *spool, const char *id, struct sl_error *err)
{
    char dir[SPOOL_PATH_MAX], path[SPOOL_PATH_MAX];
    if (!check_id(id, err))
        return false;
    const struct storage *storage = &spool->storage;
    marks_dir(spool, dir);
    spool_path(path, dir, id);
    pthread_mutex_lock(&spool->marks_mutex);
    int rc = storage->ops->unlink(storage->context, path);
    if (rc >= 0)
        rc = storage->ops->sync_directory(storage->context, dir);
    pthread_mutex_unlock(&spool->marks_mutex);
    return rc >= 0 || rc == -ENOENT || sl_fail_errno(err, SL_E_IO, -rc, "marks of %s", id);
}

struct listing {
    struct spool *spool;
    struct spool_marked *out;
    size_t capacity, count;
};

static bool each_marks(void *user, const char *name, bool is_directory)
{
    struct listing *listing = user;
    struct sl_error err;
    if (is_directory || !check_id(name, &err)) // .tmp: of a replacement that was cut short
        return true;
    if (listing->count++ >= listing->capacity)
        return true;
    struct spool_marked *marked = &listing->out[listing->count - 1];
    *marked = (struct spool_marked){0};
    memcpy(marked->stream, name, strlen(name) + 1);
    if (!read_marks(listing->spool, name, &marked->marks, &err)) {
        sl_logf(SL_ERROR, "spool", "the marks of a stream cannot be read: it is taken for fenced",
                SL_STR("stream", name), SL_STR("error", err.text));
        marked->marks = (struct spool_marks){.fenced = true};
    }
    return true;
}

size_t spool_list_marks(struct spool *spool, struct spool_marked *out, size_t capacity)
{
    struct listing listing = {.spool = spool, .out = out, .capacity = capacity};
    char dir[SPOOL_PATH_MAX];
    marks_dir(spool, dir);
    pthread_mutex_lock(&spool->marks_mutex);
    int rc = spool->storage.ops->list(spool->storage.context, dir, each_marks, &listing);
    pthread_mutex_unlock(&spool->marks_mutex);
    if (rc < 0 && rc != -ENOENT)
        sl_logf(SL_ERROR, "spool", "marks not listed", SL_STR("dir", dir), SL_STR("error", strerror(-rc)));
    return listing.count;
}
