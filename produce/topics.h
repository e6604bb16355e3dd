// What metadata and configuration say of a topic, and the verdict over it. topic_judge is pure; any thread.
#ifndef SLUICE_PRODUCE_TOPICS_H
#define SLUICE_PRODUCE_TOPICS_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct topic_view {
    rd_kafka_resp_err_t transport; // nobody answered; the rest is not filled
    rd_kafka_resp_err_t code;      // of the topic
    int brokers;                   // of the cluster
    bool has_controller;           // without one nobody answers questions about configuration: the mock cluster
    int partitions, replication_factor, in_sync_least, leaderless;
    rd_kafka_resp_err_t configs_code;
    int min_insync_replicas;   // -1 = not known
    int64_t message_bytes_max; // 0 = not known
    char cleanup_policy[128];  // "" = not known
};

// Can it take records now? `text`: what an operator is told, "" when all is well; a topic that is only weak is taken.
bool topic_judge(const struct topic_view *view, const char *name, char *text, size_t size);

#endif
