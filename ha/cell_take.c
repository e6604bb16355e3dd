// What peers say, and copies on their way to the disk.
//
// Happy path: a frame is told to the core, which answers with HA_STORE when it is to be kept; its records are copied
// and given to the spool's replica thread; when they are synced the core says so to whoever sent them, and their ids go
// to the dedupe window.
//
// Failure modes: more than replica_bytes wait for the disk: sessions are not read until half of it is written. A failed
// disk: nothing is told; the spool ends the process.
#include "ha/cell_internal.h"

#include <stdlib.h>
#include <string.h>

static void hold_back(struct cell *cell, bool hold)
{
    if (cell->held_back == hold)
        return;
    cell->held_back = hold;
    for (uint8_t peer = 0; peer < cell->members; peer++)
        if (peer != cell->self)
            peers_hold_reading(cell->peers, peer, hold);
}

void cell_on_message(void *user, uint8_t peer, const struct wire_message *message)
{
    struct cell *cell = user;
    if (message->what != WIRE_OF_CORE) {
        cell_take_ids(cell, peer, message);
        return;
    }
    if (message->message.kind == HA_FRAME)
        for (uint32_t i = 0; i < message->head.lane_count; i++)
            (void)cell_lane_id(cell, message->head.lanes[i]);
    cell->receiving = message;
    ha_receive(cell->core, cell_now(), &message->message);
    cell_act(cell);
    cell->receiving = NULL;
}

// Replica thread.
static void on_stored(struct spool_store *store)
{
    struct store_post *post = (struct store_post *)(void *)((char *)store - offsetof(struct store_post, store));
    cell_post(post->cell, &post->post);
}

// The records first..last of the message.
static struct sl_span wanted(const struct wire_message *message, uint64_t first, uint64_t last)
{
    if (message->message.first == first && message->message.last == last)
        return message->body;
    struct sl_reader reader = sl_reader_of(message->body.bytes, message->body.length);
    struct record record;
    size_t from = 0;
    for (uint64_t seq = message->message.first; seq <= last; seq++) {
        if (seq == first)
            from = reader.position;
        if (!record_next(&reader, &record))
            return (struct sl_span){.bytes = "", .length = 0};
    }
    return (struct sl_span){.bytes = (const char *)message->body.bytes + from, .length = reader.position - from};
}

void cell_store(struct cell *cell, const struct ha_action *action)
{
    const struct wire_message *message = cell->receiving;
    sl_assert(message != NULL && ha_same(message->message.stream, action->stream));
    struct sl_span body = wanted(message, action->first, action->last);
    sl_assert(body.length > 0); // the codec counted the records
    struct store_post *post = malloc(sizeof(*post) + body.length);
    sl_assert(post != NULL);
    *post = (struct store_post){.post.kind = POST_STORED,
                                .cell = cell,
                                .bytes = body.length,
                                .store = {.head = message->head,
                                          .first_seq = action->first,
                                          .count = (uint32_t)(action->last - action->first + 1),
                                          .body_length = (uint32_t)body.length,
                                          .new_base = action->new_base,
                                          .done = on_stored}};
    memcpy(post->body, body.bytes, body.length);
    post->store.body = post->body;
    cell_text(cell, action->stream, post->store.stream);
    cell->store_bytes += body.length;
    if (!spool_store(cell->spool, &post->store)) {
        // The spool failed or closes: the process ends.
        cell->store_bytes -= body.length;
        free(post);
        return;
    }
    if (cell->store_bytes > cell->options.replica_bytes)
        hold_back(cell, true);
}

void cell_stored(struct cell *cell, struct store_post *post)
{
    const struct spool_store *store = &post->store;
    cell->store_bytes -= post->bytes;
    if (cell->store_bytes <= cell->options.replica_bytes / 2)
        hold_back(cell, false);
    struct ha_id id;
    if (store->outcome != SPOOL_SYNCED || !cell_parse(cell, store->stream, &id))
        return;
    ha_synced(cell->core, cell_now(), id, store->first_seq + store->count - 1);
    if (cell->options.on_replica != NULL)
        cell->options.on_replica(cell->options.user, store->stream, store->first_seq, store->count, store->body,
                                 store->body_length);
}
