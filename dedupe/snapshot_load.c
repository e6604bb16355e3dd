// A snapshot into the window: the threads take its blocks one after the other, verify each, and insert what it holds.
// Into a fresh window of the same size it goes by the short way (restore.c).
//
// Failure modes: a block that does not verify, a length or a count that does not agree with the trailer. What was taken
// until then stays: each entry of it verified, so none of it calls a new id a duplicate; but nothing is said to be
// covered, and the caller reads the ids from the spool.
#include "dedupe/internal.h"
#include "dedupe/snapshot_format.h"
#include "spool/storage.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    AHEAD = 32, // ids whose cache lines are on their way
    THREADS_MAX = 64,
};

struct loading {
    struct dedupe *dedupe;
    const struct storage *storage;
    char path[PATH_MAX];
    int handle;
    int64_t now_wall_ns;
    int64_t oldest_wall_ns; // what was seen then or before has left the window
    bool in_place;          // into a fresh window of the same size
    struct snapshot_header header;
    struct snapshot_trailer trailer;
    _Atomic uint32_t origins[SNAPSHOT_STREAMS_MAX]; // index + 1; 0: not asked for yet
    _Atomic uint64_t next_block, entries;
    _Atomic bool failed;
    pthread_mutex_t mutex;
    struct sl_error error; // with mutex: the first
};

// One thread's.
struct loader {
    struct loading *loading;
    struct snapshot_block block;
    struct snapshot_group groups[SNAPSHOT_GROUPS_MAX];
    uint32_t origins[SNAPSHOT_GROUPS_MAX]; // of each group
    uint64_t numbers[SNAPSHOT_GROUPS_MAX]; // of each group's generation
};

static void give_up(struct loading *loading, const struct sl_error *error)
{
    pthread_mutex_lock(&loading->mutex);
    if (!atomic_exchange(&loading->failed, true))
        loading->error = *error;
    pthread_mutex_unlock(&loading->mutex);
}

static bool read_at(const struct loading *loading, uint8_t *bytes, size_t length, uint64_t offset, struct sl_error *err)
{
    const struct storage *storage = loading->storage;
    ssize_t got = storage->ops->pread(storage->context, loading->handle, bytes, length, offset);
    if (got < 0)
        return sl_fail_errno(err, SL_E_IO, (int)-got, "read");
    return (size_t)got == length || sl_fail(err, SL_E_CORRUPT, "ends too early");
}

// Indexes are given out for streams that something is remembered of; a header names them all.
static bool origin_of(struct loading *loading, uint32_t stream, uint32_t *out, struct sl_error *err)
{
    uint32_t known = atomic_load_explicit(&loading->origins[stream], memory_order_relaxed);
    if (known == 0) {
        uint32_t origin = dedupe_origin(loading->dedupe, loading->header.streams[stream].name);
        if (origin == UINT32_MAX)
            return sl_fail(err, SL_E_TOO_LARGE, "more streams than the window can name");
        known = origin + 1;
        atomic_store_explicit(&loading->origins[stream], known, memory_order_relaxed);
    }
    *out = known - 1;
    return true;
}

static bool open_groups(struct loader *loader, struct sl_error *err)
{
    struct loading *loading = loader->loading;
    for (uint32_t i = 0; i < loader->block.groups; i++) {
        struct snapshot_group *group = &loader->groups[i];
        if (!snapshot_block_group(&loader->block, i, loading->header.stream_count, group))
            return sl_fail(err, SL_E_CORRUPT, "a stream that the header does not name");
        // Seen later than now: the clock was put back since. Taken as it stands, it would end the window of all others.
        if (group->seen_wall_ns > loading->now_wall_ns)
            group->seen_wall_ns = loading->now_wall_ns;
        loader->numbers[i] = generation_at(loading->dedupe, group->seen_wall_ns);
        if (group->seen_wall_ns > loading->oldest_wall_ns &&
            !origin_of(loading, group->stream, &loader->origins[i], err))
            return false;
    }
    return true;
}

static void insert(const struct loader *loader, const struct snapshot_entry *entry)
{
    struct dedupe *dedupe = loader->loading->dedupe;
    const struct snapshot_group *group = &loader->groups[entry->group];
    uint32_t origin = loader->origins[entry->group];
    uint64_t seq = (uint64_t)group->seq_high << 32 | entry->seq_low;
    if (group->seen_wall_ns <= loader->loading->oldest_wall_ns)
        return;
    if (!loader->loading->in_place || !restore_entry(dedupe, &entry->id, entry->choice, entry->payload_hash,
                                                     loader->numbers[entry->group], origin, seq))
        dedupe_insert(dedupe, &entry->id, entry->payload_hash, group->seen_wall_ns, origin, seq);
}

static bool insert_all(const struct loader *loader, struct sl_error *err)
{
    struct dedupe *dedupe = loader->loading->dedupe;
    const struct snapshot_block *block = &loader->block;
    for (uint32_t from = 0; from < block->entries; from += AHEAD) {
        struct snapshot_entry entries[AHEAD];
        uint32_t count = block->entries - from < AHEAD ? block->entries - from : AHEAD;
        for (uint32_t i = 0; i < count; i++) {
            if (!snapshot_block_entry(block, from + i, &entries[i]) || entries[i].choice >= CHOICES)
                return sl_fail(err, SL_E_CORRUPT, "an entry of no group or place");
            if (loader->loading->in_place)
                restore_prefetch(dedupe, &entries[i].id, entries[i].choice);
            else
                dedupe_prefetch(dedupe, &entries[i].id);
        }
        for (uint32_t i = 0; i < count; i++)
            insert(loader, &entries[i]);
    }
    return true;
}

static bool load_block(struct loader *loader, uint64_t index, struct sl_error *err)
{
    struct loading *loading = loader->loading;
    struct snapshot_block *block = &loader->block;
    uint64_t offset = loading->header.header_bytes + index * block->block_bytes;
    if (!read_at(loading, block->bytes, block->block_bytes, offset, err))
        return false;
    if (!snapshot_block_open(block, loading->header.written_wall_ns, index))
        return sl_fail(err, SL_E_CORRUPT, "checksum");
    if (!open_groups(loader, err) || !insert_all(loader, err))
        return false;
    atomic_fetch_add(&loading->entries, block->entries);
    return true;
}

static void *load_blocks(void *user)
{
    struct loading *loading = user;
    struct sl_error error;
    struct loader *loader = calloc(1, sizeof(*loader));
    uint8_t *bytes = aligned_alloc(SNAPSHOT_ALIGN, loading->header.block_bytes);
    if (loader == NULL || bytes == NULL) {
        sl_fail(&error, SL_E_NO_MEMORY, "a block");
        give_up(loading, &error);
        goto out;
    }
    loader->loading = loading;
    loader->block = (struct snapshot_block){.bytes = bytes, .block_bytes = loading->header.block_bytes};
    while (!atomic_load(&loading->failed)) {
        uint64_t index = atomic_fetch_add(&loading->next_block, 1);
        if (index >= loading->trailer.blocks)
            break;
        if (!load_block(loader, index, &error)) {
            sl_wrap(&error, "block %llu", (unsigned long long)index);
            give_up(loading, &error);
        }
    }
out:
    free(bytes);
    free(loader);
    return NULL;
}

static bool run_threads(struct loading *loading, unsigned threads, struct sl_error *err)
{
    pthread_t started[THREADS_MAX];
    unsigned count = 0;
    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    // Fewer than asked for is slower and no worse: the caller's is one of them.
    while (count + 1 < threads && count + 1 < loading->trailer.blocks &&
           pthread_create(&started[count], NULL, load_blocks, loading) == 0)
        count++;
    load_blocks(loading);
    while (count > 0)
        pthread_join(started[--count], NULL);
    if (atomic_load(&loading->failed)) {
        *err = loading->error;
        return false;
    }
    return atomic_load(&loading->entries) == loading->trailer.entries ||
           sl_fail(err, SL_E_CORRUPT, "%llu entries, and %llu by its trailer",
                   (unsigned long long)atomic_load(&loading->entries), (unsigned long long)loading->trailer.entries);
}

// Header and trailer, and whether they and the file's length agree.
static bool read_ends(struct loading *loading, const struct dedupe_key *key, uint64_t size, struct sl_error *err)
{
    struct snapshot_header *header = &loading->header;
    struct snapshot_trailer *trailer = &loading->trailer;
    static const size_t least = SNAPSHOT_ALIGN + SNAPSHOT_TRAILER_BYTES;
    uint8_t *bytes = malloc(SNAPSHOT_HEADER_MAX);
    if (bytes == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "its header");
    size_t head = size < SNAPSHOT_HEADER_MAX ? (size_t)size : SNAPSHOT_HEADER_MAX;
    bool good = (size >= least || sl_fail(err, SL_E_CORRUPT, "ends too early")) &&
                read_at(loading, bytes, head, 0, err) && snapshot_header_decode(header, bytes, head, err);
    if (good && memcmp(header->key_id, key->id, sizeof(key->id)) != 0)
        good = sl_fail(err, SL_E_INVALID, "its ids were hashed with another key");
    good = good && read_at(loading, bytes, SNAPSHOT_TRAILER_BYTES, size - SNAPSHOT_TRAILER_BYTES, err);
    if (good && (!snapshot_trailer_decode(trailer, bytes) || trailer->written_wall_ns != header->written_wall_ns))
        good = sl_fail(err, SL_E_CORRUPT, "its end is not there");
    if (good) {
        uint64_t ends = (uint64_t)header->header_bytes + SNAPSHOT_TRAILER_BYTES;
        good = (size >= ends && (size - ends) % header->block_bytes == 0 &&
                (size - ends) / header->block_bytes == trailer->blocks) ||
               sl_fail(err, SL_E_CORRUPT, "%llu bytes long, which is not what it says", (unsigned long long)size);
    }
    free(bytes);
    return good;
}

// The generations as they were, so that what is let go first is the oldest again, and not any of a part of the window;
// and what was received after the snapshot goes into younger ones.
static void restart_generations(struct loading *loading, const struct storage_file_info *file, int64_t now_wall_ns)
{
    const struct snapshot_trailer *trailer = &loading->trailer;
    // What was received while it was written is no younger than the file. And a clock may have been put back.
    int64_t written_ns = loading->header.written_wall_ns;
    written_ns = file->modified_wall_ns > written_ns ? file->modified_wall_ns : written_ns;
    written_ns = file->modified_wall_ns == 0 || written_ns > now_wall_ns ? now_wall_ns : written_ns;
    int64_t ends_ns[RESTART_MAX];
    uint64_t count = 0;
    // The last one takes what was in the open one. If there are too many, the oldest are put together.
    uint32_t skip = trailer->generation_count >= RESTART_MAX ? trailer->generation_count - RESTART_MAX + 1 : 0;
    for (uint32_t i = skip; i < trailer->generation_count; i++) {
        int64_t end_ns = trailer->ends_wall_ns[i];
        if (end_ns > loading->oldest_wall_ns && end_ns < written_ns)
            ends_ns[count++] = end_ns;
    }
    ends_ns[count++] = written_ns;
    loading->in_place = generation_restart(loading->dedupe, ends_ns, count, written_ns) &&
                        loading->header.slots == table_slots(loading->dedupe);
}

static bool load_all(struct loading *loading, const struct dedupe_key *key, unsigned threads, int64_t now_wall_ns,
                     struct sl_error *err)
{
    const struct storage *storage = loading->storage;
    struct storage_file_info file;
    int rc = storage->ops->info(storage->context, loading->path, &file);
    if (rc == -ENOENT)
        return sl_fail(err, SL_E_NOT_FOUND, "none");
    loading->handle = rc < 0 ? rc : storage->ops->open(storage->context, loading->path, STORAGE_READ);
    if (loading->handle < 0)
        return sl_fail_errno(err, SL_E_IO, -loading->handle, "open");
    bool good = read_ends(loading, key, file.size_bytes, err);
    if (good) {
        restart_generations(loading, &file, now_wall_ns);
        good = run_threads(loading, threads, err);
    }
    storage->ops->close(storage->context, loading->handle);
    return good;
}

bool dedupe_snapshot_load(struct dedupe *dedupe, const struct dedupe_key *key, const struct storage *storage,
                          const char *dir, unsigned threads,
                          void (*covers)(void *user, const char *stream, uint64_t through), void *user,
                          int64_t now_wall_ns, struct dedupe_snapshot_info *info, struct sl_error *err)
{
    struct loading *loading = calloc(1, sizeof(*loading));
    if (loading == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "a snapshot of the dedupe window");
    loading->dedupe = dedupe;
    loading->storage = storage;
    loading->now_wall_ns = now_wall_ns;
    loading->oldest_wall_ns = now_wall_ns - dedupe->window_ns;
    pthread_mutex_init(&loading->mutex, NULL);
    int length = snprintf(loading->path, sizeof(loading->path), "%s/snapshot", dir);
    bool good = length > 0 && (size_t)length < sizeof(loading->path)
                    ? load_all(loading, key, threads, now_wall_ns, err)
                    : sl_fail_errno(err, SL_E_IO, ENAMETOOLONG, "open");
    if (good) {
        const struct snapshot_header *header = &loading->header;
        for (uint32_t i = 0; i < header->stream_count; i++)
            covers(user, header->streams[i].name, header->streams[i].through);
        *info = (struct dedupe_snapshot_info){.written_wall_ns = header->written_wall_ns,
                                              .covered_since_wall_ns = loading->trailer.covered_since_wall_ns,
                                              .claims_per_second = (double)header->rate_milli / 1000,
                                              .entries = loading->trailer.entries};
    }
    pthread_mutex_destroy(&loading->mutex);
    free(loading);
    return good || sl_wrap(err, "snapshot of the dedupe window: %s/snapshot", dir);
}
