// What a node may conclude about others: who is alive, who stopped draining, whose turn it is, what comes first.
//
// Nothing here is needed for safety: a wrong suspicion costs a fenced producer, a wrong trust costs time. Ages that
// members report are durations on their own clocks; no two clocks are ever compared.
#include "ha/core_internal.h"

#include <string.h>

// ---- heartbeats

static uint8_t step_flags(const struct ha_stream *stream, enum ha_step step, uint8_t self)
{
    if (step >= HA_STEP_CLAIM && step <= HA_STEP_CLOSE)
        return HA_ENTRY_DRAINING;
    bool taking = (step == HA_STEP_INIT || step == HA_STEP_READ) && stream->id.member != self;
    return taking ? HA_ENTRY_TAKING : 0;
}

void ha_heartbeat(const struct ha_core *core, int64_t now_ns, struct ha_message *out)
{
    const struct ha_options *options = &core->options;
    out->kind = HA_HEARTBEAT;
    out->from = options->self;
    out->kafka = core->kafka_lost_ns == 0;
    out->heartbeat_acked_through = core->current != NULL ? ha_two_zones(core, core->current->id) : 0;
    for (size_t i = 0; i < HA_MEMBERS_MAX; i++)
        out->silence_ns[i] = i == options->self || i >= options->members ? 0 : now_ns - core->members[i].heard_ns;
    out->entry_count = 0;
    for (const struct ha_stream *stream = core->streams; stream < core->streams + HA_STREAMS_MAX; stream++) {
        const struct ha_copy *own = &stream->copies[options->self];
        if (stream->id.counter == 0 || !own->there)
            continue;
        struct ha_entry *entry = &out->entries[out->entry_count++];
        uint8_t flags = own->flags & HA_ENTRY_EMPTY;
        flags |= stream->current ? HA_ENTRY_CURRENT : 0;
        flags |= stream->kept ? HA_ENTRY_KEPT : 0;
        for (uint32_t i = 0; i < stream->head.lane_count; i++)
            flags |= step_flags(stream, stream->lanes[i].step, options->self);
        *entry = (struct ha_entry){
            .stream = stream->id, .base = own->base, .end = own->end, .flags = flags, .head = stream->head};
    }
}

void ha_take_heartbeat(struct ha_core *core, const struct ha_message *message)
{
    sl_assert(message->entry_count <= HA_STREAMS_MAX);
    struct ha_member *member = &core->members[message->from];
    bool first = !member->spoke;
    member->spoke = true;
    member->kafka = message->kafka;
    memcpy(member->silence_ns, message->silence_ns, sizeof(member->silence_ns));
    bool listed[HA_STREAMS_MAX] = {0};
    for (uint32_t i = 0; i < message->entry_count; i++) {
        const struct ha_entry *entry = &message->entries[i];
        struct ha_stream *stream = ha_place(core, entry->stream, &entry->head);
        if (stream == NULL)
            continue;
        listed[stream - core->streams] = true;
        struct ha_copy *copy = &stream->copies[message->from];
        // Within a session a disk only gains; a heartbeat may be older than the last answer.
        uint64_t end = !first && copy->there && copy->end > entry->end ? copy->end : entry->end;
        *copy = (struct ha_copy){.there = true, .base = entry->base, .end = end, .flags = entry->flags};
        if ((entry->flags & HA_ENTRY_CURRENT) && stream->owner_acked < message->heartbeat_acked_through)
            stream->owner_acked = message->heartbeat_acked_through;
    }
    HA_EACH_STREAM(core, stream)
    if (!listed[stream - core->streams])
        stream->copies[message->from] = (struct ha_copy){0};
    HA_EACH_STREAM(core, stream)
    ha_replicate(core, stream);
}

void ha_peer_up(struct ha_core *core, int64_t now_ns, uint8_t peer)
{
    ha_clock(core, now_ns);
    sl_assert(peer < core->options.members && peer != core->options.self);
    struct ha_member *member = &core->members[peer];
    member->up = true;
    member->spoke = false;
    HA_EACH_STREAM(core, stream)
    {
        stream->copies[peer] = (struct ha_copy){0};
        stream->next[peer] = 0;
    }
    struct ha_action *say = ha_emit(core, HA_SAY_ALL, NULL);
    if (say != NULL)
        say->peer = peer;
}

void ha_peer_down(struct ha_core *core, int64_t now_ns, uint8_t peer)
{
    ha_clock(core, now_ns);
    // What it held it still holds, as far as its disk is concerned: positions stay until it says something else.
    core->members[peer].up = false;
}

void ha_receive(struct ha_core *core, int64_t now_ns, const struct ha_message *message)
{
    ha_clock(core, now_ns);
    uint8_t from = message->from;
    sl_assert(from < core->options.members && from != core->options.self);
    core->members[from].heard_ns = now_ns;
    struct ha_stream *stream;
    switch (message->kind) {
    case HA_HEARTBEAT:
        ha_take_heartbeat(core, message);
        break;
    case HA_FRAME:
        ha_take_frame(core, message);
        break;
    case HA_DURABLE:
        ha_take_durable(core, message);
        break;
    case HA_REFUSED:
        core->figures.refused++;
        stream = ha_find(core, message->stream);
        if (stream != NULL && stream->current)
            ha_seal(core, stream);
        break;
    }
}

// ---- suspicion

bool ha_alive(const struct ha_core *core, uint8_t member)
{
    return member == core->options.self ||
           core->now_ns - core->members[member].heard_ns <= core->options.takeover_after_ns;
}

bool ha_holds_on(const struct ha_stream *stream, uint8_t member)
{
    uint8_t flags = stream->copies[member].there ? stream->copies[member].flags : 0;
    return flags & (HA_ENTRY_CURRENT | HA_ENTRY_KEPT | HA_ENTRY_DRAINING);
}

// Whoever else is heard of hears nothing of the drainer either.
static bool others_agree(const struct ha_core *core, uint8_t drainer)
{
    HA_EACH_PEER(core, peer)
    if (peer != drainer && ha_alive(core, peer) && core->members[peer].spoke &&
        core->members[peer].silence_ns[drainer] <= core->options.takeover_after_ns)
        return false;
    return true;
}

static bool drainer_is_gone(struct ha_core *core, const struct ha_stream *stream, const struct ha_lane *lane)
{
    uint8_t drainer = lane->seen.drainer.counter != 0 ? lane->seen.drainer.member : stream->id.member;
    if (drainer == core->options.self)
        return true; // an earlier incarnation's claim, or one that was given up
    if (ha_alive(core, drainer))
        return core->members[drainer].spoke && !ha_holds_on(stream, drainer);
    return others_agree(core, drainer);
}

// Whoever knows of a longer copy in reach lets it go first: one takeover instead of two. So does whoever knows of a
// member that is about to claim: to fence it would cost both their first steps.
static bool others_first(struct ha_core *core, struct ha_stream *stream)
{
    HA_EACH_PEER(core, peer)
    {
        const struct ha_copy *copy = &stream->copies[peer];
        if (ha_alive(core, peer) && copy->there &&
            (copy->end > ha_own(core, stream)->end || (copy->flags & HA_ENTRY_TAKING)))
            return true;
    }
    return false;
}

bool ha_suspect(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    struct ha_lane *lane = &stream->lanes[index];
    const struct ha_options *options = &core->options;
    bool silent = core->now_ns - lane->moved_ns > options->takeover_after_ns;
    // Whoever is heard of and says that it drains the lane or keeps it, drains it.
    bool held = false;
    HA_EACH_PEER(core, peer)
    held |= ha_alive(core, peer) && ha_holds_on(stream, peer);
    if (!silent || held || !drainer_is_gone(core, stream, lane)) {
        lane->suspect_since_ns = 0;
        return false;
    }
    if (lane->suspect_since_ns == 0)
        lane->suspect_since_ns = core->now_ns;
    // The member behind the owner is first; the owner itself, come back to a stream that it had let go, is last.
    unsigned distance = (unsigned)(options->self + options->members - stream->id.member - 1) % options->members;
    if (others_first(core, stream))
        distance += options->members;
    return core->now_ns - lane->suspect_since_ns >= distance * options->turn_ns;
}

// ---- order

// `unknown`: what to say of a lane that nobody spoke of.
static uint64_t through_of_lane(const struct ha_stream *stream, uint32_t lane_id, uint64_t unknown)
{
    for (uint32_t i = 0; i < stream->head.lane_count; i++)
        if (stream->head.lane_ids[i] == lane_id)
            return stream->lanes[i].seen.through > stream->guard ? stream->lanes[i].seen.through : stream->guard;
    return unknown > stream->guard ? unknown : stream->guard;
}

static bool written(const struct ha_core *core, const struct ha_stream *stream)
{
    uint8_t owner = stream->id.member;
    return stream->current ||
           (owner != core->options.self && ha_alive(core, owner) && (stream->copies[owner].flags & HA_ENTRY_CURRENT));
}

// Counters go up, unless a node lost its disk and could ask nobody: so what is still written is later than all else.
static bool precedes(const struct ha_core *core, const struct ha_stream *older, const struct ha_stream *stream)
{
    if (older == stream || older->id.member != stream->id.member || written(core, older))
        return false;
    return written(core, stream) || older->id.counter < stream->id.counter;
}

// Of the streams that its node wrote before this one: does anybody in reach hold more than is produced of the lane?
static bool older_unproduced(struct ha_core *core, const struct ha_stream *stream, uint32_t lane_id)
{
    HA_EACH_STREAM(core, older)
    {
        if (!precedes(core, older, stream))
            continue;
        for (uint8_t member = 0; member < core->options.members; member++) {
            const struct ha_copy *copy = &older->copies[member];
            // What it holds names its lanes: one that it does not name has no records in it.
            if (copy->there && copy->end >= copy->base && ha_alive(core, member) &&
                copy->end > through_of_lane(older, lane_id, UINT64_MAX))
                return true;
        }
    }
    return false;
}

// Whether everything before the stream's first record is produced, as far as its header and the peers know.
static bool predecessor_done(struct ha_core *core, const struct ha_stream *stream, uint32_t lane_id)
{
    if (stream->head.predecessor.counter == 0) {
        // A node's first stream, or its first on a new disk: then only the peers know what came before.
        HA_EACH_PEER(core, peer)
        if (!core->members[peer].spoke)
            return false;
        return true;
    }
    const struct ha_head unknown = {0};
    struct ha_stream *predecessor = ha_place(core, stream->head.predecessor, &unknown);
    return predecessor != NULL &&
           (predecessor->tombstoned || through_of_lane(predecessor, lane_id, 0) >= stream->head.predecessor_seq);
}

bool ha_in_order(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    struct ha_lane *lane = &stream->lanes[index];
    uint32_t lane_id = stream->head.lane_ids[index];
    // Until a starting node has heard its peers it does not know how far its older streams reach.
    if ((stream->current && !core->ready) || older_unproduced(core, stream, lane_id)) {
        lane->order_since_ns = 0;
        return false;
    }
    // Once something of the lane is produced its predecessors have had their turn.
    if (lane->seen.through > 0 || predecessor_done(core, stream, lane_id))
        return true;
    if (lane->order_since_ns == 0)
        lane->order_since_ns = core->now_ns;
    if (core->now_ns - lane->order_since_ns < core->options.order_wait_ns)
        return false;
    core->figures.order_given_up++;
    return true;
}

// ---- readiness

void ha_get_ready(struct ha_core *core)
{
    if (core->ready)
        return;
    int64_t waited_ns = core->now_ns - core->started_ns;
    HA_EACH_PEER(core, peer)
    if (!core->members[peer].spoke && waited_ns < core->options.takeover_after_ns)
        return;
    // A peer may have records whose sync here never finished.
    HA_EACH_STREAM(core, stream)
    HA_EACH_PEER(core, peer)
    {
        const struct ha_copy *copy = &stream->copies[peer];
        if (stream->kept && copy->there && ha_alive(core, peer) && copy->end > ha_own(core, stream)->end &&
            copy->end > ha_through(stream) && waited_ns < core->options.order_wait_ns)
            return;
    }
    core->ready = true;
}
