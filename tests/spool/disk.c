#include "tests/spool/disk_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- pages

void disk_page_drop(struct page *page)
{
    if (page != NULL && --page->references == 0)
        free(page);
}

struct page *disk_page_keep(struct page *page)
{
    if (page != NULL)
        page->references++;
    return page;
}

uint8_t *disk_page_write(struct page **slot)
{
    if (*slot != NULL && (*slot)->references == 1)
        return (*slot)->bytes;
    struct page *copy = calloc(1, sizeof(*copy));
    sl_assert(copy != NULL);
    copy->references = 1;
    if (*slot != NULL)
        memcpy(copy->bytes, (*slot)->bytes, PAGE);
    disk_page_drop(*slot);
    *slot = copy;
    return copy->bytes;
}

void disk_resize(struct node *node, uint64_t size)
{
    size_t pages = (size_t)((size + PAGE - 1) / PAGE);
    if (pages > node->page_count) {
        node->now = realloc(node->now, pages * sizeof(struct page *));
        node->durable = realloc(node->durable, pages * sizeof(struct page *));
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
        disk_page_drop(node->now[i]);
        disk_page_drop(node->durable[i]);
    }
    free(node->now);
    free(node->durable);
    free(node->dirty);
    free(node);
}

struct node *disk_node_new(struct disk *disk, bool is_directory)
{
    struct node *node = calloc(1, sizeof(*node));
    sl_assert(node != NULL);
    node->is_directory = is_directory;
    node->next_made = disk->nodes;
    disk->nodes = node;
    return node;
}

// ---- names

void disk_parent_of(char out[PATH], const char *path)
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

struct node *disk_lookup(struct disk *disk, const char *path)
{
    struct name *name = *find(&disk->names, path);
    return name != NULL ? name->node : NULL;
}

void disk_list_set(struct name **list, const char *path, struct node *node)
{
    struct name **place = find(list, path);
    if (*place == NULL) {
        *place = calloc(1, sizeof(**place));
        sl_assert(*place != NULL);
        snprintf((*place)->path, PATH, "%s", path);
    }
    (*place)->node = node;
}

void disk_list_remove(struct name **list, const char *path)
{
    struct name **place = find(list, path);
    struct name *name = *place;
    if (name == NULL)
        return;
    *place = name->next;
    free(name);
}

void disk_note_change(struct disk *disk, const char *path, const char *to, struct node *node, bool adds, bool removes)
{
    struct change *change = calloc(1, sizeof(*change));
    sl_assert(change != NULL);
    disk_parent_of(change->directory, path);
    snprintf(change->path, PATH, "%s", path);
    snprintf(change->to, PATH, "%s", to != NULL ? to : path);
    change->node = node;
    change->adds = adds;
    change->removes = removes;
    *disk->last_change = change;
    disk->last_change = &change->next;
}

void disk_apply_change(struct name **list, const struct change *change)
{
    if (change->removes)
        disk_list_remove(list, change->path);
    if (change->adds)
        disk_list_set(list, change->to, change->node);
}

// ---- the disk's life

struct disk *disk_new(uint64_t capacity_bytes)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    sl_assert(disk != NULL);
    pthread_mutex_init(&disk->mutex, NULL);
    disk->capacity = capacity_bytes;
    disk->last_change = &disk->changes;
    struct node *root = disk_node_new(disk, true);
    disk_list_set(&disk->names, "/", root);
    disk_list_set(&disk->durable_names, "/", root);
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
    disk_resize(to, keep_size ? from->size : from->durable_size);
    to->durable_size = to->size;
    for (size_t i = 0; i < to->page_count && i < from->page_count; i++) {
        to->now[i] = disk_page_keep(from->durable[i]);
        uint8_t kept = from->dirty[i] != 0 ? kept_sectors(what, from->dirty[i], seed) : 0;
        for (unsigned sector = 0; sector < PAGE / SECTOR && kept != 0; sector++) {
            if (!(kept & (1u << sector)))
                continue;
            uint8_t *bytes = disk_page_write(&to->now[i]);
            if (from->now[i] != NULL)
                memcpy(bytes + sector * SECTOR, from->now[i]->bytes + sector * SECTOR, SECTOR);
            else
                memset(bytes + sector * SECTOR, 0, SECTOR);
        }
        to->durable[i] = disk_page_keep(to->now[i]);
    }
}

struct disk *disk_crash(struct disk *disk, enum disk_crash what, uint64_t seed)
{
    struct disk *after = disk_new(disk->capacity);
    pthread_mutex_lock(&disk->mutex);
    struct name *names = NULL;
    for (const struct name *name = disk->durable_names; name != NULL; name = name->next)
        disk_list_set(&names, name->path, name->node);
    for (const struct change *change = disk->changes; change != NULL; change = change->next)
        if (what == DISK_KEEP_ALL || (what != DISK_KEEP_NOTHING && (next_random(&seed) & 1)))
            disk_apply_change(&names, change);
    // Two names of one node stay two names of one node.
    for (struct node *node = disk->nodes; node != NULL; node = node->next_made) {
        struct node *copy = NULL;
        for (const struct name *name = names; name != NULL; name = name->next) {
            if (name->node != node || strcmp(name->path, "/") == 0)
                continue;
            char parent[PATH];
            disk_parent_of(parent, name->path);
            if (strcmp(parent, "/") != 0 && *find(&names, parent) == NULL)
                continue; // a file of a directory that is not there
            if (copy == NULL) {
                copy = disk_node_new(after, node->is_directory);
                crash_node(copy, node, what, &seed);
                after->used += copy->size;
            }
            disk_list_set(&after->names, name->path, copy);
            disk_list_set(&after->durable_names, name->path, copy);
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

struct storage disk_storage(struct disk *disk)
{
    return (struct storage){.ops = &disk_ops, .context = disk};
}

// ---- damage from outside

int64_t disk_size(struct disk *disk, const char *path)
{
    const struct node *node = disk_lookup(disk, path);
    return node != NULL ? (int64_t)node->size : -1;
}

bool disk_flip(struct disk *disk, const char *path, uint64_t offset, uint8_t mask)
{
    struct node *node = disk_lookup(disk, path);
    if (node == NULL || offset >= node->size)
        return false;
    disk_page_write(&node->now[offset / PAGE])[offset % PAGE] ^= mask;
    disk_page_drop(node->durable[offset / PAGE]);
    node->durable[offset / PAGE] = disk_page_keep(node->now[offset / PAGE]);
    return true;
}

void disk_zero(struct disk *disk, const char *path, uint64_t offset, uint64_t length)
{
    struct node *node = disk_lookup(disk, path);
    sl_assert(node != NULL && offset + length <= node->size);
    for (uint64_t at = offset; at < offset + length; at++) {
        const struct page *page = node->now[at / PAGE];
        if (page != NULL && page->bytes[at % PAGE] != 0)
            disk_flip(disk, path, at, page->bytes[at % PAGE]);
    }
}

void disk_cut(struct disk *disk, const char *path, uint64_t size_bytes)
{
    struct node *node = disk_lookup(disk, path);
    sl_assert(node != NULL && size_bytes <= node->size);
    disk_shorten(disk, node, size_bytes);
    for (size_t i = 0; i < node->page_count; i++) {
        disk_page_drop(node->durable[i]);
        node->durable[i] = disk_page_keep(node->now[i]);
        node->dirty[i] = 0;
    }
    node->durable_size = size_bytes;
}

void disk_remove(struct disk *disk, const char *path)
{
    disk_list_remove(&disk->names, path);
    disk_list_remove(&disk->durable_names, path);
}
