// sluice-load's own events: payment events out of templates, keys at random; with `ordered` the idle keys in turn.
#include "bench/load_source.h"

#include <stdlib.h>

struct events {
    struct load_source source; // the first member: the two are converted into each other
    struct payload_set *payload;
    uint64_t *key_seqs;
    uint32_t *idle_keys; // ordered: ring of keys without an outstanding event
    size_t idle_head, idle_count;
    uint64_t counter;
    uint64_t random;
    uint32_t keys;
    bool ordered;
};

static bool ready(const struct load_source *source, uint32_t count)
{
    const struct events *events = (const struct events *)source;
    return !events->ordered || events->idle_count >= count;
}

static uint32_t take_key(struct events *events)
{
    if (!events->ordered)
        return (uint32_t)(((payload_random(&events->random) >> 32) * events->keys) >> 32);
    uint32_t key = events->idle_keys[events->idle_head];
    events->idle_head = (events->idle_head + 1) % events->keys;
    events->idle_count--;
    return key;
}

static void next(struct load_source *source, int64_t wall_ns, struct load_event *event)
{
    struct events *events = (struct events *)source;
    uint32_t key = take_key(events);
    *event = (struct load_event){
        .counter = events->counter++, .seq = ++events->key_seqs[key], .wall_ns = wall_ns, .key = key};
}

static void settled(struct load_source *source, const struct load_event *event, bool acked)
{
    struct events *events = (struct events *)source;
    (void)acked;
    if (events->ordered)
        events->idle_keys[(events->idle_head + events->idle_count++) % events->keys] = event->key;
}

static void write_event(struct load_source *source, const struct load_event *event, uint8_t *out)
{
    const struct payload_event payload = {
        .counter = event->counter, .seq = event->seq, .key = event->key, .wall_ns = event->wall_ns};
    payload_write(((struct events *)source)->payload, &payload, out);
}

static size_t id(const struct load_source *source, const struct load_event *event, char *out)
{
    return payload_id(((const struct events *)source)->payload, event->counter, out);
}

static size_t key(const struct load_source *source, const struct load_event *event, char *out)
{
    (void)source;
    payload_key(event->key, out);
    return PAYLOAD_KEY_BYTES;
}

static void free_events(struct load_source *source)
{
    struct events *events = (struct events *)source;
    if (events == NULL)
        return;
    payload_set_free(events->payload);
    free(events->key_seqs);
    free(events->idle_keys);
    free(events);
}

struct load_source *load_events_new(const char *run, size_t event_bytes, uint32_t keys, bool ordered, uint64_t seed)
{
    struct events *events = (struct events *)calloc(1, sizeof(*events));
    if (events == NULL)
        return NULL;
    events->source = (struct load_source){.event_bytes = event_bytes,
                                          .ready = ready,
                                          .next = next,
                                          .settled = settled,
                                          .write = write_event,
                                          .id = id,
                                          .key = key,
                                          .free = free_events};
    events->payload = payload_set_new(event_bytes, run, seed);
    events->key_seqs = (uint64_t *)calloc(keys, sizeof(*events->key_seqs));
    events->idle_keys = (uint32_t *)calloc(keys, sizeof(*events->idle_keys));
    if (events->payload == NULL || events->key_seqs == NULL || events->idle_keys == NULL) {
        free_events(&events->source);
        return NULL;
    }
    for (uint32_t i = 0; i < keys; i++)
        events->idle_keys[i] = i;
    events->idle_count = events->keys = keys;
    events->random = seed;
    events->ordered = ordered;
    return &events->source;
}
