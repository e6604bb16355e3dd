#include "gateway/routes.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct routes {
    _Atomic uint32_t references;
    struct config *config;
    size_t count;
    struct route routes[];
};

static bool route_init(struct route *route, const struct config_source *source, struct spool *spool,
                       struct stats *stats, struct sl_error *err)
{
    route->source = source;
    route->name = sl_span_of(source->name);
    route->lane_name = sl_span_of(source->lane);
    route->topic = sl_span_of(source->topic);
    route->stats = stats_source_index(stats, source->name);
    if (route->stats == UINT32_MAX)
        return sl_fail(err, SL_E_NO_MEMORY, "source %s: no room for its counters", source->name);
    size_t lane = spool_lane_index(spool, source->lane);
    if (lane >= SPOOL_LANES_MAX)
        return sl_fail(err, SL_E_INVALID, "source %s: lane %s is not declared to the spool", source->name,
                       source->lane);
    route->lane = (uint8_t)lane;
    route->lanes_ever = stats_note_lane(stats, route->stats, route->lane);
    for (size_t i = 0; i < source->id_part_count; i++)
        route->pointers[i] = source->id_parts[i].from == ID_FROM_POINTER ? source->id_parts[i].pointer : NULL;
    route->key_index = source->id_part_count;
    route->time_index = source->id_part_count + 1;
    route->business_index = source->id_part_count + 2;
    route->pointer_count = route->business_index + source->business_field_count;
    sl_assert(route->pointer_count <= ROUTE_POINTERS_MAX);
    for (size_t i = 0; i < source->business_field_count; i++)
        route->pointers[route->business_index + i] = source->business_fields[i];
    route->pointers[route->key_index] = source->key;
    route->pointers[route->time_index] = source->time;
    return true;
}

bool routes_new(struct routes **out, struct config *config, struct spool *spool, struct stats *stats,
                struct sl_error *err)
{
    struct routes *routes = calloc(1, sizeof(*routes) + config->source_count * sizeof(routes->routes[0]));
    if (routes == NULL)
        return sl_fail(err, SL_E_NO_MEMORY, "routes of %zu sources", config->source_count);
    atomic_init(&routes->references, 1);
    routes->count = config->source_count;
    for (size_t i = 0; i < routes->count; i++) {
        if (!route_init(&routes->routes[i], config->sources[i], spool, stats, err)) {
            free(routes);
            return false;
        }
    }
    routes->config = config_retain(config);
    *out = routes;
    return true;
}

struct routes *routes_retain(struct routes *routes)
{
    atomic_fetch_add_explicit(&routes->references, 1, memory_order_relaxed);
    return routes;
}

void routes_release(struct routes *routes)
{
    if (routes == NULL || atomic_fetch_sub_explicit(&routes->references, 1, memory_order_acq_rel) != 1)
        return;
    config_release(routes->config);
    free(routes);
}

const struct config *routes_config(const struct routes *routes)
{
    return routes->config;
}

size_t routes_count(const struct routes *routes)
{
    return routes->count;
}

const struct route *routes_at(const struct routes *routes, size_t index)
{
    sl_assert(index < routes->count);
    return &routes->routes[index];
}

const struct route *routes_find(const struct routes *routes, struct sl_span name)
{
    size_t low = 0, high = routes->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *there = routes->routes[middle].source->name;
        int order = strncmp(there, name.bytes, name.length);
        if (order == 0 && there[name.length] != '\0')
            order = 1; // `name` is a prefix of it
        if (order == 0)
            return &routes->routes[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
