// /status: everything that the status page shows and that a person asks first, as JSON.
#include "gateway/gateway.h"

#include "gateway/cell_show.h"
#include "gateway/show.h"

#include "base/clock.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static json_t *milliseconds(uint64_t ns)
{
    return ns == UINT64_MAX ? json_null() : json_real((double)ns / 1e6);
}

static const char *phase_word(struct gateway *gateway)
{
    if (atomic_load(&gateway->spool_failed))
        return "failed";
    switch ((enum gateway_phase)atomic_load(&gateway->phase)) {
    case PHASE_STARTING:
        return "starting";
    case PHASE_READY:
        return gateway_ready(gateway) ? "ready" : "not ready";
    case PHASE_DRAINING:
    case PHASE_CLOSING:
        return "draining";
    }
    return "unknown";
}

static json_t *sources_json(struct gateway *gateway, struct routes *routes)
{
    json_t *list = json_array();
    for (size_t i = 0; i < routes_count(routes); i++) {
        const struct route *route = routes_at(routes, i);
        struct source_totals totals;
        stats_totals(gateway->stats, route->stats, &totals);
        const char *why;
        bool ready = gateway_source_ready(gateway, route->source, &why);
        json_t *outcomes = json_object();
        for (int outcome = 0; outcome < OUTCOME_COUNT; outcome++)
            json_object_set_new(outcomes, outcome_words[outcome], show_number(totals.outcomes[outcome]));
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s, s:b, s:s?, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "source",
                            route->source->name, "topic", route->source->topic, "lane", route->source->lane, "ack",
                            ack_level_word(route->source->ack), "ready", ready, "why", why, "received",
                            show_number(totals.received), "in_flight", show_number(totals.in_flight), "waiting",
                            show_number(totals.waiting), "business_duplicates", show_number(totals.business_duplicates),
                            "events", outcomes, "ack_ms_p50", milliseconds(histogram_quantile(&totals.ack_ns, 0.5)),
                            "ack_ms_p99", milliseconds(histogram_quantile(&totals.ack_ns, 0.99))));
    }
    return list;
}

static json_t *spool_json(struct gateway *gateway, const struct spool_figures *figures)
{
    const struct histogram *sync = spool_sync_histogram(gateway->spool);
    json_t *spool = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "stream", spool_stream(gateway->spool),
        "synced_seq", show_number(spool_synced_seq(gateway->spool)), "bytes", show_number(figures->bytes), "max_bytes",
        show_number(figures->max_bytes), "pending_bytes", show_number(figures->pending_bytes), "pending_events",
        show_number(figures->pending_events), "segments", show_number(figures->segments), "segments_ready",
        show_number(figures->segments_ready), "damaged_events", show_number(figures->damaged_events), "refused_records",
        show_number(figures->refused_records), "failed", figures->failed, "no_space", figures->no_space);
    double oldest_s =
        figures->oldest_pending_wall_ns == 0 ? 0 : (double)(sl_wall_ns() - figures->oldest_pending_wall_ns) * 1e-9;
    json_object_set_new(spool, "oldest_pending_seconds", json_real(oldest_s > 0 ? oldest_s : 0));
    json_object_set_new(spool, "seconds_to_full",
                        isfinite(figures->seconds_to_full) ? json_real(figures->seconds_to_full) : json_null());
    json_object_set_new(spool, "sync_ms_p50", milliseconds(histogram_quantile(sync, 0.5)));
    json_object_set_new(spool, "sync_ms_p99", milliseconds(histogram_quantile(sync, 0.99)));
    json_object_set_new(spool, "appended_events", show_number(figures->appended_events));
    json_object_set_new(spool, "committed_events", show_number(figures->committed_events));
    return spool;
}

static json_t *streams_json(struct gateway *gateway)
{
    enum { SHOWN_MAX = 64 };
    static struct spool_stream_info streams[SHOWN_MAX]; // the admin endpoint has one loop
    size_t count = spool_streams(gateway->spool, streams, SHOWN_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < count && i < SHOWN_MAX; i++) {
        const struct spool_stream_info *stream = &streams[i];
        json_t *lanes = json_object();
        for (uint32_t lane = 0; lane < stream->lane_count; lane++)
            json_object_set_new(lanes, stream->lanes[lane],
                                json_pack("{s:o, s:o}", "committed", show_number(stream->committed[lane]), "verified",
                                          show_number(stream->verified[lane])));
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:o, s:o, s:o}", "stream", stream->id, "current",
                                              stream->current, "scanned", stream->scanned, "end_seq",
                                              show_number(stream->end_seq), "damaged_events",
                                              show_number(stream->damaged), "lanes", lanes));
    }
    return list;
}

static json_t *kafka_json(struct gateway *gateway)
{
    struct produce_lane_status lanes[2 * SPOOL_LANES_MAX];
    size_t count = produce_lanes(gateway->produce, lanes, sizeof(lanes) / sizeof(lanes[0]));
    json_t *lane_list = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct produce_lane_status *lane = &lanes[i];
        json_array_append_new(lane_list, json_pack("{s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "lane",
                                                   lane->lane, "state", produce_lane_state_word(lane->state), "since",
                                                   show_time(lane->since_wall_ns), "stream", lane->stream,
                                                   "committed_seq", show_number(lane->committed_seq), "verified_seq",
                                                   show_number(lane->verified_seq), "transactions",
                                                   show_number(lane->transactions), "aborts", show_number(lane->aborts),
                                                   "dead_lettered", show_number(lane->dead_lettered), "refused",
                                                   show_number(lane->refused), "trouble", lane->trouble));
    }
    static struct produce_topic_status topics[CONFIG_SOURCES_MAX];
    size_t topic_count = produce_topics(gateway->produce, topics, CONFIG_SOURCES_MAX);
    json_t *topic_list = json_array();
    for (size_t i = 0; i < topic_count && i < CONFIG_SOURCES_MAX; i++)
        json_array_append_new(topic_list,
                              json_pack("{s:s, s:o, s:i, s:i, s:i, s:s}", "topic", topics[i].topic, "produced",
                                        show_number(topics[i].produced), "partitions", topics[i].partitions,
                                        "replication_factor", topics[i].replication_factor, "min_insync_replicas",
                                        topics[i].min_insync_replicas, "warning", topics[i].warning));
    return json_pack("{s:s, s:b, s:o, s:o}", "brokers", produce_brokers(gateway->produce), "connected",
                     produce_connected(gateway->produce), "lanes", lane_list, "topics", topic_list);
}

static json_t *dedupe_json(struct window *window)
{
    if (window == NULL)
        return json_pack("{s:b}", "enabled", 0);
    struct window_status status;
    window_status(window, &status);
    const struct dedupe_figures *figures = &status.figures;
    json_t *affordable = figures->window_affordable_ns == INT64_MAX
                             ? json_null()
                             : json_real((double)figures->window_affordable_ns * 1e-9);
    json_t *dedupe =
        json_pack("{s:b, s:b, s:f, s:f, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:o, s:s, s:s}", "enabled", 1, "complete",
                  status.complete, "window_seconds", (double)figures->covered_ns * 1e-9, "configured_seconds",
                  (double)figures->window_ns * 1e-9, "entries", show_number(figures->entries), "capacity",
                  show_number(figures->capacity), "memory_bytes", show_number(figures->memory_bytes), "evicted",
                  show_number(figures->evicted), "ids_per_second", figures->claims_per_second, "memory_needed_bytes",
                  show_number(figures->memory_needed_bytes), "affordable_seconds", affordable, "snapshot",
                  show_time(status.snapshot_wall_ns), "snapshot_error", status.snapshot_error, "alarm", status.alarm);
    json_object_set_new(dedupe, "replica_ids", show_number(status.replica_ids));
    json_object_set_new(dedupe, "rebuild",
                        json_pack("{s:o, s:o, s:o, s:f}", "ids", show_number(status.rebuild_ids), "done_bytes",
                                  show_number(status.rebuild_done_bytes), "bytes", show_number(status.rebuild_bytes),
                                  "seconds", status.rebuild_seconds));
    return dedupe;
}

static json_t *cell_json(struct gateway *gateway)
{
    static struct cell_status status; // the admin endpoint has one loop
    if (gateway->link == NULL)
        return json_null();
    cell_status(cell_link_cell(gateway->link), &status);
    return cell_show_json(&status);
}

char *status_json(struct gateway *gateway, size_t *length)
{
    struct routes *routes = gateway_routes(gateway);
    const struct config *config = routes_config(routes);
    struct spool_figures figures;
    spool_figures(gateway->spool, &figures);
    uint64_t wrong = ingest_conservation_error(gateway->ingest);
    if (figures.conservation_error > wrong)
        wrong = figures.conservation_error;
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "version", SLUICE_VERSION, "node",
                             config->node_name, "zone", config->node_zone, "cluster", config->node_cluster, "state",
                             phase_word(gateway), "started", show_time(gateway->started_wall_ns), "uptime_seconds",
                             json_real((double)(sl_monotonic_ns() - gateway->started_ns) * 1e-9), "conservation_error",
                             show_number(wrong));
    json_object_set_new(root, "sources", sources_json(gateway, routes));
    json_object_set_new(root, "dedupe", dedupe_json(gateway->window));
    json_object_set_new(root, "spool", spool_json(gateway, &figures));
    json_object_set_new(root, "streams", streams_json(gateway));
    json_object_set_new(root, "kafka", kafka_json(gateway));
    json_object_set_new(root, "cell", cell_json(gateway));
    pthread_mutex_lock(&gateway->lock);
    json_object_set_new(root, "config",
                        json_pack("{s:s, s:o, s:s}", "file", config->file, "loaded", show_time(gateway->loaded_wall_ns),
                                  "reload_error", gateway->reload_error));
    json_object_set_new(root, "last_drills", gateway->drills ? json_deep_copy(gateway->drills) : json_array());
    pthread_mutex_unlock(&gateway->lock);
    json_object_set_new(root, "connections", show_number(http_server_connections(gateway->ingest_server)));
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    routes_release(routes);
    *length = text != NULL ? strlen(text) : 0;
    return text;
}
