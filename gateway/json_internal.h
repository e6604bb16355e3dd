// What the C files of the JSON code share. Internal to gateway/json*.
//
// Threads: as in json.h; a parser and all that it holds belong to one thread.
#ifndef SLUICE_GATEWAY_JSON_INTERNAL_H
#define SLUICE_GATEWAY_JSON_INTERNAL_H

#include "gateway/json.h"
#include "gateway/json_engine.h"

#include <string.h>

enum { JSON_DEPTH_LIMIT = 1024 }; // the largest depth_max

// How much of an array is indexed at once, to begin with: small values take small bodies across windows' edges in
// tests.
void json_parser_set_window(struct json_parser *parser, size_t window_bytes);

// For functions beside the hot loops, and for those loops themselves: inlined, they cost each other registers (measured
// with json_bench: 5 to 8 % of a whole walk).
#define JSON_OUT_OF_LINE __attribute__((noinline))

static inline bool json_is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

// ---- keys (json_pointer.c)

// Keys are hashed with a seed of this process, so that nobody outside can choose keys that collide.
struct json_seed {
    uint64_t words[2];
};
extern struct json_seed json_seed;
void json_seed_init(void); // once, before the first hash; any thread

static inline uint64_t json_mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

// Of the two words that a key's bytes are read into: those that are of a key of so many bytes.
static const uint64_t json_masks[17][2] = {
    {0, 0},
    {0xff, 0},
    {0xffff, 0},
    {0xffffff, 0},
    {0xffffffff, 0},
    {0xffffffffff, 0},
    {0xffffffffffff, 0},
    {0xffffffffffffff, 0},
    {~UINT64_C(0), 0},
    {~UINT64_C(0), 0xff},
    {~UINT64_C(0), 0xffff},
    {~UINT64_C(0), 0xffffff},
    {~UINT64_C(0), 0xffffffff},
    {~UINT64_C(0), 0xffffffffff},
    {~UINT64_C(0), 0xffffffffffff},
    {~UINT64_C(0), 0xffffffffffffff},
    {~UINT64_C(0), ~UINT64_C(0)},
};

// At least 16 bytes must be readable from `key` on, and from any part of it; those past `length` do not count.
static inline uint64_t json_key_hash(const uint8_t *key, size_t length)
{
    uint64_t state = json_seed.words[0] ^ length;
    uint64_t words[2];
    while (length > 16) {
        memcpy(words, key, 16);
        state = json_mix(words[0] ^ state, words[1] ^ json_seed.words[1]);
        key += 16;
        length -= 16;
    }
    memcpy(words, key, 16);
    return json_mix((words[0] & json_masks[length][0]) ^ state,
                    (words[1] & json_masks[length][1]) ^ json_seed.words[1]);
}

struct json_token {
    uint64_t hash;
    const uint8_t *bytes; // followed by 16 readable bytes
    uint32_t length;
    int64_t element; // the array index that this token is, or -1
};

struct json_pointer {
    char *text;
    uint8_t *storage; // of the tokens' bytes
    struct json_token *tokens;
    uint32_t token_count; // ≥ 1
};

// ---- faults (json_error.c)

bool json_refuse(struct json_fault *fault, enum json_fault_kind kind, size_t index, size_t offset, const char *format,
                 ...) SL_PRINTF(5, 6); // returns false
bool json_refuse_duplicate(struct json_fault *fault, size_t index, size_t offset, struct sl_span key);

// What is due where a scan starts.
enum json_due {
    JSON_DUE_DOCUMENT, // one object: the body (that is no array), or a line
    JSON_DUE_FIRST,    // behind the '[' of a body: an event or ']'
    JSON_DUE_EVENT,    // behind a comma between events
    JSON_DUE_COMMA,    // behind an event of an array: ',' or ']'
    JSON_DUE_END,      // behind the ']' of a body: nothing but blanks
};

struct json_scan {
    const uint8_t *bytes;
    size_t end; // of the body or line
    enum json_shape shape;
    uint32_t depth_max;
    size_t capacity;
    // in: where the scan starts; out: the event (or the place of one) that has the fault. Everything between is good as
    // far as syntax goes, and holds as many events as `index` has grown by.
    enum json_due due;
    size_t at;
    size_t index;
};

// Finds the first fault, duplicate keys aside. Returns false when there is none.
bool json_scan_fault(struct json_scan *scan, struct json_fault *fault);

#endif
