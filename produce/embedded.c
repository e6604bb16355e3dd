// `brokers: embedded`: librdkafka's mock cluster in this process, on real ports, so that other programs can read it. A
// demonstration: nothing survives the process, it shows aborted records to everyone, and keeps 5 MB a partition. Each
// start is another cluster (its id differs), so older progress is adopted as it was verified.
#include "produce/internal.h"

#include <librdkafka/rdkafka_mock.h>
#include <stdlib.h>
#include <string.h>

struct embedded {
    rd_kafka_t *rk; // carries the cluster and nothing else
    rd_kafka_mock_cluster_t *cluster;
    pthread_mutex_t mutex;
};

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    (void)level;
    sl_logf(SL_DEBUG, "librdkafka", text, SL_STR("facility", facility), SL_STR("handle", "embedded"));
}

struct embedded *embedded_start(const struct produce_options *options, struct sl_error *err)
{
    struct embedded *embedded = calloc(1, sizeof(*embedded));
    sl_assert(embedded);
    pthread_mutex_init(&embedded->mutex, NULL);
    char text[300];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, on_log);
    if (!(embedded->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text)))) {
        rd_kafka_conf_destroy(conf);
        sl_fail(err, SL_E_UNAVAILABLE, "embedded Kafka: %s", text);
        goto free_embedded;
    }
    if (!(embedded->cluster = rd_kafka_mock_cluster_new(embedded->rk, 1))) {
        sl_fail(err, SL_E_UNAVAILABLE, "embedded Kafka: no mock cluster (no port on loopback?)");
        goto free_handle;
    }
    embedded_topic(embedded, PROGRESS_TOPIC, PROGRESS_PARTITIONS);
    for (size_t i = 0; i < options->topic_count; i++)
        embedded_topic(embedded, options->topics[i].name, (int)options->embedded_partitions);
    return embedded;

free_handle:
    rd_kafka_destroy(embedded->rk);
free_embedded:
    pthread_mutex_destroy(&embedded->mutex);
    free(embedded);
    return NULL;
}

const char *embedded_brokers(const struct embedded *embedded)
{
    return rd_kafka_mock_cluster_bootstraps(embedded->cluster);
}

void embedded_topic(struct embedded *embedded, const char *topic, int partitions)
{
    pthread_mutex_lock(&embedded->mutex);
    rd_kafka_resp_err_t code = rd_kafka_mock_topic_create(embedded->cluster, topic, partitions < 4 ? 4 : partitions, 1);
    pthread_mutex_unlock(&embedded->mutex);
    if (code && code != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        sl_logf(SL_ERROR, "produce", "embedded Kafka cannot make a topic", SL_STR("topic", topic),
                SL_STR("cause", rd_kafka_err2str(code)));
}

void embedded_stop(struct embedded *embedded)
{
    if (!embedded)
        return;
    rd_kafka_mock_cluster_destroy(embedded->cluster);
    rd_kafka_destroy(embedded->rk);
    pthread_mutex_destroy(&embedded->mutex);
    free(embedded);
}
