#include "spool/storage.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int posix_open(void *context, const char *path, enum storage_open how)
{
    (void)context;
    int flags = O_CLOEXEC | O_NOFOLLOW;
    switch (how) {
    case STORAGE_READ:
        flags |= O_RDONLY;
        break;
    case STORAGE_WRITE:
        flags |= O_RDWR;
        break;
    case STORAGE_CREATE:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
    }
    for (;;) {
        int handle = open(path, flags, 0600);
        if (handle >= 0)
            return handle;
        if (errno != EINTR)
            return -errno;
    }
}

static int posix_close(void *context, int handle)
{
    (void)context;
    // Linux frees the descriptor even when close is interrupted.
    return close(handle) == 0 || errno == EINTR ? 0 : -errno;
}

static ssize_t posix_pread(void *context, int handle, void *bytes, size_t length, uint64_t offset)
{
    (void)context;
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(handle, (char *)bytes + done, length - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

// Some file systems take the flag and refuse the write, before any of it is done. True: it goes through the cache now.
static bool leave_direct(int handle)
{
    int flags = fcntl(handle, F_GETFL);
    return flags >= 0 && (flags & O_DIRECT) != 0 && fcntl(handle, F_SETFL, flags & ~O_DIRECT) == 0;
}

// Goes on from `done` bytes into the parts: a signal may cut a large pwritev short without any fault.
static int write_rest(int handle, const struct iovec *parts, int part_count, size_t done, uint64_t offset)
{
    size_t position = 0;
    for (int i = 0; i < part_count; i++) {
        const char *bytes = (const char *)parts[i].iov_base;
        size_t length = parts[i].iov_len;
        while (position + length > done) {
            size_t skip = done - position;
            ssize_t put = pwrite(handle, bytes + skip, length - skip, (off_t)(offset + done));
            if (put < 0 && (errno == EINTR || (errno == EINVAL && leave_direct(handle))))
                continue;
            if (put < 0)
                return -errno;
            if (put == 0)
                return -EIO;
            done += (size_t)put;
        }
        position += length;
    }
    return 0;
}

static int posix_pwritev(void *context, int handle, const struct iovec *parts, int part_count, uint64_t offset)
{
    (void)context;
    size_t total = 0;
    for (int i = 0; i < part_count; i++)
        total += parts[i].iov_len;
    for (;;) {
        ssize_t put = pwritev(handle, parts, part_count, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EINVAL && leave_direct(handle))
            continue;
        if (put < 0)
            return -errno;
        if ((size_t)put == total)
            return 0;
        return write_rest(handle, parts, part_count, (size_t)put, offset);
    }
}

static int posix_fdatasync(void *context, int handle)
{
    (void)context;
    // EINTR is not in the list of fdatasync's errors; were it to come, nothing is known about the pages: report it.
    return fdatasync(handle) == 0 ? 0 : -errno;
}

static int posix_allocate(void *context, int handle, uint64_t size_bytes)
{
    (void)context;
    for (;;) {
        if (fallocate(handle, 0, 0, (off_t)size_bytes) == 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

static void posix_bypass_cache(void *context, int handle, bool on)
{
    (void)context;
    int flags = fcntl(handle, F_GETFL);
    // Not every file system can (EINVAL); then the writes go through the cache, which is slower and as correct.
    if (flags >= 0)
        (void)fcntl(handle, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

static int posix_truncate(void *context, int handle, uint64_t size_bytes)
{
    (void)context;
    for (;;) {
        if (ftruncate(handle, (off_t)size_bytes) == 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

static int posix_rename(void *context, const char *from, const char *to)
{
    (void)context;
    return rename(from, to) == 0 ? 0 : -errno;
}

static int posix_unlink(void *context, const char *path)
{
    (void)context;
    return unlink(path) == 0 ? 0 : -errno;
}

static int posix_mkdir(void *context, const char *path)
{
    (void)context;
    return mkdir(path, 0700) == 0 ? 0 : -errno;
}

static int posix_rmdir(void *context, const char *path)
{
    (void)context;
    return rmdir(path) == 0 ? 0 : -errno;
}

static int posix_sync_directory(void *context, const char *path)
{
    (void)context;
    int handle = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (handle < 0)
        return -errno;
    int rc = fsync(handle) == 0 ? 0 : -errno;
    close(handle);
    return rc;
}

static int posix_info(void *context, const char *path, struct storage_file_info *out)
{
    (void)context;
    struct stat st;
    if (lstat(path, &st) != 0)
        return -errno;
    out->size_bytes = (uint64_t)st.st_size;
    out->modified_wall_ns = (int64_t)st.st_mtim.tv_sec * SL_NS_PER_S + st.st_mtim.tv_nsec;
    out->is_directory = S_ISDIR(st.st_mode);
    return 0;
}

static bool entry_is_directory(int dir_handle, const struct dirent *entry)
{
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    struct stat st;
    return fstatat(dir_handle, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static int posix_list(void *context, const char *path, bool (*each)(void *user, const char *name, bool is_directory),
                      void *user)
{
    (void)context;
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -errno;
    int rc = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            rc = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!each(user, entry->d_name, entry_is_directory(dirfd(dir), entry)))
            break;
    }
    closedir(dir);
    return rc;
}

static int posix_free_bytes(void *context, const char *path, uint64_t *out)
{
    (void)context;
    struct statvfs st;
    if (statvfs(path, &st) != 0)
        return -errno;
    *out = (uint64_t)st.f_bavail * (uint64_t)st.f_frsize;
    return 0;
}

static int posix_lock(void *context, const char *path)
{
    (void)context;
    // A file of its own and not the directory: flock on a directory is refused by some filesystems.
    char file[PATH_MAX];
    int length = snprintf(file, sizeof(file), "%s/lock", path);
    if (length < 0 || (size_t)length >= sizeof(file))
        return -ENAMETOOLONG;
    int handle = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (handle < 0)
        return -errno;
    if (flock(handle, LOCK_EX | LOCK_NB) == 0)
        return handle;
    int rc = -errno;
    close(handle);
    return rc;
}

static const struct storage_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pwritev = posix_pwritev,
    .fdatasync = posix_fdatasync,
    .allocate = posix_allocate,
    .bypass_cache = posix_bypass_cache,
    .truncate = posix_truncate,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .rmdir = posix_rmdir,
    .sync_directory = posix_sync_directory,
    .info = posix_info,
    .list = posix_list,
    .free_bytes = posix_free_bytes,
    .lock = posix_lock,
};

const struct storage storage_posix = {.ops = &posix_ops};
