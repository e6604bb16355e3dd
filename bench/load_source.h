// Where the events of the load client come from: what they say, in which order, which key they have. sluice-load's own
// source is in load_events.c; another program of the same core brings its own.
//
// The bytes of an event are a function of the source and of struct load_event alone: a retry is built again, not kept.
//
// Threads: one, that of the load client.
#ifndef SLUICE_BENCH_LOAD_SOURCE_H
#define SLUICE_BENCH_LOAD_SOURCE_H

#include "bench/payload.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct load_event {
    uint64_t counter; // of the id
    uint64_t seq;     // within the key, from 1
    int64_t wall_ns;  // CLOCK_REALTIME when it was made
    uint64_t detail;  // the source's own
    uint32_t key;
    uint32_t crc32c; // once it was built; only with a history
    bool built;
    bool again; // it was acknowledged before and is sent once more on purpose
};

struct load_source {
    size_t event_bytes; // of each event, exactly
    // Whether `count` events may be made now; if not, then after some other event was settled.
    bool (*ready)(const struct load_source *source, uint32_t count);
    // The next event. Only after ready() said so for as many.
    void (*next)(struct load_source *source, int64_t wall_ns, struct load_event *event);
    // Its fate is decided: acknowledged, refused, or given up. Once for each next().
    void (*settled)(struct load_source *source, const struct load_event *event, bool acked);
    // Writes event_bytes to `out`: one JSON object, no newline.
    void (*write)(struct load_source *source, const struct load_event *event, uint8_t *out);
    // Both to `out`, not terminated, of at most PAYLOAD_ID_MAX and PAYLOAD_KEY_BYTES; return the length.
    size_t (*id)(const struct load_source *source, const struct load_event *event, char *out);
    size_t (*key)(const struct load_source *source, const struct load_event *event, char *out);
    // Members for the summary, each with a comma before it. NULL: none.
    void (*report)(const struct load_source *source, FILE *out);
    void (*free)(struct load_source *source);
};

// Payment events (payload.h) under `keys` keys at random; `ordered`: under idle keys in turn. NULL: no memory.
struct load_source *load_events_new(const char *run, size_t event_bytes, uint32_t keys, bool ordered, uint64_t seed);

#endif
