// Topics as a lane sees them: is it there, how many partitions and replicas, is it well enough to take records. A topic
// that is not holds up its lane, and is looked at again every second or two; nothing is handed to librdkafka for a
// topic whose metadata the producer does not have (before 2.12 it frees headers twice for a partition that does not
// exist).
#include "produce/internal.h"

#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "produce/topics.h"

enum { METADATA_TIMEOUT_MS = 3000 };
static const int64_t configs_fresh_ns = 60 * SL_NS_PER_S;
static const int64_t survey_every_ns = 60 * SL_NS_PER_S;
enum { SURVEY_AT_ONCE = 4 };

struct route *route_of(struct lane *lane, const void *name, size_t length, bool dead_letter)
{
    struct route *last = lane->route_last;
    if (last && strncmp(last->topic->name, name, length) == 0 && last->topic->name[length] == '\0')
        return last;
    uint32_t hash = sl_crc32c(name, length);
    struct route **bucket = &lane->routes[hash % ROUTE_BUCKETS];
    for (struct route *route = *bucket; route; route = route->next) {
        if (route->hash == hash && strncmp(route->topic->name, name, length) == 0 && route->topic->name[length] == '\0')
            return lane->route_last = route;
    }
    struct route *route = calloc(1, sizeof(*route));
    sl_assert(route);
    *route = (struct route){.next = *bucket, .hash = hash, .dead_letter = dead_letter};
    route->topic = produce_topic_of(lane->produce, name, length);
    *bucket = route;
    return lane->route_last = route;
}

void routes_forget_producer(struct lane *lane)
{
    for (size_t i = 0; i < ROUTE_BUCKETS; i++) {
        for (struct route *route = lane->routes[i]; route; route = route->next) {
            if (route->handle)
                rd_kafka_topic_destroy(route->handle);
            route->handle = NULL;
            route->ready = false;
            route->in_transaction = 0;
        }
    }
}

void routes_doubt(struct lane *lane)
{
    for (size_t i = 0; i < ROUTE_BUCKETS; i++) {
        for (struct route *route = lane->routes[i]; route; route = route->next)
            route->ready = false;
    }
}

static void describe(rd_kafka_t *rk, struct topic_view *view, const char *name)
{
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, name, NULL);
    if (!handle) {
        view->code = rd_kafka_last_error();
        return;
    }
    const struct rd_kafka_metadata *metadata;
    view->transport = rd_kafka_metadata(rk, 0, handle, &metadata, METADATA_TIMEOUT_MS);
    rd_kafka_topic_destroy(handle);
    if (view->transport)
        return;
    view->brokers = metadata->broker_cnt;
    int32_t controller = rd_kafka_controllerid(rk, 0);
    for (int i = 0; i < metadata->broker_cnt; i++)
        view->has_controller |= metadata->brokers[i].id == controller;
    view->code = metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (!view->code) {
        const struct rd_kafka_metadata_topic *topic = &metadata->topics[0];
        view->partitions = topic->partition_cnt;
        for (int i = 0; i < topic->partition_cnt; i++) {
            const struct rd_kafka_metadata_partition *partition = &topic->partitions[i];
            if (i == 0 || partition->replica_cnt < view->replication_factor)
                view->replication_factor = partition->replica_cnt;
            if (i == 0 || partition->isr_cnt < view->in_sync_least)
                view->in_sync_least = partition->isr_cnt;
            view->leaderless += partition->leader < 0;
        }
    }
    rd_kafka_metadata_destroy(metadata);
}

static void describe_configs(rd_kafka_t *rk, struct topic_view *view, const char *name)
{
    struct admin_config configs[] = {
        {.name = "min.insync.replicas"}, {.name = "max.message.bytes"}, {.name = "cleanup.policy"}};
    view->configs_code = admin_topic_configs(rk, name, configs, sizeof(configs) / sizeof(configs[0]));
    if (view->configs_code)
        return;
    view->min_insync_replicas = configs[0].value[0] ? (int)strtol(configs[0].value, NULL, 10) : -1;
    view->message_bytes_max = strtoll(configs[1].value, NULL, 10);
    snprintf(view->cleanup_policy, sizeof(view->cleanup_policy), "%s", configs[2].value);
}

// What an operator is told; "" when the topic is well. Returns whether it can take records.
bool topic_judge(const struct topic_view *view, const char *name, char *text, size_t size)
{
    text[0] = '\0';
    if (view->code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || (!view->code && view->partitions == 0)) {
        snprintf(text, size, "topic %s does not exist", name);
        return false;
    }
    if (view->code) {
        snprintf(text, size, "topic %s: %s", name, rd_kafka_err2str(view->code));
        return false;
    }
    if (view->leaderless) {
        snprintf(text, size, "topic %s: %d of %d partitions have no leader", name, view->leaderless, view->partitions);
        return false;
    }
    if (view->min_insync_replicas > 0 && view->in_sync_least < view->min_insync_replicas) {
        snprintf(text, size, "topic %s: not enough replicas: %d in sync, min.insync.replicas is %d", name,
                 view->in_sync_least, view->min_insync_replicas);
        return false;
    }
    if (view->replication_factor < 3 || (view->min_insync_replicas >= 0 && view->min_insync_replicas < 2))
        snprintf(text, size,
                 "replication factor %d and min.insync.replicas %d are weaker than 3 and 2: the loss of a zone may "
                 "lose events",
                 view->replication_factor, view->min_insync_replicas);
    return true;
}

static void publish(struct lane *lane, struct topic *topic, const struct topic_view *view, const char *text)
{
    // The embedded broker is a demonstration: that it has no replicas is its point.
    text = lane->produce->embedded ? "" : text;
    pthread_mutex_lock(&lane->produce->mutex);
    topic->partitions = view->partitions;
    topic->replication_factor = view->replication_factor;
    topic->min_insync_replicas = view->min_insync_replicas;
    bool changed = strncmp(topic->warning, text, sizeof(topic->warning) - 1) != 0;
    snprintf(topic->warning, sizeof(topic->warning), "%s", text);
    pthread_mutex_unlock(&lane->produce->mutex);
    if (changed && text[0] != '\0')
        sl_logf(SL_WARN, "produce", "a topic is weak or missing", SL_STR("topic", topic->name),
                SL_STR("lane", lane->name), SL_STR("warning", text));
}

static struct topic *next_to_survey(struct lane *lane)
{
    int64_t now = sl_monotonic_ns();
    pthread_mutex_lock(&lane->produce->mutex);
    struct topic *topic = lane->produce->topics;
    while (topic && (!topic->listed || strcmp(topic->lane, lane->name) != 0 ||
                     (topic->surveyed_ns && now - topic->surveyed_ns < survey_every_ns)))
        topic = topic->next;
    if (topic)
        topic->surveyed_ns = now;
    pthread_mutex_unlock(&lane->produce->mutex);
    return topic;
}

void topics_survey(struct lane *lane)
{
    struct topic *topic;
    for (int i = 0; i < SURVEY_AT_ONCE && (topic = next_to_survey(lane)); i++) {
        struct topic_view view = {.min_insync_replicas = -1};
        describe(lane->tail.rk, &view, topic->name);
        if (view.transport)
            return;
        if (!view.code && view.has_controller)
            describe_configs(lane->tail.rk, &view, topic->name);
        char text[sizeof(topic->warning)];
        (void)topic_judge(&view, topic->name, text, sizeof(text));
        publish(lane, topic, &view, text);
    }
}

static bool creation_is_hopeless(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
           code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED || code == RD_KAFKA_RESP_ERR_POLICY_VIOLATION ||
           code == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION || code == RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR ||
           code == RD_KAFKA_RESP_ERR__INVALID_ARG;
}

// The dead-letter topic, with as many partitions as its topic has.
static rd_kafka_resp_err_t create_dead_letter(struct lane *lane, struct route *route, int brokers, char *text,
                                              size_t size)
{
    size_t length = strlen(route->topic->name) - strlen(".dlq");
    pthread_mutex_lock(&lane->produce->mutex);
    int partitions = 0;
    for (struct topic *topic = lane->produce->topics; topic; topic = topic->next) {
        if (strlen(topic->name) == length && strncmp(topic->name, route->topic->name, length) == 0)
            partitions = topic->partitions;
    }
    pthread_mutex_unlock(&lane->produce->mutex);
    rd_kafka_resp_err_t code = admin_create_topic(lane->tail.rk, route->topic->name, partitions > 0 ? partitions : 4,
                                                  brokers < 3 ? brokers : 3, NULL, 0, text, size);
    if (!code)
        sl_logf(SL_INFO, "produce", "dead-letter topic created", SL_STR("topic", route->topic->name));
    return code;
}

// Creates what may be created. STEP_GO: look again; STEP_HELD: it stays missing.
static enum step create_missing(struct lane *lane, struct route *route, int brokers)
{
    struct produce *produce = lane->produce;
    if (produce->embedded) {
        embedded_topic(produce->embedded, route->topic->name, (int)produce->options.embedded_partitions);
        return STEP_GO;
    }
    if (!route->dead_letter)
        return STEP_HELD;
    char text[200];
    rd_kafka_resp_err_t code = create_dead_letter(lane, route, brokers, text, sizeof(text));
    if (!code)
        return STEP_GO;
    route->refusing = creation_is_hopeless(code);
    sl_logf(SL_ERROR, "produce", "a dead-letter topic cannot be created", SL_STR("topic", route->topic->name),
            SL_STR("cause", text), SL_BOOL("records_go_to_refused", route->refusing));
    return STEP_HELD;
}

static enum step hold(struct lane *lane, struct route *route, const char *text)
{
    lane->held = route;
    snprintf(lane->trouble, sizeof(lane->trouble), "%s", text);
    return STEP_HELD;
}

// The producer's own copy of the metadata, without which it would queue records for a partition that is not known.
static enum step warm_producer(struct lane *lane, struct route *route)
{
    struct session *session = &lane->session;
    if (!route->handle)
        route->handle = rd_kafka_topic_new(session->rk, route->topic->name, NULL);
    sl_assert(route->handle);
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t code = rd_kafka_metadata(session->rk, 0, route->handle, &metadata, METADATA_TIMEOUT_MS);
    if (code) {
        snprintf(lane->trouble, sizeof(lane->trouble), "metadata of %s: %s", route->topic->name,
                 rd_kafka_err2str(code));
        return STEP_AGAIN;
    }
    bool known = metadata->topic_cnt == 1 && !metadata->topics[0].err && metadata->topics[0].partition_cnt > 0;
    rd_kafka_metadata_destroy(metadata);
    if (!known) {
        snprintf(lane->trouble, sizeof(lane->trouble), "metadata of %s is not spread yet", route->topic->name);
        return STEP_AGAIN;
    }
    route->ready = true;
    return STEP_GO;
}

enum step route_make_ready(struct lane *lane, struct route *route)
{
    struct topic_view view = {.min_insync_replicas = -1};
    // Asked by the producer: on the consumer's connections each question waits for the fetch that is under way, half a
    // second when there is nothing to fetch.
    rd_kafka_t *rk = lane->session.rk;
    describe(rk, &view, route->topic->name);
    if (view.transport) {
        snprintf(lane->trouble, sizeof(lane->trouble), "metadata of %s: %s", route->topic->name,
                 rd_kafka_err2str(view.transport));
        return STEP_AGAIN;
    }
    atomic_store(&lane->produce->reached_ns, sl_monotonic_ns());
    if (view.code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART && create_missing(lane, route, view.brokers) == STEP_GO) {
        snprintf(lane->trouble, sizeof(lane->trouble), "topic %s was created just now", route->topic->name);
        return STEP_AGAIN;
    }
    int64_t now = sl_monotonic_ns();
    if (!view.code && view.has_controller && (route->checked_ns == 0 || now - route->checked_ns > configs_fresh_ns)) {
        describe_configs(rk, &view, route->topic->name);
        route->message_bytes_max = view.message_bytes_max;
        route->checked_ns = now;
    } else {
        view.min_insync_replicas = route->topic->min_insync_replicas;
    }
    char text[sizeof(lane->trouble)];
    bool well = topic_judge(&view, route->topic->name, text, sizeof(text));
    publish(lane, route->topic, &view, text);
    if (!well && route->dead_letter && view.code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
        route->refusing = true;
    if (!well)
        return hold(lane, route, text);
    return warm_producer(lane, route);
}

static enum step create_progress(struct lane *lane, int brokers)
{
    if (lane->produce->embedded) {
        embedded_topic(lane->produce->embedded, PROGRESS_TOPIC, PROGRESS_PARTITIONS);
        return STEP_AGAIN;
    }
    // Small segments: only closed ones are compacted, and a node reads the whole partition when it starts.
    const char *const configs[][2] = {{"cleanup.policy", "compact"},
                                      {"segment.bytes", "4194304"},
                                      {"segment.ms", "3600000"},
                                      {"min.cleanable.dirty.ratio", "0.1"},
                                      {"min.insync.replicas", brokers >= 3 ? "2" : "1"}};
    char text[200];
    rd_kafka_resp_err_t code =
        admin_create_topic(lane->tail.rk, PROGRESS_TOPIC, PROGRESS_PARTITIONS, brokers < 3 ? brokers : 3, configs,
                           sizeof(configs) / sizeof(configs[0]), text, sizeof(text));
    if (!code) {
        snprintf(lane->trouble, sizeof(lane->trouble), "topic " PROGRESS_TOPIC " was created just now");
        return STEP_AGAIN;
    }
    snprintf(lane->trouble, sizeof(lane->trouble), "topic " PROGRESS_TOPIC " is missing and cannot be created: %s",
             text);
    return STEP_HELD;
}

enum step topics_progress(struct lane *lane, uint64_t topic_id[2])
{
    struct topic_view view = {.min_insync_replicas = -1};
    describe(lane->tail.rk, &view, PROGRESS_TOPIC);
    if (view.transport) {
        snprintf(lane->trouble, sizeof(lane->trouble), "Kafka does not answer: %s", rd_kafka_err2str(view.transport));
        return STEP_AGAIN;
    }
    atomic_store(&lane->produce->reached_ns, sl_monotonic_ns());
    if (view.code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        return create_progress(lane, view.brokers);
    if (view.has_controller)
        describe_configs(lane->tail.rk, &view, PROGRESS_TOPIC);
    if (!topic_judge(&view, PROGRESS_TOPIC, lane->trouble, sizeof(lane->trouble)))
        return STEP_HELD;
    if (view.partitions < PROGRESS_PARTITIONS) {
        snprintf(lane->trouble, sizeof(lane->trouble), "topic " PROGRESS_TOPIC " has %d partitions, it needs %d",
                 view.partitions, PROGRESS_PARTITIONS);
        return STEP_HELD;
    }
    if (view.cleanup_policy[0] != '\0' && strcmp(view.cleanup_policy, "compact") != 0) {
        snprintf(lane->trouble, sizeof(lane->trouble),
                 "topic " PROGRESS_TOPIC " has cleanup.policy=%s, it must be exactly compact or progress is lost",
                 view.cleanup_policy);
        return STEP_HELD;
    }
    topic_id[0] = topic_id[1] = 0;
    if (!view.has_controller)
        return STEP_GO;
    rd_kafka_resp_err_t code = admin_topic_id(lane->tail.rk, PROGRESS_TOPIC, topic_id);
    if (code) {
        snprintf(lane->trouble, sizeof(lane->trouble), "describe " PROGRESS_TOPIC ": %s", rd_kafka_err2str(code));
        return STEP_AGAIN;
    }
    return STEP_GO;
}
