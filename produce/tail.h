// Reading progress: one consumer handle a lane, kept open, that reads the lane's partition of sluice.progress with
// isolation.level=read_committed.
//
// Only tail_read() may decide anything: it takes the high watermark as a read_uncommitted client sees it and reads
// until the position has reached it. A PARTITION_EOF alone proves nothing: another stream's open transaction holds the
// last stable offset back, and a read_committed handle then reports the end early (its own watermark is the stable
// offset, too).
//
// Threads: the lane's.
#ifndef SLUICE_PRODUCE_TAIL_H
#define SLUICE_PRODUCE_TAIL_H

#include "base/error.h"
#include "produce/progress.h"

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

struct tail {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic; // NULL while nothing is being read
    rd_kafka_queue_t *queue;
    int32_t partition;
    int64_t position; // next offset that read_committed has not shown yet; -1 = not known
    char key[PROGRESS_KEY_MAX];
    bool found;           // a record of this key was read
    struct progress last; // the newest one
    uint64_t unreadable;  // records of this key that did not decode
};

// Takes over the handle.
void tail_init(struct tail *tail, rd_kafka_t *rk);
// Starts again at the beginning of the partition of `stream`. False: *err, SL_E_UNAVAILABLE.
bool tail_start(struct tail *tail, const char *stream, const char *lane, struct sl_error *err) SL_MUST_USE;
// Takes what has arrived, waiting at most timeout_ms for the first of it. Returns whether tail->last changed.
bool tail_poll(struct tail *tail, int timeout_ms);
// The high watermark as read_uncommitted clients see it. SL_E_UNAVAILABLE.
bool tail_watermark(struct tail *tail, int64_t *offset, int timeout_ms, struct sl_error *err) SL_MUST_USE;
void tail_stop(struct tail *tail);
// Destroys the handle too.
void tail_free(struct tail *tail);

#endif
