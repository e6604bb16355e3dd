// A record that its topic refuses for good goes to <topic>.dlq in the transaction that moves progress over it; one that
// this topic refuses as well goes to the spool's refused/. Either way it has a home and blocks nothing.
#include "produce/internal.h"

#include <stdio.h>
#include <string.h>

const struct condemned *deadletter_find(const struct lane *lane, uint64_t seq)
{
    for (size_t i = 0; i < lane->condemned_count; i++) {
        if (lane->condemned[i].seq == seq)
            return &lane->condemned[i];
    }
    return NULL;
}

void deadletter_condemn(struct lane *lane, uint64_t seq, const char *cause, bool again)
{
    struct condemned *entry = (struct condemned *)deadletter_find(lane, seq);
    if (!entry) {
        // Full: forget the last one; it will be refused, and found, again.
        size_t place = lane->condemned_count < CONDEMNED_MAX ? lane->condemned_count++ : CONDEMNED_MAX - 1;
        entry = &lane->condemned[place];
        *entry = (struct condemned){.seq = seq};
    }
    snprintf(entry->cause, sizeof(entry->cause), "%s", cause);
    entry->dead_letter_refused |= again;
    sl_logf(SL_WARN, "produce",
            again ? "the dead-letter topic refuses a record: set aside in refused/"
                  : "Kafka refuses a record: dead-lettered",
            SL_STR("stream", lane->session.stream), SL_STR("lane", lane->name), SL_UINT("seq", seq),
            SL_STR("cause", cause));
}

void deadletter_forget(struct lane *lane, uint64_t through)
{
    size_t kept = 0;
    for (size_t i = 0; i < lane->condemned_count; i++) {
        if (lane->condemned[i].seq > through)
            lane->condemned[kept++] = lane->condemned[i];
    }
    lane->condemned_count = kept;
}

struct route *deadletter_route(struct lane *lane, const struct record *record)
{
    char name[PRODUCE_TOPIC_MAX + 8];
    int length = snprintf(name, sizeof(name), "%.*s.dlq", (int)record->topic.length, (const char *)record->topic.bytes);
    sl_assert(length > 0 && (size_t)length < sizeof(name));
    return route_of(lane, name, (size_t)length, true);
}

static const char *quarantine_cause(const struct record *record)
{
    if (record->flags & RECORD_FLAG_CONFLICT)
        return "an event with this id and another payload was accepted before";
    if (record->flags & RECORD_FLAG_BUSINESS_QUARANTINE)
        return "an event with these business fields and another id was accepted before";
    return "quarantined";
}

void deadletter_headers(rd_kafka_headers_t *headers, const struct record *record, const char *cause)
{
    const void *value;
    size_t size;
    // A record that was quarantined for its content brings its cause; sluice-pointer, when there is one, is among its
    // headers, too. What was quarantined for another event has it from its flags.
    if (cause) {
        (void)rd_kafka_header_remove(headers, "sluice-error");
        (void)rd_kafka_header_add(headers, "sluice-error", -1, cause, -1);
    } else if (rd_kafka_header_get_last(headers, "sluice-error", &value, &size) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        (void)rd_kafka_header_add(headers, "sluice-error", -1, quarantine_cause(record), -1);
    }
    if (rd_kafka_header_get_last(headers, "sluice-source", &value, &size) != RD_KAFKA_RESP_ERR_NO_ERROR)
        (void)rd_kafka_header_add(headers, "sluice-source", -1, record->source.bytes, (ssize_t)record->source.length);
}
