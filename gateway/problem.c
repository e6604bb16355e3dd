#include "gateway/problem.h"

#include "base/error.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *title;
} titles[] = {
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

const char *problem_title(int status)
{
    for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
        if (titles[i].status == status)
            return titles[i].title;
    return "Error";
}

// Bytes beyond `room` are not written; `full` then stays set until the owner goes back to an earlier length.
struct text {
    char *out;
    size_t length, room;
    bool full;
};

static void put(struct text *text, const char *bytes, size_t length)
{
    if (text->full || length > text->room - text->length) {
        text->full = true;
        return;
    }
    memcpy(text->out + text->length, bytes, length);
    text->length += length;
}

static void put_text(struct text *text, const char *bytes)
{
    put(text, bytes, strlen(bytes));
}

static void put_number(struct text *text, size_t number)
{
    char digits[24];
    int length = snprintf(digits, sizeof(digits), "%zu", number);
    put(text, digits, (size_t)length);
}

// Length of the UTF-8 character at `at` (NUL-terminated text), 0 when it is none: RFC 3629 section 4, table by first
// byte.
static size_t utf8_length(const unsigned char *at)
{
    static const struct {
        unsigned char first, last, second_least, second_most, length;
    } rows[] = {
        {0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (at[0] < rows[i].first || at[0] > rows[i].last)
            continue;
        if (rows[i].length == 1)
            return 1;
        if (at[1] < rows[i].second_least || at[1] > rows[i].second_most)
            return 0;
        for (size_t j = 2; j < rows[i].length; j++)
            if ((at[j] & 0xc0) != 0x80) // a terminating NUL stops here, too
                return 0;
        return rows[i].length;
    }
    return 0;
}

// One character as it stands in a JSON string; returns how many bytes of the input it was.
static size_t put_character(struct text *text, const char *at)
{
    static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *found = strchr(escaped, *at);
    if (found != NULL) {
        put(text, (const char[]){'\\', letters[found - escaped]}, 2);
        return 1;
    }
    if ((unsigned char)*at < 0x20 || *at == 0x7f) {
        char escape[8];
        snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)*at);
        put(text, escape, 6);
        return 1;
    }
    size_t length = utf8_length((const unsigned char *)at);
    if (length == 0)
        put_text(text, "\xef\xbf\xbd");
    else
        put(text, at, length);
    return length == 0 ? 1 : length;
}

static void put_quoted(struct text *text, const char *value)
{
    put(text, "\"", 1);
    for (const char *at = value; *at != '\0' && !text->full;)
        at += put_character(text, at);
    put(text, "\"", 1);
}

// The same in at most `most` bytes, quotes included: cut between characters, and then ending in "…".
static void put_cut(struct text *text, const char *value, size_t most)
{
    static const char cut[] = "\xe2\x80\xa6\"";
    size_t room = text->room;
    if (most < room - text->length)
        text->room = text->length + most;
    put(text, "\"", 1);
    size_t fits = text->length; // the last place from which the cut end still fits
    for (const char *at = value; *at != '\0' && !text->full;) {
        at += put_character(text, at);
        if (!text->full && text->room - text->length >= sizeof(cut) - 1)
            fits = text->length;
    }
    put(text, "\"", 1);
    if (text->full && text->room - fits >= sizeof(cut) - 1) {
        text->full = false;
        text->length = fits;
        put(text, cut, sizeof(cut) - 1);
    }
    text->room = room;
}

static void put_error(struct text *text, const struct problem_error *error, bool first)
{
    put_text(text, first ? "{\"index\":" : ",{\"index\":");
    put_number(text, error->index);
    if (error->has_offset) {
        put_text(text, ",\"offset\":");
        put_number(text, error->offset);
    }
    if (error->pointer != NULL) {
        put_text(text, ",\"pointer\":");
        put_quoted(text, error->pointer);
    }
    if (error->detail != NULL) {
        put_text(text, ",\"detail\":");
        put_quoted(text, error->detail);
    }
    put_text(text, "}");
}

// As many as fit whole; returns how many.
static size_t put_errors(struct text *text, const struct problem *problem)
{
    size_t written = 0;
    put_text(text, ",\"errors\":[");
    for (; written < problem->error_count; written++) {
        size_t before = text->length;
        put_error(text, &problem->errors[written], written == 0);
        if (text->full) {
            text->length = before;
            text->full = false;
            break;
        }
    }
    return written;
}

size_t problem_write(char *out, size_t size, const struct problem *problem)
{
    static const char omitted[] = "],\"omitted\":18446744073709551615}";
    sl_assert(size >= PROBLEM_SIZE_MIN);
    struct text text = {.out = out, .room = size - 2}; // the closing brace and the NUL
    put_text(&text, "{\"type\":\"about:blank\",\"title\":\"");
    put_text(&text, problem_title(problem->status));
    put_text(&text, "\",\"status\":");
    char status[16];
    snprintf(status, sizeof(status), "%d", problem->status);
    put_text(&text, status);
    sl_assert(!text.full);
    size_t before = text.length;
    if (problem->detail != NULL) {
        put_text(&text, ",\"detail\":");
        put_cut(&text, problem->detail, problem->error_count > 0 ? size / 2 : SIZE_MAX);
        if (text.full) {
            text.length = before;
            text.full = false;
        }
    }
    before = text.length;
    if (problem->error_count > 0 && text.room - text.length > sizeof(omitted) + 16) {
        text.room -= sizeof(omitted);
        size_t written = put_errors(&text, problem);
        text.room += sizeof(omitted);
        if (written > 0) {
            put_text(&text, "]");
        } else {
            text.length = before;
            text.full = false;
        }
        if (written < problem->error_count) {
            put_text(&text, ",\"omitted\":");
            put_number(&text, problem->error_count - written);
        }
        sl_assert(!text.full);
    }
    out[text.length++] = '}';
    out[text.length] = '\0';
    return text.length;
}
