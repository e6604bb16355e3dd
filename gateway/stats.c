#include "gateway/stats.h"

#include "base/error.h"
#include "gateway/config.h"

#include <stdlib.h>
#include <string.h>

const char *const outcome_words[OUTCOME_COUNT] = {"accepted", "duplicate", "conflict",   "quarantined",
                                                  "rejected", "throttled", "unavailable"};

enum { STATS_SOURCES_MAX = 2 * CONFIG_SOURCES_MAX };

struct stats {
    uint32_t loop_count;
    // Entries appear once and never move: readers load the count (acquire) and then read freely below it.
    _Atomic uint32_t source_count;
    struct {
        char name[CONFIG_NAME_MAX + 1];
        uint32_t lanes;              // bits
        struct source_stats *shards; // one a loop
    } sources[STATS_SOURCES_MAX];
};

struct stats *stats_new(uint32_t loop_count)
{
    struct stats *stats = calloc(1, sizeof(*stats));
    if (stats == NULL)
        return NULL;
    stats->loop_count = loop_count;
    if (stats_source_index(stats, "_unknown") != STATS_UNKNOWN_SOURCE) {
        free(stats);
        return NULL;
    }
    return stats;
}

void stats_free(struct stats *stats)
{
    if (stats == NULL)
        return;
    for (uint32_t i = 0; i < stats->source_count; i++)
        free(stats->sources[i].shards);
    free(stats);
}

uint32_t stats_source_count(const struct stats *stats)
{
    return atomic_load_explicit(&stats->source_count, memory_order_acquire);
}

uint32_t stats_source_index(struct stats *stats, const char *name)
{
    uint32_t count = stats_source_count(stats);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(stats->sources[i].name, name) == 0)
            return i;
    if (count == STATS_SOURCES_MAX || strlen(name) > CONFIG_NAME_MAX)
        return UINT32_MAX;
    size_t bytes = stats->loop_count * sizeof(struct source_stats);
    struct source_stats *shards = aligned_alloc(_Alignof(struct source_stats), bytes);
    if (shards == NULL)
        return UINT32_MAX;
    memset(shards, 0, bytes);
    for (uint32_t loop = 0; loop < stats->loop_count; loop++)
        histogram_init(&shards[loop].ack_ns, &histogram_latency_ns);
    memcpy(stats->sources[count].name, name, strlen(name) + 1);
    stats->sources[count].shards = shards;
    atomic_store_explicit(&stats->source_count, count + 1, memory_order_release);
    return count;
}

const char *stats_source_name(const struct stats *stats, uint32_t index)
{
    sl_assert(index < stats_source_count(stats));
    return stats->sources[index].name;
}

uint32_t stats_note_lane(struct stats *stats, uint32_t index, uint8_t lane)
{
    sl_assert(index < stats_source_count(stats) && lane < 32);
    return stats->sources[index].lanes |= UINT32_C(1) << lane;
}

struct source_stats *stats_shard(struct stats *stats, uint32_t index, uint32_t loop)
{
    sl_assert(index < stats_source_count(stats) && loop < stats->loop_count);
    return &stats->sources[index].shards[loop];
}

void stats_totals(const struct stats *stats, uint32_t index, struct source_totals *out)
{
    sl_assert(index < stats_source_count(stats));
    memset(out, 0, sizeof(*out));
    histogram_init(&out->ack_ns, &histogram_latency_ns);
    for (uint32_t loop = 0; loop < stats->loop_count; loop++) {
        const struct source_stats *shard = &stats->sources[index].shards[loop];
        out->received += stats_read(&shard->received);
        for (int i = 0; i < OUTCOME_COUNT; i++)
            out->outcomes[i] += stats_read(&shard->outcomes[i]);
        out->in_flight += stats_read(&shard->in_flight);
        out->spooled += stats_read(&shard->spooled);
        out->waiting += stats_read(&shard->waiting);
        out->unavailable_after_append += stats_read(&shard->unavailable_after_append);
        out->business_duplicates += stats_read(&shard->business_duplicates);
        histogram_add(&out->ack_ns, &shard->ack_ns);
    }
}

static uint64_t difference(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

uint64_t stats_check_shard(const struct stats *stats, uint32_t loop)
{
    uint64_t largest = 0;
    for (uint32_t i = 0, count = stats_source_count(stats); i < count; i++) {
        const struct source_stats *shard = &stats->sources[i].shards[loop];
        uint64_t door = stats_read(&shard->in_flight);
        for (int outcome = 0; outcome < OUTCOME_COUNT; outcome++)
            door += stats_read(&shard->outcomes[outcome]);
        uint64_t spool = stats_read(&shard->outcomes[OUTCOME_ACCEPTED]) +
                         stats_read(&shard->outcomes[OUTCOME_QUARANTINED]) +
                         stats_read(&shard->unavailable_after_append) + stats_read(&shard->waiting);
        uint64_t wrong = difference(stats_read(&shard->received), door);
        uint64_t wrong_spool = difference(stats_read(&shard->spooled), spool);
        if (wrong_spool > wrong)
            wrong = wrong_spool;
        if (wrong > largest)
            largest = wrong;
    }
    return largest;
}
