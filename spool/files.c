// Small files that are replaced as a whole: a reader after a crash finds the old content or the new one.
#include "spool/internal.h"

#include <errno.h>
#include <stdio.h>

bool spool_replace_file(const struct storage *storage, const char *dir, const char *name, const void *bytes,
                        size_t length, struct sl_error *err)
{
    char path[SPOOL_PATH_MAX], temporary[SPOOL_PATH_MAX], temporary_name[96];
    int written = snprintf(temporary_name, sizeof(temporary_name), "%s.tmp", name);
    sl_assert(written > 0 && (size_t)written < sizeof(temporary_name));
    spool_path(path, dir, name);
    spool_path(temporary, dir, temporary_name);
    const char *what = "create";
    int handle = storage->ops->open(storage->context, temporary, STORAGE_CREATE);
    if (handle == -EEXIST) { // an earlier process or attempt did not get to its rename
        storage->ops->unlink(storage->context, temporary);
        handle = storage->ops->open(storage->context, temporary, STORAGE_CREATE);
    }
    int rc = handle;
    if (handle < 0)
        goto failed;
    what = "write";
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    rc = length > 0 ? storage->ops->pwritev(storage->context, handle, &part, 1, 0) : 0;
    if (rc >= 0) {
        what = "sync";
        rc = storage->ops->fdatasync(storage->context, handle);
    }
    storage->ops->close(storage->context, handle);
    if (rc < 0)
        goto failed_created;
    what = "rename";
    rc = storage->ops->rename(storage->context, temporary, path);
    if (rc < 0)
        goto failed_created;
    what = "sync of the directory";
    rc = storage->ops->sync_directory(storage->context, dir);
    if (rc < 0)
        goto failed;
    return true;

failed_created:
    storage->ops->unlink(storage->context, temporary);
failed:
    return sl_fail_errno(err, rc == -ENOSPC || rc == -EDQUOT ? SL_E_NO_SPACE : SL_E_IO, -rc, "%s: %s", path, what);
}

bool spool_read_file(const struct storage *storage, const char *dir, const char *name, void *bytes, size_t *length,
                     struct sl_error *err)
{
    char path[SPOOL_PATH_MAX];
    spool_path(path, dir, name);
    size_t capacity = *length;
    *length = 0;
    struct storage_file_info info;
    int rc = storage->ops->info(storage->context, path, &info);
    if (rc == -ENOENT)
        return true;
    if (rc < 0)
        return sl_fail_errno(err, SL_E_IO, -rc, "%s", path);
    if (info.size_bytes > capacity)
        return sl_fail(err, SL_E_TOO_LARGE, "%s: %llu bytes", path, (unsigned long long)info.size_bytes);
    int handle = storage->ops->open(storage->context, path, STORAGE_READ);
    if (handle < 0)
        return sl_fail_errno(err, SL_E_IO, -handle, "open %s", path);
    ssize_t got = storage->ops->pread(storage->context, handle, bytes, (size_t)info.size_bytes, 0);
    storage->ops->close(storage->context, handle);
    if (got < 0)
        return sl_fail_errno(err, SL_E_IO, (int)-got, "read %s", path);
    *length = (size_t)got;
    return true;
}
