// Admin calls answer through a queue; here each has one of its own and waits for it, a few seconds at most.
#include "produce/internal.h"

#include <stdio.h>
#include <string.h>

enum { ADMIN_TIMEOUT_MS = 3000 };

struct admin_call {
    rd_kafka_AdminOptions_t *options;
    rd_kafka_queue_t *queue;
    rd_kafka_event_t *answer;
};

static struct admin_call call_begin(rd_kafka_t *rk, rd_kafka_admin_op_t operation)
{
    struct admin_call call = {
        .options = rd_kafka_AdminOptions_new(rk, operation),
        .queue = rd_kafka_queue_new(rk),
    };
    char text[128];
    (void)rd_kafka_AdminOptions_set_request_timeout(call.options, ADMIN_TIMEOUT_MS, text, sizeof(text));
    return call;
}

static rd_kafka_resp_err_t call_wait(struct admin_call *call)
{
    call->answer = rd_kafka_queue_poll(call->queue, ADMIN_TIMEOUT_MS + 500);
    return call->answer ? rd_kafka_event_error(call->answer) : RD_KAFKA_RESP_ERR__TIMED_OUT;
}

static void call_end(struct admin_call *call)
{
    if (call->answer)
        rd_kafka_event_destroy(call->answer);
    rd_kafka_queue_destroy(call->queue);
    rd_kafka_AdminOptions_destroy(call->options);
}

rd_kafka_resp_err_t admin_create_topic(rd_kafka_t *rk, const char *topic, int partitions, int replication,
                                       const char *const (*configs)[2], size_t config_count, char *text,
                                       size_t text_size)
{
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(topic, partitions, replication, text, text_size);
    if (!wanted)
        return RD_KAFKA_RESP_ERR__INVALID_ARG;
    for (size_t i = 0; i < config_count; i++)
        (void)rd_kafka_NewTopic_set_config(wanted, configs[i][0], configs[i][1]);
    struct admin_call call = call_begin(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_CreateTopics(rk, &wanted, 1, call.options, call.queue);
    rd_kafka_resp_err_t code = call_wait(&call);
    snprintf(text, text_size, "%s", rd_kafka_err2str(code));
    if (!code) {
        size_t count = 0;
        const rd_kafka_topic_result_t **results =
            rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(call.answer), &count);
        code = count == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR_UNKNOWN;
        const char *detail = count == 1 ? rd_kafka_topic_result_error_string(results[0]) : NULL;
        snprintf(text, text_size, "%s", detail ? detail : rd_kafka_err2str(code));
    }
    call_end(&call);
    rd_kafka_NewTopic_destroy(wanted);
    return code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS ? RD_KAFKA_RESP_ERR_NO_ERROR : code;
}

static void take_configs(const rd_kafka_ConfigResource_t *resource, struct admin_config *configs, size_t count)
{
    size_t entry_count = 0;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &entry_count);
    for (size_t i = 0; i < entry_count; i++) {
        const char *name = rd_kafka_ConfigEntry_name(entries[i]), *value = rd_kafka_ConfigEntry_value(entries[i]);
        for (size_t k = 0; k < count; k++) {
            if (value && strcmp(configs[k].name, name) == 0)
                snprintf(configs[k].value, sizeof(configs[k].value), "%s", value);
        }
    }
}

rd_kafka_resp_err_t admin_topic_configs(rd_kafka_t *rk, const char *topic, struct admin_config *configs, size_t count)
{
    rd_kafka_ConfigResource_t *wanted = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    struct admin_call call = call_begin(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_DescribeConfigs(rk, &wanted, 1, call.options, call.queue);
    rd_kafka_resp_err_t code = call_wait(&call);
    if (!code) {
        size_t resource_count = 0;
        const rd_kafka_ConfigResource_t **resources = rd_kafka_DescribeConfigs_result_resources(
            rd_kafka_event_DescribeConfigs_result(call.answer), &resource_count);
        code = resource_count == 1 ? rd_kafka_ConfigResource_error(resources[0]) : RD_KAFKA_RESP_ERR_UNKNOWN;
        if (!code)
            take_configs(resources[0], configs, count);
    }
    call_end(&call);
    rd_kafka_ConfigResource_destroy(wanted);
    return code;
}

rd_kafka_resp_err_t admin_topic_id(rd_kafka_t *rk, const char *topic, uint64_t id[2])
{
    rd_kafka_TopicCollection_t *wanted = rd_kafka_TopicCollection_of_topic_names(&topic, 1);
    struct admin_call call = call_begin(rk, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
    rd_kafka_DescribeTopics(rk, wanted, call.options, call.queue);
    rd_kafka_resp_err_t code = call_wait(&call);
    if (!code) {
        size_t count = 0;
        const rd_kafka_TopicDescription_t **topics =
            rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(call.answer), &count);
        const rd_kafka_error_t *error = count == 1 ? rd_kafka_TopicDescription_error(topics[0]) : NULL;
        code =
            count == 1 ? (error ? rd_kafka_error_code(error) : RD_KAFKA_RESP_ERR_NO_ERROR) : RD_KAFKA_RESP_ERR_UNKNOWN;
        if (!code) {
            const rd_kafka_Uuid_t *uuid = rd_kafka_TopicDescription_topic_id(topics[0]);
            id[0] = uuid ? (uint64_t)rd_kafka_Uuid_most_significant_bits(uuid) : 0;
            id[1] = uuid ? (uint64_t)rd_kafka_Uuid_least_significant_bits(uuid) : 0;
        }
    }
    call_end(&call);
    rd_kafka_TopicCollection_destroy(wanted);
    return code;
}
