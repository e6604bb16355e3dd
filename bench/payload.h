// Payment events that look and compress like real ones, made fast: the load client and the bare producer share them.
//
// A set holds some thousand prebuilt events that differ in all their strings; an event is a copy of one of them with
// id, account, seq, time, amount, authorisation code and trace id patched. Neighbours in a batch never share a template
// (the next use is 4 MiB away), so lz4's window of 64 KiB never sees one twice.
//
// The bytes of an event are a function of the set and of struct payload_event alone: a retry is built again, not kept.
//
// Threads: a set is read-only after payload_set_new() but for the cached second of the clock: one thread a set.
#ifndef SLUICE_BENCH_PAYLOAD_H
#define SLUICE_BENCH_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

enum {
    PAYLOAD_BYTES_MIN = 256, // head alone, with a run name of 32
    PAYLOAD_BYTES_MAX = 900 * 1024,
    PAYLOAD_BYTES_DEFAULT = 1048,
    PAYLOAD_RUN_MAX = 32,
    PAYLOAD_ID_MAX = PAYLOAD_RUN_MAX + 1 + 12,
    PAYLOAD_KEY_BYTES = 12, // acc_00000007
    PAYLOAD_KEYS_MAX = 100000000,
};

struct payload_set;

struct payload_event {
    uint64_t counter; // below 10^12; the id is run-counter
    uint64_t seq;     // below 10^12
    uint32_t key;     // below PAYLOAD_KEYS_MAX
    int64_t wall_ns;  // event_ts
};

// `event_bytes` is the exact size of each event; `run` has 1..PAYLOAD_RUN_MAX characters of [A-Za-z0-9_-]. NULL: no
// memory.
struct payload_set *payload_set_new(size_t event_bytes, const char *run, uint64_t seed);
void payload_set_free(struct payload_set *set);
size_t payload_event_bytes(const struct payload_set *set);
// Writes exactly payload_event_bytes() to `out`: one JSON object, no newline.
void payload_write(struct payload_set *set, const struct payload_event *event, uint8_t *out);
// The id in `out` (PAYLOAD_ID_MAX bytes at least, not terminated); returns its length.
size_t payload_id(const struct payload_set *set, uint64_t counter, char *out);
// The key in `out` (PAYLOAD_KEY_BYTES, not terminated).
void payload_key(uint32_t key, char *out);

// splitmix64: the generator for everything here; fast, and good enough for test data.
static inline uint64_t payload_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif
