// The disk in memory, shared by disk.c (its life, crashes, damage) and disk_ops.c (the storage operations).
//
// Threads: disk->mutex is held for all of these.
#ifndef SLUICE_TESTS_SPOOL_DISK_INTERNAL_H
#define SLUICE_TESTS_SPOOL_DISK_INTERNAL_H

#include "tests/spool/disk.h"

#include "base/error.h"

#include <pthread.h>

enum { PAGE = 4096, SECTOR = 512, HANDLES = 256, PATH = 700 };

struct page { // shared between the present, the durable and the crashed state; copied before it is changed
    unsigned references;
    uint8_t bytes[PAGE];
};

struct node { // a file or a directory
    struct node *next_made;
    bool is_directory;
    unsigned pins; // open handles
    uint64_t size, durable_size;
    size_t page_count;
    struct page **now, **durable; // NULL: zeros
    uint8_t *dirty;               // a bit a sector
};

struct name { // where a node is
    struct name *next;
    char path[PATH];
    struct node *node;
};

struct change { // of a directory, not synced yet
    struct change *next;
    char directory[PATH];
    // A rename inside one directory is one change: it removes `path` and adds `to`.
    char path[PATH], to[PATH];
    struct node *node; // added under `path`, or under `to`
    bool adds, removes;
};

struct disk {
    pthread_mutex_t mutex;
    struct node *nodes;
    struct name *names, *durable_names;
    struct change *changes, **last_change;
    struct {
        struct node *node; // NULL: free
        bool writable, lock;
    } handles[HANDLES];
    bool locked;
    uint64_t capacity, used;
    uint64_t change_count, stop_after;
    bool stopped;
    bool stops_now; // the call that is under way is the one
};

uint8_t *disk_page_write(struct page **slot);
void disk_page_drop(struct page *page);
struct page *disk_page_keep(struct page *page);
void disk_resize(struct node *node, uint64_t size);
struct node *disk_node_new(struct disk *disk, bool is_directory);
void disk_parent_of(char out[PATH], const char *path);
struct node *disk_lookup(struct disk *disk, const char *path);
void disk_list_set(struct name **list, const char *path, struct node *node);
void disk_list_remove(struct name **list, const char *path);
void disk_note_change(struct disk *disk, const char *path, const char *to, struct node *node, bool adds, bool removes);
void disk_apply_change(struct name **list, const struct change *change);
void disk_shorten(struct disk *disk, struct node *node, uint64_t size_bytes);

extern const struct storage_ops disk_ops;

#endif
