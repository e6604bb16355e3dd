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

    _Atomic bool complete;
    _Atomic uint64_t rebuild_ids, rebuild_done_bytes, rebuild_bytes;
    _Atomic int64_t rebuild_started_ns, rebuild_ended_ns; // 0: not yet

    // The thread's own.
    struct known_stream *known;
    size_t known_count, known_capacity;
    uint64_t own_through; // of the snapshot being written
    int64_t next_upkeep_ns, next_snapshot_ns;
    int64_t warned_ns; // of the last warning about memory; 0: none yet
};

bool window_is_stopping(struct window *window);
// The entry of a stream, made when there is none.
struct known_stream *window_known(struct window *window, const char *stream);
// Says in log and status whether the memory is enough at `ids_per_second`; `when` is a word for the log.
void window_check_memory(struct window *window, double ids_per_second, const char *when);

// ---- window_rebuild.c

// Snapshot, then what the spool knows beyond it. False: the process is to end.
bool window_rebuild(struct window *window);
// After a snapshot: the spool needs to keep no ids for a restart that are in it.
void window_release_ids(struct window *window);

#endif
