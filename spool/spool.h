// The spool: one append-only stream of records for each start of the process, durable before anybody is told. A process
// may end its stream and go on with another (spool_next_stream): its incarnations, counted from 0.
//
// What a user may rely on:
//   - A batch whose outcome is SPOOL_SYNCED survives kill -9 and power loss; it is stored whole or not at all.
//   - Group commit without a timer: all that was submitted during the last sync goes into the next frame.
//   - After a write or sync error nothing is ever reported synced again (SPOOL_FAILED for the rest); the process must
//   exit.
//   - ENOSPC can only hit the preparer: spool_admit() refuses before a batch could be caught by it.
//   - Nothing unproduced is deleted, whatever the budget says.
//
// Threads: unless a function says otherwise, any thread. The spool owns two: "spool-writer" (frames, sync) and
// "spool-keeper" (prepares segments, deletes old ones, persists progress, scans older streams). Strings handed in are
// copied.
#ifndef SLUICE_SPOOL_SPOOL_H
#define SLUICE_SPOOL_SPOOL_H

#include "base/error.h"
#include "base/histogram.h"
#include "spool/frame.h"
#include "spool/storage.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spool;
struct spool_frame;

// Time and chance, so that a simulator can run the spool in a world of its own. Functions may be called from any
// thread.
struct spool_environment {
    int64_t (*wall_ns)(void *context);
    int64_t (*monotonic_ns)(void *context);
    void (*random)(void *context, void *bytes, size_t length);
    void *context;
};

struct spool_options {
    const struct storage *storage;
    const char *dir; // absolute; created 0700 with its parents' last level when it is not there
    const char *node;
    uint64_t segment_bytes; // multiple of SPOOL_BLOCK, ≥ 1 MiB
    uint64_t max_bytes;     // disk budget: everything in dir counts; see spool_admit for what is refused when
    int64_t retain_ns;      // how long produced segments stay
    uint32_t prepared;      // segments kept ready, ≥ 1
    uint64_t append_bytes;  // submitted and not yet synced; over it spool_admit refuses
    // Of the key under which the hashes in the records are made; all zero: there are none, and no ids are kept
    // (spool/ids.h).
    uint8_t ids_key_id[IDS_KEY_ID_BYTES];
    // How long ids are kept when their segment is deleted, from when they were written; 0: not at all.
    int64_t ids_window_ns;
    const char *const *lanes;
    size_t lane_count;
    // Writer thread, once, after the last waiting batch was told: a write or sync failed. May be NULL.
    void (*on_failed)(void *user, const struct sl_error *err);
    // Writer thread, both may be NULL; they must not block, nor call spool_next_stream or spool_declare_lane.
    // A frame of records before it is written, in order; retained by who keeps it. What it holds may never become
    // durable. Without memory for it a frame is left out: the next one's first_seq shows the gap, and the records can
    // be read back once they are synced. With it every frame is put together in memory first; NULL costs nothing.
    void (*on_frame)(void *user, struct spool_frame *frame);
    // Everything of the incarnation up to `through` is durable, readers see it and its batches were told.
    void (*on_synced)(void *user, uint32_t incarnation, uint64_t through);
    void *user;
    uint64_t counter_min; // the stream's counter is at least this: what others know of this node, when its disk is new
    const struct spool_environment *environment; // NULL: the machine's clocks and getrandom(2)
    // No threads: the owner calls spool_step_writer and spool_step_keeper, and readers never wait. For simulators and
    // tests.
    bool manual;
};

// Locks the directory (SL_E_LOCKED), finds the older streams (lists them, reads their first header only; it does not
// scan them, but for the last segment of the newest own one: the new stream's header names its last seq), increments
// the durable counter, opens a new stream and starts the threads. Returns as soon as the first frame can be written: it
// waits neither for a whole segment to be zero-filled nor for older streams to be read. SL_E_IO, SL_E_NO_SPACE.
bool spool_open(struct spool **out, const struct spool_options *options, struct sl_error *err) SL_MUST_USE;
// Writes out what was submitted, seals the stream (FRAME_FLAG_STREAM_CLOSED), persists progress, ends the threads,
// frees. All readers must be closed. Returns false when the last writes failed (everything is freed all the same).
bool spool_close(struct spool *spool, struct sl_error *err);

// Only with options->manual, from one thread. True when something was done and another call may do more at once.
bool spool_step_writer(struct spool *spool); // at most one frame, or one change of segment
bool spool_step_keeper(struct spool *spool); // at most one chunk of preparing, one deletion, one slice of a scan

// Of the newest stream, the one being written. Two calls may speak of two streams when spool_next_stream is called.
const char *spool_stream(const struct spool *spool);  // its id; the text lives until spool_close
uint64_t spool_synced_seq(const struct spool *spool); // last durable seq of it, 0 = none
uint32_t spool_incarnation(const struct spool *spool);
// The stream of an incarnation of this process, also when it was deleted meanwhile. NULL: there is none yet.
const char *spool_incarnation_id(struct spool *spool, uint32_t incarnation);

// Ends the stream and opens the next one, whose predecessor is it with its last seq. Blocks. What was written stays the
// old one's, and its readers come to SPOOL_READ_END; batches that were not written yet go to the new one
// (spool_batch.incarnation tells). Lanes stay as they are.
// SL_E_NO_SPACE, SL_E_IO: nothing has changed, the old stream goes on. SL_E_UNAVAILABLE: failed or closing.
bool spool_next_stream(struct spool *spool, struct sl_error *err) SL_MUST_USE;

// A lane must be declared before a record names it (spool_open declares options->lanes). Blocks until the header of a
// segment names it durably. Called by a reload. SL_E_NO_SPACE: there is no segment for it now; SL_E_UNAVAILABLE: failed
// or closing; SL_E_TOO_LARGE: SPOOL_LANES_MAX lanes are there already.
bool spool_declare_lane(struct spool *spool, const char *lane, struct sl_error *err) SL_MUST_USE;

// ---- appending

enum spool_priority { SPOOL_PRIORITY_HIGH, SPOOL_PRIORITY_NORMAL, SPOOL_PRIORITY_LOW };
enum { SPOOL_PRIORITIES = SPOOL_PRIORITY_LOW + 1 };
enum spool_admission {
    SPOOL_ADMITTED,
    SPOOL_THROTTLED, // 429: unproduced bytes are over 70 % (low) or 85 % (normal) of max_bytes
    SPOOL_FULL,      // 503: over 95 %, or the disk has no room for it (the preparer cannot make a segment)
    SPOOL_BUSY,      // 503: append_bytes are waiting for the disk
    SPOOL_DEAD,      // 503: failed or closing
};
// Cheap (atomics only): may a batch of about `bytes` come? What is admitted and submitted promptly finds room on disk.
enum spool_admission spool_admit(struct spool *spool, uint64_t bytes, enum spool_priority priority);
// The same for one as large as the largest of that priority that asked so far: a spool with room for nothing
// that comes is full. What is too large for an empty one does not count.
enum spool_admission spool_would_admit(const struct spool *spool, enum spool_priority priority);

enum spool_outcome { SPOOL_SYNCED, SPOOL_FAILED };

// What one loop gathered in one turn. The submitter owns it before spool_submit and from inside done() on.
struct spool_batch {
    struct record_buffer records; // at least one record; at most FRAME_BODY_MAX bytes
    // Records of each declared lane, in the order of spool_lane_index(); their sum is records.count.
    uint32_t lane_counts[SPOOL_LANES_MAX];
    void (*done)(struct spool_batch *batch); // writer thread, exactly once; must not block
    enum spool_outcome outcome;              // set before done()
    uint64_t first_seq;                      // of records; set before done() when synced
    uint32_t incarnation;                    // whose stream they are in; as first_seq
    struct spool_batch *next;                // the spool's
};
// SIZE_MAX when it is not declared.
size_t spool_lane_index(const struct spool *spool, const char *lane);
// Never blocks for the disk. False: the spool is failed or closing, the batch is still the caller's and done() is not
// called.
bool spool_submit(struct spool *spool, struct spool_batch *batch) SL_MUST_USE;

// ---- streams and reading

struct spool_stream_info {
    char id[SPOOL_STREAM_ID_MAX];
    uint64_t counter;
    bool current;
    bool own;                              // this node wrote it; else it is a copy (spool/replica.h)
    bool scanned;                          // end_seq of an older stream is known only after its frames were walked once
    char predecessor[SPOOL_STREAM_ID_MAX]; // "" for none
    uint64_t predecessor_seq;
    uint32_t lane_count;
    char lanes[SPOOL_LANES_MAX][SPOOL_NAME_MAX + 1];
    uint64_t base_seq;                   // first seq held; end_seq + 1: nothing is
    uint64_t end_seq;                    // last durable seq
    uint64_t damaged;                    // records in quarantined ranges, as far as they can be counted
    uint64_t committed[SPOOL_LANES_MAX]; // spool_note_committed, in the order of lanes
    uint64_t verified[SPOOL_LANES_MAX];  // spool_note_verified; what was persisted, after a restart
};
// All streams in the directory that hold a segment, oldest first, the current one last. Returns how many there are;
// fills at most `capacity`.
size_t spool_streams(struct spool *spool, struct spool_stream_info *out, size_t capacity);
// One of them. False: the directory holds nothing of it.
bool spool_stream_find(struct spool *spool, const char *stream, struct spool_stream_info *out);

// A frame in memory, verified against its CRCs. Reference counted: librdkafka points into it until its delivery
// reports.
struct spool_frame {
    struct frame_header header;
    const uint8_t *body;
    uint32_t incarnation; // of a frame given to on_frame: its stream's; of others it says nothing
};
struct spool_frame *spool_frame_retain(struct spool_frame *frame);
void spool_frame_release(struct spool_frame *frame);

struct spool_reader; // one thread at a time
enum spool_read {
    SPOOL_READ_FRAME,   // *frame is the next data frame; the caller releases it
    SPOOL_READ_WAIT,    // nothing new within the timeout (current stream, or one that grows: spool/replica.h)
    SPOOL_READ_END,     // the stream has no more: ended, or an older one read to its verified end; should it grow, a
                        // later call goes on there
    SPOOL_READ_DAMAGED, // *damage names a range that cannot be read; the next call goes on behind it
    SPOOL_READ_FAILED,  // *err; a read error that is not damage (EIO, a lost file): try again later
};
struct spool_damage {
    uint64_t first_seq, last_seq; // inclusive
    char file[64];                // segment
    uint64_t offset;              // of the first bad byte range in it
    char verdict[32];             // word of the recovery table
};
// Reads from the frame that holds from_seq (≥ 1) or the first one after it. Only durable frames are given.
bool spool_reader_open(struct spool_reader **out, struct spool *spool, const char *stream, uint64_t from_seq,
                       struct sl_error *err) SL_MUST_USE;
enum spool_read spool_reader_next(struct spool_reader *reader, int64_t timeout_ns, struct spool_frame **frame,
                                  struct spool_damage *damage, struct sl_error *err);
bool spool_reader_seek(struct spool_reader *reader, uint64_t seq, struct sl_error *err) SL_MUST_USE;
// Makes a waiting spool_reader_next return SPOOL_READ_WAIT at once. Any thread.
void spool_reader_wake(struct spool_reader *reader);
void spool_reader_close(struct spool_reader *reader);

// ---- progress, told by the drainer

// Every record of the lane in this stream up to `through` is committed in Kafka, as far as the commit's answer says;
// `records` of them are new since the last call. For the pending sums; nothing is deleted for it.
void spool_note_committed(struct spool *spool, const char *stream, const char *lane, uint64_t through,
                          uint64_t records);
// The same, read back from Kafka to the high watermark. Persisted within a second or two; retention goes by it alone.
// Never moves back.
void spool_note_verified(struct spool *spool, const char *stream, const char *lane, uint64_t through);
// A small durable file of a stream (atomic replace, ≤ 64 KiB), for the drainer's own guard values. `name`:
// [a-z0-9.-]{1,40}.
bool spool_put_note(struct spool *spool, const char *stream, const char *name, const void *bytes, size_t length,
                    struct sl_error *err) SL_MUST_USE;
// *length: in: capacity, out: bytes; 0 when there is none.
bool spool_get_note(struct spool *spool, const char *stream, const char *name, void *bytes, size_t *length,
                    struct sl_error *err) SL_MUST_USE;
// Writes what even the dead-letter topic refuses to <dir>/refused/<stream>-<seq>.json + .bin, synced.
bool spool_put_refused(struct spool *spool, const char *stream, uint64_t seq, const struct record *record,
                       const char *cause, struct sl_error *err) SL_MUST_USE;

// ---- figures

struct spool_figures {
    uint64_t bytes; // in the directory, prepared segments included
    uint64_t max_bytes;
    uint64_t pending_bytes;         // unproduced, all streams of this node
    uint64_t pending_events;        // the same
    uint64_t copies_bytes;          // of copies of other nodes' streams (spool/replica.h), not trimmed yet
    uint64_t copies_events;         // the same
    int64_t oldest_pending_wall_ns; // when the oldest unproduced frame was written; 0 = nothing pending
    uint64_t appended_events;       // since start, synced
    uint64_t committed_events;      // since start
    uint64_t copied_events;         // since start: stored by spool_store, synced
    uint64_t refused_records;       // files in refused/
    uint64_t damaged_events;
    uint64_t segments, segments_ready;
    double seconds_to_full; // at the growth of the last minute; INFINITY when not growing
    bool failed;
    bool no_space;       // the preparer cannot make a segment right now
    bool copies_waiting; // stores stand still for a segment or for space
    // DESIGN.md 1.5, second sum: 0, or the largest difference seen between records appended to a lane and records
    // produced of it when its progress stood at the end of the stream.
    uint64_t conservation_error;
};
void spool_figures(struct spool *spool, struct spool_figures *out);
const struct histogram *spool_sync_histogram(const struct spool *spool);   // ns
const struct histogram *spool_commit_histogram(const struct spool *spool); // events a commit

#endif
