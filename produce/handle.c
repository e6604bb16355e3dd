// librdkafka handles: ours first, then the operator's properties, then what must not be changed.
#include "produce/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

struct setting {
    const char *name, *value;
};

// May be overridden by kafka.properties.
static const struct setting producer_defaults[] = {
    {"compression.type", "lz4"},
    // A transaction's end flushes what lingers, so this costs an answer nothing; under load it is what makes batches
    // large: with 10 ms the brokers used 1.2 to 1.6 times the CPU an event, and librdkafka's threads twice
    // (docs/performance.md).
    {"linger.ms", "100"},
    {"batch.size", "1000000"},
    {"batch.num.messages", "10000"},
};
static const struct setting common_defaults[] = {
    {"socket.nagle.disable", "true"},
    {"socket.keepalive.enable", "true"},
    {"reconnect.backoff.ms", "100"},
    {"reconnect.backoff.max.ms", "2000"},
    {"topic.metadata.refresh.interval.ms", "60000"},
    {"retry.backoff.ms", "50"},
    // Client telemetry (KIP-714) makes destroying a handle wait up to a second, and nobody here reads it.
    {"enable.metrics.push", "false"},
};
// May not.
static const struct setting common_rules[] = {
    {"allow.auto.create.topics", "false"}, // a topic that is missing is reported, not invented
};
static const struct setting producer_rules[] = {
    {"enable.idempotence", "true"}, {"acks", "all"}, {"partitioner", "murmur2_random"}, // as the Java client's default
};
static const struct setting consumer_rules[] = {
    {"isolation.level", "read_committed"},
    {"enable.partition.eof", "true"},
    {"enable.auto.commit", "false"},
    {"auto.offset.reset", "earliest"},
    {"queued.max.messages.kbytes", "2048"},
    {"fetch.message.max.bytes", "262144"},
    {"check.crcs", "true"},
};

// librdkafka repeats itself while a broker is away: one line every ten seconds a lane, with a count of the rest.
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    static const int64_t quiet_ns = 10 * SL_NS_PER_S;
    static _Atomic int64_t last_ns;
    static _Atomic uint64_t suppressed;
    // Every property goes to producers and consumers alike; that some are for the other kind is no news.
    if (strcmp(facility, "CONFWARN") == 0)
        level = LOG_DEBUG;
    enum sl_level as = level <= LOG_ERR ? SL_WARN : level <= LOG_INFO ? SL_INFO : SL_DEBUG;
    if (!sl_log_enabled(as))
        return;
    int64_t now = sl_monotonic_ns(), before = atomic_load(&last_ns);
    if (as != SL_DEBUG && before != 0 && now - before < quiet_ns) {
        atomic_fetch_add(&suppressed, 1);
        return;
    }
    atomic_store(&last_ns, now);
    sl_logf(as, "librdkafka", text, SL_STR("facility", facility), SL_STR("handle", rk ? rd_kafka_name(rk) : ""),
            SL_UINT("suppressed", atomic_exchange(&suppressed, 0)));
}

static bool set(rd_kafka_conf_t *conf, const char *name, const char *value, struct sl_error *err)
{
    char text[300];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
        return true;
    // librdkafka's text may hold the value, which may be a secret.
    return sl_fail(err, SL_E_CONFIG, "kafka.properties: %s is not a property or value that librdkafka takes", name);
}

static bool set_all(rd_kafka_conf_t *conf, const struct setting *settings, size_t count, struct sl_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!set(conf, settings[i].name, settings[i].value, err))
            return false;
    }
    return true;
}
#define SET_ALL(conf, table, err) set_all((conf), (table), sizeof(table) / sizeof((table)[0]), (err))

static bool set_number(rd_kafka_conf_t *conf, const char *name, uint64_t value, struct sl_error *err)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return set(conf, name, text, err);
}

// `brokers` NULL: a handle that connects to nothing.
static bool set_common(rd_kafka_conf_t *conf, const struct produce *produce, const char *lane, const char *brokers,
                       struct sl_error *err)
{
    char client[160];
    snprintf(client, sizeof(client), "sluice-%s-%s", produce->options.node, lane);
    if (!set(conf, "client.id", client, err) || !SET_ALL(conf, common_defaults, err) ||
        !set_number(conf, "socket.timeout.ms", SOCKET_TIMEOUT_MS, err))
        return false;
    for (size_t i = 0; i < produce->options.property_count; i++) {
        const struct produce_property *property = &produce->options.properties[i];
        if (!set(conf, property->name, property->value, err))
            return false;
    }
    if (!SET_ALL(conf, common_rules, err) || (brokers && !set(conf, "bootstrap.servers", brokers, err)))
        return false;
    rd_kafka_conf_set_log_cb(conf, on_log);
    return true;
}

static bool set_producer(rd_kafka_conf_t *conf, const struct produce *produce, const char *lane, const char *brokers,
                         const char *transactional_id, uint32_t batch_bytes, struct sl_error *err)
{
    const struct produce_options *options = &produce->options;
    if (!SET_ALL(conf, producer_defaults, err) || !set_number(conf, "message.timeout.ms", MESSAGE_TIMEOUT_MS, err) ||
        !set_number(conf, "request.timeout.ms", SOCKET_TIMEOUT_MS - 2000, err) ||
        !set_common(conf, produce, lane, brokers, err))
        return false;
    // The lane keeps to its own limits (queue_events, queue_bytes); these leave room for the progress record and for
    // one record that is larger than the whole queue.
    if (!set_number(conf, "queue.buffering.max.messages", (uint64_t)options->queue_events + 16, err) ||
        !set_number(conf, "queue.buffering.max.kbytes", options->queue_bytes / 1024 + FRAME_BODY_MAX / 1024, err) ||
        !SET_ALL(conf, producer_rules, err))
        return false;
    if (batch_bytes && !set_number(conf, "batch.size", batch_bytes, err))
        return false;
    if (transactional_id && (!set(conf, "transactional.id", transactional_id, err) ||
                             !set_number(conf, "transaction.timeout.ms", TRANSACTION_TIMEOUT_MS, err)))
        return false;
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    return true;
}

static rd_kafka_t *create(rd_kafka_type_t type, rd_kafka_conf_t *conf, struct sl_error *err)
{
    char text[300];
    rd_kafka_t *rk = rd_kafka_new(type, conf, text, sizeof(text));
    if (!rk) {
        rd_kafka_conf_destroy(conf);
        sl_fail(err, SL_E_CONFIG, "kafka.properties: %s", text);
    }
    return rk;
}

static rd_kafka_t *new_producer(const struct produce *produce, const char *lane, const char *brokers,
                                const char *transactional_id, uint32_t batch_bytes, struct sl_error *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (!set_producer(conf, produce, lane, brokers, transactional_id, batch_bytes, err)) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return create(RD_KAFKA_PRODUCER, conf, err);
}

static rd_kafka_t *new_consumer(const struct produce *produce, const char *lane, const char *brokers,
                                uint64_t fetch_wait_ms, struct sl_error *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (!set_common(conf, produce, lane, brokers, err) || !SET_ALL(conf, consumer_rules, err) ||
        !set_number(conf, "fetch.wait.max.ms", fetch_wait_ms, err)) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return create(RD_KAFKA_CONSUMER, conf, err);
}

rd_kafka_t *handle_producer(struct lane *lane, const char *transactional_id, struct sl_error *err)
{
    return new_producer(lane->produce, lane->name, lane->produce->brokers, transactional_id, lane->batch_bytes, err);
}

rd_kafka_t *handle_plain_producer(const struct produce *produce, const char *name, struct sl_error *err)
{
    return new_producer(produce, name, produce->brokers, NULL, 0, err);
}

rd_kafka_t *handle_consumer(const struct produce *produce, const char *name, uint64_t fetch_wait_ms,
                            struct sl_error *err)
{
    return new_consumer(produce, name, produce->brokers, fetch_wait_ms, err);
}

uint32_t handle_batch_bytes(rd_kafka_t *rk)
{
    char text[24];
    size_t size = sizeof(text);
    rd_kafka_conf_res_t result = rd_kafka_conf_get(rd_kafka_conf(rk), "batch.size", text, &size);
    sl_assert(result == RD_KAFKA_CONF_OK);
    return (uint32_t)strtoul(text, NULL, 10);
}

bool handle_check(const struct produce *produce, struct sl_error *err)
{
    rd_kafka_t *producer =
        new_producer(produce, "check", NULL, produce->options.transactional ? "sluice.check" : NULL, 0, err);
    if (!producer)
        return false;
    rd_kafka_destroy(producer);
    rd_kafka_t *consumer = new_consumer(produce, "check", NULL, FETCH_WAIT_MS, err);
    if (!consumer)
        return false;
    rd_kafka_destroy(consumer);
    return true;
}
