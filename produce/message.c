#include "produce/internal.h"

#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

static void add(rd_kafka_headers_t *headers, const char *name, size_t name_length, const void *value, size_t length)
{
    // Fails only for a header list that is read-only.
    (void)rd_kafka_header_add(headers, name, (ssize_t)name_length, value, (ssize_t)length);
}
#define ADD(headers, name, value, length) add((headers), (name), sizeof(name) - 1, (value), (length))

// Decimal digits of seq at the end of `digits`; returns where they begin. (snprintf is a tenth of the cost of a
// record.)
static const char *decimal(char digits[20], uint64_t seq)
{
    char *p = digits + 20;
    do {
        *--p = (char)('0' + seq % 10);
        seq /= 10;
    } while (seq > 0);
    return p;
}

static rd_kafka_headers_t *make_headers(const struct session *session, const struct message *message, size_t extra)
{
    const struct record *record = &message->record;
    rd_kafka_headers_t *headers = rd_kafka_headers_new(5 + record->header_count + extra);
    char digits[20];
    const char *seq = decimal(digits, message->seq);
    ADD(headers, "sluice-stream", session->stream, strlen(session->stream));
    ADD(headers, "sluice-seq", seq, (size_t)(digits + sizeof(digits) - seq));
    ADD(headers, "sluice-node", session->node, strlen(session->node));
    ADD(headers, "event_id", record->event_id.bytes, record->event_id.length);
    struct sl_reader in = sl_reader_of(record->headers.bytes, record->headers.length);
    struct record_header_field field;
    while (record_header_next(&in, &field))
        add(headers, field.name.bytes, field.name.length, field.value.bytes, field.value.length);
    if (record->flags & RECORD_FLAG_BUSINESS_DUPLICATE)
        ADD(headers, "sluice-business-duplicate", "true", 4);
    return headers;
}

static void refuse(struct message *message, const char *cause)
{
    message->kind = MESSAGE_REFUSED;
    message->route = NULL;
    message->headers = NULL;
    message->cause = cause;
}

void message_prepare(struct lane *lane, struct message *message)
{
    const struct record *record = &message->record;
    message->headers = NULL;
    message->cause = NULL;
    if (sl_crc32c(record->payload.bytes, record->payload.length) != record->payload_crc) {
        sl_logf(SL_ERROR, "produce", "a payload changed between its receipt and Kafka: set aside in refused/",
                SL_STR("stream", lane->session.stream), SL_UINT("seq", message->seq));
        refuse(message, "the payload's checksum is not the one taken when it was received");
        return;
    }
    const struct condemned *condemned = lane->condemned_count ? deadletter_find(lane, message->seq) : NULL;
    if (condemned && condemned->dead_letter_refused) {
        refuse(message, condemned->cause);
        return;
    }
    if (!condemned && record->kind == RECORD_EVENT) {
        message->kind = MESSAGE_EVENT;
        message->route = route_of(lane, record->topic.bytes, record->topic.length, false);
        message->headers = make_headers(&lane->session, message, 0);
        return;
    }
    message->kind = MESSAGE_DEAD_LETTER;
    message->route = deadletter_route(lane, record);
    if (message->route->refusing) {
        refuse(message, condemned ? condemned->cause : "the dead-letter topic cannot be had");
        return;
    }
    message->headers = make_headers(&lane->session, message, 2);
    deadletter_headers(message->headers, record, condemned ? condemned->cause : NULL);
}

void message_clear(struct message *message)
{
    if (message->headers)
        rd_kafka_headers_destroy(message->headers);
    message->headers = NULL;
}

// Where each payload of the frame begins, in order. Built for the first failed delivery: a refused batch names
// thousands.
static void index_payloads(struct chunk *chunk)
{
    const struct frame_header *header = &chunk->frame->header;
    chunk->payloads = calloc(header->count, sizeof(*chunk->payloads));
    sl_assert(chunk->payloads);
    struct sl_reader in = sl_reader_of(chunk->frame->body, header->body_length);
    struct record record;
    for (uint32_t i = 0; i < header->count && record_next(&in, &record); i++)
        chunk->payloads[i] = record.payload.bytes;
}

uint64_t message_seq_at(struct chunk *chunk, const void *payload)
{
    if (!chunk->payloads)
        index_payloads(chunk);
    uint32_t low = 0, high = chunk->frame->header.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uintptr_t)chunk->payloads[middle] < (uintptr_t)payload)
            low = middle + 1;
        else
            high = middle;
    }
    sl_assert(low < chunk->frame->header.count && chunk->payloads[low] == payload);
    return chunk->frame->header.first_seq + low;
}
