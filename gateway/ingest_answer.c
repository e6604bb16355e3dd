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

void ingest_answer_success(struct waiter *waiter)
{
    const char *ack = ack_level_word(waiter->level);
    const char *stream = waiter->loop->ingest->stream;
    struct text text = {.length = 0};
    PUT_LITERAL(&text, "{\"ack\":\"");
    put(&text, ack, strlen(ack));
    PUT_LITERAL(&text, "\",\"accepted\":");
    put_number(&text, waiter->count);
    PUT_LITERAL(&text, ",\"duplicates\":0,\"quarantined\":0,\"stream\":\"");
    put(&text, stream, strlen(stream));
    PUT_LITERAL(&text, "\",\"first_seq\":");
    put_number(&text, waiter->first_seq);
    PUT_LITERAL(&text, ",\"last_seq\":");
    put_number(&text, waiter->last_seq);
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
