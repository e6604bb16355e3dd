// The public face: options, lanes and topics as a whole. What a lane does is lane.c's, and driven drains are drain.c's.
#include "produce/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *own(struct produce *produce, void *memory)
{
    sl_assert(memory);
    produce->owned = realloc(produce->owned, (produce->owned_count + 1) * sizeof(*produce->owned));
    sl_assert(produce->owned);
    produce->owned[produce->owned_count++] = memory;
    return memory;
}

static const char *own_text(struct produce *produce, const char *text)
{
    return own(produce, strdup(text));
}

static void copy_options(struct produce *produce, const struct produce_options *options)
{
    struct produce_options *copy = &produce->options;
    *copy = *options;
    copy->node = own_text(produce, options->node);
    copy->cluster = own_text(produce, options->cluster);
    struct produce_property *properties = own(produce, calloc(options->property_count + 1, sizeof(*properties)));
    for (size_t i = 0; i < options->property_count; i++)
        properties[i] = (struct produce_property){.name = own_text(produce, options->properties[i].name),
                                                  .value = own_text(produce, options->properties[i].value)};
    copy->properties = properties;
    // Lists that are only walked at start.
    copy->topics = NULL;
    copy->lanes = NULL;
    copy->brokers = NULL;
    // A transaction is a sign of life, too.
    if (copy->driven && copy->transaction_time_ns > copy->takeover_after_ns / 3)
        copy->transaction_time_ns = copy->takeover_after_ns / 3;
}

static void free_all(struct produce *produce)
{
    for (size_t i = 0; i < produce->owned_count; i++)
        free(produce->owned[i]);
    free(produce->owned);
    while (produce->topics) {
        struct topic *topic = produce->topics;
        produce->topics = topic->next;
        free(topic);
    }
    embedded_stop(produce->embedded);
    pthread_mutex_destroy(&produce->updating);
    pthread_mutex_destroy(&produce->mutex);
    free(produce);
}

struct topic *produce_topic_of(struct produce *produce, const char *name, size_t length)
{
    sl_assert(length < sizeof(produce->topics->name));
    pthread_mutex_lock(&produce->mutex);
    struct topic *topic = produce->topics;
    while (topic && (strncmp(topic->name, name, length) != 0 || topic->name[length] != '\0'))
        topic = topic->next;
    if (!topic) {
        topic = calloc(1, sizeof(*topic));
        sl_assert(topic);
        memcpy(topic->name, name, length);
        topic->min_insync_replicas = -1;
        topic->next = produce->topics;
        produce->topics = topic;
    }
    pthread_mutex_unlock(&produce->mutex);
    return topic;
}

static struct lane *find_lane(const struct produce *produce, const char *name)
{
    size_t count = atomic_load(&produce->lane_count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(produce->lanes[i]->name, name) == 0)
            return produce->lanes[i];
    }
    return NULL;
}

struct lane *lane_init(struct lane *lane, struct produce *produce, const char *name)
{
    lane->produce = produce;
    snprintf(lane->name, sizeof(lane->name), "%s", name);
    snprintf(lane->status.lane, sizeof(lane->status.lane), "%s", name);
    lane->status.since_wall_ns = sl_wall_ns();
    lane->sizing.time_ns = produce->options.transaction_time_ns;
    lane->tail.partition = -1;
    pthread_mutex_init(&lane->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return lane;
}

void lane_destroy(struct lane *lane)
{
    pthread_cond_destroy(&lane->wake);
    pthread_mutex_destroy(&lane->mutex);
}

void lane_free_routes(struct lane *lane)
{
    for (size_t i = 0; i < ROUTE_BUCKETS; i++) {
        while (lane->routes[i]) {
            struct route *route = lane->routes[i];
            lane->routes[i] = route->next;
            free(route);
        }
    }
    lane->route_last = NULL;
    lane->held = NULL;
}

void lane_wake(struct lane *lane)
{
    if (lane->waking)
        spool_reader_wake(lane->waking);
    pthread_cond_broadcast(&lane->wake);
}

bool produce_add_lane(struct produce *produce, const char *name, struct sl_error *err)
{
    if (find_lane(produce, name))
        return true;
    size_t count = atomic_load(&produce->lane_count);
    if (count == LANES_MAX)
        return sl_fail(err, SL_E_CONFIG, "lane %s: more than %d lanes", name, LANES_MAX);
    struct lane *lane = calloc(1, sizeof(*lane));
    sl_assert(lane);
    lane_init(lane, produce, name);
    int code = pthread_create(&lane->thread, NULL, lane_main, lane);
    if (code != 0) {
        lane_destroy(lane);
        free(lane);
        return sl_fail_errno(err, SL_E_UNAVAILABLE, code, "start the thread of lane %s", name);
    }
    char title[16]; // the kernel keeps 15 characters
    snprintf(title, sizeof(title), "drain-%s", name);
    pthread_setname_np(lane->thread, title);
    produce->lanes[count] = lane;
    atomic_store(&produce->lane_count, count + 1);
    return true;
}

// Lanes that older streams name and the configuration does not.
static bool add_older_lanes(struct produce *produce, struct sl_error *err)
{
    struct spool *spool = produce->options.spool;
    size_t count = spool_streams(spool, NULL, 0);
    struct spool_stream_info *infos = calloc(count + 1, sizeof(*infos));
    sl_assert(infos);
    size_t filled = spool_streams(spool, infos, count);
    bool ok = true;
    for (size_t i = 0; i < filled && i < count && ok; i++) {
        for (uint32_t k = 0; k < infos[i].lane_count && ok; k++)
            ok = produce_add_lane(produce, infos[i].lanes[k], err);
    }
    free(infos);
    return ok;
}

static bool add_topics(struct produce *produce, const struct produce_topic *topics, size_t count, struct sl_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(topics[i].name) > PRODUCE_TOPIC_MAX)
            return sl_fail(err, SL_E_CONFIG, "topic %s: name longer than %d", topics[i].name, PRODUCE_TOPIC_MAX);
        struct topic *topic = produce_topic_of(produce, topics[i].name, strlen(topics[i].name));
        pthread_mutex_lock(&produce->mutex);
        topic->listed = true;
        snprintf(topic->lane, sizeof(topic->lane), "%s", topics[i].lane);
        pthread_mutex_unlock(&produce->mutex);
        if (produce->embedded)
            embedded_topic(produce->embedded, topics[i].name, (int)produce->options.embedded_partitions);
    }
    return true;
}

static bool update(struct produce *produce, const struct produce_topic *topics, size_t topic_count,
                   const char *const *lanes, size_t lane_count, struct sl_error *err)
{
    if (!add_topics(produce, topics, topic_count, err))
        return false;
    for (size_t i = 0; i < lane_count && !produce->options.driven; i++) {
        if (!produce_add_lane(produce, lanes[i], err))
            return false;
    }
    return true;
}

bool produce_update(struct produce *produce, const struct produce_topic *topics, size_t topic_count,
                    const char *const *lanes, size_t lane_count, struct sl_error *err)
{
    pthread_mutex_lock(&produce->updating);
    bool ok = update(produce, topics, topic_count, lanes, lane_count, err);
    pthread_mutex_unlock(&produce->updating);
    return ok;
}

bool produce_start(struct produce **out, const struct produce_options *options, struct sl_error *err)
{
    struct produce *produce = calloc(1, sizeof(*produce));
    sl_assert(produce);
    pthread_mutex_init(&produce->mutex, NULL);
    pthread_mutex_init(&produce->updating, NULL);
    histogram_init(&produce->histogram, &histogram_latency_ns);
    copy_options(produce, options);
    snprintf(produce->drainer, sizeof(produce->drainer), "%s", spool_stream(options->spool));
    if (!options->brokers && !(produce->embedded = embedded_start(options, err)))
        goto free_produce;
    const char *brokers = options->brokers ? options->brokers : embedded_brokers(produce->embedded);
    if (strlen(brokers) >= sizeof(produce->brokers)) {
        sl_fail(err, SL_E_CONFIG, "kafka.brokers: longer than %zu bytes", sizeof(produce->brokers) - 1);
        goto free_produce;
    }
    snprintf(produce->brokers, sizeof(produce->brokers), "%s", brokers);
    if (!handle_check(produce, err))
        goto free_produce;
    if (options->driven)
        tombstones_init(produce);
    if (!produce_update(produce, options->topics, options->topic_count, options->lanes, options->lane_count, err) ||
        !(options->driven ? feed_start(produce, err) : add_older_lanes(produce, err))) {
        produce_stop(produce, 0);
        return false;
    }
    *out = produce;
    return true;

free_produce:
    free_all(produce);
    return false;
}

void produce_stop(struct produce *produce, int64_t deadline_ns)
{
    atomic_store(&produce->stop_deadline_ns, deadline_ns);
    atomic_store(&produce->stopping, true);
    size_t count = atomic_load(&produce->lane_count);
    for (size_t i = 0; i < count; i++) {
        struct lane *lane = produce->lanes[i];
        pthread_mutex_lock(&lane->mutex);
        lane_wake(lane);
        pthread_mutex_unlock(&lane->mutex);
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(produce->lanes[i]->thread, NULL);
        lane_destroy(produce->lanes[i]);
        free(produce->lanes[i]);
    }
    drains_stop(produce);
    feed_stop(produce);
    tombstones_free(produce);
    free_all(produce);
}
