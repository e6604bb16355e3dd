// Operations of the disk in memory; each begins with enter() and ends with leave().
#include "tests/spool/disk_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool all_zero(const uint8_t *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

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
    struct node *node = disk_lookup(disk, path);
    if (how != STORAGE_CREATE)
        return leave(context, node == NULL ? -ENOENT : new_handle(disk, node, how == STORAGE_WRITE));
    char parent[PATH];
    disk_parent_of(parent, path);
    if (node != NULL || disk_lookup(disk, parent) == NULL)
        return leave(context, node != NULL ? -EEXIST : -ENOENT);
    node = disk_node_new(disk, false);
    disk_list_set(&disk->names, path, node);
    disk_note_change(disk, path, NULL, node, true, false);
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
            memcpy(disk_page_write(&node->now[page]) + inside, bytes + done, take);
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
        disk_resize(node, offset + total);
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
        disk_page_drop(node->durable[i]);
        node->durable[i] = disk_page_keep(node->now[i]);
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
    disk_resize(node, size_bytes);
    return leave(context, 0);
}

void disk_shorten(struct disk *disk, struct node *node, uint64_t size_bytes)
{
    disk->used -= node->size - size_bytes;
    for (size_t i = (size_t)((size_bytes + PAGE - 1) / PAGE); i < node->page_count; i++) {
        disk_page_drop(node->now[i]);
        node->now[i] = NULL;
        node->dirty[i] = 0xff;
    }
    if (size_bytes % PAGE != 0 && node->now[size_bytes / PAGE] != NULL) {
        memset(disk_page_write(&node->now[size_bytes / PAGE]) + size_bytes % PAGE, 0, PAGE - size_bytes % PAGE);
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
    disk_shorten(disk, node, size_bytes);
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
    struct node *node = disk_lookup(disk, from);
    char from_parent[PATH], to_parent[PATH];
    disk_parent_of(from_parent, from);
    disk_parent_of(to_parent, to);
    if (node == NULL || disk_lookup(disk, to_parent) == NULL)
        return leave(context, -ENOENT);
    struct node *old = disk_lookup(disk, to);
    if (old != NULL)
        released(disk, old, to);
    disk_list_remove(&disk->names, from);
    disk_list_set(&disk->names, to, node);
    if (strcmp(from_parent, to_parent) == 0) {
        disk_note_change(disk, from, to, node, true, true);
    } else {
        disk_note_change(disk, to, NULL, node, true, false);
        disk_note_change(disk, from, NULL, NULL, false, true);
    }
    return leave(context, 0);
}

static bool has_children(struct disk *disk, const char *path)
{
    for (const struct name *name = disk->names; name != NULL; name = name->next) {
        char parent[PATH];
        disk_parent_of(parent, name->path);
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
    struct node *node = disk_lookup(disk, path);
    if (node == NULL)
        return leave(context, -ENOENT);
    if (node->is_directory != directory)
        return leave(context, directory ? -ENOTDIR : -EISDIR);
    if (directory && has_children(disk, path))
        return leave(context, -ENOTEMPTY);
    released(disk, node, path);
    disk_list_remove(&disk->names, path);
    disk_note_change(disk, path, NULL, NULL, false, true);
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
    disk_parent_of(parent, path);
    if (disk_lookup(disk, path) != NULL)
        return leave(context, -EEXIST);
    if (disk_lookup(disk, parent) == NULL)
        return leave(context, -ENOENT);
    struct node *node = disk_node_new(disk, true);
    disk_list_set(&disk->names, path, node);
    disk_note_change(disk, path, NULL, node, true, false);
    return leave(context, 0);
}

static int disk_sync_directory(void *context, const char *path)
{
    struct disk *disk = context;
    if (!enter(context, true))
        return leave(context, -EIO);
    if (disk_lookup(disk, path) == NULL)
        return leave(context, -ENOENT);
    struct change **place = &disk->changes;
    while (*place != NULL) {
        struct change *change = *place;
        if (strcmp(change->directory, path) != 0) {
            place = &change->next;
            continue;
        }
        disk_apply_change(&disk->durable_names, change);
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
    const struct node *node = disk_lookup(disk, path);
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
    if (disk_lookup(disk, path) == NULL)
        return leave(context, -ENOENT);
    // each() may call the disk: collect first.
    size_t count = 0, capacity = 0;
    struct entry {
        char name[256];
        bool is_directory;
    } *entries = NULL;
    for (const struct name *name = disk->names; name != NULL; name = name->next) {
        char parent[PATH];
        disk_parent_of(parent, name->path);
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
    struct node *node = disk_lookup(disk, path);
    if (node == NULL || disk->locked)
        return leave(context, node == NULL ? -ENOENT : -EWOULDBLOCK);
    int handle = new_handle(disk, node, false);
    if (handle >= 0) {
        disk->locked = true;
        disk->handles[handle].lock = true;
    }
    return leave(context, handle);
}

const struct storage_ops disk_ops = {
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
