#include "bench/history.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 1 << 20,
    PREFIX_MAX = 256, // of a line, without id, key and stream
    TEXT_MAX = 256,   // of id, key, stream each
    LINE_MAX_BYTES = PREFIX_MAX + 3 * TEXT_MAX + 256,
};

struct history {
    int fd;
    int failed_errno;  // of the first write that failed; 0 is none
    uint64_t lines[3]; // by enum history_outcome
    size_t used;
    char buffer[BUFFER_BYTES];
};

static const char *const outcome_words[] = {"ok", "fail", "unknown"};

void history_flush(struct history *history)
{
    size_t done = 0;
    while (done < history->used && history->failed_errno == 0) {
        ssize_t wrote = write(history->fd, history->buffer + done, history->used - done);
        if (wrote >= 0)
            done += (size_t)wrote;
        else if (errno != EINTR)
            history->failed_errno = errno;
    }
    history->used = 0;
}

static char *reserve(struct history *history, size_t bytes)
{
    if (BUFFER_BYTES - history->used < bytes)
        history_flush(history);
    return history->buffer + history->used;
}

static char *put_text(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    return at + length;
}
#define PUT_LITERAL(at, literal) put_text((at), (literal), sizeof(literal) - 1)

// snprintf would be the larger half of the cost of a line.
static char *put_number(char *at, uint64_t value)
{
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

static char *put_span(char *at, struct sl_span span)
{
    sl_assert(span.length <= TEXT_MAX);
    return put_text(at, (const char *)span.bytes, span.length);
}

bool history_open(struct history **out, const char *path, const struct history_run *run, struct sl_error *err)
{
    struct history *history = (struct history *)malloc(sizeof(*history));
    if (history == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "history buffer");
    history->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (history->fd < 0) {
        sl_fail_errno(err, SL_E_IO, errno, "create %s", path);
        free(history);
        return false;
    }
    history->failed_errno = 0;
    memset(history->lines, 0, sizeof(history->lines));
    int length = snprintf(history->buffer, BUFFER_BYTES,
                          "{\"v\":1,\"run\":\"%s\",\"source_url\":\"%s\",\"wall_ns\":%" PRId64 ",\"mono_ns\":%" PRId64
                          ",\"events_per_request\":%" PRIu32 ",\"ordered\":%s,\"retry\":%s}\n",
                          run->run, run->url, sl_wall_ns(), sl_monotonic_ns(), run->events_per_request,
                          run->ordered ? "true" : "false", run->retry ? "true" : "false");
    sl_assert(length > 0 && length < BUFFER_BYTES);
    history->used = (size_t)length;
    history_flush(history);
    *out = history;
    return true;
}

// From "a" to "n" but for the index, which differs by event; the part before it goes to `head`, the rest to `tail`.
static void format_common(const struct history_attempt *attempt, struct sl_writer *head, struct sl_writer *tail)
{
    char *at = (char *)head->bytes;
    at = put_number(PUT_LITERAL(at, ",\"a\":"), attempt->attempt);
    at = put_number(PUT_LITERAL(at, ",\"t0\":"), (uint64_t)attempt->invoked_ns);
    at = put_number(PUT_LITERAL(at, ",\"t1\":"), (uint64_t)attempt->completed_ns);
    const char *word = outcome_words[attempt->outcome];
    at = put_text(PUT_LITERAL(at, ",\"o\":\""), word, strlen(word));
    at = put_number(PUT_LITERAL(at, "\",\"st\":"), (uint64_t)attempt->status);
    if (attempt->status == 0) {
        at = put_text(PUT_LITERAL(at, ",\"e\":\""), attempt->cause, strlen(attempt->cause));
        at = PUT_LITERAL(at, "\"");
    }
    at = PUT_LITERAL(at, ",\"i\":");
    head->position = (size_t)(at - (char *)head->bytes);

    at = (char *)tail->bytes;
    at = put_number(PUT_LITERAL(at, ",\"n\":"), attempt->event_count);
    at = put_number(PUT_LITERAL(at, ",\"td\":"), (uint64_t)attempt->due_ns);
    at = put_number(PUT_LITERAL(at, ",\"cn\":"), attempt->connection);
    at = put_number(PUT_LITERAL(at, ",\"cs\":"), attempt->connection_serial);
    if (attempt->outcome == HISTORY_OK) {
        if (attempt->stream.length > 0)
            at = PUT_LITERAL(put_span(PUT_LITERAL(at, ",\"sm\":\""), attempt->stream), "\"");
        else
            at = PUT_LITERAL(at, ",\"sm\":null");
        if (attempt->has_seqs) {
            at = put_number(PUT_LITERAL(at, ",\"f\":"), attempt->first_seq);
            at = put_number(PUT_LITERAL(at, ",\"l\":"), attempt->last_seq);
        } else {
            at = PUT_LITERAL(at, ",\"f\":null,\"l\":null");
        }
        at = put_number(PUT_LITERAL(at, ",\"d\":"), attempt->duplicates);
    }
    at = PUT_LITERAL(at, "}\n");
    tail->position = (size_t)(at - (char *)tail->bytes);
}

void history_write(struct history *history, const struct history_attempt *attempt, const struct history_event *events)
{
    uint8_t head_bytes[PREFIX_MAX], tail_bytes[PREFIX_MAX + TEXT_MAX];
    struct sl_writer head = sl_writer_of(head_bytes, sizeof(head_bytes));
    struct sl_writer tail = sl_writer_of(tail_bytes, sizeof(tail_bytes));
    format_common(attempt, &head, &tail);
    for (uint32_t i = 0; i < attempt->event_count; i++) {
        char *at = reserve(history, LINE_MAX_BYTES);
        at = put_span(PUT_LITERAL(at, "{\"id\":\""), events[i].id);
        at = put_span(PUT_LITERAL(at, "\",\"k\":\""), events[i].key);
        at = put_number(PUT_LITERAL(at, "\",\"s\":"), events[i].seq);
        at = put_number(PUT_LITERAL(at, ",\"c\":"), events[i].crc32c);
        at = put_text(at, (const char *)head.bytes, head.position);
        at = put_number(at, i);
        if (events[i].again)
            at = PUT_LITERAL(at, ",\"x\":1");
        at = put_text(at, (const char *)tail.bytes, tail.position);
        history->used = (size_t)(at - history->buffer);
    }
    history->lines[attempt->outcome] += attempt->event_count;
}

bool history_close(struct history *history, const struct history_totals *totals, struct sl_error *err)
{
    if (history == NULL)
        return true;
    char *at = reserve(history, LINE_MAX_BYTES);
    int length = snprintf(at, LINE_MAX_BYTES,
                          "{\"end\":true,\"attempts\":%" PRIu64 ",\"ok\":%" PRIu64 ",\"fail\":%" PRIu64
                          ",\"unknown\":%" PRIu64 ",\"events\":%" PRIu64 ",\"acked\":%" PRIu64 ",\"refused\":%" PRIu64
                          ",\"open\":%" PRIu64 ",\"not_sent\":%" PRIu64 "}\n",
                          history->lines[0] + history->lines[1] + history->lines[2], history->lines[HISTORY_OK],
                          history->lines[HISTORY_FAIL], history->lines[HISTORY_UNKNOWN], totals->events, totals->acked,
                          totals->refused, totals->open, totals->not_sent);
    sl_assert(length > 0 && length < LINE_MAX_BYTES);
    history->used += (size_t)length;
    history_flush(history);
    int failed_errno = history->failed_errno;
    if (close(history->fd) != 0 && failed_errno == 0)
        failed_errno = errno;
    free(history);
    return failed_errno == 0 || sl_fail_errno(err, SL_E_IO, failed_errno, "write the history");
}
