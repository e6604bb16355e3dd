// What the files of this folder share. Nobody else includes it, but for this folder's tests.
//
// Locks, in the order in which they may be taken:
//   spool->queue_mutex   the queue of batches, lane requests, the writer's sleep
//   spool->mutex         streams, segments, indexes, progress, ready segments, the published end
// Neither is held over a call of the storage but where a comment says so. Fields without a lock in their comment are
// constant after spool_open, atomic, or belong to the one thread that is named.
#ifndef SLUICE_SPOOL_INTERNAL_H
#define SLUICE_SPOOL_INTERNAL_H

#include "base/clock.h"
#include "spool/ids.h"
#include "spool/prepare.h"
#include "spool/recover.h"
#include "spool/segment.h"
#include "spool/spool.h"

#include <pthread.h>
#include <stdatomic.h>

// Where a call of spool_next_stream stands.
enum change {
    CHANGE_NONE,
    CHANGE_PREPARING, // number and directory; the caller's thread
    CHANGE_ASKED,     // next_stream waits for the writer
    CHANGE_UNDER_WAY, // the writer has it
    CHANGE_DONE,
    CHANGE_NO_ROOM, // next_stream is as it was
    CHANGE_FAILED,  // the spool has
};

enum {
    READY_MAX = 64,
    QUICK_SEGMENT_BYTES = 16 << 20, // the first one of a spool without any: the start must not wait for a whole one
    QUICK_ZERO_BYTES = 4 << 20,
    MIN_SEGMENT_BYTES = 1 << 20,
    // A frame takes no further batch beyond this. Larger ones cost more CPU a byte, because checksum and copy each
    // fetch the bytes from memory again: 0.7 ms a MiB at 1 and 2 MiB, 1.3 ms at 4 (tests/spool/spool_bench.c).
    GROUP_BYTES = 2 << 20,
    INDEX_STEP_BYTES = 1 << 20,
    LARGE_FRAME_BYTES = 256 << 10, // mean of a second, from which on segments are handed over unzeroed
    LARGE_FRAMES_MIN = 16,         // in that second
    // Frames from this size on are put together in memory and written past the page cache: a page that the cache has to
    // fetch first costs more than the write (docs/performance.md). Smaller ones cost the same either way.
    DIRECT_FRAME_BYTES = 128 << 10,
    CHECKPOINTS = 64,
};
#define INDEX_STEP_NS SL_NS_PER_S

// ---- streams (guarded by spool->mutex)

struct index_entry {
    uint64_t seq; // first of the frame at
    uint64_t offset;
    int64_t wall_ns; // when it was written
};

struct segment {
    uint64_t first_seq;
    uint64_t file_bytes;  // what it takes of the disk
    uint64_t used_bytes;  // behind its last durable frame; file_bytes while nobody has looked (older streams)
    int64_t last_wall_ns; // of its last frame; of the file while nobody has looked
    bool closed;          // the stream goes on in another segment, or has ended: nothing is written here any more
    bool damaged;         // never deleted
    bool grown;           // by the replica thread of this process
    struct index_entry *index;
    size_t index_count, index_capacity;
};

// What is kept of a deleted segment.
struct ids_file {
    uint64_t first_seq, last_seq;
    uint64_t file_bytes;
    int64_t last_wall_ns; // when its last record was written
};

// Where a lane's drain stood at some commit: `records` of the lane were produced through `through`.
struct checkpoint {
    uint64_t through;
    uint64_t records;
};

struct lane_state {
    char name[SPOOL_NAME_MAX + 1];
    uint64_t appended;     // records of the lane; streams that this process has written only
    uint64_t appended_seq; // last seq of the last batch that held any; as appended
    uint64_t committed;    // through
    uint64_t committed_records;
    uint64_t verified_told; // read back from Kafka; may be ahead of what the drainer has counted
    uint64_t verified;      // through; never beyond committed
    // The last commit that is verified: what goes to disk. Retention goes by it, so that after a crash no record is
    // deleted that the drainer's walk has still to count.
    struct checkpoint stored;
    // Ring of commits that are not verified yet, oldest first.
    struct checkpoint checkpoints[CHECKPOINTS];
    size_t checkpoint_first, checkpoint_count;
};

struct stream {
    struct spool *spool;
    struct stream *next; // older to newer
    char id[SPOOL_STREAM_ID_MAX];
    char node[SPOOL_NAME_MAX + 1];
    char dir[SPOOL_PATH_MAX];
    uint64_t counter;
    char predecessor[SPOOL_STREAM_ID_MAX];
    uint64_t predecessor_seq;
    bool current;
    bool written;         // by this process, to its end or until now: its sums are known lane by lane
    uint32_t incarnation; // written: of the process, from 0; constant
    bool scanned;         // end_seq is known; not set while it is written
    bool gone;            // its directory was deleted, or held no segment
    bool growing;         // the replica thread has it: its end moves, its directory stays
    bool removing;        // the keeper is deleting its directory
    bool uncounted;       // an own stream that grew without its beginning: what was produced of it is not known
    uint64_t end_seq;
    uint64_t base_seq;        // everything below was deleted or trimmed: it is in Kafka; ≥ 1
    uint32_t chain;           // header CRC of its last frame, for the segment in which it grows; 0: not known
    uint64_t guard;           // of its marks, when they were put by this process
    struct segment *segments; // by first_seq
    size_t segment_count, segment_capacity;
    struct ids_file *ids; // by first_seq
    size_t ids_count, ids_capacity;
    uint64_t ids_released; // spool_ids_release
    uint32_t lane_count;
    struct lane_state lanes[SPOOL_LANES_MAX];
    struct spool_damage *damages; // persisted in <stream>/damaged
    size_t damage_count;
    bool settled;          // its last segment was synced by this process (see stream_settle)
    int64_t retry_walk_ns; // keeper
    bool progress_dirty;
    bool damage_dirty;
};

// ---- frames in memory

// Recycles buffers of frames. Lives until its last frame is released, which may be after spool_close. Any thread.
struct frame_pool;
struct frame_pool *frame_pool_new(void);
void frame_pool_release(struct frame_pool *pool);
// A frame with room for `length` bytes of body and one reference. NULL: out of memory.
struct spool_frame *frame_pool_take(struct frame_pool *pool, size_t length);
uint8_t *frame_bytes(struct spool_frame *frame);
// Where its header would stand before the body: an address that is a multiple of SPOOL_BLOCK, with room for header,
// body and padding.
uint8_t *frame_image(struct spool_frame *frame);

// The last large frames of the stream being written, so that a drain that follows closely takes them from memory: they
// went to the disk past the page cache. All with spool->mutex.
enum { RECENT_FRAMES = 128, RECENT_BYTES = 32 << 20 };
struct recent {
    struct {
        struct spool_frame *frame;
        bool taken; // by a reader
    } ring[RECENT_FRAMES];
    size_t first, count, bytes;
    bool followed; // a reader is close behind: frames are kept for it
};
void recent_add(struct recent *recent, struct spool_frame *frame); // takes a reference of its own, or does not
struct spool_frame *recent_find(struct recent *recent, uint64_t first_seq,
                                uint64_t offset); // for the caller to release
void recent_clear(struct recent *recent);

// ---- the spool

struct writer { // writer thread only, but for what says otherwise
    struct stream_log log;
    struct spool_batch *first, **last; // taken from the queue, not written yet
    struct iovec parts[FRAME_PARTS_MAX + 2];
    bool finished;
    bool gave_up; // at the end, on batches for which there was no space
    bool failure_told;
};

struct keeper { // keeper thread only
    struct preparer preparer;
    int64_t next_prepare_ns; // not before: after a failure
    int64_t next_copy_ns;    // the same for what copies need
    int64_t next_fill_ns;    // not before: to leave the disk to the writer
    bool ballast;            // is there
    bool large_frames;       // in the last second: then zeroing ahead is not worth its bytes
    uint64_t frames_seen, frame_bytes_seen;
    int64_t next_second_ns;
    struct scanner scan;    // of an older stream that nobody has walked yet
    struct stream *scanned; // NULL: none is under way
};

struct spool {
    struct storage storage;
    struct spool_environment environment;
    char dir[SPOOL_PATH_MAX];
    char node[SPOOL_NAME_MAX + 1];
    uint64_t segment_bytes, max_bytes, append_bytes;
    int64_t retain_ns;
    int64_t ids_window_ns;
    uint8_t ids_key_id[IDS_KEY_ID_BYTES];
    void (*on_failed)(void *user, const struct sl_error *err);
    void (*on_frame)(void *user, struct spool_frame *frame);
    void (*on_synced)(void *user, uint32_t incarnation, uint64_t through);
    void *user;
    uint64_t counter_min;
    struct frame_pool *pool;

    pthread_mutex_t queue_mutex;
    pthread_cond_t queue_filled;                   // with queue_mutex
    struct spool_batch *queue_first, **queue_last; // queue_mutex
    char lane_wanted[SPOOL_NAME_MAX + 1];          // queue_mutex; "" = none
    enum change change;                            // queue_mutex
    struct stream *next_stream;                    // queue_mutex; in no list yet
    pthread_cond_t writer_answered;                // with queue_mutex; a lane is declared, a stream changed, or not

    pthread_mutex_t mutex;
    pthread_cond_t published;              // with mutex; a waiting reader: new frames, or a wake
    pthread_cond_t keeper_wanted;          // with mutex
    uint64_t publications;                 // mutex; frames, seals and segments made visible
    struct recent recent;                  // mutex
    struct stream *streams;                // mutex; the list only grows
    struct stream *_Atomic current;        // changed by the writer, with mutex
    struct ready_segment ready[READY_MAX]; // mutex
    size_t ready_count;                    // mutex
    uint64_t
        wanted_bytes; // mutex; of a body: the writer stands still for a segment with that much room; 0 = it does not
    uint64_t copy_wanted_bytes; // mutex; the same for the replica thread
    unsigned streams_growing;   // mutex
    uint64_t file_bytes;        // mutex; everything in dir

    _Atomic uint64_t synced_seq;
    _Atomic uint64_t queued_bytes;  // submitted, not told yet
    _Atomic uint64_t pending_bytes; // unproduced
    _Atomic uint64_t room_current;  // for bodies, in the segment being written
    _Atomic uint64_t room_ready;    // and in the ready ones, all and the largest
    _Atomic uint64_t room_ready_largest;
    _Atomic uint64_t asked_bytes[SPOOL_PRIORITIES]; // the largest batch of each that an empty spool would take
    _Atomic uint64_t appended_events, committed_events, copied_events, refused_records, conservation_error;
    char lanes[SPOOL_LANES_MAX][SPOOL_NAME_MAX + 1];

    struct histogram sync_ns, commit_events;
    double growth_bytes_per_s; // mutex
    int64_t growth_at_ns;      // mutex
    uint64_t growth_pending;   // mutex
    _Atomic uint64_t appended_bytes;

    struct writer writer;
    struct keeper keeper;
    struct replicas *replicas;
    pthread_mutex_t progress_mutex; // over the replacement of a progress file; before spool->mutex
    pthread_mutex_t marks_mutex;    // over all calls for <dir>/marks
    bool marks_there;               // marks_mutex; the directory is, durably
    struct sl_error failure;        // queue_mutex; the first one, when `failed`
    pthread_t writer_thread, keeper_thread;
    uint32_t prepared;
    int lock_handle;
    bool manual;
    unsigned readers_waiting;    // mutex
    _Atomic uint32_t lane_count; // of the current stream; names below it are constant
    bool writer_kicked;          // queue_mutex; there is a reason to look again
    bool closing;                // queue_mutex
    bool keeper_kicked;          // mutex
    bool keeper_stop;            // mutex
    _Atomic bool failed, stopping, no_space;
    _Atomic bool copies_waiting, copies_no_space; // copies stand still; the keeper cannot make a segment for them
};

int64_t spool_wall_ns(const struct spool *spool);
int64_t spool_monotonic_ns(const struct spool *spool);

// files.c: small files, replaced as a whole (temporary file, sync, rename, sync of the directory).
bool spool_replace_file(const struct storage *storage, const char *dir, const char *name, const void *bytes,
                        size_t length, struct sl_error *err) SL_MUST_USE;
// *length: in: capacity, out: bytes; 0 when the file is not there. SL_E_TOO_LARGE when it does not fit.
bool spool_read_file(const struct storage *storage, const char *dir, const char *name, void *bytes, size_t *length,
                     struct sl_error *err) SL_MUST_USE;

// streams.c
// Lists the directory; appends what it finds to spool->streams, oldest first. Before the threads start.
bool streams_discover(struct spool *spool, struct sl_error *err) SL_MUST_USE;
// Increments the durable counter, beyond any stream that is there. One call at a time.
bool streams_next_counter(struct spool *spool, uint64_t *out, struct sl_error *err) SL_MUST_USE;
// "<node>.<counter>-<8 hex>"; the node has no dot.
bool stream_parse_id(const char *id, char node[SPOOL_NAME_MAX + 1], uint64_t *counter);
struct stream *stream_new(struct spool *spool, const char *id);
void stream_free(struct stream *stream);
// The next one in the list, the first one behind NULL; NULL behind the last. Streams are added while the spool is open,
// and freed at its end. Takes spool->mutex.
struct stream *stream_after(struct spool *spool, struct stream *stream);
// With spool->mutex.
struct stream *stream_find(struct spool *spool, const char *id);
struct stream *stream_find_any(struct spool *spool, const char *id); // also one that is gone
void streams_insert(struct spool *spool, struct stream *stream);     // by counter, before the one that is written
bool stream_is_copy(const struct stream *stream);                    // another node wrote it
void stream_add_lane(struct stream *stream, const char *name);       // unless it is there, or there are too many
struct segment *stream_add_segment(struct stream *stream, uint64_t first_seq, uint64_t file_bytes); // at the end
void stream_remove_segment(struct stream *stream, size_t index);
// The last segment with first_seq ≤ seq; NULL when there is none.
struct segment *stream_segment_of(struct stream *stream, uint64_t seq);
void segment_index_add(struct segment *segment, uint64_t seq, uint64_t offset, int64_t wall_ns);
// The last entry with seq ≤ the given one; NULL when there is none.
const struct index_entry *segment_index_find(const struct segment *segment, uint64_t seq);
struct lane_state *stream_lane(struct stream *stream, const char *lane); // NULL when there is none

// progress.c
bool progress_load(struct stream *stream, struct sl_error *err) SL_MUST_USE;  // before the threads start
bool progress_store(struct stream *stream, struct sl_error *err) SL_MUST_USE; // takes and leaves spool->mutex
bool damage_load(struct stream *stream, struct sl_error *err) SL_MUST_USE;
bool damage_store(struct stream *stream, struct sl_error *err) SL_MUST_USE; // takes and leaves spool->mutex
// Notes a range that cannot be read, once; persists, logs. Takes and leaves spool->mutex.
void damage_report(struct stream *stream, const struct spool_damage *damage);

// figures.c, with spool->mutex
uint64_t stream_first_pending(const struct stream *stream); // UINT64_MAX: nothing is pending
uint64_t stream_pending_events(const struct stream *stream);
uint64_t stream_pending_bytes(const struct stream *stream, int64_t *oldest_wall_ns);
void figures_refresh(struct spool *spool);
void stream_info(const struct stream *stream, struct spool_stream_info *out);
void figures_room(struct spool *spool);              // the ready part of what spool_admit reads
uint64_t figures_reserve(const struct spool *spool); // bytes of it that admission keeps; any thread
void figures_check_lane(struct spool *spool, const struct stream *stream, const struct lane_state *lane);

// spool.c, with queue_mutex
bool spool_alive(const struct spool *spool);
void spool_wait_for_writer(struct spool *spool); // for an answer; releases queue_mutex meanwhile

// commit.c
void *writer_main(void *spool);
// Makes *ready the segment that is written; the first one of the stream, or after a seal. Readers see it behind
// writer_add_segment, which wants spool->mutex.
bool writer_activate(struct spool *spool, struct ready_segment *ready, int64_t wall_ns,
                     struct sl_error *err) SL_MUST_USE;
void writer_add_segment(struct spool *spool, int64_t wall_ns);

// incarnation.c
// A stream with a number and a directory, in no list: its maker's. NULL: *err.
struct stream *incarnation_make(struct spool *spool, struct sl_error *err);
void incarnation_discard(struct stream *stream); // which was not begun
// Names the newest older stream of this node as its predecessor. Before the threads start.
void incarnation_follow_older(struct stream *stream);
// Makes it the stream that is written, with its first segment. The one before must be sealed. Takes *stream and *ready
// in any case.
bool incarnation_begin(struct spool *spool, struct stream *stream, struct ready_segment *ready,
                       struct sl_error *err) SL_MUST_USE;
// Writer: the stream that was asked for and its first segment; NULL: not, or there is no segment for it. To be answered
// by incarnation_taken.
struct stream *incarnation_take(struct spool *spool, struct ready_segment *ready);
void incarnation_taken(struct spool *spool, bool changed);

// Another thread met an error that is the end of the spool. The writer tells everybody. Without locks.
void writer_fail(struct spool *spool, const struct sl_error *err);
void wake_readers(struct spool *spool); // something was published. With spool->mutex

// replica.c
bool replica_new(struct spool *spool) SL_MUST_USE; // false: out of memory
void replica_kick(struct spool *spool);            // there may be room. Without spool->mutex
void replica_stop(struct spool *spool);            // writes and seals what it can, tells the rest
void replica_free(struct spool *spool);

// Makes the writer look again: a batch, a lane, a segment, the end. Without spool->mutex.
void writer_kick(struct spool *spool);

// ballast.c: a file that is there to be deleted. A start on a full disk gives it up, so that the new stream's first
// files find room and what is spooled can be drained; the keeper makes it again when there is space.
enum { BALLAST_BYTES = 512 << 10 };
bool ballast_make(const struct storage *storage, const char *dir);
bool ballast_is_there(const struct storage *storage, const char *dir);
// True when it was there.
bool ballast_give_up(const struct storage *storage, const char *dir);

// ids_read.c
// out = <stream>/<first_seq as 16 hex digits>.ids
void ids_path(char out[SPOOL_PATH_MAX], const struct stream *stream, uint64_t first_seq);
// spool_ids_read, of any stream; adds to *result. *after_seq moves on to the last seq that was given.
bool ids_read(struct stream *stream, const struct spool_ids_unit *unit, uint64_t *after_seq, spool_ids_each *each,
              void *user, struct spool_ids_result *result, struct sl_error *err) SL_MUST_USE;

// ids_keep.c
// A .ids file was found; before the threads start.
void ids_found(struct stream *stream, uint64_t first_seq, const struct storage_file_info *info);
void ids_learn(struct stream *stream); // behind the last ids_found: reads a little of each
// Before a segment is deleted: writes what is to be kept of it, durably. False: that failed. Keeper.
bool ids_keep(struct stream *stream, const struct segment *segment, uint64_t last_seq, int64_t now_wall_ns,
              struct sl_error *err) SL_MUST_USE;
// Deletes one .ids file that is not needed any more; with `space` the oldest of all. True when there was one. Keeper.
bool ids_step(struct spool *spool, bool space, int64_t now_wall_ns);

// keeper.c
void *keeper_main(void *spool);
void keeper_kick(struct spool *spool); // with spool->mutex
// Does a small piece of what there is to do. *pause_ns: how long to wait before the next call. True when something was
// done.
bool keeper_step(struct spool *spool, int64_t *pause_ns);
void keeper_persist(struct spool *spool); // progress and damage that changed
void keeper_release(struct spool *spool);
// With spool->mutex: index of the first ready segment with room for a body of so many bytes; SIZE_MAX: none.
size_t ready_fitting(const struct spool *spool, uint64_t body_bytes);
// With spool->mutex: takes it out of the list.
struct ready_segment ready_take(struct spool *spool, size_t index);

// walk.c: one slice each; true when something was done.
bool walk_step(struct spool *spool); // headers of older streams: end, index, pending
// scan_source over the list in memory; takes spool->mutex.
bool stream_source(void *stream, uint64_t at_least, struct scan_segment *out);
// Initialises a scanner at the nearest known place at or before the frame that holds from_seq. Takes spool->mutex.
void stream_scanner(struct scanner *scanner, struct stream *stream, uint64_t from_seq, bool bodies);
// Syncs the last segment of an older stream, once, before anything is decided by what it holds: after kill -9 its last
// frame may be in the page cache alone, and would be gone after a power loss although it was produced.
void stream_settle(struct stream *stream);
struct spool_damage damage_of(const struct scan_event *event);
// retain.c
// Everything up to it is in Kafka, verified, or belongs to lanes without records. With spool->mutex.
uint64_t stream_verified(const struct stream *stream);
// Deletes at most one segment (or one empty stream). `space`: because space is needed, whatever its age. True when it
// did.
bool retain_step(struct spool *spool, bool space);

#endif
