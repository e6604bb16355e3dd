// The drain, as the core wants it, and Kafka's progress, as the reader of sluice.progress sees it.
#include "ha/cell_internal.h"

#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

static const char *word_of(enum ha_action_kind kind)
{
    static const char *const words[] = {
        [HA_INIT] = "init",       [HA_READ] = "read",   [HA_CLAIM] = "claim",
        [HA_PRODUCE] = "produce", [HA_CLOSE] = "close", [HA_LOOK] = "look",
    };
    return words[kind];
}

static void log_step(struct cell *cell, const struct ha_action *action, const char *stream, const char *lane)
{
    sl_logf(SL_DEBUG, "ha", "step of a drain", SL_STR("stream", stream), SL_STR("lane", lane),
            SL_STR("step", word_of(action->kind)), SL_UINT("from", action->first), SL_UINT("through", action->last));
    if (action->stream.member == cell->self)
        return;
    if (action->kind == HA_CLAIM)
        sl_logf(SL_WARN, "ha", "taking over what a silent node left", SL_STR("stream", stream), SL_STR("lane", lane),
                SL_UINT("from", action->stated_through + 1), SL_UINT("claim", action->claim));
    if (action->kind == HA_CLOSE)
        sl_logf(SL_WARN, "ha", "takeover done: this node's copy of the stream is in Kafka", SL_STR("stream", stream),
                SL_STR("lane", lane), SL_UINT("through", action->stated_through));
}

static void tombstone(struct cell *cell, const struct ha_action *action, const char *stream)
{
    const char *lanes[HA_LANES_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < action->head.lane_count; i++) {
        const char *name = cell_lane_name(cell, action->head.lane_ids[i]);
        if (name[0] != '\0')
            lanes[count++] = name;
    }
    cell->options.kafka.tombstone(cell->options.kafka.user, stream, lanes, count);
}

static enum cell_step step_of(enum ha_action_kind kind)
{
    switch (kind) {
    case HA_INIT:
        return CELL_INIT;
    case HA_READ:
        return CELL_READ;
    case HA_CLAIM:
        return CELL_CLAIM;
    case HA_PRODUCE:
        return CELL_RECORDS;
    case HA_CLOSE:
        return CELL_CLOSE;
    default:
        sl_assert(kind == HA_LOOK);
        return CELL_LOOK;
    }
}

static enum ha_action_kind kind_of(enum cell_step step)
{
    static const enum ha_action_kind kinds[] = {
        [CELL_INIT] = HA_INIT,       [CELL_READ] = HA_READ,   [CELL_CLAIM] = HA_CLAIM,
        [CELL_RECORDS] = HA_PRODUCE, [CELL_CLOSE] = HA_CLOSE, [CELL_LOOK] = HA_LOOK,
    };
    return kinds[step];
}

void cell_drain(struct cell *cell, const struct ha_action *action)
{
    const struct cell_kafka *kafka = &cell->options.kafka;
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, action->stream, stream);
    if (action->kind == HA_TOMBSTONE) {
        tombstone(cell, action, stream);
        return;
    }
    // A lane that nobody here has the name of has no records here either; the core never asks for it.
    const char *lane = cell_lane_name(cell, action->lane_id);
    sl_assert(lane[0] != '\0');
    if (action->kind == HA_RELEASE) {
        kafka->release(kafka->user, stream, lane);
        return;
    }
    log_step(cell, action, stream, lane);
    struct cell_order order = {.step = step_of(action->kind),
                               .stream = stream,
                               .lane = lane,
                               .ticket = action->ticket,
                               .claim = action->claim,
                               .through = action->stated_through,
                               .first = action->first,
                               .last = action->last == UINT64_MAX ? 0 : action->last};
    kafka->order(kafka->user, &order);
}

// ---- answers

static struct ha_progress progress_of(struct cell *cell, uint64_t through, uint64_t claim, const char *drainer)
{
    struct ha_progress progress = {.through = through, .claim = claim};
    (void)cell_parse(cell, drainer, &progress.drainer);
    return progress;
}

void cell_on_done(struct cell *cell, const struct cell_done *done)
{
    static const enum ha_result results[] = {[CELL_OK] = HA_OK, [CELL_FAILED] = HA_FAILED, [CELL_FENCED] = HA_FENCED};
    static const char *const words[] = {[CELL_OK] = "ok", [CELL_FAILED] = "failed", [CELL_FENCED] = "fenced"};
    sl_logf(SL_DEBUG, "ha", "answer to a step", SL_STR("stream", done->stream), SL_STR("lane", done->lane),
            SL_STR("step", word_of(kind_of(done->step))), SL_STR("result", words[done->result]),
            SL_UINT("through", done->through));
    struct done_post *post = malloc(sizeof(*post));
    sl_assert(post != NULL);
    // Names of members do not change, so they may be read here.
    *post = (struct done_post){.post.kind = POST_DONE,
                               .done = {.kind = kind_of(done->step),
                                        .lane_id = sl_crc32c(done->lane, strlen(done->lane)),
                                        .ticket = done->ticket,
                                        .result = results[done->result],
                                        .through = done->through}};
    if (done->progress.found)
        post->done.progress = progress_of(cell, done->progress.through, done->progress.claim, done->progress.drainer);
    if (cell_parse(cell, done->stream, &post->done.stream))
        cell_post(cell, &post->post);
    else
        free(post);
}

void cell_on_progress(struct cell *cell, const char *stream, const char *lane, const struct cell_progress *progress,
                      bool gone)
{
    struct ha_id id;
    if (!cell_parse(cell, stream, &id))
        return; // another cell's
    struct progress_post *post = calloc(1, sizeof(*post));
    sl_assert(post != NULL);
    post->post.kind = POST_PROGRESS;
    snprintf(post->stream, sizeof(post->stream), "%s", stream);
    snprintf(post->lane, sizeof(post->lane), "%s", lane);
    post->gone = gone;
    if (!gone) {
        snprintf(post->drainer, sizeof(post->drainer), "%s", progress->drainer);
        post->through = progress->through;
        post->claim = progress->claim;
    }
    cell_post(cell, &post->post);
}

// ---- the last record of each lane

static struct seen *find_seen(struct cell *cell, struct ha_id stream, uint32_t lane_id)
{
    for (size_t i = 0; i < cell->seen_count; i++)
        if (ha_same(cell->seen[i].stream, stream) && cell->seen[i].lane_id == lane_id)
            return &cell->seen[i];
    return NULL;
}

static struct seen *made_seen(struct cell *cell, struct ha_id stream, uint32_t lane_id)
{
    struct seen *seen = find_seen(cell, stream, lane_id);
    if (seen != NULL)
        return seen;
    if (cell->seen_count == cell->seen_capacity) {
        cell->seen_capacity = cell->seen_capacity == 0 ? 64 : 2 * cell->seen_capacity;
        cell->seen = realloc(cell->seen, cell->seen_capacity * sizeof(*cell->seen));
        sl_assert(cell->seen != NULL);
    }
    seen = &cell->seen[cell->seen_count++];
    *seen = (struct seen){.stream = stream, .lane_id = lane_id};
    return seen;
}

void cell_take_progress(struct cell *cell, const struct progress_post *post)
{
    struct ha_id id;
    if (!cell_parse(cell, post->stream, &id))
        return;
    uint32_t lane_id = cell_lane_id(cell, post->lane);
    struct ha_progress progress = progress_of(cell, post->through, post->claim, post->drainer);
    if (post->gone) {
        struct seen *seen = find_seen(cell, id, lane_id);
        if (seen != NULL)
            *seen = cell->seen[--cell->seen_count];
        ha_saw_progress(cell->core, cell_now(), id, lane_id, &progress, true);
        // Every member recorded that it holds nothing of the stream and takes nothing: the marks have done their work.
        const struct ha_stream *stream = ha_find(cell->core, id);
        if (stream == NULL || stream->copies[cell->self].end < stream->copies[cell->self].base)
            disk_job(cell, JOB_DROP_MARKS, &(struct ha_action){.stream = id});
        return;
    }
    made_seen(cell, id, lane_id)->progress = progress;
    ha_saw_progress(cell->core, cell_now(), id, lane_id, &progress, false);
}

void cell_recall(struct cell *cell, const struct ha_action *action)
{
    for (size_t i = 0; i < cell->seen_count; i++)
        if (ha_same(cell->seen[i].stream, action->stream))
            ha_saw_progress(cell->core, cell_now(), action->stream, cell->seen[i].lane_id, &cell->seen[i].progress,
                            false);
}
