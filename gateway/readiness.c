// May events be acknowledged right now? What the load balancer asks, source by source.
#include "gateway/gateway.h"

#include "base/clock.h"

#include <jansson.h>
#include <string.h>

static enum spool_priority priority_of(const struct config_source *source)
{
    switch (source->priority) {
    case PRIORITY_HIGH:
        return SPOOL_PRIORITY_HIGH;
    case PRIORITY_NORMAL:
        return SPOOL_PRIORITY_NORMAL;
    case PRIORITY_LOW:
        return SPOOL_PRIORITY_LOW;
    }
    return SPOOL_PRIORITY_NORMAL;
}

static const char *spool_trouble(enum spool_admission admission)
{
    switch (admission) {
    case SPOOL_ADMITTED:
    case SPOOL_BUSY: // passes within milliseconds: no reason to take the node out of the balancer
        return NULL;
    case SPOOL_THROTTLED:
        return "the spool is running full: sources of this priority are throttled";
    case SPOOL_FULL:
        return "the spool is full, or the disk has no room";
    case SPOOL_DEAD:
        return "the local disk has failed";
    }
    return "unknown";
}

// Level kafka: is the source's lane able to commit? A broker of the node's own zone answers questions also when both
// are cut off from the others, so what counts is what was committed.
static const char *lane_trouble(struct gateway *gateway, const struct config_source *source)
{
    struct produce_lane_status lanes[2 * SPOOL_LANES_MAX];
    size_t count = produce_lanes(gateway->produce, lanes, sizeof(lanes) / sizeof(lanes[0]));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(lanes[i].lane, source->lane) != 0)
            continue;
        if (lanes[i].waiting_since_ns != 0 && sl_monotonic_ns() - lanes[i].waiting_since_ns > source->ack_timeout_ns)
            return "Kafka has committed nothing of the lane for longer than an answer may take";
        switch (lanes[i].state) {
        case PRODUCE_FOLLOWING:
            return NULL;
        case PRODUCE_CONNECTING:
            return "waiting for Kafka";
        case PRODUCE_DRAINING:
            return "older events of this lane are being drained first";
        case PRODUCE_HELD:
            return "the lane is held up by a topic";
        case PRODUCE_STOPPED:
            return "the lane is stopped until a person decides";
        }
    }
    return "the lane is not running";
}

// Level kafka, and az2 while no other zone can be reached.
static const char *kafka_trouble(struct gateway *gateway, const struct config_source *source)
{
    const char *why = lane_trouble(gateway, source);
    return why == NULL && !produce_connected(gateway->produce) ? "Kafka does not answer" : why;
}

static bool cell_is_ready(struct gateway *gateway)
{
    return gateway->link == NULL || cell_ready(cell_link_cell(gateway->link));
}

bool gateway_source_ready(struct gateway *gateway, const struct config_source *source, const char **why)
{
    *why = NULL;
    int phase = atomic_load(&gateway->phase);
    if (phase != PHASE_READY)
        *why = phase == PHASE_STARTING ? "starting" : "draining";
    else if (atomic_load(&gateway->spool_failed))
        *why = "the local disk has failed";
    else if (gateway->window != NULL && !window_is_complete(gateway->window))
        *why = "the dedupe window is being rebuilt";
    else if (!cell_is_ready(gateway))
        *why = "fetching what the peers have of this node's streams";
    else
        *why = spool_trouble(spool_would_admit(gateway->spool, priority_of(source)));
    if (*why == NULL && source->ack == ACK_KAFKA)
        *why = kafka_trouble(gateway, source);
    if (*why == NULL && source->ack == ACK_AZ2 && !cell_has_second_zone(cell_link_cell(gateway->link)) &&
        kafka_trouble(gateway, source) != NULL)
        *why = "no peer in another zone is connected, and Kafka cannot be reached";
    return *why == NULL;
}

// A node without sources has nothing to acknowledge; it is as ready as its process, so that a roll-out can proceed.
static bool process_ready(struct gateway *gateway)
{
    return atomic_load(&gateway->phase) == PHASE_READY && !atomic_load(&gateway->spool_failed) &&
           (gateway->window == NULL || window_is_complete(gateway->window)) && cell_is_ready(gateway);
}

static bool routes_ready(struct gateway *gateway, const struct routes *routes)
{
    bool ready = routes_count(routes) == 0 && process_ready(gateway);
    const char *why;
    for (size_t i = 0; i < routes_count(routes) && !ready; i++)
        ready = gateway_source_ready(gateway, routes_at(routes, i)->source, &why);
    return ready;
}

bool gateway_ready(struct gateway *gateway)
{
    struct routes *routes = gateway_routes(gateway);
    bool ready = routes_ready(gateway, routes);
    routes_release(routes);
    return ready;
}

static json_t *source_json(struct gateway *gateway, const struct config_source *source)
{
    const char *why;
    bool good = gateway_source_ready(gateway, source, &why);
    json_t *detail = json_pack("{s:b, s:s}", "ready", good, "ack", ack_level_word(source->ack));
    if (!good)
        json_object_set_new(detail, "why", json_string(why));
    return detail;
}

static json_t *rebuild_json(struct window *window)
{
    struct window_status status;
    window_status(window, &status);
    return json_pack("{s:I, s:I, s:I, s:f}", "ids", (json_int_t)status.rebuild_ids, "done_bytes",
                     (json_int_t)status.rebuild_done_bytes, "bytes", (json_int_t)status.rebuild_bytes, "seconds",
                     status.rebuild_seconds);
}

char *ready_json(struct gateway *gateway, bool *ready, size_t *length)
{
    struct routes *routes = gateway_routes(gateway);
    *ready = routes_ready(gateway, routes);
    json_t *sources = json_object();
    for (size_t i = 0; i < routes_count(routes); i++) {
        const struct config_source *source = routes_at(routes, i)->source;
        json_object_set_new(sources, source->name, source_json(gateway, source));
    }
    json_t *root = json_pack("{s:b, s:o}", "ready", *ready, "sources", sources);
    if (gateway->window != NULL && !window_is_complete(gateway->window))
        json_object_set_new(root, "rebuild", rebuild_json(gateway->window));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    routes_release(routes);
    *length = text != NULL ? strlen(text) : 0;
    return text;
}
