// Figures for metrics and the status page. Any thread.
#include "produce/internal.h"

#include <stdio.h>
#include <string.h>

const char *produce_lane_state_word(enum produce_lane_state state)
{
    static const char *const words[] = {"connecting", "draining", "following", "held", "stopped"};
    return words[state];
}

static const struct lane *find_lane(const struct produce *produce, const char *name)
{
    size_t count = atomic_load(&produce->lane_count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(produce->lanes[i]->name, name) == 0)
            return produce->lanes[i];
    }
    return NULL;
}

uint64_t produce_committed(const struct produce *produce, const char *lane)
{
    const struct lane *found = find_lane(produce, lane);
    return found ? atomic_load(&found->committed) : 0;
}

int64_t produce_last_commit_ns(const struct produce *produce, const char *lane)
{
    const struct lane *found = find_lane(produce, lane);
    return found ? atomic_load(&found->last_commit_ns) : 0;
}

const char *produce_brokers(const struct produce *produce)
{
    return produce->brokers;
}

const struct histogram *produce_histogram(const struct produce *produce)
{
    return &produce->histogram;
}

bool produce_connected(const struct produce *produce)
{
    int64_t reached_ns = atomic_load(&produce->reached_ns);
    return reached_ns != 0 && sl_monotonic_ns() - reached_ns < 10 * SL_NS_PER_S;
}

size_t produce_lanes(const struct produce *produce, struct produce_lane_status *out, size_t capacity)
{
    size_t count = atomic_load(&produce->lane_count);
    for (size_t i = 0; i < count && i < capacity; i++) {
        struct lane *lane = produce->lanes[i];
        pthread_mutex_lock(&lane->mutex);
        out[i] = lane->status;
        pthread_mutex_unlock(&lane->mutex);
    }
    return count;
}

size_t produce_topics(const struct produce *produce, struct produce_topic_status *out, size_t capacity)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&produce->mutex;
    size_t count = 0;
    pthread_mutex_lock(mutex);
    for (const struct topic *topic = produce->topics; topic; topic = topic->next) {
        if (!topic->listed && atomic_load(&topic->produced) == 0)
            continue;
        if (count < capacity) {
            struct produce_topic_status *status = &out[count];
            *status = (struct produce_topic_status){.produced = atomic_load(&topic->produced),
                                                    .partitions = topic->partitions,
                                                    .replication_factor = topic->replication_factor,
                                                    .min_insync_replicas = topic->min_insync_replicas};
            snprintf(status->topic, sizeof(status->topic), "%.*s", PRODUCE_TOPIC_MAX, topic->name);
            snprintf(status->warning, sizeof(status->warning), "%.*s", (int)sizeof(status->warning) - 1,
                     topic->warning);
        }
        count++;
    }
    pthread_mutex_unlock(mutex);
    return count;
}
