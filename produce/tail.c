#include "produce/tail.h"

#include "base/log.h"

#include <inttypes.h>
#include <string.h>

void tail_init(struct tail *tail, rd_kafka_t *rk)
{
    *tail = (struct tail){.rk = rk, .partition = -1, .position = -1};
    tail->queue = rd_kafka_queue_new(rk);
}

bool tail_start(struct tail *tail, const char *stream, const char *lane, struct sl_error *err)
{
    tail_stop(tail);
    tail->topic = rd_kafka_topic_new(tail->rk, PROGRESS_TOPIC, NULL);
    if (!tail->topic)
        return sl_fail(err, SL_E_UNAVAILABLE, "read %s: %s", PROGRESS_TOPIC, rd_kafka_err2str(rd_kafka_last_error()));
    tail->partition = progress_partition(stream);
    if (rd_kafka_consume_start_queue(tail->topic, tail->partition, RD_KAFKA_OFFSET_BEGINNING, tail->queue) != 0) {
        rd_kafka_topic_destroy(tail->topic);
        tail->topic = NULL;
        return sl_fail(err, SL_E_UNAVAILABLE, "read %s: %s", PROGRESS_TOPIC, rd_kafka_err2str(rd_kafka_last_error()));
    }
    progress_key(tail->key, stream, lane);
    tail->position = -1;
    tail->found = false;
    return true;
}

static bool take_record(struct tail *tail, const rd_kafka_message_t *message)
{
    size_t key_length = strlen(tail->key);
    if (message->key_len != key_length || memcmp(message->key, tail->key, key_length) != 0)
        return false;
    if (message->len == 0) { // a tombstone: the stream is forgotten
        tail->found = false;
        return true;
    }
    struct progress read;
    struct sl_error err;
    if (!progress_decode(&read, message->payload, message->len, &err)) {
        tail->unreadable++;
        sl_logf(SL_ERROR, "produce", "a progress record does not decode", SL_STR("key", tail->key),
                SL_INT("partition", message->partition), SL_INT("offset", message->offset), SL_STR("cause", err.text));
        return false;
    }
    tail->last = read;
    tail->found = true;
    return true;
}

bool tail_poll(struct tail *tail, int timeout_ms)
{
    bool changed = false;
    rd_kafka_message_t *messages[256];
    for (;;) {
        ssize_t count =
            rd_kafka_consume_batch_queue(tail->queue, timeout_ms, messages, sizeof(messages) / sizeof(messages[0]));
        if (count <= 0)
            return changed;
        timeout_ms = 0;
        for (ssize_t i = 0; i < count; i++) {
            const rd_kafka_message_t *message = messages[i];
            if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
                changed |= take_record(tail, message);
                tail->position = message->offset + 1;
            } else if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && message->offset > tail->position) {
                // Control records and aborted ones are never shown; the end of what is readable counts them.
                tail->position = message->offset;
            }
            rd_kafka_message_destroy(messages[i]);
        }
    }
}

static bool watermark_of_event(rd_kafka_event_t *event, int64_t *offset, struct sl_error *err)
{
    if (!event)
        return sl_fail(err, SL_E_UNAVAILABLE, "high watermark of %s: no answer", PROGRESS_TOPIC);
    if (rd_kafka_event_error(event))
        return sl_fail(err, SL_E_UNAVAILABLE, "high watermark of %s: %s", PROGRESS_TOPIC,
                       rd_kafka_event_error_string(event));
    size_t count = 0;
    const rd_kafka_ListOffsets_result_t *result = rd_kafka_event_ListOffsets_result(event);
    const rd_kafka_ListOffsetsResultInfo_t **infos = rd_kafka_ListOffsets_result_infos(result, &count);
    if (count != 1)
        return sl_fail(err, SL_E_UNAVAILABLE, "high watermark of %s: %zu answers", PROGRESS_TOPIC, count);
    const rd_kafka_topic_partition_t *partition = rd_kafka_ListOffsetsResultInfo_topic_partition(infos[0]);
    if (partition->err)
        return sl_fail(err, SL_E_UNAVAILABLE, "high watermark of %s: %s", PROGRESS_TOPIC,
                       rd_kafka_err2str(partition->err));
    // librdkafka 2.8 answers without an error and with an invalid offset when the leader did not answer (a frozen
    // broker).
    if (partition->offset < 0)
        return sl_fail(err, SL_E_UNAVAILABLE, "high watermark of %s: its leader does not answer", PROGRESS_TOPIC);
    *offset = partition->offset;
    return true;
}

bool tail_watermark(struct tail *tail, int64_t *offset, int timeout_ms, struct sl_error *err)
{
    rd_kafka_topic_partition_list_t *wanted = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(wanted, PROGRESS_TOPIC, tail->partition)->offset = RD_KAFKA_OFFSET_SPEC_LATEST;
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(tail->rk, RD_KAFKA_ADMIN_OP_LISTOFFSETS);
    rd_kafka_error_t *refusal =
        rd_kafka_AdminOptions_set_isolation_level(options, RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED);
    sl_assert(!refusal);
    char text[64];
    (void)rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text));
    rd_kafka_queue_t *queue = rd_kafka_queue_new(tail->rk);
    rd_kafka_ListOffsets(tail->rk, wanted, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 500);
    bool ok = watermark_of_event(event, offset, err);
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_topic_partition_list_destroy(wanted);
    return ok;
}

void tail_stop(struct tail *tail)
{
    if (!tail->topic)
        return;
    rd_kafka_consume_stop(tail->topic, tail->partition);
    // What was fetched for the partition before is not to be taken for the next one's.
    rd_kafka_message_t *message;
    while ((message = rd_kafka_consume_queue(tail->queue, 0)))
        rd_kafka_message_destroy(message);
    rd_kafka_topic_destroy(tail->topic);
    tail->topic = NULL;
    tail->position = -1;
    tail->found = false;
}

void tail_free(struct tail *tail)
{
    if (!tail->rk)
        return;
    tail_stop(tail);
    rd_kafka_queue_destroy(tail->queue);
    rd_kafka_destroy(tail->rk);
    *tail = (struct tail){.partition = -1, .position = -1};
}
