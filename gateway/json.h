// JSON in: strict validation and JSON Pointer extraction of events. simdjson behind it (json.cc); the place of an error
// comes from a second pass over failing input only (json_error.c).
//
// An event is a JSON object (RFC 8259, UTF-8). Refused besides bad syntax: duplicate keys in any object (compared after
// unescaping), integers beyond 64 bits, numbers beyond a double, depth over `depth_max`, lone surrogates, invalid
// UTF-8.
//
// Threads: a struct json_parser belongs to one thread. Nothing here keeps a pointer to the input after a call returns,
// except in results, which point into the input or into the parser, and live until the next call on that parser.
#ifndef SLUICE_GATEWAY_JSON_H
#define SLUICE_GATEWAY_JSON_H

#include "base/cursor.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Readable bytes that must follow every input, contents irrelevant (simdjson reads ahead).
enum { JSON_PADDING = 64 };
enum { JSON_POINTERS_MAX = 16 };

struct json_parser;
// capacity: the longest single event in bytes, 1..2^30; depth_max: nesting allowed, 1..1024, the event object itself is
// depth 1. NULL: no memory. 20 to 60 × capacity of address space, of which ordinary events touch next to
// nothing.
struct json_parser *json_parser_new(size_t capacity, uint32_t depth_max);
void json_parser_free(struct json_parser *parser);

// A compiled JSON Pointer (RFC 6901), e.g. "/a/b/0" or "/a~1b". "" is the whole document and is refused here: it is no
// field. Immutable: any thread may use it. Errors: SL_E_INVALID, SL_E_NO_MEMORY; *out is set on success only.
struct json_pointer;
bool json_pointer_compile(struct json_pointer **out, const char *text, struct sl_error *err) SL_MUST_USE;
void json_pointer_free(struct json_pointer *pointer);
const char *json_pointer_text(const struct json_pointer *pointer);

enum json_kind {
    JSON_KIND_ABSENT, // no such member or element
    JSON_KIND_NULL,
    JSON_KIND_BOOL,
    JSON_KIND_INTEGER, // text = its literal digits as they came
    JSON_KIND_REAL,    // text = the literal as it came
    JSON_KIND_STRING,  // text = unescaped UTF-8, may contain NUL bytes
    JSON_KIND_ARRAY,
    JSON_KIND_OBJECT,
};

struct json_value {
    enum json_kind kind;
    struct sl_span text; // for INTEGER, REAL, STRING, BOOL ("true"/"false")
};

// What is wrong with an input, and where. Offsets are 0-based in the decoded body that was handed in. Where they point:
//   SYNTAX          the first byte that no valid body could have there; the end of body or line when it ends early
//   DUPLICATE_KEY   the opening quote of the second key; only an event that is otherwise valid is looked at for them
//   NUMBER          the first byte of the number
//   DEPTH           the bracket that is one too many
//   UTF8            the first byte of the ill-formed sequence; of a lone surrogate its backslash
//   EMPTY           where the first event should be
//   NOT_OBJECT, TOO_LARGE  the first byte of the value
struct json_fault {
    enum json_fault_kind {
        JSON_FAULT_NONE,
        JSON_FAULT_SYNTAX,        // 400: detail says what
        JSON_FAULT_DUPLICATE_KEY, // 400
        JSON_FAULT_NUMBER,        // 400: out of range
        JSON_FAULT_DEPTH,         // 400
        JSON_FAULT_UTF8,          // 400
        JSON_FAULT_EMPTY,         // 400: no event in the body
        JSON_FAULT_NOT_OBJECT,    // 422: valid JSON, but not an object
        JSON_FAULT_TOO_LARGE,     // 413: the event is longer than the parser's capacity
    } kind;
    size_t index;     // which event of the body: as many have been handed out, and are good
    size_t offset;    // byte offset in the whole body
    char detail[200]; // a sentence for the problem's detail, without input bytes that could be secret beyond a key name
};

enum json_shape {
    JSON_SHAPE_DOCUMENT, // application/json: an object, or an array of objects
    JSON_SHAPE_LINES,    // application/x-ndjson
};

// One valid event. `raw` is exactly the event's bytes as they came, without surrounding whitespace.
struct json_event {
    size_t index;
    struct sl_span raw;
    bool compact;                                // no whitespace in raw, but within strings
    struct json_value values[JSON_POINTERS_MAX]; // in the order of `pointers`
};

// Walks a body: calls `on_event` for each event, in order; stops at the first fault, or when on_event returns false.
// Blank NDJSON lines (spaces, tabs, CR) are skipped and do not count as an index.
// `body` must be followed by JSON_PADDING readable bytes. pointer_count ≤ JSON_POINTERS_MAX; pointers may be NULL
// entries, which give JSON_KIND_ABSENT.
// Returns true when the whole body was good and every on_event returned true; else false with *fault filled (kind NONE
// when it was on_event that stopped). Events before the fault, and no others, have already been handed out: the caller
// undoes them.
bool json_walk(struct json_parser *parser, enum json_shape shape, struct sl_span body,
               const struct json_pointer *const *pointers, size_t pointer_count,
               bool (*on_event)(const struct json_event *event, void *user), void *user, struct json_fault *fault);

// Writes the event without the whitespace between its tokens to `out`, which takes up to raw.length bytes; returns how
// many. Tokens keep their bytes and their order: two events have the same compact form when they differ in whitespace
// alone. Only during on_event, and for the event that it was called with.
size_t json_compact(const struct json_parser *parser, const struct json_event *event, uint8_t *out);

// For messages: how many events a body that has a fault would have held, as far as can be told; at least 1.
size_t json_count_guess(enum json_shape shape, struct sl_span body);

#endif
