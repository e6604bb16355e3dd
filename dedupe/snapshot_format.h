// The bytes of a snapshot: docs/disk-format.md, "Snapshot of the dedupe window". Encoding and decoding, no I/O.
//
// Threads: none; everything here belongs to its caller.
#ifndef SLUICE_DEDUPE_SNAPSHOT_FORMAT_H
#define SLUICE_DEDUPE_SNAPSHOT_FORMAT_H

#include "dedupe/dedupe.h"

enum {
    SNAPSHOT_VERSION = 1,
    SNAPSHOT_ALIGN = 4096,
    SNAPSHOT_STREAMS_MAX = 256,
    SNAPSHOT_NAME_MAX = 127,
    SNAPSHOT_HEADER_FIXED = 72,
    // Fixed part, then for each stream at most 8 + 1 + SNAPSHOT_NAME_MAX; a multiple of SNAPSHOT_ALIGN.
    SNAPSHOT_HEADER_MAX = 36864,
    SNAPSHOT_BLOCK_MIN = 4096,
    SNAPSHOT_BLOCK_MAX = 1 << 20,
    SNAPSHOT_BLOCK_DEFAULT = 256 << 10,
    SNAPSHOT_BLOCK_FIXED = 32,
    SNAPSHOT_ENTRY_BYTES = 28,
    SNAPSHOT_GROUP_BYTES = 16,
    SNAPSHOT_GROUPS_MAX = 4096,
    SNAPSHOT_TRAILER_BYTES = 4096,
    SNAPSHOT_GENERATIONS_MAX = 256,
    SNAPSHOT_CHOICES = 4, // of a place, two bits
};

struct snapshot_stream {
    char name[SNAPSHOT_NAME_MAX + 1];
    uint64_t through;
};

struct snapshot_header {
    uint32_t header_bytes, block_bytes;
    uint8_t key_id[DEDUPE_KEY_ID_BYTES];
    int64_t written_wall_ns, window_ns;
    uint64_t rate_milli; // new ids in 1,000 seconds
    uint64_t slots;      // of the table that it was written from
    uint32_t stream_count;
    struct snapshot_stream streams[SNAPSHOT_STREAMS_MAX];
};

struct snapshot_trailer {
    int64_t written_wall_ns; // the header's: a stale or foreign block is no part of this snapshot
    uint64_t blocks, entries;
    int64_t covered_since_wall_ns;
    uint32_t generation_count;
    int64_t ends_wall_ns[SNAPSHOT_GENERATIONS_MAX]; // of the generations that were closed, ascending
};

// What entries of a block have in common, so that each need not say it.
struct snapshot_group {
    int64_t seen_wall_ns;
    uint32_t stream;   // index among the header's
    uint32_t seq_high; // upper half of the seqs
};

struct snapshot_entry {
    struct dedupe_id id;
    uint64_t payload_hash;           // its low 25 bits are not kept
    uint32_t group, choice, seq_low; // choice: in which of the id's places it was
};

// A block that is being filled, or was read. Entries lie behind its head, groups before its end, zeros between them.
struct snapshot_block {
    uint8_t *bytes; // block_bytes of them, aligned to SNAPSHOT_ALIGN, the caller's
    uint32_t block_bytes;
    uint32_t entries, groups;
};

// Returns the bytes used of `bytes` (a multiple of SNAPSHOT_ALIGN), which has room for SNAPSHOT_HEADER_MAX.
size_t snapshot_header_encode(struct snapshot_header *header, uint8_t *bytes);
// SL_E_CORRUPT; SL_E_INVALID: of another version. `length`: what there is of the file, at most SNAPSHOT_HEADER_MAX.
bool snapshot_header_decode(struct snapshot_header *header, const uint8_t *bytes, size_t length,
                            struct sl_error *err) SL_MUST_USE;
void snapshot_trailer_encode(const struct snapshot_trailer *trailer, uint8_t bytes[SNAPSHOT_TRAILER_BYTES]);
bool snapshot_trailer_decode(struct snapshot_trailer *trailer, const uint8_t bytes[SNAPSHOT_TRAILER_BYTES]) SL_MUST_USE;

void snapshot_block_start(struct snapshot_block *block);
// Whether an entry fits, with a group that is not there yet.
static inline bool snapshot_block_has_room(const struct snapshot_block *block)
{
    return block->groups < SNAPSHOT_GROUPS_MAX && SNAPSHOT_BLOCK_FIXED +
                                                          (size_t)(block->entries + 1) * SNAPSHOT_ENTRY_BYTES +
                                                          (size_t)(block->groups + 1) * SNAPSHOT_GROUP_BYTES <=
                                                      block->block_bytes;
}
// Needs room; the caller counts the groups that it has made.
void snapshot_block_add(struct snapshot_block *block, const struct snapshot_entry *entry);
// `groups`: block->groups of them.
void snapshot_block_finish(struct snapshot_block *block, const struct snapshot_group *groups, int64_t written_wall_ns,
                           uint64_t index);
// Fills entries and groups from the bytes. False: it is not the block `index` of that snapshot, or not whole.
bool snapshot_block_open(struct snapshot_block *block, int64_t written_wall_ns, uint64_t index) SL_MUST_USE;
// index < groups. False: no such stream.
bool snapshot_block_group(const struct snapshot_block *block, uint32_t index, uint32_t stream_count,
                          struct snapshot_group *out) SL_MUST_USE;
// index < entries. False: no such group.
bool snapshot_block_entry(const struct snapshot_block *block, uint32_t index, struct snapshot_entry *out) SL_MUST_USE;

#endif
