// A spool in a world of its own: a disk in memory, a clock that only the test moves, chance from a seed, no threads.
// And what tests do with a spool: batches whose records say who they are, reading everything back, comparing.
#ifndef SLUICE_TESTS_SPOOL_WORLD_H
#define SLUICE_TESTS_SPOOL_WORLD_H

#include "spool/ids.h"
#include "spool/spool.h"
#include "tests/spool/disk.h"
#include "tests/spool/fault.h"

struct world {
    struct disk *disk;
    struct fault fault; // around the disk
    struct storage storage;
    struct spool_environment environment;
    _Atomic int64_t wall_ns, monotonic_ns;
    _Atomic uint64_t chance;
    struct spool_options options; // changed by tests before world_open
    struct spool *spool;
    unsigned failures; // calls of on_failed
};

// Takes the disk. Segments of 1 MiB, one prepared, 64 MiB budget, lane "main"; manual.
void world_init(struct world *world, struct disk *disk);
// Ids are kept, for a thousand hours behind their segments.
void world_keep_ids(struct world *world);
bool world_open(struct world *world, struct sl_error *err);
void world_open_ok(struct world *world);
// Steps the keeper until it has nothing to do right now.
void world_settle(struct world *world);
void world_advance(struct world *world, int64_t ns); // the clocks
// Closes the spool if it is open (whatever comes of it) and frees the disk.
void world_free(struct world *world);

// For cmocka: *state is a world over an empty disk.
int world_setup(void **state);
int world_teardown(void **state);
void world_close_ok(struct world *world);
// kill -9: what was written survives, locks and memory do not. The world goes on with the disk; call world_open again.
void world_kill(struct world *world);
// Of the streams that hold a segment, oldest first.
struct spool_stream_info world_stream_at(struct spool *spool, size_t index);
// That of an incarnation of this process, which must be listed.
struct spool_stream_info world_stream_of(struct spool *spool, uint32_t incarnation);
void world_next_ok(struct world *world); // spool_next_stream

// ---- batches

struct sent {
    struct spool_batch batch; // first
    unsigned told;            // calls of done()
    uint64_t first_id;        // records are numbered through a test: their payload starts with the number
    uint32_t count;
};
// A batch of `count` records with payloads of about payload_bytes each, numbered from first_id, in the lane.
struct sent *sent_new(struct spool *spool, uint64_t first_id, uint32_t count, size_t payload_bytes, const char *lane);
void sent_free(struct sent *sent);
// Submits and steps the writer (and, where it stands still, the keeper) until the batch is told. False: it was not
// taken.
bool world_send(struct world *world, struct sent *sent);
// The same, synced, freed.
void world_send_ok(struct world *world, uint64_t first_id, uint32_t count, size_t payload_bytes);

// `count` batches of one record of 100 KiB, numbered from 0: ten fill a segment.
void world_fill(struct world *world, uint64_t count);

// ---- reading back

struct read_record {
    uint64_t seq, id;
    bool good; // payload CRC and contents
};
struct read_stream {
    struct read_record *records;
    size_t count;
    struct spool_damage damages[64];
    size_t damage_count;
    enum spool_read end; // END, WAIT or FAILED
};
// Reads the stream from seq on, until END, WAIT or FAILED.
void read_all(struct spool *spool, const char *stream, uint64_t from_seq, struct read_stream *out);
void read_free(struct read_stream *read);
// From seq 1 on there are exactly `count` records, numbered from first_id, in order, whole, and no damage.
void world_expect_records(struct spool *spool, const char *stream, uint64_t first_id, size_t count);

// ---- ids

struct read_ids {
    uint64_t *seqs; // in the order in which they were given
    uint64_t count;
    unsigned units, kept, from_records, damaged, other_key;
    uint64_t bytes;
};
// All ids of an older stream behind after_seq. Each is that of the record with the number first_id + seq - 1, with the
// business hash of every fifth.
void read_ids(struct spool *spool, const char *stream, uint64_t after_seq, uint64_t first_id, struct read_ids *out);
void read_ids_free(struct read_ids *ids);
// Seqs first to last, each once, in order.
void read_ids_expect(const struct read_ids *ids, uint64_t first, uint64_t last);

// Lane and payload of a record, as made by sent_new. False: it is not one of those, or damaged.
bool record_id(const struct record *record, uint64_t *id);

#endif
