// The table of streams, the queue of actions, and what can be asked of them.
//
// Happy path: an input changes the table; the functions that look for work (replicate, claims, shorten) emit actions
// from what the table says. No work is remembered outside of the table, so an action that found no room in the queue is
// found again at the next tick.
#include "ha/core_internal.h"

#include <string.h>

void ha_init(struct ha_core *core, const struct ha_options *options, int64_t now_ns)
{
    sl_assert(options->members >= 1 && options->members <= HA_MEMBERS_MAX && options->self < options->members);
    sl_assert(options->heartbeat_ns > 0 && options->heartbeat_ns <= options->takeover_after_ns / 4);
    memset(core, 0, sizeof(*core));
    core->options = *options;
    core->chance = options->seed;
    core->started_ns = core->now_ns = core->trimmed_ns = now_ns;
    core->kafka_lost_ns = now_ns;
    for (size_t i = 0; i < options->members; i++)
        core->members[i].heard_ns = now_ns;
}

uint64_t ha_chance(struct ha_core *core)
{
    // splitmix64
    uint64_t z = core->chance += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void ha_clock(struct ha_core *core, int64_t now_ns)
{
    // A process that was stopped, or whose machine slept, knows nothing of the time that it missed: what looks like
    // silence of others is its own.
    if (now_ns - core->now_ns > core->options.takeover_after_ns / 2) {
        for (size_t i = 0; i < core->options.members; i++)
            core->members[i].heard_ns = now_ns;
        HA_EACH_STREAM(core, stream)
        for (size_t i = 0; i < HA_LANES_MAX; i++)
            stream->lanes[i].moved_ns = now_ns;
    }
    core->now_ns = now_ns;
}

// ---- actions

bool ha_room(const struct ha_core *core, uint32_t actions)
{
    return core->action_count + actions <= HA_ACTIONS_MAX;
}

struct ha_action *ha_emit(struct ha_core *core, enum ha_action_kind kind, const struct ha_stream *stream)
{
    if (!ha_room(core, 1))
        return NULL;
    struct ha_action *action = &core->actions[(core->action_first + core->action_count++) % HA_ACTIONS_MAX];
    *action = (struct ha_action){.kind = kind};
    if (stream != NULL) {
        action->stream = stream->id;
        action->head = stream->head;
    }
    return action;
}

bool ha_next(struct ha_core *core, struct ha_action *out)
{
    if (core->action_count == 0)
        return false;
    *out = core->actions[core->action_first];
    core->action_first = (core->action_first + 1) % HA_ACTIONS_MAX;
    core->action_count--;
    return true;
}

// ---- the table

struct ha_stream *ha_find(struct ha_core *core, struct ha_id id)
{
    HA_EACH_STREAM(core, stream)
    if (ha_same(stream->id, id))
        return stream;
    return NULL;
}

// A place whose stream nobody will miss: every copy of it is empty, or was never there.
static struct ha_stream *dispensable(struct ha_core *core)
{
    HA_EACH_STREAM(core, stream)
    {
        bool needed = stream->current || stream->kept || stream->marking || stream->emptying;
        for (size_t i = 0; i < core->options.members; i++)
            needed |= stream->copies[i].there && !(stream->copies[i].flags & HA_ENTRY_EMPTY);
        for (uint32_t i = 0; i < stream->head.lane_count; i++)
            needed |= stream->lanes[i].step != HA_STEP_IDLE;
        if (!needed)
            return stream;
    }
    return NULL;
}

uint32_t ha_lane_of(struct ha_stream *stream, uint32_t lane_id)
{
    struct ha_head *head = &stream->head;
    for (uint32_t i = 0; i < head->lane_count; i++)
        if (head->lane_ids[i] == lane_id)
            return i;
    if (head->lane_count == HA_LANES_MAX)
        return HA_LANES_MAX;
    head->lane_ids[head->lane_count] = lane_id;
    return head->lane_count++;
}

struct ha_stream *ha_place(struct ha_core *core, struct ha_id id, const struct ha_head *head)
{
    sl_assert(id.counter != 0 && id.member < core->options.members && head->lane_count <= HA_LANES_MAX);
    struct ha_stream *stream = ha_find(core, id);
    if (stream == NULL) {
        for (size_t i = 0; i < HA_STREAMS_MAX && stream == NULL; i++)
            if (core->streams[i].id.counter == 0)
                stream = &core->streams[i];
        if (stream == NULL)
            stream = dispensable(core);
        if (stream == NULL)
            return NULL;
        memset(stream, 0, sizeof(*stream));
        stream->id = id;
        stream->fed_by = id.member;
        stream->recall = true;
        for (size_t i = 0; i < HA_LANES_MAX; i++)
            stream->lanes[i].moved_ns = core->now_ns;
    }
    for (uint32_t i = 0; i < head->lane_count; i++)
        ha_lane_of(stream, head->lane_ids[i]);
    if (head->predecessor.counter != 0) {
        stream->head.predecessor = head->predecessor;
        stream->head.predecessor_seq = head->predecessor_seq;
    }
    return stream;
}

struct ha_copy *ha_own(struct ha_core *core, struct ha_stream *stream)
{
    return &stream->copies[core->options.self];
}

uint64_t ha_through(const struct ha_stream *stream)
{
    uint64_t least = stream->head.lane_count > 0 ? UINT64_MAX : 0;
    for (uint32_t i = 0; i < stream->head.lane_count; i++)
        if (stream->lanes[i].seen.through < least)
            least = stream->lanes[i].seen.through;
    return least > stream->guard ? least : stream->guard;
}

bool ha_unproduced(const struct ha_stream *stream, const struct ha_copy *copy)
{
    return copy->there && copy->end >= copy->base && copy->end > ha_through(stream);
}

bool ha_held(struct ha_core *core, int64_t now_ns, struct ha_id id, const struct ha_head *head, uint64_t base,
             uint64_t end, bool fence_marked, uint64_t guard)
{
    ha_clock(core, now_ns);
    struct ha_stream *stream = ha_place(core, id, head);
    if (stream == NULL)
        return false;
    struct ha_copy *own = ha_own(core, stream);
    bool first = !own->there;
    own->there = true;
    own->base = base;
    own->end = end;
    if (stream->stored_end < end)
        stream->stored_end = end;
    stream->fence_marked |= fence_marked;
    // By the base rule, and by what retention goes by, everything below a base is produced.
    uint64_t produced = guard > base - 1 ? guard : base - 1;
    if (stream->guard < produced)
        stream->guard = produced;
    if (end < base && guard > 0 && guard >= end)
        own->flags |= HA_ENTRY_EMPTY;
    if (first && id.member == core->options.self && !stream->current)
        stream->kept = true;
    return true;
}

bool ha_open(struct ha_core *core, int64_t now_ns, struct ha_id id, const struct ha_head *head)
{
    ha_clock(core, now_ns);
    sl_assert(core->current == NULL && id.member == core->options.self);
    struct ha_stream *stream = ha_place(core, id, head);
    if (stream == NULL)
        return false;
    stream->current = true;
    stream->copies[core->options.self] = (struct ha_copy){.base = 1, .there = true};
    core->current = stream;
    ha_claims(core);
    return true;
}

// ---- other inputs

void ha_appended(struct ha_core *core, int64_t now_ns, uint64_t through)
{
    ha_clock(core, now_ns);
    if (core->current == NULL)
        return;
    core->current->appended = through;
    ha_replicate(core, core->current);
}

void ha_synced(struct ha_core *core, int64_t now_ns, struct ha_id id, uint64_t through)
{
    ha_clock(core, now_ns);
    struct ha_stream *stream = ha_find(core, id);
    if (stream == NULL || !ha_own(core, stream)->there || ha_own(core, stream)->end >= through)
        return;
    struct ha_copy *own = ha_own(core, stream);
    own->end = through;
    own->flags &= (uint8_t)~HA_ENTRY_EMPTY;
    ha_replicate(core, stream);
    bool tell = stream->fed_by != core->options.self && core->members[stream->fed_by].up;
    struct ha_action *say = tell ? ha_emit(core, HA_SAY, stream) : NULL;
    if (say != NULL) {
        say->peer = stream->fed_by;
        say->last = through;
    }
}

void ha_kafka(struct ha_core *core, int64_t now_ns, bool reachable)
{
    ha_clock(core, now_ns);
    if (reachable)
        core->kafka_lost_ns = 0;
    else if (core->kafka_lost_ns == 0)
        core->kafka_lost_ns = now_ns;
}

void ha_saw_progress(struct ha_core *core, int64_t now_ns, struct ha_id id, uint32_t lane_id,
                     const struct ha_progress *progress, bool gone)
{
    ha_clock(core, now_ns);
    struct ha_stream *stream = ha_find(core, id);
    uint32_t lane = stream != NULL ? ha_lane_of(stream, lane_id) : HA_LANES_MAX;
    if (lane == HA_LANES_MAX)
        return;
    struct ha_lane *watched = &stream->lanes[lane];
    if (gone) {
        stream->tombstoned = true;
        if (watched->step == HA_STEP_STOPPED)
            watched->step = HA_STEP_IDLE; // nobody holds anything of it: there is nothing to decide
        return;
    }
    watched->moved_ns = now_ns;
    // A step of our own may have read further than the tailing reader.
    if (progress->claim < watched->seen.claim || progress->through < watched->seen.through)
        return;
    watched->seen = *progress;
    if (watched->step == HA_STEP_STOPPED)
        watched->step = HA_STEP_IDLE; // somebody has decided; READ judges it anew
    if (ha_lane_active(watched) && watched->claim != 0 && progress->claim > watched->claim)
        ha_lane_rival(core, stream, lane);
}

void ha_say_all(struct ha_core *core)
{
    HA_EACH_PEER(core, peer)
    {
        struct ha_action *say = core->members[peer].up ? ha_emit(core, HA_SAY_ALL, NULL) : NULL;
        if (say != NULL)
            say->peer = peer;
    }
}

// Whether a member became suspect since the last heartbeat: a taker waits for the others to say so, too.
static bool fell_silent(const struct ha_core *core)
{
    HA_EACH_PEER(core, peer)
    {
        int64_t limit_ns = core->members[peer].heard_ns + core->options.takeover_after_ns;
        if (core->now_ns > limit_ns && core->said_ns <= limit_ns)
            return true;
    }
    return false;
}

void ha_tick(struct ha_core *core, int64_t now_ns)
{
    ha_clock(core, now_ns);
    if (now_ns - core->said_ns >= core->options.heartbeat_ns || fell_silent(core)) {
        core->said_ns = now_ns;
        ha_say_all(core);
    }
    if (core->opening && ha_emit(core, HA_OPEN, NULL) != NULL)
        core->opening = false;
    HA_EACH_STREAM(core, stream)
    if (stream->recall && ha_emit(core, HA_RECALL, stream) != NULL)
        stream->recall = false;
    ha_let_go(core);
    ha_claims(core);
    HA_EACH_STREAM(core, stream)
    ha_replicate(core, stream);
    ha_shorten(core);
    ha_get_ready(core);
}

// ---- questions

static uint64_t other_zone(const struct ha_core *core, const struct ha_stream *stream)
{
    uint64_t furthest = 0;
    HA_EACH_PEER(core, peer)
    {
        const struct ha_copy *copy = &stream->copies[peer];
        if (core->options.zone[peer] != core->options.zone[core->options.self] && copy->there && copy->end > furthest)
            furthest = copy->end;
    }
    return furthest;
}

static const struct ha_stream *look_up(const struct ha_core *core, struct ha_id id)
{
    for (size_t i = 0; i < HA_STREAMS_MAX; i++)
        if (core->streams[i].id.counter != 0 && ha_same(core->streams[i].id, id))
            return &core->streams[i];
    return NULL;
}

uint64_t ha_peer_synced(const struct ha_core *core, struct ha_id id)
{
    const struct ha_stream *stream = look_up(core, id);
    if (stream == NULL)
        return 0;
    return stream->current ? other_zone(core, stream) : stream->peer_synced;
}

uint64_t ha_two_zones(const struct ha_core *core, struct ha_id id)
{
    const struct ha_stream *stream = look_up(core, id);
    if (stream == NULL)
        return 0;
    const struct ha_copy *own = &stream->copies[core->options.self];
    uint64_t here = own->there ? own->end : 0, there = other_zone(core, stream);
    uint64_t both = here < there ? here : there, through = ha_through(stream);
    both = both > stream->owner_acked ? both : stream->owner_acked;
    return both > through ? both : through;
}

uint64_t ha_at_risk(const struct ha_core *core, uint8_t member)
{
    uint64_t risk = 0;
    for (size_t i = 0; i < HA_STREAMS_MAX; i++) {
        const struct ha_stream *stream = &core->streams[i];
        if (stream->id.counter == 0 || !ha_unproduced(stream, &stream->copies[member]))
            continue;
        uint64_t safe = ha_through(stream);
        for (size_t k = 0; k < core->options.members; k++)
            if (core->options.zone[k] != core->options.zone[member] && stream->copies[k].there &&
                stream->copies[k].end > safe)
                safe = stream->copies[k].end;
        risk += stream->copies[member].end > safe ? stream->copies[member].end - safe : 0;
    }
    return risk;
}

bool ha_ready(const struct ha_core *core)
{
    return core->ready;
}
