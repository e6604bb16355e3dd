// All storage calls of the spool go through this table, so that tests can enumerate crashes and inject faults, and a
// simulator can run the real spool over a disk of its own.
//
// Threads: every operation may be called from any thread; two operations on one file at once are allowed only for
// reads. Results: ≥ 0 on success, -errno on failure (never the global errno). Nothing here retries, except EINTR. Paths
// are absolute. `handle` is what open returned.
#ifndef SLUICE_SPOOL_STORAGE_H
#define SLUICE_SPOOL_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum storage_open {
    STORAGE_READ,   // existing file, read only
    STORAGE_WRITE,  // existing file, read and write
    STORAGE_CREATE, // must not exist, mode 0600, read and write
};

struct storage_file_info {
    uint64_t size_bytes;
    int64_t modified_wall_ns;
    bool is_directory;
};

struct storage_ops {
    int (*open)(void *context, const char *path, enum storage_open how);
    int (*close)(void *context, int handle);
    // Reads up to length bytes; fewer only at the end of the file.
    ssize_t (*pread)(void *context, int handle, void *bytes, size_t length, uint64_t offset);
    // Writes all of it or fails: a short write is -EIO. The iovec array is not changed.
    int (*pwritev)(void *context, int handle, const struct iovec *parts, int part_count, uint64_t offset);
    int (*fdatasync)(void *context, int handle);
    // Allocates blocks and sets the size; reads as zeros until written (fallocate). -ENOSPC is the expected failure.
    int (*allocate)(void *context, int handle, uint64_t size_bytes);
    // A hint, and may be NULL: the writes that follow are of aligned blocks that nobody will read soon, and need not go
    // through the page cache. Zero-filling goes at the pace of the writer itself: copied through the cache it took a
    // third of the machine.
    void (*bypass_cache)(void *context, int handle, bool on);
    int (*truncate)(void *context, int handle, uint64_t size_bytes);
    int (*rename)(void *context, const char *from, const char *to); // replaces `to`
    int (*unlink)(void *context, const char *path);
    int (*mkdir)(void *context, const char *path); // mode 0700; -EEXIST when it is there
    int (*rmdir)(void *context, const char *path);
    int (*sync_directory)(void *context, const char *path); // makes creations, renames and unlinks in it durable
    int (*info)(void *context, const char *path, struct storage_file_info *out);
    // Calls each() for every entry but . and .., in no order; stops when it returns false.
    int (*list)(void *context, const char *path, bool (*each)(void *user, const char *name, bool is_directory),
                void *user);
    int (*free_bytes)(void *context, const char *path, uint64_t *out); // for an unprivileged writer
    // Takes the lock of a directory for the life of the handle; -EWOULDBLOCK when another process (or another handle)
    // has it.
    int (*lock)(void *context, const char *path);
};

struct storage {
    const struct storage_ops *ops;
    void *context;
};

// The real thing: Linux, ext4 or XFS.
extern const struct storage storage_posix;

#endif
