#include "base/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    bool json;
    enum sl_level least;
} settings = {.json = true, .least = SL_INFO};

static const char *const level_words[] = {"debug", "info", "warn", "error"};

// A line is built in a fixed buffer and cut when it does not fit: a log must never fail, block on memory, or allocate.
struct line {
    char bytes[4096];
    size_t length;
};
enum { LINE_RESERVE = 8 }; // room kept for the closing quote, brace and newline

void sl_log_configure(bool json, enum sl_level least)
{
    settings.json = json;
    settings.least = least;
}

bool sl_log_enabled(enum sl_level level)
{
    return level >= settings.least;
}

static void put(struct line *line, const char *text, size_t length)
{
    size_t room = sizeof(line->bytes) - LINE_RESERVE - line->length;
    if (length > room)
        length = room;
    memcpy(line->bytes + line->length, text, length);
    line->length += length;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

// JSON string escapes (RFC 8259 section 7); bytes over 0x7f pass as they are.
static void put_quoted(struct line *line, const char *text)
{
    put_text(line, "\"");
    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        char escape[8];
        if (c == '"' || c == '\\') {
            snprintf(escape, sizeof(escape), "\\%c", c);
            put_text(line, escape);
        } else if (c < 0x20) {
            snprintf(escape, sizeof(escape), "\\u%04x", c);
            put_text(line, escape);
        } else {
            put(line, p, 1);
        }
    }
    put_text(line, "\"");
}

static void put_value(struct line *line, const struct sl_field *field)
{
    char number[40];
    switch (field->kind) {
    case SL_FIELD_TEXT:
        if (field->text == NULL)
            put_text(line, "null");
        else
            put_quoted(line, field->text);
        return;
    case SL_FIELD_SIGNED:
        snprintf(number, sizeof(number), "%" PRId64, field->value.i);
        break;
    case SL_FIELD_UNSIGNED:
        snprintf(number, sizeof(number), "%" PRIu64, field->value.u);
        break;
    case SL_FIELD_REAL:
        if (isfinite(field->value.r))
            snprintf(number, sizeof(number), "%.6g", field->value.r);
        else
            snprintf(number, sizeof(number), "null");
        break;
    case SL_FIELD_BOOL:
        snprintf(number, sizeof(number), "%s", field->value.b ? "true" : "false");
        break;
    }
    put_text(line, number);
}

static void put_time(struct line *line)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char text[64];
    size_t length = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + length, sizeof(text) - length, ".%03ldZ", now.tv_nsec / 1000000);
    put_text(line, text);
}

void sl_log_write(enum sl_level level, const char *component, const char *message, const struct sl_field *fields)
{
    if (!sl_log_enabled(level))
        return;
    struct line line = {.length = 0};
    put_text(&line, settings.json ? "{\"time\":\"" : "");
    put_time(&line);
    put_text(&line, settings.json ? "\",\"level\":\"" : " ");
    put_text(&line, level_words[level]);
    put_text(&line, settings.json ? "\",\"component\":" : " ");
    if (settings.json)
        put_quoted(&line, component);
    else
        put_text(&line, component);
    put_text(&line, settings.json ? ",\"message\":" : ": ");
    if (settings.json)
        put_quoted(&line, message);
    else
        put_text(&line, message);
    for (const struct sl_field *field = fields; field->name != NULL; field++) {
        put_text(&line, settings.json ? "," : " ");
        if (settings.json)
            put_quoted(&line, field->name);
        else
            put_text(&line, field->name);
        put_text(&line, settings.json ? ":" : "=");
        put_value(&line, field);
    }
    if (settings.json)
        line.bytes[line.length++] = '}';
    line.bytes[line.length++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line.bytes, line.length);
    (void)ignored; // nowhere left to complain
}
