// Ids of events that this node did not hear of when they came: it was away, or cut off, or has a new disk. Records come
// by the core as far as they are not in Kafka; ids are wanted for the whole window.
//
// Happy path: when a session begins and the window is there, say which ids are known (of which streams, from where to
// where); the peer reads the others from its spool, block by block, as the session has room; "that was all" ends it.
// Until then a node that starts is not ready.
//
// Failure modes: a session that ends is asked again in the next one; what was given stays. A peer whose disk cannot be
// read gives what it can. A start waits for ids no longer than order_wait.
#include "ha/cell_internal.h"

#include "spool/ids.h"

#include <stdlib.h>
#include <string.h>

// What one peer is given. The disk thread's while `busy`, else the replication thread's.
struct giving {
    uint8_t peer;
    uint64_t session; // in which it was asked for
    struct wire_range ranges[WIRE_RANGES_MAX];
    uint32_t range_count;
    struct spool_ids_unit *units; // NULL: not listed yet
    size_t unit_count, unit;
    uint64_t after_seq;
};

struct given_post {
    struct post post;
    struct giving *giving;
    struct wire_ids ids;
    size_t length;
    uint8_t body[];
};

// ---- asking

static void add_range(struct wire_ids *ids, struct ha_id stream, uint64_t first, uint64_t last)
{
    struct wire_range *previous = ids->range_count > 0 ? &ids->ranges[ids->range_count - 1] : NULL;
    if (previous != NULL && ha_same(previous->stream, stream) && first <= previous->last + 1) {
        previous->last = last > previous->last ? last : previous->last;
        return;
    }
    if (ids->range_count < WIRE_RANGES_MAX) // else more is given than is needed
        ids->ranges[ids->range_count++] = (struct wire_range){.stream = stream, .first = first, .last = last};
}

static void ask(struct cell *cell, uint8_t peer)
{
    struct wire_message *message = cell_message(cell, WIRE_ASKS_IDS);
    struct spool_ids_unit *units = NULL;
    struct sl_error err;
    size_t count = 0;
    message->ids.range_count = 0;
    if (!spool_ids_list_all(cell->spool, &units, &count, &err))
        sl_logf(SL_WARN, "ha", "the spool's ids cannot be listed", SL_STR("error", err.text));
    for (size_t i = 0; i < count; i++) {
        struct ha_id id;
        if (units[i].last_seq != UINT64_MAX && cell_parse(cell, units[i].stream, &id))
            add_range(&message->ids, id, units[i].first_seq, units[i].last_seq);
    }
    free(units);
    cell->ids_asked[peer] = peers_send(cell->peers, peer, message, NULL, NULL);
}

void cell_ask_ids(struct cell *cell)
{
    if (cell->options.wants_ids == NULL || !cell->options.wants_ids(cell->options.user))
        return;
    for (uint8_t peer = 0; peer < cell->members; peer++)
        if (peer != cell->self && cell->core->members[peer].up && !cell->ids_asked[peer])
            ask(cell, peer);
}

bool cell_ids_ready(const struct cell *cell)
{
    if (cell->options.wants_ids == NULL || cell_now() - cell->core->started_ns > cell->options.order_wait_ns)
        return true;
    for (uint8_t peer = 0; peer < cell->members; peer++)
        if (peer != cell->self && cell->core->members[peer].up && !cell->ids_given[peer])
            return false;
    return true;
}

// ---- giving: the disk thread

struct taking {
    const struct giving *giving;
    struct cell *cell;
    struct ha_id stream;
    uint64_t after_seq;
    struct given_post *post;
};

static bool is_known(const struct giving *giving, struct ha_id stream, uint64_t first, uint64_t last)
{
    for (uint32_t i = 0; i < giving->range_count; i++) {
        const struct wire_range *range = &giving->ranges[i];
        if (ha_same(range->stream, stream) && range->first <= first && range->last >= last)
            return true;
    }
    return false;
}

// The first block that the peer does not know ends the reading.
static bool take_block(void *user, const struct spool_ids_unit *unit, const struct spool_ids_block *block)
{
    (void)unit;
    struct taking *taking = user;
    uint64_t last = block->first_seq + block->count - 1;
    taking->after_seq = last;
    if (block->count == 0 || is_known(taking->giving, taking->stream, block->first_seq, last))
        return !atomic_load(&taking->cell->stopping);
    size_t entries = block->count * sizeof(*block->entries),
           business = block->business_count * sizeof(*block->business);
    struct given_post *post = calloc(1, sizeof(*post) + entries + business);
    sl_assert(post != NULL);
    post->length = entries + business;
    memcpy(post->body, block->entries, entries);
    if (business > 0)
        memcpy(post->body + entries, block->business, business);
    post->ids = (struct wire_ids){.stream = taking->stream,
                                  .first = block->first_seq,
                                  .count = block->count,
                                  .business_count = block->business_count,
                                  .first_received_wall_ns = block->first_received_wall_ns,
                                  .last_received_wall_ns = block->last_received_wall_ns};
    taking->post = post;
    return false;
}

void cell_give_step(struct cell *cell, struct giving *giving)
{
    struct taking taking = {.giving = giving, .cell = cell};
    struct sl_error err;
    if (giving->units == NULL && !spool_ids_list_all(cell->spool, &giving->units, &giving->unit_count, &err))
        sl_logf(SL_WARN, "ha", "the spool's ids cannot be listed for a peer", SL_STR("error", err.text));
    while (giving->unit < giving->unit_count && taking.post == NULL && !atomic_load(&cell->stopping)) {
        const struct spool_ids_unit *unit = &giving->units[giving->unit];
        struct spool_ids_result result = {0};
        bool ours = cell_parse(cell, unit->stream, &taking.stream);
        bool known = unit->last_seq != UINT64_MAX && is_known(giving, taking.stream, unit->first_seq, unit->last_seq);
        taking.after_seq = giving->after_seq;
        if (ours && !known && !spool_ids_read(cell->spool, unit, giving->after_seq, take_block, &taking, &result, &err))
            sl_logf(SL_WARN, "ha", "ids cannot be read for a peer", SL_STR("stream", unit->stream),
                    SL_STR("error", err.text));
        giving->after_seq = taking.after_seq;
        if (taking.post == NULL) {
            giving->unit++;
            giving->after_seq = 0;
        }
    }
    if (taking.post == NULL) {
        taking.post = calloc(1, sizeof(*taking.post));
        sl_assert(taking.post != NULL);
        taking.post->ids.end = true;
    }
    taking.post->post.kind = POST_GIVEN;
    taking.post->giving = giving;
    cell_post(cell, &taking.post->post);
}

// ---- giving: the replication thread

void cell_free_giving(struct giving *giving)
{
    free(giving->units);
    free(giving);
}

static void start_giving(struct cell *cell, uint8_t peer, const struct wire_ids *ids)
{
    struct giving *giving = calloc(1, sizeof(*giving));
    sl_assert(giving != NULL);
    giving->peer = peer;
    giving->session = cell->sessions[peer];
    giving->range_count = ids->range_count;
    memcpy(giving->ranges, ids->ranges, sizeof(giving->ranges));
    disk_give(cell, giving);
}

// Of a stream that neither the core nor the spool has any more everything is in Kafka: nothing else lets it be deleted.
// What the core has, the other's core hears of, too.
static uint64_t in_kafka_of(struct cell *cell, struct ha_id id)
{
    if (ha_find(cell->core, id) != NULL)
        return 0;
    char stream[SPOOL_STREAM_ID_MAX];
    struct spool_stream_info info;
    cell_text(cell, id, stream);
    if (!spool_stream_find(cell->spool, stream, &info))
        return UINT64_MAX;
    uint64_t verified = UINT64_MAX;
    for (uint32_t i = 0; i < info.lane_count; i++)
        verified = info.verified[i] < verified ? info.verified[i] : verified;
    return info.lane_count > 0 ? verified : 0;
}

void cell_given(struct cell *cell, struct post *of)
{
    struct given_post *post = (struct given_post *)(void *)of;
    struct giving *giving = post->giving;
    bool lives = cell->sessions[giving->peer] == giving->session && cell->core->members[giving->peer].up;
    struct wire_message *message = cell_message(cell, WIRE_GIVES_IDS);
    message->ids = post->ids;
    message->body = (struct sl_span){.bytes = post->body, .length = post->length};
    if (!post->ids.end)
        message->ids.in_kafka = in_kafka_of(cell, post->ids.stream);
    lives = lives && peers_send(cell->peers, giving->peer, message, NULL, NULL);
    if (!lives || post->ids.end)
        cell_free_giving(giving);
    else if (peers_has_room(cell->peers, giving->peer))
        disk_give(cell, giving);
    else
        cell->givings[giving->peer] = giving; // goes on when there is room
}

void cell_give_on(struct cell *cell, uint8_t peer)
{
    struct giving *giving = cell->givings[peer];
    if (giving == NULL || !peers_has_room(cell->peers, peer))
        return;
    cell->givings[peer] = NULL;
    disk_give(cell, giving);
}

void cell_drop_given(struct post *post)
{
    cell_free_giving(((struct given_post *)(void *)post)->giving);
}

// ---- taking

static void take_ids(struct cell *cell, const struct wire_message *message)
{
    const struct wire_ids *ids = &message->ids;
    size_t entries = ids->count * sizeof(struct ids_entry);
    uint8_t *body = malloc(message->body.length); // aligned
    sl_assert(body != NULL);
    memcpy(body, message->body.bytes, message->body.length);
    struct spool_ids_block block = {.first_seq = ids->first,
                                    .count = ids->count,
                                    .business_count = ids->business_count,
                                    .entries = (const struct ids_entry *)(const void *)body,
                                    .business = (const struct ids_business *)(const void *)(body + entries),
                                    .first_received_wall_ns = ids->first_received_wall_ns,
                                    .last_received_wall_ns = ids->last_received_wall_ns};
    bool good = true;
    for (uint32_t i = 0; i < block.business_count; i++)
        good &=
            block.business[i].index < block.count && (i == 0 || block.business[i - 1].index < block.business[i].index);
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, ids->stream, stream);
    if (good)
        cell->options.on_ids(cell->options.user, stream, &block, ids->in_kafka);
    free(body);
}

void cell_take_ids(struct cell *cell, uint8_t peer, const struct wire_message *message)
{
    if (message->what == WIRE_ASKS_IDS) {
        start_giving(cell, peer, &message->ids);
        return;
    }
    if (cell->options.on_ids == NULL)
        return;
    if (!message->ids.end)
        take_ids(cell, message);
    else
        cell->ids_given[peer] = true;
}
