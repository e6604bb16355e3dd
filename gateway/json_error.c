// Where and what the first fault of a body is: a second pass, by plain code, over input that simdjson has refused.
//
// simdjson says neither where nor what, and jansson's positions are those of its own reading ahead; so json_reader.c
// is a strict RFC 8259 reader of its own. It judges nothing that simdjson has not refused already, so an error in it
// can cost a worse message and no more: tests/json and tests/fuzz/json hold both, and jansson, against each other.
//
// What an offset points to: the first byte that no valid body could have there (the end, when it ends early); of a
// number out of range, of an event that is no object and of one that is too long, its first byte; of ill-formed UTF-8
// its first byte, of a lone surrogate its backslash; of nesting too deep, the bracket. Only an event that is otherwise
// valid is looked at for duplicate keys (json_keys.c); there it is the opening quote of the second key.
#include "gateway/json_reader.h"

#include <stdio.h>

bool json_refuse(struct json_fault *fault, enum json_fault_kind kind, size_t index, size_t offset, const char *format,
                 ...)
{
    fault->kind = kind;
    fault->index = index;
    fault->offset = offset;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->detail, sizeof(fault->detail), format, arguments);
    va_end(arguments);
    return false;
}

bool json_refuse_duplicate(struct json_fault *fault, size_t index, size_t offset, struct sl_span key)
{
    enum { SHOWN_MAX = 96 };
    const uint8_t *bytes = key.bytes;
    char shown[SHOWN_MAX + 8];
    size_t used = 0;
    size_t i = 0;
    while (i < key.length) {
        size_t length = bytes[i] < 0x80   ? 1
                        : bytes[i] < 0xe0 ? 2
                        : bytes[i] < 0xf0 ? 3
                                          : 4; // valid UTF-8, so: no cut in it
        bool escaped = bytes[i] < 0x20 || bytes[i] == 0x7f;
        bool quoted = bytes[i] == '"' || bytes[i] == '\\';
        if (used + (escaped ? 6 : length + quoted) > SHOWN_MAX)
            break;
        if (escaped) {
            used += (size_t)snprintf(shown + used, sizeof(shown) - used, "\\u%04x", bytes[i]);
        } else {
            if (quoted)
                shown[used++] = '\\';
            memcpy(shown + used, bytes + i, length);
            used += length;
        }
        i += length;
    }
    return json_refuse(fault, JSON_FAULT_DUPLICATE_KEY, index, offset, "duplicate key \"%.*s%s\"", (int)used, shown,
                       i < key.length ? "…" : "");
}

// ---- bodies

static const char *kind_name(uint8_t first)
{
    switch (first) {
    case '[':
        return "an array";
    case '"':
        return "a string";
    case 't':
    case 'f':
        return "true or false";
    case 'n':
        return "null";
    default:
        return "a number";
    }
}

// One event, of an array or alone. False: it has a fault.
static bool read_event(struct json_reader *reader, const struct json_scan *scan, bool alone)
{
    size_t start = reader->at;
    uint8_t first = reader_peek(reader);
    reader->cut = scan->end - start > scan->capacity;
    reader->end = reader->cut ? start + scan->capacity : scan->end;
    bool good = json_read_value(reader);
    reader->end = scan->end;
    reader->cut = false;
    if (!good && reader->fault->kind == JSON_FAULT_TOO_LARGE)
        return json_refuse(reader->fault, JSON_FAULT_TOO_LARGE, reader->index, start,
                           "the event is longer than %zu bytes", scan->capacity);
    if (!good)
        return false;
    reader_skip_blanks(reader);
    if (alone && !reader_at_end(reader))
        return reader_refuse_here(reader, scan->shape == JSON_SHAPE_LINES
                                              ? "more follows the event on its line: one object a line"
                                              : "more follows the object: several are sent as an array, or as "
                                                "application/x-ndjson");
    if (!alone && reader_peek(reader) != ',' && reader_peek(reader) != ']' && first != '{')
        return reader_at_end(reader) ? reader_refuse_end(reader, "inside the array of events")
                                     : reader_refuse_here(reader, "expected ',' or ']' after an event");
    if (first != '{')
        return json_refuse(reader->fault, JSON_FAULT_NOT_OBJECT, reader->index, start,
                           "an event is a JSON object, and this is %s", kind_name(first));
    return true;
}

static bool read_document(struct json_reader *reader, const struct json_scan *scan)
{
    static const uint8_t mark[] = {0xef, 0xbb, 0xbf};
    if (reader->end - reader->at >= sizeof(mark) && memcmp(reader->bytes + reader->at, mark, sizeof(mark)) == 0)
        return reader_refuse_here(reader, "a byte order mark: JSON is sent without one");
    if (reader_at_end(reader))
        return reader_refuse(reader, JSON_FAULT_EMPTY, reader->at, "the body holds no event");
    return read_event(reader, scan, true);
}

static bool read_end(struct json_reader *reader)
{
    reader_skip_blanks(reader);
    return reader_at_end(reader) || reader_refuse_here(reader, "more follows the array of events");
}

bool json_scan_fault(struct json_scan *scan, struct json_fault *fault)
{
    struct json_reader reader = {
        .bytes = scan->bytes,
        .at = scan->at,
        .end = scan->end,
        .input = scan->shape == JSON_SHAPE_LINES ? "line" : "body",
        .depth_max = scan->depth_max,
        .index = scan->index,
        .fault = fault,
    };
    enum json_due due = scan->due;
    for (;;) {
        reader_skip_blanks(&reader);
        if (due != JSON_DUE_END) // what follows the ']' is reported there
            scan->at = reader.at;
        scan->index = reader.index;
        uint8_t byte = reader_peek(&reader);
        switch (due) {
        case JSON_DUE_DOCUMENT:
            return !read_document(&reader, scan);
        case JSON_DUE_END:
            return !read_end(&reader);
        case JSON_DUE_FIRST:
            if (byte == ']') {
                size_t at = reader.at++;
                return !read_end(&reader) || !reader_refuse(&reader, JSON_FAULT_EMPTY, at, "the array holds no event");
            }
            // fallthrough
        case JSON_DUE_EVENT:
            if (reader_at_end(&reader))
                return !reader_refuse_end(&reader, "inside the array of events");
            if (!read_event(&reader, scan, false))
                return true;
            reader.index++;
            due = JSON_DUE_COMMA;
            break;
        case JSON_DUE_COMMA:
            if (reader_at_end(&reader))
                return !reader_refuse_end(&reader, "inside the array of events");
            if (byte != ',' && byte != ']')
                return !reader_refuse_here(&reader, "expected ',' or ']' after an event");
            reader.at++;
            due = byte == ',' ? JSON_DUE_EVENT : JSON_DUE_END;
            break;
        }
    }
}

// ---- counting

// Commas between the elements of a body that is an array, whatever else may be wrong with it.
static size_t count_elements(const uint8_t *bytes, size_t length)
{
    size_t commas = 0;
    size_t depth = 0;
    bool pending = false; // something stands behind the last comma
    for (size_t i = 0; i < length; i++) {
        switch (bytes[i]) {
        case '"':
            for (i++; i < length && bytes[i] != '"'; i++)
                i += bytes[i] == '\\';
            pending = true;
            break;
        case '{':
        case '[':
            depth++;
            pending = true;
            break;
        case '}':
        case ']':
            if (depth == 0)
                return commas + pending;
            depth--;
            break;
        case ',':
            commas += depth == 0;
            pending = depth == 0 ? false : pending;
            break;
        default:
            pending = pending || !json_is_blank(bytes[i]);
        }
    }
    return commas + pending;
}

size_t json_count_guess(enum json_shape shape, struct sl_span body)
{
    const uint8_t *bytes = body.bytes;
    size_t count = 0;
    size_t at = 0;
    if (shape == JSON_SHAPE_LINES) {
        while (at < body.length) {
            while (at < body.length && json_is_blank(bytes[at]))
                at++;
            count += at < body.length;
            const uint8_t *newline = at < body.length ? memchr(bytes + at, '\n', body.length - at) : NULL;
            at = newline == NULL ? body.length : (size_t)(newline - bytes) + 1;
        }
    } else {
        while (at < body.length && json_is_blank(bytes[at]))
            at++;
        if (at < body.length && bytes[at] == '[')
            count = count_elements(bytes + at + 1, body.length - at - 1);
    }
    return count > 0 ? count : 1;
}
