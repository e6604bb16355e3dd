// What tests do with copies of another node's stream.
#ifndef SLUICE_TESTS_SPOOL_COPIES_H
#define SLUICE_TESTS_SPOOL_COPIES_H

#include "spool/replica.h"
#include "tests/spool/world.h"

#define COPY_STREAM "gw-b1.7-0123abcd"

struct stored {
    struct spool_store store; // first
    struct sent *sent;        // its records; the one of seq n has the number n - 1
    unsigned told;            // calls of done()
};
// `count` records of the stream from first_seq on, with payloads of about payload_bytes; lane "main", no predecessor.
struct stored *stored_new(struct world *world, const char *stream, uint64_t first_seq, uint32_t count,
                          size_t payload_bytes);
void stored_free(struct stored *stored);
// Steps replica thread's and keeper's work until it is told, a simulated minute at most. False: it stands still.
bool world_step_store(struct world *world, const struct stored *stored);
// Submits, steps, expects SYNCED, frees.
void world_store_ok(struct world *world, const char *stream, uint64_t first_seq, uint32_t count, size_t payload_bytes);
// The same with new_base.
void world_store_base_ok(struct world *world, const char *stream, uint64_t first_seq, uint32_t count,
                         size_t payload_bytes);
// Reading from seq 1 gives exactly first..last, in order, whole, without damage.
void world_expect_range(struct world *world, const char *stream, uint64_t first, uint64_t last);
// What is said of the stream. False: nothing of it is there.
bool world_info(struct world *world, const char *stream, struct spool_stream_info *out);

#endif
