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

// At least 16 bytes must be readable from `key` on, and from any part of it; those past `length` do not count.
static inline uint64_t json_key_hash(const uint8_t *key, size_t length)
{
    static const uint64_t masks[17][2] = {
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
    uint64_t state = json_seed.words[0] ^ length;
    uint64_t words[2];
    while (length > 16) {
        memcpy(words, key, 16);
        state = json_mix(words[0] ^ state, words[1] ^ json_seed.words[1]);
        key += 16;
        length -= 16;
    }
    memcpy(words, key, 16);
    return json_mix((words[0] & masks[length][0]) ^ state, (words[1] & masks[length][1]) ^ json_seed.words[1]);
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

// ---- one event's tape (json_tape.c)

struct json_key_slot {
    uint64_t hash;
    uint32_t serial; // of the object that has the key; below the event's first serial: free
    uint32_t string; // where its bytes are in json_view.strings
};

struct json_frame {   // an open container
    uint64_t wanted;  // of an object: which hashes its active pointers ask for, a bit each
    uint64_t salt;    // of an object, from its serial
    uint32_t serial;  // of an object, 0 for an array
    uint32_t active;  // pointers whose tokens led here
    uint32_t element; // of an array, counted only while pointers are active
    bool object;
};

struct json_tape {
    struct json_key_slot *slots; // sized for the worst event; a small event uses the first few only
    struct json_frame *frames;   // depth_max of them
    uint32_t depth_max;
    uint32_t serial; // of the last object; counts on across events, so that slots need no clearing
    size_t slot_count;
};

bool json_tape_init(struct json_tape *tape, size_t capacity, uint32_t depth_max);
void json_tape_free(struct json_tape *tape);

enum json_tape_result { JSON_TAPE_READ, JSON_TAPE_DUPLICATE, JSON_TAPE_DEPTH };

struct json_duplicate {
    uint32_t structural; // of the second key
    struct sl_span key;
};

// Walks the tape of the event whose '{' is structural `first` and whose '}' is structural `last`; `bytes` is what was
// indexed. Fills values[0..pointer_count), and *duplicate for JSON_TAPE_DUPLICATE.
enum json_tape_result json_tape_read(struct json_tape *tape, const struct json_view *view, const uint8_t *bytes,
                                     uint32_t first, uint32_t last, const struct json_pointer *const *pointers,
                                     size_t pointer_count, struct json_value *values, struct json_duplicate *duplicate);

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
