// One event, read along the structurals of simdjson's stage 1. Internal to gateway/json*.
//
// Threads: as in json.h; belongs to one parser.
#ifndef SLUICE_GATEWAY_JSON_TOKENS_H
#define SLUICE_GATEWAY_JSON_TOKENS_H

#include "gateway/json_keys.h"

struct json_frame {   // an open container
    uint64_t wanted;  // of an object: which hashes its active pointers ask for, a bit each
    uint32_t object;  // of an object: its number in the event
    uint32_t active;  // pointers whose tokens led here
    uint32_t element; // of an array, counted only while pointers are active
    uint8_t close;    // '}' or ']'
};

struct json_tokens {
    struct json_keys keys;
    struct json_frame *frames; // depth_max of them
    uint32_t depth_max;
    uint8_t *unescaped; // strings of the event that have escapes
    size_t unescaped_used;

    // What has been indexed. Offsets are those in `bytes`.
    const uint8_t *bytes;
    size_t length;
    const uint32_t *structurals;
    uint32_t count;
    size_t backslash; // none before it that has not been dealt with; `length`: none at all
};

// window_max: the most that is indexed at once.
bool json_tokens_init(struct json_tokens *tokens, size_t window_max, uint32_t depth_max);
void json_tokens_free(struct json_tokens *tokens);

// After bytes have been indexed. count: of the structurals.
void json_tokens_set(struct json_tokens *tokens, const uint8_t *bytes, size_t length, const uint32_t *structurals,
                     uint32_t count);

enum json_tokens_result {
    JSON_TOKENS_READ,
    JSON_TOKENS_CUT,       // good as far as it goes, but the structurals end before the event does
    JSON_TOKENS_REFUSED,   // not valid, or too deep
    JSON_TOKENS_DUPLICATE, // and what follows has not been looked at
};

struct json_reading {
    // in
    uint32_t first; // structural of the event's '{'
    const struct json_pointer *const *pointers;
    size_t pointer_count;
    // out
    uint32_t last; // structural of its '}'
    size_t duplicate;
    struct sl_span duplicate_key;
};

// Reads one event. Fills event->raw, compact and values[0..pointer_count), and what else is said above.
enum json_tokens_result json_tokens_read(struct json_tokens *tokens, struct json_reading *reading,
                                         struct json_event *event);

#endif
