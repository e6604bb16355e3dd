// What becomes of copies whose records are produced: they are shortened; when nothing is left of a stream that its
// owner writes no more, that is recorded durably; when every member recorded it, the stream's progress is removed from
// Kafka.
//
// Why so careful: progress is what keeps a copy that turns up late from being produced again. It may go only when no
// copy can turn up: every member promised to take nothing at or below the `through` that it recorded.
#include "ha/core_internal.h"

static void trim(struct ha_core *core, struct ha_stream *stream)
{
    const struct ha_copy *own = ha_own(core, stream);
    uint64_t through = ha_through(stream);
    uint64_t last = through < own->end ? through : own->end;
    if (!own->there || own->end < own->base || last < own->base)
        return;
    struct ha_action *action = ha_emit(core, HA_TRIM, stream);
    if (action != NULL)
        action->last = last;
}

static bool owner_is_done(const struct ha_core *core, const struct ha_stream *stream)
{
    uint8_t owner = stream->id.member;
    if (owner == core->options.self)
        return !stream->current && !stream->kept;
    return ha_alive(core, owner) && core->members[owner].spoke && !ha_holds_on(stream, owner);
}

static void mark_empty(struct ha_core *core, struct ha_stream *stream)
{
    const struct ha_copy *own = ha_own(core, stream);
    uint64_t through = ha_through(stream);
    bool holds = own->there && (own->end >= own->base || stream->stored_end > own->end);
    bool asked = own->there;
    for (uint8_t i = 0; i < core->options.members; i++) {
        const struct ha_copy *copy = &stream->copies[i];
        if (copy->there && copy->end > through)
            return;
        asked |= copy->there && (copy->flags & HA_ENTRY_EMPTY);
    }
    bool recorded = own->there && (own->flags & HA_ENTRY_EMPTY) && own->end == through;
    bool draining = false;
    for (uint32_t i = 0; i < stream->head.lane_count; i++)
        draining |= ha_lane_active(&stream->lanes[i]);
    if (draining || holds || !asked || recorded || stream->emptying || stream->tombstoned ||
        !owner_is_done(core, stream))
        return;
    struct ha_action *action = ha_emit(core, HA_MARK_EMPTY, stream);
    if (action == NULL)
        return;
    action->last = through;
    stream->emptying = true;
}

static void tombstone(struct ha_core *core, struct ha_stream *stream)
{
    uint64_t through = ha_through(stream);
    for (uint8_t i = 0; i < core->options.members; i++) {
        const struct ha_copy *copy = &stream->copies[i];
        if (!copy->there || !(copy->flags & HA_ENTRY_EMPTY) || copy->end != through)
            return;
    }
    if (stream->tombstoned) {
        *ha_own(core, stream) = (struct ha_copy){0}; // the place is free when the others have seen it, too
        return;
    }
    for (uint8_t i = 0; i < core->options.self; i++)
        if (ha_alive(core, i))
            return;
    if (core->kafka_lost_ns == 0 && ha_emit(core, HA_TOMBSTONE, stream) != NULL)
        core->figures.tombstones++;
}

void ha_shorten(struct ha_core *core)
{
    if (core->now_ns - core->trimmed_ns < core->options.trim_every_ns)
        return;
    core->trimmed_ns = core->now_ns;
    HA_EACH_STREAM(core, stream)
    {
        if (stream->kept && !ha_unproduced(stream, ha_own(core, stream)))
            stream->kept = false;
        trim(core, stream);
        mark_empty(core, stream);
        tombstone(core, stream);
    }
}
