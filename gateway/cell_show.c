#include "gateway/cell_show.h"

#include "gateway/show.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

// ---- metrics. Names of members and zones are restricted to characters that need no escape in a label.

// One figure of each peer, or of each member with `self` as well.
struct member_family {
    const char *name, *type, *help;
    bool zone, self;
    double (*value)(const struct cell_member_status *member);
};

static double is_up(const struct cell_member_status *member)
{
    return member->up;
}
static double reaches_kafka(const struct cell_member_status *member)
{
    return member->kafka;
}
static double lag(const struct cell_member_status *member)
{
    return (double)member->lag_events;
}
static double heard(const struct cell_member_status *member)
{
    return (double)member->heard_ns * 1e-9;
}
static double bytes_in(const struct cell_member_status *member)
{
    return (double)member->bytes_in;
}
static double bytes_out(const struct cell_member_status *member)
{
    return (double)member->bytes_out;
}
static double at_risk(const struct cell_member_status *member)
{
    return (double)member->at_risk;
}

static const struct member_family member_families[] = {
    {"sluice_peer_up", "gauge", "1 while there is a session with the peer.", true, false, is_up},
    {"sluice_peer_kafka", "gauge", "1 while the peer says that it reaches Kafka.", false, false, reaches_kafka},
    {"sluice_peer_lag_events", "gauge", "Events of this node's stream that the peer has not on its disk, nor Kafka.",
     false, false, lag},
    {"sluice_peer_heard_seconds", "gauge", "Since the peer was last heard of.", false, false, heard},
    {"sluice_peer_received_bytes_total", "counter", "From the peer.", false, false, bytes_in},
    {"sluice_peer_sent_bytes_total", "counter", "To the peer.", false, false, bytes_out},
    {"sluice_ha_at_risk_events", "gauge",
     "Events that would be gone for good if this member's disk were lost now. Anything but 0 is to be looked at.",
     false, true, at_risk},
};

struct counter_family {
    const char *name, *help;
    size_t offset; // of a uint64_t in struct cell_status
};
static const struct counter_family counter_families[] = {
    {"sluice_takeovers_total", "Lanes of other nodes' streams that this node began to drain.",
     offsetof(struct cell_status, takeovers)},
    {"sluice_ha_fenced_total", "Times that a drain of this node was fenced by another.",
     offsetof(struct cell_status, fenced)},
    {"sluice_ha_sealed_total", "Streams that this node gave up while it ran, to go on with another.",
     offsetof(struct cell_status, sealed)},
    {"sluice_ha_refused_total", "Frames of an owner that were refused because its stream was taken over.",
     offsetof(struct cell_status, refused)},
    {"sluice_ha_order_given_up_total", "Streams that were drained without the older one that nobody in reach held.",
     offsetof(struct cell_status, order_given_up)},
    {"sluice_ha_repairs_sent_total", "Copies offered to peers that lacked them.",
     offsetof(struct cell_status, repairs_sent)},
    {"sluice_ha_tombstones_total", "Streams of which no member holds anything more.",
     offsetof(struct cell_status, tombstones)},
};

static uint64_t stopped_lanes(const struct cell_status *status)
{
    uint64_t stopped = 0;
    for (uint32_t i = 0; i < status->stream_count; i++)
        for (uint32_t lane = 0; lane < status->streams[i].lane_count; lane++)
            stopped += strcmp(status->streams[i].lanes[lane].step, "stopped") == 0;
    return stopped;
}

static void put_members(FILE *out, const struct cell_status *status)
{
    for (size_t f = 0; f < sizeof(member_families) / sizeof(member_families[0]); f++) {
        const struct member_family *which = &member_families[f];
        show_family(out, which->name, which->type, which->help);
        for (uint32_t i = 0; i < status->member_count; i++) {
            const struct cell_member_status *member = &status->members[i];
            if (member->self && !which->self)
                continue;
            fprintf(out, "%s{%s=\"%s\"", which->name, which->self ? "member" : "peer", member->name);
            if (which->zone)
                fprintf(out, ",zone=\"%s\"", member->zone);
            fprintf(out, "} %.17g\n", which->value(member));
        }
    }
}

void cell_show_metrics(FILE *out, const struct cell_status *status)
{
    size_t counters = sizeof(counter_families) / sizeof(counter_families[0]);
    for (size_t i = 0; i < (status != NULL ? counters : 1); i++) {
        uint64_t value = 0;
        if (status != NULL)
            memcpy(&value, (const char *)status + counter_families[i].offset, sizeof(value));
        show_family(out, counter_families[i].name, "counter", counter_families[i].help);
        fprintf(out, "%s %" PRIu64 "\n", counter_families[i].name, value);
    }
    if (status == NULL)
        return;
    put_members(out, status);
    const struct {
        const char *name, *help;
        uint64_t value;
    } gauges[] = {
        {"sluice_ha_ready", "1 when own older streams reach as far as any copy in reach.", status->ready},
        {"sluice_ha_streams", "Streams that this node looks after, its own and copies.", status->stream_count},
        {"sluice_ha_replica_bytes", "Received from peers and not on this disk yet.", status->replica_bytes},
        {"sluice_ha_stopped_lanes", "Lanes that stand still until a person decides: progress in Kafka went back.",
         stopped_lanes(status)},
    };
    for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++) {
        show_family(out, gauges[i].name, "gauge", gauges[i].help);
        fprintf(out, "%s %" PRIu64 "\n", gauges[i].name, gauges[i].value);
    }
}

// ---- JSON

static json_t *member_json(const struct cell_member_status *member)
{
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "name", member->name, "zone",
                     member->zone, "address", member->address, "self", member->self, "up", member->up, "kafka",
                     member->kafka, "since", show_time(member->since_wall_ns), "heard_seconds",
                     json_real((double)member->heard_ns * 1e-9), "lag_events", show_number(member->lag_events),
                     "at_risk_events", show_number(member->at_risk), "bytes_in", show_number(member->bytes_in),
                     "bytes_out", show_number(member->bytes_out), "trouble", member->trouble);
}

static json_t *holder_json(const struct cell_holding *holding)
{
    const char *role = holding->writes   ? "writes"
                       : holding->drains ? "drains"
                       : holding->keeps  ? "keeps"
                       : holding->empty  ? "empty"
                                         : "holds";
    bool something = holding->end >= holding->base;
    return json_pack("{s:s, s:o, s:o}", "role", role, "base", something ? show_number(holding->base) : json_null(),
                     "end", something ? show_number(holding->end) : json_null());
}

static json_t *stream_json(const struct cell_status *status, const struct cell_stream_status *stream)
{
    json_t *holders = json_object(), *lanes = json_object();
    for (uint32_t i = 0; i < status->member_count; i++)
        if (stream->holders[i].there)
            json_object_set_new(holders, status->members[i].name, holder_json(&stream->holders[i]));
    for (uint32_t i = 0; i < stream->lane_count; i++)
        json_object_set_new(lanes, stream->lanes[i].name,
                            json_pack("{s:s, s:o, s:o}", "step", stream->lanes[i].step, "through",
                                      show_number(stream->lanes[i].through), "claim",
                                      show_number(stream->lanes[i].claim)));
    return json_pack("{s:s, s:b, s:b, s:o, s:o, s:o, s:s?, s:o, s:o}", "stream", stream->id, "current", stream->current,
                     "fenced", stream->fenced, "through", show_number(stream->through), "peer_synced",
                     show_number(stream->peer_synced), "two_zones", show_number(stream->two_zones), "drainer",
                     stream->drainer[0] != '\0' ? stream->drainer : NULL, "holders", holders, "lanes", lanes);
}

void cell_show_risk(const struct cell_status *status, char *out, size_t capacity)
{
    uint64_t most = 0;
    const char *name = "";
    for (uint32_t i = 0; i < status->member_count; i++)
        if (status->members[i].at_risk > most) {
            most = status->members[i].at_risk;
            name = status->members[i].name;
        }
    if (most == 0)
        snprintf(out, capacity, "nothing, whichever node and disk were lost now");
    else
        snprintf(out, capacity,
                 "%" PRIu64 " events, if %s and its disk were lost now: nobody else in reach has them yet", most, name);
}

json_t *cell_show_json(const struct cell_status *status)
{
    char risk[200];
    json_t *members = json_array(), *streams = json_array(), *counts = json_object();
    for (uint32_t i = 0; i < status->member_count; i++)
        json_array_append_new(members, member_json(&status->members[i]));
    for (uint32_t i = 0; i < status->stream_count; i++)
        json_array_append_new(streams, stream_json(status, &status->streams[i]));
    cell_show_risk(status, risk, sizeof(risk));
    json_object_set_new(counts, "takeovers", show_number(status->takeovers));
    json_object_set_new(counts, "fenced", show_number(status->fenced));
    json_object_set_new(counts, "sealed", show_number(status->sealed));
    json_object_set_new(counts, "refused", show_number(status->refused));
    json_object_set_new(counts, "order_given_up", show_number(status->order_given_up));
    json_object_set_new(counts, "repairs_sent", show_number(status->repairs_sent));
    json_object_set_new(counts, "tombstones", show_number(status->tombstones));
    return json_pack("{s:b, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "ready", status->ready, "would_be_lost", risk, "alarm",
                     status->alarm, "stopped_lanes", show_number(stopped_lanes(status)), "replica_bytes",
                     show_number(status->replica_bytes), "counts", counts, "members", members, "streams", streams);
}
