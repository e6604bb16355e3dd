// The progress record: what a drainer knows to be in Kafka of one stream and lane. A value of the compacted topic
// sluice.progress, and the codec between it and bytes. Pure; any thread.
//
//   key    "<stream>/<lane>"
//   value  u32 magic "SLPG" · u8 version · u8 flags · u16 zero · u64 through · u64 claim · i64 written_wall_ns ·
//          u8 length + drainer · u16 count + count × (u64 first, u64 last) · u32 CRC32C of all bytes before
#ifndef SLUICE_PRODUCE_PROGRESS_H
#define SLUICE_PRODUCE_PROGRESS_H

#include "base/error.h"
#include "spool/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_TOPIC "sluice.progress"

enum {
    PROGRESS_VERSION = 1,
    PROGRESS_PARTITIONS = 16,
    // Damaged ranges that one record can name. More than that is no drain that should go on by itself.
    PROGRESS_OPEN_MAX = 256,
    PROGRESS_KEY_MAX = SPOOL_STREAM_ID_MAX + 1 + SPOOL_NAME_MAX, // with its terminator
    PROGRESS_BYTES_MAX = 4 + 4 + 3 * 8 + 1 + SPOOL_STREAM_ID_MAX + 2 + PROGRESS_OPEN_MAX * 16 + 4,
};

struct progress_range {
    uint64_t first, last; // seqs, inclusive
};

struct progress {
    uint64_t through; // every record of the lane up to here has a home: the topic, its dead-letter topic, or refused/
    uint64_t claim;   // grows by one with each drainer
    int64_t written_wall_ns;
    bool closed;                       // a hint: the stream ends at `through`
    char drainer[SPOOL_STREAM_ID_MAX]; // the stream that the draining process writes itself: one name an incarnation
    uint32_t open_count;
    struct progress_range open[PROGRESS_OPEN_MAX]; // could not be read; sorted, apart from each other
};

// Returns the length. `bytes` has PROGRESS_BYTES_MAX.
size_t progress_encode(const struct progress *progress, uint8_t *bytes);
// SL_E_CORRUPT: not a progress record of a version that this program reads.
bool progress_decode(struct progress *progress, const void *bytes, size_t length, struct sl_error *err) SL_MUST_USE;

// Adds a range and joins it with those that it touches. False: there is no room.
bool progress_open_add(struct progress *progress, uint64_t first, uint64_t last) SL_MUST_USE;
bool progress_open_has(const struct progress *progress, uint64_t seq);

void progress_key(char key[PROGRESS_KEY_MAX], const char *stream, const char *lane);
// All lanes of a stream lie in one partition.
int32_t progress_partition(const char *stream);
// "gw-a1" of "gw-a1.42-7f3a": node names have no dot.
void progress_node(char node[SPOOL_NAME_MAX + 1], const char *stream);

#endif
