#include "spool/internal.h"

#include <errno.h>

static void ballast_path(char out[SPOOL_PATH_MAX], const char *dir)
{
    spool_path(out, dir, "ready/ballast");
}

bool ballast_make(const struct storage *storage, const char *dir)
{
    char path[SPOOL_PATH_MAX];
    ballast_path(path, dir);
    int handle = storage->ops->open(storage->context, path, STORAGE_CREATE);
    if (handle < 0)
        return handle == -EEXIST;
    int rc = storage->ops->allocate(storage->context, handle, BALLAST_BYTES);
    if (rc >= 0)
        rc = storage->ops->fdatasync(storage->context, handle);
    storage->ops->close(storage->context, handle);
    if (rc < 0)
        storage->ops->unlink(storage->context, path);
    return rc >= 0;
}

bool ballast_is_there(const struct storage *storage, const char *dir)
{
    char path[SPOOL_PATH_MAX];
    struct storage_file_info info;
    ballast_path(path, dir);
    return storage->ops->info(storage->context, path, &info) >= 0;
}

bool ballast_give_up(const struct storage *storage, const char *dir)
{
    char path[SPOOL_PATH_MAX];
    ballast_path(path, dir);
    return storage->ops->unlink(storage->context, path) >= 0;
}
