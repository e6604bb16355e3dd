// Shared by window.c and window_rebuild.c alone.
#ifndef SLUICE_GATEWAY_WINDOW_INTERNAL_H
#define SLUICE_GATEWAY_WINDOW_INTERNAL_H

#include "base/clock.h"
#include "gateway/window.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

enum { WINDOW_ORIGINS_MAX = 256 }; // dedupe gives out no more
// Stands for many older streams when there are too many to be named. No stream is called so.
#define WINDOW_SHARED_ORIGIN "(older streams)"

// What the window knows of an older stream: everything up to this seq. The window's thread's own.
struct known_stream {
    char stream[SPOOL_STREAM_ID_MAX];
    uint64_t through;
};

// A stream of another node, as it grew here in this process. feed_lock.
struct fed_stream {
    char stream[SPOOL_STREAM_ID_MAX];
    uint64_t from, through; // ids taken; 0: none yet. What lies between and is missing was let go as produced
    uint64_t behind;        // from here on they are still to be read from the spool; 0: none are
};

struct window {
    struct storage storage;
    char spool_dir[PATH_MAX], dir[PATH_MAX];
    int64_t window_ns, snapshot_every_ns;
    struct dedupe_key key;
    struct dedupe *dedupe;
    struct spool *spool;
    struct ingest *ingest;

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;          // with lock; CLOCK_MONOTONIC
    bool stopping, last_snapshot; // lock
    int64_t snapshot_wall_ns;     // lock
    char snapshot_error[500];     // lock
    char alarm[300];              // lock

    pthread_mutex_t feed_lock;
    struct fed_stream *fed; // feed_lock
    size_t fed_count, fed_capacity;
    bool live;                   // feed_lock: ids are taken as they come
    int64_t no_origin_warned_ns; // the replication thread's, or until `live` the window's own

    _Atomic bool complete;
    _Atomic uint64_t fed_ids;
    _Atomic uint64_t rebuild_ids, rebuild_done_bytes, rebuild_bytes;
    _Atomic int64_t rebuild_started_ns, rebuild_ended_ns; // 0: not yet

    // The thread's own.
    struct known_stream *known;
    size_t known_count, known_capacity;
    uint32_t own_incarnation; // of the snapshot being written: what is before it is in it, and of it
    uint64_t own_through;     // what is up to here
    int64_t next_upkeep_ns, next_snapshot_ns;
    int64_t warned_ns; // of the last warning about memory; 0: none yet
};

bool window_is_stopping(struct window *window);
// The entry of a stream, made when there is none.
struct known_stream *window_known(struct window *window, const char *stream);
// Through which seq the snapshot of now covers a stream that this process did not write.
uint64_t window_covers(struct window *window, const char *stream);
// The same of one that it wrote; incarnation ≤ own_incarnation.
uint64_t window_own_covers(struct window *window, uint32_t incarnation);
// Says in log and status whether the memory is enough at `ids_per_second`; `when` is a word for the log.
void window_check_memory(struct window *window, double ids_per_second, const char *when);

// ---- window_rebuild.c

// Snapshot, then what the spool knows beyond it. False: the process is to end.
bool window_rebuild(struct window *window);
// After a snapshot: the spool needs to keep no ids for a restart that are in it.
void window_release_ids(struct window *window);

// ---- window_feed.c

// The rebuild has ended: takes what was noted meanwhile, and from then on ids as they come.
void window_feed_begin(struct window *window);
// The name of one of the streams that grew here. False: there are no more.
bool window_fed_name(struct window *window, size_t index, char out[SPOOL_STREAM_ID_MAX]);
// What is known of a stream beyond known_through. `known`: the stream was there at the start.
uint64_t window_fed_through(struct window *window, const char *stream, uint64_t known_through, bool known);

#endif
