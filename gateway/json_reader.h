// A strict RFC 8259 reader of one value, which says what is wrong and where. Internal to gateway/json*.
//
// Threads: none; a reader belongs to its caller and owns nothing.
#ifndef SLUICE_GATEWAY_JSON_READER_H
#define SLUICE_GATEWAY_JSON_READER_H

#include "gateway/json_internal.h"

struct json_reader {
    const uint8_t *bytes;
    size_t at;
    size_t end;
    bool cut;          // `end` is not where the input ends, but as far as an event may reach
    const char *input; // "body" or "line"
    uint32_t depth_max;
    size_t index; // of the event, for the fault
    struct json_fault *fault;
};

// One whole value, up to the byte after it; `at` is its first byte, or a blank before it. False: *fault is filled.
bool json_read_value(struct json_reader *reader);
// The same of a number; `at` is its first byte, and is left behind its last one.
bool json_read_number(struct json_reader *reader);

static inline bool reader_refuse(struct json_reader *reader, enum json_fault_kind kind, size_t offset,
                                 const char *detail)
{
    return json_refuse(reader->fault, kind, reader->index, offset, "%s", detail);
}

static inline bool reader_refuse_here(struct json_reader *reader, const char *detail)
{
    return reader_refuse(reader, JSON_FAULT_SYNTAX, reader->at, detail);
}

static inline bool reader_refuse_end(struct json_reader *reader, const char *where)
{
    return json_refuse(reader->fault, reader->cut ? JSON_FAULT_TOO_LARGE : JSON_FAULT_SYNTAX, reader->index,
                       reader->end, "the %s ends %s", reader->input, where);
}

static inline bool reader_at_end(const struct json_reader *reader)
{
    return reader->at >= reader->end;
}

// 0 at the end: a NUL is nowhere valid outside of a string either.
static inline uint8_t reader_peek(const struct json_reader *reader)
{
    return reader_at_end(reader) ? 0 : reader->bytes[reader->at];
}

static inline void reader_skip_blanks(struct json_reader *reader)
{
    while (!reader_at_end(reader) && json_is_blank(reader->bytes[reader->at]))
        reader->at++;
}

#endif
