// Draining a stream's lane: the steps from the wish to the end of the copy. The same for the stream that this node
// writes, for what it wrote before a restart, and for what a dead peer left.
//
// Happy path: INIT fences every other drainer; READ finds where it stood; CLAIM says who drains from here on; FENCE
// makes the owner's acknowledgements through this node end; READY waits until older streams of the owner are done;
// PRODUCE to the end of the own copy, again while the copy grows; CLOSE; release.
//
// Failure modes: a crash at any step leaves nothing behind but a fence and perhaps a claim; whoever comes next starts
// at INIT. An unknown outcome (FAILED) starts over with a new producer after a pause, and reads progress. FENCED has
// two causes, a rival or the coordinator's timeout: LOOK reads the last claim. A rival's: this node lets go, and waits
// twice as long before it comes again. Progress below what was once verified here: STOPPED, for a person.
#include "ha/core_internal.h"

bool ha_lane_active(const struct ha_lane *lane)
{
    return lane->step != HA_STEP_IDLE && lane->step != HA_STEP_STOPPED;
}

static void emit_release(struct ha_core *core, struct ha_stream *stream, uint32_t lane)
{
    struct ha_action *release = ha_emit(core, HA_RELEASE, stream);
    stream->lanes[lane].releasing = release == NULL;
    if (release != NULL)
        release->lane_id = stream->head.lane_ids[lane];
}

void ha_lane_release(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    struct ha_lane *lane = &stream->lanes[index];
    if (!ha_lane_active(lane))
        return;
    lane->step = HA_STEP_IDLE;
    lane->ticket = 0;
    lane->claim = 0;
    lane->order_since_ns = 0;
    emit_release(core, stream, index);
}

static void pause_lane(struct ha_core *core, struct ha_lane *lane, int64_t pause_ns)
{
    lane->not_before_ns = core->now_ns + pause_ns / 2 + (int64_t)(ha_chance(core) % (uint64_t)(pause_ns / 2 + 1));
}

void ha_lane_rival(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    struct ha_lane *lane = &stream->lanes[index];
    const struct ha_options *options = &core->options;
    lane->rival_wait_ns = lane->rival_wait_ns == 0 ? options->rival_wait_ns : 2 * lane->rival_wait_ns;
    if (lane->rival_wait_ns > options->rival_wait_max_ns)
        lane->rival_wait_ns = options->rival_wait_max_ns;
    pause_lane(core, lane, lane->rival_wait_ns);
    ha_lane_release(core, stream, index);
    stream->kept = false;
    if (stream->current)
        ha_seal(core, stream);
}

// Emits the action of a step that is answered with its ticket. False: no room, nothing changed.
static struct ha_action *begin(struct ha_core *core, struct ha_stream *stream, uint32_t index, enum ha_step step,
                               enum ha_action_kind kind)
{
    struct ha_action *action = ha_emit(core, kind, stream);
    if (action == NULL)
        return NULL;
    stream->lanes[index].step = step;
    stream->lanes[index].ticket = action->ticket = ++core->tickets;
    action->lane_id = stream->head.lane_ids[index];
    return action;
}

// ---- beginning

// Streams that are written no more are drained one at a time in each lane: a producer is several threads.
static bool lane_is_busy(struct ha_core *core, uint32_t lane_id)
{
    HA_EACH_STREAM(core, stream)
    for (uint32_t i = 0; i < stream->head.lane_count; i++)
        if (!stream->current && stream->head.lane_ids[i] == lane_id && ha_lane_active(&stream->lanes[i]))
            return true;
    return false;
}

static bool may_claim(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    struct ha_lane *lane = &stream->lanes[index];
    const struct ha_copy *own = ha_own(core, stream);
    if (lane->step != HA_STEP_IDLE || lane->releasing || stream->tombstoned || core->kafka_lost_ns != 0)
        return false;
    if (stream->current)
        return core->now_ns >= lane->not_before_ns;
    uint64_t through = lane->seen.through > stream->guard ? lane->seen.through : stream->guard;
    if (!own->there || own->end < own->base || own->end <= through)
        return false;
    bool may = core->now_ns >= lane->not_before_ns && own->base <= through + 1 &&
               !lane_is_busy(core, stream->head.lane_ids[index]) && ha_in_order(core, stream, index);
    if (!may)
        lane->suspect_since_ns = 0; // turns count from when nothing else is in the way, or all would come at once
    return may && (stream->kept || ha_suspect(core, stream, index));
}

static void go_on(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    struct ha_lane *lane = &stream->lanes[index];
    if (!ha_in_order(core, stream, index)) {
        // Not to stand in the way of the older stream, which may be this node's to drain.
        if (!stream->current) {
            pause_lane(core, lane, core->options.retry_ns);
            ha_lane_release(core, stream, index);
        }
        return;
    }
    struct ha_action *produce = begin(core, stream, index, HA_STEP_PRODUCE, HA_PRODUCE);
    if (produce == NULL)
        return;
    produce->first = lane->produced + 1;
    produce->last = stream->current ? UINT64_MAX : ha_own(core, stream)->end;
    produce->claim = lane->claim;
}

static void take_up(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    if (begin(core, stream, index, HA_STEP_INIT, HA_INIT) == NULL || stream->id.member == core->options.self)
        return;
    // The others are to know at once, before their turns come.
    ha_say_all(core);
}

void ha_claims(struct ha_core *core)
{
    HA_EACH_STREAM(core, stream)
    for (uint32_t i = 0; i < stream->head.lane_count; i++) {
        if (stream->lanes[i].releasing)
            emit_release(core, stream, i);
        if (may_claim(core, stream, i))
            take_up(core, stream, i);
        else if (stream->lanes[i].step == HA_STEP_READY)
            go_on(core, stream, i);
    }
}

// ---- answers

static void after_read(struct ha_core *core, struct ha_stream *stream, uint32_t index, const struct ha_progress *found)
{
    struct ha_lane *lane = &stream->lanes[index];
    const struct ha_copy *own = ha_own(core, stream);
    if (!own->there || (own->end < own->base && !stream->current)) {
        ha_lane_release(core, stream, index); // others produced it meanwhile; its progress may be gone already
        return;
    }
    if (found->through < lane->seen.through || found->claim < lane->seen.claim || found->through < stream->guard) {
        ha_lane_release(core, stream, index);
        lane->step = HA_STEP_STOPPED;
        struct ha_action *alarm = ha_emit(core, HA_ALARM, stream);
        if (alarm != NULL)
            alarm->lane_id = stream->head.lane_ids[index];
        return;
    }
    lane->seen = *found;
    bool rest = stream->current || own->end > found->through;
    if (!rest || own->base > found->through + 1) {
        pause_lane(core, lane, core->options.retry_ns);
        ha_lane_release(core, stream, index);
        return;
    }
    struct ha_action *claim = begin(core, stream, index, HA_STEP_CLAIM, HA_CLAIM);
    if (claim == NULL) {
        ha_lane_release(core, stream, index);
        return;
    }
    // From here on, a higher one is a rival's, even if it is seen before the answer to this one.
    claim->claim = lane->claim = found->claim + 1;
    claim->stated_through = lane->produced = found->through;
}

static void after_claim(struct ha_core *core, struct ha_stream *stream, uint32_t index)
{
    struct ha_lane *lane = &stream->lanes[index];
    bool mark = stream->id.member != core->options.self && !stream->fence_marked;
    core->figures.takeovers += stream->id.member != core->options.self;
    if (!mark) {
        lane->step = HA_STEP_READY;
        go_on(core, stream, index);
    } else if (begin(core, stream, index, HA_STEP_FENCE, HA_FENCE_MARK) == NULL) {
        ha_lane_release(core, stream, index);
    }
}

static void after_produce(struct ha_core *core, struct ha_stream *stream, uint32_t index, uint64_t through)
{
    struct ha_lane *lane = &stream->lanes[index];
    if (lane->produced < through)
        lane->produced = through;
    // Repair copies may have come meanwhile.
    if (ha_own(core, stream)->end > lane->produced) {
        lane->step = HA_STEP_READY;
        go_on(core, stream, index);
        return;
    }
    struct ha_action *close = begin(core, stream, index, HA_STEP_CLOSE, HA_CLOSE);
    if (close == NULL) {
        ha_lane_release(core, stream, index);
        return;
    }
    close->stated_through = lane->produced;
    close->claim = lane->claim;
}

static void after_look(struct ha_core *core, struct ha_stream *stream, uint32_t index, const struct ha_progress *found)
{
    struct ha_lane *lane = &stream->lanes[index];
    if (found->claim >= lane->seen.claim && found->through >= lane->seen.through)
        lane->seen = *found;
    lane->step = HA_STEP_IDLE;
    bool nobody = found->drainer.counter == 0 && stream->current;
    if (nobody || found->drainer.member == core->options.self)
        pause_lane(core, lane,
                   core->options.retry_ns); // the coordinator's timeout, or a rival that has not claimed yet
    else
        ha_lane_rival(core, stream, index);
}

static void ha_done_ok(struct ha_core *core, struct ha_stream *stream, uint32_t index, const struct ha_done *done)
{
    struct ha_lane *lane = &stream->lanes[index];
    switch (lane->step) {
    case HA_STEP_INIT:
        if (begin(core, stream, index, HA_STEP_READ, HA_READ) == NULL)
            ha_lane_release(core, stream, index);
        break;
    case HA_STEP_READ:
        after_read(core, stream, index, &done->progress);
        break;
    case HA_STEP_CLAIM:
        after_claim(core, stream, index);
        break;
    case HA_STEP_FENCE:
        stream->fence_marked = true;
        lane->step = HA_STEP_READY;
        go_on(core, stream, index);
        break;
    case HA_STEP_PRODUCE:
        after_produce(core, stream, index, done->through);
        break;
    case HA_STEP_CLOSE:
        // The reader of progress confirms it soon; until then the lane looks unproduced.
        lane->not_before_ns = core->now_ns + core->options.takeover_after_ns;
        lane->rival_wait_ns = 0;
        ha_lane_release(core, stream, index);
        break;
    case HA_STEP_LOOK:
        after_look(core, stream, index, &done->progress);
        break;
    case HA_STEP_IDLE:
    case HA_STEP_READY:
    case HA_STEP_STOPPED:
        break;
    }
}

static void emptied(struct ha_core *core, struct ha_stream *stream, const struct ha_done *done)
{
    stream->emptying = false;
    struct ha_copy *own = ha_own(core, stream);
    // A copy may have come while the mark was written.
    bool holds = own->there && own->end >= own->base;
    if (done->result != HA_OK || holds || stream->stored_end > done->through)
        return;
    stream->guard = done->through;
    *own = (struct ha_copy){.there = true, .base = done->through + 1, .end = done->through, .flags = HA_ENTRY_EMPTY};
    stream->stored_end = done->through;
}

void ha_done(struct ha_core *core, int64_t now_ns, const struct ha_done *done)
{
    ha_clock(core, now_ns);
    struct ha_stream *stream = ha_find(core, done->stream);
    if (stream == NULL)
        return;
    if (done->kind == HA_MARK_EMPTY) {
        emptied(core, stream, done);
        return;
    }
    uint32_t index = ha_lane_of(stream, done->lane_id);
    struct ha_lane *lane = &stream->lanes[index];
    if (done->ticket == 0 || index == HA_LANES_MAX || lane->ticket != done->ticket)
        return; // of a producer that was released meanwhile
    if (done->result == HA_OK) {
        ha_done_ok(core, stream, index, done);
        return;
    }
    bool look = done->result == HA_FENCED && lane->step != HA_STEP_LOOK;
    pause_lane(core, lane, core->options.retry_ns);
    ha_lane_release(core, stream, index);
    core->figures.fenced += look;
    if (look && !lane->releasing)
        begin(core, stream, index, HA_STEP_LOOK, HA_LOOK);
}
