// What the spool holds, told to the core: at the start, after a trim, and as the own stream grows.
#include "ha/cell_internal.h"

#include <stdlib.h>
#include <string.h>

// Of an own stream the records behind what is verified in every lane: retention may keep more, the protocol need not
// know.
static uint64_t base_of(const struct spool_stream_info *info)
{
    if (!info->own)
        return info->base_seq;
    uint64_t verified = info->lane_count > 0 ? UINT64_MAX : 0;
    for (uint32_t i = 0; i < info->lane_count; i++)
        verified = info->verified[i] < verified ? info->verified[i] : verified;
    verified = verified < info->end_seq ? verified : info->end_seq;
    return verified + 1 > info->base_seq ? verified + 1 : info->base_seq;
}

static void no_place(struct cell *cell, const char *stream)
{
    if (!cell->untold)
        sl_logf(SL_WARN, "ha", "more streams than the table holds: this one and others are taken up later",
                SL_STR("stream", stream));
    cell->untold = true;
}

static void tell(struct cell *cell, struct ha_id id, const struct spool_stream_info *info,
                 const struct spool_marks *marks)
{
    struct ha_head head;
    cell_head(cell, info, &head);
    if (!ha_held(cell->core, cell_now(), id, &head, base_of(info), info->end_seq, marks->fenced, marks->guard))
        no_place(cell, info->id);
}

void cell_tell(struct cell *cell, struct ha_id id)
{
    char stream[SPOOL_STREAM_ID_MAX];
    cell_text(cell, id, stream);
    struct spool_stream_info info;
    struct spool_marks marks = {0};
    struct sl_error err;
    const struct ha_stream *held = ha_find(cell->core, id);
    if (held == NULL || !spool_get_marks(cell->spool, stream, &marks, &err))
        return;
    if (spool_stream_find(cell->spool, stream, &info)) {
        tell(cell, id, &info, &marks); // what is on its way to the disk the core knows of, and hears when it is there
        return;
    }
    // All of it is deleted.
    uint64_t end = held->copies[cell->self].end;
    if (held->current || !held->copies[cell->self].there)
        return;
    bool known = ha_held(cell->core, cell_now(), id, &held->head, end + 1, end, marks.fenced, marks.guard);
    sl_assert(known); // it has a place
}

static bool all_scanned(const struct spool_stream_info *infos, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!infos[i].current && !infos[i].scanned)
            return false;
    return true;
}

static void tell_streams(struct cell *cell, const struct spool_stream_info *infos, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct ha_id id;
        struct spool_marks marks = {0};
        struct sl_error err;
        if (infos[i].current)
            continue;
        if (!cell_parse(cell, infos[i].id, &id)) {
            sl_logf(SL_WARN, "ha", "a stream of a node that is not in this cell: it is left as it is",
                    SL_STR("stream", infos[i].id));
            continue;
        }
        if (!spool_get_marks(cell->spool, infos[i].id, &marks, &err))
            sl_logf(SL_ERROR, "ha", "the marks of a stream cannot be read", SL_STR("stream", infos[i].id),
                    SL_STR("error", err.text));
        tell(cell, id, &infos[i], &marks);
    }
}

// Streams of which nothing but marks is left.
static void tell_marks(struct cell *cell)
{
    size_t count = spool_list_marks(cell->spool, NULL, 0);
    struct spool_marked *marked = calloc(count + 1, sizeof(*marked));
    sl_assert(marked != NULL);
    size_t filled = spool_list_marks(cell->spool, marked, count);
    for (size_t i = 0; i < filled && i < count; i++) {
        struct ha_id id;
        struct spool_stream_info info;
        const struct ha_head head = {0};
        uint64_t guard = marked[i].marks.guard;
        if (cell_parse(cell, marked[i].stream, &id) && !spool_stream_find(cell->spool, marked[i].stream, &info) &&
            !ha_held(cell->core, cell_now(), id, &head, guard + 1, guard, marked[i].marks.fenced, guard))
            no_place(cell, marked[i].stream);
    }
    free(marked);
}

bool cell_tell_all(struct cell *cell)
{
    size_t count = spool_streams(cell->spool, NULL, 0);
    struct spool_stream_info *infos = calloc(count + 1, sizeof(*infos));
    sl_assert(infos != NULL);
    size_t filled = spool_streams(cell->spool, infos, count);
    filled = filled < count ? filled : count;
    bool scanned = all_scanned(infos, filled);
    if (scanned) {
        tell_streams(cell, infos, filled);
        tell_marks(cell);
    }
    free(infos);
    return scanned;
}

void cell_tell_rest(struct cell *cell)
{
    if (!cell->untold)
        return;
    cell->untold = false;
    bool scanned = cell_tell_all(cell);
    sl_assert(scanned); // it was, and streams are only added
}

// ---- the own stream

static struct own_stream *own_stream(struct cell *cell, uint32_t incarnation)
{
    struct own_stream *own = &cell->own[incarnation % OWN_STREAMS];
    if (!own->there || own->incarnation != incarnation) {
        *own = (struct own_stream){.there = true, .incarnation = incarnation};
        bool known = cell_parse(cell, spool_incarnation_id(cell->spool, incarnation), &own->id);
        sl_assert(known);
    }
    return own;
}

// Again at a later tick when the table has no place: the stream itself is open, another one would find none either.
void cell_open(struct cell *cell, uint32_t incarnation)
{
    struct own_stream *own = own_stream(cell, incarnation);
    const char *stream = spool_incarnation_id(cell->spool, incarnation);
    struct spool_stream_info info;
    struct ha_head head;
    bool there = spool_stream_find(cell->spool, stream, &info);
    sl_assert(there);
    cell_head(cell, &info, &head);
    cell->incarnation = incarnation;
    bool again = cell->placeless;
    cell->placeless = !ha_open(cell->core, cell_now(), own->id, &head);
    if (cell->placeless) {
        if (!again)
            sl_logf(SL_ERROR, "ha", "more streams than the table holds: this node's own finds no place; trying again",
                    SL_STR("stream", stream));
        return;
    }
    if (again)
        sl_logf(SL_INFO, "ha", "this node's stream has a place in the table now", SL_STR("stream", stream));
    cell->options.kafka.set_drainer(cell->options.kafka.user, stream);
    if (incarnation > 0 && cell->options.on_incarnation != NULL)
        cell->options.on_incarnation(cell->options.user, incarnation, stream);
    if (own->appended > 0)
        ha_appended(cell->core, cell_now(), own->appended);
    if (own->synced > 0)
        ha_synced(cell->core, cell_now(), own->id, own->synced);
}

// A reload may have given the stream that is written another lane: it wants a drain.
void cell_look_for_lanes(struct cell *cell)
{
    struct ha_stream *current = cell->core->current;
    char stream[SPOOL_STREAM_ID_MAX];
    struct spool_stream_info info;
    if (current == NULL)
        return;
    cell_text(cell, current->id, stream);
    if (!spool_stream_find(cell->spool, stream, &info) || info.lane_count <= current->head.lane_count)
        return;
    struct ha_head head;
    const struct ha_copy *own = &current->copies[cell->self];
    cell_head(cell, &info, &head);
    bool known = ha_held(cell->core, cell_now(), current->id, &head, own->base, own->end, current->fence_marked, 0);
    sl_assert(known); // it has a place
}

void cell_frame(struct cell *cell, struct spool_frame *frame)
{
    struct own_stream *own = own_stream(cell, frame->incarnation);
    own->appended = frame->header.first_seq + frame->header.count - 1;
    tap_add(&cell->tap, frame, cell->options.tap_bytes, own->synced, own->incarnation);
    if (cell->core->current != NULL && own->incarnation == cell->incarnation)
        ha_appended(cell->core, cell_now(), own->appended);
}

void cell_synced(struct cell *cell, uint32_t incarnation, uint64_t through)
{
    struct own_stream *own = own_stream(cell, incarnation);
    own->synced = through;
    ha_synced(cell->core, cell_now(), own->id, through);
}

// ---- how far the own streams are in other zones, as requests see it

// Whether an answer waits for this peer, too, although another one has the records. It does for a peer in step, which
// is one that needs no longer than peer_wait to reach what another has: then a client that sends again there finds its
// ids. A slow one holds up no answer for longer than that.
static bool in_step(struct cell *cell, uint8_t peer, uint64_t end, uint64_t furthest)
{
    struct pace *pace = &cell->paces[peer];
    int64_t now_ns = cell_now(), most_ns = cell->options.peer_wait_ns;
    if (pace->mark == UINT64_MAX) { // a new session: first it has to reach what is there now
        pace->mark = furthest;
        pace->since_ns = now_ns;
    }
    if (end >= pace->mark) { // the mark of last time is reached
        pace->slow = pace->mark != 0 && now_ns - pace->since_ns > most_ns;
        pace->mark = end < furthest ? furthest : 0;
        pace->since_ns = now_ns;
    } else if (now_ns - pace->since_ns > most_ns) {
        pace->slow = true;
    }
    return !pace->slow;
}

static uint64_t position(struct cell *cell, const struct own_stream *own)
{
    uint64_t furthest = ha_peer_synced(cell->core, own->id);
    const struct ha_stream *current = cell->core->current;
    if (current == NULL || !ha_same(current->id, own->id))
        return furthest; // sealed: it moves no more
    uint64_t least = furthest;
    for (uint8_t peer = 0; peer < cell->members; peer++) {
        if (peer == cell->self || !cell->core->members[peer].up || !cell->core->members[peer].spoke)
            continue;
        uint64_t end = current->copies[peer].end;
        if (in_step(cell, peer, end, furthest) && end < least)
            least = end;
    }
    return least;
}

void cell_positions(struct cell *cell)
{
    for (size_t i = 0; i < OWN_STREAMS; i++) {
        struct own_stream *own = &cell->own[i];
        if (!own->there)
            continue;
        uint64_t peer_synced = position(cell, own);
        if (peer_synced > own->peer_synced) {
            own->peer_synced = peer_synced;
            cell->options.on_positions(cell->options.user, own->incarnation, peer_synced);
        }
    }
}
