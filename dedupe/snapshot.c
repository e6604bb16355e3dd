// Writing the window to disk while claims go on.
//
// Happy path: the streams and how far each is covered are asked first; the table is walked once, slot by slot, each
// entry taken whole as it was at one instant; then what the window covers, which can only have become less; sync,
// rename, sync of the directory. An entry that comes behind the walk belongs to a seq that is not covered, and is read
// from the spool at the start.
//
// Failure modes: any error, and a pause that is given up, removes the temporary file; the earlier snapshot stays. A
// crash leaves the temporary file, which the next attempt replaces.
#include "base/clock.h"
#include "dedupe/internal.h"
#include "dedupe/snapshot_format.h"
#include "spool/storage.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    GROUP_TABLE = 4 * SNAPSHOT_GROUPS_MAX,
    SYNC_EVERY_BYTES = 32 << 20, // bounds what a page cache would write at once, where it cannot be bypassed
    NO_STREAM = SNAPSHOT_STREAMS_MAX,
};

_Static_assert((int)ORIGINS <= (int)SNAPSHOT_STREAMS_MAX && (int)ORIGIN_NAME_MAX <= (int)SNAPSHOT_NAME_MAX + 1,
               "a snapshot names them all");
_Static_assert((int)CHOICES <= (int)SNAPSHOT_CHOICES && (int)LIVE_MAX <= (int)SNAPSHOT_GENERATIONS_MAX,
               "and says where they are");

struct group_key {
    uint64_t generation;
    uint32_t origin, seq_high;
};

struct writing {
    struct dedupe *dedupe;
    const struct storage *storage;
    const struct dedupe_snapshot_writing *how;
    const char *dir;
    char path[PATH_MAX], temporary[PATH_MAX];
    int handle;
    uint64_t offset, unsynced_bytes;
    int64_t start_ns; // monotonic
    int64_t now_wall_ns;

    uint32_t version[ORIGINS]; // of the name when the streams were listed
    uint32_t stream_of[ORIGINS];
    struct snapshot_header header;
    struct snapshot_trailer trailer;

    struct snapshot_block block;
    struct snapshot_group groups[SNAPSHOT_GROUPS_MAX];
    struct group_key keys[SNAPSHOT_GROUPS_MAX];
    uint16_t table[GROUP_TABLE]; // 1 + index of a group; 0: free
};

static bool fail(const struct writing *writing, int rc, const char *what, struct sl_error *err)
{
    return sl_fail_errno(err, rc == -ENOSPC || rc == -EDQUOT ? SL_E_NO_SPACE : SL_E_IO, -rc, "%s: %s",
                         writing->temporary, what);
}

// ---- the file

static bool open_temporary(struct writing *writing, struct sl_error *err)
{
    const struct storage *storage = writing->storage;
    int handle = storage->ops->open(storage->context, writing->temporary, STORAGE_CREATE);
    if (handle == -EEXIST) { // an earlier attempt did not get to its rename
        storage->ops->unlink(storage->context, writing->temporary);
        handle = storage->ops->open(storage->context, writing->temporary, STORAGE_CREATE);
    }
    if (handle < 0)
        return fail(writing, handle, "create", err);
    writing->handle = handle;
    if (storage->ops->bypass_cache != NULL)
        storage->ops->bypass_cache(storage->context, handle, true);
    return true;
}

// The spool needs the disk more than a snapshot does.
static bool check_room(const struct writing *writing, struct sl_error *err)
{
    const struct storage *storage = writing->storage;
    struct dedupe_figures figures;
    dedupe_figures(writing->dedupe, writing->now_wall_ns, &figures);
    uint64_t estimate = figures.entries * (SNAPSHOT_ENTRY_BYTES + 2), free_bytes;
    if (storage->ops->free_bytes == NULL)
        return true;
    int rc = storage->ops->free_bytes(storage->context, writing->dir, &free_bytes);
    if (rc < 0)
        return fail(writing, rc, "free space", err);
    if (free_bytes / 2 < estimate)
        return sl_fail(err, SL_E_NO_SPACE, "%s: %llu bytes free; a snapshot of %llu leaves too little to the spool",
                       writing->dir, (unsigned long long)free_bytes, (unsigned long long)estimate);
    return true;
}

static bool put(struct writing *writing, const uint8_t *bytes, size_t length, struct sl_error *err)
{
    const struct storage *storage = writing->storage;
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    int rc = storage->ops->pwritev(storage->context, writing->handle, &part, 1, writing->offset);
    if (rc < 0)
        return fail(writing, rc, "write", err);
    writing->offset += length;
    writing->unsynced_bytes += length;
    if (writing->unsynced_bytes >= SYNC_EVERY_BYTES) {
        rc = storage->ops->fdatasync(storage->context, writing->handle);
        if (rc < 0)
            return fail(writing, rc, "sync", err);
        writing->unsynced_bytes = 0;
    }
    return true;
}

static bool publish(struct writing *writing, struct sl_error *err)
{
    const struct storage *storage = writing->storage;
    int rc = storage->ops->fdatasync(storage->context, writing->handle);
    if (rc < 0)
        return fail(writing, rc, "sync", err);
    rc = storage->ops->rename(storage->context, writing->temporary, writing->path);
    if (rc < 0)
        return fail(writing, rc, "rename", err);
    rc = storage->ops->sync_directory(storage->context, writing->dir);
    return rc >= 0 || fail(writing, rc, "sync of the directory", err);
}

// ---- blocks

static bool pause_for_rate(const struct writing *writing, struct sl_error *err)
{
    const struct dedupe_snapshot_writing *how = writing->how;
    if (how->pause == NULL)
        return true;
    int64_t ns = 0;
    if (how->bytes_per_second > 0) {
        double due_s = (double)writing->offset / (double)how->bytes_per_second;
        ns = writing->start_ns + (int64_t)(due_s * (double)SL_NS_PER_S) - sl_monotonic_ns();
    }
    return how->pause(how->user, ns > 0 ? ns : 0) || sl_fail(err, SL_E_REFUSED, "%s: given up", writing->temporary);
}

static bool flush(struct writing *writing, struct sl_error *err)
{
    struct snapshot_block *block = &writing->block;
    // Entries of the open generation: none of them was received later than this.
    int64_t latest_ns = stripes_latest(writing->dedupe, writing->now_wall_ns);
    for (uint32_t i = 0; i < block->groups; i++)
        if (writing->groups[i].seen_wall_ns == INT64_MAX)
            writing->groups[i].seen_wall_ns = latest_ns;
    snapshot_block_finish(block, writing->groups, writing->trailer.written_wall_ns, writing->trailer.blocks);
    if (!put(writing, block->bytes, block->block_bytes, err))
        return false;
    writing->trailer.blocks++;
    writing->trailer.entries += block->entries;
    snapshot_block_start(block);
    memset(writing->table, 0, sizeof(writing->table));
    return pause_for_rate(writing, err);
}

static uint32_t group_of(struct writing *writing, const struct dedupe_entry *entry)
{
    struct group_key key = {entry->generation, entry->origin, (uint32_t)(entry->seq >> 32)};
    uint64_t mixed =
        (key.generation ^ (uint64_t)key.origin << 20 ^ (uint64_t)key.seq_high << 32) * UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t at = (uint32_t)(mixed >> 32) % GROUP_TABLE;; at = (at + 1) % GROUP_TABLE) {
        uint32_t index = writing->table[at];
        if (index == 0) {
            index = writing->block.groups++;
            writing->table[at] = (uint16_t)(index + 1);
            writing->keys[index] = key;
            writing->groups[index] = (struct snapshot_group){.seen_wall_ns = entry->seen_wall_ns,
                                                             .stream = writing->stream_of[key.origin],
                                                             .seq_high = key.seq_high};
            return index;
        }
        const struct group_key *there = &writing->keys[index - 1];
        if (there->generation == key.generation && there->origin == key.origin && there->seq_high == key.seq_high)
            return index - 1;
    }
}

// Asked after the entry was read: then the index meant the same stream when it was.
static bool is_listed(const struct writing *writing, uint32_t origin)
{
    return origin < ORIGINS && writing->stream_of[origin] != NO_STREAM &&
           atomic_load(&writing->dedupe->origins[origin].version) == writing->version[origin];
}

static bool walk_slot(struct writing *writing, uint64_t slot, struct sl_error *err)
{
    struct dedupe_entry entry;
    // INT64_MAX: of the open generation; flush says what that means.
    if (!table_entry(writing->dedupe, slot, INT64_MAX, &entry) || entry.state != DEDUPE_DURABLE ||
        !is_listed(writing, entry.origin))
        return true;
    if (!snapshot_block_has_room(&writing->block) && !flush(writing, err))
        return false;
    struct snapshot_entry out = {.id = entry.id,
                                 .payload_hash = entry.payload_hash,
                                 .choice = restore_choice(writing->dedupe, slot),
                                 .seq_low = (uint32_t)entry.seq};
    out.group = group_of(writing, &entry);
    snapshot_block_add(&writing->block, &out);
    return true;
}

static bool walk(struct writing *writing, struct sl_error *err)
{
    uint64_t slots = table_slots(writing->dedupe);
    snapshot_block_start(&writing->block);
    for (uint64_t slot = 0; slot < slots; slot++)
        if (!walk_slot(writing, slot, err))
            return false;
    return writing->block.entries == 0 || flush(writing, err);
}

// What a restart needs so that the oldest entries are again the first to go.
static void list_generations(struct writing *writing)
{
    const struct dedupe *dedupe = writing->dedupe;
    struct snapshot_trailer *trailer = &writing->trailer;
    uint64_t current = atomic_load(&dedupe->current);
    for (uint64_t number = atomic_load(&dedupe->floor); number < current; number++) {
        int64_t end_ns = atomic_load(&generation_of(dedupe, number)->end_ns);
        uint32_t count = trailer->generation_count;
        if (end_ns == INT64_MAX || (count > 0 && end_ns <= trailer->ends_wall_ns[count - 1]))
            continue; // about to be closed; or of no length
        sl_assert(count < SNAPSHOT_GENERATIONS_MAX);
        trailer->ends_wall_ns[trailer->generation_count++] = end_ns;
    }
}

// ---- all

static void list_streams(struct writing *writing)
{
    struct snapshot_header *header = &writing->header;
    for (uint32_t i = 0; i < ORIGINS; i++) {
        struct snapshot_stream *stream = &header->streams[header->stream_count];
        writing->stream_of[i] = NO_STREAM;
        writing->version[i] = atomic_load(&writing->dedupe->origins[i].version);
        if (!dedupe_origin_name(writing->dedupe, i, stream->name, sizeof(stream->name)))
            continue;
        stream->through = writing->how->through(writing->how->user, stream->name);
        writing->stream_of[i] = header->stream_count++;
    }
}

static bool write_all(struct writing *writing, struct sl_error *err)
{
    list_streams(writing);
    size_t length = snapshot_header_encode(&writing->header, writing->block.bytes);
    if (!check_room(writing, err) || !open_temporary(writing, err))
        return false;
    bool good = put(writing, writing->block.bytes, length, err) && walk(writing, err);
    if (good) {
        list_generations(writing);
        writing->trailer.covered_since_wall_ns = coverage_since(writing->dedupe, writing->now_wall_ns);
        snapshot_trailer_encode(&writing->trailer, writing->block.bytes);
        good = put(writing, writing->block.bytes, SNAPSHOT_TRAILER_BYTES, err) && publish(writing, err);
    }
    writing->storage->ops->close(writing->storage->context, writing->handle);
    if (!good)
        writing->storage->ops->unlink(writing->storage->context, writing->temporary);
    return good;
}

bool dedupe_snapshot_write(struct dedupe *dedupe, const struct dedupe_key *key, const struct storage *storage,
                           const char *dir, const struct dedupe_snapshot_writing *how, int64_t now_wall_ns,
                           struct sl_error *err)
{
    uint32_t block_bytes = how->block_bytes == 0 ? SNAPSHOT_BLOCK_DEFAULT : how->block_bytes;
    sl_assert(block_bytes >= SNAPSHOT_BLOCK_MIN && block_bytes <= SNAPSHOT_BLOCK_MAX &&
              (block_bytes & (block_bytes - 1)) == 0);
    sl_assert(how->pause != NULL || how->bytes_per_second == 0);
    struct writing *writing = calloc(1, sizeof(*writing));
    size_t room = block_bytes > SNAPSHOT_HEADER_MAX ? block_bytes : SNAPSHOT_HEADER_MAX;
    uint8_t *bytes = aligned_alloc(SNAPSHOT_ALIGN, room);
    bool good = false;
    if (writing == NULL || bytes == NULL) {
        sl_fail(err, SL_E_NO_MEMORY, "a snapshot of the dedupe window");
        goto out;
    }
    writing->dedupe = dedupe;
    writing->storage = storage;
    writing->how = how;
    writing->dir = dir;
    writing->start_ns = sl_monotonic_ns();
    writing->now_wall_ns = now_wall_ns;
    writing->block = (struct snapshot_block){.bytes = bytes, .block_bytes = block_bytes};
    writing->trailer.written_wall_ns = now_wall_ns;
    double rate = atomic_load(&dedupe->rate);
    writing->header = (struct snapshot_header){.block_bytes = block_bytes,
                                               .written_wall_ns = now_wall_ns,
                                               .window_ns = dedupe->window_ns,
                                               .rate_milli = (uint64_t)(rate * 1000),
                                               .slots = table_slots(dedupe)};
    memcpy(writing->header.key_id, key->id, sizeof(key->id));
    int a = snprintf(writing->path, sizeof(writing->path), "%s/snapshot", dir);
    int b = snprintf(writing->temporary, sizeof(writing->temporary), "%s/snapshot.tmp", dir);
    if (a < 0 || b < 0 || (size_t)b >= sizeof(writing->temporary))
        sl_fail_errno(err, SL_E_IO, ENAMETOOLONG, "%s", dir);
    else
        good = write_all(writing, err);
out:
    free(bytes);
    free(writing);
    return good || sl_wrap(err, "snapshot of the dedupe window");
}
