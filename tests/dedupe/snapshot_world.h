// A window with ids in it, a disk in memory, snapshots between them.
//
// Threads: one, but for what a test starts itself.
#ifndef SLUICE_TESTS_DEDUPE_SNAPSHOT_WORLD_H
#define SLUICE_TESTS_DEDUPE_SNAPSHOT_WORLD_H

#include "dedupe/dedupe.h"
#include "dedupe/snapshot_format.h"
#include "tests/spool/disk.h"

#define SECOND   INT64_C(1000000000)
#define NOW      (INT64_C(1700000000) * SECOND)
#define WINDOW   (INT64_C(3600) * SECOND)
#define LATER    (NOW + WINDOW / 2) // when the last id of window_filled came
#define OWN      "gw-a1.7-00c0ffee"
#define PEER     "gw-b1.3-0badf00d"
#define PEER_SEQ ((UINT64_C(5) << 32) - IDS / 2 + 13) // the first: they pass 2^32 within a generation
enum { DISK_BYTES = 64 << 20, IDS = 1000, BLOCK = 4096, STREAMS_MAX = 8 };

extern struct dedupe_key key;
int set_up_key(void **state);

struct dedupe_id id_of(uint64_t number);
uint64_t payload_of(uint64_t number);
struct dedupe *window_new(int64_t now_ns); // of the least memory
struct dedupe *window_of(uint64_t memory_bytes, int64_t now_ns);
// 2 × IDS ids over half an hour: IDS of its own (seq = number + 1), IDS of a peer (seq =
// PEER_SEQ + number - IDS).
struct dedupe *window_filled(void);
struct dedupe_claim claim(struct dedupe *dedupe, uint64_t number, int64_t now_ns);
void store(struct dedupe *dedupe, uint64_t number, int64_t now_ns, uint64_t seq);
// Asserts that it is there as this, or not at all.
bool is_there(struct dedupe *dedupe, uint64_t number, const char *stream, uint64_t seq);
// How many of window_filled's are there. Asserts that what is there is right, and what never was there is new.
unsigned count_there(struct dedupe *dedupe);

// What a snapshot's callbacks saw and do.
struct told {
    char names[STREAMS_MAX][128];
    uint64_t through[STREAMS_MAX];
    unsigned count;
    unsigned pauses, give_up_at; // 0: never
    int64_t paused_ns_max;
    void (*meanwhile)(struct told *told); // in each pause
    struct dedupe *dedupe;                // the test's own, as what follows
    uint64_t next;
};
uint64_t told_through(void *user, const char *stream);
bool told_pause(void *user, int64_t ns);
void told_covers(void *user, const char *stream, uint64_t seq);

struct disk *disk_with_directory(void);
struct disk *disk_with_snapshot(void); // of window_filled, at LATER
// In blocks of BLOCK. `told` NULL: without a pause.
bool write_with(struct dedupe *dedupe, const struct storage *storage, int64_t now_ns, struct told *told,
                struct sl_error *err);
void write_to(struct dedupe *dedupe, struct disk *disk, int64_t now_ns);

struct loaded {
    struct dedupe *dedupe; // the test's to free
    struct told told;
    struct dedupe_snapshot_info info;
    struct sl_error err;
    bool good;
};
struct loaded load_from(struct disk *disk, unsigned threads, int64_t now_ns);
// Into this one.
struct loaded load_into(struct dedupe *dedupe, struct disk *disk, unsigned threads, int64_t now_ns);

#endif
