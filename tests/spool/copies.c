#include "tests/spool/copies.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void done(struct spool_store *store)
{
    struct stored *stored = (struct stored *)(void *)store;
    stored->told++;
}

struct stored *stored_new(struct world *world, const char *stream, uint64_t first_seq, uint32_t count,
                          size_t payload_bytes)
{
    struct stored *stored = calloc(1, sizeof(*stored));
    sl_assert(stored != NULL);
    stored->sent = sent_new(world->spool, first_seq - 1, count, payload_bytes, "main");
    const struct record_buffer *records = &stored->sent->batch.records;
    stored->store = (struct spool_store){.head = {.lane_count = 1, .lanes = {"main"}},
                                         .first_seq = first_seq,
                                         .count = count,
                                         .body = records->bytes,
                                         .body_length = (uint32_t)records->length,
                                         .done = done};
    snprintf(stored->store.stream, sizeof(stored->store.stream), "%s", stream);
    return stored;
}

void stored_free(struct stored *stored)
{
    sent_free(stored->sent);
    free(stored);
}

bool world_step_store(struct world *world, const struct stored *stored)
{
    for (unsigned seconds = 0; stored->told == 0;) {
        if (spool_step_replica(world->spool) || stored->told > 0 || spool_step_keeper(world->spool))
            continue;
        if (seconds++ == 60)
            return false;
        world_advance(world, SL_NS_PER_S);
    }
    sl_assert(stored->told == 1);
    return true;
}

static void store_ok(struct world *world, struct stored *stored)
{
    if (!spool_store(world->spool, &stored->store) || !world_step_store(world, stored) ||
        stored->store.outcome != SPOOL_SYNCED)
        sl_panic(__FILE__, __LINE__, "store");
    stored_free(stored);
}

void world_store_ok(struct world *world, const char *stream, uint64_t first_seq, uint32_t count, size_t payload_bytes)
{
    store_ok(world, stored_new(world, stream, first_seq, count, payload_bytes));
}

void world_store_base_ok(struct world *world, const char *stream, uint64_t first_seq, uint32_t count,
                         size_t payload_bytes)
{
    struct stored *stored = stored_new(world, stream, first_seq, count, payload_bytes);
    stored->store.new_base = true;
    store_ok(world, stored);
}

void world_expect_range(struct world *world, const char *stream, uint64_t first, uint64_t last)
{
    struct read_stream read;
    read_all(world->spool, stream, 1, &read);
    sl_assert(read.damage_count == 0);
    sl_assert(read.count == last + 1 - first);
    for (size_t i = 0; i < read.count; i++)
        sl_assert(read.records[i].good && read.records[i].seq == first + i && read.records[i].id == first + i - 1);
    read_free(&read);
}

bool world_info(struct world *world, const char *stream, struct spool_stream_info *out)
{
    return spool_stream_find(world->spool, stream, out);
}
