#include "tests/spool/fault.h"

#include <string.h>
#include <time.h>

const char *const fault_op_names[FAULT_OPS] = {"open",           "pread",  "pwritev", "fdatasync", "allocate",
                                               "truncate",       "rename", "unlink",  "mkdir",     "rmdir",
                                               "sync_directory", "info",   "list",    "lock"};

void fault_init(struct fault *fault, const struct storage *storage)
{
    memset(fault, 0, sizeof(*fault));
    fault->storage = *storage;
}

void fault_set(struct fault *fault, enum fault_op op, uint64_t at, int error, bool forever)
{
    atomic_store(&fault->calls[op], 0);
    atomic_store(&fault->error[op], error);
    atomic_store(&fault->forever[op], forever);
    atomic_store(&fault->fired, false);
    atomic_store(&fault->at[op], at);
}

void fault_clear(struct fault *fault)
{
    for (int op = 0; op < FAULT_OPS; op++)
        atomic_store(&fault->at[op], 0);
}

// 0, or the error that this call has to return.
static int check(struct fault *fault, enum fault_op op)
{
    uint64_t slow = atomic_load(&fault->slow_ns[op]);
    if (slow > 0 || (op == FAULT_FDATASYNC && atomic_load(&fault->hang))) {
        // The delay is the fault itself, and nothing waits for it to be over.
        struct timespec pause = {.tv_nsec = (long)(slow > 0 ? slow : 1000000)};
        do
            nanosleep(&pause, NULL);
        while (op == FAULT_FDATASYNC && atomic_load(&fault->hang));
    }
    uint64_t call = atomic_fetch_add(&fault->calls[op], 1) + 1;
    uint64_t at = atomic_load(&fault->at[op]);
    if (at == 0 || call < at || (call > at && !atomic_load(&fault->forever[op])))
        return 0;
    atomic_store(&fault->fired, true);
    return -atomic_load(&fault->error[op]);
}

#define WRAP(op, call)                                                                                                 \
    struct fault *fault = context;                                                                                     \
    int rc = check(fault, op);                                                                                         \
    if (rc < 0)                                                                                                        \
        return rc;                                                                                                     \
    const struct storage_ops *ops = fault->storage.ops;                                                                \
    void *inner = fault->storage.context;                                                                              \
    return ops->call

static int fault_open(void *context, const char *path, enum storage_open how)
{
    WRAP(FAULT_OPEN, open(inner, path, how));
}

static int fault_close(void *context, int handle)
{
    struct fault *fault = context;
    return fault->storage.ops->close(fault->storage.context, handle);
}

static ssize_t fault_pread(void *context, int handle, void *bytes, size_t length, uint64_t offset)
{
    WRAP(FAULT_PREAD, pread(inner, handle, bytes, length, offset));
}

static int fault_pwritev(void *context, int handle, const struct iovec *parts, int part_count, uint64_t offset)
{
    WRAP(FAULT_PWRITEV, pwritev(inner, handle, parts, part_count, offset));
}

static int fault_fdatasync(void *context, int handle)
{
    WRAP(FAULT_FDATASYNC, fdatasync(inner, handle));
}

static int fault_allocate(void *context, int handle, uint64_t size_bytes)
{
    WRAP(FAULT_ALLOCATE, allocate(inner, handle, size_bytes));
}

static int fault_truncate(void *context, int handle, uint64_t size_bytes)
{
    WRAP(FAULT_TRUNCATE, truncate(inner, handle, size_bytes));
}

static int fault_rename(void *context, const char *from, const char *to)
{
    WRAP(FAULT_RENAME, rename(inner, from, to));
}

static int fault_unlink(void *context, const char *path)
{
    WRAP(FAULT_UNLINK, unlink(inner, path));
}

static int fault_mkdir(void *context, const char *path)
{
    WRAP(FAULT_MKDIR, mkdir(inner, path));
}

static int fault_rmdir(void *context, const char *path)
{
    WRAP(FAULT_RMDIR, rmdir(inner, path));
}

static int fault_sync_directory(void *context, const char *path)
{
    WRAP(FAULT_SYNC_DIRECTORY, sync_directory(inner, path));
}

static int fault_info(void *context, const char *path, struct storage_file_info *out)
{
    WRAP(FAULT_INFO, info(inner, path, out));
}

static int fault_list(void *context, const char *path, bool (*each)(void *user, const char *name, bool is_directory),
                      void *user)
{
    WRAP(FAULT_LIST, list(inner, path, each, user));
}

static int fault_free_bytes(void *context, const char *path, uint64_t *out)
{
    struct fault *fault = context;
    return fault->storage.ops->free_bytes(fault->storage.context, path, out);
}

static int fault_lock(void *context, const char *path)
{
    WRAP(FAULT_LOCK, lock(inner, path));
}

static const struct storage_ops fault_ops = {
    .open = fault_open,
    .close = fault_close,
    .pread = fault_pread,
    .pwritev = fault_pwritev,
    .fdatasync = fault_fdatasync,
    .allocate = fault_allocate,
    .truncate = fault_truncate,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .mkdir = fault_mkdir,
    .rmdir = fault_rmdir,
    .sync_directory = fault_sync_directory,
    .info = fault_info,
    .list = fault_list,
    .free_bytes = fault_free_bytes,
    .lock = fault_lock,
};

struct storage fault_storage(struct fault *fault)
{
    return (struct storage){.ops = &fault_ops, .context = fault};
}
