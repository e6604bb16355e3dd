// The writer's core: one stream, its frames and its change of segments, without threads, queues or clocks. A simulator
// steps the same code that the writer thread runs (commit.c).
//
// Threads: none; an object belongs to its caller. Calls block for the disk.
// Errors: after any false the log is failed for good (log->failed): nothing is retried, no handle is closed and
// reopened, because a second sync may report success for pages that were lost (docs/track-record.md of PostgreSQL's
// "fsyncgate").
#ifndef SLUICE_SPOOL_SEGMENT_H
#define SLUICE_SPOOL_SEGMENT_H

#include "base/error.h"
#include "spool/frame.h"
#include "spool/storage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPOOL_PATH_MAX = 640,   // directory (≤ 400) / stream / file
    SPOOL_DIR_MAX = 400,    // longest options->dir
    FRAME_PARTS_MAX = 1000, // bodies of one frame; with header and padding under IOV_MAX (1024)
};

// out = dir/name. Both are bounded by their makers; an overflow is a bug.
void spool_path(char out[SPOOL_PATH_MAX], const char *dir, const char *name);
// out = dir/<first_seq as 16 hex digits>.seg
void segment_path(char out[SPOOL_PATH_MAX], const char *dir, uint64_t first_seq);
void segment_file_name(char out[32], uint64_t first_seq);

// A file that was allocated and zeroed ahead, and belongs to no stream yet. Whoever holds it owns the handle and the
// file.
struct ready_segment {
    int handle; // open for writing
    uint64_t size_bytes;
    char path[SPOOL_PATH_MAX];
};
// Bytes of the largest body that fits into an empty segment of this size, the seal's room kept.
uint64_t segment_usable(uint64_t size_bytes);

struct frame_pool;
struct spool_frame;

struct stream_log {
    const struct storage *storage;
    char dir[SPOOL_PATH_MAX];     // of the stream
    struct segment_header header; // of the segment being written; the model for the next one
    int handle;                   // -1: none
    uint32_t seed;                // of body CRCs: the CRC of the segment's UUID
    uint64_t offset;              // where the next frame goes
    uint64_t next_seq;
    uint32_t previous_crc; // header CRC of the last frame
    bool sealed;           // the present segment is
    bool failed;
    bool direct; // the handle is past the page cache
    // Set by the owner, or NULL: where large frames are put together, and all of records when there is an on_frame.
    struct frame_pool *pool;
    // Set by the owner, or NULL: gets each frame of records before it is written; see spool.h.
    void (*on_frame)(void *user, struct spool_frame *frame);
    void *user;
    uint32_t incarnation; // for on_frame
    // What records that are in no ids frame yet are known by; nothing where header.ids_key_id is zero.
    struct ids_buffer ids;
    uint32_t ids_body_max;
    uint64_t last_ids_offset;    // of the present segment; 0 = none
    bool ids_given_up;           // in the present segment: its ids are read from its records
    struct spool_frame *written; // the last frame when it was put together in memory; the owner may take it (NULL then)
};

// Fills in what does not change; opens nothing. The caller sets header.{stream, node, counter, predecessor,
// predecessor_seq, lanes, lane_count} before the first stream_log_activate.
void stream_log_init(struct stream_log *log, const struct storage *storage, const char *dir);
// Writes the header into *ready, syncs it, renames the file into the stream's directory and syncs that: only then may a
// frame be acknowledged from it. Takes *ready in any case (closes the handle when it fails). The segment before must be
// sealed.
bool stream_log_activate(struct stream_log *log, struct ready_segment *ready, const struct segment_uuid *uuid,
                         int64_t wall_ns, struct sl_error *err) SL_MUST_USE;
// Largest body that fits before the seal; 0 when none does. Room for ids is not kept from it: a body goes before them.
uint64_t stream_log_room(const struct stream_log *log);
// Bytes that the ids frames of what was appended and of `records` more records may take, beside their bodies.
uint64_t stream_log_ids_bytes(const struct stream_log *log, uint64_t records);
// Ids frames come by themselves: when one is full, and before the seal. Where they do not fit, and where memory is out,
// the segment does without.
// One frame: parts[1..part_count] are the body, back to back, `count` records; parts[0] and parts[part_count + 1] are
// used for header and padding. Written and synced on return. *out is the frame's header.
bool stream_log_append(struct stream_log *log, struct iovec *parts, int part_count, uint32_t count, int64_t wall_ns,
                       struct frame_header *out, struct sl_error *err) SL_MUST_USE;
// Ends the segment with a synced seal and gives the unused rest of the file back. *closed_size: bytes that the file has
// then.
bool stream_log_seal(struct stream_log *log, bool closed, int64_t wall_ns, uint64_t *closed_size,
                     struct sl_error *err) SL_MUST_USE;
// Closes the handle. Seals nothing.
void stream_log_release(struct stream_log *log);

#endif
