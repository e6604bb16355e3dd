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

// Calls take() with the lane, or with the drain of the newest own stream in that lane; not at all when there is none.
static int64_t ask_lane(const struct produce *produce, const char *name, int64_t (*take)(const struct lane *lane))
{
    if (!produce->options.driven) {
        const struct lane *found = find_lane(produce, name);
        return found ? take(found) : 0;
    }
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&produce->mutex;
    int64_t answer = 0;
    pthread_mutex_lock(mutex);
    for (const struct drain *drain = produce->drains; drain; drain = drain->next) {
        if (strcmp(drain->stream, produce->drainer) == 0 && strcmp(drain->lane.name, name) == 0)
            answer = take(&drain->lane);
    }
    pthread_mutex_unlock(mutex);
    return answer;
}

static int64_t take_committed(const struct lane *lane)
{
    return (int64_t)atomic_load(&lane->committed);
}

static int64_t take_last_commit(const struct lane *lane)
{
    return atomic_load(&lane->last_commit_ns);
}

uint64_t produce_committed(const struct produce *produce, const char *lane)
{
    return (uint64_t)ask_lane(produce, lane, take_committed);
}

int64_t produce_last_commit_ns(const struct produce *produce, const char *lane)
{
    return ask_lane(produce, lane, take_last_commit);
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

static void copy_status(struct lane *lane, struct produce_lane_status *out)
{
    pthread_mutex_lock(&lane->mutex);
    *out = lane->status;
    out->waiting_since_ns = atomic_load(&lane->waiting_since_ns);
    pthread_mutex_unlock(&lane->mutex);
}

static size_t list_drains(const struct produce *produce, struct produce_lane_status *out, size_t capacity)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&produce->mutex;
    size_t count = 0;
    pthread_mutex_lock(mutex);
    for (struct drain *drain = produce->drains; drain; drain = drain->next, count++) {
        if (count < capacity)
            copy_status(&drain->lane, &out[count]);
    }
    pthread_mutex_unlock(mutex);
    return count;
}

size_t produce_lanes(const struct produce *produce, struct produce_lane_status *out, size_t capacity)
{
    if (produce->options.driven)
        return list_drains(produce, out, capacity);
    size_t count = atomic_load(&produce->lane_count);
    for (size_t i = 0; i < count && i < capacity; i++)
        copy_status(produce->lanes[i], &out[i]);
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
