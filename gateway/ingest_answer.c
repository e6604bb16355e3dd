// The answers of the ingest endpoint. The success answer is built by hand: it is made hundreds of thousands of times a
// second.
#include "gateway/ingest_internal.h"
#include "gateway/problem.h"

#include <stdio.h>
#include <string.h>

struct text {
    char bytes[384];
    size_t length;
};

static void put(struct text *text, const char *bytes, size_t length)
{
    sl_assert(length <= sizeof(text->bytes) - text->length);
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}
#define PUT_LITERAL(text, literal) put((text), (literal), sizeof(literal) - 1)

static void put_number(struct text *text, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(text, digits + at, sizeof(digits) - at);
}

// Of the records of this request; with none, because all of it was known, null.
static void put_seq(struct text *text, uint64_t seq)
{
    if (seq == 0)
        PUT_LITERAL(text, "null");
    else
        put_number(text, seq);
}

void ingest_answer_success(struct waiter *waiter)
{
    const char *ack = ack_level_word(waiter->level);
    struct ingest *ingest = waiter->loop->ingest;
    const char *stream =
        ingest_stream_id(ingest, waiter->stored > 0 ? waiter->incarnation : ingest_newest_incarnation(ingest));
    struct text text = {.length = 0};
    PUT_LITERAL(&text, "{\"ack\":\"");
    put(&text, ack, strlen(ack));
    PUT_LITERAL(&text, "\",\"accepted\":");
    put_number(&text, waiter->stored - waiter->quarantined);
    PUT_LITERAL(&text, ",\"duplicates\":");
    put_number(&text, waiter->count - waiter->stored);
    PUT_LITERAL(&text, ",\"quarantined\":");
    put_number(&text, waiter->quarantined);
    PUT_LITERAL(&text, ",\"stream\":\"");
    put(&text, stream, strlen(stream));
    PUT_LITERAL(&text, "\",\"first_seq\":");
    put_seq(&text, waiter->first_seq);
    PUT_LITERAL(&text, ",\"last_seq\":");
    put_seq(&text, waiter->last_seq);
    PUT_LITERAL(&text, "}");
    http_respond(waiter->request, 200, "application/json", NULL, 0, text.bytes, text.length);
}

void ingest_answer_problem(struct http_request *request, int status, int retry_after_s, const char *detail)
{
    char body[1024], seconds[16];
    struct problem problem = {.status = status, .detail = detail};
    size_t length = problem_write(body, sizeof(body), &problem);
    struct http_header retry_after = {.name = "retry-after"};
    if (retry_after_s >= 0) {
        snprintf(seconds, sizeof(seconds), "%d", retry_after_s);
        retry_after.value = sl_span_of(seconds);
    }
    http_respond(request, status, "application/problem+json", &retry_after, retry_after_s >= 0 ? 1 : 0, body, length);
}

void ingest_answer_errors(struct http_request *request, int status, const char *detail,
                          const struct problem_error *errors, size_t error_count)
{
    char body[8192];
    struct problem problem = {.status = status, .detail = detail, .errors = errors, .error_count = error_count};
    size_t length = problem_write(body, sizeof(body), &problem);
    http_respond(request, status, "application/problem+json", NULL, 0, body, length);
}

void ingest_answer_conflict(struct http_request *request, size_t index, const char *pointer, bool within_request)
{
    const char *wrong = within_request ? "an earlier event of the request has its id and another payload"
                                       : "its id was accepted before with another payload";
    struct problem_error error = {.index = index, .pointer = pointer[0] != '\0' ? pointer : NULL, .detail = wrong};
    char detail[200];
    snprintf(detail, sizeof(detail), "Event %zu: %s. Nothing of the request was stored.", index, wrong);
    ingest_answer_errors(request, 409, detail, &error, 1);
}
