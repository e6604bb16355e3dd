// A disk in memory that forgets what was not synced. It implements struct storage; a crash makes a second disk out of
// it, on which every sector of 512 bytes and every directory operation since its last sync was persisted or not, as a
// seed decides.
//
// The model is stricter than ext4: unsynced operations of a directory persist independently of each other, and a rename
// between two directories may persist in one of them only (both names, or none).
//
// Threads: every operation takes the disk's mutex.
#ifndef SLUICE_TESTS_SPOOL_DISK_H
#define SLUICE_TESTS_SPOOL_DISK_H

#include "spool/storage.h"

struct disk;

enum disk_crash {
    DISK_KEEP_NOTHING, // of what was not synced
    DISK_KEEP_ALL,     // a kill -9: the page cache survives
    DISK_KEEP_SOME,    // each sector, each operation: as the seed decides
    DISK_KEEP_BLOCKS,  // the same, but whole blocks of 4 KiB
};

struct disk *disk_new(uint64_t capacity_bytes);
void disk_free(struct disk *disk);
struct storage disk_storage(struct disk *disk);
// The disk after a crash right now. Locks are gone, handles are closed.
struct disk *disk_crash(struct disk *disk, enum disk_crash what, uint64_t seed);
// Calls so far that change something (write, sync, allocate, truncate, rename, unlink, mkdir, rmdir, sync of a
// directory, create).
uint64_t disk_changes(const struct disk *disk);
// From the n-th change on (1 = the next one) every call fails with -EIO: the machine is gone, and what is on the disk
// is what a crash at that point finds. 0: never.
void disk_stop_after(struct disk *disk, uint64_t changes);
void disk_set_capacity(struct disk *disk, uint64_t capacity_bytes);
uint64_t disk_used(const struct disk *disk);
// Bytes of a file as they are now; -1 when it is not there.
int64_t disk_size(struct disk *disk, const char *path);
// Changes the durable and the present content behind the spool's back. False: there is no such byte.
bool disk_flip(struct disk *disk, const char *path, uint64_t offset, uint8_t mask);
void disk_zero(struct disk *disk, const char *path, uint64_t offset, uint64_t length);
void disk_cut(struct disk *disk, const char *path, uint64_t size_bytes);
void disk_remove(struct disk *disk, const char *path);
unsigned disk_open_handles(const struct disk *disk);

#endif
