// The end of a stream whose process lives on: it was fenced, or it cannot reach Kafka while a peer can.
//
// The stream is acknowledged through what was durable in two zones at this moment, and beyond that by Kafka's progress
// alone; requests that wait stay with it and are never appended again. A new stream names it as its predecessor. From
// here on this node is a holder of it like the others: it offers copies, and claims when its turn comes.
#include "ha/core_internal.h"

void ha_seal(struct ha_core *core, struct ha_stream *stream)
{
    sl_assert(stream->current && core->current == stream);
    stream->peer_synced = ha_peer_synced(core, stream->id);
    stream->current = stream->kept = false;
    core->current = NULL;
    core->figures.sealed++;
    for (uint32_t i = 0; i < stream->head.lane_count; i++) {
        stream->lanes[i].moved_ns = core->now_ns;
        ha_lane_release(core, stream, i);
    }
    core->opening = ha_emit(core, HA_OPEN, stream) == NULL;
}

static bool peer_reaches_kafka(const struct ha_core *core)
{
    HA_EACH_PEER(core, peer)
    if (ha_alive(core, peer) && core->members[peer].spoke && core->members[peer].kafka)
        return true;
    return false;
}

void ha_let_go(struct ha_core *core)
{
    if (core->kafka_lost_ns == 0 || core->now_ns - core->kafka_lost_ns < core->options.let_go_ns ||
        !peer_reaches_kafka(core))
        return;
    core->kafka_lost_ns = core->now_ns; // the next stream has its time, too
    HA_EACH_STREAM(core, stream)
    {
        if (stream->kept && ha_unproduced(stream, ha_own(core, stream))) {
            stream->kept = false;
            for (uint32_t i = 0; i < stream->head.lane_count; i++)
                ha_lane_release(core, stream, i);
        }
    }
    if (core->current != NULL && ha_unproduced(core->current, ha_own(core, core->current)))
        ha_seal(core, core->current);
}
