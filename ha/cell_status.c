// What others see of the cell: a copy, made now and then by the replication thread.
#include "ha/cell_internal.h"

#include <stdio.h>
#include <string.h>

static const char *step_word(enum ha_step step)
{
    static const char *const words[] = {
        [HA_STEP_IDLE] = "idle",       [HA_STEP_INIT] = "init",        [HA_STEP_READ] = "read",
        [HA_STEP_CLAIM] = "claim",     [HA_STEP_FENCE] = "fence",      [HA_STEP_READY] = "waits",
        [HA_STEP_CLOSE] = "close",     [HA_STEP_PRODUCE] = "produces", [HA_STEP_LOOK] = "look",
        [HA_STEP_STOPPED] = "stopped",
    };
    return words[step];
}

static void member_status(const struct cell *cell, uint8_t member, struct cell_member_status *out)
{
    const struct ha_core *core = cell->core;
    snprintf(out->name, sizeof(out->name), "%s", cell->names[member]);
    snprintf(out->zone, sizeof(out->zone), "%s", cell->zones[member]);
    out->at_risk = ha_at_risk(core, member);
    out->self = member == cell->self;
    if (out->self) {
        out->up = true;
        out->kafka = core->kafka_lost_ns == 0;
        snprintf(out->address, sizeof(out->address), "%s", cell->options.listen);
        return;
    }
    out->up = core->members[member].up;
    out->kafka = core->members[member].kafka && out->up;
    out->since_wall_ns = cell->member_since_ns[member];
    out->heard_ns = core->now_ns - core->members[member].heard_ns;
    const struct own_stream *own = &cell->own[cell->incarnation % OWN_STREAMS];
    if (core->current != NULL && own->there) {
        uint64_t there = core->current->copies[member].end, through = ha_through(core->current);
        there = there > through ? there : through; // what is in Kafka is owed to nobody
        out->lag_events = own->appended > there ? own->appended - there : 0;
    }
    if (cell->peers == NULL)
        return;
    struct peer_status peer;
    peers_status(cell->peers, member, &peer);
    out->bytes_in = peer.bytes_in;
    out->bytes_out = peer.bytes_out;
    snprintf(out->address, sizeof(out->address), "%s", peer.address);
    snprintf(out->trouble, sizeof(out->trouble), "%s", peer.trouble);
}

static void stream_status(const struct cell *cell, const struct ha_stream *stream, struct cell_stream_status *out)
{
    cell_text(cell, stream->id, out->id);
    out->current = stream->current;
    out->kept = stream->kept;
    out->fenced = stream->fence_marked;
    out->through = ha_through(stream);
    out->peer_synced = ha_peer_synced(cell->core, stream->id);
    out->two_zones = ha_two_zones(cell->core, stream->id);
    for (uint8_t i = 0; i < cell->members; i++) {
        const struct ha_copy *copy = &stream->copies[i];
        bool self = i == cell->self;
        out->holders[i] = (struct cell_holding){.there = copy->there,
                                                .base = copy->base,
                                                .end = copy->end,
                                                .writes = self ? stream->current : copy->flags & HA_ENTRY_CURRENT,
                                                .keeps = self ? stream->kept : copy->flags & HA_ENTRY_KEPT,
                                                .drains = copy->flags & HA_ENTRY_DRAINING,
                                                .empty = copy->flags & HA_ENTRY_EMPTY};
    }
    uint64_t claim = 0;
    out->lane_count = stream->head.lane_count;
    for (uint32_t i = 0; i < stream->head.lane_count; i++) {
        const struct ha_lane *lane = &stream->lanes[i];
        snprintf(out->lanes[i].name, sizeof(out->lanes[i].name), "%s", cell_lane_name(cell, stream->head.lane_ids[i]));
        out->lanes[i].step = step_word(lane->step);
        out->lanes[i].through = lane->seen.through;
        out->lanes[i].claim = lane->seen.claim;
        if (lane->step >= HA_STEP_CLAIM && lane->step <= HA_STEP_CLOSE)
            out->holders[cell->self].drains = true;
        if (lane->seen.claim >= claim && lane->seen.drainer.counter != 0) {
            claim = lane->seen.claim;
            cell_text(cell, lane->seen.drainer, out->drainer);
        }
    }
}

// True for as long as a lane stands still, and no longer.
static void alarm_status(const struct cell *cell, const struct ha_stream *stream, struct cell_status *out)
{
    char id[SPOOL_STREAM_ID_MAX];
    for (uint32_t i = 0; i < stream->head.lane_count && out->alarm[0] == '\0'; i++) {
        if (stream->lanes[i].step != HA_STEP_STOPPED)
            continue;
        cell_text(cell, stream->id, id);
        snprintf(out->alarm, sizeof(out->alarm),
                 "Kafka's progress of %s, lane %s went back: nothing of it is produced until a person decides", id,
                 cell_lane_name(cell, stream->head.lane_ids[i]));
    }
}

void status_refresh(struct cell *cell)
{
    const struct ha_core *core = cell->core;
    pthread_mutex_lock(&cell->status_mutex);
    struct cell_status *status = cell->status;
    memset(status, 0, sizeof(*status));
    status->ready = ha_ready(core);
    status->member_count = cell->members;
    for (uint8_t i = 0; i < cell->members; i++)
        member_status(cell, i, &status->members[i]);
    for (size_t i = 0; i < HA_STREAMS_MAX; i++) {
        if (core->streams[i].id.counter == 0)
            continue;
        stream_status(cell, &core->streams[i], &status->streams[status->stream_count++]);
        alarm_status(cell, &core->streams[i], status);
    }
    status->takeovers = core->figures.takeovers;
    status->fenced = core->figures.fenced;
    status->sealed = core->figures.sealed;
    status->refused = core->figures.refused;
    status->order_given_up = core->figures.order_given_up;
    status->repairs_sent = core->figures.repairs_sent;
    status->tombstones = core->figures.tombstones;
    status->replica_bytes = cell->store_bytes;
    pthread_mutex_unlock(&cell->status_mutex);
}

void cell_status(struct cell *cell, struct cell_status *out)
{
    pthread_mutex_lock(&cell->status_mutex);
    *out = *cell->status;
    pthread_mutex_unlock(&cell->status_mutex);
}

uint64_t cell_two_zones(struct cell *cell, const char *stream)
{
    uint64_t through = 0;
    pthread_mutex_lock(&cell->status_mutex);
    for (uint32_t i = 0; i < cell->status->stream_count; i++)
        if (strcmp(cell->status->streams[i].id, stream) == 0)
            through = cell->status->streams[i].two_zones;
    pthread_mutex_unlock(&cell->status_mutex);
    return through;
}
