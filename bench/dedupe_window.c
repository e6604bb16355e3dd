// Sluice's own window as dedupe-bench sees it: what the gateway does for a request of `count` events. The lines of all
// of them are fetched, all are claimed, and the new ones are settled when the frame is durable. Once more with a filter
// whose every bit is set, so that each claim has to look into the table: what the filter is worth.
#include "base/clock.h"
#include "bench/dedupe_tables.h"
#include "dedupe/internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { BYTES_PER_ID = 32 }; // what the window may take at most

struct table {
    struct dedupe *dedupe;
    _Atomic uint64_t next_seq;
    int64_t now_wall_ns;
};

static struct table *make(uint64_t ids)
{
    struct table *table = calloc(1, sizeof(*table));
    if (table == NULL)
        return NULL;
    table->now_wall_ns = sl_wall_ns();
    table->next_seq = 1;
    uint64_t memory = ids * BYTES_PER_ID, least = dedupe_memory_min();
    struct dedupe_options options = {.memory_bytes = memory > least ? memory : least,
                                     .window_ns = 24 * 3600 * SL_NS_PER_S,
                                     .now_wall_ns = table->now_wall_ns};
    struct sl_error err;
    if (!dedupe_new(&table->dedupe, &options, &err)) {
        fprintf(stderr, "dedupe-bench: %s\n", err.text);
        free(table);
        return NULL;
    }
    return table;
}

static void *create(uint64_t ids)
{
    return make(ids);
}

static void *create_without_filter(uint64_t ids)
{
    struct table *table = make(ids);
    if (table != NULL)
        memset((void *)(uintptr_t)table->dedupe->cells, 0xff, table->dedupe->cells_words * sizeof(uint64_t));
    return table;
}

static void destroy(void *opaque)
{
    struct table *table = opaque;
    dedupe_free(table->dedupe);
    free(table);
}

static struct table_result claim(void *opaque, const struct table_key *keys, size_t count)
{
    struct table *table = opaque;
    struct dedupe_claim claims[TABLE_BATCH_MAX];
    struct table_result result = {.fresh = 0};
    if (count > 1)
        for (size_t i = 0; i < count; i++)
            dedupe_prefetch(table->dedupe, &(struct dedupe_id){{keys[i].id[0], keys[i].id[1]}});
    for (size_t i = 0; i < count; i++) {
        struct dedupe_found found;
        struct dedupe_id id = {{keys[i].id[0], keys[i].id[1]}};
        enum dedupe_verdict verdict =
            dedupe_claim(table->dedupe, &id, keys[i].payload_hash, table->now_wall_ns, &claims[result.fresh], &found);
        result.fresh += verdict == DEDUPE_NEW;
        result.duplicates += verdict == DEDUPE_DUPLICATE;
        result.others += verdict == DEDUPE_CONFLICT || verdict == DEDUPE_UNSURE;
    }
    if (result.fresh > 0) {
        uint64_t seq = atomic_fetch_add_explicit(&table->next_seq, result.fresh, memory_order_relaxed);
        for (uint64_t i = 0; i < result.fresh; i++)
            dedupe_settle(table->dedupe, &claims[i], seq + i);
    }
    return result;
}

static double bytes_per_id(void *opaque)
{
    const struct table *table = opaque;
    struct dedupe_figures figures;
    dedupe_figures(table->dedupe, table->now_wall_ns, &figures);
    return figures.bytes_per_entry;
}

const struct table_ops table_window = {.name = "Sluice",
                                       .many_writers = true,
                                       .create = create,
                                       .destroy = destroy,
                                       .claim = claim,
                                       .bytes_per_id = bytes_per_id};
const struct table_ops table_window_plain = {.name = "Sluice, filter saturated",
                                             .many_writers = true,
                                             .create = create_without_filter,
                                             .destroy = destroy,
                                             .claim = claim,
                                             .bytes_per_id = bytes_per_id};
