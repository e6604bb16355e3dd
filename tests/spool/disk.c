#include "tests/spool/disk.h"

#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// ---- pages

static void page_drop(struct page *page)
{
    if (page != NULL && --page->references == 0)
        free(page);
}

static struct page *page_keep(struct page *page)
{
    if (page != NULL)
        page->references++;
    return page;
}

static uint8_t *page_write(struct page **slot)
{
    if (*slot != NULL && (*slot)->references == 1)
        return (*slot)->bytes;
    struct page *copy = calloc(1, sizeof(*copy));
    sl_assert(copy != NULL);
    copy->references = 1;
    if (*slot != NULL)
        memcpy(copy->bytes, (*slot)->bytes, PAGE);
    page_drop(*slot);
    *slot = copy;
    return copy->bytes;
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

static void resize(struct node *node, uint64_t size)
{
    size_t pages = (size_t)((size + PAGE - 1) / PAGE);
    if (pages > node->page_count) {
        node->now = realloc(node->now, pages * sizeof(*node->now));
        node->durable = realloc(node->durable, pages * sizeof(*node->durable));
        node->dirty = realloc(node->dirty, pages);
        sl_assert(node->now != NULL && node->durable != NULL && node->dirty != NULL);
        for (size_t i = node->page_count; i < pages; i++) {
            node->now[i] = node->durable[i] = NULL;
            node->dirty[i] = 0;
        }
        node->page_count = pages;
    }
    node->size = size;
}

static void node_free(struct node *node)
{
    for (size_t i = 0; i < node->page_count; i++) {
        page_drop(node->now[i]);
        page_drop(node->durable[i]);
    }
    free(node->now);
    free(node->durable);
    free(node->dirty);
    free(node);
}

static struct node *node_new(struct disk *disk, bool is_directory)
{
    struct node *node = calloc(1, sizeof(*node));
    sl_assert(node != NULL);
    node->is_directory = is_directory;
    node->next_made = disk->nodes;
    disk->nodes = node;
    return node;
}

// ---- names

static void parent_of(char out[PATH], const char *path)
{
    snprintf(out, PATH, "%s", path);
    char *slash = strrchr(out, '/');
    sl_assert(slash != NULL);
    slash[slash == out ? 1 : 0] = '\0';
}

static struct name **find(struct name **list, const char *path)
{
    struct name **place = list;
    while (*place != NULL && strcmp((*place)->path, path) != 0)
        place = &(*place)->next;
    return place;
}

static struct node *lookup(struct disk *disk, const char *path)
{
    struct name *name = *find(&disk->names, path);
    return name != NULL ? name->node : NULL;
}

static void list_set(struct name **list, const char *path, struct node *node)
{
    struct name **place = find(list, path);
    if (*place == NULL) {
        *place = calloc(1, sizeof(**place));
        sl_assert(*place != NULL);
        snprintf((*place)->path, PATH, "%s", path);
    }
    (*place)->node = node;
}

static void list_remove(struct name **list, const char *path)
{
    struct name **place = find(list, path);
    struct name *name = *place;
    if (name == NULL)
        return;
    *place = name->next;
    free(name);
}

static void note_change(struct disk *disk, const char *path, const char *to, struct node *node, bool adds, bool removes)
{
    struct change *change = calloc(1, sizeof(*change));
    sl_assert(change != NULL);
    parent_of(change->directory, path);
    snprintf(change->path, PATH, "%s", path);
    snprintf(change->to, PATH, "%s", to != NULL ? to : path);
    change->node = node;
    change->adds = adds;
    change->removes = removes;
    *disk->last_change = change;
    disk->last_change = &change->next;
}

static void apply_change(struct name **list, const struct change *change)
{
    if (change->removes)
        list_remove(list, change->path);
    if (change->adds)
        list_set(list, change->to, change->node);
}

// ---- the disk's life

struct disk *disk_new(uint64_t capacity_bytes)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    sl_assert(disk != NULL);
    pthread_mutex_init(&disk->mutex, NULL);
    disk->capacity = capacity_bytes;
    disk->last_change = &disk->changes;
    struct node *root = node_new(disk, true);
    list_set(&disk->names, "/", root);
    list_set(&disk->durable_names, "/", root);
    return disk;
}

static void free_names(struct name *name)
{
    while (name != NULL) {
        struct name *next = name->next;
        free(name);
        name = next;
    }
}

void disk_free(struct disk *disk)
{
    free_names(disk->names);
    free_names(disk->durable_names);
    while (disk->changes != NULL) {
        struct change *change = disk->changes;
        disk->changes = change->next;
        free(change);
    }
    while (disk->nodes != NULL) {
        struct node *node = disk->nodes;
        disk->nodes = node->next_made;
        node_free(node);
    }
    pthread_mutex_destroy(&disk->mutex);
    free(disk);
}

static uint64_t next_random(uint64_t *state) // splitmix64
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint8_t kept_sectors(enum disk_crash what, uint8_t dirty, uint64_t *seed)
{
    switch (what) {
    case DISK_KEEP_NOTHING:
        return 0;
    case DISK_KEEP_ALL:
        return dirty;
    case DISK_KEEP_SOME:
        return dirty & (uint8_t)next_random(seed);
    case DISK_KEEP_BLOCKS:
        return next_random(seed) & 1 ? dirty : 0;
    }
    return 0;
}

static void crash_node(struct node *to, const struct node *from, enum disk_crash what, uint64_t *seed)
{
    bool keep_size = what == DISK_KEEP_ALL || (what != DISK_KEEP_NOTHING && (next_random(seed) & 1));
    resize(to, keep_size ? from->size : from->durable_size);
    to->durable_size = to->size;
    for (size_t i = 0; i < to->page_count && i < from->page_count; i++) {
        to->now[i] = page_keep(from->durable[i]);
        uint8_t kept = from->dirty[i] != 0 ? kept_sectors(what, from->dirty[i], seed) : 0;
        for (unsigned sector = 0; sector < PAGE / SECTOR && kept != 0; sector++) {
            if (!(kept & (1u << sector)))
                continue;
            uint8_t *bytes = page_write(&to->now[i]);
            if (from->now[i] != NULL)
                memcpy(bytes + sector * SECTOR, from->now[i]->bytes + sector * SECTOR, SECTOR);
            else
                memset(bytes + sector * SECTOR, 0, SECTOR);
        }
        to->durable[i] = page_keep(to->now[i]);
    }
}

struct disk *disk_crash(struct disk *disk, enum disk_crash what, uint64_t seed)
{
    struct disk *after = disk_new(disk->capacity);
    pthread_mutex_lock(&disk->mutex);
    struct name *names = NULL;
    for (const struct name *name = disk->durable_names; name != NULL; name = name->next)
        list_set(&names, name->path, name->node);
    for (const struct change *change = disk->changes; change != NULL; change = change->next)
        if (what == DISK_KEEP_ALL || (what != DISK_KEEP_NOTHING && (next_random(&seed) & 1)))
            apply_change(&names, change);
    // Two names of one node stay two names of one node.
    for (struct node *node = disk->nodes; node != NULL; node = node->next_made) {
        struct node *copy = NULL;
        for (const struct name *name = names; name != NULL; name = name->next) {
            if (name->node != node || strcmp(name->path, "/") == 0)
                continue;
            char parent[PATH];
            parent_of(parent, name->path);
            if (strcmp(parent, "/") != 0 && *find(&names, parent) == NULL)
                continue; // a file of a directory that is not there
            if (copy == NULL) {
                copy = node_new(after, node->is_directory);
                crash_node(copy, node, what, &seed);
                after->used += copy->size;
            }
            list_set(&after->names, name->path, copy);
            list_set(&after->durable_names, name->path, copy);
        }
    }
    free_names(names);
    pthread_mutex_unlock(&disk->mutex);
    return after;
}

uint64_t disk_changes(const struct disk *disk)
{
    return disk->change_count;
}

void disk_stop_after(struct disk *disk, uint64_t changes)
{
    disk->stop_after = changes > 0 ? disk->change_count + changes : 0;
    disk->stopped = false;
}

void disk_set_capacity(struct disk *disk, uint64_t capacity_bytes)
{
    pthread_mutex_lock(&disk->mutex);
    disk->capacity = capacity_bytes;
    pthread_mutex_unlock(&disk->mutex);
}

uint64_t disk_used(const struct disk *disk)
{
    return disk->used;
}

unsigned disk_open_handles(const struct disk *disk)
{
    unsigned count = 0;
    for (size_t i = 0; i < HANDLES; i++)
        count += disk->handles[i].node != NULL;
    return count;
}

// ---- operations; each begins with enter() and ends with leave()

// The number of the change decides whether the machine still runs.
static bool enter(void *context, bool changes)
{
    struct disk *disk = context;
    pthread_mutex_lock(&disk->mutex);
    disk->stops_now = false;
    if (changes && !disk->stopped) {
        disk->change_count++;
        disk->stopped = disk->stops_now = disk->stop_after > 0 && disk->change_count >= disk->stop_after;
    }
    return !disk->stopped;
}

static int leave(void *context, int rc)
{
    struct disk *disk = context;
    pthread_mutex_unlock(&disk->mutex);
    return rc;
}

static int new_handle(struct disk *disk, struct node *node, bool writable)
{
    for (int i = 0; i < HANDLES; i++) {
        if (disk->handles[i].node != NULL)
            continue;
        disk->handles[i].node = node;
        disk->handles[i].writable = writable;
        disk->handles[i].lock = false;
        node->pins++;
        return i;
    }
    return -EMFILE;
}

static int disk_open(void *context, const char *path, enum storage_open how)
{
    struct disk *disk = context;
    if (!enter(context, how == STORAGE_CREATE))
        return leave(context, -EIO);
    struct node *node = lookup(disk, path);
    if (how != STORAGE_CREATE)
        return leave(context, node == NULL ? -ENOENT : new_handle(disk, node, how == STORAGE_WRITE));
    char parent[PATH];
    parent_of(parent, path);
    if (node != NULL || lookup(disk, parent) == NULL)
        return leave(context, node != NULL ? -EEXIST : -ENOENT);
    node = node_new(disk, false);
    list_set(&disk->names, path, node);
    note_change(disk, path, NULL, node, true, false);
    return leave(context, new_handle(disk, node, true));
}

static int disk_close(void *context, int handle)
{
    struct disk *disk = context;
    enter(context, false);
    sl_assert(handle >= 0 && handle < HANDLES && disk->handles[handle].node != NULL);
    disk->handles[handle].node->pins--;
    disk->handles[handle].node = NULL;
    if (disk->handles[handle].lock)
        disk->locked = false;
    return leave(context, 0);
}

static ssize_t disk_pread(void *context, int handle, void *bytes, size_t length, uint64_t offset)
{
    struct disk *disk = context;
    if (!enter(context, false))
        return leave(context, -EIO);
    const struct node *node = disk->handles[handle].node;
    sl_assert(node != NULL);
    size_t done = 0;
    while (done < length && offset + done < node->size) {
        uint64_t at = offset + done;
        size_t inside = (size_t)(at % PAGE), take = PAGE - inside;
        if (take > length - done)
            take = length - done;
        if (take > node->size - at)
            take = (size_t)(node->size - at);
        const struct page *page = node->now[at / PAGE];
        if (page != NULL)
            memcpy((uint8_t *)bytes + done, page->bytes + inside, take);
        else
            memset((uint8_t *)bytes + done, 0, take);
        done += take;
    }
    leave(context, 0);
    return (ssize_t)done;
}

static void put(struct node *node, const uint8_t *bytes, size_t length, uint64_t offset)
{
    for (size_t done = 0; done < length;) {
        uint64_t at = offset + done;
        size_t inside = (size_t)(at % PAGE), take = PAGE - inside < length - done ? PAGE - inside : length - done;
        size_t page = (size_t)(at / PAGE);
        if (node->now[page] != NULL || !all_zero(bytes + done, take)) {
            memcpy(page_write(&node->now[page]) + inside, bytes + done, take);
            for (size_t sector = inside / SECTOR; sector <= (inside + take - 1) / SECTOR; sector++)
                node->dirty[page] |= (uint8_t)(1u << sector);
        }
        done += take;
    }
}

static int disk_pwritev(void *context, int handle, const struct iovec *parts, int part_count, uint64_t offset)
{
    struct disk *disk = context;
    bool running = enter(context, true);
    struct node *node = disk->handles[handle].node;
    sl_assert(node != NULL && disk->handles[handle].writable);
    uint64_t total = 0;
    for (int i = 0; i < part_count; i++)
        total += parts[i].iov_len;
    if (running && offset + total > node->size) {
        uint64_t growth = offset + total - node->size;
        if (disk->used + growth > disk->capacity)
            return leave(context, -ENOSPC);
        disk->used += growth;
        resize(node, offset + total);
    }
    // The call at which the machine stops is under way: its bytes are in the cache, and each sector may reach the disk.
    bool last = disk->stops_now && offset + total <= node->size;
    if (running || last)
        for (int i = 0; i < part_count; i++) {
            put(node, parts[i].iov_base, parts[i].iov_len, offset);
            offset += parts[i].iov_len;
        }
    return leave(context, running ? 0 : -EIO);
}

static int disk_fdatasync(void *context, int handle)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    struct node *node = disk->handles[handle].node;
    sl_assert(node != NULL);
    for (size_t i = 0; i < node->page_count; i++) {
        if (node->dirty[i] == 0)
            continue;
        page_drop(node->durable[i]);
        node->durable[i] = page_keep(node->now[i]);
        node->dirty[i] = 0;
    }
    node->durable_size = node->size;
    return leave(context, 0);
}

static int disk_allocate(void *context, int handle, uint64_t size_bytes)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    struct node *node = disk->handles[handle].node;
    sl_assert(node != NULL && size_bytes >= node->size);
    uint64_t growth = size_bytes - node->size;
    if (disk->used + growth > disk->capacity)
        return leave(context, -ENOSPC);
    disk->used += growth;
    resize(node, size_bytes);
    return leave(context, 0);
}

static void shorten(struct disk *disk, struct node *node, uint64_t size_bytes)
{
    disk->used -= node->size - size_bytes;
    for (size_t i = (size_t)((size_bytes + PAGE - 1) / PAGE); i < node->page_count; i++) {
        page_drop(node->now[i]);
        node->now[i] = NULL;
        node->dirty[i] = 0xff;
    }
    if (size_bytes % PAGE != 0 && node->now[size_bytes / PAGE] != NULL) {
        memset(page_write(&node->now[size_bytes / PAGE]) + size_bytes % PAGE, 0, PAGE - size_bytes % PAGE);
        node->dirty[size_bytes / PAGE] = 0xff;
    }
    node->size = size_bytes;
}

static int disk_truncate(void *context, int handle, uint64_t size_bytes)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    struct node *node = disk->handles[handle].node;
    sl_assert(node != NULL && size_bytes <= node->size);
    shorten(disk, node, size_bytes);
    return leave(context, 0);
}

static void released(struct disk *disk, struct node *node, const char *path)
{
    for (const struct name *name = disk->names; name != NULL; name = name->next)
        if (name->node == node && strcmp(name->path, path) != 0)
            return;
    disk->used -= node->size;
}

static int disk_rename(void *context, const char *from, const char *to)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    struct node *node = lookup(disk, from);
    char from_parent[PATH], to_parent[PATH];
    parent_of(from_parent, from);
    parent_of(to_parent, to);
    if (node == NULL || lookup(disk, to_parent) == NULL)
        return leave(context, -ENOENT);
    struct node *old = lookup(disk, to);
    if (old != NULL)
        released(disk, old, to);
    list_remove(&disk->names, from);
    list_set(&disk->names, to, node);
    if (strcmp(from_parent, to_parent) == 0) {
        note_change(disk, from, to, node, true, true);
    } else {
        note_change(disk, to, NULL, node, true, false);
        note_change(disk, from, NULL, NULL, false, true);
    }
    return leave(context, 0);
}

static bool has_children(struct disk *disk, const char *path)
{
    for (const struct name *name = disk->names; name != NULL; name = name->next) {
        char parent[PATH];
        parent_of(parent, name->path);
        if (strcmp(parent, path) == 0 && strcmp(name->path, "/") != 0)
            return true;
    }
    return false;
}

static int remove_name(void *context, const char *path, bool directory)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    struct node *node = lookup(disk, path);
    if (node == NULL)
        return leave(context, -ENOENT);
    if (node->is_directory != directory)
        return leave(context, directory ? -ENOTDIR : -EISDIR);
    if (directory && has_children(disk, path))
        return leave(context, -ENOTEMPTY);
    released(disk, node, path);
    list_remove(&disk->names, path);
    note_change(disk, path, NULL, NULL, false, true);
    return leave(context, 0);
}

static int disk_unlink(void *context, const char *path)
{
    return remove_name(context, path, false);
}

static int disk_rmdir(void *context, const char *path)
{
    return remove_name(context, path, true);
}

static int disk_mkdir(void *context, const char *path)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    char parent[PATH];
    parent_of(parent, path);
    if (lookup(disk, path) != NULL)
        return leave(context, -EEXIST);
    if (lookup(disk, parent) == NULL)
        return leave(context, -ENOENT);
    struct node *node = node_new(disk, true);
    list_set(&disk->names, path, node);
    note_change(disk, path, NULL, node, true, false);
    return leave(context, 0);
}

static int disk_sync_directory(void *context, const char *path)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    if (lookup(disk, path) == NULL)
        return leave(context, -ENOENT);
    struct change **place = &disk->changes;
    while (*place != NULL) {
        struct change *change = *place;
        if (strcmp(change->directory, path) != 0) {
            place = &change->next;
            continue;
        }
        apply_change(&disk->durable_names, change);
        *place = change->next;
        free(change);
    }
    disk->last_change = place;
    return leave(context, 0);
}

static int disk_info(void *context, const char *path, struct storage_file_info *out)
{
    struct disk *disk = context;
    if (!enter(context, false))
        return leave(context, -EIO);
    const struct node *node = lookup(disk, path);
    if (node != NULL)
        *out = (struct storage_file_info){.size_bytes = node->size, .is_directory = node->is_directory};
    return leave(context, node != NULL ? 0 : -ENOENT);
}

static int disk_list(void *context, const char *path, bool (*each)(void *user, const char *name, bool is_directory),
                     void *user)
{
    struct disk *disk = context;
    if (!enter(context, false))
        return leave(context, -EIO);
    if (lookup(disk, path) == NULL)
        return leave(context, -ENOENT);
    // each() may call the disk: collect first.
    size_t count = 0, capacity = 0;
    struct entry {
        char name[256];
        bool is_directory;
    } *entries = NULL;
    for (const struct name *name = disk->names; name != NULL; name = name->next) {
        char parent[PATH];
        parent_of(parent, name->path);
        if (strcmp(parent, path) != 0 || strcmp(name->path, "/") == 0)
            continue;
        if (count == capacity) {
            capacity = capacity > 0 ? capacity * 2 : 16;
            entries = realloc(entries, capacity * sizeof(*entries));
            sl_assert(entries != NULL);
        }
        snprintf(entries[count].name, sizeof(entries[count].name), "%s", strrchr(name->path, '/') + 1);
        entries[count++].is_directory = name->node->is_directory;
    }
    leave(context, 0);
    for (size_t i = 0; i < count; i++)
        if (!each(user, entries[i].name, entries[i].is_directory))
            break;
    free(entries);
    return 0;
}

static int disk_free_bytes(void *context, const char *path, uint64_t *out)
{
    struct disk *disk = context;
    (void)path;
    if (!enter(context, false))
        return leave(context, -EIO);
    *out = disk->capacity > disk->used ? disk->capacity - disk->used : 0;
    return leave(context, 0);
}

static int disk_lock(void *context, const char *path)
{
    struct disk *disk = context;
    if (!enter(context, false))
        return leave(context, -EIO);
    struct node *node = lookup(disk, path);
    if (node == NULL || disk->locked)
        return leave(context, node == NULL ? -ENOENT : -EWOULDBLOCK);
    int handle = new_handle(disk, node, false);
    if (handle >= 0) {
        disk->locked = true;
        disk->handles[handle].lock = true;
    }
    return leave(context, handle);
}

static const struct storage_ops disk_ops = {
    .open = disk_open,
    .close = disk_close,
    .pread = disk_pread,
    .pwritev = disk_pwritev,
    .fdatasync = disk_fdatasync,
    .allocate = disk_allocate,
    .truncate = disk_truncate,
    .rename = disk_rename,
    .unlink = disk_unlink,
    .mkdir = disk_mkdir,
    .rmdir = disk_rmdir,
    .sync_directory = disk_sync_directory,
    .info = disk_info,
    .list = disk_list,
    .free_bytes = disk_free_bytes,
    .lock = disk_lock,
};

struct storage disk_storage(struct disk *disk)
{
    return (struct storage){.ops = &disk_ops, .context = disk};
}

// ---- damage from outside

int64_t disk_size(struct disk *disk, const char *path)
{
    const struct node *node = lookup(disk, path);
    return node != NULL ? (int64_t)node->size : -1;
}

bool disk_flip(struct disk *disk, const char *path, uint64_t offset, uint8_t mask)
{
    struct node *node = lookup(disk, path);
    if (node == NULL || offset >= node->size)
        return false;
    page_write(&node->now[offset / PAGE])[offset % PAGE] ^= mask;
    page_drop(node->durable[offset / PAGE]);
    node->durable[offset / PAGE] = page_keep(node->now[offset / PAGE]);
    return true;
}

void disk_zero(struct disk *disk, const char *path, uint64_t offset, uint64_t length)
{
    struct node *node = lookup(disk, path);
    sl_assert(node != NULL && offset + length <= node->size);
    for (uint64_t at = offset; at < offset + length; at++) {
        const struct page *page = node->now[at / PAGE];
        if (page != NULL && page->bytes[at % PAGE] != 0)
            disk_flip(disk, path, at, page->bytes[at % PAGE]);
    }
}

void disk_cut(struct disk *disk, const char *path, uint64_t size_bytes)
{
    struct node *node = lookup(disk, path);
    sl_assert(node != NULL && size_bytes <= node->size);
    shorten(disk, node, size_bytes);
    for (size_t i = 0; i < node->page_count; i++) {
        page_drop(node->durable[i]);
        node->durable[i] = page_keep(node->now[i]);
        node->dirty[i] = 0;
    }
    node->durable_size = size_bytes;
}

void disk_remove(struct disk *disk, const char *path)
{
    list_remove(&disk->names, path);
    list_remove(&disk->durable_names, path);
}
