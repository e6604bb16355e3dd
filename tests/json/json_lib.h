// What the JSON unit tests share: a walk over one text, with everything that came of it.
#ifndef SLUICE_TESTS_JSON_JSON_LIB_H
#define SLUICE_TESTS_JSON_JSON_LIB_H

#include "gateway/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LIB_CAPACITY = 900 * 1024, LIB_DEPTH = 64 };

// Puts bytes into the middle of a text, without an end.
static inline void lib_put(char *at, const char *bytes, size_t length)
{
    memcpy(at, bytes, length);
}

// An exact copy of the text with padding behind it. The caller frees span.bytes.
static inline struct sl_span lib_body(const char *text, size_t length)
{
    char *copy = malloc(length + JSON_PADDING);
    assert_non_null(copy);
    memcpy(copy, text, length);
    memset(copy + length, '"', JSON_PADDING);
    return (struct sl_span){.bytes = copy, .length = length};
}

struct lib_events {
    size_t count;
    size_t raw_bytes; // of all events
};

static inline bool lib_count(const struct json_event *event, void *user)
{
    struct lib_events *events = user;
    assert_int_equal(event->index, events->count);
    events->count++;
    events->raw_bytes += event->raw.length;
    return true;
}

// Returns json_walk()'s result; the parser has LIB_CAPACITY and LIB_DEPTH.
static inline bool lib_walk(enum json_shape shape, const char *text, size_t length, struct lib_events *events,
                            struct json_fault *fault)
{
    struct json_parser *parser = json_parser_new(LIB_CAPACITY, LIB_DEPTH);
    assert_non_null(parser);
    struct sl_span body = lib_body(text, length);
    *events = (struct lib_events){0};
    bool good = json_walk(parser, shape, body, NULL, 0, lib_count, events, fault);
    free((void *)(uintptr_t)body.bytes);
    json_parser_free(parser);
    return good;
}

#endif
