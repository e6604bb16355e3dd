// One stream that grows. See replica.c for who calls.
//
// Threads: all of it is the replica thread's. Calls block for the disk.
#ifndef SLUICE_SPOOL_GROW_H
#define SLUICE_SPOOL_GROW_H

#include "spool/internal.h"
#include "spool/replica.h"

struct growth {
    struct growth *next;
    char id[SPOOL_STREAM_ID_MAX];
    struct stream *stream;             // NULL: not looked up yet
    bool directory;                    // is there, durably
    bool base_waits;                   // to become durable
    struct spool_store *first, **last; // what waits
    struct stream_log log;
    int64_t grown_ns; // when the last store came
};

enum grow {
    GROW_DONE,
    GROW_IDLE,    // nothing waits
    GROW_STARVED, // for a segment, or for space
    GROW_FAILED,  // *err: the spool has failed
};

struct growth *growth_new(struct spool *spool, const char *id);
// One small piece: at most one frame or one change of segment. `parts` is working memory, FRAME_PARTS_MAX + 2.
enum grow growth_step(struct spool *spool, struct growth *growth, struct iovec *parts, struct sl_error *err);
// The first that waits.
void growth_tell_first(struct growth *growth, enum spool_outcome outcome);
// Hardly anything will come any more: its node writes another stream, or all of it is produced.
bool growth_is_over(struct spool *spool, const struct growth *growth);
// Seals what is open, unless the spool has failed, and frees. Nothing may wait. False: *err, and it is freed all the
// same.
bool growth_end(struct spool *spool, struct growth *growth, struct sl_error *err) SL_MUST_USE;

#endif
