// /metrics in the Prometheus text format 0.0.4. The names of CONTRACT.md, as far as they have a meaning in this
// version.
#include "gateway/gateway.h"

#include "gateway/cell_show.h"
#include "gateway/show.h"

#include "base/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Source, lane and topic names are restricted to characters that need no escape in a label.

static void gauge(FILE *out, const char *name, const char *help, double value)
{
    show_family(out, name, "gauge", help);
    if (isinf(value))
        fprintf(out, "%s %s\n", name, value > 0 ? "+Inf" : "-Inf");
    else
        fprintf(out, "%s %.17g\n", name, value);
}

static void counter(FILE *out, const char *name, const char *help, uint64_t value)
{
    show_family(out, name, "counter", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

// `unit` is what one of the histogram's integers is in the exported unit: 1e-9 for nanoseconds in seconds.
static void histogram(FILE *out, const char *name, const char *label, const char *label_value,
                      const struct histogram *figures, double unit)
{
    char labels[160] = "", alone[164] = "";
    if (label != NULL) {
        snprintf(labels, sizeof(labels), "%s=\"%s\",", label, label_value);
        snprintf(alone, sizeof(alone), "{%s=\"%s\"}", label, label_value);
    }
    uint64_t cumulative = 0;
    for (size_t i = 0; i < figures->bounds->count; i++) {
        cumulative += atomic_load_explicit(&figures->buckets[i], memory_order_relaxed);
        fprintf(out, "%s_bucket{%sle=\"%.10g\"} %" PRIu64 "\n", name, labels, (double)figures->bounds->upper[i] * unit,
                cumulative);
    }
    cumulative += atomic_load_explicit(&figures->buckets[HISTOGRAM_BUCKETS_MAX], memory_order_relaxed);
    fprintf(out, "%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, cumulative);
    fprintf(out, "%s_sum%s %.17g\n", name, alone,
            (double)atomic_load_explicit(&figures->sum, memory_order_relaxed) * unit);
    fprintf(out, "%s_count%s %" PRIu64 "\n", name, alone, cumulative);
}

// One counter or gauge with a sample for each source; `offset`: of a uint64_t in struct source_totals.
struct source_family {
    const char *name, *type, *help;
    size_t offset;
};
static const struct source_family source_families[] = {
    {"sluice_received_events_total", "counter", "Events that arrived: the sum of all outcomes and those in flight.",
     offsetof(struct source_totals, received)},
    {"sluice_in_flight_events", "gauge", "Events taken and not answered yet.",
     offsetof(struct source_totals, in_flight)},
    {"sluice_spooled_events_total", "counter", "Events synced to the local disk.",
     offsetof(struct source_totals, spooled)},
    {"sluice_waiting_events", "gauge", "Events on the local disk that wait for a higher level.",
     offsetof(struct source_totals, waiting)},
    {"sluice_unavailable_after_append_total", "counter",
     "Events on the local disk whose client was told 503 or had gone.",
     offsetof(struct source_totals, unavailable_after_append)},
    {"sluice_business_duplicates_total", "counter",
     "Events whose business fields were accepted before under another id.",
     offsetof(struct source_totals, business_duplicates)},
};

static void put_outcomes(FILE *out, const struct stats *stats, const struct source_totals *totals, uint32_t count)
{
    show_family(out, "sluice_events_total", "counter", "Events by what became of them; outcomes are exclusive.");
    for (uint32_t i = 0; i < count; i++)
        for (int outcome = 0; outcome < OUTCOME_COUNT; outcome++)
            fprintf(out, "sluice_events_total{source=\"%s\",outcome=\"%s\"} %" PRIu64 "\n", stats_source_name(stats, i),
                    outcome_words[outcome], totals[i].outcomes[outcome]);
}

static void put_family(FILE *out, const struct stats *stats, const struct source_totals *totals, uint32_t count,
                       const struct source_family *which)
{
    show_family(out, which->name, which->type, which->help);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&totals[i] + which->offset, sizeof(value));
        fprintf(out, "%s{source=\"%s\"} %" PRIu64 "\n", which->name, stats_source_name(stats, i), value);
    }
}

// Each source is summed up once: the families of one answer agree with one another.
static void put_events(FILE *out, const struct stats *stats)
{
    uint32_t count = stats_source_count(stats);
    struct source_totals *totals = calloc(count, sizeof(*totals));
    if (totals == NULL)
        return;
    for (uint32_t i = 0; i < count; i++)
        stats_totals(stats, i, &totals[i]);
    put_outcomes(out, stats, totals, count);
    for (size_t i = 0; i < sizeof(source_families) / sizeof(source_families[0]); i++)
        put_family(out, stats, totals, count, &source_families[i]);
    show_family(out, "sluice_ack_seconds", "histogram", "From a complete request to its 2xx.");
    for (uint32_t i = 0; i < count; i++)
        if (i != STATS_UNKNOWN_SOURCE)
            histogram(out, "sluice_ack_seconds", "source", stats_source_name(stats, i), &totals[i].ack_ns, 1e-9);
    free(totals);
}

// With dedupe off every figure is 0.
static void put_dedupe(FILE *out, struct window *window)
{
    struct window_status status = {.complete = true};
    if (window != NULL)
        window_status(window, &status);
    const struct dedupe_figures *figures = &status.figures;
    gauge(out, "sluice_dedupe_window_seconds", "How far back ids are really known; 0: not at all.",
          (double)figures->covered_ns * 1e-9);
    gauge(out, "sluice_dedupe_window_configured_seconds", "dedupe.window; 0: off.", (double)figures->window_ns * 1e-9);
    gauge(out, "sluice_dedupe_memory_bytes", "Memory taken.", (double)figures->memory_bytes);
    gauge(out, "sluice_dedupe_memory_needed_bytes", "For the configured window at the rate of the last minute.",
          (double)figures->memory_needed_bytes);
    gauge(out, "sluice_dedupe_entries", "Ids that are known.", (double)figures->entries);
    counter(out, "sluice_dedupe_evicted_total", "Ids let go before their time.", figures->evicted);
    counter(out, "sluice_dedupe_unremembered_total", "Ids for which there was no room at all.", figures->unremembered);
    show_family(out, "sluice_dedupe_confirms_total", "counter",
                "What an id that the filter had let through turned out to be.");
    fprintf(out, "sluice_dedupe_confirms_total{result=\"duplicate\"} %" PRIu64 "\n", figures->confirmed_duplicate);
    fprintf(out, "sluice_dedupe_confirms_total{result=\"conflict\"} %" PRIu64 "\n", figures->confirmed_conflict);
    fprintf(out, "sluice_dedupe_confirms_total{result=\"new\"} %" PRIu64 "\n", figures->confirmed_new);
    counter(out, "sluice_dedupe_replica_ids_total", "Ids taken from other nodes' events.", status.replica_ids);
    gauge(out, "sluice_dedupe_rebuilding", "1 until the window is rebuilt after a start.", !status.complete);
    gauge(out, "sluice_dedupe_memory_too_small", "1 while the memory is too small for the window at the present rate.",
          status.alarm[0] != '\0');
    gauge(out, "sluice_dedupe_snapshot_timestamp_seconds", "When the last snapshot was written; 0: never.",
          (double)status.snapshot_wall_ns * 1e-9);
}

static void put_spool(FILE *out, struct gateway *gateway)
{
    struct spool_figures figures;
    spool_figures(gateway->spool, &figures);
    show_family(out, "sluice_spool_sync_seconds", "histogram", "One write and sync of a frame.");
    histogram(out, "sluice_spool_sync_seconds", NULL, NULL, spool_sync_histogram(gateway->spool), 1e-9);
    show_family(out, "sluice_spool_commit_events", "histogram", "Events in one group commit.");
    histogram(out, "sluice_spool_commit_events", NULL, NULL, spool_commit_histogram(gateway->spool), 1);
    gauge(out, "sluice_spool_bytes", "Bytes in the spool directory, prepared segments included.",
          (double)figures.bytes);
    gauge(out, "sluice_spool_max_bytes", "The disk budget.", (double)figures.max_bytes);
    gauge(out, "sluice_spool_pending_bytes", "Bytes that Kafka has not taken yet.", (double)figures.pending_bytes);
    gauge(out, "sluice_spool_pending_events", "Events that Kafka has not taken yet.", (double)figures.pending_events);
    double oldest_s =
        figures.oldest_pending_wall_ns == 0 ? 0 : (double)(sl_wall_ns() - figures.oldest_pending_wall_ns) * 1e-9;
    gauge(out, "sluice_spool_oldest_pending_seconds",
          "Age of the oldest event that Kafka has not taken yet; 0 when there is none.", oldest_s > 0 ? oldest_s : 0);
    gauge(out, "sluice_spool_seconds_to_full", "Until the disk budget is used up at the growth of the last minute.",
          figures.seconds_to_full);
    gauge(out, "sluice_spool_segments", "Segment files, without the prepared ones.", (double)figures.segments);
    gauge(out, "sluice_spool_segments_ready", "Prepared segments.", (double)figures.segments_ready);
    gauge(out, "sluice_spool_no_space", "1 while no segment can be prepared because the disk or the budget is full.",
          figures.no_space);
    gauge(out, "sluice_spool_damaged_events", "Events in ranges that cannot be read and were set aside.",
          (double)figures.damaged_events);
    gauge(out, "sluice_spool_refused_records",
          "Records in spool/refused: even the dead-letter topic would not take them.", (double)figures.refused_records);
    counter(out, "sluice_spool_appended_events_total", "Events synced to the local disk by this process.",
            figures.appended_events);
    counter(out, "sluice_spool_committed_events_total", "Events committed in Kafka by this process.",
            figures.committed_events);
    uint64_t wrong = ingest_conservation_error(gateway->ingest);
    gauge(out, "sluice_conservation_error",
          "Largest difference seen in the sums of events, ever; anything but 0 is an alarm.",
          (double)(wrong > figures.conservation_error ? wrong : figures.conservation_error));
}

static void put_produce(FILE *out, struct gateway *gateway)
{
    static struct produce_topic_status topics[CONFIG_SOURCES_MAX]; // the admin endpoint has one loop
    size_t topic_count = produce_topics(gateway->produce, topics, CONFIG_SOURCES_MAX);
    show_family(out, "sluice_produced_total", "counter", "Events committed in Kafka.");
    for (size_t i = 0; i < topic_count && i < CONFIG_SOURCES_MAX; i++)
        fprintf(out, "sluice_produced_total{topic=\"%s\"} %" PRIu64 "\n", topics[i].topic, topics[i].produced);
    show_family(out, "sluice_produce_seconds", "histogram", "From the receipt of an event to its commit in Kafka.");
    histogram(out, "sluice_produce_seconds", NULL, NULL, produce_histogram(gateway->produce), 1e-9);
    gauge(out, "sluice_kafka_connected", "1 while Kafka answers.", produce_connected(gateway->produce));

    struct produce_lane_status lanes[2 * SPOOL_LANES_MAX];
    size_t lane_count = produce_lanes(gateway->produce, lanes, sizeof(lanes) / sizeof(lanes[0]));
    show_family(out, "sluice_lane_state", "gauge", "1 for the state that the lane is in.");
    for (size_t i = 0; i < lane_count; i++)
        for (int state = PRODUCE_CONNECTING; state <= PRODUCE_STOPPED; state++)
            fprintf(out, "sluice_lane_state{lane=\"%s\",state=\"%s\"} %d\n", lanes[i].lane,
                    produce_lane_state_word((enum produce_lane_state)state),
                    lanes[i].state == (enum produce_lane_state)state);
#define LANE_COUNTER(name, field, help)                                                                                \
    show_family(out, name, "counter", help);                                                                           \
    for (size_t i = 0; i < lane_count; i++)                                                                            \
    fprintf(out, name "{lane=\"%s\"} %" PRIu64 "\n", lanes[i].lane, lanes[i].field)
    LANE_COUNTER("sluice_lane_transactions_total", transactions, "Committed transactions.");
    LANE_COUNTER("sluice_lane_aborts_total", aborts, "Aborted transactions; their events were produced again.");
    LANE_COUNTER("sluice_lane_dead_lettered_total", dead_lettered, "Records that went to a dead-letter topic.");
    LANE_COUNTER("sluice_lane_refused_total", refused,
                 "Records that even the dead-letter topic refused; they are in spool/refused.");
#undef LANE_COUNTER
}

static void put_cell(FILE *out, struct gateway *gateway)
{
    static struct cell_status status; // the admin endpoint has one loop
    if (gateway->link != NULL)
        cell_status(cell_link_cell(gateway->link), &status);
    cell_show_metrics(out, gateway->link != NULL ? &status : NULL);
}

static void put_http(FILE *out, struct gateway *gateway)
{
    struct http_counters counters;
    http_server_counters(gateway->ingest_server, &counters);
    gauge(out, "sluice_http_connections", "Open connections.", http_server_connections(gateway->ingest_server));
    gauge(out, "sluice_http_unfinished_body_bytes", "Bytes of request bodies that are not complete yet.",
          (double)counters.body_bytes_unfinished);
    counter(out, "sluice_http_requests_total", "Complete requests.", counters.requests);
    counter(out, "sluice_http_connections_accepted_total", "Connections accepted.", counters.connections_accepted);
    show_family(out, "sluice_http_connections_refused_total", "counter",
                "Connections closed before anything of them was read as HTTP, by what they were over or lacked.");
    const char *refused = "sluice_http_connections_refused_total{reason=\"%s\"} %" PRIu64 "\n";
    fprintf(out, refused, "connections", counters.connections_refused);
    fprintf(out, refused, "connections_per_address", counters.connections_refused_address);
    fprintf(out, refused, "proxy_header", counters.connections_refused_proxy);
    counter(out, "sluice_http_connections_closed_total",
            "Connections closed for resets, stalls, time limits or budgets.", counters.connections_closed_by_armour);
}

char *metrics_text(struct gateway *gateway, size_t *length)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    if (out == NULL)
        return NULL;
    put_events(out, gateway->stats);
    put_dedupe(out, gateway->window);
    put_spool(out, gateway);
    put_produce(out, gateway);
    put_cell(out, gateway);
    put_http(out, gateway);
    show_family(out, "sluice_build_info", "gauge", "Always 1.");
    fprintf(out, "sluice_build_info{version=\"%s\"} 1\n", SLUICE_VERSION);
    gauge(out, "sluice_uptime_seconds", "Since the start of the process.",
          (double)(sl_monotonic_ns() - gateway->started_ns) * 1e-9);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
