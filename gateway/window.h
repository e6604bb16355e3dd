// The process's window of ids: its key, its memory, its rebuild at the start, its upkeep.
//
// One thread of its own ("dedupe"): it loads the snapshot and reads the ids that the spool knows beyond it, tells the
// ingest that requests may come, and from then on ticks once a second, tells how far Kafka has older streams, writes
// snapshots and warns when the memory is too small for the rate.
#ifndef SLUICE_GATEWAY_WINDOW_H
#define SLUICE_GATEWAY_WINDOW_H

#include "dedupe/dedupe.h"
#include "gateway/ingest.h"
#include "spool/ids.h"
#include "spool/spool.h"

struct window;

struct window_options {
    const struct storage *storage;
    const char *spool_dir; // the snapshot lies in <spool_dir>/dedupe
    const char *key_file;  // NULL: <spool_dir>/dedupe.key
    int64_t window_ns;     // > 0
    uint64_t memory_bytes;
    int64_t snapshot_every_ns;
};
// Reads the key, or makes it (and spool_dir, for the key to lie in), and takes the memory. Before the spool is opened:
// the spool wants the key's id. SL_E_INVALID (the key file), SL_E_IO, SL_E_NO_MEMORY.
bool window_new(struct window **out, const struct window_options *options, struct sl_error *err) SL_MUST_USE;
struct dedupe *window_dedupe(struct window *window);
const struct dedupe_key *window_key(const struct window *window);
// Starts the thread. Both must live until window_stop. SL_E_NO_MEMORY.
bool window_start(struct window *window, struct spool *spool, struct ingest *ingest, struct sl_error *err) SL_MUST_USE;
// What the thread does first, in the caller's, and instead of window_start: for those that measure or test it. False:
// window_stop_begin was called.
bool window_load(struct window *window, struct spool *spool);
// Asks the thread to end; with `snapshot`, after a last one, if the rebuild had ended. Returns at once.
void window_stop_begin(struct window *window, bool snapshot);
// Waits for its end. Also when it was never started.
void window_stop(struct window *window);
void window_free(struct window *window); // after window_stop; NULL is allowed

// Records of another node's stream (or of an older one of this node that peers give back) are durable here: `count` of
// them from first_seq on. Their ids are known from now on, or when the rebuild has ended. Any one thread at a time; in
// the order of the stream.
void window_replica(struct window *window, const char *stream, uint64_t first_seq, uint32_t count, const void *body,
                    size_t length);

// The rebuild has ended: window_ids may be called.
bool window_is_live(struct window *window);
// Ids that a peer knows, of events that did not come by window_replica: this node was away. `in_kafka`: the stream is
// in Kafka through this seq, UINT64_MAX: all of it; 0: not said. The thread of window_replica.
void window_ids(struct window *window, const char *stream, const struct spool_ids_block *block, uint64_t in_kafka);

struct window_status {
    struct dedupe_figures figures;
    bool complete;                              // the rebuild has ended
    uint64_t rebuild_ids;                       // taken so far, from snapshot and spool
    uint64_t rebuild_done_bytes, rebuild_bytes; // of the ids to be read from the spool
    double rebuild_seconds;                     // so far, or in all
    uint64_t replica_ids;                       // taken from other nodes' events since then
    int64_t snapshot_wall_ns;                   // of the last one that was written or loaded; 0: none
    char snapshot_error[500];                   // of the last attempt, "" when it went well
    char alarm[300];                            // "" or: the memory is too small, with the arithmetic
};
// Any thread.
void window_status(struct window *window, struct window_status *out);
bool window_is_complete(const struct window *window);

#endif
