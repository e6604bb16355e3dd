// A stream of three segments on a disk in memory, to be damaged, and scans of it that check that nothing is invented
// and nothing comes twice.
#ifndef SLUICE_TESTS_SPOOL_SCAN_FIXTURE_H
#define SLUICE_TESTS_SPOOL_SCAN_FIXTURE_H

#include "spool/internal.h"
#include "tests/spool/disk.h"

enum { SEGMENT = 256 << 10, FRAMES_MAX = 32 };

struct fixture {
    struct disk *disk;
    struct storage storage;
    struct frame_pool *pool;
    uint64_t segments[8]; // first seqs
    size_t segment_count;
    uint64_t base_seq;
    struct frame_header frames[FRAMES_MAX]; // data frames, in order
    size_t frame_segment[FRAMES_MAX];       // index into segments
    size_t frame_count;
    uint64_t seal_offset[8];
    bool ids; // with ids frames: one before the last data frame of a segment, two before its seal
    uint64_t ids_offset[8][3];
    uint64_t acked_floor;
};

struct walk {
    bool taken[FRAMES_MAX];
    size_t damage_count;
    struct scan_event damages[8];
    struct scan_event end;
    uint64_t next_seq; // headers only: behind the last frame that was not taken back
};

// For cmocka: *state is a fixture. Each segment has four frames; the last one of each has 5,000 bytes, so several
// sectors and two blocks. The last segment is not sealed, as after a crash.
int fixture_setup(void **state);
int fixture_setup_ids(void **state); // with ids frames
int fixture_teardown(void **state);
// The same stream on a disk of its own.
struct fixture fixture_copy(const struct fixture *f);
void fixture_free(struct fixture *f);
void fixture_path(const struct fixture *f, size_t segment, char path[SPOOL_PATH_MAX]);
void fixture_scan(struct fixture *f, bool bodies, struct walk *walk);
// With bodies and by headers alone: both agree on the verdicts and on the end.
void fixture_scan_both(struct fixture *f, struct walk *walk);
// All frames were taken but first_missing to last_missing (indexes into f->frames); SIZE_MAX, 0: all.
void fixture_expect_all_but(const struct fixture *f, const struct walk *walk, size_t first_missing,
                            size_t last_missing);

#endif
